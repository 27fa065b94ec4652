use super::*;
use crate::command::{Caller, Genesis, Make, Reply, Unlink};
use crate::state;
use crate::store::dump;
use crate::store::records::{Kind, Parameters};
use crate::store::{Pair, Read};
use dfs_proto::InodeId;
use dfs_stdx::blocking::Pool;
use dfs_stdx::disk::{Disk, Fault, MemDisk, OsDisk, Surviving};
use dfs_stdx::{Clock, Rng};
use std::path::Path;

const BORN: ClusterId = ClusterId([0xcc; 16]);

fn world(disk: Arc<dyn Disk>) -> World {
    World {
        disk,
        clock: Clock::system(),
        rng: Rng::seeded(1),
        pool: Pool::inline(),
        ..World::real("unused", 1)
    }
}

/// A master in memory: small segments, a checkpoint every 20 commands, a dump with nearly each.
fn small() -> Options {
    Options {
        view: ViewKind::Memory,
        checkpoint_every: 20,
        dump_log_bytes: 2_000,
        segment_bytes: 1_500,
        low_space_bytes: 0,
        ..Options::new("/data")
    }
}

async fn started(options: &Options, disk: &MemDisk) -> Result<Applier> {
    Applier::start(options.clone(), &world(Arc::new(disk.process())), BORN).await
}

fn genesis() -> Command {
    let parameters = Parameters {
        chunk_bytes: 65_536,
        goal: 2,
        time_divisor: 1,
    };
    let cluster = BORN.0.to_vec();
    Command::internal(
        1,
        Genesis {
            cluster,
            parameters: Some(parameters),
            uid: 0,
            gid: 0,
            mode: 0o777,
        },
    )
}

fn name(number: u64) -> Vec<u8> {
    format!("file-{number}").into_bytes()
}

fn make(number: u64) -> Command {
    let make = Make {
        parent: InodeId::ROOT.0,
        name: name(number),
        kind: Kind::File.into(),
        mode: 0o644,
        exclusive: true,
        ..Make::default()
    };
    Command::internal(2, make)
}

fn exists(handle: &Handle, number: u64) -> bool {
    handle
        .read(|view| state::lookup(view, &Caller::ROOT, InodeId::ROOT, &name(number)).is_ok())
        .unwrap()
}

fn contents(handle: &Handle) -> Vec<Pair> {
    handle.read(|view| view.scan(&[1], &[0xff]).collect()).unwrap()
}

/// Makes files until `last` is there; the first that is missing says how many there are.
async fn make_up_to(handle: &Handle, last: u64) -> Result<()> {
    if handle.applied() == 0 {
        handle.propose(&genesis()).await?.1?;
    }
    for number in (1..=last).filter(|number| !exists(handle, *number)) {
        let (index, outcome) = handle.propose(&make(number)).await?;
        assert!(matches!(outcome, Ok(Reply::Made(_))), "{outcome:?}");
        assert!(handle.applied() >= index, "an answered command is visible");
    }
    Ok(())
}

#[tokio::test]
async fn commands_are_answered_and_there_after_a_restart() {
    let disk = MemDisk::new();
    let applier = started(&small(), &disk).await.unwrap();
    let handle = applier.handle();
    assert_eq!((handle.cluster(), handle.term(), handle.applied()), (BORN, 1, 0));
    make_up_to(&handle, 5).await.unwrap();
    let refused = handle.propose(&make(5)).await.unwrap().1;
    assert_eq!(refused.unwrap_err().code, Code::AlreadyExists);
    let before = contents(&handle);
    applier.stop().await;
    assert_eq!(
        handle.propose(&make(6)).await.unwrap_err().code,
        Code::Unavailable
    );
    let applier = Applier::start(small(), &world(Arc::new(disk.process())), ClusterId([1; 16]))
        .await
        .unwrap();
    let handle = applier.handle();
    assert_eq!((handle.cluster(), handle.term(), handle.applied()), (BORN, 2, 7));
    assert_eq!(contents(&handle), before);
}

#[tokio::test]
async fn many_at_once_go_in_groups_and_each_gets_its_own_answer() {
    let disk = MemDisk::new();
    let applier = started(&small(), &disk).await.unwrap();
    let handle = applier.handle();
    make_up_to(&handle, 1).await.unwrap();
    let before = disk.changes();
    // Each file twice: the second time it is there.
    let commands: Vec<Command> = (4..204).map(|number| make(number / 2)).collect();
    let answers = futures::future::join_all(commands.iter().map(|command| handle.propose(command))).await;
    let outcomes: Vec<Outcome> = answers.into_iter().map(|answer| answer.unwrap().1).collect();
    for (file, twice) in (2..).zip(outcomes.chunks(2)) {
        assert!(twice[0].is_ok() != twice[1].is_ok(), "file {file}: {twice:?}");
        assert!(exists(&handle, file));
    }
    assert_eq!(handle.applied(), 202);
    assert!(
        disk.changes() - before < 100,
        "{} changes of the disk",
        disk.changes() - before
    );
}

#[tokio::test]
async fn only_one_master_uses_a_data_directory() {
    let disk = MemDisk::new();
    let _first = started(&small(), &disk).await.unwrap();
    assert_eq!(started(&small(), &disk).await.unwrap_err().code, Code::Busy);
}

#[tokio::test]
async fn checkpoints_dump_the_state_and_cut_the_log() {
    let disk = MemDisk::new();
    let applier = started(&small(), &disk).await.unwrap();
    make_up_to(&applier.handle(), 300).await.unwrap();
    let before = contents(&applier.handle());
    applier.stop().await;
    let dumps = dump::list(&disk.process(), Path::new("/data/dumps")).unwrap();
    assert_eq!(dumps.len(), 2);
    let segments = disk.process().list(Path::new("/data/log")).unwrap();
    let first: u64 = segments[0].trim_end_matches(".log").parse().unwrap();
    assert!(
        first > 1 && first <= dumps[1].applied + 1,
        "{segments:?}, {dumps:?}"
    );
    let applier = started(&small(), &disk).await.unwrap();
    assert_eq!(contents(&applier.handle()), before);
    applier.stop().await;
    // The newest dump rots: the one before it and the log do.
    assert!(disk.rot(&dumps[0].path, 100, 1));
    let applier = started(&small(), &disk).await.unwrap();
    assert_eq!(contents(&applier.handle()), before);
    applier.stop().await;
    assert!(disk.rot(&dumps[1].path, 100, 1));
    let refused = started(&small(), &disk).await.unwrap_err();
    assert!(refused.message.contains("no dump that can be read"), "{refused}");
}

#[tokio::test]
async fn power_cuts_at_any_change_lose_no_answered_command() {
    let mut landed = 0;
    for round in 0..60 {
        let disk = MemDisk::new();
        let rng = Rng::seeded(round);
        let mut answered = 0;
        for _ in 0..3 {
            disk.die_after(rng.below(400));
            if let Ok(applier) = started(&small(), &disk).await {
                let handle = applier.handle();
                let next = (1..)
                    .find(|number| handle.applied() == 0 || !exists(&handle, *number))
                    .unwrap();
                for number in next..next + 70 {
                    let made = if handle.applied() == 0 {
                        make_up_to(&handle, number).await
                    } else {
                        handle.propose(&make(number)).await.map(|_| ())
                    };
                    if made.is_err() {
                        break;
                    }
                    answered = answered.max(number);
                }
                applier.stop().await;
            }
            disk.power_cut(&rng, Surviving::Random);
        }
        landed += answered;
        let applier = started(&small(), &disk).await.unwrap();
        for number in 1..=answered {
            assert!(
                exists(&applier.handle(), number),
                "seed {round}: file {number} of {answered}"
            );
        }
        if applier.handle().applied() > 0 {
            let wrong = applier.handle().read(|view| state::check(view)).unwrap();
            assert_eq!(wrong, Vec::<String>::new());
        }
    }
    assert!(
        landed > 1_000,
        "only {landed} commands were answered before the power went"
    );
}

#[tokio::test]
async fn a_failed_sync_of_the_log_ends_the_master_and_says_why() {
    let disk = MemDisk::new();
    let applier = started(&small(), &disk).await.unwrap();
    let handle = applier.handle();
    make_up_to(&handle, 3).await.unwrap();
    disk.fault(Fault::io("sync_data").under("/data/log").times(1));
    assert_eq!(
        handle.propose(&make(4)).await.unwrap_err().code,
        Code::Unavailable
    );
    assert!(handle.failed().await.contains("sync_data"));
    assert_eq!(
        handle.propose(&make(5)).await.unwrap_err().code,
        Code::Unavailable
    );
    assert!(!exists(&handle, 4), "nothing is applied that is not durable");
    applier.stop().await;
}

#[tokio::test]
async fn with_little_space_files_are_refused_and_deletes_go_on() {
    let disk = MemDisk::new();
    let applier = started(
        &Options {
            low_space_bytes: 1 << 20,
            ..small()
        },
        &disk,
    )
    .await
    .unwrap();
    let handle = applier.handle();
    make_up_to(&handle, 3).await.unwrap();
    disk.set_capacity(1 << 20);
    let (made, gone) = (make(4), unlink(1));
    let (refused, unlinked) = tokio::join!(handle.propose(&made), handle.propose(&gone));
    assert_eq!(refused.unwrap_err().code, Code::NoSpace);
    unlinked.unwrap().1.unwrap();
    disk.fault(Fault::full("write_at").under("/data/log").times(1));
    assert_eq!(handle.propose(&unlink(2)).await.unwrap_err().code, Code::NoSpace);
    handle.propose(&unlink(2)).await.unwrap().1.unwrap();
    disk.set_capacity(1 << 40);
    make_up_to(&handle, 4).await.unwrap();
}

fn unlink(number: u64) -> Command {
    let unlink = Unlink {
        parent: InodeId::ROOT.0,
        name: name(number),
        ..Unlink::default()
    };
    Command::internal(3, unlink)
}

#[tokio::test]
async fn a_dump_that_cannot_be_made_keeps_the_log() {
    let disk = MemDisk::new();
    let applier = started(&small(), &disk).await.unwrap();
    disk.fault(Fault::full("write_at").under("/data/dumps"));
    make_up_to(&applier.handle(), 150).await.unwrap();
    let before = contents(&applier.handle());
    applier.stop().await;
    disk.heal();
    assert!(
        disk.process()
            .exists(Path::new("/data/log/00000000000000000001.log"))
            .unwrap()
    );
    assert_eq!(
        contents(&started(&small(), &disk).await.unwrap().handle()),
        before
    );
}

#[tokio::test]
async fn a_lost_log_is_refused_until_a_person_decides() {
    let disk = MemDisk::new();
    let applier = started(&small(), &disk).await.unwrap();
    make_up_to(&applier.handle(), 100).await.unwrap();
    applier.stop().await;
    let process = disk.process();
    for file in process.list(Path::new("/data/log")).unwrap() {
        process.remove(&Path::new("/data/log").join(file)).unwrap();
    }
    let refused = started(&small(), &disk).await.unwrap_err();
    assert!(refused.message.contains("is gone"), "{refused}");
    assert!(refused.message.contains("--recover-from-dump"), "{refused}");
    let recover = Options {
        recover_from_dump: true,
        ..small()
    };
    let applier = started(&recover, &disk).await.unwrap();
    assert!(exists(&applier.handle(), 20), "dumped, so not lost");
    make_up_to(&applier.handle(), 110).await.unwrap();
    applier.stop().await;
    let applier = started(&small(), &disk).await.unwrap();
    assert!(exists(&applier.handle(), 110));
}

#[tokio::test]
async fn a_damaged_log_is_refused_and_recovered_up_to_the_damage() {
    let disk = MemDisk::new();
    let options = Options {
        dump_log_bytes: 1 << 30,
        ..small()
    };
    let applier = started(&options, &disk).await.unwrap();
    make_up_to(&applier.handle(), 60).await.unwrap();
    applier.stop().await;
    let segments = disk.process().list(Path::new("/data/log")).unwrap();
    let second = Path::new("/data/log").join(&segments[1]);
    let first_lost: u64 = segments[1].trim_end_matches(".log").parse().unwrap();
    assert!(disk.rot(&second, 70, 0));
    let refused = started(&options, &disk).await.unwrap_err();
    for part in [second.to_str().unwrap(), "at byte 64", "--recover-from-dump"] {
        assert!(refused.message.contains(part), "{refused}");
    }
    let recover = Options {
        recover_from_dump: true,
        ..options.clone()
    };
    let applier = started(&recover, &disk).await.unwrap();
    assert_eq!(applier.handle().applied(), first_lost - 1);
    applier.stop().await;
    assert!(
        disk.process()
            .exists(Path::new("/data/log.damaged-1").join(&segments[1]).as_path())
            .unwrap()
    );
    let applier = started(&options, &disk).await.unwrap();
    make_up_to(&applier.handle(), 60).await.unwrap();
}

/// The same with sled, on the machine's own disk.
fn real(folder: &Path) -> Options {
    Options {
        view: ViewKind::Sled {
            cache_bytes: 16 << 20,
        },
        data_dir: folder.to_owned(),
        ..small()
    }
}

async fn started_really(options: &Options) -> Result<Applier> {
    let world = World {
        pool: Pool::threads("test", 2),
        ..world(Arc::new(OsDisk))
    };
    Applier::start(options.clone(), &world, BORN).await
}

#[tokio::test]
async fn a_store_that_is_lost_or_broken_is_built_anew() {
    let folder = tempfile::tempdir().unwrap();
    let options = real(folder.path());
    let applier = started_really(&options).await.unwrap();
    make_up_to(&applier.handle(), 200).await.unwrap();
    let before = contents(&applier.handle());
    applier.stop().await;
    let db = folder.path().join("view/db");
    let breakages: [&dyn Fn(); 5] = [
        &|| {},
        &|| std::fs::remove_dir_all(folder.path().join("view")).unwrap(),
        &|| std::fs::write(&db, b"").unwrap(),
        &|| {
            let mut bytes = std::fs::read(&db).unwrap();
            bytes.iter_mut().step_by(1000).for_each(|byte| *byte ^= 0x40);
            std::fs::write(&db, bytes).unwrap();
        },
        &|| std::fs::write(folder.path().join("view.suspect"), "a panic").unwrap(),
    ];
    for (number, breakage) in breakages.iter().enumerate() {
        breakage();
        let applier = started_really(&options).await.unwrap();
        assert!(contents(&applier.handle()) == before, "breakage {number}");
        applier.stop().await;
    }
}

#[tokio::test]
async fn a_store_ahead_of_the_log_means_a_lost_log() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        dump_log_bytes: 1 << 30,
        segment_bytes: 1 << 30,
        ..real(folder.path())
    };
    let applier = started_really(&options).await.unwrap();
    make_up_to(&applier.handle(), 30).await.unwrap();
    applier.stop().await;
    let segment = folder.path().join("log/00000000000000000001.log");
    let bytes = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &bytes[..bytes.len() - 10]).unwrap();
    std::fs::remove_file(folder.path().join("log/mark")).unwrap();
    let refused = started_really(&options).await.unwrap_err();
    assert!(
        refused.message.contains("acknowledged commands are missing"),
        "{refused}"
    );
    let applier = started_really(&Options {
        recover_from_dump: true,
        ..options
    })
    .await
    .unwrap();
    assert!(exists(&applier.handle(), 30), "the store had it");
    make_up_to(&applier.handle(), 31).await.unwrap();
}
