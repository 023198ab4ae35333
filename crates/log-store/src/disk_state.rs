//! Whether there is room on the disk.

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
