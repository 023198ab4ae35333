//! Which part of a node a group's messages are for: from the numbers by which shards know groups to
//! addressees of messages, and back.

use flintmq_consensus::GroupId;
use flintmq_peer_message::Addressee;
use flintmq_shard::{hosted_group, own_number};
use flintmq_transport::Lane;

/// For whom a message is that a shard sends under this number.
pub(crate) fn addressee_of(number: GroupId) -> Addressee {
    let group = hosted_group(number);
    if group != number {
        Addressee::Shard(group)
    } else if group == GroupId::CONTROLLER {
        Addressee::Controller
    } else {
        Addressee::Partition(group)
    }
}

/// The number under which the shard takes a message; none for one that is not for the shard. A
/// sender that mixes up kinds reaches no group.
pub(super) fn number_of(to: Addressee) -> Option<GroupId> {
    match to {
        Addressee::Shard(group) if hosted_group(group) == group => Some(own_number(group)),
        Addressee::Partition(group) if addressee_of(group) == to => Some(group),
        Addressee::Controller => Some(GroupId::CONTROLLER),
        _ => None,
    }
}

/// The stream that carries messages for this addressee, in order.
pub(super) fn lane_of(to: Addressee) -> Lane {
    Lane::gateway(match to {
        Addressee::Partition(group) | Addressee::Shard(group) => group.0,
        Addressee::Controller => GroupId::CONTROLLER.0,
        Addressee::Administration => u32::MAX - 1,
        Addressee::Formation => u32::MAX,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reaches_the_number_under_which_it_was_sent() {
        for number in [GroupId::CONTROLLER, GroupId(1), GroupId(700)] {
            for number in [number, own_number(number)] {
                assert_eq!(number_of(addressee_of(number)), Some(number));
            }
        }
    }

    #[test]
    fn addressees_that_are_no_group_of_their_kind_reach_none() {
        let own = own_number(GroupId(1));
        let wrong = [
            Addressee::Partition(GroupId::CONTROLLER),
            Addressee::Partition(own),
            Addressee::Shard(own),
            Addressee::Administration,
            Addressee::Formation,
        ];
        assert!(wrong.into_iter().all(|to| number_of(to).is_none()));
    }
}
