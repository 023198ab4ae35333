//! What only a leader keeps, from its election to its cession.

use std::collections::VecDeque;

use crate::entry_cache::EntryCache;
use crate::reads::Reads;
use crate::sync::SyncPhase;
use crate::{Index, NodeId, Progress, Time};

/// A transfer of leadership that waits for its successor to have everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Transfer {
    pub(crate) to: NodeId,
    pub(crate) deadline: Time,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Leading {
    pub(crate) sync: SyncPhase,
    /// First entry of the own term: commit counting starts there (rule 7.3).
    pub(crate) barrier: Index,
    /// The write that holds the barrier; before it returned, the own log does not count.
    pub(crate) barrier_write: u64,
    /// What must be matched in the present configuration before the next change (C4).
    pub(crate) need: Index,
    pub(crate) serving: bool,
    /// Voters to be dropped by an operator's order, once the others hold everything.
    pub(crate) dead: Vec<NodeId>,
    /// Ascending by node, without this one.
    pub(crate) progress: Vec<Progress>,
    pub(crate) cache: EntryCache,
    /// Payload sizes of entries behind the commit index, oldest first.
    pub(crate) uncommitted: VecDeque<u64>,
    pub(crate) uncommitted_bytes: u64,
    pub(crate) reads: Reads,
    pub(crate) transfer: Option<Transfer>,
    /// When to cede, unless a majority can be reached by then.
    pub(crate) quorum_deadline: Option<Time>,
    /// When followers are told of the commit index, unless entries tell them first.
    pub(crate) commit_due: Option<Time>,
    pub(crate) quiesce_due: Option<Time>,
    /// When something happened last; a group rests a while after that.
    pub(crate) last_activity: Time,
}

impl Leading {
    pub(crate) fn progress(&self, node: NodeId) -> Option<&Progress> {
        let at = self.progress.binary_search_by_key(&node, |peer| peer.node).ok()?;
        self.progress.get(at)
    }

    pub(crate) fn progress_mut(&mut self, node: NodeId) -> Option<&mut Progress> {
        let at = self.progress.binary_search_by_key(&node, |peer| peer.node).ok()?;
        self.progress.get_mut(at)
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let transfer = self.transfer.as_ref().map(|transfer| transfer.deadline);
        let retries = self.progress.iter().filter_map(|peer| peer.retry_at).min();
        [
            transfer,
            retries,
            self.quorum_deadline,
            self.commit_due,
            self.quiesce_due,
            self.sync.retry_at,
            self.reads.retry_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}
