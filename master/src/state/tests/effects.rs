//! What a command wrote, as text: one line a record, with the fields that changed.

use crate::state::tables::decode;
use crate::store::records::{
    Chunk, Client, Cluster, Counters, Dentry, Extent, Inode, Keys, Lock, Server, Trashed,
};
use crate::store::{Batch, Read, keys};

/// One line for each written record, in key order.
pub(super) fn describe(before: &dyn Read, batch: &Batch) -> Vec<String> {
    batch
        .iter()
        .filter_map(|(key, new)| {
            let old = before.get(key);
            let name = name_of(key);
            match (old, new) {
                (None, None) => None,
                (Some(_), None) => Some(format!("- {name}")),
                (None, Some(new)) => Some(format!("+ {name}{}", difference(&blank(key), &fields(key, new)))),
                (Some(old), Some(new)) if old == new => None,
                (Some(old), Some(new)) => Some(format!(
                    "~ {name}{}",
                    difference(&fields(key, &old), &fields(key, new))
                )),
            }
        })
        .collect()
}

fn name_of(key: &[u8]) -> String {
    let text = |from: usize| String::from_utf8_lossy(&key[from..]).into_owned();
    let first = || keys::number(&key[1..9]);
    match key[0] {
        keys::CLUSTER => "cluster".into(),
        keys::COUNTERS => "counters".into(),
        keys::KEYS => "keys".into(),
        keys::INODE => format!("inode {}", first()),
        keys::DENTRY => format!("name {}/{}", first(), text(9)),
        keys::CURSOR => format!("cursor {}/{}", first(), keys::last_number(key)),
        keys::EXTENT => format!("extent {}/{}", first(), keys::last_number(key)),
        keys::XATTR => format!("xattr {}/{}", first(), text(9)),
        keys::HOLDER => format!("holder {}/{}", first(), keys::last_number(key)),
        keys::LOCK => {
            let (inode, flock, owner, start) = keys::lock_parts(key);
            let family = if flock { "flock" } else { "lock" };
            format!("{family} {inode}/{}.{}/{start}", owner.0, owner.1)
        }
        keys::CHUNK => format!("chunk {}", first()),
        keys::PROPOSAL => format!("proposal {}", first()),
        keys::COLLECT => format!(
            "collect {}/{}",
            keys::collect_parts(key).0,
            keys::last_number(key)
        ),
        keys::CLIENT => format!("client {}", first()),
        keys::NONCE => format!("nonce {}", first()),
        keys::RESULT => format!("result {}/{}", first(), keys::last_number(key)),
        keys::HELD => format!("held {}/{}", first(), keys::last_number(key)),
        keys::LOCKER => format!("locker {}/{}", first(), keys::last_number(key)),
        keys::SERVER => format!("server {}", keys::number(&key[1..])),
        keys::IDENTITY => format!("identity {:02x}..", key[1]),
        keys::DISK => format!("disk {:02x}..", key[1]),
        keys::TRASH => format!("trash {}", first()),
        keys::TRASH_DUE => format!(
            "due {}/{}",
            (first() ^ (1 << 63)).cast_signed(),
            keys::last_number(key)
        ),
        other => panic!("a key of table {other:02x}"),
    }
}

fn blank(key: &[u8]) -> Vec<(String, String)> {
    match key[0] {
        keys::CURSOR | keys::XATTR | keys::PROPOSAL | keys::COLLECT => Vec::new(),
        keys::HOLDER | keys::HELD | keys::LOCKER | keys::TRASH_DUE => Vec::new(),
        keys::NONCE | keys::RESULT | keys::IDENTITY | keys::DISK => Vec::new(),
        _ => fields(key, &[]),
    }
}

fn fields(key: &[u8], value: &[u8]) -> Vec<(String, String)> {
    let debug = match key[0] {
        keys::CLUSTER => format!("{:?}", decode::<Cluster>(value)),
        keys::COUNTERS => format!("{:?}", decode::<Counters>(value)),
        keys::KEYS => format!("{:?}", decode::<Keys>(value)),
        keys::INODE => format!("{:?}", decode::<Inode>(value)),
        keys::DENTRY => format!("{:?}", decode::<Dentry>(value)),
        keys::EXTENT => format!("{:?}", decode::<Extent>(value)),
        keys::CHUNK => format!("{:?}", decode::<Chunk>(value)),
        keys::CLIENT => format!("{:?}", decode::<Client>(value)),
        keys::LOCK => format!("{:?}", decode::<Lock>(value)),
        keys::SERVER => format!("{:?}", decode::<Server>(value)),
        keys::TRASH => format!("{:?}", decode::<Trashed>(value)),
        keys::CURSOR | keys::XATTR => {
            return vec![("value".into(), String::from_utf8_lossy(value).into_owned())];
        }
        keys::NONCE | keys::IDENTITY | keys::DISK => {
            return vec![("is".into(), keys::number(value).to_string())];
        }
        _ => return Vec::new(),
    };
    split(&debug)
}

/// The fields of a derived `Debug`: `Name { a: 1, b: [2, 3] }`.
fn split(debug: &str) -> Vec<(String, String)> {
    let inner = debug
        .split_once('{')
        .map_or("", |(_, rest)| rest.trim_end_matches('}'));
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (i, c) in inner.char_indices() {
        match c {
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    parts
        .into_iter()
        .filter_map(|part| part.trim().split_once(": "))
        .map(|(field, value)| (field.to_owned(), shown(field, value)))
        .collect()
}

fn shown(field: &str, value: &str) -> String {
    match (field, value.parse::<u32>()) {
        ("mode", Ok(mode)) => format!("{mode:04o}"),
        _ => value.to_owned(),
    }
}

fn difference(old: &[(String, String)], new: &[(String, String)]) -> String {
    let is_new = old.is_empty();
    let was = |field: &str| {
        old.iter()
            .find(|(f, _)| f == field)
            .map_or("", |(_, v)| v.as_str())
    };
    let all: Vec<_> = new
        .iter()
        .filter(|(field, value)| is_new || was(field) != value)
        .map(|(field, value)| format!("{field}={value}"))
        .collect();
    if all.is_empty() {
        String::new()
    } else {
        format!(": {}", all.join(" "))
    }
}
