//! What administrators ask of a group's replica: to be looked at, to hand the lead over, to keep
//! it, and to go on without members that are lost.

use std::collections::BTreeSet;
use std::time::Instant;

use flintmq_consensus::{
    ConfigRegister, Flow, GroupId, History, Index, Input, LogPosition, NodeId, Term,
};
use tokio::sync::oneshot;

use super::{Replica, ReplicaError, ReplicaStatus, StoreEvent, StoreEventSender};
use crate::metrics::LEADER_TRANSFERS;

/// The way to one group's replica for administrators; cheap to clone.
#[derive(Clone)]
pub(crate) struct GroupOrders {
    group: GroupId,
    events: StoreEventSender,
}

/// One request, carried out by the task that owns the replica.
pub(crate) enum Order {
    /// Tell everything about the group.
    Look {
        /// The answer.
        done: oneshot::Sender<GroupView>,
    },
    /// Hand the lead to this voter.
    Transfer {
        /// Who is to lead.
        to: NodeId,
        /// At once, whatever it lacks.
        force: bool,
        /// Answered when the lead is given up, or is not going to be.
        done: oneshot::Sender<Result<Ceded, NotCeded>>,
    },
    /// Do not make room for the node that usually leads: an administrator wants this one to.
    Keep,
    /// Go on without these voters, which are lost.
    Recover(Recovery),
}

/// An order to go on without some voters.
pub(crate) struct Recovery {
    /// They never come back.
    pub(crate) dead: BTreeSet<NodeId>,
    /// The history that the administrator has seen.
    pub(crate) history: History,
    /// The newest configuration on the nodes that are left.
    pub(crate) newest: ConfigRegister,
    /// Names the order; greater than every earlier one's.
    pub(crate) number: u32,
}

/// What one replica knows of its group.
#[derive(Clone, Debug)]
pub(crate) struct GroupView {
    pub(crate) status: ReplicaStatus,
    pub(crate) config: ConfigRegister,
    /// All of the hard state, the configuration with it, is fsynced.
    pub(crate) durable: bool,
    /// This node leads, and the members of now have all that was ever decided: nobody else is
    /// needed.
    pub(crate) settled: bool,
    /// Where its own log ends.
    pub(crate) last: LogPosition,
    /// The other members, as the leader sees them, or as far as they have told one that is elected
    /// and finds out what there is. Empty where this node is neither.
    pub(crate) peers: Vec<PeerView>,
}

/// Another member, as its leader sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerView {
    pub(crate) node: NodeId,
    /// Where its log ends for sure.
    pub(crate) matched: Index,
    pub(crate) recovering: bool,
    /// A snapshot is on its way to it.
    pub(crate) snapshot: bool,
}

/// The lead was given up for another node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ceded {
    /// In which term.
    pub(crate) term: Term,
    /// Since when nothing new was taken here.
    pub(crate) since: Instant,
}

/// Why the lead was not given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotCeded {
    /// This node does not lead.
    NotLeader,
    /// The other node does not vote in this group.
    NotAVoter,
    /// The other node has to recover, or to get a snapshot, first.
    Behind,
    /// Another transfer is under way.
    Busy,
    /// The other node did not catch up in time, or cannot be reached.
    GivenUp,
}

/// A transfer that is under way.
pub(super) struct HandingOver {
    to: NodeId,
    since: Instant,
    done: Option<oneshot::Sender<Result<Ceded, NotCeded>>>,
}

impl GroupOrders {
    pub(crate) fn new(group: GroupId, events: StoreEventSender) -> Self {
        Self { group, events }
    }

    /// The group.
    pub(crate) fn group(&self) -> GroupId {
        self.group
    }

    /// Gives an order. False when the replica is gone: the node is stopping.
    pub(crate) fn give(&self, order: Order) -> bool {
        self.events.send(StoreEvent::Order(order)).is_ok()
    }

    /// What the replica knows of the group; none when the node is stopping.
    pub(crate) async fn look(&self) -> Option<GroupView> {
        let (done, answer) = oneshot::channel();
        self.give(Order::Look { done });
        answer.await.ok()
    }
}

impl Replica {
    pub(super) fn on_order(&mut self, order: Order) -> Result<(), ReplicaError> {
        match order {
            Order::Look { done } => {
                let _gone = done.send(self.view());
                Ok(())
            }
            Order::Transfer { to, force, done } => {
                if let Some(reason) = self.obstacle(to, force) {
                    let _gone = done.send(Err(reason));
                    return Ok(());
                }
                self.hand_over(to, force, Some(done))
            }
            Order::Keep => {
                self.keeps_lead = true;
                Ok(())
            }
            Order::Recover(Recovery { dead, history, newest, number }) => {
                self.step(Input::ForceRecover { dead, expect_history: history, newest, number })
            }
        }
    }

    /// Hands the leadership to this voter; `force`: at once, whatever it lacks.
    ///
    /// # Errors
    /// The replica cannot go on.
    pub(crate) fn transfer(&mut self, to: NodeId, force: bool) -> Result<(), ReplicaError> {
        self.hand_over(to, force, None)
    }

    fn hand_over(
        &mut self,
        to: NodeId,
        force: bool,
        done: Option<oneshot::Sender<Result<Ceded, NotCeded>>>,
    ) -> Result<(), ReplicaError> {
        self.handing_over = Some(HandingOver { to, since: Instant::now(), done });
        self.step(Input::Transfer { to, force })
    }

    fn obstacle(&self, to: NodeId, force: bool) -> Option<NotCeded> {
        if !self.is_serving() {
            return Some(NotCeded::NotLeader);
        }
        if !self.core.config().is_voter(to) {
            return Some(NotCeded::NotAVoter);
        }
        if self.handing_over.is_some() {
            return Some(NotCeded::Busy);
        }
        let peer = self.core.progress().iter().find(|peer| peer.node == to);
        let behind = |flow: Flow, recovering: bool| recovering || flow == Flow::Snapshot;
        let behind = peer.is_none_or(|peer| behind(peer.flow, peer.recovering.is_some()));
        (behind && !force).then_some(NotCeded::Behind)
    }

    /// A transfer was given up: this node leads on.
    pub(super) fn transfer_abandoned(&mut self, to: NodeId) {
        LEADER_TRANSFERS.counter(&["abandoned"]).increment(1);
        if let Some(given_up) = self.handing_over.take_if(|handing_over| handing_over.to == to)
            && let Some(done) = given_up.done
        {
            let _gone = done.send(Err(NotCeded::GivenUp));
        }
    }

    /// This node leads no more, or did not anyway.
    pub(super) fn leads_no_more(&mut self, term: Term) {
        self.keeps_lead = false;
        let Some(handed_over) = self.handing_over.take() else { return };
        LEADER_TRANSFERS.counter(&["done"]).increment(1);
        if let Some(done) = handed_over.done {
            let _gone = done.send(Ok(Ceded { term, since: handed_over.since }));
        }
    }

    /// Whether the group has a leader that serves, as far as is known here: something of its term
    /// is decided.
    pub(super) fn is_led(&self) -> bool {
        match self.core.leader() {
            None => false,
            Some(leader) if leader == self.core.node() => self.core.is_serving(),
            Some(_) => self.core.log().term_at(self.core.commit_index()) == Some(self.core.term()),
        }
    }

    fn view(&self) -> GroupView {
        let peers = self.core.progress().iter().map(|peer| PeerView {
            node: peer.node,
            matched: peer.acked,
            recovering: peer.recovering.is_some(),
            snapshot: peer.flow == Flow::Snapshot,
        });
        let told = self.core.reported().iter().map(|(node, answer)| PeerView {
            node: *node,
            matched: answer.last.index,
            recovering: answer.recovering.is_some(),
            snapshot: false,
        });
        let peers = if self.core.is_serving() { peers.collect() } else { told.collect() };
        GroupView {
            status: self.status(),
            config: self.core.config().clone(),
            settled: self.core.change_complete(),
            durable: self.core.is_hard_state_synced(),
            last: self.core.last(),
            peers,
        }
    }
}
