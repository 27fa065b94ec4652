//! What a program reads in `errno`: one exhaustive table, so that a new code does not compile until someone has decided.

use dfs_proto::Code;
use fuser::Errno;

/// The errno of a code.
#[must_use]
pub(crate) fn errno(code: Code) -> Errno {
    match code {
        Code::NotFound => Errno::ENOENT,
        Code::AlreadyExists => Errno::EEXIST,
        Code::NotEmpty => Errno::ENOTEMPTY,
        Code::NotADirectory => Errno::ENOTDIR,
        Code::IsADirectory => Errno::EISDIR,
        Code::InvalidArgument => Errno::EINVAL,
        Code::NameTooLong => Errno::ENAMETOOLONG,
        Code::PermissionDenied => Errno::EACCES,
        Code::NotPermitted => Errno::EPERM,
        Code::NoSpace => Errno::ENOSPC,
        Code::QuotaExceeded => Errno::EDQUOT,
        Code::Busy => Errno::EBUSY,
        Code::TimedOut => Errno::ETIMEDOUT,
        Code::TooManyLinks => Errno::ELOOP,
        Code::NoAttribute => Errno::ENODATA,
        Code::TooLarge => Errno::EFBIG,
        Code::LinkLimit => Errno::EMLINK,
        Code::NotSupported => Errno::EOPNOTSUPP,
        // The inode is gone, not its name: the kernel looks the name up again.
        Code::SessionExpired | Code::Stale => Errno::ESTALE,
        // Retries are over when one of these arrives here; EAGAIN would make programs try for ever.
        Code::NotLeader | Code::NotYet | Code::Unavailable | Code::Corrupt | Code::Internal | Code::Lost => {
            Errno::EIO
        }
    }
}

/// True where the program did nothing wrong: the log has to say why.
#[must_use]
pub(crate) fn is_trouble(code: Code) -> bool {
    match code {
        Code::NotFound
        | Code::AlreadyExists
        | Code::NotEmpty
        | Code::NotADirectory
        | Code::IsADirectory
        | Code::InvalidArgument
        | Code::NameTooLong
        | Code::PermissionDenied
        | Code::NotPermitted
        | Code::NoSpace
        | Code::QuotaExceeded
        | Code::Busy
        | Code::TooManyLinks
        | Code::NoAttribute
        | Code::TooLarge
        | Code::LinkLimit
        | Code::Stale
        | Code::NotSupported => false,
        Code::TimedOut
        | Code::SessionExpired
        | Code::NotLeader
        | Code::NotYet
        | Code::Unavailable
        | Code::Corrupt
        | Code::Internal
        | Code::Lost => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_did_wrong_has_an_errno_of_its_own() {
        let own: Vec<i32> = Code::ALL
            .iter()
            .filter(|code| !is_trouble(**code))
            .map(|code| errno(*code).code())
            .collect();
        let mut different = own.clone();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), own.len(), "{own:?}");
    }

    #[test]
    fn trouble_is_an_error_no_program_retries_for_ever() {
        for code in Code::ALL.iter().filter(|code| is_trouble(**code)) {
            let errno = errno(*code).code();
            assert!(
                [Errno::EIO, Errno::ETIMEDOUT, Errno::ESTALE]
                    .map(Errno::code)
                    .contains(&errno),
                "{code:?} {errno}"
            );
        }
    }
}
