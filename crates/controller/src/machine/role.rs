//! What a controller does in its present role.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use flintmq_consensus::{NodeId, Term};

use crate::command::{ChangeId, LoggedChange};

/// What this node is to the controller's group. All that belongs to a role ends with it.
pub(super) enum Role {
    /// It proposes the changes of all nodes.
    Leader(Box<Leader>),
    /// It forwards its own to the node that leads.
    Follower {
        /// That node.
        leader: NodeId,
        /// As far as is known here; a new one means a new leadership, also of the same node.
        term: Term,
    },
    /// No leader is in reach. Everything waits.
    Leaderless,
}

/// Most changes of other nodes that wait to be proposed, and their bytes.
const MAX_QUEUED: usize = 4096;
const MAX_QUEUED_BYTES: usize = 64 << 20;

/// A leader's books.
#[derive(Default)]
pub(super) struct Leader {
    /// To be proposed, in this order. [`MAX_QUEUED`], and besides what this node waits for itself.
    queue: VecDeque<(LoggedChange, usize)>,
    queue_bytes: usize,
    /// Queued or proposed, and not applied yet. Bounded by the queue and what may be proposed.
    taken: BTreeSet<ChangeId>,
    /// Questions to the group that are not answered yet.
    pub(super) reads: BTreeMap<u64, Read>,
    /// Questions of other nodes that came since: their latest, by process and number.
    pub(super) asked: BTreeMap<NodeId, (u64, u64)>,
}

/// Who waits for the answer to a question to the group.
#[derive(Default)]
pub(super) struct Read {
    /// Requests of this node.
    pub(super) here: Vec<u64>,
    /// Other nodes, with process and number.
    pub(super) elsewhere: BTreeMap<NodeId, (u64, u64)>,
}

impl Leader {
    /// Whether everything that was taken is applied.
    pub(super) fn is_settled(&self) -> bool {
        self.taken.is_empty()
    }

    /// Whether the change is queued or proposed already.
    pub(super) fn has(&self, id: &ChangeId) -> bool {
        self.taken.contains(id)
    }

    /// Whether there is room for a change of another node.
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < MAX_QUEUED && self.queue_bytes < MAX_QUEUED_BYTES
    }

    /// Queues a change.
    pub(super) fn push(&mut self, change: LoggedChange, bytes: usize) {
        self.taken.extend(change.id);
        self.queue_bytes += bytes;
        self.queue.push_back((change, bytes));
    }

    /// The changes of the next entry, with their sizes.
    pub(super) fn take_batch(
        &mut self,
        max_changes: usize,
        max_bytes: usize,
    ) -> Vec<(LoggedChange, usize)> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some((_, size)) = self.queue.front()
            && batch.len() < max_changes
            && (batch.is_empty() || bytes + size <= max_bytes)
        {
            bytes += size;
            batch.extend(self.queue.pop_front());
        }
        self.queue_bytes -= bytes;
        batch
    }

    /// Takes a batch back that could not be proposed.
    pub(super) fn put_back(&mut self, batch: Vec<(LoggedChange, usize)>) {
        for (change, bytes) in batch.into_iter().rev() {
            self.queue_bytes += bytes;
            self.queue.push_front((change, bytes));
        }
    }

    /// A change was applied.
    pub(super) fn applied(&mut self, id: &ChangeId) {
        self.taken.remove(id);
    }

    /// The changes that wait to be proposed.
    pub(super) fn queued(&self) -> impl Iterator<Item = ChangeId> {
        self.queue.iter().filter_map(|(change, _)| change.id)
    }

    /// A node's connection is gone: it asks again on the next one.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.asked.remove(&node);
        for read in self.reads.values_mut() {
            read.elsewhere.remove(&node);
        }
    }

    /// Whether any change waits to be proposed.
    pub(super) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }
}
