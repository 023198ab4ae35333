//! Which queues a session has open, and under which ids.
//!
//! All handles of one queue in one session share a queue id; each consumer with an app id has its
//! own sub-queue id (session protocol: identifiers).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::consumer::ConsumerShared;
use crate::producer::ProducerShared;

/// In which role a queue is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Producer,
    /// With the app id, where there is one.
    Consumer(Option<String>),
}

/// The ids of one handle on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HandleIds {
    pub(crate) queue_id: u32,
    /// 0 for producers and for consumers without app id.
    pub(crate) sub_queue_id: u32,
}

/// An open handle.
#[derive(Clone, Debug)]
pub(crate) enum Open {
    Producer(Arc<ProducerShared>),
    Consumer(Arc<ConsumerShared>),
}

/// Why a queue cannot be opened now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is open, or being opened.
    Open,
    /// It is being closed: wait for that.
    Closing,
}

#[derive(Debug)]
enum State {
    Opening,
    Open(Open),
    Closing,
}

#[derive(Debug)]
struct Handle {
    role: Role,
    state: State,
    /// The application has dropped it; its close is about to begin.
    dropped: bool,
}

#[derive(Debug)]
struct Queue {
    uri: String,
    handles: Vec<Handle>,
    next_sub_queue_id: u32,
    /// The final close is on its way: the id must not be used for a new handle.
    retired: bool,
}

/// All queues of a session.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    by_id: BTreeMap<u32, Queue>,
    next_queue_id: u32,
}

impl Queues {
    /// Reserves the ids for a handle that is about to be opened. `uri` is canonical: without app
    /// id.
    pub(crate) fn reserve(&mut self, uri: &str, role: Role) -> Result<HandleIds, Taken> {
        let mut found = None;
        for (id, queue) in self.by_id.iter().filter(|(_, queue)| queue.uri == uri) {
            if let Some(handle) = queue.handles.iter().find(|handle| handle.role == role) {
                return Err(match handle.state {
                    State::Closing => Taken::Closing,
                    State::Open(_) if handle.dropped => Taken::Closing,
                    State::Opening | State::Open(_) => Taken::Open,
                });
            }
            if !queue.retired {
                found = Some(*id);
            }
        }
        let queue_id = found.unwrap_or_else(|| {
            let id = self.next_queue_id;
            self.next_queue_id += 1;
            id
        });
        let queue = self.by_id.entry(queue_id).or_insert_with(|| Queue {
            uri: uri.to_owned(),
            handles: Vec::new(),
            next_sub_queue_id: 1,
            retired: false,
        });
        let sub_queue_id = if matches!(role, Role::Consumer(Some(_))) {
            let id = queue.next_sub_queue_id;
            queue.next_sub_queue_id += 1;
            id
        } else {
            0
        };
        queue.handles.push(Handle { role, state: State::Opening, dropped: false });
        Ok(HandleIds { queue_id, sub_queue_id })
    }

    /// A reserved handle is open; from here on it is opened again after each reconnect.
    pub(crate) fn opened(&mut self, ids: HandleIds, open: Open) {
        let role = match &open {
            Open::Producer(_) => Role::Producer,
            Open::Consumer(shared) => Role::Consumer(shared.app_id.clone()),
        };
        if let Some(handle) = self.handle(ids.queue_id, &role) {
            handle.state = State::Open(open);
        }
    }

    /// Nobody uses a handle any more; it is closed soon.
    pub(crate) fn dropped(&mut self, queue_id: u32, role: &Role) {
        if let Some(handle) = self.handle(queue_id, role) {
            handle.dropped = true;
        }
    }

    /// A handle is about to be closed. Gives whether this is the last one of its queue.
    pub(crate) fn closing(&mut self, queue_id: u32, role: &Role) -> bool {
        if let Some(handle) = self.handle(queue_id, role) {
            handle.state = State::Closing;
        }
        let Some(queue) = self.by_id.get_mut(&queue_id) else { return true };
        let last = queue.handles.iter().all(|handle| matches!(handle.state, State::Closing));
        queue.retired |= last;
        last
    }

    /// A handle is gone.
    pub(crate) fn remove(&mut self, queue_id: u32, role: &Role) {
        if let Some(queue) = self.by_id.get_mut(&queue_id) {
            queue.handles.retain(|handle| handle.role != *role);
            if queue.handles.is_empty() {
                self.by_id.remove(&queue_id);
            }
        }
    }

    /// Whether any handle has this id.
    pub(crate) fn knows(&self, queue_id: u32) -> bool {
        self.by_id.contains_key(&queue_id)
    }

    /// The open producer with this queue id.
    pub(crate) fn producer(&self, queue_id: u32) -> Option<&Arc<ProducerShared>> {
        self.by_id.get(&queue_id)?.handles.iter().find_map(|handle| match &handle.state {
            State::Open(Open::Producer(producer)) => Some(producer),
            _ => None,
        })
    }

    /// All open handles, by queue id.
    pub(crate) fn open(&self) -> Vec<Open> {
        self.by_id
            .values()
            .flat_map(|queue| &queue.handles)
            .filter_map(|handle| match &handle.state {
                State::Open(open) => Some(open.clone()),
                _ => None,
            })
            .collect()
    }

    /// Forgets everything: the session ends.
    pub(crate) fn clear(&mut self) {
        self.by_id.clear();
    }

    fn handle(&mut self, queue_id: u32, role: &Role) -> Option<&mut Handle> {
        self.by_id.get_mut(&queue_id)?.handles.iter_mut().find(|handle| handle.role == *role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_of_a_queue_share_its_id_and_apps_have_their_own_sub_ids() {
        let mut queues = Queues::default();
        let app = |name: &str| Role::Consumer(Some(name.to_owned()));
        let ids = |queue_id, sub_queue_id| Ok(HandleIds { queue_id, sub_queue_id });
        assert_eq!(queues.reserve("bmq://d/a", Role::Producer), ids(0, 0));
        assert_eq!(queues.reserve("bmq://d/b", app("x")), ids(1, 1));
        assert_eq!(queues.reserve("bmq://d/b", app("y")), ids(1, 2));
        assert_eq!(queues.reserve("bmq://d/b", Role::Producer), ids(1, 0));
        assert_eq!(queues.reserve("bmq://d/b", app("x")), Err(Taken::Open));

        assert!(!queues.closing(1, &app("x")));
        assert_eq!(queues.reserve("bmq://d/b", app("x")), Err(Taken::Closing));
        assert!(!queues.closing(1, &Role::Producer));
        assert!(queues.closing(1, &app("y")), "the others are closing already");
        queues.remove(1, &Role::Producer);
        assert_eq!(queues.reserve("bmq://d/b", Role::Producer), ids(2, 0), "1 is being closed");
        queues.remove(1, &app("x"));
        queues.remove(1, &app("y"));
        assert!(!queues.knows(1) && queues.knows(2));
    }
}
