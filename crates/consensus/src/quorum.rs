//! Majorities, of one list of voters or of two at once.

use crate::{ConfigRegister, Index, NodeId};

fn is_majority(voters: &[NodeId], is_in: &impl Fn(NodeId) -> bool) -> bool {
    let count = voters.iter().filter(|node| is_in(**node)).count();
    2 * count > voters.len()
}

/// The greatest index that a majority has reached. Tries each voter's index instead of sorting
/// them: for the few voters that a group has, that is quicker and needs no memory.
fn majority_index(voters: &[NodeId], reached: &impl Fn(NodeId) -> Index) -> Index {
    voters
        .iter()
        .map(|node| reached(*node))
        .filter(|index| is_majority(voters, &|node| reached(node) >= *index))
        .max()
        .unwrap_or(0)
}

impl ConfigRegister {
    /// True when these nodes are a majority of the voters and, while several members change at
    /// once, also of the outgoing voters. Without voters nothing is a quorum.
    pub fn is_quorum(&self, is_in: impl Fn(NodeId) -> bool) -> bool {
        is_majority(&self.voters, &is_in)
            && (self.outgoing.is_empty() || is_majority(&self.outgoing, &is_in))
    }

    /// The greatest index that a quorum has reached.
    pub fn quorum_index(&self, reached: impl Fn(NodeId) -> Index) -> Index {
        let new = majority_index(&self.voters, &reached);
        if self.outgoing.is_empty() {
            new
        } else {
            new.min(majority_index(&self.outgoing, &reached))
        }
    }

    /// True when all voters, of both lists, are among these.
    pub fn is_everyone(&self, is_in: impl Fn(NodeId) -> bool) -> bool {
        !self.voters.is_empty() && self.voters.iter().chain(&self.outgoing).all(|node| is_in(*node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The obviously right way: sort, take the one in the middle.
    fn sorted_majority_index(reached: &[Index]) -> Index {
        let mut sorted = reached.to_vec();
        sorted.sort_unstable();
        sorted[(reached.len() - 1) / 2]
    }

    fn register(voters: &BTreeSet<u32>, outgoing: &BTreeSet<u32>) -> ConfigRegister {
        ConfigRegister {
            voters: voters.iter().copied().map(NodeId).collect(),
            outgoing: outgoing.iter().copied().map(NodeId).collect(),
            ..ConfigRegister::default()
        }
    }

    proptest! {
        #[test]
        fn quorum_index_agrees_with_sorting(
            voters in prop::collection::btree_set(0..9u32, 1..7),
            outgoing in prop::collection::btree_set(0..9u32, 0..7),
            reached in prop::collection::vec(0..6u64, 9),
        ) {
            let config = register(&voters, &outgoing);
            let of = |nodes: &BTreeSet<u32>| {
                sorted_majority_index(&nodes.iter().map(|n| reached[*n as usize]).collect::<Vec<_>>())
            };
            let plain = if outgoing.is_empty() {
                of(&voters)
            } else {
                of(&voters).min(of(&outgoing))
            };
            prop_assert_eq!(config.quorum_index(|node| reached[node.0 as usize]), plain);
        }

        /// What all of it rests on: two quorums of one configuration share a node, and so do one
        /// of a configuration and one of the joint configuration that follows it.
        #[test]
        fn quorums_meet(
            voters in prop::collection::btree_set(0..7u32, 1..6),
            next in prop::collection::btree_set(0..7u32, 1..6),
            one in prop::collection::btree_set(0..7u32, 0..7),
            other in prop::collection::btree_set(0..7u32, 0..7),
        ) {
            let none = BTreeSet::new();
            let (old, joint, new) =
                (register(&voters, &none), register(&next, &voters), register(&next, &none));
            let is = |set: &BTreeSet<u32>, config: &ConfigRegister| config.is_quorum(|n| set.contains(&n.0));
            for config in [&old, &joint] {
                if is(&one, config) && is(&other, &joint) {
                    prop_assert!(one.intersection(&other).next().is_some());
                }
            }
            if is(&one, &joint) && is(&other, &new) {
                prop_assert!(one.intersection(&other).next().is_some());
            }
        }
    }

    #[test]
    fn without_voters_there_is_no_quorum() {
        assert!(!ConfigRegister::default().is_quorum(|_| true));
        assert!(!ConfigRegister::default().is_everyone(|_| true));
        assert_eq!(ConfigRegister::default().quorum_index(|_| 9), 0);
    }
}
