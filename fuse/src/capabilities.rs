//! What is asked of the kernel when it greets: everything that makes the mount faster or more exact.

use fuser::{InitFlags, KernelConfig};

/// Bytes of the largest write, and of the largest read.
const REQUEST_BYTES_MAX: u32 = 1024 * 1024;
/// Requests of the kernel's own (readahead, direct I/O) under way at once.
const BACKGROUND_MAX: u16 = 128;
const CONGESTED_AT: u16 = 96;

/// Asked for where the kernel has it.
///
/// Not among them: the writeback cache (another mount would not see what was written), AUTO_INVAL_DATA (pages are
/// dropped when the master says so, not when a time differs), ATOMIC_O_TRUNC (the kernel then has the file cut before it
/// finds that it is being executed: ETXTBSY, and the program is gone), DONT_MASK (there are no default ACLs to mask with).
const WANTED: [InitFlags; 14] = [
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_POSIX_LOCKS,
    InitFlags::FUSE_FLOCK_LOCKS,
    InitFlags::FUSE_EXPORT_SUPPORT,
    InitFlags::FUSE_BIG_WRITES,
    InitFlags::FUSE_MAX_PAGES,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
];

/// Asks.
pub(crate) fn ask(config: &mut KernelConfig) {
    for flag in WANTED {
        if let Err(missing) = config.add_capabilities(flag) {
            tracing::debug!(?missing, "this kernel lacks a capability");
        }
    }
    let limits = [
        config.set_max_write(REQUEST_BYTES_MAX).err(),
        config.set_max_background(BACKGROUND_MAX).err().map(u32::from),
        config.set_congestion_threshold(CONGESTED_AT).err().map(u32::from),
    ];
    debug_assert!(limits.iter().all(Option::is_none), "{limits:?}");
}
