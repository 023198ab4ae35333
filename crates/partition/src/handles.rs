//! What clients of this node have open in a partition.

use std::sync::Arc;

use flintmq_queue::{HandleId, QueueId, QueueSettings, Subscription};

use crate::FastMap;
use crate::request::{HandleRole, Open, SessionId};

/// A handle of a client of this node: all that is needed to open it at another leader.
#[derive(Clone, Debug)]
pub(crate) struct LocalHandle {
    pub(crate) session: SessionId,
    pub(crate) role: HandleRole,
    pub(crate) queue: QueueId,
    pub(crate) uri: Arc<str>,
    pub(crate) settings: Arc<QueueSettings>,
    pub(crate) subscriptions: Arc<[Subscription]>,
    /// Messages that were sent to it and not confirmed since: as many confirmations are taken from
    /// it whatever waits.
    pub(crate) unconfirmed: u64,
}

impl LocalHandle {
    pub(crate) fn of(open: &Open) -> Self {
        Self {
            session: open.session,
            role: open.role,
            queue: open.queue,
            uri: open.uri.as_str().into(),
            settings: Arc::new(open.settings.clone()),
            subscriptions: Arc::default(),
            unconfirmed: 0,
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct HandleTable {
    handles: FastMap<HandleId, LocalHandle>,
}

impl HandleTable {
    pub(crate) fn insert(&mut self, handle: HandleId, local: LocalHandle) {
        self.handles.insert(handle, local);
    }

    pub(crate) fn get(&self, handle: HandleId) -> Option<&LocalHandle> {
        self.handles.get(&handle)
    }

    pub(crate) fn get_mut(&mut self, handle: HandleId) -> Option<&mut LocalHandle> {
        self.handles.get_mut(&handle)
    }

    pub(crate) fn remove(&mut self, handle: HandleId) -> Option<LocalHandle> {
        self.handles.remove(&handle)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.handles.is_empty()
    }

    /// All, in the order in which they were opened.
    pub(crate) fn in_order(&self) -> Vec<(HandleId, LocalHandle)> {
        let mut all: Vec<_> = self.handles.iter().map(|(id, local)| (*id, local.clone())).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }

    /// Those of one queue, in the order in which they were opened.
    pub(crate) fn of_queue(&self, queue: QueueId) -> Vec<HandleId> {
        let of_queue = self.handles.iter().filter(|(_, local)| local.queue == queue);
        let mut handles: Vec<HandleId> = of_queue.map(|(handle, _)| *handle).collect();
        handles.sort_unstable();
        handles
    }
}
