//! The state of all nodes and of the network.

use super::{Config, Log, Nodes, only};
use std::collections::BTreeSet;

/// What a node is doing.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Not leading.
    Follower,
    /// Stands for election; in its sync phase once it is in [`State::elected`].
    Candidate,
    /// Elected and finished fetching; the re-stamped configuration is durable, the barrier is not
    /// written yet.
    Finishing,
    /// Ready: appends entries.
    Leader,
}

/// One node.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    /// Durable; a vote **is** the raising of the term.
    pub term: u8,
    /// Durable.
    pub config: Config,
    /// Volatile.
    pub role: Role,
    /// Written, not synced.
    pub log: Log,
    /// May lack what it acknowledged.
    pub recovering: bool,
    /// Of a leader: what its present configuration must have before the next change.
    pub need: u8,
    /// Earlier versions of the log that a power loss may bring back.
    pub versions: BTreeSet<Log>,
    /// Whether it ever stands.
    pub stands: bool,
    /// Acknowledges, and keeps nothing.
    pub witness: bool,
    /// The dead of an operator's order that this node carries out.
    pub order: Nodes,
}

/// What is under way. A message is lost by never being handled; it can be handled again and again.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // fields are named as in the protocol
pub enum Message {
    /// Vote for me.
    Propose { term: u8, from: u8, config: Config },
    /// A vote, or an answer to the sync request of the elected.
    Reply { term: u8, from: u8, to: u8, log: Log, recovering: bool },
    /// All of the leader's log; a receiver takes any prefix.
    Append { term: u8, from: u8, log: Log },
    /// The log equals the leader's up to here.
    Ack { term: u8, from: u8, to: u8, index: u8 },
    /// The sender holds this configuration and is in this term.
    ConfigAck { term: u8, from: u8, to: u8, config: Config },
    /// Normal again with this entry.
    Grant { term: u8, to: u8, index: u8, last: u8 },
}

/// An entry that some leader committed.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub struct Committed {
    /// Its index.
    pub index: u8,
    /// Its term.
    pub term: u8,
    /// The term of the leader that committed it first.
    pub by: u8,
}

impl Log {
    /// True when this entry is in the log.
    #[must_use]
    pub fn holds(&self, entry: &Committed) -> bool {
        self.at(entry.index) == entry.term
    }
}

/// Everything.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    /// By number.
    pub nodes: Vec<Node>,
    /// Under way, those that can still have an effect.
    pub messages: BTreeSet<Message>,
    /// What must not be lost.
    pub committed: BTreeSet<Committed>,
    /// Who was elected in which term.
    pub elected: BTreeSet<(u8, u8)>,
    /// Configurations that somebody may still learn of.
    pub configs: BTreeSet<Config>,
    /// Power losses so far.
    pub losses: u8,
    /// Changes of members so far.
    pub changes: u8,
    /// Forced recoveries so far.
    pub forks: u8,
    /// A forced recovery chose a log without an entry that survived.
    pub bad_fork: bool,
    /// Named by the operator: they take no step.
    pub dead: Nodes,
}

impl State {
    /// The node of this number.
    #[must_use]
    pub fn node(&self, node: u8) -> &Node {
        &self.nodes[usize::from(node)]
    }

    /// The node of this number.
    pub fn node_mut(&mut self, node: u8) -> &mut Node {
        &mut self.nodes[usize::from(node)]
    }

    /// True when the node won the election of its present term.
    #[must_use]
    pub fn is_elected(&self, node: u8) -> bool {
        self.elected.contains(&(self.node(node).term, node))
    }

    /// The answers that a candidate has: who, with which log, and whether it recovers. The own log
    /// is always the present one.
    #[must_use]
    pub fn answers(&self, to: u8) -> Vec<(u8, Log, bool)> {
        let own = self.node(to);
        self.messages
            .iter()
            .filter_map(|message| match message {
                Message::Reply { term, from, to: t, log, recovering }
                    if *term == own.term && *t == to =>
                {
                    Some((*from, if *from == to { own.log } else { *log }, *recovering))
                }
                _ => None,
            })
            .collect()
    }

    /// Those who answered.
    #[must_use]
    pub fn answered(&self, to: u8) -> Nodes {
        self.answers(to).iter().fold(0, |who, answer| who | only(answer.0))
    }
}
