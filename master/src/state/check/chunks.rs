//! Extents and chunks: each refers to the other, sums and sizes fit, the steward's indexes are exact.

use std::collections::BTreeMap;

use dfs_proto::{ChunkHandle, InodeId};

use super::super::tables;
use super::Problems;
use crate::store::records::{Chunk, Extent, Inode, Kind, Proposal};
use crate::store::{Read, keys};

/// What the extents say of a file or of a chunk.
#[derive(Default)]
struct Sum {
    extents: u64,
    bytes: u64,
    end: u64,
}

pub(super) fn check(read: &dyn Read, problems: &mut Problems) {
    let mut files: BTreeMap<u64, Sum> = BTreeMap::new();
    let mut references: BTreeMap<u64, u32> = BTreeMap::new();
    for (key, value) in read.scan_prefix(&[keys::EXTENT]) {
        let (inode, offset) = (keys::number(&key[1..9]), keys::last_number(&key));
        let extent: Extent = tables::decode(&value);
        *references.entry(extent.chunk).or_default() += 1;
        check_extent(
            read,
            problems,
            (inode, offset, extent),
            files.entry(inode).or_default(),
        );
    }
    for (key, value) in read.scan_prefix(&[keys::INODE]) {
        let id = keys::last_number(&key);
        let inode: Inode = tables::decode(&value);
        let sum = files.remove(&id).unwrap_or_default();
        problems.expect_equal(&format!("extents of inode {id}"), inode.chunks, sum.extents);
        problems.expect_equal(
            &format!("allocated bytes of inode {id}"),
            inode.allocated_bytes,
            sum.bytes,
        );
        problems.expect(inode.kind() == Kind::File || sum.extents == 0, || {
            format!("inode {id} is no file and has extents")
        });
    }
    check_records(read, problems, &references);
    check_indexes(read, problems);
}

fn check_extent(read: &dyn Read, problems: &mut Problems, at: (u64, u64, Extent), file: &mut Sum) {
    let (inode, offset, extent) = at;
    let what = || format!("the extent of inode {inode} at {offset}");
    problems.expect(extent.span > 0 && offset >= file.end, || {
        format!("{} overlaps another", what())
    });
    file.extents += 1;
    file.end = offset + extent.span;
    let Some(chunk) = tables::chunk(read, extent.handle()) else {
        problems.expect(false, || format!("{} has a chunk that is not there", what()));
        return;
    };
    file.bytes += chunk.active.length;
    problems.expect(chunk.active.length <= extent.span, || {
        format!("{} is shorter than its chunk", what())
    });
    if chunk.references == 1 {
        problems.expect_equal(&what(), (chunk.inode, chunk.offset), (inode, offset));
    }
    let cut = chunk
        .proposed
        .as_ref()
        .and_then(|p| p.truncate)
        .unwrap_or(u64::MAX);
    let end = offset + chunk.active.length.min(cut);
    let size = tables::inode(read, InodeId(inode)).map_or(0, |i| i.size);
    problems.expect(chunk.active.length.min(cut) == 0 || end <= size, || {
        format!("{} has bytes up to {end}, the file's size is {size}", what())
    });
}

fn check_records(read: &dyn Read, problems: &mut Problems, references: &BTreeMap<u64, u32>) {
    let (mut all, mut unreferenced, mut greatest) = (0, 0, 0);
    for (key, value) in read.scan_prefix(&[keys::CHUNK]) {
        let handle = ChunkHandle(keys::last_number(&key));
        let chunk: Chunk = tables::decode(&value);
        all += 1;
        unreferenced += u64::from(chunk.references == 0);
        greatest = handle.0;
        let counted = references.get(&handle.0).copied().unwrap_or_default();
        problems.expect_equal(
            &format!("references to chunk {handle}"),
            chunk.references,
            counted,
        );
        check_record(read, problems, handle, &chunk);
    }
    let counters = tables::counters(read);
    problems.expect_equal("chunks", counters.chunks, all);
    problems.expect_equal("unreferenced chunks", counters.unreferenced, unreferenced);
    problems.expect(greatest < counters.next_chunk, || {
        "the next chunk's number is in use".into()
    });
}

fn check_record(read: &dyn Read, problems: &mut Problems, handle: ChunkHandle, chunk: &Chunk) {
    let active = &chunk.active;
    let sound = active.version > 0
        && !active.members.is_empty()
        && active.durable_length <= active.length
        && active.loss <= active.version
        && (chunk.lost_end == 0 || chunk.lost_end > active.length);
    problems.expect(sound, || format!("chunk {handle} cannot be so: {chunk:?}"));
    if let Some(proposal) = &chunk.proposed {
        check_proposal(problems, handle, chunk, proposal);
    }
    let in_work = read.contains(&keys::proposal(handle));
    problems.expect_equal(
        &format!("proposal index of chunk {handle}"),
        in_work,
        chunk.proposed.is_some() && chunk.references > 0,
    );
    let collected = read.contains(&keys::collect(chunk.unreferenced_ns, handle));
    problems.expect_equal(
        &format!("collect index of chunk {handle}"),
        collected,
        chunk.references == 0,
    );
}

fn check_proposal(problems: &mut Problems, handle: ChunkHandle, chunk: &Chunk, proposal: &Proposal) {
    let members = &chunk.active.members;
    problems.expect(proposal.version > chunk.active.version, || {
        format!("the proposal for chunk {handle} is not newer than the active configuration")
    });
    problems.expect(proposal.members.iter().any(|m| members.contains(m)), || {
        format!("the proposal for chunk {handle} has no active member")
    });
    let mut holders = members.iter().chain(&proposal.members);
    problems.expect(holders.all(|m| proposal.holders.contains(m)), || {
        format!("the proposal for chunk {handle} forgets a holder")
    });
}

/// No mark without its record.
fn check_indexes(read: &dyn Read, problems: &mut Problems) {
    for (key, _) in read.scan_prefix(&[keys::PROPOSAL]) {
        let handle = ChunkHandle(keys::last_number(&key));
        problems.expect(tables::chunk(read, handle).is_some(), || {
            format!("a proposal for chunk {handle}, which is not there")
        });
    }
    for (key, _) in read.scan_prefix(&[keys::COLLECT]) {
        let (since_ns, handle) = keys::collect_parts(&key);
        let fits =
            tables::chunk(read, handle).is_some_and(|c| c.references == 0 && c.unreferenced_ns == since_ns);
        problems.expect(fits, || {
            format!("chunk {handle} is to be collected and is not free")
        });
    }
}
