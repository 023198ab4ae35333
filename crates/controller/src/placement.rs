//! Which node is to hold which group: a plan that moves as little as it can.
//!
//! Partitions are spread evenly, each on as many nodes as the cluster wants, and so are the nodes
//! that should lead them. All nodes hear what the controller decides; a few of them vote there.

use std::collections::BTreeMap;

use flintmq_consensus::MAX_VOTERS;

use crate::membership::{ClusterMembership, NodeState, ReplicaAssignment};

/// Voters of the controller at most: more would make every change slower and outlive hardly more.
const CONTROLLER_VOTERS: usize = 5;

/// How many groups each node holds, or leads.
type Load = BTreeMap<u32, usize>;

/// The places that are to change so that all groups are where they should be; empty when they are.
/// Nodes that are away keep what they have, and get nothing new while there are others.
pub fn plan(
    membership: &ClusterMembership,
    partitions: u32,
    away: &impl Fn(u32) -> bool,
) -> BTreeMap<u32, ReplicaAssignment> {
    let homes: Vec<u32> =
        membership.nodes().filter(|node| membership.is_home(node)).map(|node| node.id).collect();
    if homes.is_empty() {
        return BTreeMap::new();
    }
    let mut places = partition_places(membership, partitions, &homes, away);
    spread_leaders(membership, &homes, &mut places);
    places.insert(0, controller_place(membership, &homes, away));
    places.retain(|group, place| membership.assignments.get(group) != Some(place));
    places
}

fn controller_place(
    membership: &ClusterMembership,
    homes: &[u32],
    away: &impl Fn(u32) -> bool,
) -> ReplicaAssignment {
    let present = membership.assignments.get(&0).map_or(&[][..], |place| &place.voters);
    let mut voters: Vec<u32> =
        present.iter().copied().filter(|voter| homes.contains(voter)).collect();
    let others = homes.iter().copied().filter(|id| !voters.contains(id));
    let mut others: Vec<u32> = others.collect();
    others.sort_by_key(|id| (away(*id), *id));
    voters.extend(others);
    voters.truncate(CONTROLLER_VOTERS);
    voters.sort_unstable();
    // Who leaves hears of it to the end.
    let hears = |id: u32, state: NodeState| homes.contains(&id) || state == NodeState::Leaving;
    let learners = membership.nodes().filter(|node| hears(node.id, node.state)).map(|node| node.id);
    let learners = learners.filter(|id| !voters.contains(id)).collect();
    ReplicaAssignment { voters, learners, leader: None }
}

fn partition_places(
    membership: &ClusterMembership,
    partitions: u32,
    homes: &[u32],
    away: &impl Fn(u32) -> bool,
) -> BTreeMap<u32, ReplicaAssignment> {
    let wanted = membership.replicas().map_or(usize::MAX, |replicas| replicas.max(1) as usize);
    let count = wanted.min(homes.len()).min(MAX_VOTERS);
    let mut places: BTreeMap<u32, ReplicaAssignment> = (1..=partitions)
        .map(|group| {
            let present = membership.assignments.get(&group).cloned().unwrap_or_default();
            let stays = present.voters.into_iter().filter(|voter| homes.contains(voter));
            (group, ReplicaAssignment { voters: stays.collect(), ..present })
        })
        .collect();
    let mut load: Load = homes.iter().map(|id| (*id, 0)).collect();
    for voter in places.values().flat_map(|place| &place.voters) {
        *load.entry(*voter).or_default() += 1;
    }
    for (group, place) in &mut places {
        while place.voters.len() > count {
            let fullest = fullest(&load, |id| place.voters.contains(&id));
            let Some(node) = fullest else { break };
            place.voters.retain(|voter| *voter != node);
            *load.entry(node).or_default() -= 1;
        }
        while place.voters.len() < count {
            let free = |id: u32| !place.voters.contains(&id);
            let there = emptiest(&load, homes, *group, |id| free(id) && !away(id));
            let Some(node) = there.or_else(|| emptiest(&load, homes, *group, free)) else { break };
            place.voters.push(node);
            *load.entry(node).or_default() += 1;
        }
    }
    even_out(&mut places, &mut load, away);
    for place in places.values_mut() {
        place.voters.sort_unstable();
        place.learners.clear();
    }
    places
}

/// Moves single replicas from the fullest node to the emptiest, while that makes it more even.
fn even_out(
    places: &mut BTreeMap<u32, ReplicaAssignment>,
    load: &mut Load,
    away: &impl Fn(u32) -> bool,
) {
    loop {
        let Some((&full, &most)) = load.iter().max_by_key(|(id, load)| (**load, **id)) else {
            return;
        };
        let there = load.iter().filter(|(id, _)| !away(**id));
        let Some((&empty, &least)) = there.min_by_key(|(id, load)| (**load, **id)) else {
            return;
        };
        let moves = |place: &&mut ReplicaAssignment| {
            place.voters.contains(&full) && !place.voters.contains(&empty)
        };
        if most < least + 2 {
            return;
        }
        let Some(place) = places.values_mut().find(moves) else { return };
        place.voters.retain(|voter| *voter != full);
        place.voters.push(empty);
        load.insert(full, most - 1);
        load.insert(empty, least + 1);
    }
}

/// Chooses who should lead each partition. Who should already goes on, up to a fair share.
fn spread_leaders(
    membership: &ClusterMembership,
    homes: &[u32],
    places: &mut BTreeMap<u32, ReplicaAssignment>,
) {
    let mut leads: Load = homes.iter().map(|id| (*id, 0)).collect();
    let share = places.len().div_ceil(homes.len());
    for (group, place) in places.iter_mut() {
        let before = membership.assignments.get(group).and_then(|before| before.leader);
        place.leader = before.filter(|id| {
            place.voters.contains(id) && leads.get(id).is_some_and(|leads| *leads < share)
        });
        if let Some(id) = place.leader {
            *leads.entry(id).or_default() += 1;
        }
    }
    for (group, place) in places.iter_mut().filter(|(_, place)| place.leader.is_none()) {
        let voters = &place.voters;
        place.leader = emptiest(&leads, voters, *group, |_| true);
        if let Some(id) = place.leader {
            *leads.entry(id).or_default() += 1;
        }
    }
}

fn fullest(load: &Load, among: impl Fn(u32) -> bool) -> Option<u32> {
    let among = load.iter().filter(|(id, _)| among(**id));
    among.max_by_key(|(id, load)| (**load, **id)).map(|(id, _)| *id)
}

/// The node with the least; of several, another one for each group.
fn emptiest(load: &Load, nodes: &[u32], group: u32, among: impl Fn(u32) -> bool) -> Option<u32> {
    let count = nodes.len().max(1);
    let turn = |at: usize| (at + count - group as usize % count) % count;
    let among = nodes.iter().enumerate().filter(|(_, id)| among(**id));
    among.min_by_key(|(at, id)| (load.get(id).copied().unwrap_or(0), turn(*at))).map(|(_, id)| *id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::MembershipCommand;
    use crate::membership::tests::membership_of;

    /// Plans and takes the plan up.
    fn settle(membership: &mut ClusterMembership, partitions: u32) -> usize {
        let places = plan(membership, partitions, &|_| false);
        let changed = places.len();
        let version = membership.version();
        if !places.is_empty() {
            membership.apply(MembershipCommand::Place { version, places }).unwrap();
        }
        assert!(
            plan(membership, partitions, &|_| false).is_empty(),
            "a plan that is carried out is at its end"
        );
        changed
    }

    fn admit(membership: &mut ClusterMembership, id: u32, replaces: Option<u32>) {
        membership.apply(MembershipCommand::Add { id, peers: "h:1".into(), replaces }).unwrap();
        membership.apply(MembershipCommand::Admit { id, directory: 1 }).unwrap();
    }

    fn loads(membership: &ClusterMembership) -> (Load, Load) {
        let (mut holds, mut leads) = (Load::new(), Load::new());
        for (_, place) in membership.assignments.iter().filter(|(group, _)| **group > 0) {
            for voter in &place.voters {
                *holds.entry(*voter).or_default() += 1;
            }
            *leads.entry(place.leader.unwrap()).or_default() += 1;
        }
        (holds, leads)
    }

    #[test]
    fn at_first_everybody_holds_everything_and_leads_take_turns() {
        let mut membership = membership_of(&[1, 2, 3]);
        settle(&mut membership, 4);
        let leaders: Vec<_> =
            (1..=4).map(|group| membership.assignments[&group].leader.unwrap()).collect();
        assert_eq!(leaders, [2, 3, 1, 2]);
        assert!(membership.assignments.values().all(|place| place.voters == [1, 2, 3]));
    }

    #[test]
    fn few_replicas_are_spread_evenly_and_stay_where_they_are() {
        let mut membership = membership_of(&[1, 2, 3, 4]);
        membership.head.replicas = Some(3);
        settle(&mut membership, 8);
        let (holds, leads) = loads(&membership);
        assert!(holds.values().all(|count| *count == 6), "{holds:?}");
        assert!(leads.values().all(|count| *count == 2), "{leads:?}");
        assert_eq!(settle(&mut membership, 8), 0);
        let before = membership.assignments.clone();
        admit(&mut membership, 5, None);
        settle(&mut membership, 8);
        let (holds, _) = loads(&membership);
        assert!(holds.values().all(|count| (4..=5).contains(count)), "{holds:?}");
        let moved = |group: &u32| {
            let kept = before[group]
                .voters
                .iter()
                .filter(|v| membership.assignments[group].voters.contains(v));
            3 - kept.count()
        };
        assert_eq!((1..=8).map(|group| moved(&group)).sum::<usize>(), 4, "no more than needed");
    }

    #[test]
    fn who_leaves_is_replaced_and_hears_of_it() {
        let mut membership = membership_of(&[1, 2, 3]);
        settle(&mut membership, 2);
        admit(&mut membership, 4, Some(3));
        settle(&mut membership, 2);
        for group in 0..=2 {
            assert_eq!(membership.assignments[&group].voters, [1, 2, 4], "{group}");
        }
        assert_eq!(membership.assignments[&0].learners, [3]);
        membership.apply(MembershipCommand::Forget { id: 3 }).unwrap();
        settle(&mut membership, 2);
        assert_eq!(membership.assignments[&0].learners, [0; 0]);
    }

    #[test]
    fn five_vote_for_the_controller_and_all_hear_it() {
        let mut membership = membership_of(&[1, 2, 3, 4, 5, 6, 7]);
        settle(&mut membership, 1);
        assert_eq!(membership.assignments[&0].voters, [1, 2, 3, 4, 5]);
        assert_eq!(membership.assignments[&0].learners, [6, 7]);
        membership.apply(MembershipCommand::Remove { id: 2 }).unwrap();
        settle(&mut membership, 1);
        assert_eq!(membership.assignments[&0].voters, [1, 3, 4, 5, 6]);
        assert_eq!(membership.assignments[&0].learners, [2, 7]);
    }

    #[test]
    fn who_is_away_keeps_what_it_has_and_gets_nothing_new() {
        let mut membership = membership_of(&[1, 2, 3, 4, 5]);
        membership.head.replicas = Some(3);
        settle(&mut membership, 10);
        let away = |id: u32| id == 5;
        assert!(plan(&membership, 10, &away).is_empty());
        membership.apply(MembershipCommand::Remove { id: 1 }).unwrap();
        let places = plan(&membership, 10, &away);
        assert!(!places.is_empty());
        for (group, place) in places.iter().filter(|(group, _)| **group > 0) {
            let had = membership.assignments[group].voters.contains(&5);
            assert!(had || !place.voters.contains(&5), "{group}");
        }
        membership.apply(MembershipCommand::Remove { id: 2 }).unwrap();
        let places = plan(&membership, 10, &away);
        assert!(places.values().all(|place| place.voters == [3, 4, 5]), "there is nobody else");
    }

    #[test]
    fn a_drained_node_keeps_what_it_holds() {
        let mut membership = membership_of(&[1, 2, 3]);
        settle(&mut membership, 3);
        membership.apply(MembershipCommand::Drain { id: 2, draining: true }).unwrap();
        assert_eq!(settle(&mut membership, 3), 0);
    }
}
