//! Capabilities: what the master allows with one chunk, signed, so that chunkservers need not ask it.
//!
//! The signature is HMAC-SHA256 (RFC 2104) over the encoded [`Capability`], with a key of 32 random bytes that the
//! master shares with chunkservers through their sessions. A capability names an *active* version, so it also tells
//! a replica that its version is active (a proposed one only with [`Operations::PULL`]).

use crate::code::{Code, Error, Result};
use crate::ids::{ChunkHandle, ClientId, NodeId, Version};
use crate::pb;
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use prost::Message as _;
use sha2::Sha256;

/// What may be done, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations(pub u32);

impl Operations {
    /// Read committed bytes, probe.
    pub const READ: Operations = Operations(1);
    /// Write as a client, or forward along the chain.
    pub const WRITE: Operations = Operations(2);
    /// Read another replica's table and blocks, for sync and copy.
    pub const PULL: Operations = Operations(4);

    /// True if every bit of `other` is here.
    #[must_use]
    pub fn contains(self, other: Operations) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Operations {
    type Output = Operations;
    fn bitor(self, other: Operations) -> Operations {
        Operations(self.0 | other.0)
    }
}

/// One replica's place.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// The chunkserver.
    pub node: NodeId,
    /// host:port of its data transport.
    pub addr: String,
    /// Locality and failure domain labels.
    pub host: String,
    /// The rack label.
    pub rack: String,
}

/// What the master allows one client to do with one chunk at one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capability {
    /// The chunk.
    pub chunk: ChunkHandle,
    /// Its active version (with PULL: maybe a proposed one).
    pub version: Version,
    /// What is allowed.
    pub operations: Operations,
    /// Milliseconds since 1970-01-01 UTC.
    pub expires_unix_ms: u64,
    /// For whom; 0 for a chunkserver.
    pub client: ClientId,
    /// The members of that version in chain order.
    pub members: Vec<Member>,
    /// The newest version whose source had lost power; 0 if none.
    pub loss: Version,
    /// The committed length known to the master, bytes.
    pub length: u64,
    /// Replicas there should be.
    pub goal: u32,
}

/// A signing key of the master.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// Which one.
    pub id: u32,
    /// 32 random bytes.
    pub secret: [u8; 32],
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

impl Key {
    fn hmac(&self, bytes: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes keys of any length");
        mac.update(bytes);
        mac
    }

    /// Signs it.
    #[must_use]
    pub fn sign(&self, capability: &Capability) -> pb::Signed {
        let bytes = pb::Capability::from(capability).encode_to_vec();
        let mac = self.hmac(&bytes).finalize().into_bytes();
        pb::Signed {
            capability: bytes.into(),
            key: self.id,
            mac: Bytes::copy_from_slice(&mac),
        }
    }
}

/// The keys a chunkserver accepts: the newest and the previous one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(pub Vec<Key>);

impl Keys {
    /// The capability, if the signature is right, it has not expired and allows `wanted`.
    ///
    /// # Errors
    /// `PermissionDenied` with the reason.
    pub fn verify(&self, signed: &pb::Signed, wanted: Operations, now_unix_ms: u64) -> Result<Capability> {
        let denied = |why: &str| Error::new(Code::PermissionDenied, format!("capability {why}"));
        let key = self
            .0
            .iter()
            .find(|k| k.id == signed.key)
            .ok_or_else(|| denied("signed with an unknown key"))?;
        key.hmac(&signed.capability)
            .verify_slice(&signed.mac)
            .map_err(|_| denied("has a wrong signature"))?;
        let capability = peek(signed)?;
        if capability.expires_unix_ms < now_unix_ms {
            return Err(denied("has expired").on_chunk(capability.chunk, capability.version));
        }
        if !capability.operations.contains(wanted) {
            return Err(denied("does not allow this").on_chunk(capability.chunk, capability.version));
        }
        Ok(capability)
    }
}

/// What a capability says, unverified: for its owner, who has no key.
///
/// # Errors
/// `InvalidArgument` if it cannot be decoded.
pub fn peek(signed: &pb::Signed) -> Result<Capability> {
    pb::Capability::decode(signed.capability.clone())
        .map(Capability::from)
        .map_err(|e| Error::new(Code::InvalidArgument, format!("capability: {e}")))
}

impl From<&Capability> for pb::Capability {
    fn from(c: &Capability) -> Self {
        pb::Capability {
            chunk: c.chunk.0,
            version: c.version.0,
            operations: c.operations.0,
            expires_unix_ms: c.expires_unix_ms,
            client: c.client.0,
            members: c.members.iter().cloned().map(Into::into).collect(),
            loss: c.loss.0,
            length: c.length,
            goal: c.goal,
        }
    }
}

impl From<pb::Capability> for Capability {
    fn from(c: pb::Capability) -> Self {
        Capability {
            chunk: ChunkHandle(c.chunk),
            version: Version(c.version),
            operations: Operations(c.operations),
            expires_unix_ms: c.expires_unix_ms,
            client: ClientId(c.client),
            members: c.members.into_iter().map(Into::into).collect(),
            loss: Version(c.loss),
            length: c.length,
            goal: c.goal,
        }
    }
}

impl From<Member> for pb::Member {
    fn from(m: Member) -> Self {
        pb::Member {
            node: m.node.0,
            addr: m.addr,
            host: m.host,
            rack: m.rack,
        }
    }
}

impl From<pb::Member> for Member {
    fn from(m: pb::Member) -> Self {
        Member {
            node: NodeId(m.node),
            addr: m.addr,
            host: m.host,
            rack: m.rack,
        }
    }
}

impl From<&Key> for pb::Key {
    fn from(k: &Key) -> Self {
        pb::Key {
            id: k.id,
            secret: Bytes::copy_from_slice(&k.secret),
        }
    }
}

impl From<&pb::Keys> for Keys {
    /// Keys that are not 32 bytes long are left out: nothing verifies with them.
    fn from(keys: &pb::Keys) -> Self {
        let key = |k: &pb::Key| {
            Some(Key {
                id: k.id,
                secret: k.secret[..].try_into().ok()?,
            })
        };
        Keys(keys.keys.iter().filter_map(key).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capability() -> Capability {
        Capability {
            chunk: ChunkHandle(5),
            version: Version(2),
            operations: Operations::READ,
            expires_unix_ms: 1_000,
            members: vec![Member {
                node: NodeId(1),
                addr: "127.0.0.1:1".into(),
                ..Member::default()
            }],
            ..Capability::default()
        }
    }

    fn key(id: u32) -> Key {
        Key {
            id,
            secret: [id as u8; 32],
        }
    }

    #[test]
    fn what_is_signed_verifies_and_says_the_same() {
        let keys = Keys(vec![key(2), key(1)]);
        for k in [key(1), key(2)] {
            assert_eq!(
                keys.verify(&k.sign(&capability()), Operations::READ, 1_000)
                    .unwrap(),
                capability()
            );
        }
    }

    #[test]
    fn a_forged_expired_or_stretched_capability_is_refused() {
        let keys = Keys(vec![key(1)]);
        let good = key(1).sign(&capability());
        let mut forged = good.clone();
        forged.capability = pb::Capability {
            version: 3,
            ..(&capability()).into()
        }
        .encode_to_vec()
        .into();
        let denied = |s: &pb::Signed, ops, now| keys.verify(s, ops, now).unwrap_err().code;
        assert_eq!(denied(&forged, Operations::READ, 0), Code::PermissionDenied);
        assert_eq!(denied(&good, Operations::READ, 1_001), Code::PermissionDenied);
        assert_eq!(denied(&good, Operations::WRITE, 0), Code::PermissionDenied);
        assert_eq!(
            denied(&key(3).sign(&capability()), Operations::READ, 0),
            Code::PermissionDenied
        );
        assert_eq!(
            denied(&pb::Signed::default(), Operations::READ, 0),
            Code::PermissionDenied
        );
    }
}
