//! What is true of a node's books after every flush.

use super::*;
use crate::node::budget;

/// Compares everything that is kept up to date step by step with what it is kept about.
pub(super) fn check_books(node: &NodeCore, now: Time) {
    let books = &node.books;
    let groups = || node.groups.iter();

    let armed: BTreeSet<(Time, GroupId)> =
        groups().filter_map(|(id, group)| group.armed.map(|at| (at, *id))).collect();
    assert_eq!(*books.timers.all(), armed, "each timer is its group's");
    let waiting: BTreeSet<GroupId> = books.elections.waiting().copied().collect();
    for (id, group) in groups() {
        let due = group.core.next_deadline();
        let on_time = due.is_none_or(|due| group.armed.is_some_and(|armed| armed <= due));
        let held = group.standing.waiting || books.stopping;
        assert!(on_time || (held && due.is_some_and(|due| due <= now)), "{id} is ticked in time");
        assert!(!group.standing.waiting || waiting.contains(id), "{id} has its turn");
        assert!(!group.dirty && group.effects.is_empty(), "{id} is flushed");
        assert_eq!(group.standing.electing, group.core.is_electing(), "{id}");
    }
    let counted = groups().filter(|(_, group)| group.standing.is_counted()).count();
    assert_eq!(books.elections.active(), counted, "elections are counted once");

    let mut groups_of: BTreeMap<NodeId, BTreeSet<GroupId>> = BTreeMap::new();
    for (id, group) in groups() {
        assert_eq!(group.peers, group.find_peers(), "{id} knows its peers");
        for peer in &group.peers {
            groups_of.entry(*peer).or_default().insert(*id);
            if group.core.role() != Role::Failed {
                assert_eq!(group.core.is_up(*peer), books.is_up(*peer), "{id} knows of {peer}");
            }
        }
    }
    assert_eq!(books.groups_of, groups_of, "peers are told of to whom they matter");

    for (peer, state) in &books.peers {
        let mut in_flight = 0;
        let lined_up: BTreeSet<GroupId> = state.pair.waiting().copied().collect();
        for (id, group) in groups() {
            let account = group.accounts.iter().find(|account| account.peer == *peer);
            in_flight += account.map_or(0, |account| account.in_flight());
            let queued = account.is_some_and(|account| account.queued);
            assert!(!queued || lined_up.contains(id), "{id} has its turn with {peer}");
            let progress = group.core.progress().iter().find(|progress| progress.node == *peer);
            let Some(progress) = progress.filter(|_| group.core.role() == Role::Ready) else {
                continue;
            };
            assert!(progress.allowance.is_some(), "{id} is limited");
            let hungry = budget::is_hungry(&group.core, progress, &group.core.settings);
            assert!(!hungry || queued, "{id} waits for {peer}");
            let known = account.map_or(0, |account| account.in_flight());
            assert!(known >= progress.in_flight_bytes(), "{id} is accounted for");
        }
        assert_eq!(state.pair.in_flight(), in_flight, "nothing is on the way twice");
    }
}
