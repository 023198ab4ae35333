//! What each request, and each message of another node, means in each role.

use bytes::Bytes;
use flintmq_consensus::NodeId;
use flintmq_queue::QueueId;
use flintmq_shard::Group;
use prost::Message as _;

use super::{MAX_PEEKED, PartitionEngine, Role};
use crate::effect::{AdminRefusal, Answer, QueueSnapshot};
use crate::leader::{Requester, refuse};
use crate::peer_message::{Frame, PeerMessage};
use crate::pending::{AdminRequest, Closing, PendingPut};
use crate::request::{Request, SessionEnded, SessionId};

impl PartitionEngine {
    /// Gives a request to the role of the moment.
    pub(super) fn route(&mut self, group: &mut dyn Group, request: Request) {
        let cx = &mut self.cx;
        match request {
            Request::Publish(publish) => match &mut self.role {
                Role::Leader(leader) => leader.on_publish(cx, group, publish),
                Role::Forwarder(forwarder) => forwarder.on_publish(cx, publish),
                Role::Leaderless => {
                    let session = publish.session;
                    for put in publish.puts {
                        cx.pending.puts.push(PendingPut { session, put });
                    }
                }
            },
            Request::Confirm(confirms) => match &mut self.role {
                Role::Leader(leader) => leader.on_confirm(cx, group, confirms),
                Role::Forwarder(forwarder) => forwarder.on_confirm(cx, group.now(), confirms),
                Role::Leaderless => {
                    let confirms = cx.admit_confirms(confirms);
                    cx.pending.add_confirms(confirms.into_iter());
                }
            },
            Request::Open(open) => match &mut self.role {
                Role::Leader(leader) => leader.on_open(cx, open),
                Role::Forwarder(forwarder) => forwarder.on_open(cx, group, open),
                Role::Leaderless => drop(cx.pending.opens.insert(open.handle, open)),
            },
            Request::Configure(configure) => match &mut self.role {
                Role::Leader(leader) => leader.on_configure(cx, *configure),
                Role::Forwarder(forwarder) => forwarder.on_configure(cx, group, *configure),
                Role::Leaderless => drop(cx.keep_configure(*configure)),
            },
            Request::Close(close) => match &mut self.role {
                Role::Leader(leader) => leader.on_close(cx, group, close),
                Role::Forwarder(forwarder) => forwarder.on_close(cx, group, close),
                Role::Leaderless => {
                    let number = cx.pending.number();
                    cx.pending.closes.insert(number, Closing::Close(close));
                }
            },
            Request::SessionEnded(ended) => self.on_session_ended(group, ended),
            Request::SessionFull(session) => self.on_pause(group, session, true),
            Request::SessionRoom(session) => self.on_pause(group, session, false),
            Request::SetDomain { ticket, domain } => {
                self.on_admin(group, AdminRequest::SetDomain { ticket, domain });
            }
            Request::Purge { ticket, queue } => {
                self.on_admin(group, AdminRequest::Purge { ticket, queue });
            }
            Request::Delete { ticket, queue, only_if } => {
                self.on_admin(group, AdminRequest::Delete { ticket, queue, only_if });
            }
            Request::View { ticket, queue } => {
                let view = self.view(group, queue);
                self.cx.answer(ticket, Answer::View(view));
            }
            Request::ViewAll { ticket } => {
                let queues = self.cx.queues.ids();
                let views = queues.into_iter().filter_map(|queue| self.view(group, queue));
                let views = views.collect();
                self.cx.answer(ticket, Answer::ViewAll(views));
            }
            Request::Peek { ticket, queue, count } => {
                let found = match cx.machine.settings(queue) {
                    Some(_) => Ok(cx.machine.peek(queue, 0, count.min(MAX_PEEKED))),
                    None => Err(AdminRefusal::NoSuchQueue),
                };
                cx.answer(ticket, Answer::Peek(found));
            }
            Request::IdleQueues { ticket, timeout } => {
                let idle = match &self.role {
                    Role::Leader(leader) => leader.idle_queues(cx, group.now(), timeout),
                    _ => Vec::new(),
                };
                cx.answer(ticket, Answer::Idle(idle));
            }
            Request::StopDelivery { ticket } => match &mut self.role {
                Role::Leader(leader) => leader.on_stop_delivery(cx, group, ticket),
                _ => {
                    cx.stopping = true;
                    cx.answer(ticket, Answer::Idle(Vec::new()));
                }
            },
        }
    }

    /// Gives a message of the partition on another node to the role of the moment.
    pub(super) fn route_message(&mut self, group: &mut dyn Group, from: NodeId, message: Bytes) {
        let frame = match Frame::decode(message) {
            Ok(frame) => frame,
            Err(error) => {
                tracing::warn!(from = from.0, group = group.id().0, %error, "a frame cannot be read");
                return;
            }
        };
        if let Some(PeerMessage::Announce(announce)) = &frame.message {
            return self.on_announced(group, from, announce.term);
        }
        if let Some(PeerMessage::Seek(_)) = &frame.message {
            if let Role::Leader(leader) = &self.role {
                leader.announce(group, Some(from));
            }
            return;
        }
        match &mut self.role {
            Role::Leader(leader) => leader.on_frame(&mut self.cx, group, from, frame),
            Role::Forwarder(forwarder) if forwarder.leader().0 == from => {
                forwarder.on_frame(&mut self.cx, group, frame);
            }
            // Of a leadership that is over here, or did not begin: the sender probes, or is told
            // who leads.
            Role::Forwarder(_) | Role::Leaderless => {}
        }
    }

    /// While the node stops and no leader is in reach, nobody waits for what cannot be committed.
    /// It was not acknowledged.
    pub(super) fn let_sessions_go(&mut self, group: &dyn Group) {
        let cut_off = matches!(self.role, Role::Leaderless) && !group.is_quorum_in_reach();
        if self.cx.stopping && cut_off {
            for closing in std::mem::take(&mut self.cx.pending.closes).into_values() {
                self.cx.finish_closing(closing);
            }
        }
    }

    fn on_session_ended(&mut self, group: &mut dyn Group, ended: SessionEnded) {
        let cx = &mut self.cx;
        match &mut self.role {
            Role::Leader(leader) => leader.on_session_ended(cx, group, ended),
            Role::Forwarder(forwarder) => forwarder.on_session_ended(cx, group, ended),
            // No leader holds anything for it: only what it published may still wait.
            Role::Leaderless => {
                cx.drop_requests_of(ended.session);
                if ended.lost || cx.handles_of(ended.session).is_empty() {
                    cx.session_ended(ended);
                } else {
                    let number = cx.pending.number();
                    cx.pending.closes.insert(number, Closing::Session(ended));
                }
            }
        }
    }

    fn on_pause(&mut self, group: &mut dyn Group, session: SessionId, pause: bool) {
        let cx = &mut self.cx;
        let Some(found) = cx.sessions.get_mut(session) else { return };
        found.paused = pause;
        match &mut self.role {
            Role::Leader(_) => {
                for handle in cx.handles_of(session) {
                    if pause {
                        cx.machine.pause(handle);
                    } else {
                        cx.machine.resume(handle);
                    }
                }
            }
            Role::Forwarder(forwarder) => forwarder.on_pause(cx, group, session, pause),
            Role::Leaderless => {}
        }
    }

    fn on_admin(&mut self, group: &mut dyn Group, request: AdminRequest) {
        let cx = &mut self.cx;
        match &mut self.role {
            Role::Leader(leader) => match request {
                AdminRequest::Purge { ticket, queue } => {
                    leader.on_purge(cx, group, Requester::Here(ticket), queue);
                }
                AdminRequest::Delete { ticket, queue, only_if } => {
                    leader.on_delete(cx, group, Requester::Here(ticket), queue, only_if);
                }
                AdminRequest::SetDomain { ticket, domain } => {
                    leader.on_set_domain(cx, group, Requester::Here(ticket), &domain);
                }
            },
            Role::Forwarder(forwarder) => forwarder.on_admin(cx, group, request),
            Role::Leaderless => refuse(cx, request, "the partition has no leader: try again"),
        }
    }

    fn view(&self, group: &dyn Group, queue: QueueId) -> Option<QueueSnapshot> {
        let view = self.cx.machine.view(queue)?;
        let node = group.status().leader.map(|leader| leader.0);
        Some(QueueSnapshot { group: group.id(), node, view })
    }
}
