//! As mount(8) calls us: by the name `mount.dfs` or `mount.fuse.dfs`, with arguments of its own order.
//!
//! `mount.fuse.dfs SOURCE TARGET [-sfnvrw] [-N NAMESPACE] [-t TYPE] [-o OPTIONS]` becomes
//! `dfs mount SOURCE TARGET -o OPTIONS`.

use std::ffi::OsString;
use std::path::Path;

/// Names that mount(8) looks for in /sbin.
const NAMES: [&str; 2] = ["mount.dfs", "mount.fuse.dfs"];
/// What mount(8) lets count unless the options say otherwise, as for any other file system.
const DEFAULTS: &str = "dev,suid";

/// The arguments as `dfs` reads them.
pub(crate) fn arguments(typed: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let typed: Vec<OsString> = typed.into_iter().collect();
    let called = typed.first().and_then(|name| Path::new(name).file_name());
    match called.and_then(|name| name.to_str()) {
        Some(name) if NAMES.contains(&name) => rewritten(&typed[1..]),
        _ => typed,
    }
}

fn rewritten(typed: &[OsString]) -> Vec<OsString> {
    let mut mount: Vec<OsString> = ["dfs", "mount", "-o", DEFAULTS].map(Into::into).into();
    let mut rest = typed.iter();
    while let Some(word) = rest.next() {
        match word.to_str() {
            Some("-r") => mount.extend(["-o", "ro"].map(Into::into)),
            Some("-w") => mount.extend(["-o", "rw"].map(Into::into)),
            // Sloppy, no mtab, verbose: nothing of it changes what is done.
            Some("-s" | "-n" | "-v") => {}
            // A namespace and a type: mount(8) has dealt with them.
            Some("-N" | "-t") => drop(rest.next()),
            _ => mount.push(word.clone()),
        }
    }
    mount
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> String {
        let words = arguments(line.split(' ').map(OsString::from));
        words
            .iter()
            .map(|word| word.to_str().unwrap())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn mount_calls_us_by_a_name_of_its_own() {
        assert_eq!(
            read("/sbin/mount.fuse.dfs 10.0.0.1:7700 /mnt -s -o rw,noatime"),
            "dfs mount -o dev,suid 10.0.0.1:7700 /mnt -o rw,noatime"
        );
        assert_eq!(
            read("mount.dfs a:1 /mnt -r -t fuse.dfs -v"),
            "dfs mount -o dev,suid a:1 /mnt -o ro"
        );
    }

    #[test]
    fn by_our_own_name_nothing_changes() {
        assert_eq!(read("dfs mount -s a:1 /mnt"), "dfs mount -s a:1 /mnt");
    }
}
