//! Where data and holes are: chunks and own writes are data, all else below the size is hole.

use super::Content;
use dfs_client::Result;
use std::ops::Range;
use std::sync::Arc;

/// What lseek(2) looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// SEEK_DATA.
    Data,
    /// SEEK_HOLE.
    Hole,
}

#[expect(clippy::missing_errors_doc, reason = "the cluster's, for all")]
impl Content {
    /// Where data or a hole is next, from `offset` on; `None`: not before the end (ENXIO).
    pub async fn seek(self: &Arc<Self>, offset: u64, what: Seek) -> Result<Option<u64>> {
        self.settle().await?;
        let size = self.state().size;
        if offset >= size {
            return Ok(None);
        }
        let chunks = self.handle.chunks_in(offset..size).await?;
        let mut data: Vec<Range<u64>> = chunks.into_iter().map(|(at, length)| at..at + length).collect();
        let size = {
            let state = self.state();
            state.dirty.visit(offset..u64::MAX, |at, bytes| {
                data.push(at..at + bytes.len() as u64)
            });
            data.extend(state.flying.iter().map(|f| f.range()));
            state.size
        };
        data.sort_unstable_by_key(|r| r.start);
        Ok(next(&data, offset, what, size))
    }
}

/// The answer, given all data in order of where it begins; it may overlap.
fn next(data: &[Range<u64>], offset: u64, what: Seek, size: u64) -> Option<u64> {
    match what {
        Seek::Data => data
            .iter()
            .filter(|r| r.end > offset)
            .map(|r| r.start.max(offset))
            .min()
            .filter(|at| *at < size),
        Seek::Hole => {
            let mut hole = offset;
            for range in data {
                if range.start > hole {
                    break;
                }
                hole = hole.max(range.end);
            }
            Some(hole.min(size))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_and_holes_are_found_in_turn() {
        let data = [10..20, 20..30, 40..50];
        let data_at = |offset| next(&data, offset, Seek::Data, 100);
        assert_eq!([0, 10, 25, 30, 49].map(data_at), [10, 10, 25, 40, 49].map(Some));
        assert_eq!(data_at(50), None);
        let hole_at = |offset| next(&data, offset, Seek::Hole, 45);
        assert_eq!([0, 10, 30, 41].map(hole_at), [0, 30, 30, 45].map(Some));
    }
}
