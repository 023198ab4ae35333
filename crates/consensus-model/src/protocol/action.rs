//! The steps of the protocol.

use super::{Config, Log, Message, Nodes};

/// One step of one node, named by its first field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Stands in the next term.
    Campaign(u8),
    /// Takes the operator's order to go on without the dead.
    Order(u8, Nodes),
    /// Votes.
    Vote(u8, Message),
    /// Answers the sync request of the elected second node.
    AnswerSync(u8, u8),
    /// Has the chosen log, and re-stamps its configuration durably.
    FinishSync(u8, Log),
    /// The same, although nobody can tell what was acknowledged: the best of all answers.
    Fork(u8),
    /// Appends the barrier and leads.
    BecomeReady(u8),
    /// Has part of the chosen log.
    FetchPart(u8, Log),
    /// Appends an entry as the leader.
    Propose(u8),
    /// Takes the first entries of a leader's message.
    TakeAppend(u8, Message, u8),
    /// Commits up to here.
    Commit(u8, u8),
    /// Loses power: back to this log and this term.
    Lose(u8, Log, u8),
    /// Names a target to the recovering second node.
    Grant(u8, u8),
    /// Is normal again by a grant.
    TakeGrant(u8, Message),
    /// Is normal again with the log of the second node (wrong).
    TakePeerLog(u8, u8),
    /// Learns of a newer configuration.
    Learn(u8, Config),
    /// Tells the second node, its leader, that it holds its configuration.
    AckConfig(u8, u8),
    /// Changes the members.
    Change(u8, Config),
    /// Removes the dead of the operator's order.
    DropDead(u8),
}

impl Action {
    /// The node that takes the step.
    #[must_use]
    pub fn actor(&self) -> u8 {
        match self {
            Self::Campaign(node)
            | Self::Order(node, _)
            | Self::Vote(node, _)
            | Self::AnswerSync(node, _)
            | Self::FinishSync(node, _)
            | Self::Fork(node)
            | Self::BecomeReady(node)
            | Self::FetchPart(node, _)
            | Self::Propose(node)
            | Self::TakeAppend(node, ..)
            | Self::Commit(node, _)
            | Self::Lose(node, ..)
            | Self::Grant(node, _)
            | Self::TakeGrant(node, _)
            | Self::TakePeerLog(node, _)
            | Self::Learn(node, _)
            | Self::AckConfig(node, _)
            | Self::Change(node, _)
            | Self::DropDead(node) => *node,
        }
    }
}
