//! With which nodes a cluster begins: single-decree Paxos among the nodes of `[[cluster_nodes]]`,
//! each of which shows the others all that it has promised and accepted.
//!
//! Every data directory has a number. The value agreed on is the set of *founders*: at least a
//! majority of the configured nodes, each with the number of its directory. Every configured node
//! is an acceptor. Its [`Position`] only grows, and is on the disk before it is shown:
//!
//! 1. It promises the highest ballot that it has seen.
//! 2. It accepts the founders that were accepted at a ballot at least as high as its promise.
//! 3. The owner of a ballot that a majority has promised accepts founders at it: those accepted at
//!    the highest ballot among that majority, or else all nodes that it hears.
//! 4. Founders that a majority has accepted at one ballot are chosen.
//!
//! Two majorities share a node, so no two sets are ever chosen, whatever is lost, late or doubled
//! and whichever nodes restart. [`super::formation`] says what follows for a node that lost its
//! directory. Here is neither I/O nor a clock: times are milliseconds of the caller's.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Nodes with the numbers of their directories.
pub(crate) type Founders = BTreeMap<u32, u64>;

/// After how long without a word a node no longer counts as present.
const PRESENT_MS: u64 = 1_000;

/// How long a majority waits for the rest. Nodes that come later join by themselves, which takes
/// longer than to be there from the beginning.
pub(super) const GRACE_MS: u64 = 5_000;

/// How long an attempt may take before the next one, and by how much each node waits longer than
/// the one before it.
const RETRY_MS: u64 = 1_000;

/// Orders attempts; each belongs to one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Ballot {
    round: u64,
    node: u32,
}

/// What one node has promised and accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// It takes part in no attempt below.
    #[serde(default)]
    promised: Ballot,
    /// At which ballot it accepted `founders`.
    #[serde(default)]
    accepted: Ballot,
    /// Empty when it has accepted none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    founders: Founders,
}

/// What a node shows to the others while it does not know the founders.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Showing {
    /// The nodes of its configuration. Nodes that do not agree on them do not count for each other.
    pub(super) nodes: BTreeSet<u32>,
    /// Its position.
    pub(super) position: Position,
}

/// The agreement, as one node takes part in it.
pub(super) struct Founding {
    own: u32,
    number: u64,
    nodes: BTreeSet<u32>,
    position: Position,
    heard: BTreeMap<u32, Heard>,
    /// Since when a majority is present.
    majority_since: Option<u64>,
    last_attempt: Option<u64>,
}

struct Heard {
    number: u64,
    position: Position,
    at: u64,
}

impl Founding {
    /// For the node `own`, one of `nodes`, whose directory has `number` and was left at `position`.
    pub(super) fn new(own: u32, number: u64, nodes: BTreeSet<u32>, position: Position) -> Self {
        let (heard, majority_since, last_attempt) = (BTreeMap::new(), None, None);
        Self { own, number, nodes, position, heard, majority_since, last_attempt }
    }

    /// What has to be on the disk before it is shown.
    pub(super) fn position(&self) -> &Position {
        &self.position
    }

    /// What the others are shown.
    pub(super) fn showing(&self) -> Showing {
        Showing { nodes: self.nodes.clone(), position: self.position.clone() }
    }

    /// Takes what a node with this directory shows. True when the own position changed: save it,
    /// then show it. False also for a node whose configuration is another one.
    pub(super) fn hear(&mut self, from: u32, number: u64, said: Showing, now: u64) -> bool {
        if from == self.own || !self.nodes.contains(&from) || said.nodes != self.nodes {
            return false;
        }
        let before = self.position.clone();
        let said = said.position;
        self.position.promised = self.position.promised.max(said.promised);
        if said.accepted >= self.position.promised && said.accepted > self.position.accepted {
            self.position = Position { promised: said.accepted, ..said.clone() };
        }
        self.heard.insert(from, Heard { number, position: said, at: now });
        self.accept_own(now);
        self.position != before
    }

    /// Begins an attempt if it is time. True when the own position changed, as in [`Self::hear`].
    pub(super) fn tick(&mut self, now: u64) -> bool {
        let present = self.present(now);
        if present.len() < self.majority() {
            self.majority_since = None;
            return false;
        }
        let since = *self.majority_since.get_or_insert(now);
        // One after the other, so that mostly only the first has to try.
        let turn = present.keys().take_while(|node| **node < self.own).count() as u64;
        let grace = if present.len() == self.nodes.len() { 0 } else { GRACE_MS };
        let first = since + grace + turn * RETRY_MS;
        let again = self.last_attempt.map_or(0, |last| last + (turn + 1) * RETRY_MS);
        if now < first.max(again) {
            return false;
        }
        self.last_attempt = Some(now);
        self.attempt(now);
        true
    }

    /// Promises an attempt of its own, above all that it has seen.
    fn attempt(&mut self, now: u64) {
        let round = self.position.promised.round + 1;
        self.position.promised = Ballot { round, node: self.own };
        // A majority may be this node alone.
        self.accept_own(now);
    }

    /// The founders, once they are chosen as far as this node knows.
    pub(super) fn chosen(&self) -> Option<&Founders> {
        let ballot = self.position.accepted;
        let others = self.heard.values().filter(|heard| heard.position.accepted == ballot).count();
        let is_chosen = ballot > Ballot::default() && others + 1 >= self.majority();
        is_chosen.then_some(&self.position.founders)
    }

    /// The nodes that have not been heard lately.
    pub(super) fn missing(&self, now: u64) -> Vec<u32> {
        let present = self.present(now);
        self.nodes.iter().copied().filter(|node| !present.contains_key(node)).collect()
    }

    fn majority(&self) -> usize {
        self.nodes.len() / 2 + 1
    }

    /// This node and those that were heard lately, with their directories.
    fn present(&self, now: u64) -> Founders {
        let heard = self.heard.iter().filter(|(_, heard)| now < heard.at + PRESENT_MS);
        let heard = heard.map(|(node, heard)| (*node, heard.number));
        heard.chain([(self.own, self.number)]).collect()
    }

    /// Chooses the founders of the own attempt as soon as a majority has promised it.
    fn accept_own(&mut self, now: u64) {
        let ballot = self.position.promised;
        if ballot.node != self.own || self.position.accepted >= ballot {
            return;
        }
        let promised = self.heard.values().map(|heard| &heard.position);
        let promised = promised.filter(|position| position.promised == ballot);
        let promised: Vec<&Position> = promised.chain([&self.position]).collect();
        if promised.len() < self.majority() {
            return;
        }
        let highest = promised.into_iter().max_by_key(|position| position.accepted);
        let accepted = highest.map(|position| position.founders.clone()).unwrap_or_default();
        let founders = if accepted.is_empty() { self.present(now) } else { accepted };
        if founders.len() >= self.majority() {
            self.position = Position { promised: ballot, accepted: ballot, founders };
        }
    }
}

#[cfg(test)]
#[path = "founding_tests.rs"]
mod tests;
