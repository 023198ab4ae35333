//! The configuration register: who votes, ordered by term and version.

/// A set of nodes, one bit each.
pub type Nodes = u8;

/// The set with just this node.
#[must_use]
pub fn only(node: u8) -> Nodes {
    1 << node
}

/// The members that vote; beside the log, durable.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub struct Config {
    /// Term of the leader that wrote or re-stamped it.
    pub term: u8,
    /// Version within that succession.
    pub version: u8,
    /// Those who vote.
    pub voters: Nodes,
    /// Those who voted before, while several change at once; else nobody.
    pub outgoing: Nodes,
}

fn is_majority(of: Nodes, who: Nodes) -> bool {
    2 * (who & of).count_ones() > of.count_ones()
}

impl Config {
    /// What configurations are ordered by.
    #[must_use]
    pub fn stamp(&self) -> (u8, u8) {
        (self.term, self.version)
    }

    /// A majority of the voters and, while joint, of the outgoing ones too.
    #[must_use]
    pub fn is_quorum(&self, who: Nodes) -> bool {
        is_majority(self.voters, who) && (self.outgoing == 0 || is_majority(self.outgoing, who))
    }

    /// All voters of both lists.
    #[must_use]
    pub fn is_everyone(&self, who: Nodes) -> bool {
        self.all() & !who == 0
    }

    /// The voters of both lists.
    #[must_use]
    pub fn all(&self) -> Nodes {
        self.voters | self.outgoing
    }

    /// True for a voter of either list.
    #[must_use]
    pub fn is_voter(&self, node: u8) -> bool {
        self.all() & only(node) != 0
    }

    /// The same members without the dead; each list on its own, so that a quorum of before and one
    /// of after still meet. A list of which nobody is left disappears.
    #[must_use]
    pub fn without(&self, dead: Nodes) -> Self {
        let (voters, outgoing) = (self.voters & !dead, self.outgoing & !dead);
        if voters == 0 {
            Self { voters: outgoing, outgoing: 0, ..*self }
        } else {
            Self { voters, outgoing, ..*self }
        }
    }
}
