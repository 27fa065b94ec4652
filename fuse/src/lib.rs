//! The mount: a POSIX file system over the client library.
//!
//! * [`vfs`] is the file system: async, without a word of the kernel's, tested without it.

pub mod vfs;
