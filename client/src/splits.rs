//! Cutting a file for parallel work: pure.

use crate::types::{ChunkState, Split};
use std::collections::BTreeMap;

/// Hosts named for a range at most.
const HOSTS_MAX: usize = 8;

/// Ranges of about `target` bytes. Chunks shorter than that are joined while they fit; longer ones are divided evenly.
pub(crate) fn cut(size: u64, chunks: &[ChunkState], target: u64) -> Vec<Split> {
    let mut all: Vec<Split> = Vec::new();
    let mut position = 0;
    for edge in edges(size, chunks) {
        let length = edge - position;
        let joins = all.last().is_some_and(|last| last.length + length <= target);
        match all.last_mut() {
            Some(last) if joins => last.length += length,
            _ => all.extend(divide(position, length, target)),
        }
        position = edge;
    }
    for split in &mut all {
        split.hosts = hosts(split.offset..split.offset + split.length, chunks);
    }
    all
}

/// Where chunks begin and end, and the file.
fn edges(size: u64, chunks: &[ChunkState]) -> Vec<u64> {
    let mut edges: Vec<u64> = chunks
        .iter()
        .flat_map(|c| [c.offset, c.offset + c.span_bytes])
        .collect();
    edges.retain(|e| *e > 0 && *e < size);
    if size > 0 {
        edges.push(size);
    }
    edges.sort_unstable();
    edges.dedup();
    edges
}

fn divide(offset: u64, length: u64, target: u64) -> impl Iterator<Item = Split> {
    // Rounded to the nearest count, so that no range is much smaller than the others.
    let count = ((length + target / 2) / target).max(1);
    (0..count).map(move |i| {
        let at = |i: u64| {
            u64::try_from(u128::from(length) * u128::from(i) / u128::from(count)).expect("at most length")
        };
        Split {
            offset: offset + at(i),
            length: at(i + 1) - at(i),
            hosts: Vec::new(),
        }
    })
}

/// The hosts that hold most of the range first.
fn hosts(range: std::ops::Range<u64>, chunks: &[ChunkState]) -> Vec<String> {
    let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
    for chunk in chunks {
        let held = (chunk.offset + chunk.length)
            .min(range.end)
            .saturating_sub(chunk.offset.max(range.start));
        for member in chunk.members.iter().filter(|_| held > 0) {
            *bytes.entry(&member.host).or_default() += held;
        }
    }
    let mut all: Vec<_> = bytes.into_iter().filter(|(host, _)| !host.is_empty()).collect();
    all.sort_by_key(|(_, held)| std::cmp::Reverse(*held));
    all.into_iter()
        .take(HOSTS_MAX)
        .map(|(host, _)| host.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::capability::Member;
    use dfs_proto::{ChunkHandle, Version};
    use proptest::prelude::*;

    fn chunk(offset: u64, length: u64, hosts: &[&str]) -> ChunkState {
        let member = |host: &&str| Member {
            host: (*host).to_owned(),
            ..Member::default()
        };
        ChunkState {
            offset,
            span_bytes: 100,
            chunk: ChunkHandle(offset + 1),
            version: Version(1),
            goal: 3,
            length,
            writing: false,
            changing: false,
            members: hosts.iter().map(member).collect(),
            replicas: Vec::new(),
            lost_bytes: 0,
            token: Default::default(),
        }
    }

    #[test]
    fn a_split_is_a_chunk_if_that_is_the_target() {
        let all = cut(
            250,
            &[
                chunk(0, 100, &["a", "b"]),
                chunk(100, 100, &["b"]),
                chunk(200, 50, &["c"]),
            ],
            100,
        );
        let shape: Vec<_> = all.iter().map(|s| (s.offset, s.length)).collect();
        assert_eq!(shape, [(0, 100), (100, 100), (200, 50)]);
        assert_eq!(all[2].hosts, ["c"]);
    }

    #[test]
    fn the_host_that_holds_most_comes_first() {
        let all = cut(
            250,
            &[
                chunk(0, 100, &["a", "b"]),
                chunk(100, 100, &["b"]),
                chunk(200, 50, &["c"]),
            ],
            1_000,
        );
        assert_eq!(
            (all.len(), &all[0].hosts[..]),
            (1, &["b".to_owned(), "a".into(), "c".into()][..])
        );
    }

    #[test]
    fn an_empty_file_has_no_splits_and_a_hole_no_hosts() {
        assert!(cut(0, &[], 10).is_empty());
        assert!(cut(500, &[], 1_000)[0].hosts.is_empty());
    }

    proptest! {
        #[test]
        fn splits_tile_the_file(size in 0u64..2_000, present in proptest::collection::vec(any::<bool>(), 20), target in 1u64..700) {
            let chunks: Vec<_> = present.iter().enumerate().filter(|(_, p)| **p)
                .map(|(i, _)| chunk(i as u64 * 100, 100, &["a"])).collect();
            let mut next = 0;
            for split in cut(size, &chunks, target) {
                prop_assert_eq!(split.offset, next);
                prop_assert!(split.length > 0 && split.length < target * 2);
                next += split.length;
            }
            prop_assert_eq!(next, size);
        }
    }
}
