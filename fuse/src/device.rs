//! The way into the kernel: `/dev/fuse`, mount(2), umount(2).
//!
//! Root mounts by itself: fuser's own unmount at the end of a session cannot tell a mount that is gone from one that
//! is there, and would take away whoever was mounted there since. Others go through fuser and its `fusermount3`.

use crate::filesystem::Edge;
use crate::mount::Error;
use crate::options::{Flag, Options};
use fuser::{Config, MountOption, Session, SessionACL};
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

const DEVICE: &str = "/dev/fuse";
const SUBTYPE: &str = "subtype=dfs";
/// Where fusermount3 is if PATH does not say.
const FOLDERS: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];

/// Mounts, greets the kernel, and returns the session, which answers once it runs. Blocks.
///
/// # Errors
/// What is missing on this machine, or the system's.
pub(crate) fn mount(
    edge: Edge,
    source: &str,
    mountpoint: &Path,
    options: &Options,
) -> Result<Session<Edge>, Error> {
    let device = File::options()
        .read(true)
        .write(true)
        .open(DEVICE)
        .map_err(no_device)?;
    let config = config(source, options);
    match mount_directly(&device, source, mountpoint, options) {
        Ok(()) => {
            Session::from_fd(edge, OwnedFd::from(device), config.acl, config).map_err(|error| {
                // It would hang whoever looks at it.
                let _ = rustix::mount::unmount(mountpoint, UnmountFlags::DETACH);
                Error::System("the kernel does not greet", error)
            })
        }
        Err(error) if error == rustix::io::Errno::PERM => {
            drop(device);
            check_helper(options)?;
            Session::new(edge, mountpoint, &config).map_err(|error| Error::System("fusermount3", error))
        }
        Err(error) => Err(Error::System("mount", error.into())),
    }
}

/// Changes what the kernel keeps of a mount that is there: read-only or not, and the flags of mount(2).
///
/// # Errors
/// The system's; who may not mount may not do this.
pub fn remount(mountpoint: &Path, options: &Options) -> io::Result<()> {
    Ok(rustix::mount::mount_remount(mountpoint, flags(options), c"")?)
}

/// Unmounts. `lazy`: now for whoever looks for it, at the end of the last open file for the others.
///
/// # Errors
/// The system's; busy if something there is open and it is not `lazy`.
pub fn unmount(mountpoint: &Path, lazy: bool) -> io::Result<()> {
    let flags = match lazy {
        true => UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
        false => UnmountFlags::NOFOLLOW,
    };
    match rustix::mount::unmount(mountpoint, flags) {
        Err(error) if error == rustix::io::Errno::PERM => unmount_by_helper(mountpoint, lazy),
        outcome => Ok(outcome?),
    }
}

fn unmount_by_helper(mountpoint: &Path, lazy: bool) -> io::Result<()> {
    let mut command = std::process::Command::new("fusermount3");
    command
        .arg(if lazy { "-uz" } else { "-u" })
        .arg("--")
        .arg(mountpoint);
    let output = command.output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        )),
    }
}

fn mount_directly(
    device: &File,
    source: &str,
    mountpoint: &Path,
    options: &Options,
) -> rustix::io::Result<()> {
    let mode = std::fs::symlink_metadata(mountpoint)
        .map_err(|error| rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO))?
        .mode();
    let mut data = format!(
        "fd={},rootmode={:o},user_id={},group_id={},{SUBTYPE}",
        device.as_raw_fd(),
        mode & 0o170_000,
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    if options.default_permissions {
        data.push_str(",default_permissions");
    }
    if acl(options) == SessionACL::All {
        data.push_str(",allow_other");
    }
    let data = CString::new(data).expect("numbers and words");
    rustix::mount::mount(source, mountpoint, "fuse", flags(options), data.as_c_str())
}

/// Who may use it: root's mounts are for all, as any file system's; others' are for themselves.
fn acl(options: &Options) -> SessionACL {
    let by_root = rustix::process::geteuid().is_root();
    match options.allow_other.unwrap_or(by_root) {
        true => SessionACL::All,
        false => SessionACL::Owner,
    }
}

fn flags(options: &Options) -> MountFlags {
    // What a user's tree holds gives nobody rights here, unless it is asked for.
    let mut flags = MountFlags::NODEV | MountFlags::NOSUID;
    flags.set(MountFlags::RDONLY, options.read_only);
    for flag in &options.flags {
        match flag {
            Flag::Dev => flags.remove(MountFlags::NODEV),
            Flag::NoDev => flags.insert(MountFlags::NODEV),
            Flag::Suid => flags.remove(MountFlags::NOSUID),
            Flag::NoSuid => flags.insert(MountFlags::NOSUID),
            Flag::Exec => flags.remove(MountFlags::NOEXEC),
            Flag::NoExec => flags.insert(MountFlags::NOEXEC),
            Flag::NoAtime => flags.insert(MountFlags::NOATIME),
            Flag::Sync => flags.insert(MountFlags::SYNCHRONOUS),
            Flag::DirSync => flags.insert(MountFlags::DIRSYNC),
        }
    }
    flags
}

/// The same for fuser.
fn config(source: &str, options: &Options) -> Config {
    let mut config = Config::default();
    config.acl = acl(options);
    config.n_threads = Some(options.threads);
    config.clone_fd = options.threads > 1;
    let flags = flags(options);
    let all = [
        (true, MountOption::FSName(source.to_owned())),
        (true, MountOption::CUSTOM(SUBTYPE.to_owned())),
        (options.default_permissions, MountOption::DefaultPermissions),
        (flags.contains(MountFlags::RDONLY), MountOption::RO),
        (flags.contains(MountFlags::NOEXEC), MountOption::NoExec),
        (flags.contains(MountFlags::NOATIME), MountOption::NoAtime),
        (flags.contains(MountFlags::SYNCHRONOUS), MountOption::Sync),
        (flags.contains(MountFlags::DIRSYNC), MountOption::DirSync),
    ];
    config.mount_options = all
        .into_iter()
        .filter_map(|(asked, option)| asked.then_some(option))
        .collect();
    config
}

fn no_device(error: io::Error) -> Error {
    let why = match error.kind() {
        io::ErrorKind::NotFound => {
            "this machine has no /dev/fuse: load the module (modprobe fuse), or give it to the container \
             (--device /dev/fuse --cap-add SYS_ADMIN)"
        }
        io::ErrorKind::PermissionDenied => {
            "/dev/fuse may not be opened by this user: mount as root, or let users (chmod 666 /dev/fuse)"
        }
        _ => return Error::System(DEVICE, error),
    };
    Error::Missing(why.to_owned())
}

/// What mount(2) may not do for this user, `fusermount3` can, if it is there and may.
fn check_helper(options: &Options) -> Result<(), Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let known = FOLDERS.iter().map(Into::into);
    if !std::env::split_paths(&path)
        .chain(known)
        .any(|folder| folder.join("fusermount3").exists())
    {
        return Err(Error::Missing(
            "only root (with CAP_SYS_ADMIN) may mount by itself, and there is no fusermount3 to do it for others: \
             install the package fuse3, or mount as root"
                .to_owned(),
        ));
    }
    let by_root = rustix::process::geteuid().is_root();
    let allowed = std::fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    let allowed = allowed.lines().any(|line| line.trim() == "user_allow_other");
    if options.allow_other == Some(true) && !by_root && !allowed {
        return Err(Error::Missing(
            "allow_other by a user needs the line user_allow_other in /etc/fuse.conf".to_owned(),
        ));
    }
    Ok(())
}
