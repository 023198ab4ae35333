//! A group's requests to the store, in their order: while one of them is refused, those behind it
//! wait.

use std::collections::VecDeque;

use flintmq_consensus::{GroupId, SnapshotId};
use flintmq_log_store::{
    AppendBatch, AppendKind, CheckpointBatch, LogStore, Refused, RefusedReason, StagedPiece,
};

/// A request.
#[derive(Debug)]
pub(crate) enum Request {
    Append(AppendBatch),
    Checkpoint(CheckpointBatch),
    Install { id: SnapshotId, keep_log_after: bool },
    Reset { write: u64 },
    Rejoined,
}

/// What the store had no room for.
#[derive(Debug, Default)]
pub(crate) struct StoreQueue {
    waiting: VecDeque<Request>,
    /// A piece of a snapshot. It goes beside the log, so nothing waits behind it.
    staging: Option<StagedPiece>,
}

impl StoreQueue {
    /// Gives the store a request, or keeps it behind those that wait.
    ///
    /// # Errors
    /// The store takes no more writes.
    pub(crate) fn push(
        &mut self,
        store: &dyn LogStore,
        group: GroupId,
        request: Request,
    ) -> Result<(), RefusedReason> {
        if !self.waiting.is_empty() {
            self.waiting.push_back(request);
            return Ok(());
        }
        if let Some(refused) = give(store, group, request)? {
            self.waiting.push_back(refused);
        }
        Ok(())
    }

    /// Gives the store a piece of a snapshot. One of before that still waits is of no use any
    /// more: pieces are asked for one by one.
    ///
    /// # Errors
    /// The store takes no more writes.
    pub(crate) fn stage(
        &mut self,
        store: &dyn LogStore,
        group: GroupId,
        piece: StagedPiece,
    ) -> Result<(), RefusedReason> {
        self.staging = Some(piece);
        self.go_on_staging(store, group)
    }

    /// Gives the store what it had no room for before. To be called when there may be room.
    ///
    /// # Errors
    /// The store takes no more writes.
    pub(crate) fn go_on(
        &mut self,
        store: &dyn LogStore,
        group: GroupId,
    ) -> Result<(), RefusedReason> {
        while let Some(request) = self.waiting.pop_front() {
            if let Some(refused) = give(store, group, request)? {
                self.waiting.push_front(refused);
                return Ok(());
            }
        }
        self.go_on_staging(store, group)
    }

    fn go_on_staging(&mut self, store: &dyn LogStore, group: GroupId) -> Result<(), RefusedReason> {
        // What waits may be what empties the place where pieces go.
        let Some(piece) = self.staging.take_if(|_| self.waiting.is_empty()) else { return Ok(()) };
        match store.try_stage(group, piece) {
            Ok(()) => Ok(()),
            // The reserve is not there for snapshots: space is freed first.
            Err(Refused {
                returned,
                reason: RefusedReason::Full | RefusedReason::DiskFull { .. },
            }) => {
                self.staging = Some(returned);
                Ok(())
            }
            Err(Refused { reason, .. }) => Err(reason),
        }
    }

    /// Drops what waits: the log that it is of is no more.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
        self.staging = None;
    }

    /// Forgets a piece: its snapshot is not wanted any more.
    pub(crate) fn forget_piece(&mut self) {
        self.staging = None;
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.staging.is_none()
    }

    /// Whether a checkpoint waits.
    pub(crate) fn has_checkpoint(&self) -> bool {
        self.waiting.iter().any(|request| matches!(request, Request::Checkpoint(_)))
    }

    /// Requests that wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

/// Gives the store one request; the request comes back when it has no room.
fn give(
    store: &dyn LogStore,
    group: GroupId,
    request: Request,
) -> Result<Option<Request>, RefusedReason> {
    let no_room = |refused: Refused<()>, request| match refused.reason {
        RefusedReason::Full => Ok(Some(request)),
        reason => Err(reason),
    };
    match request {
        Request::Append(batch) => append(store, group, batch),
        Request::Checkpoint(batch) => match store.try_checkpoint(group, batch) {
            Ok(()) => Ok(None),
            Err(Refused { returned, reason: RefusedReason::Full }) => {
                Ok(Some(Request::Checkpoint(returned)))
            }
            Err(Refused { reason, .. }) => Err(reason),
        },
        Request::Install { id, keep_log_after } => match store.install(group, id, keep_log_after) {
            Ok(()) => Ok(None),
            Err(refused) => no_room(refused, Request::Install { id, keep_log_after }),
        },
        Request::Reset { write } => match store.reset(group, write) {
            Ok(()) => Ok(None),
            Err(refused) => no_room(refused, Request::Reset { write }),
        },
        Request::Rejoined => match store.mark_rejoined(group) {
            Ok(()) => Ok(None),
            Err(refused) => no_room(refused, Request::Rejoined),
        },
    }
}

fn append(
    store: &dyn LogStore,
    group: GroupId,
    mut batch: AppendBatch,
) -> Result<Option<Request>, RefusedReason> {
    loop {
        let Err(Refused { returned, reason }) = store.try_append(group, batch) else {
            return Ok(None);
        };
        batch = returned;
        match reason {
            RefusedReason::Full => return Ok(Some(Request::Append(batch))),
            // The entry has its index already; the reserve is there for what cannot be taken back.
            RefusedReason::DiskFull { .. } if batch.kind == AppendKind::Growing => {
                batch.kind = AppendKind::Relief;
            }
            reason => return Err(reason),
        }
    }
}
