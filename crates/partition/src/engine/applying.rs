//! Committed entries and snapshots become the state of the queues.

use bytes::Bytes;
use flintmq_consensus::{EntryKind, Time};
use flintmq_queue::{Effect as StateEffect, Partition, QueueId};
use flintmq_shard::{Committed, Group, MachineFailure, QueueRecord};

use super::{PartitionEngine, Role};
use crate::effect::{DropReason, Purged};

impl PartitionEngine {
    /// Applies a committed entry, and does what follows from it in the role of the moment.
    pub(super) fn apply_entry(
        &mut self,
        group: &mut dyn Group,
        entry: &Committed,
    ) -> Result<(), MachineFailure> {
        // A leader's no-op carries no commands, but the state follows the log entry by entry.
        let empty = Bytes::new();
        let payload = match entry.kind {
            EntryKind::Barrier => &empty,
            EntryKind::Commands => &entry.payload,
            EntryKind::Sequenced(_) => {
                return Err(MachineFailure(format!(
                    "the log holds an entry that a newer version wrote: start that version, group={} index={}",
                    group.id(),
                    entry.position.index
                )));
            }
        };
        let (now, index) = (group.now(), entry.position.index);
        if let Err(error) = self.cx.machine.apply(index, payload, &mut self.cx.applied) {
            let reason = std::error::Error::source(&error).map(ToString::to_string);
            let reason = reason.unwrap_or_default();
            return Err(MachineFailure(format!("group={} {error}: {reason}", group.id())));
        }
        self.checkpoints.note(payload.len());
        self.usage_due = true;
        match &mut self.role {
            Role::Leader(leader) => leader.on_applied(&mut self.cx, now, entry.position),
            Role::Forwarder(forwarder) => forwarder.on_applied(&self.cx, index, payload),
            Role::Leaderless => {}
        }
        let mut effects = std::mem::take(&mut self.cx.applied.effects);
        for effect in effects.drain(..) {
            self.on_applied_effect(now, effect);
        }
        self.cx.applied.effects = effects;
        Ok(())
    }

    /// Takes a snapshot's state in place of the present one.
    pub(super) fn restore_state(
        &mut self,
        group: &mut dyn Group,
        records: Vec<QueueRecord>,
    ) -> Result<(), MachineFailure> {
        self.checkpoints.begin_again();
        let machine = Partition::restore(records)
            .map_err(|error| MachineFailure(format!("group={} {error}", group.id())))?;
        let before = self.cx.queues.ids();
        self.cx.machine = machine;
        for queue in before {
            if self.cx.machine.settings(queue).is_some() {
                continue;
            }
            // Where this node holds no replica any more the queue is there, only not here: clients
            // of this node have it open elsewhere. Otherwise the next leader says whether it is.
            self.cx.queues.leave(queue, &mut self.cx.effects);
        }
        self.cx.usage.clear();
        self.enter_queues();
        if let Role::Forwarder(forwarder) = &self.role {
            // What is on its way refers to entries of the log that was.
            let leader = forwarder.leader();
            self.attach(group, leader);
        }
        Ok(())
    }

    pub(super) fn enter_queues(&mut self) {
        let queues: Vec<QueueId> = self.cx.machine.queue_ids().collect();
        for queue in queues {
            if !self.cx.queues.contains(queue) {
                self.cx.enter_queue(queue);
            }
        }
        self.cx.report_usage();
    }

    fn on_applied_effect(&mut self, now: Time, effect: StateEffect) {
        let cx = &mut self.cx;
        let leader = match &mut self.role {
            Role::Leader(leader) => Some(leader),
            _ => None,
        };
        let leads = leader.is_some();
        match effect {
            StateEffect::QueueCreated { queue } => {
                cx.enter_queue(queue);
                if let Some(leader) = leader {
                    leader.on_created(queue);
                    cx.tell_created(queue);
                }
            }
            StateEffect::CreateRefused { queue, reason } => {
                leader.into_iter().for_each(|leader| leader.on_created(queue));
                tracing::warn!(queue = queue.0, ?reason, "a queue was not created");
            }
            StateEffect::QueueDeleted { queue, messages, bytes } => {
                cx.leave_queue(now, queue);
                tracing::info!(queue = queue.0, messages, bytes, "queue deleted");
            }
            StateEffect::Purged { queue, messages, bytes, .. } => {
                if let Some(leader) = leader {
                    cx.queues.dropped(queue, DropReason::Purged, messages);
                    leader.on_purged(cx, queue, Purged { messages, bytes });
                }
                cx.queues.touch(queue);
            }
            StateEffect::Expired { queue, messages, bytes } => {
                if leads {
                    cx.queues.dropped(queue, DropReason::Expired, messages);
                }
                let uri = cx.queues.uri(queue);
                tracing::info!(uri, messages, bytes, "messages outlived their time to live");
                cx.queues.touch(queue);
            }
            StateEffect::Poisoned { queue, position, .. } => {
                if leads {
                    cx.queues.dropped(queue, DropReason::Attempts, 1);
                }
                let uri = cx.queues.uri(queue);
                tracing::error!(
                    uri,
                    position,
                    "message dropped: every consumer that had it died, maxDeliveryAttempts is reached"
                );
                cx.queues.touch(queue);
            }
        }
    }
}
