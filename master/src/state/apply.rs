//! One command: its kept answer if it was asked before, else its change and the answer to keep.

use dfs_proto::{ClientId, Code, Error, Result};

use super::context::Context;
use super::{
    attributes, chunks, clients, cluster, files, locks, make, names, orphans, records, rename, servers,
    trash, xattrs,
};
use crate::command::{Caller, Change, Command, Outcome, Reply};
use crate::store::{Batch, Read, Txn};

/// Applies the command at `index` of the log. A refused command changes nothing but the results kept for its client.
///
/// # Errors
/// The refusal: data, the same in every run.
pub fn apply(txn: &mut Txn<'_>, index: u64, command: &Command) -> Outcome {
    apply_seen(txn, index, command, &mut |_, _| {})
}

/// As [`apply`]; `see` is shown the state before an accepted command, and what the command writes.
///
/// # Errors
/// As [`apply`].
pub fn apply_seen(
    txn: &mut Txn<'_>,
    index: u64,
    command: &Command,
    see: &mut dyn FnMut(&dyn Read, &Batch),
) -> Outcome {
    if let Some(request) = &command.request
        && let Some(answered) = clients::stored_outcome(txn, request)?
    {
        return answered;
    }
    let mut own = Txn::new(&*txn);
    let outcome = change(
        &mut Context {
            txn: &mut own,
            caller: command.caller.clone().unwrap_or(Caller::ROOT),
            client: command.request.map(|r| ClientId(r.client)),
            now_ns: command.time_ns,
            index,
        },
        command,
    );
    let batch = own.into_batch();
    if outcome.is_ok() {
        see(txn, &batch);
        txn.absorb(batch);
    }
    if let Some(request) = &command.request {
        clients::remember(txn, request, &outcome);
    }
    outcome
}

fn change(ctx: &mut Context<'_, '_>, command: &Command) -> Result<Reply> {
    let change = command
        .change
        .as_ref()
        .ok_or_else(|| Error::new(Code::Internal, "a change this program does not know"))?;
    require_cluster(ctx.txn, change)?;
    match change {
        Change::Genesis(c) => cluster::genesis(ctx, c),
        Change::OpenClient(c) => clients::open(ctx, c),
        Change::EndClient(c) => clients::end(ctx, c),
        Change::Make(c) => make::make(ctx, c),
        Change::Link(c) => names::link(ctx, c),
        Change::Unlink(c) => names::unlink(ctx, c),
        Change::RemoveDirectory(c) => names::remove_directory(ctx, c),
        Change::Rename(c) => rename::rename(ctx, c),
        Change::SetAttributes(c) => attributes::set(ctx, c),
        Change::SetXattr(c) => xattrs::set(ctx, c),
        Change::RemoveXattr(c) => xattrs::remove(ctx, c),
        Change::Allocate(c) => files::allocate(ctx, c),
        Change::CommitLength(c) => files::commit_length(ctx, c),
        Change::Release(c) => orphans::release(ctx, c),
        Change::Lock(c) => locks::set(ctx, c),
        Change::PunchHole(c) => files::punch_hole(ctx, c),
        Change::NextChunk(c) => records::next_chunk(ctx, c),
        Change::Propose(c) => chunks::propose(ctx, c),
        Change::Activate(c) => chunks::activate(ctx, c),
        Change::Freeze(c) => chunks::freeze(ctx, c),
        Change::ForgetChunk(c) => chunks::forget(ctx, c),
        Change::RegisterServer(c) => servers::register(ctx, c),
        Change::DiskFailed(c) => servers::disk_failed(ctx, c),
        Change::RemoveServer(c) => servers::remove(ctx, c),
        Change::RotateKey(c) => cluster::rotate_key(ctx, c),
        Change::Discard(c) => trash::discard(ctx, c),
        Change::Purge(c) => trash::purge(ctx, c),
        Change::Restore(c) => trash::restore(ctx, c),
        Change::EmptyTrash(c) => trash::empty(ctx, c),
        Change::Retain(c) => trash::retain(ctx, c),
        Change::ForgetChunks(c) => trash::forget_chunks(ctx, c),
    }
}

fn require_cluster(read: &dyn Read, change: &Change) -> Result<()> {
    if cluster(read).is_none() && !matches!(change, Change::Genesis(_)) {
        return Err(Error::new(Code::Unavailable, "the cluster is not born yet"));
    }
    Ok(())
}
