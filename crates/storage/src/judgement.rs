//! Whether a directory that was found is whole, and whether everything acknowledged is in it.

use crate::database::{Database, Family};
use crate::host;
use crate::marker::{Marker, State};
use crate::open_error::OpenError;
use crate::options::StoreOptions;
use crate::store::Shutdown;
use crate::witness::{Testimony, Witness};
use rocksdb::WriteOptions;
use std::path::Path;

/// Key in the `node` family: the uuid of the node, which ties database and marker together.
const NODE_UUID_KEY: &[u8] = b"node_uuid";

/// Key in the `node` family: the number of the last run, which tells an older one of the two.
const PROCESS_KEY: &[u8] = b"process";

/// How a directory of ours was left.
///
/// # Errors
/// Its parts do not belong together, or lack what was on the disk.
pub(crate) fn judge(
    options: &StoreOptions,
    marker: &Marker,
    database: &Database,
) -> Result<Shutdown, OpenError> {
    check_parts(marker, database)?;
    let there = database.db().latest_sequence_number();
    let witnesses = options.witness_dir.as_deref();
    let said = witnesses.map_or_else(Testimony::default, |dir| {
        // Also those of other runs: a copy of before names an earlier run than the last.
        Witness::read_all(dir, &marker.node_uuid)
    });
    let synced = said.synced.max(marker.sequence);
    if there < synced {
        return Err(OpenError::Behind { synced, there });
    }
    let lost = |reason: &str| Ok(Shutdown::TailMayBeLost { reason: reason.to_owned() });
    if there < said.acknowledged {
        return Ok(Shutdown::TailMayBeLost {
            reason: format!(
                "writes are missing that the witness saw acknowledged={} there={there}",
                said.acknowledged
            ),
        });
    }
    if marker.state == State::Clean {
        return Ok(Shutdown::Clean);
    }
    let is_of_this_boot = marker.boot_id.is_some() && marker.boot_id == host::boot_id();
    let vouches = |dir: &Path| Witness::read(dir, &marker.node_uuid, &marker.run).is_some();
    if marker.witness && witnesses.is_some_and(vouches) {
        return Ok(Shutdown::ProcessCrash);
    }
    if marker.synced {
        return Ok(Shutdown::Synced);
    }
    if !options.trust_page_cache {
        return lost("the page cache of this file system is not to be trusted");
    }
    if marker.witness {
        return lost("not closed, and the witness is gone: the machine was restarted");
    }
    if !is_of_this_boot {
        return lost("not closed, and the machine was restarted or its disk failed");
    }
    let mount = host::mount_id(&options.dir).map_err(|source| OpenError::Io {
        doing: "looking up the mount",
        path: options.dir.clone(),
        source,
    })?;
    if marker.mount_id != mount {
        return lost("not closed, and the volume was mounted again");
    }
    Ok(Shutdown::ProcessCrash)
}

/// Whether marker and database are of the same node and of the same time.
fn check_parts(marker: &Marker, database: &Database) -> Result<(), OpenError> {
    let uuid = database.db().get_cf(database.family(Family::Node), NODE_UUID_KEY);
    let uuid = uuid.map_err(failed)?;
    if uuid.as_deref() != Some(marker.node_uuid.as_bytes()) {
        let detail = "the database is another node's, or has lost what was synced".to_owned();
        return Err(OpenError::Mismatch { detail });
    }
    let noted = process_of(database)?;
    let agrees = match marker.state {
        State::Starting => noted <= marker.process,
        State::Creating | State::Open | State::Clean => noted == marker.process,
    };
    if agrees {
        return Ok(());
    }
    let older = if noted > marker.process { "marker" } else { "database" };
    let detail = format!(
        "the {older} is older than the other marker_run={} database_run={noted}",
        marker.process
    );
    Err(OpenError::Mismatch { detail })
}

/// The number of the last run that the database knows of; 0 before there were numbers.
pub(crate) fn process_of(database: &Database) -> Result<u64, OpenError> {
    let noted = database.db().get_cf(database.family(Family::Node), PROCESS_KEY).map_err(failed)?;
    let Some(noted) = noted else { return Ok(0) };
    let bytes = noted.as_slice().try_into().map_err(|_| OpenError::Damaged {
        detail: format!("the number of the last run has {} bytes", noted.len()),
    })?;
    Ok(u64::from_le_bytes(bytes))
}

/// Tells the database whose it is; on the disk when this returns.
pub(crate) fn note_uuid(database: &Database, uuid: &str) -> Result<(), OpenError> {
    put(database, NODE_UUID_KEY, uuid.as_bytes())
}

/// Tells the database the number of the run; on the disk when this returns.
pub(crate) fn note_process(database: &Database, process: u64) -> Result<(), OpenError> {
    put(database, PROCESS_KEY, &process.to_le_bytes())
}

fn put(database: &Database, key: &[u8], value: &[u8]) -> Result<(), OpenError> {
    let mut write = WriteOptions::default();
    write.set_sync(true);
    let node = database.family(Family::Node);
    database.db().put_cf_opt(node, key, value, &write).map_err(failed)
}

fn failed(error: rocksdb::Error) -> OpenError {
    OpenError::Database { detail: error.to_string() }
}
