//! What a command did to names and inodes, read off its writes: so it is right for every command there is and will be.

use dfs_proto::limits::Parameters;
use dfs_proto::{ClientId, InodeId};

use super::tables;
use crate::command::{Attributes, Kind};
use crate::store::records::{Dentry, Inode};
use crate::store::{Batch, Read, keys};

/// Something that others may see.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// A name means something else, or nothing.
    Name {
        /// The directory.
        parent: InodeId,
        /// The name in it.
        name: Vec<u8>,
        /// What it names now.
        now: Option<(InodeId, Kind)>,
    },
    /// Attributes, extended attributes or bytes of an inode are others. The attributes now.
    Changed(Attributes),
    /// Its last name is gone, but sessions hold it: they must hear of it, whatever they were told before.
    Unlinked(Attributes, Vec<ClientId>),
    /// It is gone.
    Gone(InodeId),
}

impl Effect {
    /// The inode that it is about: those who were told about it are concerned.
    #[must_use]
    pub fn of(&self) -> InodeId {
        match self {
            Effect::Name { parent, .. } => *parent,
            Effect::Changed(a) | Effect::Unlinked(a, _) => InodeId(a.inode),
            Effect::Gone(inode) => *inode,
        }
    }
}

/// What these writes of one command do to the state before them: names first, then inodes.
#[must_use]
pub fn effects(before: &dyn Read, writes: &Batch) -> Vec<Effect> {
    let names = writes.iter().filter_map(|(key, value)| name(key, value));
    let parameters = tables::parameters(before);
    let inodes = writes
        .iter()
        .filter_map(|(key, value)| inode((before, &parameters), key, value));
    let mut effects: Vec<Effect> = names.chain(inodes).collect();
    for effect in &mut effects {
        if let Effect::Unlinked(now, holders) = effect {
            *holders = new_holders(writes, InodeId(now.inode));
        }
    }
    effects
}

fn new_holders(writes: &Batch, inode: InodeId) -> Vec<ClientId> {
    let prefix = keys::under(keys::HOLDER, inode.0);
    let added = writes
        .iter()
        .filter(|(key, value)| key.starts_with(&prefix) && value.is_some());
    added.map(|(key, _)| ClientId(keys::last_number(key))).collect()
}

fn name(key: &[u8], value: Option<&[u8]>) -> Option<Effect> {
    let rest = key.strip_prefix(&[keys::DENTRY])?;
    let (parent, name) = rest.split_at_checked(size_of::<u64>())?;
    let now = value.map(|value| {
        let dentry: Dentry = tables::decode(value);
        (InodeId(dentry.inode), dentry.kind())
    });
    Some(Effect::Name {
        parent: InodeId(keys::number(parent)),
        name: name.to_vec(),
        now,
    })
}

fn inode((before, parameters): (&dyn Read, &Parameters), key: &[u8], value: Option<&[u8]>) -> Option<Effect> {
    let rest = key.strip_prefix(&[keys::INODE])?;
    let number = keys::number(rest);
    let Some(value) = value else {
        return Some(Effect::Gone(InodeId(number)));
    };
    let seen = |bytes: &[u8]| Attributes::of(number, &tables::decode::<Inode>(bytes), parameters);
    let now = seen(value);
    let then = before.get(key).map(|bytes| seen(&bytes));
    // Nobody was told about what was not there.
    let mut then = then?;
    let was_linked = then.nlink > 0;
    // Where a chunk is to be is nobody's business until there are bytes in it.
    then.chunks = now.chunks;
    if then == now {
        None
    } else if was_linked && now.nlink == 0 {
        Some(Effect::Unlinked(now, Vec::new()))
    } else {
        Some(Effect::Changed(now))
    }
}
