//! Golden scripts (`master/testscripts/`): blocks of lines, a line `---`, and what they answered and wrote. `UPDATE=1`
//! writes the answers anew; read the difference before you commit it.
//!
//! A line is a verb, a path or number, and `key=value` or bare flags. `as=uid:gid:group,group` says who asks,
//! `request=client.sequence.lowest` that it is a client's. Paths are resolved by the superuser.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::{World, effects, genesis, server};
use crate::command::{
    Activate, Allocate, Attributes, Caller, Change, Command, CommitLength, Discard, DiskFailed, EmptyTrash,
    EndClient, ForgetChunk, Freeze, Link, Lock, LockKind, Locked, Make, NextChunk, OpenClient, Propose,
    PunchHole, Purge, RegisterServer, Release, RemoveDirectory, RemoveServer, RemoveXattr, Rename, Reply,
    RequestId, Restore, Retain, RotateKey, SetAttributes, SetXattr, Unlink,
};
use crate::state::{self, PageRequest};
use crate::store::records::Kind;
use crate::store::{Batch, MemoryStore, Store as _, View};
use dfs_proto::{ChunkHandle, ClientId, InodeId};

#[test]
fn the_scripts_give_their_golden_answers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testscripts");
    let mut scripts: Vec<_> = std::fs::read_dir(root)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    for path in scripts {
        let golden = std::fs::read_to_string(&path).unwrap();
        let found = run(&golden);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, found).unwrap();
        } else {
            assert!(
                golden == found,
                "{}:\n{}",
                path.display(),
                first_difference(&golden, &found)
            );
        }
    }
}

fn first_difference(golden: &str, found: &str) -> String {
    let pair = golden
        .lines()
        .zip(found.lines())
        .enumerate()
        .find(|(_, (a, b))| a != b);
    pair.map_or("one is longer".into(), |(n, (a, b))| {
        format!("line {}\n  golden {a}\n  found  {b}", n + 1)
    })
}

fn run(script: &str) -> String {
    let mut world = World::empty();
    let mut out = String::new();
    for block in script.trim_end().split("\n\n") {
        let input = block.split("\n---").next().unwrap();
        writeln!(out, "{input}\n---").unwrap();
        for line in input.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
            out.push_str(&answer(&mut world, &Line::parse(line)));
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

struct Line<'a> {
    verb: &'a str,
    words: Vec<&'a str>,
    options: BTreeMap<&'a str, &'a str>,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Line<'a> {
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap();
        let (options, words): (Vec<_>, Vec<_>) = words.partition(|w| w.contains('='));
        Line {
            verb,
            words,
            options: options.into_iter().map(|o| o.split_once('=').unwrap()).collect(),
        }
    }

    fn has(&self, flag: &str) -> bool {
        self.words.contains(&flag)
    }

    fn text(&self, key: &str) -> &'a str {
        self.options.get(key).copied().unwrap_or_default()
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        self.options.get(key).and_then(|v| v.parse().ok())
    }

    fn mode(&self) -> Option<u32> {
        self.options
            .get("mode")
            .map(|m| u32::from_str_radix(m, 8).unwrap())
    }

    fn members(&self) -> Vec<u32> {
        numbers(self.text("members"))
    }

    fn holders(&self) -> Vec<u64> {
        let list = self.text("holders");
        list.split(',').filter_map(|n| n.parse().ok()).collect()
    }

    fn caller(&self) -> Caller {
        let mut parts = self.text("as").split(':');
        let mut next = || parts.next().and_then(|p| p.parse().ok()).unwrap_or_default();
        let (uid, gid) = (next(), next());
        Caller {
            uid,
            gid,
            groups: self.text("as").split(':').nth(2).map(numbers).unwrap_or_default(),
        }
    }

    fn request(&self) -> Option<RequestId> {
        let parts: Vec<u64> = self
            .options
            .get("request")?
            .split('.')
            .map(|p| p.parse().unwrap())
            .collect();
        Some(RequestId {
            client: parts[0],
            sequence: parts[1],
            lowest_unanswered: parts.get(2).copied().unwrap_or(1),
        })
    }

    fn first<T: std::str::FromStr>(&self) -> T {
        self.words[0].parse().ok().unwrap()
    }
}

fn numbers(list: &str) -> Vec<u32> {
    list.split(',').filter_map(|n| n.parse().ok()).collect()
}

fn inode(world: &World, path: &str) -> u64 {
    if let Some(number) = path.strip_prefix('#') {
        return number.parse().unwrap();
    }
    state::resolve(
        &world.view(),
        &Caller::ROOT,
        InodeId::ROOT,
        path.as_bytes(),
        false,
    )
    .map_or(0, |r| r.attributes.inode)
}

/// Parent and last name of a path.
fn place(world: &World, path: &str) -> (u64, Vec<u8>) {
    let (parent, name) = path.rsplit_once('/').unwrap();
    let parent = if parent.is_empty() { "/" } else { parent };
    (inode(world, parent), name.as_bytes().to_vec())
}

fn answer(world: &mut World, line: &Line<'_>) -> String {
    if let Some(text) = query(world, line) {
        return text;
    }
    let command = Command {
        time_ns: 0,
        request: line.request(),
        caller: Some(line.caller()),
        change: Some(change(world, line)),
    };
    let before = copy(&world.store);
    let (outcome, batch) = world.apply(command);
    world.assert_sound();
    let mut text = match outcome {
        Ok(reply) => format!("{}\n", reply_text(&reply)),
        Err(e) => format!("refused: {:?} {}\n", e.code, e.message),
    };
    for effect in effects::describe(&View::new(&before), &batch) {
        writeln!(text, "  {effect}").unwrap();
    }
    text
}

fn copy(store: &MemoryStore) -> MemoryStore {
    let mut copy = MemoryStore::new();
    let mut batch = Batch::default();
    for pair in store.scan(&[1], &[0xff]) {
        let (key, value) = pair.unwrap();
        batch.put(key, value);
    }
    copy.commit(&batch, store.applied().max(1)).unwrap();
    copy
}

fn change(world: &World, line: &Line<'_>) -> Change {
    let target = || inode(world, line.words[0]);
    let (parent, name) = match line.words.first() {
        Some(path) if path.starts_with('/') => place(world, path),
        _ => (0, Vec::new()),
    };
    match line.verb {
        "genesis" => genesis().into(),
        "open" => OpenClient {
            nonce: line.number("nonce").unwrap_or_default(),
            name: line.text("name").into(),
            host: line.text("host").into(),
            mount: line.has("mount"),
        }
        .into(),
        "end" => EndClient { client: line.first() }.into(),
        "file" | "mkdir" | "fifo" | "symlink" | "device" => Change::Make(make(line, parent, name)),
        "link" => {
            let (parent, name) = place(world, line.words[1]);
            Link {
                inode: target(),
                parent,
                name,
            }
            .into()
        }
        "unlink" => Unlink {
            parent,
            name,
            holders: line.holders(),
            dying: line.number("dying"),
        }
        .into(),
        "rmdir" => RemoveDirectory { parent, name }.into(),
        "rename" => {
            let (new_parent, new_name) = place(world, line.words[1]);
            Rename {
                parent,
                name,
                new_parent,
                new_name,
                no_replace: line.has("no_replace"),
                exchange: line.has("exchange"),
                holders: line.holders(),
                dying: line.number("dying"),
            }
            .into()
        }
        "set" => set(line, target()).into(),
        "setxattr" => SetXattr {
            inode: target(),
            name: line.words[1].into(),
            value: line.text("value").into(),
            create: line.has("create"),
            replace: line.has("replace"),
        }
        .into(),
        "removexattr" => RemoveXattr {
            inode: target(),
            name: line.words[1].into(),
        }
        .into(),
        "release" => Release {
            inodes: line.words.iter().map(|path| inode(world, path)).collect(),
        }
        .into(),
        "lock" | "flock" => lock(line, target()).into(),
        "punch" => PunchHole {
            inode: target(),
            offset: line.number("offset").unwrap_or_default(),
            length: line.number("length").unwrap_or_default(),
            mtime_ns: line.number("mtime"),
            by_handle: line.has("by_handle"),
            tail: line.has("tail"),
        }
        .into(),
        "discard" | "restore" | "empty" | "purge" | "retain" => trash_change(world, line, target),
        _ => chunk_change(line, target),
    }
}

fn trash_change(world: &World, line: &Line<'_>, target: impl Fn() -> u64) -> Change {
    match line.verb {
        "discard" => {
            let (parent, name) = place(world, line.words[0]);
            Discard {
                parent,
                name,
                path: line.words[0].into(),
                recursive: line.has("recursive"),
                skip: line.has("skip"),
                keep_ns: line.number("keep").unwrap_or(1_000),
                holders: line.holders(),
                dying: line.number("dying"),
            }
            .into()
        }
        "restore" => {
            let to = line.words.get(1).map(|path| place(world, path));
            let (parent, name) = to.unwrap_or_default();
            Restore {
                entry: line.first(),
                parent,
                name,
            }
            .into()
        }
        "empty" => EmptyTrash {
            entries: line.words.iter().map(|w| w.parse().unwrap()).collect(),
        }
        .into(),
        "purge" => {
            let entry = line.first();
            let max = line.number("max").unwrap_or(100);
            let steps = state::purgeable(&world.view(), entry, None, max).0;
            Purge { entry, steps }.into()
        }
        _ => Retain {
            inode: target(),
            keep_s: line.number("keep"),
        }
        .into(),
    }
}

fn make(line: &Line<'_>, parent: u64, name: Vec<u8>) -> Make {
    let kind = match line.verb {
        "file" => Kind::File,
        "mkdir" => Kind::Directory,
        "fifo" => Kind::Fifo,
        "symlink" => Kind::Symlink,
        _ => Kind::BlockDevice,
    };
    Make {
        parent,
        name,
        kind: kind as i32,
        mode: line.mode().unwrap_or(0o755),
        rdev: line.number("rdev").unwrap_or_default(),
        target: line.text("target").into(),
        exclusive: line.has("exclusive"),
        goal: line.number("goal").unwrap_or_default(),
        truncate: line.has("truncate"),
        write: line.has("write"),
        members: line.members(),
        access: line.number("access").unwrap_or_default(),
    }
}

fn set(line: &Line<'_>, inode: u64) -> SetAttributes {
    SetAttributes {
        inode,
        mode: line.mode(),
        uid: line.number("uid"),
        gid: line.number("gid"),
        size: line.number("size"),
        atime_ns: line.number("atime"),
        atime_now: line.has("atime_now"),
        mtime_ns: line.number("mtime"),
        mtime_now: line.has("mtime_now"),
        goal: line.number("goal"),
        by_handle: line.has("by_handle"),
        kill_privileges: line.has("kill_privileges"),
    }
}

fn lock(line: &Line<'_>, inode: u64) -> Lock {
    let kind = match line.words[1] {
        "shared" => LockKind::Shared,
        "exclusive" => LockKind::Exclusive,
        _ => LockKind::Unlock,
    };
    Lock {
        inode,
        owner: line.number("owner").unwrap_or_default(),
        pid: line.number("pid").unwrap_or_default(),
        start: line.number("start").unwrap_or_default(),
        end: line.number("end").unwrap_or(u64::MAX),
        kind: kind as i32,
        flock: line.verb == "flock",
    }
}

fn chunk_change(line: &Line<'_>, target: impl Fn() -> u64) -> Change {
    match line.verb {
        "allocate" => Allocate {
            inode: target(),
            offset: line.number("offset").unwrap_or_default(),
            members: line.members(),
            instead_of: line.number("instead_of").unwrap_or_default(),
            by_handle: line.has("by_handle"),
        }
        .into(),
        "next" => NextChunk {
            inode: target(),
            full: line.number("full").unwrap_or_default(),
            version: line.number("version").unwrap_or(1),
            length: line.number("length").unwrap_or_default(),
            members: line.members(),
            by_handle: line.has("by_handle"),
        }
        .into(),
        "commit" => CommitLength {
            inode: target(),
            chunk: line.number("chunk").unwrap_or_default(),
            version: line.number("version").unwrap_or(1),
            length: line.number("length").unwrap_or_default(),
            durable: line.has("durable"),
            mtime_ns: line.number("mtime"),
            by_handle: line.has("by_handle"),
            unused: line.has("unused"),
        }
        .into(),
        "propose" => Propose {
            chunk: line.first(),
            base: line.number("base").unwrap_or_default(),
            members: line.members(),
        }
        .into(),
        "activate" => Activate {
            chunk: line.first(),
            version: line.number("version").unwrap_or_default(),
            length: line.number("length").unwrap_or_default(),
            loss: line.number("loss").unwrap_or_default(),
        }
        .into(),
        "freeze" => Freeze { chunk: line.first() }.into(),
        "forget" => ForgetChunk { chunk: line.first() }.into(),
        "server" => RegisterServer {
            replace: line.has("replace"),
            addr: line.options.get("addr").map_or("s:1".into(), |a| (*a).into()),
            ..server(line.first())
        }
        .into(),
        "disk_failed" => DiskFailed {
            node: line.first(),
            disk: vec![0x10 + line.first::<u8>(); 16],
        }
        .into(),
        "remove_server" => RemoveServer { node: line.first() }.into(),
        "rotate" => RotateKey {
            id: line.first(),
            secret: vec![9; 32],
        }
        .into(),
        other => panic!("no verb {other}"),
    }
}

fn reply_text(reply: &Reply) -> String {
    match reply {
        Reply::Done(_) => "done".into(),
        Reply::Made(m) => {
            let what = if m.created { "created" } else { "opened" };
            let slot = m.slot.map(|s| format!(" chunk {}", s.chunk)).unwrap_or_default();
            format!("{what} {}{slot}", brief(&m.attributes))
        }
        Reply::Changed(c) if c.truncating == 0 => format!("changed {}", brief(&c.attributes)),
        Reply::Changed(c) => format!(
            "changed {} when version {} of chunk {} is active",
            brief(&c.attributes),
            c.truncating_version,
            c.truncating
        ),
        Reply::Allocated(s) => format!("chunk {} at {} for {}", s.chunk, s.offset, s.span),
        Reply::Committed(c) => format!("size {}", c.size),
        Reply::Client(c) => format!("client {}", c.client),
        Reply::Server(s) => format!("server {}", s.node),
        Reply::Proposed(p) => format!("accepted {} newest {} active {}", p.accepted, p.newest, p.active),
        Reply::Locked(Locked {
            conflict: Some(c), ..
        }) => format!(
            "{:?} {}..={} of {}.{} pid {} is in the way",
            c.kind(),
            c.start,
            c.end,
            c.client,
            c.owner,
            c.pid
        ),
        Reply::Locked(l) => format!("locked{}", if l.freed { ", freed" } else { "" }),
        Reply::Purged(p) => format!("{} gone", p.gone),
        Reply::Activated(a) => format!("active, shrunk {} lost {}", a.shrunk_bytes, a.lost_bytes),
    }
}

fn brief(a: &Attributes) -> String {
    format!(
        "inode {} {:?} {:04o} {}:{} links {} size {}",
        a.inode,
        a.kind(),
        a.mode,
        a.uid,
        a.gid,
        a.nlink,
        a.size
    )
}

fn query(world: &World, line: &Line<'_>) -> Option<String> {
    let view = world.view();
    let caller = line.caller();
    let path = line.words.first().copied().unwrap_or("/");
    let id = || InodeId(inode(world, path));
    let result = match line.verb {
        "stat" => state::get_attributes(&view, id())
            .map(|a| format!("{} times {} {} {}", brief(&a), a.atime_ns, a.mtime_ns, a.ctime_ns)),
        "resolve" => state::resolve(
            &view,
            &caller,
            InodeId::ROOT,
            path.as_bytes(),
            !line.has("nofollow"),
        )
        .map(|r| {
            let parent = r.parent.map_or("none".into(), |p| p.to_string());
            let name = String::from_utf8_lossy(&r.name).into_owned();
            format!("{} parent {parent} name {name:?}", brief(&r.attributes))
        }),
        "ls" => state::read_directory(
            &view,
            &caller,
            id(),
            PageRequest {
                cursor: line.number("cursor").unwrap_or_default(),
                entries_max: line.number("max").unwrap_or(100),
                attributes: false,
            },
        )
        .map(|page| {
            let names = page
                .entries
                .iter()
                .map(|e| format!("{}@{}", String::from_utf8_lossy(&e.name), e.cursor));
            format!("{} end {}", names.collect::<Vec<_>>().join(" "), page.end)
        }),
        "getxattr" => state::get_xattr(&view, &caller, id(), line.words[1].as_bytes())
            .map(|v| String::from_utf8_lossy(&v).into_owned()),
        "listxattr" => state::list_xattr(&view, &caller, id()).map(|names| {
            names
                .iter()
                .map(|n| String::from_utf8_lossy(n))
                .collect::<Vec<_>>()
                .join(" ")
        }),
        "readlink" => state::read_link(&view, id()).map(|t| String::from_utf8_lossy(&t).into_owned()),
        "locate" => located(world, line, id()),
        "testlock" => tested(world, line, id()),
        "holders" => Ok(format!("{:?} hold it", state::holders(&view, id()))),
        "indexes" => Ok(format!(
            "proposals {:?} unreferenced {:?}",
            state::proposals_after(&view, ChunkHandle(0), 10),
            state::unreferenced_before(&view, None, i64::MAX, 10)
        )),
        _ => return None,
    };
    Some(match result {
        Ok(text) => format!("{text}\n"),
        Err(e) => format!("refused: {:?} {}\n", e.code, e.message),
    })
}

fn tested(world: &World, line: &Line<'_>, inode: InodeId) -> dfs_proto::Result<String> {
    let client = ClientId(line.number("client").unwrap_or_default());
    let conflict = state::lock_conflict(&world.view(), client, &lock(line, inode.0))?;
    Ok(conflict.map_or("free".into(), |c| {
        format!("{:?} {}..={}", c.kind(), c.start, c.end)
    }))
}

fn located(world: &World, line: &Line<'_>, inode: InodeId) -> dfs_proto::Result<String> {
    let (offset, length) = (
        line.number("offset").unwrap_or_default(),
        line.number("length").unwrap_or(u64::MAX),
    );
    let caller = line.caller();
    let asker = (!line.has("by_handle")).then_some(&caller);
    let found = state::locate(&world.view(), asker, inode, offset, length)?;
    let extents = found.extents.iter().map(|e| {
        let active = &e.chunk.active;
        format!(
            " [{} chunk {} version {} on {:?} length {}]",
            e.offset, e.handle.0, active.version, active.members, active.length
        )
    });
    Ok(format!("size {}{}", found.size, extents.collect::<String>()))
}
