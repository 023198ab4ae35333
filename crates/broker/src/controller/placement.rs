//! Which node is to hold which group: a plan that moves as little as it can.
//!
//! Partitions are spread evenly, each on as many nodes as the cluster wants, and so are the nodes
//! that should lead them. All nodes hear what the controller decides; a few of them vote there.

use std::collections::BTreeMap;

use flintmq_consensus::MAX_VOTERS;

use super::roster::{NodeState, Place, Roster};

/// Voters of the controller at most: more would make every change slower and outlive hardly more.
const CONTROLLER_VOTERS: usize = 5;

/// How many groups each node holds, or leads.
type Load = BTreeMap<u32, usize>;

/// The places that are to change so that all groups are where they should be; empty when they are.
/// Nodes that are away keep what they have, and get nothing new while there are others.
pub(crate) fn plan(
    roster: &Roster,
    partitions: u32,
    away: &impl Fn(u32) -> bool,
) -> BTreeMap<u32, Place> {
    let homes: Vec<u32> =
        roster.nodes().filter(|node| roster.is_home(node)).map(|node| node.id).collect();
    if homes.is_empty() {
        return BTreeMap::new();
    }
    let mut places = partition_places(roster, partitions, &homes, away);
    spread_leaders(roster, &homes, &mut places);
    places.insert(0, controller_place(roster, &homes, away));
    places.retain(|group, place| roster.places.get(group) != Some(place));
    places
}

fn controller_place(roster: &Roster, homes: &[u32], away: &impl Fn(u32) -> bool) -> Place {
    let present = roster.places.get(&0).map_or(&[][..], |place| &place.voters);
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
    let learners = roster.nodes().filter(|node| hears(node.id, node.state)).map(|node| node.id);
    let learners = learners.filter(|id| !voters.contains(id)).collect();
    Place { voters, learners, leader: None }
}

fn partition_places(
    roster: &Roster,
    partitions: u32,
    homes: &[u32],
    away: &impl Fn(u32) -> bool,
) -> BTreeMap<u32, Place> {
    let wanted = roster.replicas().map_or(usize::MAX, |replicas| replicas.max(1) as usize);
    let count = wanted.min(homes.len()).min(MAX_VOTERS);
    let mut places: BTreeMap<u32, Place> = (1..=partitions)
        .map(|group| {
            let present = roster.places.get(&group).cloned().unwrap_or_default();
            let stays = present.voters.into_iter().filter(|voter| homes.contains(voter));
            (group, Place { voters: stays.collect(), ..present })
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
fn even_out(places: &mut BTreeMap<u32, Place>, load: &mut Load, away: &impl Fn(u32) -> bool) {
    loop {
        let Some((&full, &most)) = load.iter().max_by_key(|(id, load)| (**load, **id)) else {
            return;
        };
        let there = load.iter().filter(|(id, _)| !away(**id));
        let Some((&empty, &least)) = there.min_by_key(|(id, load)| (**load, **id)) else {
            return;
        };
        let moves =
            |place: &&mut Place| place.voters.contains(&full) && !place.voters.contains(&empty);
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
fn spread_leaders(roster: &Roster, homes: &[u32], places: &mut BTreeMap<u32, Place>) {
    let mut leads: Load = homes.iter().map(|id| (*id, 0)).collect();
    let share = places.len().div_ceil(homes.len());
    for (group, place) in places.iter_mut() {
        let before = roster.places.get(group).and_then(|before| before.leader);
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
    use super::super::roster::RosterCommand;
    use super::super::roster::tests::roster_of;
    use super::*;

    /// Plans and takes the plan up.
    fn settle(roster: &mut Roster, partitions: u32) -> usize {
        let places = plan(roster, partitions, &|_| false);
        let changed = places.len();
        let version = roster.version();
        roster.apply(RosterCommand::Place { version, places });
        assert!(
            plan(roster, partitions, &|_| false).is_empty(),
            "a plan that is carried out is at its end"
        );
        changed
    }

    fn admit(roster: &mut Roster, id: u32, replaces: Option<u32>) {
        roster.apply(RosterCommand::Add { id, peers: "h:1".into(), replaces }).unwrap();
        roster.apply(RosterCommand::Admit { id, directory: 1 }).unwrap();
    }

    fn loads(roster: &Roster) -> (Load, Load) {
        let (mut holds, mut leads) = (Load::new(), Load::new());
        for (_, place) in roster.places.iter().filter(|(group, _)| **group > 0) {
            for voter in &place.voters {
                *holds.entry(*voter).or_default() += 1;
            }
            *leads.entry(place.leader.unwrap()).or_default() += 1;
        }
        (holds, leads)
    }

    #[test]
    fn at_first_everybody_holds_everything_and_leads_take_turns() {
        let mut roster = roster_of(&[1, 2, 3]);
        settle(&mut roster, 4);
        let leaders: Vec<_> = (1..=4).map(|group| roster.places[&group].leader.unwrap()).collect();
        assert_eq!(leaders, [2, 3, 1, 2]);
        assert!(roster.places.values().all(|place| place.voters == [1, 2, 3]));
    }

    #[test]
    fn few_replicas_are_spread_evenly_and_stay_where_they_are() {
        let mut roster = roster_of(&[1, 2, 3, 4]);
        roster.head.replicas = Some(3);
        settle(&mut roster, 8);
        let (holds, leads) = loads(&roster);
        assert!(holds.values().all(|count| *count == 6), "{holds:?}");
        assert!(leads.values().all(|count| *count == 2), "{leads:?}");
        assert_eq!(settle(&mut roster, 8), 0);
        let before = roster.places.clone();
        admit(&mut roster, 5, None);
        settle(&mut roster, 8);
        let (holds, _) = loads(&roster);
        assert!(holds.values().all(|count| (4..=5).contains(count)), "{holds:?}");
        let moved = |group: &u32| {
            let kept =
                before[group].voters.iter().filter(|v| roster.places[group].voters.contains(v));
            3 - kept.count()
        };
        assert_eq!((1..=8).map(|group| moved(&group)).sum::<usize>(), 4, "no more than needed");
    }

    #[test]
    fn who_leaves_is_replaced_and_hears_of_it() {
        let mut roster = roster_of(&[1, 2, 3]);
        settle(&mut roster, 2);
        admit(&mut roster, 4, Some(3));
        settle(&mut roster, 2);
        for group in 0..=2 {
            assert_eq!(roster.places[&group].voters, [1, 2, 4], "{group}");
        }
        assert_eq!(roster.places[&0].learners, [3]);
        roster.apply(RosterCommand::Forget { id: 3 }).unwrap();
        settle(&mut roster, 2);
        assert_eq!(roster.places[&0].learners, [0; 0]);
    }

    #[test]
    fn five_vote_for_the_controller_and_all_hear_it() {
        let mut roster = roster_of(&[1, 2, 3, 4, 5, 6, 7]);
        settle(&mut roster, 1);
        assert_eq!(roster.places[&0].voters, [1, 2, 3, 4, 5]);
        assert_eq!(roster.places[&0].learners, [6, 7]);
        roster.apply(RosterCommand::Remove { id: 2 }).unwrap();
        settle(&mut roster, 1);
        assert_eq!(roster.places[&0].voters, [1, 3, 4, 5, 6]);
        assert_eq!(roster.places[&0].learners, [2, 7]);
    }

    #[test]
    fn who_is_away_keeps_what_it_has_and_gets_nothing_new() {
        let mut roster = roster_of(&[1, 2, 3, 4, 5]);
        roster.head.replicas = Some(3);
        settle(&mut roster, 10);
        let away = |id: u32| id == 5;
        assert!(plan(&roster, 10, &away).is_empty());
        roster.apply(RosterCommand::Remove { id: 1 }).unwrap();
        let places = plan(&roster, 10, &away);
        assert!(!places.is_empty());
        for (group, place) in places.iter().filter(|(group, _)| **group > 0) {
            let had = roster.places[group].voters.contains(&5);
            assert!(had || !place.voters.contains(&5), "{group}");
        }
        roster.apply(RosterCommand::Remove { id: 2 }).unwrap();
        let places = plan(&roster, 10, &away);
        assert!(places.values().all(|place| place.voters == [3, 4, 5]), "there is nobody else");
    }

    #[test]
    fn a_drained_node_keeps_what_it_holds() {
        let mut roster = roster_of(&[1, 2, 3]);
        settle(&mut roster, 3);
        roster.apply(RosterCommand::Drain { id: 2, draining: true }).unwrap();
        assert_eq!(settle(&mut roster, 3), 0);
    }
}
