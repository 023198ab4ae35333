//! Fsyncs the write-ahead log in the background, so that appends do not wait for the disk and yet
//! little is at risk.

use crate::database::Database;
use crate::inbox::{Inbox, SyncMark};
use crate::shutdown_signal::ShutdownSignal;
use crate::statistics::Counters;
use crate::vouching::Vouching;
use flintmq_consensus::GroupId;
use flintmq_log_store::StorageError;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What was written since the last fsync began.
#[derive(Default)]
pub(crate) struct Unsynced {
    written: Mutex<Written>,
}

#[derive(Default)]
struct Written {
    anything: bool,
    groups: BTreeMap<GroupId, SyncMark>,
}

impl Unsynced {
    /// Notes a write that was not synced, with how far it took each group's log. To be called after
    /// the write: what an fsync takes from here must have been written before it began.
    pub(crate) fn note(&self, marks: impl Iterator<Item = (GroupId, SyncMark)>) {
        let mut written = self.lock();
        written.anything = true;
        written.groups.extend(marks);
    }

    /// Takes everything noted; `None` if nothing was written.
    fn take(&self) -> Option<Vec<(GroupId, SyncMark)>> {
        let written = std::mem::take(&mut *self.lock());
        written.anything.then(|| written.groups.into_iter().collect())
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The flusher's thread.
pub(crate) struct WalSync {
    pub(crate) database: Arc<Database>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) vouching: Arc<Vouching>,
    pub(crate) unsynced: Arc<Unsynced>,
    pub(crate) stop: Arc<ShutdownSignal>,
    pub(crate) interval: Duration,
}

impl WalSync {
    /// Works until it is told to stop, or an fsync fails.
    pub(crate) fn run(self) {
        while !self.stop.wait(self.interval) {
            let Some(marks) = self.unsynced.take() else { continue };
            // What is written while the fsync is under way may not be part of it.
            let sequence = self.database.db().latest_sequence_number();
            let began = Instant::now();
            if let Err(error) = self.database.db().flush_wal(true) {
                self.inbox.fail(StorageError::Sync { detail: error.to_string() });
                return;
            }
            self.counters.flush.record(began.elapsed());
            if let Err(error) = self.vouching.synced(sequence) {
                self.inbox.fail(StorageError::Witness { detail: error.to_string() });
                return;
            }
            self.inbox.push_synced(marks);
        }
    }
}
