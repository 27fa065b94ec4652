//! Client sessions and the results kept for them, so that a request that is asked again gets its first answer.
//!
//! A session keeps results from its lowest unanswered sequence up, at most [`REQUESTS_OUTSTANDING_MAX`]. What would be
//! answered otherwise a moment later (`Busy`, `Stale`, ...) is no result: the client asks again under the same id.

use dfs_proto::limits::REQUESTS_OUTSTANDING_MAX;
use dfs_proto::{ClientId, Code, Error, Result, Retry};

use super::context::Context;
use super::{locks, orphans, tables};
use crate::command::{
    ClientOpened, Done, EndClient, OpenClient, Outcome, Reply, RequestId, outcome_from_bytes,
    outcome_to_bytes,
};
use crate::store::records::Client;
use crate::store::{Read, Txn, keys};

/// Longest name and host label of a session, bytes.
const LABEL_BYTES_MAX: usize = 255;

/// The record of a session.
#[must_use]
pub fn client(read: &dyn Read, client: ClientId) -> Option<Client> {
    tables::load(read, &keys::client(client))
}

/// The session opened with this nonce.
#[must_use]
pub fn client_by_nonce(read: &dyn Read, nonce: u64) -> Option<ClientId> {
    read.get(&keys::nonce(nonce))
        .map(|bytes| ClientId(keys::number(&bytes)))
}

/// All sessions.
#[must_use]
pub fn clients(read: &dyn Read) -> Vec<(ClientId, Client)> {
    read.scan_prefix(&[keys::CLIENT])
        .map(|(key, value)| (ClientId(keys::last_number(&key)), tables::decode(&value)))
        .collect()
}

/// The kept answer of a request that was asked before.
///
/// # Errors
/// `SessionExpired`; `InvalidArgument` for a sequence the client said it would not ask again; `Busy` beyond
/// [`REQUESTS_OUTSTANDING_MAX`] outstanding ones.
pub fn stored_outcome(read: &dyn Read, request: &RequestId) -> Result<Option<Outcome>> {
    let session = client(read, ClientId(request.client))
        .ok_or_else(|| Error::new(Code::SessionExpired, "the client session has ended"))?;
    let lowest = session.lowest.max(request.lowest_unanswered);
    if request.sequence < lowest || request.sequence == 0 {
        return Err(Error::new(
            Code::InvalidArgument,
            format!(
                "request {} was answered before; the lowest unanswered one is {lowest}",
                request.sequence
            ),
        ));
    }
    if request.sequence - lowest >= REQUESTS_OUTSTANDING_MAX {
        return Err(Error::new(Code::Busy, "too many requests without an answer"));
    }
    Ok(read
        .get(&keys::result(ClientId(request.client), request.sequence))
        .map(|bytes| outcome_from_bytes(&bytes).expect("the store holds only results the state wrote")))
}

/// Keeps an answer and forgets those the client has seen.
pub(super) fn remember(txn: &mut Txn<'_>, request: &RequestId, outcome: &Outcome) {
    let id = ClientId(request.client);
    let Some(mut session) = client(txn, id) else {
        return; // The command ended its own session.
    };
    if request.lowest_unanswered > session.lowest {
        // Kept results are of these sequences, see `stored_outcome`; no need to look for them.
        let end = session.lowest.saturating_add(REQUESTS_OUTSTANDING_MAX);
        for sequence in session.lowest..request.lowest_unanswered.min(end) {
            txn.remove(keys::result(id, sequence));
        }
        session.lowest = request.lowest_unanswered;
        tables::save(txn, keys::client(id), &session);
    }
    let is_final = match outcome {
        Ok(_) => true,
        Err(refusal) => refusal.retry() == Retry::Never,
    };
    if is_final {
        txn.put(keys::result(id, request.sequence), outcome_to_bytes(outcome));
    }
}

fn forget_all(txn: &mut Txn<'_>, id: ClientId) {
    let gone: Vec<_> = txn
        .scan(&keys::result(id, 0), &keys::result(id, u64::MAX))
        .map(|(key, _)| key)
        .collect();
    gone.into_iter().for_each(|key| txn.remove(key));
}

pub(super) fn open(ctx: &mut Context<'_, '_>, open: &OpenClient) -> Result<Reply> {
    if open.nonce == 0 || open.name.len() > LABEL_BYTES_MAX || open.host.len() > LABEL_BYTES_MAX {
        return Err(Error::new(
            Code::InvalidArgument,
            "a session needs a nonce and short labels",
        ));
    }
    if let Some(known) = client_by_nonce(ctx.txn, open.nonce) {
        return Ok(Reply::Client(ClientOpened { client: known.0 }));
    }
    let mut id = 0;
    tables::count(ctx.txn, |c| {
        id = c.next_client;
        c.next_client += 1;
    });
    let session = Client {
        nonce: open.nonce,
        name: open.name.clone(),
        host: open.host.clone(),
        opened_ns: ctx.now_ns,
        lowest: 1,
        mount: open.mount,
    };
    tables::save(ctx.txn, keys::client(ClientId(id)), &session);
    ctx.txn.put(keys::nonce(open.nonce), id.to_be_bytes());
    Ok(Reply::Client(ClientOpened { client: id }))
}

pub(super) fn end(ctx: &mut Context<'_, '_>, end: &EndClient) -> Result<Reply> {
    let id = ClientId(end.client);
    if let Some(session) = client(ctx.txn, id) {
        locks::end_client(ctx, id);
        orphans::end_client(ctx, id);
        forget_all(ctx.txn, id);
        ctx.txn.remove(keys::nonce(session.nonce));
        ctx.txn.remove(keys::client(id));
    }
    Ok(Reply::Done(Done::default()))
}
