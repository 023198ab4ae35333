//! What administrators ask of a group's replica: to be looked at, to hand the leadership over, to
//! keep it, and to go on without members that are lost.

use std::collections::BTreeSet;

use flintmq_consensus::{
    ConfigRegister, Core, Flow, History, Index, Input, LogPosition, NodeCore, NodeId, NodeInput,
    Term, Time,
};

use crate::effect::Told;
use crate::host::Host;
use crate::replica::Replica;
use crate::status::ReplicaStatus;

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminCommand {
    /// Tell everything about the group.
    Inspect,
    /// Hand the leadership to this voter.
    Transfer {
        /// Who is to lead.
        to: NodeId,
        /// At once, whatever it lacks.
        force: bool,
    },
    /// Do not make room for the node that usually leads: an administrator wants this one to.
    KeepLeadership,
    /// Go on without these voters, which are lost.
    Recover(Recovery),
}

/// An order to go on without some voters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// They never come back.
    pub dead: BTreeSet<NodeId>,
    /// The history that the administrator has seen.
    pub history: History,
    /// The newest configuration on the nodes that are left.
    pub newest: ConfigRegister,
    /// Names the order; greater than every earlier one's.
    pub number: u32,
}

/// Answer to a command.
#[allow(clippy::large_enum_variant)] // There are as many as administrators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAnswer {
    /// What [`AdminCommand::Inspect`] found.
    Inspected(GroupView),
    /// What became of [`AdminCommand::Transfer`]; comes when the leadership was given up, or is not
    /// going to be.
    Transferred(Result<Ceded, NotCeded>),
    /// The command was taken.
    Taken,
    /// There is no such group here.
    UnknownGroup,
}

/// What one replica knows of its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// Present state.
    pub status: ReplicaStatus,
    /// The members.
    pub config: ConfigRegister,
    /// All of the hard state, the configuration with it, is fsynced.
    pub durable: bool,
    /// This node leads, and the members of now have all that was ever committed: no other node is
    /// needed.
    pub settled: bool,
    /// Where its own log ends.
    pub last: LogPosition,
    /// The other members, as the leader sees them, or as far as they have told one that is elected
    /// and finds out what there is. Empty where this node is neither.
    pub peers: Vec<PeerView>,
}

/// Another member, as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// The member.
    pub node: NodeId,
    /// Where its log ends for sure.
    pub matched: Index,
    /// It may have lost its tail and does not count.
    pub recovering: bool,
    /// A snapshot is on its way to it.
    pub snapshot: bool,
}

/// The leadership was given up for another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceded {
    /// In which term.
    pub term: Term,
    /// Since when nothing new was taken here.
    pub since: Time,
}

/// Why the leadership was not given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotCeded {
    /// This node does not lead.
    NotLeader,
    /// The other node does not vote in this group.
    NotAVoter,
    /// The other node has to recover, or to get a snapshot, first.
    Behind,
    /// The other node should not lead: its clock is off, or its disk is full or stalled.
    Unfit,
    /// Another transfer is under way.
    Busy,
    /// The other node did not catch up in time, or cannot be reached.
    GivenUp,
}

/// Carries a command out, or begins to.
pub(crate) fn command(
    core: &mut NodeCore,
    host: &mut Host,
    replica: &mut Replica,
    ticket: u64,
    command: AdminCommand,
) {
    let id = replica.group;
    let Some(group) = core.group(id) else { return };
    let answer = match command {
        AdminCommand::Inspect => AdminAnswer::Inspected(view(group, replica)),
        AdminCommand::Transfer { to, force } => match obstacle(group, host, replica, to, force) {
            Some(reason) => AdminAnswer::Transferred(Err(reason)),
            None => return replica.hand_over(core, host, to, force, Some(ticket)),
        },
        AdminCommand::KeepLeadership => {
            replica.keeps_leadership = true;
            AdminAnswer::Taken
        }
        AdminCommand::Recover(Recovery { dead, history, newest, number }) => {
            if !replica.leftover.dropping {
                let input = Input::ForceRecover { dead, expect_history: history, newest, number };
                core.step(host.now, NodeInput::Group { group: id, input });
            }
            AdminAnswer::Taken
        }
    };
    host.tell(Told::Answer { ticket, answer });
}

/// What stands against handing the leadership to a node.
fn obstacle(
    core: &Core,
    host: &Host,
    replica: &Replica,
    to: NodeId,
    force: bool,
) -> Option<NotCeded> {
    if !core.is_serving() {
        return Some(NotCeded::NotLeader);
    }
    if !core.config().is_voter(to) {
        return Some(NotCeded::NotAVoter);
    }
    if replica.handing_over.is_some() {
        return Some(NotCeded::Busy);
    }
    if host.is_unfit(to) && !host.is_unfit(host.node) && !force {
        return Some(NotCeded::Unfit);
    }
    let peer = core.progress().iter().find(|peer| peer.node == to);
    let behind = peer.is_none_or(|peer| peer.recovering.is_some() || peer.flow == Flow::Snapshot);
    (behind && !force).then_some(NotCeded::Behind)
}

fn view(core: &Core, replica: &Replica) -> GroupView {
    let peers = core.progress().iter().map(|peer| PeerView {
        node: peer.node,
        matched: peer.acked,
        recovering: peer.recovering.is_some(),
        snapshot: peer.flow == Flow::Snapshot,
    });
    let told = core.reported().iter().map(|(node, answer)| PeerView {
        node: *node,
        matched: answer.last.index,
        recovering: answer.recovering.is_some(),
        snapshot: false,
    });
    let peers = if core.is_serving() { peers.collect() } else { told.collect() };
    GroupView {
        status: replica.status(core),
        config: core.config().clone(),
        settled: core.change_complete(),
        durable: core.is_hard_state_synced(),
        last: core.last(),
        peers,
    }
}
