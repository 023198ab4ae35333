//! Watches the free space of the data directory, so that growing writes are refused while there is
//! still room for what frees space.

use std::io;
use std::path::Path;

/// Whether growing writes are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskState {
    /// More than the reserve is free.
    Ok,
    /// Less than the reserve is free.
    Low {
        /// Free bytes at the last look.
        free: u64,
        /// Bytes kept in reserve.
        reserve: u64,
    },
}

/// Where free space is learnt from.
pub trait FreeSpace: Send + Sync {
    /// Bytes that this process may still write to the file system of `dir`.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}
