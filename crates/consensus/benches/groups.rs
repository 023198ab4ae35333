//! What consensus costs: entries through one group, thousands of groups at rest, and their
//! elections after a node's death.
//!
//! `cargo bench -p flintmq-consensus --bench groups [-- entries | idle | elections]`

// A measurement reads the clock, the process's memory and its arguments, and prints.
#![allow(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![allow(missing_docs)]

mod cluster;

use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::Cluster;
use flintmq_consensus::{EntryKind, GroupId, Time};

const GROUPS: u32 = 10_000;

fn main() {
    let chosen = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let is_chosen = |name| chosen.as_deref().is_none_or(|chosen| chosen == name);
    if is_chosen("entries") {
        entries(1024, 64);
        entries(1024, 1);
    }
    if is_chosen("idle") {
        idle();
    }
    if is_chosen("elections") {
        elections();
    }
}

/// Proposes in batches as fast as one thread runs all three nodes of a group.
fn entries(size: usize, batch: usize) {
    const ENTRIES: u64 = 4_000_000;
    let group = GroupId(0);
    let mut cluster = Cluster::new(3, 1);
    cluster.run(1000);
    let leader = cluster.leader(group).expect("a leader within a second");
    let payload = Bytes::from(vec![7; size]);
    let begun = Instant::now();
    let mut proposed = 0;
    let before = cluster.committed;
    while cluster.committed - before < ENTRIES {
        let now = cluster.now;
        if let Some(node) = &mut cluster.nodes[leader] {
            // What a host gathers while the round before is under way.
            for _ in 0..8 {
                let proposals = (0..batch).map(|_| (EntryKind::Commands, payload.clone()));
                if node.propose_all(now, group, proposals).is_ok() {
                    proposed += batch;
                }
            }
        }
        cluster.round();
        if proposed % 4096 < batch {
            cluster.now = cluster.now + Duration::from_micros(100);
        }
    }
    let took = begun.elapsed();
    let committed = cluster.committed - before;
    let counters = cluster.nodes[leader].as_ref().map(|node| *node.counters()).unwrap_or_default();
    println!(
        "entries: {size} B, batches of {batch}: {:.2} M entries/s, {:.0} ns each, \
         {:.1} entries per message sent",
        committed as f64 / took.as_secs_f64() / 1e6,
        took.as_nanos() as f64 / committed as f64,
        committed as f64 * 2.0 / counters.messages_sent as f64,
    );
}

/// Resident memory of this process: what is in use, and what was in use for a moment when thousands
/// of groups elected at once, which the allocator keeps.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

/// Groups in which nothing happens.
fn idle() {
    let before = resident_bytes();
    let mut cluster = Cluster::new(3, GROUPS);
    let fresh = resident_bytes();
    cluster.run(3000);
    let resting = cluster.at_rest();
    let per_group = |bytes: u64| bytes.saturating_sub(before) / u64::from(3 * GROUPS);
    println!(
        "idle: {resting} of {} replicas rest; {} bytes each when new, {} after an election",
        3 * GROUPS,
        per_group(fresh),
        per_group(resident_bytes()),
    );
    let virtual_time = Duration::from_secs(10);
    let begun = Instant::now();
    cluster.run_by_timers(cluster.now + virtual_time);
    let share = begun.elapsed().as_secs_f64() / virtual_time.as_secs_f64() / 3.0;
    println!("idle: {GROUPS} groups take {:.4} % of a core per node", share * 100.0);
}

/// A node dies that leads its share of the groups, and then the next.
fn elections() {
    let mut cluster = Cluster::new(3, GROUPS);
    let begun = Instant::now();
    cluster.run(3000);
    println!("elections: {GROUPS} groups began within {:?} of a core for 3 nodes", begun.elapsed());
    let led = cluster.led_by(0);
    cluster.nodes[0] = None;
    elect(&mut cluster, led, "a third of the groups");

    // Now one node leads everything, and dies.
    let mut cluster = Cluster::new(3, GROUPS);
    cluster.run(3000);
    for group in 0..GROUPS {
        let group = GroupId(group);
        let now = cluster.now;
        let to = flintmq_consensus::NodeId(0);
        if let Some(leader) = cluster.leader(group).filter(|leader| *leader != 0)
            && let Some(node) = &mut cluster.nodes[leader]
        {
            let input = flintmq_consensus::Input::Transfer { to, force: true };
            node.step(now, flintmq_consensus::NodeInput::Group { group, input });
        }
    }
    cluster.run(3000);
    let led = cluster.led_by(0);
    cluster.nodes[0] = None;
    elect(&mut cluster, led, "all groups");
}

fn elect(cluster: &mut Cluster, led: usize, whose: &str) {
    let survivors = [1, 2];
    let goal: usize = survivors.iter().map(|at| cluster.led_by(*at)).sum::<usize>() + led;
    let start: Time = cluster.now;
    let begun = Instant::now();
    let mut slept = Duration::ZERO;
    loop {
        cluster.run(10);
        let paused = Instant::now();
        let done = survivors.iter().map(|at| cluster.led_by(*at)).sum::<usize>() >= goal;
        slept += paused.elapsed();
        if done || cluster.now.since(start) > Duration::from_secs(60) {
            break;
        }
    }
    println!(
        "elections: the leader of {whose} ({led}) died: new leaders after {:?}, \
         {:?} of a core for both survivors",
        cluster.now.since(start),
        begun.elapsed().saturating_sub(slept),
    );
}
