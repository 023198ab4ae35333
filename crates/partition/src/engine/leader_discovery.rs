//! Which leader this node's clients are served by: announcements, and the search for a leader that
//! does not know that it was out of reach.

use flintmq_consensus::{NodeId, Term};
use flintmq_shard::Group;

use super::{PartitionEngine, Role};
use crate::forwarder::{Forwarder, Lessons};
use crate::peer_message::{AttachmentId, PeerMessage, Seek};

impl PartitionEngine {
    /// Never to a leader of a term that is over, which may not know that it leads no more, nor the
    /// queues that clients opened since.
    pub(super) fn attach(&mut self, group: &mut dyn Group, leader: (NodeId, Term)) {
        if leader.1 < self.newest_term {
            return;
        }
        self.newest_term = leader.1;
        self.attachments += 1;
        let attachment = AttachmentId { process: self.process, number: self.attachments };
        tracing::debug!(group = group.id().0, leader = leader.0.0, term = leader.1, "attaches");
        self.unreached = None;
        let lessons = match &self.role {
            Role::Forwarder(before) if before.leader() == leader => before.lessons(),
            _ => Lessons::default(),
        };
        let forwarder = Forwarder::attach(&mut self.cx, group, leader, attachment, lessons);
        self.role = Role::Forwarder(forwarder);
    }

    /// A node says that it leads and serves.
    pub(super) fn on_announced(&mut self, group: &mut dyn Group, from: NodeId, term: Term) {
        match &self.role {
            // This node has not noticed yet that it leads no more.
            Role::Leader(_) => {
                if self.announced.is_none_or(|known| is_news(known, (from, term))) {
                    self.announced = Some((from, term));
                }
            }
            Role::Forwarder(forwarder) if !is_news(forwarder.leader(), (from, term)) => {}
            Role::Forwarder(_) | Role::Leaderless => {
                if !group.is_serving() {
                    self.attach(group, (from, term));
                }
            }
        }
    }

    /// Once per tick: a leader that was out of reach for a moment may not know that it was, and so
    /// announces nothing; or its announcement was lost, and the one before is still believed in.
    pub(super) fn look_for_leader(&mut self, group: &mut dyn Group) {
        let term = group.term();
        let is_due = match &self.role {
            Role::Leader(_) => false,
            Role::Forwarder(forwarder) => forwarder.leader().1 < term,
            Role::Leaderless => group.is_clustered() && !group.is_serving(),
        };
        if !is_due {
            return;
        }
        if let Some(leader) = group.leader_in_reach() {
            self.attach(group, (leader, term));
        } else if matches!(self.role, Role::Leaderless) && self.has_clients() {
            // A node without a replica does not know who leads, and a leader that has not noticed
            // that the two were apart does not say it again.
            for peer in group.peers_in_reach() {
                let _repeated_if_lost = group.send(peer, PeerMessage::Seek(Seek {}).frame(None, 0));
            }
        }
    }

    fn has_clients(&self) -> bool {
        !self.cx.handles.is_empty() || !self.cx.pending.is_empty()
    }

    /// A node can be reached now, or not any more.
    pub(super) fn on_reach(&mut self, group: &mut dyn Group, peer: NodeId, up: bool) {
        match &mut self.role {
            Role::Leader(leader) => leader.on_peer(&mut self.cx, group, peer, up),
            Role::Forwarder(forwarder) if forwarder.leader().0 == peer => {
                self.unreached = Some(forwarder.leader());
                self.role = Role::Leaderless;
            }
            Role::Forwarder(_) | Role::Leaderless => {}
        }
        // It may not have noticed, and so announces nothing. If it leads no more, another announces
        // itself.
        if up
            && matches!(self.role, Role::Leaderless)
            && !group.is_serving()
            && let Some(leader) = self.unreached.take_if(|(node, _)| *node == peer)
        {
            self.attach(group, leader);
        }
        if !up && self.announced.is_some_and(|(node, _)| node == peer) {
            self.announced = None;
        }
    }

    /// Attaches to the same leader once more where a frame was lost.
    pub(super) fn attach_again(&mut self, group: &mut dyn Group) {
        if let Role::Forwarder(forwarder) = &self.role
            && forwarder.is_broken()
            && group.peers_in_reach().contains(&forwarder.leader().0)
        {
            let leader = forwarder.leader();
            self.attach(group, leader);
        }
    }
}

/// Whether an announcement counts beside what is known: a term has one leader, which may repeat
/// itself.
fn is_news((leader, known): (NodeId, Term), (from, term): (NodeId, Term)) -> bool {
    term > known || (term == known && from == leader)
}
