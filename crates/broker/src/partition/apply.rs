//! From decided entries to what follows from them.

use flintmq_consensus::{EntryKind, Index};
use flintmq_queue::Effect;

use super::requests::{AdminRefusal, Purged};
use super::task::{Deferred, PartitionTask};
use crate::metrics::DropReason;
use crate::replica::{Committed, ReplicaError};

impl PartitionTask {
    /// Applies every entry that is decided, answers what was in it, and does what waited for it.
    pub(super) fn apply_committed(&mut self) -> Result<(), ReplicaError> {
        let mut applied = false;
        while let Some(entry) = self.replica.next_committed() {
            self.apply(&entry)?;
            self.run_deferred(entry.index);
            applied = true;
        }
        if applied {
            self.report_usage();
        }
        Ok(())
    }

    /// Tells the other partitions what this one holds of each domain.
    pub(super) fn report_usage(&mut self) {
        for (domain, messages, bytes) in self.machine.domain_usage() {
            self.usage.set(domain, messages, bytes);
        }
    }

    fn apply(&mut self, entry: &Committed) -> Result<(), ReplicaError> {
        // A barrier carries no commands, but the state machine follows the log entry by entry.
        let empty = bytes::Bytes::new();
        let payload = match entry.kind {
            EntryKind::Barrier => &empty,
            EntryKind::Commands => &entry.payload,
            EntryKind::Sequenced(_) => return Err(entry.not_known(self.group())),
        };
        let mut applied = std::mem::take(&mut self.applied);
        if let Err(error) = self.machine.apply(entry.index, payload, &mut applied) {
            let reason = std::error::Error::source(&error).map(ToString::to_string);
            let reason = reason.unwrap_or_default();
            self.fatal.raise(format!("group={} {error}: {reason}", self.group()));
            return Ok(());
        }
        self.applied_since_checkpoint += 1;
        self.log_bytes += payload.len();
        self.keep_at_hand(entry.index, payload);
        if self.under_way.front().is_some_and(|proposed| proposed.index == entry.index)
            && let Some(proposed) = self.under_way.pop_front()
        {
            self.answer_outcomes(&proposed, &applied.outcomes);
        }
        for effect in applied.effects.drain(..) {
            self.on_effect(effect);
        }
        self.applied = applied;
        Ok(())
    }

    fn on_effect(&mut self, effect: Effect) {
        match effect {
            Effect::QueueCreated { queue } => self.enter_queue(queue),
            Effect::CreateRefused { queue, reason } => {
                self.creating.remove(&queue);
                tracing::warn!(queue = queue.0, ?reason, "a queue was not created");
            }
            Effect::QueueDeleted { queue, messages, bytes } => {
                self.leave_queue(queue);
                tracing::info!(queue = queue.0, messages, bytes, "queue deleted");
            }
            Effect::Purged { queue, messages, bytes, .. } => {
                self.count_dropped(queue, DropReason::Purged, messages);
                if let Some(at) = self.purges.iter().position(|(waiting, _)| *waiting == queue) {
                    let (_, done) = self.purges.remove(at);
                    let _gone = done.send(Ok(Purged { messages, bytes }));
                }
            }
            Effect::Expired { queue, messages, bytes } => {
                self.count_dropped(queue, DropReason::Expired, messages);
                let uri = self.queues.get(&queue).map_or("", |queue| queue.uri.as_str());
                tracing::info!(uri, messages, bytes, "messages outlived their time to live");
            }
            Effect::Poisoned { queue, position, .. } => {
                self.count_dropped(queue, DropReason::Attempts, 1);
                let uri = self.queues.get(&queue).map_or("", |queue| queue.uri.as_str());
                tracing::error!(
                    uri,
                    position,
                    "message dropped: every consumer that had it died, maxDeliveryAttempts is reached"
                );
            }
        }
    }

    /// Does what waited for the entries up to `applied`.
    pub(super) fn run_deferred(&mut self, applied: Index) {
        while self.deferred.front().is_some_and(|(index, _)| *index <= applied) {
            let Some((_, deferred)) = self.deferred.pop_front() else { return };
            match deferred {
                Deferred::Open(open) => self.open_existing(*open),
                Deferred::Close(close) => self.close_now(*close),
                Deferred::SessionEnded(ended) => self.end_session(ended),
                Deferred::OpenRemote(remote) => self.open_remote(remote),
                Deferred::CloseRemote(node, number, handles) => {
                    self.close_remotes(node, number, handles);
                }
                Deferred::ConfirmedRemote(node, number) => self.tell_confirmed(node, number),
                Deferred::Settled(done) => {
                    let _gone = done.send(());
                }
                Deferred::Delete(queue, done) => {
                    let gone = self.machine.settings(queue).is_none();
                    let in_use = AdminRefusal::Failed("the queue was opened meanwhile".into());
                    let _gone = done.send(if gone { Ok(()) } else { Err(in_use) });
                }
            }
        }
    }
}
