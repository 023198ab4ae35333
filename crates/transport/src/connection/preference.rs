//! Which one of two connections between the same nodes survives. Both sides come to the same
//! answer without asking each other.

use flintmq_consensus::NodeId;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Which process of the peer.
    pub(crate) incarnation: u64,
    /// Who dialled.
    pub(crate) dialed_by: NodeId,
}

/// True when the new connection takes the place of the present one between this node and `peer`.
///
/// - One to a later process of the peer always does: the earlier process is gone.
/// - One that the same node dialled does: a node dials only when it has lost the one before.
/// - Otherwise both dialled at one time, and the one of the node with the smaller number stays.
pub(crate) fn takes_over(node: NodeId, peer: NodeId, new: Claim, present: Claim) -> bool {
    if new.incarnation != present.incarnation {
        return new.incarnation > present.incarnation;
    }
    new.dialed_by == present.dialed_by || new.dialed_by == node.min(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: NodeId = NodeId(1);
    const HIGH: NodeId = NodeId(2);

    /// Whom a node is left with that meets two connections in this order.
    fn survivor(node: NodeId, peer: NodeId, first: Claim, second: Claim) -> Claim {
        if takes_over(node, peer, second, first) { second } else { first }
    }

    #[test]
    fn both_sides_keep_the_same_one_whatever_they_see_first() {
        let by_low = Claim { incarnation: 1, dialed_by: LOW };
        let by_high = Claim { incarnation: 1, dialed_by: HIGH };
        for (node, peer) in [(LOW, HIGH), (HIGH, LOW)] {
            assert_eq!(survivor(node, peer, by_low, by_high), by_low);
            assert_eq!(survivor(node, peer, by_high, by_low), by_low);
        }
    }

    #[test]
    fn a_later_process_and_a_second_dial_take_over() {
        let old = Claim { incarnation: 1, dialed_by: LOW };
        let restarted = Claim { incarnation: 2, dialed_by: HIGH };
        assert!(takes_over(LOW, HIGH, restarted, old));
        assert!(!takes_over(LOW, HIGH, old, restarted));
        let by_high = Claim { incarnation: 2, dialed_by: HIGH };
        assert!(takes_over(LOW, HIGH, by_high, restarted), "it dials when it lost the other");
    }
}
