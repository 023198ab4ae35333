//! The task that owns the controller group: it puts metadata changes into the log and applies what
//! is decided.

use std::collections::VecDeque;
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use flintmq_consensus::{EntryKind, Index};
use flintmq_storage::{AppendKind, CheckpointBatch, Report};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::ControllerError;
use super::metadata::{Metadata, MetadataCommand};
use crate::fatal::FatalSignal;
use crate::replica::{NotProposed, Replica, ReplicaError, ReplicaStatus};

/// Applied entries after which the metadata are checkpointed, so that a restart replays few.
const CHECKPOINT_EVERY: usize = 256;

/// A change to be made, answered when it is decided and applied.
pub(crate) struct Change {
    pub(crate) commands: Vec<MetadataCommand>,
    pub(crate) done: oneshot::Sender<Result<(), ControllerError>>,
}

pub(crate) struct ControllerTask {
    replica: Replica,
    metadata: Arc<RwLock<Metadata>>,
    status: watch::Sender<ReplicaStatus>,
    changes: mpsc::Receiver<Change>,
    reports: mpsc::UnboundedReceiver<Report>,
    fatal: FatalSignal,
    stop: CancellationToken,
    under_way: VecDeque<(Index, oneshot::Sender<Result<(), ControllerError>>)>,
    /// Entries applied since the last checkpoint; none of them is needed after the next.
    applied: Vec<Index>,
}

impl ControllerTask {
    pub(crate) fn new(
        replica: Replica,
        metadata: Arc<RwLock<Metadata>>,
        status: watch::Sender<ReplicaStatus>,
        changes: mpsc::Receiver<Change>,
        reports: mpsc::UnboundedReceiver<Report>,
        fatal: FatalSignal,
        stop: CancellationToken,
    ) -> Self {
        Self {
            replica,
            metadata,
            status,
            changes,
            reports,
            fatal,
            stop,
            under_way: VecDeque::new(),
            applied: Vec::new(),
        }
    }

    /// Runs until stopped; leaves a checkpoint behind.
    pub(crate) async fn run(mut self) {
        if let Err(error) = self.serve().await {
            self.fatal.raise(error);
        }
    }

    async fn serve(&mut self) -> Result<(), ReplicaError> {
        self.replica.start()?;
        loop {
            tokio::select! {
                biased;
                Some(report) = self.reports.recv() => self.replica.on_report(report)?,
                Some(change) = self.changes.recv(), if self.replica.is_serving() => {
                    self.propose(change)?;
                }
                () = self.replica.deadline() => self.replica.on_deadline()?,
                () = self.stop.cancelled(), if self.under_way.is_empty() => {
                    self.checkpoint()?;
                    return Ok(());
                }
            }
            self.apply()?;
            self.status.send_replace(self.replica.status());
        }
    }

    fn propose(&mut self, change: Change) -> Result<(), ReplicaError> {
        let payload = match serde_json::to_vec(&change.commands) {
            Ok(payload) => Bytes::from(payload),
            Err(error) => {
                let _gone = change.done.send(Err(ControllerError::Encoding(error.to_string())));
                return Ok(());
            }
        };
        match self.replica.propose(payload, AppendKind::Relief)? {
            Ok(index) => self.under_way.push_back((index, change.done)),
            Err(NotProposed::NotLeader | NotProposed::WindowFull) => {
                let _gone = change.done.send(Err(ControllerError::NotReady));
            }
        }
        Ok(())
    }

    fn apply(&mut self) -> Result<(), ReplicaError> {
        while let Some(entry) = self.replica.next_committed() {
            match entry.kind {
                EntryKind::Barrier => {}
                EntryKind::Commands => {
                    let mut metadata =
                        self.metadata.write().unwrap_or_else(std::sync::PoisonError::into_inner);
                    if let Err(error) = metadata.apply(&entry.payload) {
                        // Written by this program and checked by the store: a newer version's
                        // entry, or a bug.
                        self.fatal.raise(error);
                    }
                }
                EntryKind::Sequenced(_) => return Err(entry.not_known(self.replica.group())),
            }
            self.applied.push(entry.index);
            while self.under_way.front().is_some_and(|(index, _)| *index <= entry.index) {
                if let Some((_, done)) = self.under_way.pop_front() {
                    let _gone = done.send(Ok(()));
                }
            }
        }
        if self.applied.len() >= CHECKPOINT_EVERY {
            self.checkpoint()?;
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), ReplicaError> {
        if self.applied.is_empty() {
            return Ok(());
        }
        let (puts, deletes) =
            self.metadata.write().unwrap_or_else(std::sync::PoisonError::into_inner).take_changes();
        let batch = CheckpointBatch {
            applied: self.replica.applied(),
            puts,
            deletes,
            dead_entries: std::mem::take(&mut self.applied),
        };
        if let Err(batch) = self.replica.checkpoint(batch)? {
            // No room in the writer's inbox: keep it all for the next time.
            self.applied = batch.dead_entries;
            self.metadata
                .write()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .put_back(batch.puts, batch.deletes);
        }
        Ok(())
    }
}
