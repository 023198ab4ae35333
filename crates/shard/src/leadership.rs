//! Who should lead, and how a leadership goes to another node.

use flintmq_consensus::{Core, Flow, Input, NodeCore, NodeId, NodeInput, Term, Time};

use crate::admin::{AdminAnswer, Ceded, NotCeded};
use crate::effect::{Notice, Told};
use crate::host::Host;
use crate::replica::Replica;

/// What a member may lack that is to lead; a graceful transfer lets it catch up first.
const BEHIND: u64 = 4096;

/// A transfer that is under way.
#[derive(Debug)]
pub(crate) struct HandingOver {
    to: NodeId,
    since: Time,
    /// Who is to be answered.
    ticket: Option<u64>,
}

impl Replica {
    /// The member that this leader had better make room for, if it is up to date: the one that
    /// should lead, or that the group's number falls to. So leaders spread over the nodes, and come
    /// back after a failure.
    pub(crate) fn preferred_leader(&self, core: &Core) -> Option<NodeId> {
        let voters = &core.config().voters;
        let may_lead = || voters.iter().copied().filter(|voter| !self.ineligible.contains(voter));
        let wanted = self.wanted_leader.filter(|wanted| may_lead().any(|voter| voter == *wanted));
        let in_turn = || may_lead().nth(self.group.0 as usize % may_lead().count().max(1));
        let preferred = wanted.or_else(in_turn)?;
        let fit = preferred != core.node() && is_fit(core, preferred);
        (fit && !self.keeps_leadership).then_some(preferred)
    }

    /// The member that should lead when this node stops.
    pub(crate) fn successor(&self, core: &Core) -> Option<NodeId> {
        let voters = core.config().voters.iter().copied();
        let fit = voters.filter(|voter| *voter != core.node() && is_fit(core, *voter));
        let mut fit: Vec<NodeId> = fit.collect();
        // One that must not lead leads only if no other can.
        if fit.iter().any(|voter| !self.ineligible.contains(voter)) {
            fit.retain(|voter| !self.ineligible.contains(voter));
        }
        let count = fit.len().max(1);
        (!fit.is_empty()).then(|| fit.swap_remove(self.group.0 as usize % count))
    }

    /// Hands the leadership to this voter; `force`: at once, whatever it lacks.
    pub(crate) fn hand_over(
        &mut self,
        core: &mut NodeCore,
        host: &Host,
        to: NodeId,
        force: bool,
        ticket: Option<u64>,
    ) {
        self.handing_over = Some(HandingOver { to, since: host.now, ticket });
        let input = Input::Transfer { to, force };
        core.step(host.now, NodeInput::Group { group: self.group, input });
    }

    /// A transfer was given up: this node leads on.
    pub(crate) fn transfer_abandoned(&mut self, host: &mut Host, to: NodeId) {
        host.notice(self.group, Notice::TransferAbandoned { to });
        if let Some(given_up) = self.handing_over.take_if(|handing_over| handing_over.to == to)
            && let Some(ticket) = given_up.ticket
        {
            let answer = AdminAnswer::Transferred(Err(NotCeded::GivenUp));
            host.tell(Told::Answer { ticket, answer });
        }
    }

    /// This node leads no more, or did not anyway.
    pub(crate) fn leads_no_more(&mut self, host: &mut Host, term: Term) {
        self.keeps_leadership = false;
        let Some(HandingOver { to, since, ticket }) = self.handing_over.take() else { return };
        host.notice(self.group, Notice::TransferDone { to });
        if let Some(ticket) = ticket {
            let answer = AdminAnswer::Transferred(Ok(Ceded { term, since }));
            host.tell(Told::Answer { ticket, answer });
        }
    }

    /// Lets another node lead when the others have committed for too long what this node's disk
    /// does not have.
    pub(crate) fn give_way_if_late(&self, core: &mut NodeCore, host: &mut Host) {
        let Some(group) = core.group(self.group) else { return };
        let late = self.own_writes.is_late(group.commit_index(), host.now);
        if late && group.is_serving() && self.successor(group).is_some() {
            host.notice(self.group, Notice::OwnWritesLag);
            core.step(host.now, NodeInput::GroupStalled { group: self.group });
        }
    }
}

/// Whether this follower could lead without much to fetch.
pub(crate) fn is_fit(core: &Core, node: NodeId) -> bool {
    let peer = core.progress().iter().find(|peer| peer.node == node);
    core.is_up(node)
        && peer.is_some_and(|peer| {
            peer.recovering.is_none()
                && peer.flow == Flow::Replicate
                && peer.acked + BEHIND >= core.commit_index()
        })
}
