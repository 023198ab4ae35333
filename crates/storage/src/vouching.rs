//! What lets the next start believe that nothing acknowledged is missing: the witness, or the
//! marker's boot and mount where there is no witness. A failed write or fsync takes all of it back.

use crate::marker::Marker;
use crate::witness::Witness;
use std::io;
use std::path::PathBuf;

/// What vouches for the present run.
pub(crate) struct Vouching {
    pub(crate) witness: Option<Witness>,
    pub(crate) dir: PathBuf,
    pub(crate) marker: Marker,
}

impl Vouching {
    /// To be called before anything up to RocksDB's `sequence` is acknowledged.
    pub(crate) fn acknowledging(&self, sequence: u64) -> io::Result<()> {
        self.witness.as_ref().map_or(Ok(()), |witness| witness.record(sequence))
    }

    /// To be called when everything up to RocksDB's `sequence` was fsynced.
    pub(crate) fn synced(&self, sequence: u64) -> io::Result<()> {
        self.witness.as_ref().map_or(Ok(()), |witness| witness.record_synced(sequence))
    }

    /// Nothing vouches for this run any more: the page cache may have dropped what was
    /// acknowledged.
    pub(crate) fn withdraw(&self) {
        if let Some(witness) = &self.witness {
            return witness.remove();
        }
        // Without a boot nothing vouches but that every write was synced, if it was.
        let doubtful = Marker { boot_id: None, ..self.marker.clone() };
        if let Err(error) = doubtful.write(&self.dir) {
            tracing::error!(%error, "the marker cannot be replaced: after a failed disk, check it before the node is started again");
        }
    }
}
