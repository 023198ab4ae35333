//! One process per data directory.

use crate::open_error::OpenError;
use rustix::fs::FlockOperation;
use std::fs::{File, OpenOptions};
use std::path::Path;

/// Held as long as the directory is in use; the kernel lets go of it when the process ends.
pub(crate) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock of `dir`, or says at once that another process has it.
    pub(crate) fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join("lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|source| OpenError::Io {
            doing: "opening the lock file",
            path: path.clone(),
            source,
        })?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked { dir: dir.to_owned() }),
            Err(errno) => Err(OpenError::Io {
                doing: "locking the data directory",
                path,
                source: errno.into(),
            }),
        }
    }
}
