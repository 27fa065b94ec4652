//! The mount's options, as `-o` has them: ours, the kernel's, and those of mount(8) that say nothing to us.

use dfs_stdx::size::Size;
use std::time::Duration;

/// How a mount behaves towards its programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Nothing can be changed.
    pub read_only: bool,
    /// The mount is there, and only the kernel's flags are to change.
    pub remount: bool,
    /// Other users than the one who mounts may use it. Unsaid: root's mounts are for all, others' for themselves.
    pub allow_other: Option<bool>,
    /// The kernel checks permission bits.
    pub default_permissions: bool,
    /// All files are shown as this user's.
    pub uid: Option<u32>,
    /// All files are shown as this group's.
    pub gid: Option<u32>,
    /// Permission bits that are not shown.
    pub umask: Option<u32>,
    /// Root has no more rights than nobody.
    pub root_squash: bool,
    /// Clean file data kept by the mount, bytes.
    pub cache_bytes: u64,
    /// Bytes written and not yet sent, over all files.
    pub buffer_bytes: u64,
    /// How long the kernel may keep names and attributes while the change stream stands.
    pub timeout: Duration,
    /// Threads that take requests from the kernel.
    pub threads: usize,
    /// Flags for mount(2), by their names.
    pub flags: Vec<Flag>,
    /// Where the log goes.
    pub log: Option<String>,
    /// Where metrics are served: "host:port".
    pub metrics: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            read_only: false,
            remount: false,
            allow_other: None,
            default_permissions: true,
            uid: None,
            gid: None,
            umask: None,
            root_squash: false,
            cache_bytes: 64 << 20,
            buffer_bytes: 64 << 20,
            timeout: Duration::from_secs(3_600),
            threads: processors().clamp(2, 8),
            flags: Vec::new(),
            log: None,
            metrics: None,
        }
    }
}

/// Processors this process may use.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// A flag of mount(2) that is the kernel's to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// Device nodes work.
    Dev,
    /// Device nodes are only names.
    NoDev,
    /// suid and sgid count.
    Suid,
    /// suid and sgid are only bits.
    NoSuid,
    /// Programs may be run.
    Exec,
    /// Programs may not be run.
    NoExec,
    /// Access times are not kept.
    NoAtime,
    /// Every write is an fsync too.
    Sync,
    /// Every change of a directory is an fsync too.
    DirSync,
}

/// Why options were refused: a sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

/// Options of mount(8) and fstab(5) that it passes on, and that change nothing here.
const SILENT: [&str; 23] = [
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "async",
    "atime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "nonempty",
    "silent",
    "loud",
];
/// The same with a value or an ending.
const SILENT_PREFIXES: [&str; 6] = ["x-", "X-", "comment=", "fsname=", "subtype=", "iversion"];
/// What a refusal names.
const KNOWN: &str = "ro, rw, allow_other, noallow_other, default_permissions, nodefault_permissions, uid=N, gid=N, \
                     umask=OCTAL, root_squash, noroot_squash, cache=SIZE, buffer=SIZE, timeout=SECONDS, threads=N, \
                     log=FILE, metrics=HOST:PORT, dev, nodev, suid, nosuid, exec, noexec, noatime, sync, dirsync, \
                     remount, and those of mount(8)";

impl Options {
    /// Reads "ro,uid=1000,..", as after `-o`; later ones count more than earlier ones.
    ///
    /// # Errors
    /// Which option is not one, or what is wrong with its value.
    pub fn read(&mut self, list: &str) -> Result<(), Invalid> {
        list.split(',')
            .filter(|o| !o.is_empty())
            .try_for_each(|option| self.read_one(option))
    }

    fn read_one(&mut self, option: &str) -> Result<(), Invalid> {
        if let Some(flag) = flag(option) {
            self.flags.push(flag);
            return Ok(());
        }
        match option.split_once('=') {
            Some((name, value)) if self.read_value(name, value)? => return Ok(()),
            _ => {}
        }
        match option {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "remount" => self.remount = true,
            "allow_other" => self.allow_other = Some(true),
            "noallow_other" => self.allow_other = Some(false),
            "default_permissions" => self.default_permissions = true,
            "nodefault_permissions" => self.default_permissions = false,
            "root_squash" => self.root_squash = true,
            "noroot_squash" => self.root_squash = false,
            _ if SILENT.contains(&option) => {}
            _ if SILENT_PREFIXES.iter().any(|prefix| option.starts_with(prefix)) => {}
            _ => {
                return Err(Invalid(format!(
                    "-o {option}: no such option; there are: {KNOWN}"
                )));
            }
        }
        Ok(())
    }

    /// False: there is no such option with a value.
    fn read_value(&mut self, name: &str, value: &str) -> Result<bool, Invalid> {
        let refuse = |what: &str| Invalid(format!("-o {name}={value}: {what}"));
        let number = |what| value.parse::<u32>().map_err(|_| refuse(what));
        let size = || value.parse::<Size>().map_err(|error| refuse(&error.to_string()));
        match name {
            "uid" => self.uid = Some(number("not a user's number")?),
            "gid" => self.gid = Some(number("not a group's number")?),
            "umask" => {
                let mask = u32::from_str_radix(value, 8).ok().filter(|mask| *mask <= 0o777);
                self.umask = Some(mask.ok_or_else(|| refuse("not permission bits in octal, such as 022"))?);
            }
            "cache" => self.cache_bytes = size()?.bytes(),
            "buffer" => {
                let bytes = size()?.bytes();
                if bytes < 1 << 20 {
                    return Err(refuse("at least 1MiB is needed"));
                }
                self.buffer_bytes = bytes;
            }
            "timeout" => self.timeout = Duration::from_secs(number("not a number of seconds")?.into()),
            "threads" => {
                let threads = number("not a number of threads")?;
                if !(1..=64).contains(&threads) {
                    return Err(refuse("1 to 64 threads"));
                }
                self.threads = threads as usize;
            }
            "log" => self.log = Some(value.to_owned()),
            "metrics" if dfs_proto::net::is_address(value) => self.metrics = Some(value.to_owned()),
            "metrics" => return Err(refuse("an address is HOST:PORT")),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn flag(name: &str) -> Option<Flag> {
    match name {
        "dev" => Some(Flag::Dev),
        "nodev" => Some(Flag::NoDev),
        "suid" => Some(Flag::Suid),
        "nosuid" => Some(Flag::NoSuid),
        "exec" => Some(Flag::Exec),
        "noexec" => Some(Flag::NoExec),
        "noatime" => Some(Flag::NoAtime),
        "sync" => Some(Flag::Sync),
        "dirsync" => Some(Flag::DirSync),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &str) -> Result<Options, Invalid> {
        let mut options = Options::default();
        options.read(list).map(|()| options)
    }

    #[test]
    fn what_fstab_says_is_understood() {
        let options =
            read("rw,_netdev,noauto,x-systemd.automount,allow_other,uid=1000,gid=1000,umask=027").unwrap();
        assert_eq!(
            (options.uid, options.gid, options.umask),
            (Some(1_000), Some(1_000), Some(0o27))
        );
        assert_eq!((options.allow_other, options.read_only), (Some(true), false));
        assert!(read("ro").unwrap().read_only);
        assert_eq!(read("").unwrap(), Options::default());
    }

    #[test]
    fn a_later_option_counts_more() {
        assert!(!read("ro,rw").unwrap().read_only);
        assert!(read("root_squash,noroot_squash,root_squash").unwrap().root_squash);
    }

    #[test]
    fn sizes_are_as_everywhere() {
        let options = read("cache=256MiB,buffer=1G").unwrap();
        assert_eq!((options.cache_bytes, options.buffer_bytes), (256 << 20, 1 << 30));
        assert_eq!(read("cache=0").unwrap().cache_bytes, 0);
        assert!(read("buffer=4K").is_err());
    }

    #[test]
    fn an_unknown_option_is_refused_with_those_there_are() {
        let refused = read("ro,turbo").unwrap_err().to_string();
        assert!(refused.starts_with("-o turbo: no such option"), "{refused}");
        assert!(refused.contains("root_squash"), "{refused}");
        assert!(read("speed=9").unwrap_err().to_string().contains("-o speed=9"));
    }

    #[test]
    fn a_value_that_makes_no_sense_is_refused() {
        for wrong in [
            "uid=me",
            "umask=9",
            "umask=7777",
            "cache=lots",
            "threads=0",
            "metrics=here",
            "timeout=-1",
        ] {
            let refused = read(wrong).unwrap_err().to_string();
            assert!(refused.starts_with(&format!("-o {wrong}: ")), "{refused}");
        }
    }

    #[test]
    fn the_kernels_flags_are_kept_in_order() {
        assert_eq!(
            read("nosuid,dev,noatime").unwrap().flags,
            [Flag::NoSuid, Flag::Dev, Flag::NoAtime]
        );
    }
}
