//! The marker: a small file that says whose the directory is and how it was left, replaced durably
//! as a whole (docs/internals/storage.md#what-an-unclean-stop-leaves).

use crate::open_error::OpenError;
use flintmq_consensus::Epoch;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// The newest directory format that this program reads, and the one that it writes.
pub(crate) const FORMAT: u32 = 1;

const FILE: &str = "marker";
const NEW_FILE: &str = "marker.new";

/// How the directory was left, as far as the marker knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    /// The database is being created; it has never held anything.
    Creating,
    /// A run is being prepared: it has its number, and the database may not know of it yet.
    Starting,
    /// In use, or left without closing.
    Open,
    /// Closed, with everything synced.
    Clean,
}

/// Content of the marker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    pub(crate) format: u32,
    pub(crate) cluster: String,
    pub(crate) node: u32,
    /// Changes when the node is replaced.
    pub(crate) node_uuid: String,
    pub(crate) state: State,
    /// Names one run of the process.
    pub(crate) run: String,
    pub(crate) boot_id: Option<String>,
    pub(crate) mount_id: String,
    /// How often a tail may have been lost. Never goes back.
    pub(crate) loss_epoch: Epoch,
    /// Whether the run has a witness.
    pub(crate) witness: bool,
    /// Whether the run syncs every write before it reports it.
    pub(crate) synced: bool,
    /// Number of the run: greater than those of all runs before, whatever the clock says. The
    /// database has the same one, so that neither is taken for current when the other is newer.
    #[serde(default)]
    pub(crate) process: u64,
    /// RocksDB's sequence number up to which everything was on the disk when this was written.
    #[serde(default)]
    pub(crate) sequence: u64,
}

/// The part of the marker that every format has, read first.
#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

impl Marker {
    /// Reads the marker of `dir`; `None` if there is none.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, OpenError> {
        let path = dir.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) if source.kind() != io::ErrorKind::InvalidData => {
                return Err(OpenError::Io { doing: "reading the marker", path, source });
            }
            Err(_) => return Err(damaged("the marker is not text")),
        };
        Self::decode(&text).map(Some)
    }

    fn decode(text: &str) -> Result<Self, OpenError> {
        let (sum, body) = text.split_once('\n').ok_or_else(|| damaged("the marker is cut off"))?;
        if sum != checksum(body) {
            return Err(damaged("the marker's checksum is wrong"));
        }
        let any: AnyFormat = serde_json::from_str(body)
            .map_err(|error| damaged(&format!("the marker is not readable: {error}")))?;
        if any.format > FORMAT {
            return Err(OpenError::NewerFormat { found: any.format, supported: FORMAT });
        }
        serde_json::from_str(body)
            .map_err(|error| damaged(&format!("the marker is not readable: {error}")))
    }

    fn encode(&self) -> io::Result<String> {
        let body = serde_json::to_string_pretty(self)?;
        Ok(format!("{}\n{body}", checksum(&body)))
    }

    /// Replaces the marker of `dir`: once this returns, the new one is on the disk.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        let text = self.encode()?;
        let new = dir.join(NEW_FILE);
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, dir.join(FILE))?;
        File::open(dir)?.sync_all()
    }
}

fn checksum(body: &str) -> String {
    format!("crc32c {:08x}", crc32c::crc32c(body.as_bytes()))
}

fn damaged(detail: &str) -> OpenError {
    OpenError::Damaged { detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker() -> Marker {
        Marker {
            format: FORMAT,
            cluster: "c".to_owned(),
            node: 3,
            node_uuid: "u".to_owned(),
            state: State::Open,
            run: "r".to_owned(),
            boot_id: Some("b".to_owned()),
            mount_id: "m".to_owned(),
            loss_epoch: 7,
            witness: true,
            synced: false,
            process: 11,
            sequence: 12,
        }
    }

    #[test]
    fn comes_back_and_replaces_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Marker::read(dir.path()).unwrap().is_none());
        marker().write(dir.path()).unwrap();
        assert_eq!(Marker::read(dir.path()).unwrap(), Some(marker()));
        let clean = Marker { state: State::Clean, ..marker() };
        clean.write(dir.path()).unwrap();
        assert_eq!(Marker::read(dir.path()).unwrap(), Some(clean));
    }

    #[test]
    fn any_flipped_byte_is_noticed() {
        let text = marker().encode().unwrap();
        for position in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[position] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert!(Marker::decode(&changed).is_err(), "position {position}");
        }
        assert!(Marker::decode(&text[..text.len() - 1]).is_err());
        assert!(Marker::decode("").is_err());
    }

    #[test]
    fn newer_format_is_named() {
        let newer = Marker { format: FORMAT + 1, ..marker() }.encode().unwrap();
        assert!(matches!(
            Marker::decode(&newer),
            Err(OpenError::NewerFormat { found, supported }) if found == FORMAT + 1 && supported == FORMAT
        ));
    }
}
