//! The witness: how far the store had acknowledged, kept in RAM that outlives the process but not
//! the machine (consensus design, section 2.1).
//!
//! One small positioned write per batch, into a file of a RAM-backed file system: a killed process
//! leaves either the old or the new number. The file is named after node and run, so that a new
//! run's witness can exist before the marker names that run.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The running process' witness.
pub(crate) struct Witness {
    file: File,
    path: PathBuf,
}

impl Witness {
    /// Creates the witness of a run, saying that everything up to `sequence` was acknowledged.
    pub(crate) fn create(
        dir: &Path,
        node_uuid: &str,
        run: &str,
        sequence: u64,
    ) -> io::Result<Self> {
        let path = path(dir, node_uuid, run);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let witness = Self { file, path };
        witness.record(sequence)?;
        Ok(witness)
    }

    /// Says that everything up to RocksDB's `sequence` is about to be acknowledged.
    pub(crate) fn record(&self, sequence: u64) -> io::Result<()> {
        self.file.write_all_at(&sequence.to_le_bytes(), 0)
    }

    /// Takes the word back: after a failed write nothing vouches for the store.
    pub(crate) fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::error!(path = %self.path.display(), %error, "the witness cannot be removed");
        }
    }

    /// What the witness of an earlier run says, or `None` if there is none or it is damaged.
    pub(crate) fn read(dir: &Path, node_uuid: &str, run: &str) -> Option<u64> {
        let bytes = fs::read(path(dir, node_uuid, run)).ok()?;
        bytes.try_into().ok().map(u64::from_le_bytes)
    }

    /// Removes the witnesses of all runs of the node but this one.
    pub(crate) fn remove_others(dir: &Path, node_uuid: &str, keep_run: Option<&str>) {
        let prefix = prefix(node_uuid);
        let keep = keep_run.map(|run| format!("{prefix}{run}"));
        let Ok(files) = fs::read_dir(dir) else { return };
        for file in files.flatten() {
            let name = file.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with(&prefix) && keep.as_deref() != Some(name) {
                // Best effort: an old witness that stays behind vouches for no later run.
                let _ = fs::remove_file(file.path());
            }
        }
    }
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

    #[test]
    fn vouches_for_its_run_only() {
        let dir = tempfile::tempdir().unwrap();
        let witness = Witness::create(dir.path(), "node", "one", 5).unwrap();
        assert_eq!(Witness::read(dir.path(), "node", "one"), Some(5));
        witness.record(u64::MAX).unwrap();
        assert_eq!(Witness::read(dir.path(), "node", "one"), Some(u64::MAX));
        assert_eq!(Witness::read(dir.path(), "node", "two"), None);
        let _second = Witness::create(dir.path(), "node", "two", 6).unwrap();
        Witness::remove_others(dir.path(), "node", Some("two"));
        assert_eq!(Witness::read(dir.path(), "node", "one"), None);
        assert_eq!(Witness::read(dir.path(), "node", "two"), Some(6));
        fs::write(path(dir.path(), "node", "two"), b"short").unwrap();
        assert_eq!(Witness::read(dir.path(), "node", "two"), None);
    }
}
