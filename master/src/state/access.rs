//! Who may do what: mode bits, owner, group, the superuser (path_resolution(7), inode(7), capabilities(7)).

use dfs_proto::{Code, Error, InodeId, Result};

use super::tables;
use crate::command::Caller;
use crate::store::Read;
use crate::store::records::{Inode, Kind};

/// Set-user-id.
pub(super) const SUID: u32 = 0o4000;
/// Set-group-id; on a directory: what is made in it gets its group.
pub(super) const SGID: u32 = 0o2000;
/// On a directory: only owners take names away.
pub(super) const STICKY: u32 = 0o1000;
/// All that chmod may set.
pub(super) const MODE_BITS: u32 = 0o7777;
const GROUP_EXECUTE: u32 = 0o0010;

/// What is wanted of an inode, as the bits of one mode digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(u32);

impl Access {
    /// Read a file, list a directory.
    pub const READ: Access = Access(4);
    /// Write a file, change a directory's names.
    pub const WRITE: Access = Access(2);
    /// Execute a file, pass through a directory.
    pub const EXECUTE: Access = Access(1);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Access) -> Access {
        Access(self.0 | other.0)
    }

    /// From access(2)'s `R_OK | W_OK | X_OK`; other bits are ignored.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Access {
        Access(bits & 7)
    }

    const fn has(self, other: Access) -> bool {
        self.0 & other.0 != 0
    }
}

/// Whether the caller may do that with the inode.
///
/// # Errors
/// `NotFound`, `PermissionDenied`.
pub fn check_access(read: &dyn Read, caller: &Caller, inode: InodeId, want: Access) -> Result<()> {
    require(caller, &tables::inode(read, inode)?, want)
}

pub(super) fn require(caller: &Caller, inode: &Inode, want: Access) -> Result<()> {
    if allows(caller, inode, want) {
        Ok(())
    } else {
        Err(Code::PermissionDenied.into())
    }
}

/// For bytes of a file that was opened before: its owner keeps what a later chmod takes away (as NFS servers do,
/// which know no open files either).
pub(super) fn require_bytes(caller: &Caller, inode: &Inode, want: Access) -> Result<()> {
    if caller.uid == inode.uid {
        Ok(())
    } else {
        require(caller, inode, want)
    }
}

fn allows(caller: &Caller, inode: &Inode, want: Access) -> bool {
    if caller.is_root() {
        let executable = inode.kind() == Kind::Directory || inode.mode & 0o111 != 0;
        return !want.has(Access::EXECUTE) || executable;
    }
    let digit = if caller.uid == inode.uid {
        inode.mode >> 6
    } else if caller.is_in(inode.gid) {
        inode.mode >> 3
    } else {
        inode.mode
    };
    digit & want.0 == want.0
}

/// Only the owner and the superuser.
pub(super) fn require_owner(caller: &Caller, inode: &Inode) -> Result<()> {
    if caller.is_root() || caller.uid == inode.uid {
        Ok(())
    } else {
        Err(Error::new(Code::NotPermitted, "only the owner may"))
    }
}

/// Taking a name away: write and pass the directory, and own the entry or the directory if it is sticky.
pub(super) fn require_removal(caller: &Caller, directory: &Inode, entry: &Inode) -> Result<()> {
    require(caller, directory, Access::WRITE.and(Access::EXECUTE))?;
    let owns = caller.is_root() || caller.uid == entry.uid || caller.uid == directory.uid;
    if directory.mode & STICKY != 0 && !owns {
        return Err(Error::new(Code::NotPermitted, "the directory is sticky"));
    }
    Ok(())
}

/// The mode of a file whose bytes or owner have changed (chown(2), write(2); Linux's `setattr_should_drop_sgid`):
/// without suid, and without sgid where it means a group to run as, or where the caller is not in that group.
pub(super) fn without_privileges(caller: &Caller, inode: &Inode) -> u32 {
    let kept = inode.mode & !SUID;
    let may_keep = caller.is_root() || caller.is_in(inode.gid);
    if inode.mode & GROUP_EXECUTE != 0 || !may_keep {
        kept & !SGID
    } else {
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inode(kind: Kind, mode: u32) -> Inode {
        Inode {
            kind: kind as i32,
            mode,
            uid: 10,
            gid: 20,
            ..Inode::default()
        }
    }

    fn caller(uid: u32, gid: u32, groups: &[u32]) -> Caller {
        Caller {
            uid,
            gid,
            groups: groups.to_vec(),
        }
    }

    #[test]
    fn the_first_class_that_fits_counts_alone() {
        let file = inode(Kind::File, 0o047);
        assert!(!allows(&caller(10, 20, &[]), &file, Access::READ));
        assert!(allows(&caller(11, 20, &[]), &file, Access::READ));
        assert!(!allows(&caller(11, 5, &[20]), &file, Access::WRITE));
        assert!(allows(
            &caller(11, 5, &[6]),
            &file,
            Access::READ.and(Access::WRITE).and(Access::EXECUTE)
        ));
    }

    #[test]
    fn the_superuser_executes_only_what_someone_may() {
        assert!(!allows(&Caller::ROOT, &inode(Kind::File, 0o666), Access::EXECUTE));
        assert!(allows(&Caller::ROOT, &inode(Kind::File, 0o001), Access::EXECUTE));
        assert!(allows(&Caller::ROOT, &inode(Kind::Directory, 0), Access::EXECUTE));
        assert!(allows(&Caller::ROOT, &inode(Kind::File, 0), Access::WRITE));
    }

    #[test]
    fn the_owner_keeps_the_bytes_it_opened() {
        let file = inode(Kind::File, 0);
        assert!(require_bytes(&caller(10, 1, &[]), &file, Access::WRITE).is_ok());
        assert_eq!(
            require_bytes(&caller(11, 20, &[]), &file, Access::WRITE)
                .unwrap_err()
                .code,
            Code::PermissionDenied
        );
    }

    #[test]
    fn a_sticky_directory_lets_owners_remove() {
        let mut directory = inode(Kind::Directory, 0o1777);
        let entry = Inode {
            uid: 30,
            ..inode(Kind::File, 0o644)
        };
        for (uid, may) in [(0, true), (10, true), (30, true), (31, false)] {
            assert_eq!(
                require_removal(&caller(uid, 1, &[]), &directory, &entry).is_ok(),
                may
            );
        }
        directory.mode = 0o755;
        let refused = require_removal(&caller(30, 1, &[]), &directory, &entry).unwrap_err();
        assert_eq!(refused.code, Code::PermissionDenied);
    }

    #[test]
    fn privileges_go_with_the_bytes() {
        let (member, other) = (caller(11, 5, &[20]), caller(11, 5, &[]));
        let left = |caller: &Caller, mode| without_privileges(caller, &inode(Kind::File, mode));
        assert_eq!(left(&member, 0o6755), 0o755);
        let why = "sgid without group execute is no privilege";
        assert_eq!(left(&member, 0o6744), 0o2744, "{why}");
        assert_eq!(left(&Caller::ROOT, 0o6744), 0o2744, "{why}");
        assert_eq!(
            left(&other, 0o6744),
            0o744,
            "but nothing another group's user leaves behind"
        );
    }
}
