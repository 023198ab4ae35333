//! Opening, configuring and closing handles of this node's clients.

use flintmq_queue::{HandleId, OpenError, QueueId, QueueSettings, Roles};
use flintmq_shard::Group;

use super::Leader;
use super::applying::Deferred;
use crate::context::Context;
use crate::effect::OpenRefusal;
use crate::handles::LocalHandle;
use crate::pending::Closing;
use crate::request::{Close, Configure, Open, SessionEnded};

/// What became of the search for a queue.
pub(super) enum Found {
    /// Its place was given up.
    Deleted,
    Here,
    /// On its way through the log.
    Creating,
}

impl Leader {
    /// Opens a queue; one that is not here yet is created first.
    pub(crate) fn on_open(&mut self, cx: &mut Context, open: Box<Open>) {
        let handle = open.handle;
        cx.pending.opens.insert(handle, open);
        self.begin_open(cx, handle);
    }

    /// Carries out a pending open, at once or when its queue exists.
    pub(super) fn begin_open(&mut self, cx: &mut Context, handle: HandleId) {
        let Some(open) = cx.pending.opens.get(&handle) else { return };
        let (queue, uri, settings) = (open.queue, open.uri.clone(), open.settings.clone());
        match self.find_or_create(cx, queue, &uri, &settings) {
            Found::Deleted => {
                if let Some(open) = cx.pending.opens.remove(&handle) {
                    cx.not_opened(open.ticket, OpenRefusal::Deleted);
                }
            }
            Found::Here => self.open_existing(cx, handle),
            Found::Creating => self.defer(Deferred::Open(handle)),
        }
    }

    /// Looks for a queue that is to be opened; one that is not here yet is put into the entry.
    pub(super) fn find_or_create(
        &mut self,
        cx: &Context,
        queue: QueueId,
        uri: &str,
        settings: &QueueSettings,
    ) -> Found {
        if cx.queues.was_deleted(queue) {
            return Found::Deleted;
        }
        if cx.machine.settings(queue).is_some() {
            // Its settings may be newer than what the session looked up: they stay.
            return Found::Here;
        }
        if self.creating.insert(queue) {
            self.builder.create_queue(queue, uri, settings);
            self.taken += 1;
        }
        Found::Creating
    }

    /// A domain's definition changed.
    pub(crate) fn on_update(&mut self, cx: &Context, queue: QueueId, settings: &QueueSettings) {
        if cx.machine.settings(queue).is_some_and(|present| present != settings) {
            self.builder.update_queue(queue, settings);
            self.taken += 1;
        }
    }

    /// The queue of a pending open is here.
    pub(super) fn open_existing(&mut self, cx: &mut Context, handle: HandleId) {
        // None: its session ended meanwhile.
        let Some(open) = cx.pending.opens.remove(&handle) else { return };
        match open_handle(cx, handle, open.queue, open.role.reads()) {
            Ok(()) => {
                cx.opened(&open);
                if cx.is_paused(handle) {
                    cx.machine.pause(handle);
                }
            }
            Err(refusal) => cx.not_opened(open.ticket, refusal),
        }
    }

    /// Opens what was open before this node began to lead.
    pub(super) fn reopen(&mut self, cx: &mut Context, handle: HandleId, local: &LocalHandle) {
        match open_handle(cx, handle, local.queue, local.role.reads()) {
            Ok(()) if cx.is_paused(handle) => cx.machine.pause(handle),
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(handle = handle.0, %error, "a queue cannot be opened again");
                cx.end_session_of(handle, "a queue that it has open is gone");
            }
        }
    }

    pub(crate) fn on_configure(&mut self, cx: &mut Context, configure: Configure) {
        self.configure(cx, configure);
    }

    pub(super) fn configure(&mut self, cx: &mut Context, configure: Configure) {
        let subscriptions = configure.subscriptions.clone();
        let done = cx.machine.configure(configure.handle, subscriptions).is_ok();
        cx.configured(configure, done);
    }

    /// Closes behind everything that was published before, so that its acknowledgements precede the
    /// answer.
    pub(crate) fn on_close(&mut self, cx: &mut Context, group: &mut dyn Group, close: Box<Close>) {
        self.close_later(cx, group, Closing::Close(close));
    }

    /// Ends a session: behind its publishes when it says goodbye, at once when it vanished, so that
    /// others get what it held.
    pub(crate) fn on_session_ended(
        &mut self,
        cx: &mut Context,
        group: &mut dyn Group,
        ended: SessionEnded,
    ) {
        if ended.lost {
            return self.end_session(cx, ended);
        }
        self.close_later(cx, group, Closing::Session(ended));
    }

    fn close_later(&mut self, cx: &mut Context, group: &mut dyn Group, closing: Closing) {
        let number = cx.pending.number();
        cx.pending.closes.insert(number, closing);
        self.defer(Deferred::Close(number));
        self.run_deferred(cx, group);
    }

    /// The turn of a close has come.
    pub(super) fn close_now(&mut self, cx: &mut Context, number: u64) {
        match cx.pending.closes.remove(&number) {
            Some(Closing::Close(close)) => {
                for handle in &close.handles {
                    self.release(cx, *handle, false);
                }
                cx.closed(*close);
            }
            Some(Closing::Session(ended)) => self.end_session(cx, ended),
            None => {}
        }
    }

    fn end_session(&mut self, cx: &mut Context, ended: SessionEnded) {
        cx.drop_requests_of(ended.session);
        for handle in cx.handles_of(ended.session) {
            self.release(cx, handle, ended.lost);
        }
        cx.session_ended(ended);
    }

    /// Gives back what the handle held. The machine does not know it when its queue was deleted,
    /// and with it all that it held.
    pub(super) fn release(&mut self, cx: &mut Context, handle: HandleId, lost: bool) {
        let queue = cx.handles.get(handle).map(|local| local.queue);
        let queue = queue.or_else(|| self.remote.get(&handle).map(|remote| remote.queue));
        if lost {
            if let Ok(Some(attempts)) = cx.machine.lost(handle) {
                self.builder.attempt(&attempts);
                self.taken += 1;
            }
        } else {
            let _not_known = cx.machine.close(handle);
        }
        if let Some(queue) = queue {
            cx.queues.touch(queue);
        }
    }
}

/// Opens a handle in the state machine.
pub(super) fn open_handle(
    cx: &mut Context,
    handle: HandleId,
    queue: QueueId,
    reads: bool,
) -> Result<(), OpenRefusal> {
    let roles = Roles { reader: reads, writer: !reads };
    match cx.machine.open(handle, queue, roles, None) {
        Ok(()) => {
            cx.queues.note_use(queue);
            Ok(())
        }
        Err(OpenError::UnknownQueue { .. }) => Err(OpenRefusal::Deleted),
        Err(OpenError::NotLeading) => {
            Err(OpenRefusal::NotReady("the queue has no leader yet: try again"))
        }
        Err(other) => Err(OpenRefusal::Refused(other.to_string())),
    }
}
