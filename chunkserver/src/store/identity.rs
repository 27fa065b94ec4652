//! Who a data directory is: the cluster, the server and the disk it belongs to.
//!
//! ```text
//! offset  size    part of DATA/identity (little-endian)
//! 0       8       magic "dfsident"
//! 8       4       format, 1
//! 12      4       node; 0: not registered yet
//! 16      16      cluster; zeros: not registered yet
//! 32      16      this server: random, made with its first data directory
//! 48      16      this disk: random
//! 64      4       disks of this server (n), at most 64
//! 68      n x 16  their ids, in order
//! 68+16n  4       CRC-32 of all before it
//! ```

use super::home::DiskId;
use dfs_proto::checksum::crc;
use dfs_proto::{ClusterId, NodeId};
use dfs_stdx::disk::{Disk, Open, Result};
use std::path::Path;

const MAGIC: &[u8; 8] = b"dfsident";
const FORMAT: u32 = 1;
const DISKS_AT: usize = 68;
/// Most data directories of one server.
pub const DISKS_MAX: usize = 64;

/// An identity file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// 0 before the first registration.
    pub node: NodeId,
    /// Zeros before the first registration.
    pub cluster: ClusterId,
    /// The same in all directories of a server.
    pub server: [u8; 16],
    /// This disk.
    pub disk: DiskId,
    /// All disks of the server, this one too, in order.
    pub disks: Vec<DiskId>,
}

impl Identity {
    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.disks.len() <= DISKS_MAX, "a server has few disks");
        let mut out = Vec::with_capacity(DISKS_AT + self.disks.len() * 16 + 4);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&self.node.0.to_le_bytes());
        out.extend_from_slice(&self.cluster.0);
        out.extend_from_slice(&self.server);
        out.extend_from_slice(&self.disk);
        out.extend_from_slice(&u32::try_from(self.disks.len()).expect("few").to_le_bytes());
        self.disks.iter().for_each(|d| out.extend_from_slice(d));
        let sum = crc(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    /// What the bytes say; `None` if they are damaged.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Identity> {
        let (body, sum) = bytes.split_last_chunk::<4>()?;
        let u32_at = |at: usize| Some(u32::from_le_bytes(body.get(at..at + 4)?.try_into().ok()?));
        let id_at = |at: usize| <[u8; 16]>::try_from(body.get(at..at + 16)?).ok();
        let count = u32_at(64)? as usize;
        let good = body.starts_with(MAGIC)
            && u32_at(8)? == FORMAT
            && u32::from_le_bytes(*sum) == crc(body)
            && count <= DISKS_MAX
            && body.len() == DISKS_AT + count * 16;
        good.then_some(Identity {
            node: NodeId(u32_at(12)?),
            cluster: ClusterId(id_at(16)?),
            server: id_at(32)?,
            disk: id_at(48)?,
            disks: (0..count)
                .map(|n| id_at(DISKS_AT + n * 16))
                .collect::<Option<_>>()?,
        })
    }

    /// Writes it durably, replacing an older one as a whole.
    pub(super) fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<()> {
        let new = dir.join("identity.new");
        let file = disk.open(&new, Open::Always)?;
        file.set_length(0)?;
        file.write_at(&self.encode(), 0)?;
        file.sync_data()?;
        disk.rename(&new, &dir.join("identity"))?;
        disk.sync_dir(dir)
    }

    /// Reads it: `None` if there is none, `Some(None)` if it is damaged.
    pub(super) fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Option<Identity>>> {
        let path = dir.join("identity");
        if !disk.exists(&path)? {
            return Ok(None);
        }
        let file = disk.open(&path, Open::ReadOnly)?;
        let mut bytes = vec![0; DISKS_AT + DISKS_MAX * 16 + 4];
        let read = file.read_at(&mut bytes, 0)?;
        Ok(Some(Identity::decode(&bytes[..read])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn identity() -> Identity {
        Identity {
            node: NodeId(3),
            cluster: ClusterId([1; 16]),
            server: [2; 16],
            disk: [3; 16],
            disks: vec![[3; 16], [4; 16]],
        }
    }

    #[test]
    fn an_identity_has_the_documented_bytes() {
        let bytes = identity().encode();
        let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let fields = [
            "6466736964656e740100000003000000".to_owned(),
            "01".repeat(16),
            "02".repeat(16),
            "03".repeat(16),
            "02000000".to_owned(),
            "03".repeat(16),
            "04".repeat(16),
        ];
        assert_eq!(text[..text.len() - 8], fields.concat());
        assert_eq!(Identity::decode(&bytes), Some(identity()));
    }

    #[test]
    fn every_flipped_bit_of_an_identity_is_found() {
        let good = identity().encode();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Identity::decode(&bytes), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Identity::decode(&bytes);
        }
    }
}
