//! Clients of other nodes, served through these nodes' forwarders: who is attached, and whether
//! its frames come in order.
//!
//! | file | step |
//! | --- | --- |
//! | `serving` | what a forwarder asks for is done |
//! | `sending` | answers and messages go to it in frames |

mod sending;
mod serving;

use flintmq_consensus::{NodeId, Term};
use flintmq_queue::HandleId;
use flintmq_shard::Group;
use flintmq_shard::mutants::{Mutant, breaks};

use super::Leader;
use super::applying::{Attached, Deferred};
use crate::context::Context;
use crate::outgoing_frames::OutgoingFrames;
use crate::peer_message::{self, Announce, AttachmentId, Frame, PeerMessage, WireAck, WirePush};

/// What the leader keeps of a forwarder.
pub(super) struct ServedForwarder {
    /// It looks up messages in its own log.
    has_log: bool,
    /// Frames received in order.
    received: u64,
    /// Frames that it is known to have received.
    confirmed: u64,
    /// What its clients have open.
    handles: Vec<HandleId>,
    acks: Vec<WireAck>,
    /// At most one turn of deliveries.
    pushes: Vec<WirePush>,
    answers: Vec<peer_message::Answer>,
    /// Nothing is delivered to it while some wait for room, so those that wait are one turn of
    /// deliveries, and answers to what it asked.
    outgoing: OutgoingFrames,
    paused: bool,
    /// All that its clients had open when it attached is known.
    told_all: bool,
}

impl ServedForwarder {
    fn new(attachment: AttachmentId, has_log: bool) -> Self {
        Self {
            has_log,
            received: 1,
            confirmed: 0,
            handles: Vec::new(),
            acks: Vec::new(),
            pushes: Vec::new(),
            answers: Vec::new(),
            outgoing: OutgoingFrames::new(attachment),
            paused: false,
            told_all: false,
        }
    }

    /// Whether something was sent that it is not known to have received. What waits for room is
    /// not lost.
    fn is_unsure(&self) -> bool {
        self.outgoing.count() > self.confirmed && self.outgoing.waiting() == 0
    }
}

impl Leader {
    /// Tells all other nodes in reach, or one, that this one leads and serves: also those that do
    /// not hold the partition have clients. What is lost is repeated by [`Self::announce_again`].
    pub(crate) fn announce(&self, group: &mut dyn Group, only: Option<NodeId>) {
        if !group.is_clustered() {
            return;
        }
        let term: Term = self.term;
        let peers = only.map_or_else(|| group.peers_in_reach(), |peer| vec![peer]);
        for peer in peers {
            let frame = PeerMessage::Announce(Announce { term }).frame(None, 0);
            let _repeated_if_lost = group.send(peer, frame);
        }
    }

    /// Once per tick: an announcement may have been lost, or come too early.
    pub(super) fn announce_again(&self, group: &mut dyn Group) {
        for peer in group.peers_in_reach() {
            if !self.forwarders.contains_key(&peer) {
                self.announce(group, Some(peer));
            }
        }
    }

    /// Once per tick: a forwarder that was sent something shows what it received. A frame may be
    /// lost although its sending was taken for a success.
    pub(super) fn check_forwarders(&mut self, cx: &mut Context, group: &mut dyn Group) {
        let unsure = self.forwarders.iter().filter(|(_, served)| served.is_unsure());
        let unsure: Vec<NodeId> = unsure.map(|(node, _)| *node).collect();
        for node in unsure {
            if let Some(served) = self.forwarders.get_mut(&node) {
                served.outgoing.push(PeerMessage::Received(served.received));
            }
            self.send_outgoing(cx, group, node);
        }
    }

    /// Whether all nodes in reach have attached, and, if `fully`, told what their clients have
    /// open.
    pub(super) fn knows_all(&self, group: &dyn Group, fully: bool) -> bool {
        let knows = |served: &ServedForwarder| served.told_all || !fully;
        group.peers_in_reach().iter().all(|peer| self.forwarders.get(peer).is_some_and(knows))
    }

    /// A node can be reached now, or not any more.
    pub(crate) fn on_peer(
        &mut self,
        cx: &mut Context,
        group: &mut dyn Group,
        peer: NodeId,
        up: bool,
    ) {
        self.drop_forwarder(cx, peer);
        if up {
            self.announce(group, Some(peer));
        }
    }

    /// The connection to a node has room again.
    pub(crate) fn on_room(&mut self, cx: &mut Context, group: &mut dyn Group, peer: NodeId) {
        self.send_outgoing(cx, group, peer);
    }

    /// A forwarder is gone: what its clients had open is closed. That is not their fault, so
    /// nothing counts as a failed delivery.
    fn drop_forwarder(&mut self, cx: &mut Context, node: NodeId) {
        let Some(served) = self.forwarders.remove(&node) else { return };
        self.cancel_opens_of(node);
        for handle in served.handles {
            self.release(cx, handle, false);
            self.remote.remove(&handle);
        }
    }

    fn cancel_opens_of(&mut self, node: NodeId) {
        self.deferred.retain(|(_, deferred)| match deferred {
            Deferred::OpenRemote(open) => open.from.node != node,
            Deferred::CloseRemote { from, .. } | Deferred::Confirmed { from, .. } => {
                from.node != node
            }
            _ => true,
        });
    }

    /// A frame of another node.
    pub(crate) fn on_frame(
        &mut self,
        cx: &mut Context,
        group: &mut dyn Group,
        node: NodeId,
        frame: Frame,
    ) {
        let Some(attachment) = frame.attachment else { return };
        if frame.message.as_ref().is_some_and(PeerMessage::is_of_leader) {
            return;
        }
        if let Some(PeerMessage::Attach(attach)) = frame.message {
            // It means a leadership of before, perhaps of this node's previous process.
            if attach.term != self.term {
                return self.announce(group, Some(node));
            }
            self.drop_forwarder(cx, node);
            self.forwarders.insert(node, ServedForwarder::new(attachment, attach.has_log));
            return;
        }
        let served = self.forwarders.get_mut(&node);
        let in_order = served.is_some_and(|served| {
            let next = served.received + 1 == frame.number;
            let skips = breaks(Mutant::GapsUnnoticed) && served.received < frame.number;
            let fits = served.outgoing.attachment() == attachment && (next || skips);
            if fits {
                served.received = frame.number;
            }
            fits
        });
        if !in_order {
            // Whatever was lost on the way, it begins again.
            if self
                .forwarders
                .get(&node)
                .is_some_and(|served| served.outgoing.attachment() == attachment)
            {
                self.drop_forwarder(cx, node);
            }
            let detached = PeerMessage::Detached(peer_message::Detached {});
            let _repeated_by_a_probe = group.send(node, detached.frame(Some(attachment), 0));
            return;
        }
        // A newer version's message counts, and means nothing here.
        if let Some(message) = frame.message {
            self.serve(cx, group, Attached { node, attachment }, message);
        }
        self.send_outgoing(cx, group, node);
    }

    fn is_attached(&self, from: Attached) -> bool {
        self.forwarders
            .get(&from.node)
            .is_some_and(|served| served.outgoing.attachment() == from.attachment)
    }

    fn served(&mut self, from: Attached) -> Option<&mut ServedForwarder> {
        let served = self.forwarders.get_mut(&from.node)?;
        (served.outgoing.attachment() == from.attachment).then_some(served)
    }
}
