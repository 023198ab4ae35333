//! Nodes and terms as the model counts them.

use crate::protocol::Nodes;
use flintmq_consensus::{NodeId, Term};

/// Terms beyond this one are not followed.
const LAST_TERM: u8 = 240;

/// Room for the terms that those reach who have not heard of an operator's order.
const ROOM: u8 = 16;

/// Each operator's order has terms of its own, as many as this.
const ORDER_TERMS: Term = 1 << 32;

/// The number of the order in whose time a term is.
pub(super) fn order_of(term: Term) -> u64 {
    term / ORDER_TERMS
}

/// Translates the core's numbers, keeping their order.
#[derive(Clone, Debug)]
pub(super) struct Names {
    nodes: Vec<NodeId>,
    /// The orders that were met, and the model's number for the first term of each.
    eras: Vec<(Term, u8)>,
}

impl Names {
    /// The voters of the beginning come first.
    pub(super) fn new(nodes: &[NodeId], voters: &[NodeId]) -> Self {
        let rest = nodes.iter().filter(|node| !voters.contains(node));
        Self { nodes: voters.iter().chain(rest).copied().collect(), eras: vec![(0, 0)] }
    }

    /// The model's number of a node, as far as it is one of the group's.
    pub(super) fn node(&self, node: NodeId) -> Option<u8> {
        self.nodes.iter().position(|known| *known == node).map(|at| at as u8)
    }

    /// None when a node is not one of the group's.
    pub(super) fn set<'a>(&self, nodes: impl IntoIterator<Item = &'a NodeId>) -> Option<Nodes> {
        nodes.into_iter().try_fold(0, |set, node| Some(set | 1 << self.node(*node)?))
    }

    /// Prepares for a term that may be the first behind an operator's order.
    pub(super) fn meet(&mut self, term: Term, highest: u8) {
        let order = order_of(term);
        if self.eras.last().is_none_or(|last| last.0 < order) {
            self.eras.push((order, highest.saturating_add(ROOM)));
        }
    }

    /// None for a term that cannot be followed.
    pub(super) fn term(&self, term: Term) -> Option<u8> {
        let at = self.eras.iter().position(|era| era.0 == order_of(term))?;
        let number = u64::from(self.eras[at].1) + term % ORDER_TERMS;
        let end = self.eras.get(at + 1).map_or(LAST_TERM, |next| next.1);
        u8::try_from(number).ok().filter(|number| *number < end)
    }
}
