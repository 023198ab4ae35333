//! What consensus costs: entries through one group, thousands of groups at rest, and their
//! elections after a node's death.
//!
//! `cargo bench -p flintmq-consensus --bench groups [-- entries | idle | elections]`

// A measurement reads the clock, the process's memory and its arguments, and prints.
#![allow(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![allow(missing_docs)]

mod cluster;

use std::time::Duration;

use bytes::Bytes;
use cluster::Cluster;
use flintmq_consensus::{EntryKind, GroupId, Time};

const GROUPS: u32 = 10_000;

fn main() {
    let chosen = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let is_chosen = |name| chosen.as_deref().is_none_or(|chosen| chosen == name);
    if is_chosen("entries") {
        entries(1, 1024, 64);
        entries(1, 1024, 1);
        entries(1000, 1024, 8);
    }
    if is_chosen("idle") {
        idle();
    }
    if is_chosen("elections") {
        elections();
    }
}

/// Proposes in batches to all groups in turn, as fast as one thread runs all three nodes.
fn entries(groups: u32, size: usize, batch: usize) {
    const ENTRIES: u64 = 4_000_000;
    /// Batches that a host gathers while the round before is under way.
    const BATCHES: u32 = 8;
    let mut cluster = Cluster::new(3, groups);
    cluster.run(1000);
    let leaders: Vec<usize> = (0..groups)
        .map(|group| cluster.leader(GroupId(group)).expect("a leader within a second"))
        .collect();
    let payload = Bytes::from(vec![7; size]);
    let messages_sent = |cluster: &Cluster| -> u64 {
        cluster.nodes.iter().flatten().map(|node| node.counters().messages_sent).sum()
    };
    let (before, sent_before) = (cluster.committed, messages_sent(&cluster));
    let begun = cpu_time();
    let mut turn = 0;
    while cluster.committed - before < ENTRIES {
        for _ in 0..BATCHES.max(groups) {
            turn = (turn + 1) % groups;
            let now = cluster.now;
            if let Some(node) = &mut cluster.nodes[leaders[turn as usize]] {
                let proposals = (0..batch).map(|_| (EntryKind::Commands, payload.clone()));
                // A full window is what the next round empties.
                let _ = node.propose_all(now, GroupId(turn), proposals);
            }
        }
        cluster.now = cluster.now + Duration::from_micros(100);
        cluster.round();
    }
    let took = cpu_time() - begun;
    let committed = cluster.committed - before;
    println!(
        "entries: {groups} groups, {size} B, batches of {batch}: {:.2} M entries/s, {:.0} ns each, \
         {:.1} messages per 1000 entries",
        committed as f64 / took.as_secs_f64() / 1e6,
        took.as_nanos() as f64 / committed as f64,
        (messages_sent(&cluster) - sent_before) as f64 * 1000.0 / committed as f64,
    );
}

/// Time that this thread was run for, which other work on the machine does not lengthen; Linux
/// counts it in nanoseconds, and brings the count up to date every few milliseconds.
fn cpu_time() -> Duration {
    let counted = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = counted.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("the kernel counts what threads use"))
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
    // Long enough for the kernel's coarse count.
    let virtual_time = Duration::from_secs(10_000);
    let begun = cpu_time();
    cluster.run_by_timers(cluster.now + virtual_time);
    let share = (cpu_time() - begun).as_secs_f64() / virtual_time.as_secs_f64() / 3.0;
    println!("idle: {GROUPS} groups take {:.4} % of a core per node", share * 100.0);
}

/// A node dies that leads its share of the groups, and then the next.
fn elections() {
    let mut cluster = Cluster::new(3, GROUPS);
    let begun = cpu_time();
    cluster.run(3000);
    println!(
        "elections: {GROUPS} groups began within {:?} of a core for 3 nodes",
        (cpu_time() - begun)
    );
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
    let begun = cpu_time();
    let mut slept = Duration::ZERO;
    loop {
        cluster.run(10);
        let paused = cpu_time();
        let done = survivors.iter().map(|at| cluster.led_by(*at)).sum::<usize>() >= goal;
        slept += cpu_time() - paused;
        if done || cluster.now.since(start) > Duration::from_secs(60) {
            break;
        }
    }
    println!(
        "elections: the leader of {whose} ({led}) died: new leaders after {:?}, \
         {:?} of a core for both survivors",
        cluster.now.since(start),
        (cpu_time() - begun).saturating_sub(slept),
    );
}
