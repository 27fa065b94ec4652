//! Where a producer's last record is, if a chunk before the last one has it: asked of the replicas' writer tables, from
//! the end of the file backwards. Those chunks are sealed, so what their tables say is final.

use super::Shared;
use crate::convert::Extent;
use crate::convert::data;
use dfs_proto::{ChunkHandle, Code, Error, Result};
use futures::stream::{StreamExt as _, iter};
use std::time::Duration;
use tokio::time::Instant;

/// Chunks asked about at the same time.
const ASKED_MAX: usize = 16;
/// How long one replica may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// The producer's last record in the chunks before the last one, as (sequence, offset in the file), and the last chunk.
pub(super) async fn last_record(
    shared: &Shared,
    producer: u64,
    deadline: Instant,
) -> Result<(Option<(u64, u64)>, Option<ChunkHandle>)> {
    let mut extents = extents(shared, deadline).await?;
    let Some(last) = extents.pop() else {
        return Ok((None, None));
    };
    let asked: Vec<_> = extents
        .into_iter()
        .rev()
        .map(|extent| in_chunk(shared, extent, producer, deadline))
        .collect();
    let mut answers = iter(asked).buffered(ASKED_MAX);
    while let Some(answer) = answers.next().await {
        if let Some(found) = answer? {
            return Ok((Some(found), Some(last.capability.chunk)));
        }
    }
    Ok((None, Some(last.capability.chunk)))
}

async fn extents(shared: &Shared, deadline: Instant) -> Result<Vec<Extent>> {
    let mut all = Vec::new();
    let mut position = 0;
    loop {
        let now = shared.core.clock.now();
        let window = shared.locations.window(position, Some(now), deadline).await?;
        let beyond = all.last().map_or(0, |e: &Extent| e.offset + e.span_bytes);
        all.extend(window.extents.iter().filter(|e| e.offset >= beyond).cloned());
        position = shared.locations.window_end(position);
        if position >= window.size {
            return Ok(all);
        }
    }
}

async fn in_chunk(
    shared: &Shared,
    mut extent: Extent,
    producer: u64,
    deadline: Instant,
) -> Result<Option<(u64, u64)>> {
    let mut backoff = shared.core.backoff(deadline);
    loop {
        let mut why = Error::new(Code::Unavailable, "the chunk has no members");
        for member in &extent.capability.members {
            let by = deadline.min(shared.core.clock.now() + ANSWER_DEADLINE);
            let ask = data::ask_producer(&extent.token, producer);
            let answer = shared.core.servers.request(member, ask, by).await;
            match answer.and_then(|(from, _)| data::producer_answer(from)) {
                Ok(found) => return Ok(found.map(|(sequence, offset)| (sequence, extent.offset + offset))),
                Err(error) => why = error,
            }
        }
        backoff.wait().await.map_err(|_| why)?;
        let now = shared.core.clock.now();
        let window = shared
            .locations
            .window(extent.offset, Some(now), deadline)
            .await?;
        let newer = window
            .extents
            .iter()
            .find(|e| e.capability.chunk == extent.capability.chunk);
        match newer {
            Some(newer) => extent = newer.clone(),
            // Cut off the file.
            None => return Ok(None),
        }
    }
}
