//! Control requests on their way, by request id.

use std::collections::HashMap;
use std::sync::Arc;

use flintmq_protocol::control::{ControlChoice, QueueHandleParameters};
use tokio::sync::oneshot;

use crate::consumer::ConsumerShared;

/// What the reader must do with a reply before it reads the next event, because later events rely
/// on it.
#[derive(Debug)]
pub(crate) enum OnSuccess {
    /// Nothing.
    Nothing,
    /// An open: should its caller have given up meanwhile, the queue is closed again.
    Opened(QueueHandleParameters),
    /// A configure: from here on the broker delivers under these ids, and no longer under older
    /// ones.
    Route { consumer: Arc<ConsumerShared>, ids: Vec<u32> },
    /// A close: nothing more is delivered.
    Unroute(Arc<ConsumerShared>),
}

/// One request without a reply.
#[derive(Debug)]
pub(crate) struct Pending {
    /// `None` once the caller has given up.
    pub(crate) caller: Option<oneshot::Sender<ControlChoice>>,
    pub(crate) on_success: OnSuccess,
}

/// All requests of a session without a reply. Ids go on counting across reconnects.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    pending: HashMap<i32, Pending>,
    last_id: i32,
}

impl Requests {
    /// A new id and the place for its reply.
    pub(crate) fn insert(
        &mut self,
        on_success: OnSuccess,
    ) -> (i32, oneshot::Receiver<ControlChoice>) {
        let (caller, reply) = oneshot::channel();
        let id = self.insert_pending(Pending { caller: Some(caller), on_success });
        (id, reply)
    }

    /// A new id for a request whose reply nobody waits for.
    pub(crate) fn insert_unattended(&mut self, on_success: OnSuccess) -> i32 {
        self.insert_pending(Pending { caller: None, on_success })
    }

    /// The request that a reply is for.
    pub(crate) fn replied(&mut self, id: i32) -> Option<Pending> {
        self.pending.remove(&id)
    }

    /// The caller has given up. The request stays known: its success may need to be undone.
    pub(crate) fn abandon(&mut self, id: i32) {
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.caller = None;
        }
    }

    /// The connection is gone: every caller finds its reply dropped.
    pub(crate) fn clear(&mut self) {
        self.pending.clear();
    }

    fn insert_pending(&mut self, pending: Pending) -> i32 {
        self.last_id = if self.last_id == i32::MAX { 1 } else { self.last_id + 1 };
        self.pending.insert(self.last_id, pending);
        self.last_id
    }
}
