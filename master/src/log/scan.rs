//! Reading a segment: which records are there, and what the first bytes that are none mean.
//!
//! A group of records is written at once and synced before the next group is written. So bytes that are no record are
//! a **torn** write, to be cut, only if nothing that was written after that group follows; if a record of a later
//! group follows, they had been synced and are **damage**. Pages reach the disk in any order: whole records of the
//! same group behind a torn one prove nothing, which is why each record names its place in its group.

use super::format::{RECORD_HEADER_BYTES, Record, SEGMENT_HEADER_BYTES, SegmentHeader};

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scanned {
    /// Bytes of the header and all good records.
    pub(super) good_bytes: usize,
    /// Index of the record that would come next.
    pub(super) next: u64,
    /// Term of the last good record, or of the one before the segment.
    pub(super) last_term: u64,
    /// What follows the good records.
    pub(super) rest: Rest,
}

/// What follows the good records of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing.
    None,
    /// A write that was not finished.
    Torn,
    /// Something that cannot be there; a record that was synced is gone.
    Damage(&'static str),
}

/// Shows `each` all good records of a segment, with their offsets, in order.
pub(super) fn scan<E>(
    bytes: &[u8],
    header: &SegmentHeader,
    mut each: impl FnMut(Record<'_>, usize) -> Result<(), E>,
) -> Result<Scanned, E> {
    let mut at = SEGMENT_HEADER_BYTES;
    let mut next = header.first;
    let mut last_term = header.previous_term;
    let mut place = 0;
    let mut rest = Rest::None;
    while at < bytes.len() {
        let Some(record) = Record::decode(header.cluster, &bytes[at..]) else {
            let synced = has_later_group(&bytes[at..], header, next);
            rest = if synced {
                Rest::Damage("records that were synced after it are there")
            } else {
                Rest::Torn
            };
            break;
        };
        if record.index != next || record.term < last_term || (record.place != 0 && record.place != place) {
            rest = Rest::Damage("the record there does not follow the one before it");
            break;
        }
        each(record, at)?;
        at += record.bytes();
        next += 1;
        last_term = record.term;
        place = record.place + 1;
    }
    Ok(Scanned {
        good_bytes: at,
        next,
        last_term,
        rest,
    })
}

/// True if a record of a group that begins after the record `missing` is somewhere in these bytes.
fn has_later_group(bytes: &[u8], header: &SegmentHeader, missing: u64) -> bool {
    let possible = missing + 1..=missing + (bytes.len() / RECORD_HEADER_BYTES) as u64 + 1;
    (1..bytes.len()).any(|at| {
        let Some(index) = bytes.get(at + 16..at + 24) else {
            return false;
        };
        let index = u64::from_le_bytes(index.try_into().expect("eight bytes"));
        // Cheap before dear: of random bytes, few look like an index that may come next.
        possible.contains(&index)
            && Record::decode(header.cluster, &bytes[at..]).is_some_and(|record| record.group() > missing)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::ids::ClusterId;
    use std::convert::Infallible;

    const HEADER: SegmentHeader = SegmentHeader {
        cluster: ClusterId([7; 16]),
        first: 5,
        previous_term: 1,
    };

    /// A segment of groups of records; also each record's offset and the end.
    fn segment(groups: &[u32]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = HEADER.encode().to_vec();
        let (mut index, mut offsets) = (HEADER.first, Vec::new());
        for group in groups {
            for place in 0..*group {
                offsets.push(bytes.len());
                Record {
                    term: 1,
                    index,
                    place,
                    version: 1,
                    payload: &[index as u8; 40],
                }
                .encode(HEADER.cluster, &mut bytes);
                index += 1;
            }
        }
        offsets.push(bytes.len());
        (bytes, offsets)
    }

    fn scanned(bytes: &[u8]) -> Scanned {
        scan(bytes, &HEADER, |_, _| Ok::<_, Infallible>(())).unwrap()
    }

    #[test]
    fn whole_records_are_shown_in_order() {
        let (bytes, offsets) = segment(&[1, 3, 2]);
        let mut seen = Vec::new();
        let result = scan(&bytes, &HEADER, |record, at| {
            seen.push((record.index, at));
            Ok::<_, Infallible>(())
        });
        let expected: Vec<_> = (5..11).zip(offsets).collect();
        assert_eq!(seen, expected);
        assert_eq!(
            result.unwrap(),
            Scanned {
                good_bytes: bytes.len(),
                next: 11,
                last_term: 1,
                rest: Rest::None
            }
        );
    }

    #[test]
    fn the_last_group_may_be_torn_anywhere() {
        let (bytes, offsets) = segment(&[2, 3]);
        for end in offsets[2] + 1..bytes.len() {
            let scanned = scanned(&bytes[..end]);
            let whole = offsets.iter().rposition(|offset| *offset <= end).unwrap();
            assert_eq!(scanned.good_bytes, offsets[whole]);
            assert_eq!(scanned.rest == Rest::None, offsets.contains(&end));
            assert_ne!(
                scanned.rest,
                Rest::Damage("records that were synced after it are there")
            );
        }
    }

    #[test]
    fn a_later_record_of_the_same_group_does_not_prove_that_a_torn_one_was_synced() {
        let (mut bytes, offsets) = segment(&[2, 3]);
        bytes[offsets[2]..offsets[3]].fill(0);
        assert_eq!(
            scanned(&bytes),
            Scanned {
                good_bytes: offsets[2],
                next: 7,
                last_term: 1,
                rest: Rest::Torn
            }
        );
    }

    #[test]
    fn a_flipped_bit_before_a_later_group_is_damage() {
        let (bytes, offsets) = segment(&[2, 3, 1]);
        for at in SEGMENT_HEADER_BYTES..offsets[5] {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            assert!(matches!(scanned(&bytes).rest, Rest::Damage(_)), "flip at {at}");
        }
    }

    #[test]
    fn a_record_out_of_order_is_damage() {
        let (bytes, offsets) = segment(&[1, 1, 1]);
        let mut swapped = bytes[..offsets[1]].to_vec();
        swapped.extend(&bytes[offsets[2]..]);
        assert!(matches!(scanned(&swapped).rest, Rest::Damage(_)));
    }
}
