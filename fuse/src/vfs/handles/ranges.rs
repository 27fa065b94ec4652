//! Ranges of open files: holes, and copies from one to another.

use crate::vfs::content::Seek;
use crate::vfs::{Allocate, At, Vfs, Whence};
use dfs_client::Result;

#[expect(
    clippy::missing_errors_doc,
    reason = "the master's and the chunkservers', or TimedOut, for all"
)]
impl Vfs {
    /// Reserves, punches or zeroes a range.
    pub async fn fallocate(&self, at: At, length: u64, how: Allocate) -> Result<()> {
        let file = self.files.get(at.handle)?;
        match how {
            Allocate::Reserve { keep_size } => file.content.allocate(at.offset, length, keep_size).await,
            Allocate::Punch => file.content.punch(at.offset, length).await,
            Allocate::Zero { keep_size } => file.content.zero(at.offset, length, keep_size).await,
        }
    }

    /// Where data or a hole begins, from an offset on; `None`: not before the end (ENXIO).
    pub async fn lseek(&self, at: At, whence: Whence) -> Result<Option<u64>> {
        let file = self.files.get(at.handle)?;
        let what = match whence {
            Whence::Data => Seek::Data,
            Whence::Hole => Seek::Hole,
        };
        file.content.seek(at.offset, what).await
    }

    /// Copies a range from one file to another; returns how much was copied.
    pub async fn copy_file_range(&self, from: At, to: At, length: u64) -> Result<u64> {
        let (source, target) = (self.files.get(from.handle)?, self.files.get(to.handle)?);
        let copied = target
            .content
            .copy(&source.content, from.offset, to.offset, length)
            .await?;
        if target.syncs() {
            target.content.sync(&target.opening).await?;
        }
        Ok(copied)
    }
}
