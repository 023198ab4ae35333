//! The queues of a partition beside their replicated state: their names for metrics, what happened
//! in them, and since when nothing has.

use std::collections::VecDeque;
use std::time::Duration;

use flintmq_consensus::Time;
use flintmq_queue::{AppView, Partition, QueueId};

use crate::effect::{DropReason, Effect, QueueCounts, QueueLevels, RejectReason};
use crate::{FastMap, FastSet};

/// How long the number of a deleted queue is remembered: longer than any open is on its way.
const REMEMBERED: Duration = Duration::from_secs(600);

/// A queue beside its state.
#[derive(Debug)]
struct Tracked {
    uri: String,
    counts: QueueCounts,
    /// Since when it has been empty and closed, while this node leads.
    unused_since: Option<Time>,
    /// It is in `counted`.
    counted: bool,
    /// It is in `touched`.
    touched: bool,
}

/// All queues of the partition. What nothing happens to costs nothing.
#[derive(Debug, Default)]
pub(crate) struct QueueTable {
    queues: FastMap<QueueId, Tracked>,
    /// Queues with counts that were not told.
    counted: Vec<QueueId>,
    /// Queues whose levels may have changed since the last tick.
    touched: Vec<QueueId>,
    /// Numbers of queues that were deleted lately: an open that was on its way must not bring one
    /// back. Numbers are never given twice.
    deleted: FastSet<QueueId>,
    deletions: VecDeque<(Time, QueueId)>,
}

impl QueueTable {
    /// A queue exists in the replicated state.
    pub(crate) fn enter(&mut self, queue: QueueId, uri: String, effects: &mut Vec<Effect>) {
        let new = Tracked {
            uri: uri.clone(),
            counts: QueueCounts::default(),
            unused_since: None,
            counted: false,
            touched: false,
        };
        if self.queues.insert(queue, new).is_none() {
            effects.push(Effect::QueueOpened { queue, uri });
        }
        self.touch(queue);
    }

    /// A queue is not here any more.
    pub(crate) fn leave(&mut self, queue: QueueId, effects: &mut Vec<Effect>) {
        if let Some(tracked) = self.queues.remove(&queue) {
            if tracked.counts != QueueCounts::default() {
                effects.push(Effect::Counted { queue, counts: tracked.counts });
            }
            effects.push(Effect::QueueClosed { queue, uri: tracked.uri });
        }
    }

    /// A queue was deleted, or its place is given up.
    pub(crate) fn remember_deleted(&mut self, now: Time, queue: QueueId) {
        if self.deleted.insert(queue) {
            self.deletions.push_back((now, queue));
        }
    }

    /// A deletion that was on its way did not come to be, as far as is known: if it does, it is
    /// remembered then.
    pub(crate) fn forget_deletion(&mut self, queue: QueueId) {
        self.deleted.remove(&queue);
        self.deletions.retain(|(_, deleted)| *deleted != queue);
    }

    /// Whether a queue of this number was deleted lately.
    pub(crate) fn was_deleted(&self, queue: QueueId) -> bool {
        self.deleted.contains(&queue)
    }

    /// Forgets deletions of long ago. Once per tick.
    pub(crate) fn forget_deletions(&mut self, now: Time) {
        while let Some((at, queue)) = self.deletions.front().copied()
            && now.since(at) >= REMEMBERED
        {
            self.deletions.pop_front();
            self.deleted.remove(&queue);
        }
    }

    /// Whether the queue is here.
    pub(crate) fn contains(&self, queue: QueueId) -> bool {
        self.queues.contains_key(&queue)
    }

    /// Its canonical URI; empty when it is not here.
    pub(crate) fn uri(&self, queue: QueueId) -> &str {
        self.queues.get(&queue).map_or("", |tracked| tracked.uri.as_str())
    }

    /// All queues, ascending.
    pub(crate) fn ids(&self) -> Vec<QueueId> {
        let mut ids: Vec<QueueId> = self.queues.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Something happened to the queue.
    pub(crate) fn touch(&mut self, queue: QueueId) {
        if let Some(tracked) = self.queues.get_mut(&queue)
            && !std::mem::replace(&mut tracked.touched, true)
        {
            self.touched.push(queue);
        }
    }

    /// Something happened to all of them, such as a change of leadership.
    pub(crate) fn touch_all(&mut self) {
        for queue in self.ids() {
            self.touch(queue);
        }
    }

    /// Counts something.
    pub(crate) fn count(&mut self, queue: QueueId, count: impl FnOnce(&mut QueueCounts)) {
        let Some(tracked) = self.queues.get_mut(&queue) else { return };
        count(&mut tracked.counts);
        if !std::mem::replace(&mut tracked.counted, true) {
            self.counted.push(queue);
        }
        self.touch(queue);
    }

    pub(crate) fn rejected(&mut self, queue: QueueId, reason: RejectReason) {
        self.count(queue, |counts| counts.rejected[reason as usize] += 1);
    }

    pub(crate) fn dropped(&mut self, queue: QueueId, reason: DropReason, messages: u64) {
        self.count(queue, |counts| counts.dropped[reason as usize] += messages);
    }

    /// Tells what was counted. Once per turn.
    pub(crate) fn tell_counts(&mut self, effects: &mut Vec<Effect>) {
        for queue in self.counted.drain(..) {
            let Some(tracked) = self.queues.get_mut(&queue) else { continue };
            tracked.counted = false;
            let counts = std::mem::take(&mut tracked.counts);
            effects.push(Effect::Counted { queue, counts });
        }
    }

    /// Tells the levels of queues to which something happened since the last time, and notes since
    /// when they are empty and closed; `attended`: everybody who may have them open is known here.
    /// Once per tick.
    pub(crate) fn tell_levels(
        &mut self,
        now: Time,
        attended: bool,
        machine: &Partition,
        effects: &mut Vec<Effect>,
    ) {
        for queue in self.touched.drain(..) {
            let Some(tracked) = self.queues.get_mut(&queue) else { continue };
            tracked.touched = false;
            let Some(view) = machine.view(queue) else { continue };
            let sum = |of: fn(&AppView) -> u64| view.apps.iter().map(of).sum();
            let consumers = sum(|app| u64::from(app.consumers));
            let unused = view.messages == 0 && consumers == 0 && view.producers == 0;
            tracked.unused_since = match tracked.unused_since {
                since if unused && attended => since.or(Some(now)),
                _ => None,
            };
            let levels = QueueLevels {
                backlog_messages: view.messages,
                backlog_bytes: view.bytes,
                oldest_arrival_ms: view.oldest_arrival_ms,
                unconfirmed_messages: sum(|app| app.unconfirmed),
                redelivery_messages: sum(|app| app.redelivery),
                consumers,
                producers: u64::from(view.producers),
            };
            effects.push(Effect::Levels { queue, levels });
        }
    }

    /// Since when a queue has been empty and closed, to the accuracy of a tick.
    pub(crate) fn unused_since(&self, queue: QueueId) -> Option<Time> {
        self.queues.get(&queue)?.unused_since
    }

    /// The queue is in use.
    pub(crate) fn note_use(&mut self, queue: QueueId) {
        if let Some(tracked) = self.queues.get_mut(&queue) {
            tracked.unused_since = None;
        }
        self.touch(queue);
    }
}
