//! The witness: how far the store had acknowledged and synced, kept in RAM that outlives the
//! process but not the machine (docs/internals/storage.md#what-an-unclean-stop-leaves).
//!
//! One small positioned write per batch, into a file of a RAM-backed file system: a killed process
//! leaves either the old or the new number. The file is named after node and run, so that a new
//! run's witness can exist before the marker names that run. It names the boot that it belongs to:
//! a file that survived a restart of the machine, wherever it was kept, vouches for nothing.

use crate::host;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where the number of what was synced stands, behind that of what was acknowledged.
const SYNCED_AT: u64 = 8;

/// Where the name of the boot begins.
const BOOT_AT: usize = 16;

/// The running process' witness.
pub(crate) struct Witness {
    file: File,
    path: PathBuf,
}

/// What witnesses say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Testimony {
    /// Everything up to this sequence number of RocksDB was acknowledged.
    pub(crate) acknowledged: u64,
    /// Everything up to this one was on the disk.
    pub(crate) synced: u64,
}

impl Witness {
    /// Creates the witness of a run, saying that everything up to `sequence` was acknowledged and
    /// is on the disk. Leaves no file behind when it fails.
    ///
    /// # Errors
    /// `dir` is not in RAM, or cannot be written.
    pub(crate) fn create(
        dir: &Path,
        node_uuid: &str,
        run: &str,
        sequence: u64,
    ) -> io::Result<Self> {
        if !host::is_in_memory(dir)? {
            return Err(io::Error::other("the directory is not in RAM (tmpfs or ramfs)"));
        }
        Self::create_unproven(dir, node_uuid, run, sequence)
    }

    fn create_unproven(dir: &Path, uuid: &str, run: &str, sequence: u64) -> io::Result<Self> {
        let path = path(dir, uuid, run);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let witness = Self { file, path };
        let boot = host::boot_id().unwrap_or_default();
        let content = [&sequence.to_le_bytes(), &sequence.to_le_bytes(), boot.as_bytes()].concat();
        // A full file system refuses here; the page that is there now is never refused later.
        if let Err(error) = witness.file.write_all_at(&content, 0) {
            witness.remove();
            return Err(error);
        }
        Ok(witness)
    }

    /// Says that everything up to RocksDB's `sequence` is about to be acknowledged.
    pub(crate) fn record(&self, sequence: u64) -> io::Result<()> {
        self.file.write_all_at(&sequence.to_le_bytes(), 0)
    }

    /// Says that everything up to RocksDB's `sequence` is on the disk.
    pub(crate) fn record_synced(&self, sequence: u64) -> io::Result<()> {
        self.file.write_all_at(&sequence.to_le_bytes(), SYNCED_AT)
    }

    /// Takes the word back: after a failed write nothing vouches for the store.
    pub(crate) fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::error!(path = %self.path.display(), %error, "the witness cannot be removed");
        }
    }

    /// What the witness of one run says; `None` if there is none that counts.
    pub(crate) fn read(dir: &Path, node_uuid: &str, run: &str) -> Option<Testimony> {
        // A file that is not in RAM may be of before a power loss.
        host::is_in_memory(dir).ok().filter(|in_memory| *in_memory)?;
        read_file(&path(dir, node_uuid, run))
    }

    /// The most that any run of the node in this boot of the machine has seen. A directory that
    /// has less was lost in part, or is an older copy.
    pub(crate) fn read_all(dir: &Path, node_uuid: &str) -> Testimony {
        let mut most = Testimony::default();
        if !host::is_in_memory(dir).unwrap_or(false) {
            return most;
        }
        for (_, file) in files(dir, node_uuid) {
            if let Some(said) = read_file(&file) {
                most.acknowledged = most.acknowledged.max(said.acknowledged);
                most.synced = most.synced.max(said.synced);
            }
        }
        most
    }

    /// Removes the witnesses of all runs of the node but this one.
    pub(crate) fn remove_others(dir: &Path, node_uuid: &str, keep_run: Option<&str>) {
        let keep = keep_run.map(|run| format!("{}{run}", prefix(node_uuid)));
        for (name, file) in files(dir, node_uuid) {
            if keep.as_ref() != Some(&name) {
                // Best effort: an old witness that stays behind vouches for no later run.
                let _ = fs::remove_file(file);
            }
        }
    }
}

/// The witnesses of a node, with their names.
fn files(dir: &Path, node_uuid: &str) -> Vec<(String, PathBuf)> {
    let prefix = prefix(node_uuid);
    let Ok(files) = fs::read_dir(dir) else { return Vec::new() };
    let named = files.flatten().filter_map(|file| {
        let name = file.file_name().into_string().ok()?;
        name.starts_with(&prefix).then(|| (name, file.path()))
    });
    named.collect()
}

fn read_file(path: &Path) -> Option<Testimony> {
    let bytes = fs::read(path).ok()?;
    let (numbers, boot) = bytes.split_at_checked(BOOT_AT)?;
    let (acknowledged, synced) = numbers.split_at_checked(8)?;
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_le_bytes);
    if boot != host::boot_id().unwrap_or_default().as_bytes() {
        return None;
    }
    Some(Testimony { acknowledged: number(acknowledged)?, synced: number(synced)? })
}

fn prefix(node_uuid: &str) -> String {
    format!("flintmq-{node_uuid}-")
}

fn path(dir: &Path, node_uuid: &str, run: &str) -> PathBuf {
    dir.join(format!("{}{run}", prefix(node_uuid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(acknowledged: u64, synced: u64) -> Testimony {
        Testimony { acknowledged, synced }
    }

    #[test]
    fn vouches_for_its_run_only() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let witness = Witness::create(dir.path(), "node", "one", 5).unwrap();
        assert_eq!(Witness::read(dir.path(), "node", "one"), Some(said(5, 5)));
        witness.record(u64::MAX).unwrap();
        witness.record_synced(8).unwrap();
        assert_eq!(Witness::read(dir.path(), "node", "one"), Some(said(u64::MAX, 8)));
        assert_eq!(Witness::read(dir.path(), "node", "two"), None);
        let _second = Witness::create(dir.path(), "node", "two", 6).unwrap();
        assert_eq!(Witness::read_all(dir.path(), "node"), said(u64::MAX, 8));
        Witness::remove_others(dir.path(), "node", Some("two"));
        assert_eq!(Witness::read(dir.path(), "node", "one"), None);
        assert_eq!(Witness::read(dir.path(), "node", "two"), Some(said(6, 6)));
        fs::write(path(dir.path(), "node", "two"), b"short").unwrap();
        assert_eq!(Witness::read(dir.path(), "node", "two"), None);
    }

    #[test]
    fn a_file_of_another_boot_vouches_for_nothing() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let _witness = Witness::create(dir.path(), "node", "one", 5).unwrap();
        let file = path(dir.path(), "node", "one");
        let mut bytes = fs::read(&file).unwrap();
        bytes[BOOT_AT] ^= 1;
        fs::write(&file, bytes).unwrap();
        assert_eq!(Witness::read(dir.path(), "node", "one"), None);
        assert_eq!(Witness::read_all(dir.path(), "node"), Testimony::default());
    }

    #[test]
    fn a_directory_on_a_disk_vouches_for_nothing() {
        // The sources lie on a disk.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        if host::is_in_memory(dir.path()).unwrap() {
            return;
        }
        assert!(Witness::create(dir.path(), "node", "one", 5).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let _unproven = Witness::create_unproven(dir.path(), "node", "one", 5).unwrap();
        assert_eq!(Witness::read(dir.path(), "node", "one"), None);
        assert_eq!(Witness::read_all(dir.path(), "node"), Testimony::default());
    }
}
