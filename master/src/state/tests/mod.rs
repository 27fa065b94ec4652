//! The state under test: a store in memory that takes commands one by one and checks itself after each.

mod effects;
mod goals;
mod history;
mod refusals;
mod script;

use crate::command::{
    Allocate, Caller, Change, Command, Genesis, Make, OpenClient, Outcome, RegisterServer, Reply, RequestId,
};
use crate::state;
use crate::store::records::{Disk, Kind, Parameters};
use crate::store::{Batch, MemoryStore, Read, Store, Txn, View};
use dfs_proto::{ChunkHandle, InodeId};

/// Length of a chunk here, bytes.
pub(crate) const CHUNK_BYTES: u64 = 65_536;

/// A state with a clock that ticks once a command.
pub(crate) struct World {
    pub(crate) store: MemoryStore,
    pub(crate) index: u64,
    pub(crate) history: Vec<Command>,
    sequence: u64,
}

impl World {
    pub(crate) fn empty() -> World {
        World {
            store: MemoryStore::new(),
            index: 0,
            history: Vec::new(),
            sequence: 0,
        }
    }

    /// A cluster with a world-writable root, three servers, and client 1.
    pub(crate) fn new() -> World {
        let mut world = World::empty();
        world.does(genesis());
        for n in 1..=3 {
            world.does(server(n));
        }
        world.does(OpenClient {
            nonce: 7,
            name: "test".into(),
            host: String::new(),
            mount: false,
        });
        world
    }

    pub(crate) fn view(&self) -> View<'_> {
        View::new(&self.store)
    }

    /// Applies a command; the batch is what it wrote.
    pub(crate) fn apply(&mut self, mut command: Command) -> (Outcome, Batch) {
        self.index += 1;
        command.time_ns = self.index.cast_signed() * 10;
        let decoded = Command::from_bytes(&command.to_bytes()).unwrap();
        assert_eq!(decoded, command);
        let view = View::new(&self.store);
        let mut txn = Txn::new(&view);
        let outcome = state::apply(&mut txn, self.index, &command);
        let batch = txn.into_batch();
        view.finish().unwrap();
        self.store.commit(&batch, self.index).unwrap();
        self.history.push(command);
        (outcome, batch)
    }

    /// The master's own command.
    pub(crate) fn tries(&mut self, change: impl Into<Change>) -> Outcome {
        let outcome = self.apply(Command::internal(0, change)).0;
        self.assert_sound();
        outcome
    }

    pub(crate) fn does(&mut self, change: impl Into<Change>) -> Reply {
        self.tries(change).unwrap()
    }

    /// A command of client 1 in somebody's name.
    pub(crate) fn tries_as(&mut self, caller: &Caller, change: impl Into<Change>) -> Outcome {
        self.sequence += 1;
        let request = RequestId {
            client: 1,
            sequence: self.sequence,
            lowest_unanswered: self.sequence,
        };
        let outcome = self
            .apply(Command::from_client(0, request, caller.clone(), change))
            .0;
        self.assert_sound();
        outcome
    }

    /// The number of a new file, directory, ... with everything allowed.
    pub(crate) fn makes(&mut self, parent: u64, name: &str, kind: Kind) -> u64 {
        let mode = 0o777;
        match self.does(make(parent, name, kind, mode)) {
            Reply::Made(made) => made.attributes.inode,
            other => panic!("{other:?}"),
        }
    }

    /// The chunk of a file's slot, new on servers 1 and 2.
    pub(crate) fn allocates(&mut self, inode: u64, offset: u64) -> u64 {
        let allocate = Allocate {
            inode,
            offset,
            members: vec![1, 2],
            instead_of: 0,
            by_handle: false,
        };
        match self.tries_as(&Caller::ROOT, allocate).unwrap() {
            Reply::Allocated(slot) => slot.chunk,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn size(&self, inode: u64) -> u64 {
        state::inode(&self.view(), InodeId(inode)).unwrap().size
    }

    pub(crate) fn chunk(&self, handle: u64) -> crate::store::records::Chunk {
        state::chunk(&self.view(), ChunkHandle(handle)).unwrap()
    }

    pub(crate) fn assert_sound(&self) {
        assert_eq!(
            state::check(&self.view()),
            Vec::<String>::new(),
            "after {:?}",
            self.history.last()
        );
    }

    /// Everything there is.
    pub(crate) fn contents(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.view().scan(&[1], &[0xff]).collect()
    }
}

pub(crate) fn genesis() -> Genesis {
    Genesis {
        cluster: vec![0xcc; 16],
        parameters: Some(Parameters {
            chunk_bytes: CHUNK_BYTES,
            goal: 2,
            time_divisor: 1,
        }),
        uid: 0,
        gid: 0,
        mode: 0o777,
    }
}

pub(crate) fn server(n: u8) -> RegisterServer {
    RegisterServer {
        identity: vec![n; 16],
        addr: format!("s{n}:1"),
        host: format!("h{n}"),
        rack: "r".into(),
        disks: vec![Disk {
            id: vec![0x10 + n; 16],
            path: "/d".into(),
            failed: false,
        }],
        replace: false,
    }
}

pub(crate) fn make(parent: u64, name: &str, kind: Kind, mode: u32) -> Make {
    Make {
        parent,
        name: name.as_bytes().to_vec(),
        kind: kind as i32,
        mode,
        target: if kind == Kind::Symlink {
            b"t".to_vec()
        } else {
            Vec::new()
        },
        ..Make::default()
    }
}

pub(crate) fn user(uid: u32, gid: u32, groups: &[u32]) -> Caller {
    Caller {
        uid,
        gid,
        groups: groups.to_vec(),
    }
}
