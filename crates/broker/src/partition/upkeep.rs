//! What a partition does by the clock: expiry, checkpoints, gauges.

use std::time::{Duration, Instant};

use flintmq_queue::QueueId;
use flintmq_storage::CheckpointBatch;

use super::clock::wall_clock_ms;
use super::task::PartitionTask;
use crate::metrics::{DropReason, QueueLevels};
use crate::replica::ReplicaError;

/// Log written since the last checkpoint at which the next is due. Small enough that an entry and
/// its deletion meet in the store's memory, before either is written to a table.
const CHECKPOINT_BYTES: usize = 2 << 20;

/// How long a partition without traffic waits until it logs the time, by which the history of seen
/// GUIDs grows old and gives its memory back.
const AGEING: Duration = Duration::from_secs(60);

/// Messages that one entry lets expire at most.
const EXPIRE_AT_ONCE: u64 = 100_000;

impl PartitionTask {
    /// Once per [`TICK`](super::clock::TICK).
    pub(super) fn on_tick(&mut self) -> Result<(), ReplicaError> {
        if self.machine.is_leading() {
            let now = wall_clock_ms();
            if self.machine.next_expiry().is_some_and(|due| due <= now) {
                for item in self.machine.expire(now, EXPIRE_AT_ONCE) {
                    self.builder.expire(item);
                }
            }
        }
        self.reconciler.step(&mut self.replica)?;
        self.give_back_lead()?;
        self.invite_again();
        self.look_for_leader();
        self.drop_leftover()?;
        self.machine.retry_loads();
        let remembers = self.set_levels();
        self.ageing_due = remembers && self.last_proposal.elapsed() >= AGEING;
        self.checkpoint()?;
        Ok(())
    }

    /// Writes a checkpoint when much has been logged since the last.
    pub(super) fn checkpoint_if_large(&mut self) -> Result<(), ReplicaError> {
        if self.log_bytes >= CHECKPOINT_BYTES {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Writes the net change since the last checkpoint. False when the store has no room for it
    /// now.
    pub(super) fn checkpoint(&mut self) -> Result<bool, ReplicaError> {
        if let Some(batch) = self.checkpoint_waiting.take()
            && let Err(batch) = self.replica.checkpoint(batch)?
        {
            self.checkpoint_waiting = Some(batch);
            return Ok(false);
        }
        if self.applied_since_checkpoint == 0 {
            return Ok(true);
        }
        let checkpoint = self.machine.take_checkpoint();
        self.held_dead.extend(checkpoint.dead_entries);
        let limit =
            if self.stop.is_cancelled() { u64::MAX } else { self.replica.compaction_limit() };
        let dead_entries = self.held_dead.extract_if(.., |index| *index <= limit).collect();
        self.applied_since_checkpoint = 0;
        self.log_bytes = 0;
        let batch = CheckpointBatch {
            applied: self.replica.applied(),
            puts: checkpoint.puts,
            deletes: checkpoint.deletes,
            dead_entries,
        };
        match self.replica.checkpoint(batch)? {
            Ok(()) => Ok(true),
            Err(batch) => {
                self.checkpoint_waiting = Some(batch);
                Ok(false)
            }
        }
    }

    /// Tells the stopping node when no consumer holds anything unconfirmed and nothing is under
    /// way.
    pub(super) fn tell_if_idle(&mut self) {
        if self.idle.is_none() || !self.builder.is_empty() || self.replica.under_way() > 0 {
            return;
        }
        let views = self.queues.keys().filter_map(|queue| self.machine.view(*queue));
        let unconfirmed: u64 = views.flat_map(|view| view.apps).map(|app| app.unconfirmed).sum();
        if unconfirmed == 0
            && let Some(idle) = self.idle.take()
        {
            let _gone = idle.send(());
        }
    }

    /// Counts messages that left without a confirmation: once in a cluster, at their leader.
    pub(super) fn count_dropped(&self, queue: QueueId, reason: DropReason, messages: u64) {
        if self.machine.is_leading()
            && let Some(entry) = self.queues.get(&queue)
        {
            entry.series.dropped(reason, messages);
        }
    }

    /// Queues that have been empty and closed for this long, to the accuracy of a tick.
    pub(super) fn idle_queues(&self, timeout: Duration) -> Vec<String> {
        let idle = self.queues.iter().filter(|(queue, _)| self.is_unused_for(**queue, timeout));
        idle.map(|(_, entry)| entry.uri.clone()).collect()
    }

    /// Whether a queue has been closed and empty for this long and is so now, with everything that
    /// was published before applied.
    pub(super) fn is_unused_for(&self, queue: QueueId, timeout: Duration) -> bool {
        let since = self.queues.get(&queue).and_then(|entry| entry.unused_since);
        since.is_some_and(|since| since.elapsed() >= timeout)
            && self.after_everything() <= self.replica.applied().index
            && self.machine.view(queue).is_some_and(|view| view.messages == 0)
    }

    /// Sets the gauges of all queues; tells whether any of them remembers GUIDs.
    fn set_levels(&mut self) -> bool {
        let mut remembers = false;
        for (id, entry) in &mut self.queues {
            let Some(view) = self.machine.view(*id) else { continue };
            remembers |= view.history_guids > 0;
            let sum = |of: fn(&flintmq_queue::AppView) -> u64| view.apps.iter().map(of).sum();
            let consumers = sum(|app| u64::from(app.consumers));
            let unused = view.messages == 0 && consumers == 0 && view.producers == 0;
            entry.unused_since = unused.then(|| entry.unused_since.unwrap_or_else(Instant::now));
            entry.series.set_levels(&QueueLevels {
                backlog_messages: view.messages,
                backlog_bytes: view.bytes,
                oldest_arrival_ms: view.oldest_arrival_ms,
                unconfirmed_messages: sum(|app| app.unconfirmed),
                redelivery_messages: sum(|app| app.redelivery),
                consumers,
                producers: u64::from(view.producers),
            });
        }
        remembers
    }
}
