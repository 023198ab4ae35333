//! What forwarders ask for in their clients' names.

use std::time::Duration;

use flintmq_protocol::ack::AckStatus;
use flintmq_queue::{Domain, HandleId, QueueId, Subscription};
use flintmq_shard::Group;

use super::super::applying::{Attached, Deferred, RemoteOpen};
use super::super::opening::{Found, open_handle};
use super::super::publishing::{Origin, RemotePut, WaitingPut};
use super::super::{Leader, RemoteHandle, Requester};
use crate::context::Context;
use crate::effect::{AdminRefusal, OpenRefusal};
use crate::peer_message::{self, Opened, PeerMessage, attributes_of, guid_of};
use crate::request::Removable;

impl Leader {
    pub(super) fn serve(
        &mut self,
        cx: &mut Context,
        group: &mut dyn Group,
        from: Attached,
        message: PeerMessage,
    ) {
        match message {
            PeerMessage::Open(open) => self.serve_open(cx, from, open),
            PeerMessage::Configure(configure) => {
                // The answer comes behind the last message under the old subscriptions.
                self.queue_deliveries(from.node);
                let subscriptions: Vec<Subscription> =
                    configure.subscriptions.iter().map(Subscription::from).collect();
                let done = cx.machine.configure(HandleId(configure.handle), subscriptions).is_ok();
                if configure.number > 0 {
                    let number = configure.number;
                    let configured = peer_message::Configured { number, done };
                    self.queue(from, PeerMessage::Configured(configured));
                }
            }
            PeerMessage::Close(close) => {
                let handles: Vec<HandleId> = close.handles.into_iter().map(HandleId).collect();
                if close.lost {
                    self.cancel_opens(&handles);
                    for handle in handles {
                        self.close_remote(cx, from, handle, true);
                    }
                    self.queue(from, PeerMessage::Closed(close.number));
                } else {
                    let number = close.number;
                    self.defer(Deferred::CloseRemote { from, number, handles });
                    self.run_deferred(cx, group);
                }
            }
            PeerMessage::Publish(publish) => self.serve_puts(cx, group, from, publish),
            PeerMessage::Confirm(confirm) => {
                for one in confirm.confirms {
                    if let Some(guid) = guid_of(&one.guid) {
                        self.take_confirm(cx, HandleId(one.handle), guid);
                    }
                }
                self.defer(Deferred::Confirmed { from, number: confirm.number });
                self.run_deferred(cx, group);
            }
            PeerMessage::Pause(handles) => self.pause(cx, from, handles, true),
            PeerMessage::Resume(handles) => self.pause(cx, from, handles, false),
            PeerMessage::SetDomain(set) => {
                let Attached { node, attachment } = from;
                if let Ok(domain) = Domain::from_bytes(&set.domain) {
                    let requester = Requester::Node { node, attachment, number: set.number };
                    self.on_set_domain(cx, group, requester, &domain);
                } else {
                    let refused = AdminRefusal::Failed("the leader is older".into());
                    self.keep_admin_answer(node, attachment, set.number, Err(refused));
                }
            }
            PeerMessage::Ask(ask) => self.serve_ask(cx, group, from, &ask),
            PeerMessage::Probe(_) => {
                self.queue_deliveries(from.node);
                if let Some(served) = self.served(from) {
                    served.outgoing.push(PeerMessage::Received(served.received));
                    // The first comes behind all that it attached with.
                    served.told_all = true;
                    // Whether that arrives is the forwarder's to notice: it waits for it.
                    served.confirmed = served.outgoing.count();
                }
            }
            // A leader's words, or a newer version's.
            _ => {}
        }
    }

    /// The way out to clients of a forwarder is full, or has room again.
    fn pause(
        &mut self,
        cx: &mut Context,
        from: Attached,
        handles: peer_message::Handles,
        pause: bool,
    ) {
        let all_paused = self.served(from).is_some_and(|served| served.paused);
        for handle in handles.handles.into_iter().map(HandleId) {
            let Some(remote) = self.remote.get_mut(&handle) else { continue };
            remote.paused = pause;
            if pause {
                cx.machine.pause(handle);
            } else if !all_paused {
                cx.machine.resume(handle);
            }
        }
    }

    fn serve_open(&mut self, cx: &mut Context, from: Attached, open: peer_message::Open) {
        let handle = HandleId(open.handle);
        let queue = QueueId(open.queue);
        let remote = RemoteOpen { from, handle, queue, reads: open.reads };
        let found = if open.domain.is_empty() {
            // It was open before. Where it is gone, its client has to know.
            if cx.machine.settings(queue).is_some() { Found::Here } else { Found::Deleted }
        } else if let Ok(domain) = Domain::from_bytes(&open.domain) {
            self.find_or_create(cx, queue, &open.uri, &domain)
        } else {
            let reason = "the queue's domain cannot be read: is the node newer?".to_owned();
            return self.tell_opened(&remote, Err(OpenRefusal::Refused(reason)));
        };
        match found {
            Found::Deleted => self.tell_opened(&remote, Err(OpenRefusal::Deleted)),
            Found::Here => self.open_remote_now(cx, &remote),
            Found::Creating => self.defer(Deferred::OpenRemote(remote)),
        }
    }

    pub(in crate::leader) fn open_remote(
        &mut self,
        cx: &mut Context,
        group: &mut dyn Group,
        open: RemoteOpen,
    ) {
        if self.is_attached(open.from) {
            self.open_remote_now(cx, &open);
            self.send_outgoing(cx, group, open.from.node);
        }
    }

    fn open_remote_now(&mut self, cx: &mut Context, open: &RemoteOpen) {
        let result = open_handle(cx, open.handle, open.queue, open.reads);
        if result.is_ok()
            && let Some(served) = self.forwarders.get_mut(&open.from.node)
        {
            served.handles.push(open.handle);
            if served.paused {
                cx.machine.pause(open.handle);
            }
            let (node, queue) = (open.from.node, open.queue);
            let remote = RemoteHandle { node, queue, paused: false };
            self.remote.insert(open.handle, remote);
        }
        self.tell_opened(open, result);
    }

    fn tell_opened(&mut self, open: &RemoteOpen, result: Result<(), OpenRefusal>) {
        let (outcome, reason) = match result {
            Ok(()) => (0, String::new()),
            Err(OpenRefusal::Refused(reason)) => (1, reason),
            Err(OpenRefusal::Deleted) => (2, String::new()),
            Err(OpenRefusal::NotReady(reason)) => (3, reason.to_owned()),
        };
        let opened = Opened { handle: open.handle.0, outcome, reason };
        self.queue(open.from, PeerMessage::Opened(opened));
    }

    fn serve_puts(
        &mut self,
        cx: &mut Context,
        group: &dyn Group,
        from: Attached,
        publish: peer_message::Publish,
    ) {
        for put in publish.puts {
            self.taken += 1;
            let Attached { node, attachment } = from;
            let origin = Origin::Node { node, attachment, number: put.number };
            let Some(guid) = guid_of(&put.guid) else {
                self.ack_remote(node, attachment, put.number, AckStatus::Unknown);
                continue;
            };
            let remote = RemotePut {
                queue: QueueId(put.queue),
                guid,
                attributes: attributes_of(put.attributes),
                app_data: put.app_data,
            };
            let taken = self.taken;
            self.waiting.push_back(WaitingPut { origin, taken, remote: Some(remote) });
        }
        self.fill_entry(cx, group);
    }

    fn serve_ask(
        &mut self,
        cx: &mut Context,
        group: &mut dyn Group,
        from: Attached,
        ask: &peer_message::Ask,
    ) {
        let Attached { node, attachment } = from;
        let requester = Requester::Node { node, attachment, number: ask.number };
        let queue = QueueId(ask.queue);
        let unused = Removable::UnusedFor(Duration::from_millis(ask.unused_ms));
        match ask.what {
            1 => self.on_purge(cx, group, requester, queue),
            2 => self.on_delete(cx, group, requester, queue, Removable::Closed),
            3 => self.on_delete(cx, group, requester, queue, unused),
            _ => {
                let refused = AdminRefusal::Failed("the leader is older and cannot do it".into());
                self.keep_admin_answer(node, attachment, ask.number, Err(refused));
            }
        }
    }

    /// Everything that was published before is answered: closes, and says so.
    pub(in crate::leader) fn close_remotes(
        &mut self,
        cx: &mut Context,
        group: &mut dyn Group,
        from: Attached,
        number: u64,
        handles: Vec<HandleId>,
    ) {
        if !self.is_attached(from) {
            return;
        }
        self.queue_deliveries(from.node);
        for handle in handles {
            self.close_remote(cx, from, handle, false);
        }
        self.queue(from, PeerMessage::Closed(number));
        self.send_outgoing(cx, group, from.node);
    }

    fn close_remote(&mut self, cx: &mut Context, from: Attached, handle: HandleId, lost: bool) {
        if self.remote.get(&handle).is_none_or(|remote| remote.node != from.node) {
            return;
        }
        self.release(cx, handle, lost);
        self.remote.remove(&handle);
        if let Some(served) = self.forwarders.get_mut(&from.node) {
            served.handles.retain(|open| *open != handle);
        }
    }

    pub(in crate::leader) fn tell_confirmed(
        &mut self,
        cx: &mut Context,
        group: &mut dyn Group,
        from: Attached,
        number: u64,
    ) {
        if self.is_attached(from) {
            self.queue(from, PeerMessage::Confirmed(number));
            self.send_outgoing(cx, group, from.node);
        }
    }
}
