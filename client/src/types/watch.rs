//! What a watching client is told.

use super::{Kind, Metadata};
use dfs_proto::InodeId;

/// What [`Watch::next`](crate::Watch::next) answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The stream is broken or has a gap: nothing that was learnt may be used any more. Comes once, before [`Event::Back`].
    Lost,
    /// The stream is there: what is asked for from now on may be kept. Comes first.
    Back {
        /// False: the session is another one than before. Locks, append turns and removed files that were held are gone.
        same_session: bool,
    },
    /// Others changed something. To be acknowledged with [`Watch::ack`](crate::Watch::ack) when it was dealt with.
    Changes(Changes),
}

/// What one change of the file system did to inodes this client was told about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// To acknowledge them, and all before them, with.
    pub sequence: Sequence,
    /// To be dealt with as one, in this order.
    pub list: Vec<Change>,
}

/// An event's place in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sequence {
    pub(crate) stream: u64,
    pub(crate) number: u64,
}

/// One of [`Changes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Attributes, extended attributes or bytes of an inode; its attributes now. Older than what is known if its `change`
    /// is less.
    Attributes(Metadata),
    /// A name in a directory means something else.
    Entry {
        /// The directory; its own attributes follow in the same [`Changes`].
        parent: InodeId,
        /// The name.
        name: Vec<u8>,
        /// What it names now; `None`: nothing. The inode itself was not told about: ask before its attributes are used.
        now: Option<(InodeId, Kind)>,
    },
    /// The last name of an inode is gone (or the directory was removed).
    Unlinked {
        /// The inode.
        inode: InodeId,
        /// It stays until those who hold it release it (`Inodes::release`): do so at once, or when its last handle
        /// closes. `None`: it is gone.
        held: Option<Metadata>,
    },
    /// Another client wants to append: give the append turn back when what was appended is committed.
    Recall {
        /// The file.
        inode: InodeId,
    },
    /// A lock on it that was waited for may be free.
    LockFreed {
        /// The file.
        inode: InodeId,
    },
    /// No more is told about these: drop what is kept of them, and ask again for those that are open.
    Forgotten {
        /// Because [`WatchControl::forget`](crate::WatchControl::forget) said so, or because there were too many.
        inodes: Vec<InodeId>,
    },
}
