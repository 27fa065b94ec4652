//! The change stream: what one client does, another that watches is told at once, and in order; over loopback, with a real
//! master and real chunkservers.

use bytes::Bytes;
use dfs_chunkserver::Chunkserver;
use dfs_client::{
    Change, Changes, Client, Code, Event, InodeId, Kind, Lock, LockAnswer, LockKind, Make, Metadata,
    OpenOptions, RenameMode, SetAttributes, Settings, Watch, XattrMode,
};
use dfs_master::{Master, View};
use dfs_proto::World;
use dfs_proto::limits::Parameters;
use dfs_tests::proxy::{Fault, Proxy};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

/// How long anything may take that should take no time.
const BOUND: Duration = Duration::from_secs(10);
/// A change waits no longer for those who watch.
const ACK_WITHIN: Duration = Duration::from_millis(100);
/// The test profile's: of a session whose stream is gone, and of a stream that is behind.
const GRACE: Duration = Duration::from_millis(500);
const ROOT: InodeId = InodeId::ROOT;

struct Cluster {
    folder: TempDir,
    master: Option<Master>,
    addr: String,
    servers: Vec<Chunkserver>,
}

impl Cluster {
    async fn start(count: usize) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let master = start_master(&folder, "127.0.0.1:0").await;
        let mut cluster = Cluster {
            addr: master.addr().to_owned(),
            master: Some(master),
            folder,
            servers: Vec::new(),
        };
        for number in 0..count {
            let server = cluster.server(number).await;
            cluster.servers.push(server);
        }
        let client = cluster.client().await;
        while client.status().await.unwrap().alive < u32::try_from(count).unwrap() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        cluster
    }

    async fn server(&self, number: usize) -> Chunkserver {
        let dir = self.folder.path().join(format!("server{number}"));
        std::fs::create_dir_all(&dir).unwrap();
        let config = dfs_chunkserver::Config {
            listen: "127.0.0.1:0".into(),
            masters: vec![self.addr.clone()],
            data_dirs: vec![dir],
            host: format!("host{number}"),
            ..dfs_chunkserver::Config::default()
        };
        Chunkserver::start(config, World::real("server", 2))
            .await
            .unwrap()
    }

    async fn client(&self) -> Client {
        Client::connect(&self.addr).await.unwrap()
    }

    /// A client that watches, by way of `addr`.
    async fn mount_by(&self, addr: &str) -> (Client, Watch) {
        let mut settings = Settings::new(addr).unwrap();
        settings.mount = true;
        settings.call_deadline = BOUND;
        let client = Client::connect_settings(settings).await.unwrap();
        let mut watch = client.watch();
        assert_eq!(next(&mut watch).await, Event::Back { same_session: true });
        (client, watch)
    }

    async fn mount(&self) -> (Client, Watch) {
        self.mount_by(&self.addr).await
    }
}

async fn start_master(folder: &TempDir, listen: &str) -> Master {
    let data_dir = folder.path().join("master");
    std::fs::create_dir_all(&data_dir).unwrap();
    let config = dfs_master::Config {
        listen: listen.into(),
        advertise: None,
        data_dir,
        parameters: Parameters {
            chunk_bytes: 1 << 20,
            goal: 2,
            time_divisor: 10,
        },
        view: View::Memory,
        checkpoint_every: 10_000,
        repair_after: None,
    };
    Master::start(config, World::real("master", 2)).await.unwrap()
}

async fn next(watch: &mut Watch) -> Event {
    timeout(BOUND, watch.next()).await.expect("an event in time")
}

async fn next_changes(watch: &mut Watch) -> Changes {
    match next(watch).await {
        Event::Changes(changes) => changes,
        other => panic!("{other:?}"),
    }
}

/// Does something, and returns what the watcher was told of it before it was answered.
async fn told<T: std::fmt::Debug>(
    watch: &mut Watch,
    doing: impl Future<Output = dfs_client::Result<T>>,
) -> Vec<Change> {
    let mut told = Vec::new();
    tokio::pin!(doing);
    loop {
        tokio::select! {
            biased;
            event = watch.next() => match event {
                Event::Changes(changes) => {
                    watch.ack(&changes);
                    told.extend(changes.list);
                }
                other => panic!("{other:?}"),
            },
            done = &mut doing => {
                done.unwrap();
                return told;
            }
        }
    }
}

/// For people: what changed, with names for inodes.
fn lines(changes: &[Change], names: &[(&str, InodeId)]) -> Vec<String> {
    let name = |inode: InodeId| {
        let known = names.iter().find(|(_, i)| *i == inode);
        known.map_or("?".to_owned(), |(name, _)| (*name).to_owned())
    };
    let line = |change: &Change| match change {
        Change::Attributes(m) => format!(
            "changed {} size {} links {} mode {:o}",
            name(m.inode),
            m.size,
            m.nlink,
            m.mode
        ),
        Change::Entry {
            parent,
            name: entry,
            now,
        } => {
            let entry = String::from_utf8_lossy(entry);
            match now {
                Some((inode, kind)) => format!("{}/{entry} is {} {kind:?}", name(*parent), name(*inode)),
                None => format!("{}/{entry} is nothing", name(*parent)),
            }
        }
        Change::Unlinked { inode, held } => format!("unlinked {} held {}", name(*inode), held.is_some()),
        Change::Recall { inode } => format!("recall {}", name(*inode)),
        Change::LockFreed { inode } => format!("lock freed {}", name(*inode)),
        Change::Forgotten { inodes } => format!("forgotten {}", inodes.len()),
    };
    changes.iter().map(line).collect()
}

fn directory() -> Make {
    Make {
        kind: Kind::Directory,
        mode: 0o755,
        rdev: 0,
        target: Vec::new(),
    }
}

async fn make_file(client: &Client, parent: InodeId, name: &[u8]) -> Metadata {
    let options = OpenOptions::new().write(true).create_new(true);
    let (made, handle) = client.inodes().create(parent, name, options).await.unwrap();
    handle.close().await.unwrap();
    made.metadata
}

fn mode(mode: u32) -> SetAttributes {
    SetAttributes {
        mode: Some(mode),
        ..SetAttributes::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_of_names_and_attributes_is_told_to_whoever_was_told_before() {
    let cluster = Cluster::start(0).await;
    let (ann, _own) = cluster.mount().await;
    let (bob, mut watch) = cluster.mount().await;
    let a = ann.inodes();
    let d = a.make(ROOT, b"d", directory()).await.unwrap().metadata.inode;
    let e = a.make(ROOT, b"e", directory()).await.unwrap().metadata.inode;
    let f = make_file(&ann, d, b"f").await.inode;
    let g = make_file(&ann, d, b"g").await.inode;
    for (parent, name) in [(ROOT, b"d"), (ROOT, b"e"), (d, b"f"), (d, b"g")] {
        bob.inodes().lookup(parent, name).await.unwrap();
    }
    let names = [("/", ROOT), ("d", d), ("e", e), ("f", f), ("g", g)];
    let mut found = String::new();
    let mut note = |what: &str, changes: Vec<Change>| {
        let told = lines(&changes, &names).join("\n  ");
        found += &format!("{what}\n  {told}\n");
    };
    let options = || OpenOptions::new().write(true).create_new(true);
    note("create d/n", told(&mut watch, a.create(d, b"n", options())).await);
    note("mkdir d/s", told(&mut watch, a.make(d, b"s", directory())).await);
    note("rmdir d/s", told(&mut watch, a.remove_dir(d, b"s")).await);
    note(
        "chmod f",
        told(&mut watch, a.set_attributes(f, mode(0o600))).await,
    );
    let set = a.set_xattr(f, b"user.x", b"1", XattrMode::Set);
    note("setxattr f", told(&mut watch, set).await);
    note(
        "removexattr f",
        told(&mut watch, a.remove_xattr(f, b"user.x")).await,
    );
    let cut = SetAttributes {
        size: Some(9),
        ..SetAttributes::default()
    };
    note("truncate f", told(&mut watch, a.set_attributes(f, cut)).await);
    note("link f e/l", told(&mut watch, a.link(f, e, b"l")).await);
    let rename = a.rename((d, b"n"), (e, b"m"), RenameMode::Replace, false);
    note("rename d/n e/m", told(&mut watch, rename).await);
    let exchange = a.rename((d, b"f"), (e, b"m"), RenameMode::Exchange, false);
    note("exchange d/f e/m", told(&mut watch, exchange).await);
    note("unlink e/l", told(&mut watch, a.unlink(e, b"l", false)).await);
    let replace = a.rename((d, b"g"), (e, b"m"), RenameMode::Replace, false);
    note(
        "rename d/g e/m, the last name of f",
        told(&mut watch, replace).await,
    );
    note(
        "nothing bob knows",
        told(&mut watch, a.make(ROOT, b"x", directory())).await,
    );
    let golden = "\
create d/n
  d/n is ? File
  changed d size 0 links 2 mode 755
mkdir d/s
  d/s is ? Directory
  changed d size 0 links 3 mode 755
rmdir d/s
  d/s is nothing
  changed d size 0 links 2 mode 755
chmod f
  changed f size 0 links 1 mode 600
setxattr f
  changed f size 0 links 1 mode 600
removexattr f
  changed f size 0 links 1 mode 600
truncate f
  changed f size 9 links 1 mode 600
link f e/l
  e/l is f File
  changed e size 0 links 2 mode 755
  changed f size 9 links 2 mode 600
rename d/n e/m
  d/n is nothing
  e/m is ? File
  changed d size 0 links 2 mode 755
  changed e size 0 links 2 mode 755
exchange d/f e/m
  d/f is ? File
  e/m is f File
  changed d size 0 links 2 mode 755
  changed e size 0 links 2 mode 755
  changed f size 9 links 2 mode 600
unlink e/l
  e/l is nothing
  changed e size 0 links 2 mode 755
  changed f size 9 links 1 mode 600
rename d/g e/m, the last name of f
  d/g is nothing
  e/m is g File
  changed d size 0 links 2 mode 755
  changed e size 0 links 2 mode 755
  unlinked f held true
  changed g size 0 links 1 mode 644
nothing bob knows
  //x is ? Directory
  changed / size 0 links 5 mode 1777
";
    // Held or gone: a master that has just started does not know who has what open.
    assert_eq!(
        found.replace("held false", "held true"),
        golden,
        "found:\n{found}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn written_bytes_are_told_with_their_size_when_they_are_fsynced() {
    let cluster = Cluster::start(2).await;
    let (ann, _own) = cluster.mount().await;
    let (bob, mut watch) = cluster.mount().await;
    let options = OpenOptions::new().write(true).create_new(true).informed(true);
    let (made, handle) = ann.inodes().create(ROOT, b"f", options).await.unwrap();
    bob.inodes().lookup(ROOT, b"f").await.unwrap();
    let writing = async {
        handle.write_at(0, Bytes::from_static(b"hello")).await?;
        handle.sync_all().await
    };
    let changes = told(&mut watch, writing).await;
    let last = changes.last().expect("it was told");
    let Change::Attributes(now) = last else {
        panic!("{last:?}")
    };
    assert_eq!((now.inode, now.size), (made.metadata.inode, 5));
    assert!(now.mtime_ns >= made.metadata.mtime_ns && now.change > made.metadata.change);
    // An overwrite in place moves the times, and so others know that their bytes are old.
    let writing = async {
        handle.write_at(0, Bytes::from_static(b"HELLO")).await?;
        handle.sync_all().await
    };
    let changes = told(&mut watch, writing).await;
    let told_again =
        matches!(changes.last(), Some(Change::Attributes(m)) if m.size == 5 && m.change > now.change);
    assert!(told_again, "{changes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_answered_when_the_watcher_has_acknowledged_or_after_a_bound() {
    let cluster = Cluster::start(0).await;
    let (ann, _own) = cluster.mount().await;
    let (bob, mut watch) = cluster.mount().await;
    let f = make_file(&ann, ROOT, b"f").await.inode;
    bob.inodes().lookup(ROOT, b"f").await.unwrap();
    let change = |m: u32| {
        let inodes = ann.inodes().clone();
        tokio::spawn(async move { inodes.set_attributes(f, mode(m)).await })
    };
    let then = Instant::now();
    let changing = change(0o600);
    let changes = next_changes(&mut watch).await;
    assert!(!changing.is_finished() || then.elapsed() >= ACK_WITHIN);
    watch.ack(&changes);
    timeout(BOUND, changing).await.unwrap().unwrap().unwrap();
    // To hear of a change and to answer takes no time that anyone would notice.
    let then = Instant::now();
    for m in 0..50 {
        assert_eq!(
            told(&mut watch, ann.inodes().set_attributes(f, mode(m)))
                .await
                .len(),
            1
        );
    }
    let watched = then.elapsed() / 50;
    watch.control().forget([f]);
    let changes = next_changes(&mut watch).await;
    watch.ack(&changes);
    let then = Instant::now();
    for m in 0..50 {
        ann.inodes().set_attributes(f, mode(m)).await.unwrap();
    }
    eprintln!(
        "a change: {:?}, with someone watching {watched:?}",
        then.elapsed() / 50
    );
    assert!(watched < ACK_WITHIN / 4, "{watched:?}");
    bob.inodes().lookup(ROOT, b"f").await.unwrap();
    // Without a word it takes as long as it may.
    let then = Instant::now();
    change(0o601).await.unwrap().unwrap();
    assert!(then.elapsed() >= ACK_WITHIN.mul_f64(0.9), "{:?}", then.elapsed());
    // And only once: whoever is behind is not waited for.
    let then = Instant::now();
    for m in 0..50 {
        change(m).await.unwrap().unwrap();
    }
    assert!(then.elapsed() < ACK_WITHIN * 25, "{:?}", then.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_stays_behind_loses_its_stream_and_gets_another() {
    let cluster = Cluster::start(0).await;
    let (ann, _own) = cluster.mount().await;
    let (bob, mut watch) = cluster.mount().await;
    let f = make_file(&ann, ROOT, b"f").await.inode;
    bob.inodes().lookup(ROOT, b"f").await.unwrap();
    ann.inodes().set_attributes(f, mode(0o600)).await.unwrap();
    let changes = next_changes(&mut watch).await;
    assert_eq!(next(&mut watch).await, Event::Lost);
    watch.ack(&changes);
    assert_eq!(next(&mut watch).await, Event::Back { same_session: true });
    // What it was told about before is told on.
    let changes = told(&mut watch, ann.inodes().set_attributes(f, mode(0o644))).await;
    assert_eq!(changes.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forgotten_is_not_told_and_what_is_kept_is() {
    let cluster = Cluster::start(0).await;
    let (ann, _own) = cluster.mount().await;
    let (bob, mut watch) = cluster.mount().await;
    let f = make_file(&ann, ROOT, b"f").await.inode;
    bob.inodes().lookup(ROOT, b"f").await.unwrap();
    watch.control().forget([f, ROOT]);
    let changes = next_changes(&mut watch).await;
    let expected = Change::Forgotten {
        inodes: vec![ROOT, f],
    };
    assert_eq!(changes.list, [expected]);
    watch.ack(&changes);
    let changes = told(&mut watch, ann.inodes().set_attributes(f, mode(0o600))).await;
    assert_eq!(changes, []);
    watch.control().keep([f]);
    let deadline = Instant::now() + BOUND;
    while told(&mut watch, ann.inodes().set_attributes(f, mode(0o644)))
        .await
        .is_empty()
    {
        assert!(Instant::now() < deadline, "it is told about again");
    }
}

fn lock(kind: LockKind) -> Lock {
    Lock {
        owner: 1,
        pid: 1,
        start: 0,
        end: u64::MAX,
        kind,
        flock: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freed_lock_and_a_wanted_turn_are_told_to_whom_it_concerns() {
    let cluster = Cluster::start(0).await;
    let (ann, _own) = cluster.mount().await;
    let (bob, mut watch) = cluster.mount().await;
    let f = make_file(&ann, ROOT, b"f").await.inode;
    let (a, b) = (ann.inodes(), bob.inodes());
    let taken = a.lock(f, &lock(LockKind::Exclusive), false).await.unwrap();
    assert_eq!(taken, LockAnswer::Free);
    let waiting = b.lock(f, &lock(LockKind::Shared), true).await.unwrap();
    assert!(matches!(waiting, LockAnswer::Conflict(_)), "{waiting:?}");
    a.lock(f, &lock(LockKind::Unlock), false).await.unwrap();
    let changes = next_changes(&mut watch).await;
    watch.ack(&changes);
    assert_eq!(changes.list, [Change::LockFreed { inode: f }]);
    assert_eq!(
        b.lock(f, &lock(LockKind::Shared), true).await.unwrap(),
        LockAnswer::Free
    );
    // An append turn.
    assert!(b.append_turn(f).await.unwrap().yours);
    let wants = tokio::spawn({
        let a = a.clone();
        async move { a.append_turn(f).await }
    });
    let changes = next_changes(&mut watch).await;
    watch.ack(&changes);
    assert_eq!(changes.list, [Change::Recall { inode: f }]);
    b.append_done(f).await.unwrap();
    assert!(wants.await.unwrap().unwrap().yours);
}

fn is_held(change: &Change, of: InodeId) -> bool {
    matches!(change, Change::Unlinked { inode, held: Some(m) } if *inode == of && m.nlink == 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_file_is_held_for_the_mounts_that_may_know_it_until_they_release_it() {
    let cluster = Cluster::start(0).await;
    let (ann, _own) = cluster.mount().await;
    let (bob, mut watch) = cluster.mount().await;
    let a = ann.inodes();
    let f = make_file(&ann, ROOT, b"f").await.inode;
    bob.inodes().lookup(ROOT, b"f").await.unwrap();
    let changes = told(&mut watch, a.unlink(ROOT, b"f", true)).await;
    assert!(changes.iter().any(|c| is_held(c, f)), "{changes:?}");
    bob.inodes().release(&[f]).await.unwrap();
    assert_eq!(a.stat(f).await.unwrap().nlink, 0, "the asker keeps it");
    a.release(&[f]).await.unwrap();
    assert_eq!(a.stat(f).await.unwrap_err().code, Code::NotFound);
    // So soon after its start the master does not know who has what open, and asks everyone.
    let g = make_file(&ann, ROOT, b"g").await.inode;
    let changes = told(&mut watch, a.unlink(ROOT, b"g", false)).await;
    assert!(changes.iter().any(|c| is_held(c, g)), "{changes:?}");
    bob.inodes().release(&[g]).await.unwrap();
    assert_eq!(a.stat(g).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_whose_stream_was_away_is_told_what_it_holds() {
    let cluster = Cluster::start(0).await;
    let proxy = Proxy::start("127.0.0.1:0", &cluster.addr).await.unwrap();
    let (ann, _own) = cluster.mount().await;
    let (bob, mut watch) = cluster.mount_by(proxy.addr()).await;
    let f = make_file(&ann, ROOT, b"f").await.inode;
    bob.inodes().lookup(ROOT, b"f").await.unwrap();
    proxy.set_both(Fault::Reset);
    assert_eq!(next(&mut watch).await, Event::Lost);
    ann.inodes().unlink(ROOT, b"f", false).await.unwrap();
    proxy.set_both(Fault::None);
    assert_eq!(next(&mut watch).await, Event::Back { same_session: true });
    let changes = next_changes(&mut watch).await;
    assert!(changes.list.iter().any(|c| is_held(c, f)), "{changes:?}");
    watch.ack(&changes);
    bob.inodes().release(&[f]).await.unwrap();
    assert_eq!(ann.inodes().stat(f).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_of_a_mount_that_is_gone_are_free_long_before_its_lease() {
    let cluster = Cluster::start(0).await;
    let (ann, mut own) = cluster.mount().await;
    let (bob, watch) = cluster.mount().await;
    let f = make_file(&ann, ROOT, b"f").await.inode;
    bob.inodes()
        .lock(f, &lock(LockKind::Exclusive), false)
        .await
        .unwrap();
    let waiting = ann.inodes().lock(f, &lock(LockKind::Shared), true).await.unwrap();
    assert!(matches!(waiting, LockAnswer::Conflict(_)), "{waiting:?}");
    let then = Instant::now();
    drop((bob, watch));
    let changes = next_changes(&mut own).await;
    assert_eq!(changes.list, [Change::LockFreed { inode: f }]);
    // The lease of the test profile is 3 s, from the last call on.
    assert!(then.elapsed() < GRACE * 4, "{:?}", then.elapsed());
    assert_eq!(
        ann.inodes()
            .lock(f, &lock(LockKind::Shared), false)
            .await
            .unwrap(),
        LockAnswer::Free
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_line_is_noticed_and_ends_no_session() {
    let cluster = Cluster::start(0).await;
    let proxy = Proxy::start("127.0.0.1:0", &cluster.addr).await.unwrap();
    let (_bob, mut watch) = cluster.mount_by(proxy.addr()).await;
    proxy.set_both(Fault::Hold);
    assert_eq!(next(&mut watch).await, Event::Lost);
    // Longer than the grace of a mount that is gone, shorter than the lease.
    tokio::time::sleep(GRACE * 2).await;
    proxy.set_both(Fault::None);
    assert_eq!(next(&mut watch).await, Event::Back { same_session: true });
    proxy.set_both(Fault::Reset);
    assert_eq!(next(&mut watch).await, Event::Lost);
    proxy.set_both(Fault::None);
    assert_eq!(next(&mut watch).await, Event::Back { same_session: true });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_of_the_master_the_stream_is_back_and_the_session_the_same() {
    let mut cluster = Cluster::start(0).await;
    let (ann, _own) = cluster.mount().await;
    let (bob, mut watch) = cluster.mount().await;
    let f = make_file(&ann, ROOT, b"f").await.inode;
    bob.inodes().lookup(ROOT, b"f").await.unwrap();
    cluster.master.take().unwrap().stop().await;
    assert_eq!(next(&mut watch).await, Event::Lost);
    cluster.master = Some(start_master(&cluster.folder, &cluster.addr).await);
    assert_eq!(next(&mut watch).await, Event::Back { same_session: true });
    watch.control().keep([f]);
    let deadline = Instant::now() + BOUND;
    while told(&mut watch, ann.inodes().set_attributes(f, mode(0o600)))
        .await
        .is_empty()
    {
        assert!(Instant::now() < deadline, "it is told about again");
    }
}
