//! Random histories: every state is sound, a history applied again gives the same bytes, and commands applied in one
//! group give the same bytes as one by one.

use proptest::prelude::*;

use super::{CHUNK_BYTES, World};
use crate::command::{
    Activate, Allocate, Caller, Change, Command, CommitLength, EndClient, ForgetChunk, Freeze, Link, Make,
    OpenClient, Propose, RemoveDirectory, RemoveXattr, Rename, RequestId, SetAttributes, SetXattr, Unlink,
};
use crate::state;
use crate::store::{MemoryStore, Read as _, Store as _, Txn, View};

fn name() -> impl Strategy<Value = Vec<u8>> {
    (b'a'..b'd').prop_map(|letter| vec![letter])
}

fn inode() -> impl Strategy<Value = u64> {
    1_u64..9
}

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0..3 * CHUNK_BYTES, (0_u64..4).prop_map(|n| n * CHUNK_BYTES)]
}

fn members() -> impl Strategy<Value = Vec<u32>> {
    prop::sample::subsequence(vec![1, 2, 3], 1..=3).prop_shuffle()
}

fn naming() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (inode(), name(), 1_i32..5, any::<bool>(), prop::option::of(members())).prop_map(
            |(parent, name, kind, truncate, members)| Make {
                parent,
                name,
                kind,
                mode: 0o777,
                target: b"a/b".to_vec(),
                truncate,
                members: members.filter(|_| kind == 1).unwrap_or_default(),
                ..Make::default()
            }.into()
        ),
        1 => (inode(), inode(), name()).prop_map(|(inode, parent, name)| Link { inode, parent, name }.into()),
        1 => (inode(), name()).prop_map(|(parent, name)| Unlink { parent, name }.into()),
        1 => (inode(), name()).prop_map(|(parent, name)| RemoveDirectory { parent, name }.into()),
        3 => (inode(), name(), inode(), name(), 0..3).prop_map(|(parent, name, new_parent, new_name, how)| {
            let (no_replace, exchange) = (how == 1, how == 2);
            Rename { parent, name, new_parent, new_name, no_replace, exchange }.into()
        }),
        1 => (inode(), 0_u32..0o10000, any::<bool>()).prop_map(|(inode, mode, chowned)| SetAttributes {
            inode,
            mode: Some(mode | 0o700),
            gid: chowned.then_some(mode % 3),
            mtime_now: chowned,
            ..SetAttributes::default()
        }.into()),
        1 => (inode(), name(), 0_usize..9).prop_map(|(inode, name, length)| SetXattr {
            inode,
            name: [b"user.".to_vec(), name].concat(),
            value: vec![1; length],
            ..SetXattr::default()
        }.into()),
        1 => (inode(), name()).prop_map(|(inode, name)| RemoveXattr {
            inode,
            name: [b"user.".to_vec(), name].concat(),
        }.into()),
    ]
}

fn bytes() -> impl Strategy<Value = Change> {
    let chunk = || 1_u64..7;
    let version = || 1_u32..6;
    prop_oneof![
        3 => (inode(), size(), members(), prop::option::of(chunk())).prop_map(
            |(inode, offset, members, instead_of)| Allocate {
                inode,
                offset,
                members,
                instead_of: instead_of.unwrap_or_default(),
            }.into()
        ),
        5 => (inode(), chunk(), version(), 0..CHUNK_BYTES, any::<bool>()).prop_map(
            |(inode, chunk, version, length, durable)| CommitLength {
                inode,
                chunk,
                version,
                length,
                durable,
                mtime_ns: None,
            }.into()
        ),
        2 => (inode(), size()).prop_map(|(inode, size)| SetAttributes {
            inode,
            size: Some(size),
            ..SetAttributes::default()
        }.into()),
        3 => (chunk(), version(), members()).prop_map(|(chunk, base, members)| Propose {
            chunk,
            base,
            members,
        }.into()),
        4 => (chunk(), version(), 0..CHUNK_BYTES, 0_u32..3).prop_map(|(chunk, version, length, loss)| Activate {
            chunk,
            version,
            length,
            loss,
        }.into()),
        1 => chunk().prop_map(|chunk| ForgetChunk { chunk }.into()),
        1 => (chunk(), 0..8).prop_filter_map("rarely", |(chunk, n)| (n == 0).then(|| Freeze { chunk }.into())),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let change = prop_oneof![
        10 => naming(),
        12 => bytes(),
        1 => (1_u64..4).prop_map(|client| EndClient { client }.into()),
        1 => (1_u64..4).prop_map(|nonce| OpenClient { nonce, ..OpenClient::default() }.into()),
    ];
    let request = prop::option::weighted(0.8, (1_u64..3, 1_u64..40, 1_u64..20));
    (change, request, 0_u32..3).prop_map(|(change, request, uid)| Command {
        time_ns: 0,
        request: request.map(|(client, sequence, lowest)| RequestId {
            client,
            sequence,
            lowest_unanswered: lowest.min(sequence),
        }),
        caller: Some(Caller { uid, gid: uid, groups: vec![2] }),
        change: Some(change),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_history_keeps_every_invariant_and_replays(commands in prop::collection::vec(command(), 1..80)) {
        let mut world = World::new();
        for command in commands {
            let (outcome, batch) = world.apply(command);
            world.assert_sound();
            if outcome.is_err() {
                let kept = batch.iter().all(|(key, _)| matches!(key[0], 0x30 | 0x32));
                prop_assert!(kept, "a refused command changes nothing but kept results");
            }
        }
        prop_assert_eq!(world.contents(), in_groups(&world.history, 1));
        prop_assert_eq!(world.contents(), in_groups(&world.history, 7));
    }
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
fn a_listing_under_change_shows_what_stays_exactly_once() {
    use crate::state::PageRequest;
    use crate::store::records::Kind;
    let mut world = World::new();
    for n in 0..20 {
        world.makes(1, &format!("stays{n:02}"), Kind::File);
        world.makes(1, &format!("goes{n:02}"), Kind::File);
    }
    let (mut cursor, mut seen, mut round) = (0, Vec::new(), 0);
    loop {
        let request = PageRequest { cursor, entries_max: 3, attributes: true };
        let page = state::read_directory(&world.view(), &Caller::ROOT, dfs_proto::InodeId(1), request).unwrap();
        seen.extend(page.entries.iter().map(|e| String::from_utf8(e.name.clone()).unwrap()));
        if page.end {
            break;
        }
        cursor = page.entries.last().unwrap().cursor;
        let name = format!("goes{round:02}").into_bytes();
        let _ = world.tries(Unlink { parent: 1, name });
        round += 1;
    }
    let stayed: Vec<_> = seen.iter().filter(|n| n.starts_with("stays")).collect();
    assert_eq!(stayed.len(), 20);
    assert!(stayed.windows(2).all(|w| w[0] < w[1]));
}
