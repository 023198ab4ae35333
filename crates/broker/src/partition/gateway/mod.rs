//! Clients of this node whose queue is led elsewhere, and clients of other nodes whose queue is led
//! here.
//!
//! A partition's task always speaks for the clients of its own node. While it leads it serves them
//! itself; while another node leads it is their gateway: it hands on what they ask for, keeps what
//! is not answered yet, and gives them what comes back. When the leader changes it opens everything
//! anew at the next one and repeats what was not answered, in order and under the same GUIDs, so
//! that clients notice a delay and no more. While there is no leader, everything waits.

mod arriving;
mod follower;
mod leader;
mod wire;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use flintmq_consensus::{NodeId, Term};
use flintmq_protocol::guid::MessageGuid;
use flintmq_queue::{HandleId, Subscription};
use flintmq_transport::SendError;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use super::requests::{AdminRefusal, Close, Configure, Open, Purged, Put, SessionEnded};
use super::task::PartitionTask;
use crate::cluster::PeerLinks;
use crate::link::SessionId;
use arriving::Arriving;
use wire::Said;

/// Frames that wait for a connection with room; beyond that no request is taken.
const MAX_WAITING: usize = 1024;

/// PUTs in one frame at most, and their bytes.
const FRAME_PUTS: usize = 1024;
const FRAME_BYTES: usize = 1 << 20;

/// What administrators are told whose request came to nothing because the lead moved.
const LEADER_CHANGED: &str = "the leader changed meanwhile: look again";

/// A PUT of a client of this node that is not answered.
pub(super) struct Unanswered {
    pub(super) session: SessionId,
    pub(super) put: Put,
    /// It is on its way to the leader of now.
    sent: bool,
}

/// What waits for the answer to a close.
pub(super) enum Closing {
    Close(Box<Close>),
    SessionEnded(SessionEnded),
}

/// An administrator's request that the leader has to carry out.
enum Asked {
    Purge(oneshot::Sender<Result<Purged, AdminRefusal>>),
    Delete(oneshot::Sender<Result<(), AdminRefusal>>),
}

impl Asked {
    fn refuse(self, why: &str) {
        let refusal = AdminRefusal::Failed(why.to_owned());
        match self {
            Self::Purge(done) => drop(done.send(Err(refusal))),
            Self::Delete(done) => drop(done.send(Err(refusal))),
        }
    }
}

/// What the leader keeps of a gateway.
#[derive(Default)]
struct Served {
    /// It looks up messages in its own log.
    has_log: bool,
    /// What its clients have open.
    handles: Vec<HandleId>,
    acks: Vec<wire::Ack>,
    pushes: Vec<wire::Push>,
    /// Frames that the connection had no room for.
    waiting: VecDeque<Bytes>,
    /// Nothing is delivered to it until they are gone.
    paused: bool,
}

/// Both halves.
pub(super) struct Gateway {
    links: Option<PeerLinks>,
    /// The leader that this node's clients are served by, and its term.
    leader: Option<(NodeId, Term)>,
    /// Who says that it leads, while this node believes that it does itself.
    invited: Option<(NodeId, Term)>,
    /// Frames that the connection to the leader had no room for.
    waiting: VecDeque<Bytes>,
    /// In the order in which clients sent them.
    pub(super) unanswered: VecDeque<Unanswered>,
    /// Confirmations that are not known to be decided, with their numbers.
    pub(super) confirms: VecDeque<(u64, HandleId, MessageGuid)>,
    /// How many of them, the last, are not on their way to the leader yet.
    held_confirms: usize,
    /// Messages from the leader, on their way to this node's clients.
    arriving: Arriving,
    pub(super) opening: BTreeMap<HandleId, Box<Open>>,
    configuring: VecDeque<(u64, Configure)>,
    pub(super) closing: VecDeque<(u64, Closing)>,
    asked: BTreeMap<u64, Asked>,
    next_number: u64,
    /// As the leader: the gateways served here.
    served: FxHashMap<NodeId, Served>,
}

impl Gateway {
    pub(super) fn new(links: Option<PeerLinks>) -> Self {
        Self {
            links,
            leader: None,
            invited: None,
            waiting: VecDeque::new(),
            unanswered: VecDeque::new(),
            confirms: VecDeque::new(),
            held_confirms: 0,
            arriving: Arriving::default(),
            opening: BTreeMap::new(),
            configuring: VecDeque::new(),
            closing: VecDeque::new(),
            asked: BTreeMap::new(),
            next_number: 0,
            served: FxHashMap::default(),
        }
    }

    /// Whether there are other nodes at all.
    pub(super) fn is_needed(&self) -> bool {
        self.links.is_some()
    }

    /// Who serves this node's clients, where that is another node.
    pub(super) fn leader(&self) -> Option<NodeId> {
        self.leader.map(|(leader, _)| leader)
    }

    /// This node leads: there is nobody to hand things on to.
    pub(super) fn no_leader(&mut self) {
        self.leader = None;
        self.invited = None;
        self.waiting.clear();
        self.held_confirms = 0;
        self.arriving.forget();
    }

    pub(super) fn take_opening(&mut self) -> impl Iterator<Item = Box<Open>> + use<> {
        std::mem::take(&mut self.opening).into_values()
    }

    pub(super) fn take_confirms(&mut self) -> Vec<(HandleId, MessageGuid)> {
        self.held_confirms = 0;
        self.confirms.drain(..).map(|(_, handle, guid)| (handle, guid)).collect()
    }

    pub(super) fn take_configuring(&mut self) -> Vec<Configure> {
        self.configuring.drain(..).map(|(_, configure)| configure).collect()
    }

    pub(super) fn take_unanswered(&mut self) -> Vec<(SessionId, Put)> {
        self.unanswered.drain(..).map(|unanswered| (unanswered.session, unanswered.put)).collect()
    }

    pub(super) fn take_closing(&mut self) -> Vec<Closing> {
        self.closing.drain(..).map(|(_, closing)| closing).collect()
    }

    /// What was asked of a leader that is no more.
    pub(super) fn refuse_asked(&mut self) {
        for asked in std::mem::take(&mut self.asked).into_values() {
            asked.refuse(LEADER_CHANGED);
        }
    }

    pub(super) fn keep(&mut self, session: SessionId, put: Put) {
        self.unanswered.push_back(Unanswered { session, put, sent: false });
    }

    pub(super) fn keep_confirm(&mut self, handle: HandleId, guid: MessageGuid) {
        let number = self.number();
        self.confirms.push_back((number, handle, guid));
    }

    pub(super) fn keep_open(&mut self, open: Box<Open>) {
        self.opening.insert(open.handle, open);
    }

    pub(super) fn keep_closing(&mut self, closing: Closing) {
        let number = self.number();
        self.closing.push_back((number, closing));
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }
}

impl PartitionTask {
    /// Whether more can be taken for a leader elsewhere.
    pub(super) fn gateway_has_room(&self) -> bool {
        self.gateway.waiting.len() < MAX_WAITING
    }

    /// Something that the same partition's task on another node said.
    pub(super) fn on_gateway(&mut self, from: NodeId, frame: Bytes) {
        match Said::from_bytes(frame) {
            Ok(Some(said)) => self.on_said(from, said),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(from = from.0, group = self.group().0, %error, "a frame cannot be read");
            }
        }
    }

    fn on_said(&mut self, from: NodeId, said: Said) {
        match said {
            Said::Invite(invite) => self.on_invite(from, invite.term),
            Said::Hello(hello) => self.on_hello(from, hello.has_log),
            Said::Open(_)
            | Said::Configure(_)
            | Said::Close(_)
            | Said::Publish(_)
            | Said::Confirm(_)
            | Said::Pause(_)
            | Said::Resume(_)
            | Said::Update(_)
            | Said::Ask(_)
            | Said::MayDrop(_) => {
                // Of a gateway that did not say hello to this leadership: it will.
                if self.machine.is_leading() && self.gateway.served.contains_key(&from) {
                    self.serve_gateway(from, said);
                }
            }
            said => {
                if self.gateway.leader.is_some_and(|(leader, _)| leader == from) {
                    self.on_leaders_word(said);
                }
            }
        }
    }

    /// A connection has room again, or may have.
    pub(super) fn on_gateway_room(&mut self) {
        self.send_waiting_to_leader();
        self.send_waiting_to_gateways();
    }
}

/// Sends what waits, in order; false when some still waits.
fn send_waiting(
    links: &PeerLinks,
    to: NodeId,
    group: flintmq_consensus::GroupId,
    waiting: &mut VecDeque<Bytes>,
) -> bool {
    while let Some(frame) = waiting.front() {
        match links.send_gateway(to, group, frame.clone()) {
            Ok(()) => {
                waiting.pop_front();
            }
            Err(SendError::Full { .. }) => return false,
            // The connection is gone, and with it whom this was meant for.
            Err(_) => waiting.clear(),
        }
    }
    true
}

fn guid_bytes(guid: MessageGuid) -> Bytes {
    Bytes::copy_from_slice(&guid.0)
}

fn guid_of(bytes: &Bytes) -> Option<MessageGuid> {
    Some(MessageGuid(bytes.as_ref().try_into().ok()?))
}

fn attributes_word(attributes: flintmq_queue::Attributes) -> u32 {
    u32::from(attributes.flags) << 24
        | u32::from(attributes.compression) << 16
        | u32::from(attributes.schema_wire_id)
}

fn attributes_of(word: u32) -> flintmq_queue::Attributes {
    let [flags, compression, high, low] = word.to_be_bytes();
    flintmq_queue::Attributes {
        flags,
        compression,
        schema_wire_id: u16::from_be_bytes([high, low]),
    }
}

fn subscription_on_wire(subscription: &Subscription) -> wire::Subscription {
    wire::Subscription {
        id: subscription.id,
        priority: subscription.priority,
        count: subscription.count,
        max_messages: subscription.max_messages,
        max_bytes: subscription.max_bytes,
    }
}

fn subscription_of(subscription: &wire::Subscription) -> Subscription {
    Subscription {
        id: subscription.id,
        priority: subscription.priority,
        count: subscription.count,
        max_messages: subscription.max_messages,
        max_bytes: subscription.max_bytes,
        filter: flintmq_queue::Filter::All,
    }
}
