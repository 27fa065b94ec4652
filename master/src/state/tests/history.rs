//! Random histories: every state is sound, a history applied again gives the same bytes, and commands applied in one
//! group give the same bytes as one by one.
//!
//! A roll of dice becomes a command that mostly fits the state it meets: random numbers alone would be refused nearly
//! always and prove nothing. Every kind of change must have taken effect at the end.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::{CHUNK_BYTES, World, make};
use crate::command::{
    Activate, Allocate, Caller, Change, Command, CommitLength, Discard, EmptyTrash, EndClient, ForgetChunk,
    ForgetChunks, Freeze, Link, Lock, Make, NextChunk, OpenClient, Propose, PunchHole, Purge, Release,
    RemoveDirectory, RemoveXattr, Rename, RequestId, Restore, Retain, SetAttributes, SetXattr, Unlink,
};
use crate::state::{self, PageRequest, tables};
use crate::store::records::{Chunk, Dentry, Inode, Kind};
use crate::store::{MemoryStore, Read as _, Store as _, Txn, View, keys};
use dfs_proto::{ChunkHandle, ClientId, InodeId};

/// Random numbers, taken one by one.
struct Dice(Vec<u32>);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0.pop().unwrap_or_default() as usize % sides
    }

    fn often(&mut self) -> bool {
        self.roll(8) > 0
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.roll(from.len())].clone())
    }
}

/// What there is to act on.
struct Scene {
    directories: Vec<u64>,
    files: Vec<u64>,
    names: Vec<(u64, Vec<u8>)>,
    chunks: Vec<(u64, Chunk)>,
    proposed: Vec<(u64, Chunk)>,
    free: Vec<u64>,
    held: Vec<u64>,
}

fn scene(world: &World) -> Scene {
    let view = world.view();
    let inodes: Vec<(u64, Inode)> = view
        .scan_prefix(&[keys::INODE])
        .map(|(key, value)| (keys::last_number(&key), tables::decode(&value)))
        .collect();
    let of = |kind| {
        inodes
            .iter()
            .filter(move |(_, i)| i.kind() == kind)
            .map(|(id, _)| *id)
            .collect()
    };
    let names = view.scan_prefix(&[keys::DENTRY]).map(|(key, value)| {
        assert_ne!(tables::decode::<Dentry>(&value).cursor, 0);
        (keys::number(&key[1..9]), key[9..].to_vec())
    });
    let all = state::chunks_after(&view, ChunkHandle(0), usize::MAX);
    let in_use = |c: &Chunk| c.references > 0 && !c.frozen;
    let chunks: Vec<_> = all
        .iter()
        .filter(|(_, c)| in_use(c))
        .map(|(handle, c)| (handle.0, c.clone()))
        .collect();
    Scene {
        held: inodes
            .iter()
            .filter(|(_, i)| i.nlink == 0)
            .map(|(id, _)| *id)
            .collect(),
        directories: of(Kind::Directory),
        files: of(Kind::File),
        names: names.collect(),
        proposed: chunks
            .iter()
            .filter(|(_, c)| c.proposed.is_some())
            .cloned()
            .collect(),
        chunks,
        free: all
            .iter()
            .filter(|(_, c)| c.references == 0)
            .map(|(handle, _)| handle.0)
            .collect(),
    }
}

fn command(world: &World, sequence: u64, dice: &mut Dice) -> Command {
    let uid = if dice.often() { 0 } else { 5 };
    let lowest = sequence.saturating_sub(4).max(1);
    let again = !dice.often();
    let change = change(world, &scene(world), dice).unwrap_or_else(|| {
        OpenClient {
            nonce: 7,
            ..OpenClient::default()
        }
        .into()
    });
    let request = RequestId {
        client: live_client(world).unwrap_or(1),
        sequence: if again {
            sequence.saturating_sub(2).max(1)
        } else {
            sequence
        },
        lowest_unanswered: lowest,
    };
    Command {
        time_ns: 0,
        request: (!matches!(change, Change::OpenClient(_))).then_some(request),
        caller: Some(Caller {
            uid,
            gid: uid,
            groups: vec![2],
        }),
        change: Some(change),
    }
}

fn live_client(world: &World) -> Option<u64> {
    state::clients(&world.view()).first().map(|(id, _)| id.0)
}

/// `None` where the scene has nothing to act on, or its session is gone.
fn change(world: &World, scene: &Scene, dice: &mut Dice) -> Option<Change> {
    let client = live_client(world)?;
    Some(match dice.roll(47) {
        36..39 => appended(scene, dice)?,
        39..47 => trashed(world, scene, dice)?,
        30..36 => mounted(scene, client, dice)?,
        0..8 => named(scene, dice)?,
        8..11 => renamed(scene, dice)?,
        11 => SetAttributes {
            inode: dice.pick(&scene.files)?,
            mode: Some(0o600 | dice.roll(0o10000) as u32),
            gid: dice.often().then_some(2),
            mtime_now: true,
            ..SetAttributes::default()
        }
        .into(),
        12 => SetXattr {
            inode: dice.pick(&scene.files)?,
            name: attribute(dice),
            value: vec![1; dice.roll(9)],
            ..SetXattr::default()
        }
        .into(),
        13 => RemoveXattr {
            inode: dice.pick(&scene.files)?,
            name: attribute(dice),
        }
        .into(),
        14..18 => Allocate {
            inode: dice.pick(&scene.files)?,
            offset: size(dice),
            members: members(dice),
            instead_of: dice
                .pick(&scene.chunks)
                .map(|(handle, _)| handle)
                .unwrap_or_default(),
            by_handle: false,
        }
        .into(),
        18..22 => committed(scene, dice)?,
        22..24 => SetAttributes {
            inode: dice.pick(&scene.files)?,
            size: Some(size(dice)),
            ..SetAttributes::default()
        }
        .into(),
        24..26 => configured(scene, dice)?,
        26..28 => activated(scene, dice)?,
        28 => ForgetChunk {
            chunk: dice.pick(&scene.free)?,
        }
        .into(),
        _ if dice.often() => EndClient { client }.into(),
        _ => Freeze {
            chunk: dice.pick(&scene.chunks)?.0,
        }
        .into(),
    })
}

/// Records go on: in the last chunk, or behind one that is said to be full.
fn appended(scene: &Scene, dice: &mut Dice) -> Option<Change> {
    let full = dice.pick(&scene.chunks);
    let of_file = full.as_ref().map(|(_, chunk)| chunk.inode);
    let full = full.filter(|_| dice.often());
    let next = NextChunk {
        inode: of_file.or_else(|| dice.pick(&scene.files))?,
        full: full.as_ref().map_or(0, |(handle, _)| *handle),
        version: full.as_ref().map_or(0, |(_, chunk)| chunk.active.version),
        length: full.map_or(0, |(_, chunk)| chunk.active.length + dice.roll(100) as u64),
        members: members(dice),
        by_handle: false,
    };
    Some(next.into())
}

fn attribute(dice: &mut Dice) -> Vec<u8> {
    dice.pick(&[b"user.a".to_vec(), b"user.b".to_vec()])
        .unwrap_or_default()
}

fn name(dice: &mut Dice) -> String {
    dice.pick(&["a", "b", "c", "d"]).unwrap_or_default().into()
}

fn size(dice: &mut Dice) -> u64 {
    let slots = dice.roll(4) as u64 * CHUNK_BYTES;
    if dice.roll(2) == 0 {
        slots
    } else {
        slots + dice.roll(CHUNK_BYTES as usize) as u64
    }
}

fn members(dice: &mut Dice) -> Vec<u32> {
    let all = [vec![1, 2], vec![2, 3], vec![3, 1], vec![1, 2, 3], vec![3]];
    dice.pick(&all).unwrap_or_default()
}

fn named(scene: &Scene, dice: &mut Dice) -> Option<Change> {
    let parent = dice.pick(&scene.directories)?;
    let name = name(dice);
    Some(match dice.roll(8) {
        0 => make(parent, &name, Kind::Directory, 0o777).into(),
        1 => make(parent, &name, Kind::Symlink, 0o777).into(),
        2..5 => Make {
            truncate: !dice.often(),
            members: if dice.often() { members(dice) } else { Vec::new() },
            ..make(parent, &name, Kind::File, 0o666)
        }
        .into(),
        5 => Link {
            inode: dice.pick(&scene.files)?,
            parent,
            name: name.into(),
        }
        .into(),
        6 => {
            let (parent, name) = dice.pick(&scene.names)?;
            Unlink {
                parent,
                name,
                holders: holders(dice),
                dying: None,
            }
            .into()
        }
        _ => {
            let (parent, name) = dice.pick(&scene.names)?;
            RemoveDirectory { parent, name }.into()
        }
    })
}

/// Sessions that keep what is removed; some of them have ended.
fn holders(dice: &mut Dice) -> Vec<u64> {
    dice.pick(&[vec![], vec![1], vec![1, 2], vec![2, 3, 4], vec![3, 9]])
        .unwrap_or_default()
}

fn mounted(scene: &Scene, client: u64, dice: &mut Dice) -> Option<Change> {
    let file = dice.pick(&scene.files)?;
    Some(match dice.roll(6) {
        0 => Release {
            inodes: scene.held.clone(),
        }
        .into(),
        1 => OpenClient {
            nonce: client + 7,
            mount: true,
            ..OpenClient::default()
        }
        .into(),
        2 => PunchHole {
            inode: file,
            offset: size(dice),
            length: 1 + size(dice),
            tail: dice.roll(2) == 0,
            by_handle: dice.often(),
            mtime_ns: None,
        }
        .into(),
        _ => {
            let (a, b) = (dice.roll(9) as u64, dice.roll(9) as u64);
            Lock {
                inode: file,
                owner: dice.roll(3) as u64,
                pid: dice.roll(2) as u32,
                start: a.min(b),
                end: a.max(b),
                kind: dice.roll(3) as i32,
                flock: dice.roll(3) == 0,
            }
            .into()
        }
    })
}

fn trashed(world: &World, scene: &Scene, dice: &mut Dice) -> Option<Change> {
    let entries: Vec<u64> = state::trashed_after(&world.view(), 0, usize::MAX)
        .into_iter()
        .map(|(entry, _)| entry)
        .collect();
    Some(match dice.roll(8) {
        0..3 => {
            let (parent, name) = dice.pick(&scene.names)?;
            Discard {
                parent,
                name,
                recursive: dice.often(),
                skip: dice.roll(3) == 0,
                keep_ns: dice.roll(200) as u64,
                holders: holders(dice),
                ..Discard::default()
            }
            .into()
        }
        3 => {
            let elsewhere = dice.pick(&scene.directories)?;
            Restore {
                entry: dice.pick(&entries)?,
                parent: dice.pick(&[0, 0, elsewhere])?,
                name: name(dice).into(),
            }
            .into()
        }
        4 => EmptyTrash {
            entries: vec![dice.pick(&entries)?],
        }
        .into(),
        5 if dice.roll(4) == 0 => Retain {
            inode: dice.pick(&scene.directories)?,
            keep_s: dice.pick(&[None, Some(0), Some(1)])?,
        }
        .into(),
        5 => ForgetChunks {
            chunks: scene.free.clone(),
        }
        .into(),
        _ => {
            let entry = dice.pick(&entries)?;
            let mut steps = state::purgeable(&world.view(), entry, None, 1 + dice.roll(6)).0;
            for step in &mut steps {
                step.holders = holders(dice);
            }
            Purge { entry, steps }.into()
        }
    })
}

fn renamed(scene: &Scene, dice: &mut Dice) -> Option<Change> {
    let (parent, from) = dice.pick(&scene.names)?;
    let how = dice.roll(4);
    let (new_parent, new_name) = if dice.roll(2) == 0 {
        dice.pick(&scene.names)?
    } else {
        (dice.pick(&scene.directories)?, name(dice).into())
    };
    let (no_replace, exchange) = (how == 1, how == 2);
    Some(
        Rename {
            parent,
            name: from,
            new_parent,
            new_name,
            no_replace,
            exchange,
            holders: holders(dice),
            dying: None,
        }
        .into(),
    )
}

fn committed(scene: &Scene, dice: &mut Dice) -> Option<Change> {
    let (handle, chunk) = dice.pick(&scene.chunks)?;
    Some(
        CommitLength {
            inode: chunk.inode,
            chunk: handle,
            version: chunk.active.version + u32::from(!dice.often()),
            length: dice.roll(CHUNK_BYTES as usize + 2) as u64,
            durable: dice.roll(2) == 0,
            mtime_ns: None,
            by_handle: dice.often(),
            unused: dice.roll(2) == 0,
        }
        .into(),
    )
}

fn configured(scene: &Scene, dice: &mut Dice) -> Option<Change> {
    let (handle, chunk) = dice.pick(&scene.chunks)?;
    let base = if dice.often() { chunk.newest().0 } else { 1 };
    Some(
        Propose {
            chunk: handle,
            base,
            members: members(dice),
        }
        .into(),
    )
}

fn activated(scene: &Scene, dice: &mut Dice) -> Option<Change> {
    let (handle, chunk) = dice.pick(&scene.proposed)?;
    let proposal = chunk.proposed?;
    let longest = proposal.truncate.unwrap_or(CHUNK_BYTES) as usize;
    Some(
        Activate {
            chunk: handle,
            version: proposal.version,
            length: dice.roll(longest + 1) as u64,
            loss: dice.roll(proposal.version as usize + 1) as u32,
        }
        .into(),
    )
}

type Counts = BTreeMap<&'static str, u32>;

fn live(rolls: Vec<Vec<u32>>, effective: &mut Counts) {
    let mut world = World::new();
    for (n, roll) in rolls.into_iter().enumerate() {
        let command = command(&world, n as u64 + 1, &mut Dice(roll));
        let (outcome, batch) = world.apply(command);
        world.assert_sound();
        let change = world
            .history
            .last()
            .and_then(|c| c.change.as_ref())
            .expect("each has one");
        if outcome.is_ok() {
            *effective.entry(change.name()).or_default() += 1;
        } else {
            let kept = batch
                .iter()
                .all(|(key, _)| matches!(key[0], keys::CLIENT | keys::RESULT));
            assert!(kept, "a refused command changes nothing but kept results");
        }
    }
    assert_eq!(world.contents(), in_groups(&world.history, 1));
    assert_eq!(world.contents(), in_groups(&world.history, 7));
}

/// What a history comes to, committed in groups of commands.
fn in_groups(history: &[Command], group: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut store = MemoryStore::new();
    let mut index = 0;
    for commands in history.chunks(group) {
        let view = View::new(&store);
        let mut txn = Txn::new(&view);
        for command in commands {
            index += 1;
            let _ = state::apply(&mut txn, index, command);
        }
        let batch = txn.into_batch();
        view.finish().unwrap();
        store.commit(&batch, index).unwrap();
    }
    View::new(&store).scan(&[1], &[0xff]).collect()
}

#[test]
fn every_history_keeps_every_invariant_and_replays() {
    let config = ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let rolls = prop::collection::vec(prop::collection::vec(any::<u32>(), 16), 1..160);
    let effective = RefCell::new(Counts::new());
    TestRunner::new(config)
        .run(&rolls, |rolls| {
            live(rolls, &mut effective.borrow_mut());
            Ok(())
        })
        .unwrap();
    let effective = effective.into_inner();
    for change in [
        "Make",
        "Link",
        "Unlink",
        "RemoveDirectory",
        "Rename",
        "SetAttributes",
        "SetXattr",
        "RemoveXattr",
        "Allocate",
        "NextChunk",
        "CommitLength",
        "Release",
        "Lock",
        "PunchHole",
        "Propose",
        "Activate",
        "Freeze",
        "ForgetChunk",
        "EndClient",
        "OpenClient",
        "Discard",
        "Purge",
        "Restore",
        "EmptyTrash",
        "Retain",
        "ForgetChunks",
    ] {
        let count = effective.get(change).copied().unwrap_or_default();
        assert!(count > 1, "{change} took effect {count} times: {effective:?}");
    }
}

#[test]
fn a_listing_under_change_shows_what_stays_exactly_once() {
    let mut world = World::new();
    for n in 0..20 {
        world.makes(1, &format!("stays{n:02}"), Kind::File);
        world.makes(1, &format!("goes{n:02}"), Kind::File);
    }
    let (mut cursor, mut seen, mut round) = (0, Vec::new(), 0);
    loop {
        let request = PageRequest {
            cursor,
            entries_max: 3,
            attributes: true,
        };
        let page = state::read_directory(&world.view(), &Caller::ROOT, InodeId::ROOT, request).unwrap();
        seen.extend(
            page.entries
                .iter()
                .map(|e| String::from_utf8(e.name.clone()).unwrap()),
        );
        if page.end {
            break;
        }
        cursor = page.entries.last().unwrap().cursor;
        let name = format!("goes{round:02}").into_bytes();
        let _ = world.tries(Unlink {
            parent: 1,
            name,
            ..Unlink::default()
        });
        round += 1;
    }
    let stayed: Vec<_> = seen.iter().filter(|n| n.starts_with("stays")).collect();
    assert_eq!(stayed.len(), 20);
    assert!(stayed.windows(2).all(|w| w[0] < w[1]));
}

#[test]
fn sessions_number_on_after_one_has_ended() {
    let mut world = World::new();
    world.does(EndClient { client: 1 });
    world.does(OpenClient {
        nonce: 8,
        ..OpenClient::default()
    });
    assert_eq!(state::client_by_nonce(&world.view(), 8), Some(ClientId(2)));
    assert_eq!(state::client(&world.view(), ClientId(1)), None);
}
