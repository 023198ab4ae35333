//! What a partition does while another node leads it: it speaks for the clients of its own node at
//! the leader.
//!
//! It sends what they ask for, keeps nothing of its own (what is not answered is
//! [`PendingWork`](crate::pending::PendingWork)), and gives them what comes back, in the leader's
//! order. A new leader is told everything again: what is open, then confirmations, subscriptions,
//! PUTs and closes, under the same numbers.
//!
//! | file | step |
//! | --- | --- |
//! | `requests` | what clients ask for is kept, and queued for the leader |
//! | `sending` | what is pending goes to the leader in frames |
//! | `answers` | what the leader says is matched with what was asked |
//! | `arriving` | messages get to clients in the leader's order |

mod answers;
mod arriving;
mod requests;
mod sending;

use flintmq_consensus::{NodeId, Term, Time};
use flintmq_queue::HandleId;
use flintmq_shard::Group;

use crate::context::Context;
use crate::leader::{LEADER_CHANGED, refuse};
use crate::outgoing_frames::OutgoingFrames;
use crate::peer_message::{self, Attach, AttachmentId, PeerMessage};
use crate::pending::Closing;
use arriving::Arriving;

/// Frames that wait for a connection with room; beyond that no request is taken.
const MAX_OUTGOING: usize = 1024;

/// Ticks after which a probe that is not answered ends the attachment.
const PROBE_TICKS: u32 = 3;

/// How long that may become where no probe is answered: a slow connection must not be sent
/// everything again before it has passed once.
const MAX_PROBE_TICKS: u32 = 48;

/// The forwarder.
pub(crate) struct Forwarder {
    leader: NodeId,
    term: Term,
    /// Frames received in order.
    received: u64,
    /// No request is taken while [`MAX_OUTGOING`] wait for room.
    outgoing: OutgoingFrames,
    /// Number of the first PUT that was not sent.
    next_put: u64,
    /// Number of the last confirmation that was sent.
    confirms_sent: u64,
    /// When those that wait are sent.
    confirms_due: Option<Time>,
    arriving: Arriving,
    /// Something passed since a probe showed that nothing is missing.
    active: bool,
    /// The probe that is not answered.
    probing: Option<Probing>,
    /// A frame was lost: begin again at the same leader.
    broken: bool,
    /// What the next attachment to the same leader does otherwise.
    lessons: Lessons,
}

/// A probe.
struct Probing {
    /// Its frame's number.
    number: u64,
    /// Ticks since it was sent.
    ticks: u32,
}

/// What an attachment to a leader teaches the next one.
#[derive(Clone, Copy)]
pub(crate) struct Lessons {
    /// Messages were not found in this node's log: the leader had better send them.
    no_lookup: bool,
    /// Ticks until a probe counts as lost.
    patience: u32,
}

impl Default for Lessons {
    fn default() -> Self {
        Self { no_lookup: false, patience: PROBE_TICKS }
    }
}

impl Forwarder {
    /// Attaches to a leader and tells it everything.
    pub(crate) fn attach(
        cx: &mut Context,
        group: &mut dyn Group,
        (leader, term): (NodeId, Term),
        attachment: AttachmentId,
        lessons: Lessons,
    ) -> Box<Self> {
        let mut forwarder = Box::new(Self {
            leader,
            term,
            received: 0,
            outgoing: OutgoingFrames::new(attachment),
            next_put: 0,
            confirms_sent: 0,
            confirms_due: None,
            arriving: Arriving::default(),
            active: true,
            probing: None,
            broken: false,
            lessons: Lessons { no_lookup: false, ..lessons },
        });
        let has_log = !lessons.no_lookup;
        forwarder.queue(PeerMessage::Attach(Attach { term, has_log }));
        forwarder.tell_everything(cx);
        forwarder.send_outgoing(group);
        forwarder
    }

    /// The leader, and its term.
    pub(crate) fn leader(&self) -> (NodeId, Term) {
        (self.leader, self.term)
    }

    /// Whether the attachment is over, and a new one to the same leader is due.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// What the next attachment to the same leader should know.
    pub(crate) fn lessons(&self) -> Lessons {
        self.lessons
    }

    /// Whether more can be taken for the leader.
    pub(crate) fn takes_requests(&self) -> bool {
        self.outgoing.waiting() < MAX_OUTGOING
    }

    fn tell_everything(&mut self, cx: &mut Context) {
        // First what is open, without subscriptions: nothing is delivered before the leader knows
        // what was confirmed.
        let local = cx.handles.in_order();
        for (handle, open) in &local {
            self.queue_open(*handle, open.queue, &open.uri, None, open.role);
        }
        for open in cx.pending.opens.values() {
            self.queue_open(open.handle, open.queue, &open.uri, Some(&open.domain), open.role);
        }
        let paused: Vec<u64> =
            local.iter().filter(|(handle, _)| cx.is_paused(*handle)).map(|(h, _)| h.0).collect();
        if !paused.is_empty() {
            self.queue(PeerMessage::Pause(peer_message::Handles { handles: paused }));
        }
        self.queue_confirms(cx);
        for (handle, open) in &local {
            if !open.subscriptions.is_empty() {
                // Nobody waits for the answer.
                self.queue_configure(0, *handle, &open.subscriptions);
            }
        }
        for (number, configure) in &cx.pending.configures {
            self.queue_configure(*number, configure.handle, &configure.subscriptions);
        }
        self.queue_puts(cx);
        let closes: Vec<(u64, Vec<HandleId>, bool)> = cx
            .pending
            .closes
            .iter()
            .map(|(number, closing)| match closing {
                Closing::Close(close) => (*number, close.handles.clone(), false),
                Closing::Session(ended) => (*number, cx.handles_of(ended.session), ended.lost),
            })
            .collect();
        for (number, handles, lost) in closes {
            self.queue_close(number, &handles, lost);
        }
        // They may have been carried out by the leader before.
        for request in std::mem::take(&mut cx.pending.admin).into_values() {
            refuse(cx, request, LEADER_CHANGED);
        }
    }

    /// The end of a turn.
    pub(crate) fn work(&mut self, cx: &mut Context, group: &mut dyn Group) {
        let due = self.confirms_due.is_some_and(|due| due <= group.now());
        if due || self.next_put != cx.pending.puts.end() {
            self.flush_confirms(cx);
        }
        self.queue_puts(cx);
        self.pass_on(cx, group);
        self.send_outgoing(group);
    }

    /// When [`Self::work`] is wanted next.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.confirms_due
    }

    /// Once per tick: as long as something passes, it is made sure that nothing is missing.
    pub(crate) fn on_tick(&mut self, group: &mut dyn Group) {
        match &mut self.probing {
            // It still waits for room.
            Some(_) if self.outgoing.waiting() > 0 => {}
            Some(probing) => {
                probing.ticks += 1;
                if probing.ticks >= self.lessons.patience && !self.broken {
                    self.broken = true;
                    self.lessons.patience = (2 * self.lessons.patience).min(MAX_PROBE_TICKS);
                }
            }
            None if self.active => {
                self.active = false;
                self.queue(PeerMessage::Probe(peer_message::Probe {}));
                self.probing = Some(Probing { number: self.outgoing.count(), ticks: 0 });
                self.send_outgoing(group);
            }
            None => {}
        }
    }

    /// The connection has room again.
    pub(crate) fn on_room(&mut self, group: &mut dyn Group) {
        self.send_outgoing(group);
    }
}
