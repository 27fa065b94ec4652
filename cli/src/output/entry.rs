//! Names and attributes: what `ls`, `find`, `tree` and `stat` say.

use super::{PathField, Report, exact};
use crate::path;
use dfs_client::{Kind, Metadata};
use dfs_stdx::size::Size;
use serde::Serialize;
use std::io::{self, Write};

/// One name with its attributes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Entry {
    /// The whole path.
    #[serde(flatten)]
    pub(crate) path: PathField,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_b64: Option<String>,
    r#type: &'static str,
    size: u64,
    mode: String,
    uid: u32,
    gid: u32,
    nlink: u32,
    inode: u64,
    atime_ns: i64,
    mtime_ns: i64,
    ctime_ns: i64,
    replication: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_b64: Option<String>,
    /// As the library tells it.
    #[serde(skip)]
    pub(crate) metadata: Metadata,
    /// Of a symlink.
    #[serde(skip)]
    pub(crate) target_bytes: Option<Vec<u8>>,
}

impl Entry {
    /// What `path` names; `target` is what it says if it is a symlink.
    #[must_use]
    pub(crate) fn new(path: &[u8], metadata: Metadata, target: Option<Vec<u8>>) -> Entry {
        let name = path::name(path);
        Entry {
            path: PathField::new(path),
            name: String::from_utf8_lossy(name).into_owned(),
            name_b64: exact(name),
            r#type: type_word(metadata.kind),
            size: metadata.size,
            mode: format!("{:04o}", metadata.mode),
            uid: metadata.uid,
            gid: metadata.gid,
            nlink: metadata.nlink,
            inode: metadata.inode.0,
            atime_ns: metadata.atime_ns,
            mtime_ns: metadata.mtime_ns,
            ctime_ns: metadata.ctime_ns,
            replication: metadata.goal,
            target: target.as_deref().map(|t| String::from_utf8_lossy(t).into_owned()),
            target_b64: target.as_deref().and_then(exact),
            metadata,
            target_bytes: target,
        }
    }

    /// The last name of the path.
    #[must_use]
    pub(crate) fn name(&self) -> &[u8] {
        path::name(self.path.bytes())
    }
}

/// The contract's word for a kind of inode.
#[must_use]
pub(crate) fn type_word(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "dir",
        Kind::Symlink => "symlink",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
        Kind::CharacterDevice => "char",
        Kind::BlockDevice => "block",
    }
}

/// `-rwxr-xr-x`, as `ls -l` shows a mode.
#[must_use]
pub(crate) fn mode_string(metadata: &Metadata) -> String {
    let kind = match metadata.kind {
        Kind::File => '-',
        Kind::Directory => 'd',
        Kind::Symlink => 'l',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
        Kind::CharacterDevice => 'c',
        Kind::BlockDevice => 'b',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = metadata.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (metadata.mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Nanoseconds since 1970 as `2026-11-22 15:04:05`, UTC (Howard Hinnant, "chrono-compatible low-level date algorithms").
#[must_use]
pub(crate) fn time_string(ns: i64) -> String {
    let seconds = ns.div_euclid(1_000_000_000);
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}",
        of_day / 3_600,
        of_day / 60 % 60,
        of_day % 60
    )
}

/// How a listing looks to people.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Look {
    /// All attributes.
    pub(crate) long: bool,
    /// Sizes with units.
    pub(crate) human: bool,
    /// Inode numbers.
    pub(crate) inode: bool,
    /// Whole paths instead of names.
    pub(crate) paths: bool,
    /// A slash after directories.
    pub(crate) classify: bool,
}

/// Some entries under a heading, as one block of `ls`.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    /// The directory, if there is more than one thing to list.
    pub(crate) heading: Option<Vec<u8>>,
    /// How many of the listing's entries, from where the section before it ended.
    pub(crate) count: usize,
}

/// A flat list of entries.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Listing {
    /// In order.
    pub(crate) entries: Vec<Entry>,
    /// How they are set for people; empty: one block.
    #[serde(skip)]
    pub(crate) sections: Vec<Section>,
    /// How they look.
    #[serde(skip)]
    pub(crate) look: Look,
}

impl Report for Listing {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.sections.is_empty() {
            return self.block(&self.entries, self.look.paths, out);
        }
        let mut rest = &self.entries[..];
        for (index, section) in self.sections.iter().enumerate() {
            let (now, later) = rest.split_at(section.count);
            rest = later;
            if let Some(heading) = &section.heading {
                out.write_all(if index == 0 { b"" } else { b"\n" })?;
                out.write_all(heading)?;
                out.write_all(b":\n")?;
            }
            // Operands that are not directories come first and are named as they were typed.
            self.block(
                now,
                self.look.paths || section.heading.is_none() && index == 0 && self.sections.len() > 1,
                out,
            )?;
        }
        Ok(())
    }
}

impl Listing {
    fn block(&self, entries: &[Entry], paths: bool, out: &mut dyn Write) -> io::Result<()> {
        let size = |m: &Metadata| match self.look.human {
            true => Size(m.size).human(),
            false => m.size.to_string(),
        };
        let width = |of: &dyn Fn(&Entry) -> usize| entries.iter().map(of).max().unwrap_or(0);
        let sizes = width(&|e| size(&e.metadata).len());
        let links = width(&|e| e.nlink.to_string().len());
        let owners = width(&|e| e.uid.to_string().len().max(e.gid.to_string().len()));
        let inodes = width(&|e| e.inode.to_string().len());
        for entry in entries {
            let m = &entry.metadata;
            if self.look.inode {
                write!(out, "{:inodes$} ", entry.inode)?;
            }
            if self.look.long {
                let (mode, time) = (mode_string(m), time_string(m.mtime_ns));
                write!(
                    out,
                    "{mode} {:links$} {:owners$} {:owners$} {:>sizes$} {time} ",
                    m.nlink,
                    m.uid,
                    m.gid,
                    size(m)
                )?;
            }
            out.write_all(if paths { entry.path.bytes() } else { entry.name() })?;
            if self.look.classify && m.is_dir() {
                out.write_all(b"/")?;
            }
            if let (true, Some(target)) = (self.look.long, &entry.target_bytes) {
                out.write_all(b" -> ")?;
                out.write_all(target)?;
            }
            out.write_all(b"\n")?;
        }
        Ok(())
    }
}

/// One name with everything `stat` knows.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StatEntry {
    #[serde(flatten)]
    entry: Entry,
    chunks: u64,
    chunk_bytes: u64,
    allocated_bytes: u64,
}

impl From<Entry> for StatEntry {
    fn from(entry: Entry) -> StatEntry {
        StatEntry {
            chunks: entry.metadata.chunks,
            chunk_bytes: entry.metadata.chunk_bytes,
            allocated_bytes: entry.metadata.allocated_bytes,
            entry,
        }
    }
}

/// What `stat` says.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stats {
    /// In the order of the operands.
    pub(crate) entries: Vec<StatEntry>,
}

impl Report for Stats {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        for StatEntry { entry, .. } in &self.entries {
            let m = &entry.metadata;
            out.write_all(b"  File: ")?;
            out.write_all(entry.path.bytes())?;
            if let Some(target) = &entry.target_bytes {
                out.write_all(b" -> ")?;
                out.write_all(target)?;
            }
            write!(
                out,
                "\n  Size: {}\tAllocated: {}\tChunks: {} of {}\t{}\n",
                m.size,
                m.allocated_bytes,
                m.chunks,
                Size(m.chunk_bytes),
                type_word(m.kind)
            )?;
            writeln!(
                out,
                " Inode: {}\tLinks: {}\tReplication: {}",
                m.inode, m.nlink, m.goal
            )?;
            writeln!(
                out,
                "Access: ({}/{})\tUid: {}\tGid: {}",
                entry.mode,
                mode_string(m),
                m.uid,
                m.gid
            )?;
            for (word, ns) in [
                ("Access", m.atime_ns),
                ("Modify", m.mtime_ns),
                ("Change", m.ctime_ns),
            ] {
                let below = ns.rem_euclid(1_000_000_000);
                writeln!(out, "{word}: {}.{below:09} +0000", time_string(ns))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use dfs_client::InodeId;

    /// Attributes of a small file.
    pub(crate) fn metadata(kind: Kind, mode: u32) -> Metadata {
        Metadata {
            inode: InodeId(9),
            kind,
            mode,
            uid: 1000,
            gid: 100,
            nlink: 1,
            size: 5,
            allocated_bytes: 5,
            atime_ns: 1,
            mtime_ns: 2,
            ctime_ns: 3,
            rdev: 0,
            goal: 3,
            chunk_bytes: 64 << 20,
            change: 1,
            chunks: 1,
            xattr_bytes: 0,
        }
    }

    #[test]
    fn a_mode_reads_as_in_ls() {
        for (kind, mode, text) in [
            (Kind::File, 0o644, "-rw-r--r--"),
            (Kind::Directory, 0o1777, "drwxrwxrwt"),
            (Kind::File, 0o4755, "-rwsr-xr-x"),
            (Kind::Fifo, 0o2600, "prw---S---"),
        ] {
            assert_eq!(mode_string(&metadata(kind, mode)), text);
        }
    }

    #[test]
    fn a_time_reads_as_a_date() {
        assert_eq!(time_string(0), "1970-01-01 00:00:00");
        assert_eq!(time_string(951_782_400_000_000_000), "2000-02-29 00:00:00");
        assert_eq!(time_string(-1), "1969-12-31 23:59:59");
        assert_eq!(time_string(1_795_363_445_000_000_000), "2026-11-22 16:04:05");
    }

    #[test]
    fn an_entry_has_the_fields_of_the_contract() {
        let entry = Entry::new(b"/d/a", metadata(Kind::Symlink, 0o777), Some(b"b".to_vec()));
        let json = serde_json::to_value(&entry).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"path": "/d/a", "name": "a", "type": "symlink", "size": 5, "mode": "0777",
                "uid": 1000, "gid": 100, "nlink": 1, "inode": 9, "atime_ns": 1, "mtime_ns": 2, "ctime_ns": 3,
                "replication": 3, "target": "b"})
        );
        let entry = Entry::new(b"/\xff", metadata(Kind::File, 0o644), None);
        let json = serde_json::to_value(StatEntry::from(entry)).unwrap();
        assert_eq!(
            (json["path_b64"].as_str(), json["chunk_bytes"].as_u64()),
            (Some("L/8="), Some(64 << 20))
        );
    }
}
