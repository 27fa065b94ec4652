//! Refusals that the golden scripts do not show, arm by arm.

use super::{World, genesis, make, server, user};
use crate::command::{
    Activate, Allocate, Attributes, Caller, Change, CommitLength, Freeze, Genesis, Link, Make, OpenClient,
    Outcome, Propose, RegisterServer, Rename, Reply, RotateKey, SetAttributes, SetXattr, Unlink,
};
use crate::state::{self, Access, PageRequest};
use crate::store::records::{Disk, Inode, Kind, Parameters};
use crate::store::{Batch, Read as _, Store as _, keys};
use dfs_proto::limits::{FILE_BYTES_MAX, LINKS_MAX, XATTR_VALUE_BYTES_MAX};
use dfs_proto::{ClientId, Code, InodeId, NodeId};
use prost::Message as _;

fn code(outcome: Outcome) -> Code {
    outcome.unwrap_err().code
}

/// In somebody's name, without a session.
fn tries_by(world: &mut World, caller: &Caller, change: impl Into<Change>) -> Outcome {
    let mut command = crate::command::Command::internal(0, change);
    command.caller = Some(caller.clone());
    let outcome = world.apply(command).0;
    world.assert_sound();
    outcome
}

#[test]
fn names_are_checked_where_they_are_given() {
    let mut world = World::new();
    for (name, refused) in [
        (String::new(), Code::InvalidArgument),
        ("..".into(), Code::InvalidArgument),
        ("a/b".into(), Code::InvalidArgument),
        ("x".repeat(256), Code::NameTooLong),
    ] {
        assert_eq!(code(world.tries(make(1, &name, Kind::File, 0))), refused);
        let unlink = Unlink {
            parent: 1,
            name: name.into(),
            ..Unlink::default()
        };
        assert_eq!(code(world.tries(unlink)), refused);
    }
}

#[test]
fn an_inode_is_made_only_as_it_can_be() {
    let mut world = World::new();
    let symlink = |target: Vec<u8>| Make {
        target,
        ..make(1, "s", Kind::Symlink, 0)
    };
    let cases: Vec<(Make, Code)> = vec![
        (make(1, "x", Kind::Unspecified, 0), Code::InvalidArgument),
        (
            Make {
                goal: 9,
                ..make(1, "x", Kind::File, 0)
            },
            Code::InvalidArgument,
        ),
        (
            Make {
                members: vec![1, 2],
                ..make(1, "x", Kind::Fifo, 0)
            },
            Code::InvalidArgument,
        ),
        (symlink(Vec::new()), Code::NotFound),
        (symlink(vec![b'x'; 4_096]), Code::NameTooLong),
        (symlink(b"a\0".to_vec()), Code::InvalidArgument),
        (make(99, "x", Kind::File, 0), Code::NotFound),
    ];
    for (make, refused) in cases {
        assert_eq!(code(world.tries(make)), refused);
    }
}

#[test]
fn a_chunk_needs_enough_different_known_servers_and_a_client() {
    let mut world = World::new();
    let with = |members: Vec<u32>| Make {
        members,
        ..make(1, "x", Kind::File, 0o644)
    };
    let root = Caller::ROOT;
    assert_eq!(
        code(world.tries(with(vec![1, 2]))),
        Code::InvalidArgument,
        "no client"
    );
    assert_eq!(
        code(world.tries_as(&root, with(vec![1, 1]))),
        Code::InvalidArgument
    );
    assert_eq!(code(world.tries_as(&root, with(vec![1]))), Code::NoSpace);
    assert_eq!(code(world.tries_as(&root, with(vec![1, 9]))), Code::Unavailable);
    assert_eq!(
        code(world.tries_as(&root, with((1..=9).collect()))),
        Code::InvalidArgument
    );
    world.does(crate::command::RemoveServer { node: 2 });
    assert_eq!(code(world.tries_as(&root, with(vec![1, 2]))), Code::Unavailable);
    let alone = Make {
        goal: 1,
        ..with(vec![1])
    };
    assert!(
        world.tries_as(&root, alone).is_ok(),
        "one is enough for a goal of one"
    );
}

#[test]
fn a_file_that_is_there_is_opened_by_who_may() {
    let mut world = World::new();
    let (me, other) = (user(10, 20, &[]), user(11, 21, &[]));
    let open = make(1, "f", Kind::File, 0o640);
    let file = match world.tries_as(&me, open.clone()).unwrap() {
        Reply::Made(made) => made.attributes.inode,
        other => panic!("{other:?}"),
    };
    world.does(SetAttributes {
        inode: file,
        size: Some(9),
        ..SetAttributes::default()
    });
    assert!(
        world.tries_as(&other, open.clone()).is_ok(),
        "opening for reading is asked elsewhere"
    );
    for wants in [
        Make {
            write: true,
            ..open.clone()
        },
        Make {
            truncate: true,
            ..open.clone()
        },
        Make {
            members: vec![1, 2],
            ..open.clone()
        },
    ] {
        assert_eq!(code(world.tries_as(&other, wants)), Code::PermissionDenied);
    }
    let cut = Make {
        truncate: true,
        members: vec![1, 2],
        ..open.clone()
    };
    match world.tries_as(&me, cut).unwrap() {
        Reply::Made(made) => {
            assert!(!made.created && made.slot.is_some());
            assert_eq!(made.attributes.size, 0);
        }
        other => panic!("{other:?}"),
    }
    world.makes(1, "p", Kind::Fifo);
    assert_eq!(
        code(world.tries(make(1, "p", Kind::File, 0))),
        Code::AlreadyExists
    );
    assert_eq!(
        code(world.tries(make(1, "f", Kind::Fifo, 0))),
        Code::AlreadyExists
    );
}

#[test]
fn a_directory_that_may_not_be_written_or_passed_is_left_alone() {
    let mut world = World::new();
    let me = user(10, 20, &[]);
    let closed = world.makes(1, "closed", Kind::Directory);
    let file = world.makes(closed, "f", Kind::File);
    world.does(SetAttributes {
        inode: closed,
        mode: Some(0o755),
        ..SetAttributes::default()
    });
    let name = b"f".to_vec();
    let to = |parent, new_parent| Rename {
        parent,
        name: b"f".to_vec(),
        new_parent,
        new_name: b"g".to_vec(),
        ..Rename::default()
    };
    world.makes(1, "f", Kind::File);
    let changes: Vec<Change> = vec![
        make(closed, "g", Kind::File, 0).into(),
        Link {
            inode: file,
            parent: closed,
            name: b"g".to_vec(),
        }
        .into(),
        Unlink {
            parent: closed,
            name: name.clone(),
            ..Unlink::default()
        }
        .into(),
        to(closed, 1).into(),
        to(1, closed).into(),
    ];
    for change in changes {
        assert_eq!(code(tries_by(&mut world, &me, change)), Code::PermissionDenied);
    }
    assert_eq!(
        code(tries_by(&mut world, &me, make(closed, "f", Kind::Directory, 0))),
        Code::AlreadyExists
    );
    world.does(SetAttributes {
        inode: closed,
        mode: Some(0o766),
        ..SetAttributes::default()
    });
    let unlink = Unlink {
        parent: closed,
        name,
        ..Unlink::default()
    };
    assert_eq!(code(tries_by(&mut world, &me, unlink)), Code::PermissionDenied);
    let view = world.view();
    let refused = |e: dfs_proto::Error| e.code;
    assert_eq!(
        state::lookup(&view, &me, InodeId(closed), b"f")
            .map_err(refused)
            .unwrap_err(),
        Code::PermissionDenied
    );
    assert_eq!(
        state::resolve(&view, &me, InodeId::ROOT, b"/closed/f", true)
            .map_err(refused)
            .unwrap_err(),
        Code::PermissionDenied
    );
    let page = PageRequest {
        cursor: 0,
        entries_max: 9,
        attributes: true,
    };
    let listed = state::read_directory(&view, &me, InodeId(closed), page).unwrap();
    assert_eq!(
        listed.entries[0].attributes, None,
        "names only: the directory cannot be passed"
    );
}

#[test]
fn questions_refuse_what_they_cannot_answer() {
    let mut world = World::new();
    let me = user(10, 20, &[]);
    let file = InodeId(world.makes(1, "f", Kind::File));
    world.does(SetAttributes {
        inode: file.0,
        mode: Some(0),
        ..SetAttributes::default()
    });
    let secret = InodeId(world.makes(1, "d", Kind::Directory));
    world.does(SetAttributes {
        inode: secret.0,
        mode: Some(0o711),
        ..SetAttributes::default()
    });
    let view = world.view();
    let page = PageRequest {
        cursor: 0,
        entries_max: 1,
        attributes: false,
    };
    let long = vec![b'x'; 4_096];
    let (name, root) = ([b'x'; 256], InodeId::ROOT);
    let answers: Vec<(Result<(), dfs_proto::Error>, Code)> = vec![
        (
            state::get_attributes(&view, InodeId(99)).map(drop),
            Code::NotFound,
        ),
        (state::lookup(&view, &me, root, b"nope").map(drop), Code::NotFound),
        (
            state::lookup(&view, &me, root, &name).map(drop),
            Code::NameTooLong,
        ),
        (
            state::lookup(&view, &me, file, b"x").map(drop),
            Code::NotADirectory,
        ),
        (
            state::resolve(&view, &me, root, b"", true).map(drop),
            Code::NotFound,
        ),
        (
            state::resolve(&view, &me, root, &long, true).map(drop),
            Code::NameTooLong,
        ),
        (
            state::resolve(&view, &me, root, &name, true).map(drop),
            Code::NameTooLong,
        ),
        (
            state::resolve(&view, &me, root, b"f/", true).map(drop),
            Code::NotADirectory,
        ),
        (
            state::resolve(&view, &me, InodeId(99), b"f", true).map(drop),
            Code::NotFound,
        ),
        (
            state::read_directory(&view, &me, file, page).map(drop),
            Code::NotADirectory,
        ),
        (
            state::read_directory(&view, &me, secret, page).map(drop),
            Code::PermissionDenied,
        ),
        (state::read_link(&view, file).map(drop), Code::InvalidArgument),
        (
            state::locate(&view, Some(&me), file, 0, 1).map(drop),
            Code::PermissionDenied,
        ),
        (
            state::locate(&view, Some(&me), root, 0, 1).map(drop),
            Code::IsADirectory,
        ),
        (
            state::writable_slot(&view, Some(&me), file, 0).map(drop),
            Code::PermissionDenied,
        ),
        (
            state::writable_slot(&view, Some(&Caller::ROOT), file, FILE_BYTES_MAX).map(drop),
            Code::TooLarge,
        ),
        (
            state::get_xattr(&view, &me, file, b"user.a").map(drop),
            Code::PermissionDenied,
        ),
        (
            state::get_xattr(&view, &me, file, b"other.a").map(drop),
            Code::NotSupported,
        ),
        (
            state::list_xattr(&view, &me, InodeId(99)).map(drop),
            Code::NotFound,
        ),
        (
            state::check_access(&view, &me, file, Access::READ),
            Code::PermissionDenied,
        ),
        (
            state::check_access(&view, &me, InodeId(99), Access::from_bits(4)),
            Code::NotFound,
        ),
    ];
    for (n, (answer, refused)) in answers.into_iter().enumerate() {
        assert_eq!(answer.unwrap_err().code, refused, "question {n}");
    }
    assert_eq!(state::lookup(&view, &me, secret, b"..").unwrap().inode, 1);
    assert_eq!(state::lookup(&view, &me, secret, b".").unwrap().inode, secret.0);
}

#[test]
fn links_have_a_limit() {
    let mut world = World::new();
    let file = world.makes(1, "f", Kind::File);
    let mut batch = Batch::default();
    let key = keys::inode(InodeId(file));
    let mut inode = Inode::decode(world.view().get(&key).unwrap().as_slice()).unwrap();
    inode.nlink = LINKS_MAX;
    batch.put(key, inode.encode_to_vec());
    world.index += 1;
    world.store.commit(&batch, world.index).unwrap();
    assert!(!state::check(&world.view()).is_empty(), "the check counts links");
    let link = Link {
        inode: file,
        parent: 1,
        name: b"g".to_vec(),
    };
    assert_eq!(
        code(world.apply(crate::command::Command::internal(0, link)).0),
        Code::LinkLimit
    );
}

#[test]
fn attributes_of_inodes_have_limits() {
    let mut world = World::new();
    let me = user(10, 20, &[]);
    let file = world.makes(1, "f", Kind::File);
    let sticky = world.makes(1, "t", Kind::Directory);
    world.does(SetAttributes {
        inode: sticky,
        mode: Some(0o1777),
        ..SetAttributes::default()
    });
    let set = |inode, name: &[u8], bytes: usize| SetXattr {
        inode,
        name: name.to_vec(),
        value: vec![7; bytes],
        create: false,
        replace: false,
    };
    assert_eq!(
        code(world.tries(set(file, &[b'u'; 256], 1))),
        Code::InvalidArgument
    );
    assert_eq!(
        code(world.tries(set(file, b"user.a\0", 1))),
        Code::InvalidArgument
    );
    assert_eq!(
        code(world.tries(set(file, b"user.a", XATTR_VALUE_BYTES_MAX + 1))),
        Code::TooLarge
    );
    assert_eq!(
        code(tries_by(&mut world, &me, set(sticky, b"user.a", 1))),
        Code::NotPermitted
    );
    assert_eq!(
        code(tries_by(&mut world, &me, set(file, b"security.a", 1))),
        Code::NotPermitted
    );
    world.does(set(file, b"user.a", XATTR_VALUE_BYTES_MAX));
    assert_eq!(
        code(world.tries(set(file, b"user.b", XATTR_VALUE_BYTES_MAX))),
        Code::NoSpace
    );
    world.does(set(file, b"user.a", 1));
    world.does(set(file, b"user.b", XATTR_VALUE_BYTES_MAX));
    let pipe = world.makes(1, "p", Kind::Fifo);
    let read = state::get_xattr(&world.view(), &Caller::ROOT, InodeId(pipe), b"user.a");
    assert_eq!(read.unwrap_err().code, Code::NoAttribute);
}

#[test]
fn lengths_are_told_by_who_may_write_the_file() {
    let mut world = World::new();
    let other = user(11, 21, &[]);
    let file = world.makes(1, "f", Kind::File);
    let chunk = world.allocates(file, 0);
    world.does(SetAttributes {
        inode: file,
        mode: Some(0o644),
        ..SetAttributes::default()
    });
    let commit = |inode, length| CommitLength {
        inode,
        chunk,
        version: 1,
        length,
        durable: false,
        mtime_ns: None,
        by_handle: false,
        unused: false,
    };
    assert_eq!(
        code(world.tries_as(&other, commit(file, 5))),
        Code::PermissionDenied
    );
    assert_eq!(code(world.tries_as(&other, commit(1, 5))), Code::IsADirectory);
    let second = world.makes(1, "g", Kind::File);
    assert_eq!(
        code(world.tries_as(&Caller::ROOT, commit(second, 5))),
        Code::Stale
    );
    let allocate = Allocate {
        inode: file,
        offset: 0,
        members: vec![1, 2],
        instead_of: chunk,
        by_handle: false,
    };
    assert_eq!(code(world.tries_as(&other, allocate)), Code::PermissionDenied);
    assert_eq!(world.size(file), 0);
    world.tries_as(&Caller::ROOT, commit(file, 5)).unwrap();
    assert_eq!((world.size(file), world.chunk(chunk).allocated_for), (5, 0));
}

#[test]
fn what_was_written_far_ahead_of_the_clock_was_written_an_hour_ahead() {
    let mut world = World::new();
    let file = world.makes(1, "f", Kind::File);
    let commit = CommitLength {
        inode: file,
        mtime_ns: Some(i64::MAX),
        ..CommitLength::default()
    };
    world.tries_as(&Caller::ROOT, commit).unwrap();
    let attributes: Attributes = state::get_attributes(&world.view(), InodeId(file)).unwrap();
    let hour = world.index.cast_signed() * 10 + 3_600_000_000_000;
    assert_eq!((attributes.mtime_ns, attributes.ctime_ns), (hour, hour));
}

#[test]
fn configurations_of_no_chunk_are_refused() {
    let mut world = World::new();
    let file = world.makes(1, "f", Kind::File);
    let chunk = world.allocates(file, 0);
    let propose = |chunk, members: &[u32]| Propose {
        chunk,
        base: 1,
        members: members.to_vec(),
    };
    assert_eq!(code(world.tries(propose(99, &[1]))), Code::NotFound);
    assert_eq!(code(world.tries(propose(chunk, &[]))), Code::InvalidArgument);
    assert_eq!(code(world.tries(propose(chunk, &[1, 9]))), Code::Unavailable);
    world.does(propose(chunk, &[1, 3]));
    let activate = |chunk, loss| Activate {
        chunk,
        version: 2,
        length: 0,
        loss,
    };
    assert_eq!(code(world.tries(activate(99, 0))), Code::NotFound);
    assert_eq!(code(world.tries(activate(chunk, 3))), Code::InvalidArgument);
    assert_eq!(code(world.tries(Freeze { chunk: 99 })), Code::NotFound);
    world.does(activate(chunk, 2));
    assert_eq!(world.chunk(chunk).active.loss, 2);
    assert_eq!(
        world.chunk(chunk).allocator(),
        None,
        "a recovery ends the allocator's privilege"
    );
}

#[test]
fn a_cluster_a_session_and_a_key_have_their_form() {
    let mut world = World::empty();
    let parameters = |chunk_bytes| {
        Some(Parameters {
            chunk_bytes,
            goal: 2,
            time_divisor: 1,
        })
    };
    for born in [
        Genesis {
            cluster: vec![1; 15],
            ..genesis()
        },
        Genesis {
            parameters: parameters(5),
            ..genesis()
        },
        Genesis {
            parameters: None,
            ..genesis()
        },
    ] {
        assert_eq!(code(world.tries(born)), Code::InvalidArgument);
    }
    let mut world = World::new();
    let open = OpenClient {
        nonce: 9,
        name: "x".repeat(256),
        host: String::new(),
        mount: false,
    };
    assert_eq!(code(world.tries(open)), Code::InvalidArgument);
    assert_eq!(
        code(world.tries(RotateKey {
            id: 1,
            secret: vec![1; 31]
        })),
        Code::InvalidArgument
    );
    assert_eq!(state::client_by_nonce(&world.view(), 7), Some(ClientId(1)));
    assert!(
        !format!(
            "{:?}",
            RotateKey {
                id: 1,
                secret: vec![77; 32]
            }
        )
        .contains("77"),
        "secrets are not logged"
    );
}

#[test]
fn a_server_is_known_by_its_identity_and_its_disks() {
    let mut world = World::new();
    let disk = |id: u8, length| Disk {
        id: vec![id; length],
        path: "/d".into(),
        failed: false,
    };
    let shapes = [
        RegisterServer {
            identity: vec![1; 3],
            ..server(4)
        },
        RegisterServer {
            addr: String::new(),
            ..server(4)
        },
        RegisterServer {
            disks: vec![disk(0x44, 2)],
            ..server(4)
        },
        RegisterServer {
            host: "h".repeat(5_000),
            ..server(4)
        },
        RegisterServer {
            disks: vec![disk(0x11, 16)],
            ..server(4)
        },
    ];
    for shape in shapes {
        assert_eq!(code(world.tries(shape)), Code::InvalidArgument);
    }
    let many = (0..=255_u8).map(|n| Disk {
        id: vec![n, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        ..disk(0, 16)
    });
    let many = RegisterServer {
        disks: many.collect(),
        ..server(1)
    };
    assert_eq!(code(world.tries(many)), Code::TooLarge);
    assert_eq!(state::server_by_disk(&world.view(), &[0x11; 16]), Some(NodeId(1)));
}
