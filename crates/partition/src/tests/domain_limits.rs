//! How far the limits of a domain are kept whose queues are in several partitions, with leaders on
//! one node and on several: the bound of `docs/domains.md`.

use std::sync::Arc;

use flintmq_protocol::ack::AckStatus;
use flintmq_queue::{DomainId, DomainSettings, Limits};
use flintmq_shard::Machine as _;

use super::clients::{Seen, domain, open, sized};
use super::world::World;
use crate::leader::publishing::{MAX_ENTRY_BYTES, MAX_UNDER_WAY};
use crate::{DomainUsage, Request, Ticket};

/// Messages so large that few of them fill an entry.
const BYTES: usize = 200 << 10;

/// What a leader may have taken and not applied, in messages: the entries under way, and the one
/// that it collects. Headers make it less.
const BATCH: u64 = ((MAX_UNDER_WAY + 1) * MAX_ENTRY_BYTES.div_ceil(BYTES)) as u64;

/// Partitions of three nodes, each with one queue of the domain that its leader's node writes to.
struct Partitions {
    worlds: Vec<World>,
    leaders: Vec<usize>,
    next: u64,
}

impl Partitions {
    /// With the leader of each partition.
    fn led_by(leaders: &[usize], limit: u64) -> Self {
        let usages: Vec<Arc<DomainUsage>> = (0..3).map(|_| Arc::default()).collect();
        let worlds = leaders.iter().map(|leader| {
            let mut world = World::sharing(usages.clone());
            world.elect(*leader);
            world.tick();
            world.ask(*leader, open(1, 11, false));
            let domain_limits = Limits { messages: limit, bytes: u64::MAX };
            let settings = DomainSettings { domain_limits, ..DomainSettings::priority() };
            let domain = Arc::new(domain(2, settings));
            world.ask(*leader, Request::SetDomain { ticket: Ticket(50), domain });
            world
        });
        Self { worlds: worlds.collect(), leaders: leaders.to_vec(), next: 0 }
    }

    /// Publishes one message to a partition, if its leader takes requests.
    fn publish(&mut self, at: usize) {
        self.publish_together(at, 1);
    }

    /// Publishes messages before the leader has its turn, as far as it takes requests.
    fn publish_together(&mut self, at: usize, count: usize) {
        let (world, leader) = (&mut self.worlds[at], self.leaders[at]);
        for _ in 0..count {
            if world.nodes[leader].engine.takes_requests() {
                self.next += 1;
                world.give(leader, sized(1, 11, self.next, BYTES));
            }
        }
        world.settle();
    }

    /// Publishes to all in turn.
    fn publish_to_all(&mut self, each: u64) {
        for _ in 0..each {
            (0..self.worlds.len()).for_each(|at| self.publish(at));
        }
    }

    fn commit(&mut self, commits: bool) {
        for world in &mut self.worlds {
            world.commits = commits;
            world.settle();
        }
    }

    /// What the domain holds in the cluster.
    fn held(&self) -> u64 {
        let held = self.worlds.iter().zip(&self.leaders).map(|(world, leader)| {
            let usage = world.nodes[*leader].engine.machine().domain_usage();
            let of_domain = usage.filter(|(domain, ..)| *domain == DomainId(1));
            of_domain.map(|(_, messages, _)| messages).sum::<u64>()
        });
        held.sum()
    }

    fn refused(&self) -> usize {
        let limit =
            |seen: &&Seen| matches!(seen, Seen::Ack { status: AckStatus::LimitMessages, .. });
        let seen = self.worlds.iter().zip(&self.leaders);
        seen.map(|(world, leader)| world.seen(*leader, 1).iter().filter(limit).count()).sum()
    }
}

#[test]
fn leaders_on_one_node_keep_a_limit_exactly_whatever_is_under_way() {
    let mut partitions = Partitions::led_by(&[0, 0, 0], 10);
    partitions.commit(false);
    partitions.publish_to_all(6);
    assert_eq!(partitions.held(), 0, "nothing is committed");
    assert_eq!(partitions.refused(), 18 - 11, "one more than the limit is taken");
    partitions.commit(true);
    assert_eq!(partitions.held(), 11);
}

#[test]
fn leaders_on_several_nodes_keep_a_limit_exactly_while_one_at_a_time_is_published_to() {
    let mut partitions = Partitions::led_by(&[0, 1, 2], 10);
    partitions.publish_to_all(6);
    assert_eq!((partitions.held(), partitions.refused()), (11, 18 - 11));
}

#[test]
fn leaders_on_several_nodes_pass_a_limit_by_one_batch_each_at_most() {
    const LIMIT: u64 = 60;
    let mut worst = 0;
    for before in [0, 20, 45, LIMIT - BATCH / 2, LIMIT] {
        let mut partitions = Partitions::led_by(&[0, 1, 2], LIMIT);
        (0..before).for_each(|n| partitions.publish(n as usize % 3));
        assert_eq!(partitions.held(), before);
        // Nobody hears of what the others take.
        partitions.commit(false);
        for _ in 0..LIMIT {
            (0..3).for_each(|at| partitions.publish_together(at, 5));
        }
        partitions.commit(true);
        let others = 2;
        let bound = LIMIT + 1 + others * BATCH;
        let held = partitions.held();
        assert!(held <= bound, "before={before} held={held} bound={bound}");
        worst = worst.max(held);
        if held > LIMIT {
            let refused = partitions.refused();
            partitions.publish_to_all(1);
            assert_eq!(partitions.held(), held, "from now on all of them refuse");
            assert_eq!(partitions.refused(), refused + 3);
        }
    }
    assert!(worst > LIMIT + BATCH, "the case that the bound is for: {worst}");
}

#[test]
fn what_a_leader_had_taken_frees_its_place_when_the_leadership_is_lost() {
    let mut partitions = Partitions::led_by(&[0, 0], 10);
    partitions.worlds[0].commits = false;
    (0..3).for_each(|_| partitions.publish_together(0, 4));
    partitions.publish(1);
    assert_eq!(partitions.refused(), 2, "the twelfth here, and the first there");
    // Another node leads the first now, and takes what its client still waits for.
    partitions.worlds[0].isolated.insert(0);
    partitions.worlds[0].elect(1);
    partitions.worlds[0].heal(0);
    partitions.worlds[0].settle();
    (0..3).for_each(|_| partitions.publish(1));
    assert_eq!(partitions.worlds[1].messages(0, 1), 3);
}
