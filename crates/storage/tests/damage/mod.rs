//! Directories whose last log file is cut as a power loss cuts it.
// Each test program uses a part of it.
#![allow(dead_code)]

use flintmq_consensus::NodeId;
use flintmq_storage::{NodeIdentity, StoreOptions};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Where stores lie, and a place in RAM for their witnesses.
pub(crate) struct Place {
    disk: TempDir,
    memory: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            disk: tempfile::tempdir().unwrap(),
            memory: tempfile::tempdir_in("/dev/shm").unwrap(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.disk.path()
    }

    pub(crate) fn memory(&self) -> &Path {
        self.memory.path()
    }
}

/// A store at `name` that syncs nothing but what must be, so that the tail is there to be lost.
pub(crate) fn options(place: &Place, name: &str) -> StoreOptions {
    let identity = NodeIdentity { cluster: "test".to_owned(), node: NodeId(1) };
    let mut options = StoreOptions::new(place.path().join(name), identity);
    options.flush_interval = Duration::from_secs(3600);
    options.disk_reserve = 0;
    options.witness_dir = Some(place.memory().to_owned());
    options
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let target = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy_dir(&file.path(), &target);
        } else {
            fs::copy(file.path(), target).unwrap();
        }
    }
}

/// The write-ahead log files of a store, oldest first.
pub(crate) fn wal_files(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir.join("db")).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|ending| ending == "log")).collect();
    files.sort();
    files
}

pub(crate) fn truncate(path: &Path, bytes: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(bytes).unwrap();
}
