//! Opening, configuring and closing queues for sessions; deleting and purging for administrators.

use flintmq_protocol::control::StatusCategory;
use flintmq_queue::{HandleId, OpenError, QueueId, QueueSettings, Roles};
use tokio::sync::oneshot;

use super::requests::{
    AdminRefusal, Close, Configure, HandleRole, Open, OpenRefusal, Purged, Removable, SessionEnded,
};
use super::task::{Deferred, HandleEntry, Owner, PartitionTask, QueueEntry, RemoteOpen};
use crate::link::SessionId;

/// What became of the search for a queue.
pub(super) enum Found {
    /// Its place was given up.
    Deleted,
    Here,
    /// On its way through the log.
    Creating,
}

impl PartitionTask {
    /// Opens a queue; one that is not here yet is created first.
    pub(super) fn on_open(&mut self, open: Box<Open>) {
        match self.find_or_create(open.queue, &open.uri, &open.settings) {
            Found::Deleted => {
                let _gone = open.done.send(Err(OpenRefusal::Deleted));
            }
            Found::Here => self.open_existing(*open),
            Found::Creating => self.defer(Deferred::Open(open)),
        }
    }

    /// Looks for a queue that is to be opened; one that is not here yet is put into the entry.
    pub(super) fn find_or_create(
        &mut self,
        queue: QueueId,
        uri: &str,
        settings: &QueueSettings,
    ) -> Found {
        if self.deleted.contains(&queue) {
            return Found::Deleted;
        }
        if self.machine.settings(queue).is_some() {
            // Its settings may be newer than what the session looked up: they stay.
            return Found::Here;
        }
        if self.creating.insert(queue) {
            self.builder.create_queue(queue, uri, settings);
        }
        Found::Creating
    }

    /// A domain's definition changed.
    pub(super) fn on_update(&mut self, queue: QueueId, settings: &QueueSettings) {
        if self.machine.settings(queue).is_some_and(|present| present != settings) {
            self.builder.update_queue(queue, settings);
        }
    }

    pub(super) fn open_existing(&mut self, open: Open) {
        let reads = matches!(open.role, HandleRole::Reader { .. });
        let answer = self.open_handle(open.handle, open.queue, reads);
        if answer.is_ok() {
            self.enter_local(&open);
            if self.links.enter(&open.session).paused {
                self.machine.pause(open.handle);
            }
        }
        let gone = open.done.send(answer).is_err();
        if gone {
            // The session ended while it waited; its end may have passed here before this open did.
            self.close_handle(open.handle, false);
        }
    }

    /// Opens a queue for a client of another node.
    pub(super) fn open_remote(&mut self, remote: RemoteOpen) {
        let answer = self.open_handle(remote.handle, remote.queue, remote.reads);
        if answer.is_ok() {
            let entry = HandleEntry { owner: Owner::Node(remote.node), queue: remote.queue };
            self.handles.insert(remote.handle, entry);
        }
        self.tell_opened(&remote, answer);
    }

    pub(super) fn open_handle(
        &mut self,
        handle: HandleId,
        queue: QueueId,
        reads: bool,
    ) -> Result<(), OpenRefusal> {
        let roles = Roles { reader: reads, writer: !reads };
        let opened = self.machine.open(handle, queue, roles, None);
        if opened.is_ok()
            && let Some(queue) = self.queues.get_mut(&queue)
        {
            queue.unused_since = None;
        }
        opened.map(|_| ()).map_err(|error| match error {
            OpenError::UnknownQueue { .. } => OpenRefusal::Deleted,
            OpenError::NotLeading => {
                OpenRefusal::NotReady("the queue has no leader yet: try again")
            }
            other => OpenRefusal::Refused(other.to_string()),
        })
    }

    /// Replaces subscriptions. The answer goes out behind the last message under the old ones and
    /// ahead of the first under the new: any other order crashes clients (protocol: data events,
    /// section 6).
    pub(super) fn on_configure(&mut self, configure: Configure) {
        let session = configure.session.id;
        self.links.flush_session(session);
        self.remember_subscriptions(configure.handle, &configure.subscriptions);
        match self.machine.configure(configure.handle, configure.subscriptions) {
            Ok(()) => {
                configure.session.outbox.push(configure.response);
            }
            Err(_) => configure.session.refuse(
                configure.request_id,
                StatusCategory::Unknown,
                "the queue was deleted: close it and open it again",
            ),
        }
    }

    /// Closes behind everything that was published before, so that its acknowledgements precede the
    /// answer.
    pub(super) fn on_close(&mut self, close: Box<Close>) {
        self.defer(Deferred::Close(close));
    }

    pub(super) fn close_now(&mut self, close: Close) {
        self.links.flush_session(close.session.id);
        for handle in close.handles {
            self.close_handle(handle, false);
        }
        close.session.outbox.push(close.response);
    }

    /// Ends a session: behind its publishes when it says goodbye, at once when it vanished, so that
    /// others get what it held.
    pub(super) fn on_session_ended(&mut self, ended: SessionEnded) {
        if ended.lost {
            return self.end_session(ended);
        }
        self.defer(Deferred::SessionEnded(ended));
    }

    pub(super) fn end_session(&mut self, ended: SessionEnded) {
        self.links.flush_session(ended.session);
        let handles = self.links.get_mut(ended.session).map(|link| link.handles.clone());
        for handle in handles.unwrap_or_default() {
            self.close_handle(handle, ended.lost);
        }
        self.links.remove(ended.session);
        if let Some(done) = ended.done {
            let _gone = done.send(());
        }
    }

    pub(super) fn on_purge(
        &mut self,
        queue: QueueId,
        done: oneshot::Sender<Result<Purged, AdminRefusal>>,
    ) {
        if self.machine.settings(queue).is_none() {
            let _gone = done.send(Err(AdminRefusal::NoSuchQueue));
            return;
        }
        self.builder.purge(queue, None);
        self.purges.push((queue, done));
    }

    pub(super) fn on_delete(
        &mut self,
        queue: QueueId,
        only_if: Removable,
        done: oneshot::Sender<Result<(), AdminRefusal>>,
    ) {
        let open = || self.handles.values().filter(|entry| entry.queue == queue);
        let view = self.machine.view(queue);
        let apps = view.iter().flat_map(|view| &view.apps);
        let consumers = apps.map(|app| app.consumers as usize).sum::<usize>().min(open().count());
        let producers = open().count() - consumers;
        if self.creating.contains(&queue) {
            let _gone = done.send(Err(AdminRefusal::InUse { consumers: 0, producers: 1 }));
        } else if self.machine.settings(queue).is_none() {
            // Its place is given up: an open that comes late must ask for a new one.
            self.deleted.insert(queue);
            let _gone = done.send(Err(AdminRefusal::NoSuchQueue));
        } else if consumers + producers > 0 {
            let _gone = done.send(Err(AdminRefusal::InUse { consumers, producers }));
        } else if let Removable::UnusedFor(timeout) = only_if
            && !self.is_unused_for(queue, timeout)
        {
            let _gone = done.send(Err(AdminRefusal::Used));
        } else {
            // From now on nobody gets in: an open that comes before the deletion is decided would
            // hold a queue that is about to vanish.
            self.deleted.insert(queue);
            self.builder.delete_queue(queue);
            self.defer(Deferred::Delete(queue, done));
        }
    }

    /// A queue exists in the state machine: give it its series.
    pub(super) fn enter_queue(&mut self, queue: QueueId) {
        self.creating.remove(&queue);
        let Some(view) = self.machine.view(queue) else { return };
        let (domain, name) = domain_and_name(&view.uri);
        let series = self.metrics.queues().open(domain, name);
        self.queues.insert(queue, QueueEntry { uri: view.uri, series, unused_since: None });
    }

    /// A queue is gone: so are its series and its handles.
    pub(super) fn leave_queue(&mut self, queue: QueueId) {
        self.deleted.insert(queue);
        self.forget_series(queue);
        let gone: Vec<(HandleId, Owner)> = self
            .handles
            .iter()
            .filter(|(_, entry)| entry.queue == queue)
            .map(|(handle, entry)| (*handle, entry.owner.clone()))
            .collect();
        for (handle, owner) in gone {
            match owner {
                Owner::Session(local) => self.forget_handle(handle, local.session),
                Owner::Node(_) => drop(self.handles.remove(&handle)),
            }
        }
    }

    /// The queue is not here, or no more: nothing is counted of it.
    pub(super) fn forget_series(&mut self, queue: QueueId) {
        if let Some(entry) = self.queues.remove(&queue) {
            let (domain, name) = domain_and_name(&entry.uri);
            self.metrics.queues().remove(domain, name);
        }
    }

    pub(super) fn close_handle(&mut self, handle: HandleId, lost: bool) {
        let Some(HandleEntry { owner: Owner::Session(local), .. }) = self.handles.get(&handle)
        else {
            return;
        };
        let session = local.session;
        self.release(handle, lost);
        self.forget_handle(handle, session);
    }

    /// Gives back what the handle held. The state machine does not know it when its queue was
    /// deleted, and with it all that it held, or when another node leads.
    pub(super) fn release(&mut self, handle: HandleId, lost: bool) {
        if lost {
            if let Ok(Some(attempts)) = self.machine.lost(handle) {
                self.builder.attempt(&attempts);
            }
        } else {
            let _not_known = self.machine.close(handle);
        }
    }

    pub(super) fn forget_handle(&mut self, handle: HandleId, session: SessionId) {
        self.handles.remove(&handle);
        if let Some(link) = self.links.get_mut(session) {
            link.handles.retain(|open| *open != handle);
            if link.handles.is_empty() {
                self.links.flush_session(session);
                self.links.remove(session);
            }
        }
    }
}

/// The two parts of a canonical URI, which is how the state machine knows a queue.
fn domain_and_name(uri: &str) -> (&str, &str) {
    uri.strip_prefix("bmq://").and_then(|rest| rest.split_once('/')).unwrap_or(("", uri))
}
