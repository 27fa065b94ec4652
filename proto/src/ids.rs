//! Identities, each a type of its own so that they cannot be mixed up.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    };
}

id!(
    /// A file, directory, symlink or special file; never reused. The root is [`InodeId::ROOT`].
    InodeId(u64), "{}"
);
id!(
    /// A chunk; never reused. Printed as 16 hex digits.
    ChunkHandle(u64), "{:016x}"
);
id!(
    /// A chunk's version: up by one with every change of its members. 0 is "none".
    Version(u32), "{}"
);
id!(
    /// A chunkserver, numbered by the master when it first registers. 0 is "none".
    NodeId(u32), "{}"
);
id!(
    /// A client session, numbered by the master. 0 is "none".
    ClientId(u64), "{}"
);
id!(
    /// One writing stream of a client to a chunk: random, so that two never share a sequence.
    WriterId(u64), "{:016x}"
);

impl InodeId {
    /// The root directory.
    pub const ROOT: InodeId = InodeId(1);
}

impl WriterId {
    /// Who seals a chunk: in its writer table, it takes no more records (protocol section 6).
    pub const SEAL: WriterId = WriterId(u64::MAX);
    const LASTING: u64 = 1 << 63;

    /// A writing stream's, from chance.
    #[must_use]
    pub fn of_stream(chance: u64) -> WriterId {
        WriterId(chance & !WriterId::LASTING)
    }

    /// A producer of records: 1 to 2^63 - 2.
    #[must_use]
    pub fn of_producer(producer: u64) -> Option<WriterId> {
        let writer = WriterId(producer | WriterId::LASTING);
        (producer > 0 && producer < WriterId::LASTING && writer != WriterId::SEAL).then_some(writer)
    }

    /// A producer, not a stream and not the seal.
    #[must_use]
    pub fn is_producer(self) -> bool {
        self.is_lasting() && self != WriterId::SEAL
    }

    /// A chunk never forgets it.
    #[must_use]
    pub fn is_lasting(self) -> bool {
        self.0 & WriterId::LASTING != 0
    }
}

impl Version {
    /// The version a chunk is born with.
    pub const FIRST: Version = Version(1);

    /// The next one.
    #[must_use]
    pub fn next(self) -> Version {
        Version(
            self.0
                .checked_add(1)
                .expect("a chunk changes its members less than four billion times"),
        )
    }
}

/// A cluster, random, made with the master's first start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl ClusterId {
    /// From the wire; `None` unless it has 16 bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<ClusterId> {
        bytes.try_into().ok().map(ClusterId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_handle_prints_as_sixteen_hex_digits() {
        assert_eq!(ChunkHandle(0xbeef).to_string(), "000000000000beef");
    }

    #[test]
    fn streams_producers_and_the_seal_are_never_taken_for_each_other() {
        assert!(!WriterId::of_stream(u64::MAX).is_lasting());
        let producer = WriterId::of_producer(7).unwrap();
        assert!(producer.is_producer() && producer.is_lasting());
        assert!(WriterId::SEAL.is_lasting() && !WriterId::SEAL.is_producer());
        let refused = [0, (1 << 63) - 1, 1 << 63, u64::MAX];
        assert!(refused.iter().all(|p| WriterId::of_producer(*p).is_none()));
    }

    #[test]
    fn a_cluster_id_has_sixteen_bytes() {
        assert!(ClusterId::from_slice(&[0; 15]).is_none());
        assert_eq!(ClusterId([1; 16]).to_string(), "01".repeat(16));
    }
}
