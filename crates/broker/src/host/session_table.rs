//! The sessions that groups answer.

use std::sync::{Arc, PoisonError, RwLock};

use flintmq_partition::SessionId;
use rustc_hash::FxHashMap;

use crate::link::SessionLink;

/// All sessions of the node, from their negotiation to their end.
#[derive(Default)]
pub(crate) struct SessionTable {
    sessions: RwLock<FxHashMap<SessionId, Arc<SessionLink>>>,
}

impl SessionTable {
    /// A session begins.
    pub(crate) fn insert(&self, link: &Arc<SessionLink>) {
        let mut sessions = self.sessions.write().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(link.id, Arc::clone(link));
    }

    /// A session is over: what groups still have for it goes nowhere.
    pub(crate) fn remove(&self, session: SessionId) {
        let mut sessions = self.sessions.write().unwrap_or_else(PoisonError::into_inner);
        sessions.remove(&session);
    }

    /// The session.
    pub(crate) fn get(&self, session: SessionId) -> Option<Arc<SessionLink>> {
        let sessions = self.sessions.read().unwrap_or_else(PoisonError::into_inner);
        sessions.get(&session).cloned()
    }
}
