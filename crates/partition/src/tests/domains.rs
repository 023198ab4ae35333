//! Settings of a domain on their way to the queues of a partition.

use std::sync::Arc;

use flintmq_queue::{DomainId, DomainSettings, Limits, QueueId};

use super::clients::{close, domain, open, open_queue};
use super::world::World;
use crate::{AdminRefusal, Answer, Removable, Request, Ticket};

fn limited(messages: u64) -> DomainSettings {
    let queue_limits = Limits { messages, bytes: u64::MAX };
    DomainSettings { queue_limits, ..DomainSettings::priority() }
}

fn set(ticket: u64, version: u64) -> Request {
    let domain = Arc::new(domain(version, limited(version)));
    Request::SetDomain { ticket: Ticket(ticket), domain }
}

/// The limit of queues of the domain at a node, which is the version of its settings.
fn limit(world: &World, at: usize) -> u64 {
    let known = world.nodes[at].engine.machine().domain(DomainId(1));
    known.map_or(0, |(_, settings)| settings.queue_limits.messages)
}

fn is_done(world: &World, at: usize, ticket: u64) -> bool {
    matches!(world.answers(at, ticket), [Answer::DomainSet(Ok(()))])
}

fn entries(world: &World) -> usize {
    world.nodes[0].group.log.len()
}

#[test]
fn one_entry_changes_all_queues_and_is_answered_when_it_is_in_force() {
    let mut world = World::led(3);
    for queue in 1..=5 {
        world.ask(0, open_queue(1, 10 + u64::from(queue), false, queue));
    }
    world.commits = false;
    let before = entries(&world);
    // By the leader's own node, and by the one that took the change.
    world.ask(0, set(50, 2));
    world.ask(2, set(51, 2));
    assert!(world.answers(0, 50).is_empty() && world.answers(2, 51).is_empty());
    world.commits = true;
    world.settle();
    world.tick();
    assert!(is_done(&world, 0, 50) && is_done(&world, 2, 51));
    assert_eq!(entries(&world), before + 1, "one command per version");
    assert_eq!([0, 1, 2].map(|at| limit(&world, at)), [2, 2, 2]);
}

#[test]
fn a_partition_without_queues_of_the_domain_logs_nothing() {
    let mut world = World::led(2);
    let before = entries(&world);
    world.ask(0, set(50, 2));
    world.ask(1, set(51, 2));
    assert!(is_done(&world, 0, 50) && is_done(&world, 1, 51));
    assert_eq!(entries(&world), before);
}

#[test]
fn settings_that_are_known_or_older_log_nothing() {
    let mut world = World::led(2);
    world.ask(0, open(1, 11, false));
    world.ask(0, set(50, 3));
    let before = entries(&world);
    world.ask(0, set(51, 3));
    world.ask(1, set(52, 2));
    assert!(is_done(&world, 0, 51) && is_done(&world, 1, 52));
    assert_eq!((entries(&world), limit(&world, 1)), (before, 3));
}

#[test]
fn a_change_reaches_a_queue_whose_creation_is_under_way() {
    let mut world = World::led(2);
    world.commits = false;
    world.ask(1, open(1, 11, false));
    world.ask(0, set(50, 2));
    assert!(world.answers(0, 50).is_empty());
    world.commits = true;
    world.settle();
    world.tick();
    assert!(is_done(&world, 0, 50));
    assert_eq!(limit(&world, 1), 2);
}

#[test]
fn the_leader_tells_under_which_settings_a_queue_was_created() {
    let mut world = World::led(2);
    world.ask(1, open(1, 11, false));
    let created = |at: usize| world.nodes[at].client.created.clone();
    assert_eq!(created(0), [("bmq://domain/queue1".to_owned(), 1)]);
    assert_eq!(created(1), [], "a follower tells nothing");
}

#[test]
fn a_queue_created_while_the_last_one_of_its_domain_is_deleted_has_its_settings() {
    let mut world = World::led(2);
    world.ask(0, open(1, 11, false));
    world.ask(0, close(1, 11, 1));
    world.ticks(3);
    world.commits = false;
    let queue = QueueId(1);
    world.ask(0, Request::Delete { ticket: Ticket(50), queue, only_if: Removable::Closed });
    world.ask(1, open_queue(2, 21, false, 2));
    world.commits = true;
    world.settle();
    world.tick();
    assert!(matches!(world.answers(0, 50), [Answer::Deleted(Ok(()))]));
    assert!(matches!(world.answers(1, 21), [Answer::Opened(Ok(()))]));
    assert_eq!(world.nodes[0].engine.machine().domain(DomainId(1)).map(|(v, _)| v.index), Some(1));
}

#[test]
fn a_change_without_a_leader_or_under_way_when_it_goes_is_to_be_repeated() {
    let mut world = World::led(3);
    world.ask(0, open(1, 11, false));
    world.commits = false;
    world.ask(0, set(50, 2));
    world.ask(2, set(51, 2));
    world.isolated.insert(0);
    world.elect(1);
    world.heal(0);
    world.commits = true;
    world.ticks(3);
    for (at, ticket) in [(0, 50), (2, 51)] {
        let [answer] = world.answers(at, ticket) else { panic!("answered once") };
        let refused = matches!(answer, Answer::DomainSet(Err(AdminRefusal::Failed(_))));
        assert!(refused, "{answer:?}");
    }
    let mut world = World::new(1);
    world.ask(0, set(52, 2));
    assert!(matches!(world.answers(0, 52), [Answer::DomainSet(Err(_))]));
}
