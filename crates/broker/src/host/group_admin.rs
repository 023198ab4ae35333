//! What administrators ask of a group's replica.

use std::sync::Arc;

use flintmq_consensus::{GroupId, NodeId};
use flintmq_shard::{AdminAnswer, AdminCommand, Ceded, GroupView, NotCeded, Recovery};

use super::inbox::{ShardSender, Signal};
use super::tickets::Tickets;

/// The way to one group's replica for administrators; cheap to clone.
#[derive(Clone)]
pub(crate) struct GroupAdmin {
    group: GroupId,
    shard: ShardSender,
    tickets: Arc<Tickets<AdminAnswer>>,
}

impl GroupAdmin {
    pub(crate) fn new(
        group: GroupId,
        shard: ShardSender,
        tickets: Arc<Tickets<AdminAnswer>>,
    ) -> Self {
        Self { group, shard, tickets }
    }

    /// The group.
    pub(crate) fn group(&self) -> GroupId {
        self.group
    }

    /// What the replica knows of the group; none when the node is stopping.
    pub(crate) async fn inspect(&self) -> Option<GroupView> {
        match self.command(AdminCommand::Inspect).await? {
            AdminAnswer::Inspected(view) => Some(view),
            _ => None,
        }
    }

    /// Hands the leadership to a voter; answers when it is given up, or is not going to be. None
    /// when the node is stopping.
    pub(crate) async fn transfer(
        &self,
        to: NodeId,
        force: bool,
    ) -> Option<Result<Ceded, NotCeded>> {
        match self.command(AdminCommand::Transfer { to, force }).await? {
            AdminAnswer::Transferred(result) => Some(result),
            _ => None,
        }
    }

    /// This node keeps the leadership although another one usually has it.
    pub(crate) async fn keep_leadership(&self) {
        let _taken = self.command(AdminCommand::KeepLeadership).await;
    }

    /// Goes on without voters that are lost.
    pub(crate) async fn recover(&self, recovery: Recovery) {
        let _taken = self.command(AdminCommand::Recover(recovery)).await;
    }

    async fn command(&self, command: AdminCommand) -> Option<AdminAnswer> {
        let (ticket, answer) = self.tickets.issue();
        let group = self.group;
        if !self.shard.signal(Signal::Admin { group, ticket, command }) {
            return None;
        }
        answer.await.ok()
    }
}
