//! Opening a directory: whose is it, how was it left, and may its tail be lost
//! (docs/internals/storage.md#what-an-unclean-stop-leaves)?
//!
//! The order of the steps matters. Whose it is comes before anything is changed. A raised loss
//! epoch is on the disk before the marker's new run can be vouched for. The new witness exists
//! before the marker names its run, so that a crash in between is no loss.

use crate::background_reads::{BackgroundReads, Limits};
use crate::database::{Database, Family};
use crate::directory_lock::DirectoryLock;
use crate::disk_space::{DiskMonitor, FileSystemSpace};
use crate::group_replacing;
use crate::host;
use crate::inbox::Inbox;
use crate::judgement;
use crate::log_handle::LogHandle;
use crate::log_writer::{Group, LogWriter, Pending};
use crate::marker::{self, Marker, State};
use crate::open_error::OpenError;
use crate::options::{Durability, StoreOptions};
use crate::records;
use crate::shutdown_signal::ShutdownSignal;
use crate::side_clearing::{self, Clearing};
use crate::small_writes::SharedWriter;
use crate::space_reclaim::{DiskWatch, SpaceReclaim};
use crate::statistics::Counters;
use crate::store::{self, Opened, Running, Shutdown, Store};
use crate::store_reader::StoreReader;
use crate::vouching::Vouching;
use crate::wal_sync::{Unsynced, WalSync};
use crate::witness::Witness;
use flintmq_consensus::{Epoch, GroupId, NodeId};
use flintmq_log_store::GroupRecord;
use flintmq_log_store::ReadError;
use flintmq_log_store::parts::group_log::GroupLog;
use flintmq_log_store::parts::group_record::{self, GroupState, HIGHEST_GROUP, Side, Slot};
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

impl Store {
    /// Opens the directory, or creates it, and starts the store's threads.
    ///
    /// Nothing is changed in a directory that is refused. Blocks for as long as RocksDB replays its
    /// log, at most [`crate::Tuning::wal_bytes`] of it.
    pub fn open(options: StoreOptions) -> Result<Opened, OpenError> {
        let dir = options.dir.as_path();
        std::fs::create_dir_all(dir).map_err(io_error("creating the data directory", dir))?;
        let lock = DirectoryLock::take(dir)?;
        let found = find(&options)?;
        let counters = Arc::new(Counters::default());
        let database = open_database(&options, &found, &counters, lock)?;
        let synced = database.sync_found();
        synced.map_err(io_error("syncing the write-ahead log that was found", dir))?;
        let shutdown = judge(&options, &found, &database)?;
        let last_process = match &found {
            Found::Ours(marker) => marker.process,
            Found::New { .. } | Found::Replaced { .. } => 0,
        };
        let vouching = Arc::new(begin_run(&options, found, &shutdown, &database)?);
        let database = Arc::new(database);
        complete_drops(&database, &counters)?;
        let clearing = find_sides(&database)?;
        let reader = store::reader(&database, vouching.marker.loss_epoch);
        let groups = reader.groups().map_err(|error| damaged(&error))?;
        report(&shutdown, &groups, dir);
        let found = FoundGroups { groups: &groups, clearing };
        let (uuid, process) = (vouching.marker.node_uuid.clone(), vouching.marker.process);
        let store = start(options, database, reader, found, counters, vouching)?;
        Ok(Opened { store, groups, shutdown, uuid, last_process, process })
    }
}

/// What a directory says of itself.
enum Found {
    /// Nothing, or a creation that was interrupted: `node_uuid` is the one to use.
    New { node_uuid: String },
    /// A marker of ours.
    Ours(Marker),
    /// Content without a marker, to be taken over on the operator's word.
    Replaced { node_uuid: String },
}

fn find(options: &StoreOptions) -> Result<Found, OpenError> {
    let dir = options.dir.as_path();
    let database = dir.join("db");
    let uuid = || host::random_name().map_err(io_error("reading random numbers", dir));
    let Some(marker) = Marker::read(dir)? else {
        if database.exists() {
            if options.replace {
                return Ok(Found::Replaced { node_uuid: uuid()? });
            }
            return Err(OpenError::MarkerMissing { dir: dir.to_owned() });
        }
        return Ok(Found::New { node_uuid: uuid()? });
    };
    if marker.cluster != options.identity.cluster {
        let wanted = options.identity.cluster.clone();
        return Err(OpenError::ForeignCluster { found: marker.cluster, wanted });
    }
    if marker.node != options.identity.node.0 {
        let found = NodeId(marker.node);
        return Err(OpenError::ForeignNode { found, wanted: options.identity.node });
    }
    if marker.state == State::Creating {
        if database.exists() {
            std::fs::remove_dir_all(&database)
                .map_err(io_error("removing a half created database", &database))?;
        }
        return Ok(Found::New { node_uuid: marker.node_uuid });
    }
    if !database.exists() {
        return Err(OpenError::DatabaseMissing { dir: dir.to_owned() });
    }
    Ok(Found::Ours(marker))
}

fn open_database(
    options: &StoreOptions,
    found: &Found,
    counters: &Arc<Counters>,
    lock: DirectoryLock,
) -> Result<Database, OpenError> {
    let path = options.dir.join("db");
    let create = matches!(found, Found::New { .. });
    if let Found::New { node_uuid } = found {
        // From here until the marker says `Open` the database is known to be worth nothing.
        let marker = new_marker(options, node_uuid.clone(), State::Creating, String::new())?;
        marker.write(&options.dir).map_err(io_error("writing the marker", &options.dir))?;
    }
    let database = Database::open(&path, &options.tuning, create, counters, lock)
        .map_err(|error| OpenError::Database { detail: error.to_string() })?;
    if let Found::New { node_uuid } | Found::Replaced { node_uuid } = found {
        judgement::note_uuid(&database, node_uuid)?;
    }
    Ok(database)
}

/// Whether everything acknowledged is there.
fn judge(
    options: &StoreOptions,
    found: &Found,
    database: &Database,
) -> Result<Shutdown, OpenError> {
    match found {
        Found::New { .. } => Ok(Shutdown::New),
        Found::Replaced { .. } => {
            Ok(Shutdown::TailMayBeLost { reason: "the node was replaced".to_owned() })
        }
        Found::Ours(marker) => judgement::judge(options, marker, database),
    }
}

/// Writes the marker of the new run, with its witness.
///
/// The marker names the run before the database does, and says that it does so, until both agree:
/// a stop in between is told from a part of the directory that is older than the other.
fn begin_run(
    options: &StoreOptions,
    found: Found,
    shutdown: &Shutdown,
    database: &Database,
) -> Result<Vouching, OpenError> {
    let dir = options.dir.as_path();
    let (node_uuid, loss_epoch, last) = match found {
        Found::New { node_uuid } => (node_uuid, 0, 0),
        // The number went with the marker. It must not come again: groups tell losses apart by it.
        Found::Replaced { node_uuid } => {
            (node_uuid, highest_epoch(database)?, judgement::process_of(database)?)
        }
        Found::Ours(marker) => (marker.node_uuid, marker.loss_epoch, marker.process),
    };
    let run = host::random_name().map_err(io_error("reading random numbers", dir))?;
    let mut marker = new_marker(options, node_uuid, State::Starting, run)?;
    marker.loss_epoch = loss_epoch + u64::from(matches!(shutdown, Shutdown::TailMayBeLost { .. }));
    marker.process = next_process(last, options.now.unwrap_or_else(SystemTime::now));
    // All that was found is synced.
    marker.sequence = database.db().latest_sequence_number();
    let witness = create_witness(options, &marker);
    marker.witness = witness.is_some();
    let write = |marker: &Marker| marker.write(dir).map_err(io_error("writing the marker", dir));
    write(&marker)?;
    judgement::note_process(database, marker.process)?;
    marker.state = State::Open;
    marker.sequence = database.db().latest_sequence_number();
    write(&marker)?;
    if let Some(place) = &options.witness_dir {
        Witness::remove_others(place, &marker.node_uuid, Some(&marker.run));
    }
    Ok(Vouching { witness, dir: dir.to_owned(), marker })
}

/// A number above that of the last run, whatever became of the clock.
fn next_process(last: u64, now: SystemTime) -> u64 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0).max(last.saturating_add(1))
}

/// The witness of a run, where there can be one.
fn create_witness(options: &StoreOptions, marker: &Marker) -> Option<Witness> {
    let place = options.witness_dir.as_ref().filter(|_| options.trust_page_cache)?;
    match Witness::create(place, &marker.node_uuid, &marker.run, marker.sequence) {
        Ok(witness) => Some(witness),
        Err(error) => {
            tracing::warn!(
                dir = %place.display(), %error,
                "no witness is kept, so that after a crash boot and mount decide whether \
                 anything is missing; give the node a directory in RAM, node.witness_dir"
            );
            None
        }
    }
}

fn new_marker(
    options: &StoreOptions,
    node_uuid: String,
    state: State,
    run: String,
) -> Result<Marker, OpenError> {
    let dir = options.dir.as_path();
    Ok(Marker {
        format: marker::FORMAT,
        cluster: options.identity.cluster.clone(),
        node: options.identity.node.0,
        node_uuid,
        state,
        run,
        boot_id: host::boot_id(),
        mount_id: host::mount_id(dir).map_err(io_error("looking up the mount", dir))?,
        loss_epoch: 0,
        witness: false,
        synced: options.durability == Durability::Sync,
        process: 0,
        sequence: 0,
    })
}

/// The highest loss that any group of the database has made good.
fn highest_epoch(database: &Database) -> Result<Epoch, OpenError> {
    let states = group_states(database)?;
    Ok(states.iter().map(|(_, state)| state.rejoined_epoch).max().unwrap_or(0))
}

fn group_states(database: &Database) -> Result<Vec<(GroupId, GroupState)>, OpenError> {
    let mut states = Vec::new();
    let mut groups = database.db().raw_iterator_cf(database.family(Family::Group));
    groups.seek_to_first();
    while let Some((key, value)) = groups.item() {
        let state =
            group_record::decode_group(value).map_err(|detail| OpenError::Damaged { detail })?;
        states.extend(records::key_group(key).map(|group| (group, state)));
        groups.next();
    }
    groups.status().map_err(|error| OpenError::Database { detail: error.to_string() })?;
    Ok(states)
}

/// Completes the deletion of groups that a crash has interrupted.
fn complete_drops(database: &Database, counters: &Counters) -> Result<(), OpenError> {
    let failed = |error: rocksdb::Error| OpenError::Database { detail: error.to_string() };
    let states = group_states(database)?;
    for (group, _) in states.into_iter().filter(|(_, state)| state.dropping) {
        for side in [Side::First, Side::Second] {
            let mut clearing = Clearing::new(Slot::new(group, side), 0);
            while !clearing.step(database, counters).map_err(failed)? {}
        }
        group_replacing::delete_group_record(database, group).map_err(failed)?;
    }
    Ok(())
}

/// Finds out which side of each group is in use. What the other sides hold, snapshots that were not
/// finished and pasts that were replaced, is to be deleted.
fn find_sides(database: &Database) -> Result<Vec<Slot>, OpenError> {
    let states = group_states(database)?;
    for (group, state) in &states {
        if *group > HIGHEST_GROUP {
            let detail = format!("a group with a number above {HIGHEST_GROUP} group={group}");
            return Err(OpenError::Damaged { detail });
        }
        database.set_side(*group, state.side);
    }
    let used: HashSet<Slot> = states.iter().map(|(group, state)| state.slot(*group)).collect();
    let left = side_clearing::leftovers(database, |slot| used.contains(&slot));
    let left = left.map_err(|error| OpenError::Database { detail: error.to_string() })?;
    Ok(left.into_iter().collect())
}

/// What the writer has to know of the groups.
struct FoundGroups<'a> {
    groups: &'a [GroupRecord],
    clearing: Vec<Slot>,
}

fn start(
    options: StoreOptions,
    database: Arc<Database>,
    reader: StoreReader,
    FoundGroups { groups, clearing }: FoundGroups<'_>,
    counters: Arc<Counters>,
    vouching: Arc<Vouching>,
) -> Result<Store, OpenError> {
    let inbox = Arc::new(Inbox::new(options.inbox_bytes, options.inbox_batches));
    let disk = Arc::new(DiskMonitor::new(options.disk_reserve));
    let stop = Arc::new(ShutdownSignal::default());
    let unsynced = Arc::new(Unsynced::default());
    let entry_bytes = database.estimated_entry_bytes();
    let mut known = HashMap::with_capacity(groups.len());
    for group in groups {
        let state = reader.group_state(group.id).map_err(|error| damaged(&error))?;
        let log = GroupLog::new(state.unwrap_or_default(), group.bounds.last, entry_bytes);
        known.insert(group.id, Group::with_log(log));
    }
    for slot in &clearing {
        if let Some(group) = known.get_mut(&slot.group()) {
            group.is_spare_dirty = true;
        }
    }
    let writer = LogWriter {
        database: Arc::clone(&database),
        inbox: Arc::clone(&inbox),
        counters: Arc::clone(&counters),
        unsynced: Arc::clone(&unsynced),
        vouching: Arc::clone(&vouching),
        durability: options.durability,
        write_bytes: options.write_bytes,
        loss_epoch: vouching.marker.loss_epoch,
        groups: known,
        clearing: clearing.into_iter().map(|slot| Clearing::new(slot, entry_bytes)).collect(),
        pending: Pending::default(),
        requests: Vec::new(),
    };
    let writer = Arc::new(SharedWriter::new(writer));
    let limits = Limits {
        idle: options.snapshot_idle,
        life: options.snapshot_life,
        open: options.snapshots,
    };
    let first = host::random_number().map_err(io_error("reading random numbers", &options.dir))?;
    // A number must not come again with other content, and this run gives many.
    let (reads, log_reads, snapshot_reads) =
        BackgroundReads::new(&reader, &counters, limits, first & !0xff_ffff);
    let sync = WalSync {
        database: Arc::clone(&database),
        inbox: Arc::clone(&inbox),
        counters: Arc::clone(&counters),
        vouching: Arc::clone(&vouching),
        unsynced,
        stop: Arc::clone(&stop),
        interval: options.flush_interval,
    };
    let reclaim = SpaceReclaim {
        database,
        counters: Arc::clone(&counters),
        stop: Arc::clone(&stop),
        interval: options.disk_check_interval,
    };
    let watch = DiskWatch {
        disk: Arc::clone(&disk),
        space: options.free_space.unwrap_or_else(|| Arc::new(FileSystemSpace)),
        dir: options.dir.clone(),
        stop: Arc::clone(&stop),
        interval: options.disk_check_interval,
    };
    // The first answer must be there before the first append asks for it.
    watch.look();
    let mut store = Store {
        handle: LogHandle { inbox, disk, counters, writer: Arc::clone(&writer) },
        reader,
        reads,
        stop,
        running: Mutex::default(),
    };
    let running = Running { threads: Vec::new(), vouching, witness_dir: options.witness_dir };
    // From here on dropping the store ends the threads that could be started.
    store.running = Mutex::new(Some(running));
    let mut threads = vec![
        spawn("log-writer", move || writer.run()),
        spawn("wal-sync", || sync.run()),
        spawn("space-reclaim", || reclaim.run()),
        spawn("disk-watch", || watch.run()),
        spawn("snapshot-reader", || snapshot_reads.run()),
    ];
    threads.extend(log_reads.map(|reads| spawn("log-reader", || reads.run())));
    if let Ok(Some(running)) = store.running.get_mut() {
        for thread in threads {
            let thread = thread.map_err(io_error("starting a thread", &options.dir))?;
            running.threads.push(thread);
        }
    }
    Ok(store)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(work)
}

fn report(shutdown: &Shutdown, groups: &[GroupRecord], dir: &Path) {
    let (dir, groups) = (dir.display(), groups.len());
    match shutdown {
        Shutdown::TailMayBeLost { reason } => {
            tracing::warn!(%dir, groups, reason, "the store was not closed and may lack acknowledged writes");
        }
        other => tracing::info!(%dir, groups, shutdown = ?other, "the store is open"),
    }
}

fn io_error<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> OpenError + 'a {
    move |source| OpenError::Io { doing, path: path.to_owned(), source }
}

fn damaged(error: &ReadError) -> OpenError {
    OpenError::Damaged { detail: error.to_string() }
}
