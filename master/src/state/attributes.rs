//! Attributes and who may change them (chmod(2), chown(2), utimensat(2), truncate(2)).

use crate::store::records::Inode;

/// An inode changed, its bytes did not.
pub(super) fn touch(inode: &mut Inode, now_ns: i64) {
    inode.ctime_ns = now_ns;
    inode.change += 1;
}
