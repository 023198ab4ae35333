//! Clusters of clocks that drift, step and are heard late, by seeds.

use super::*;
use crate::jitter::Jitter;

const DAY: i64 = 86_400_000;
/// What every clock showed when the run began, in milliseconds.
const BEGAN: i64 = 1_800_000_000_000;
const BEAT: u64 = 100;
/// What drift and delays make of times that are right: here a beat arrives with the next step, or
/// the one after.
const CLOSE: i64 = 250;
/// The same for a time that was taken over from others: it was on its way twice.
const TAKEN_OVER: i64 = 2 * CLOSE;

struct Node {
    clock: Option<ClusterClock>,
    /// The monotonic clock ahead of the true time, in microseconds, and its error in millionths.
    mono: i64,
    ppm: i64,
    /// The wall clock ahead of the true time, in milliseconds.
    off: i64,
    last: u64,
    last_at: Time,
}

/// Nodes that beat, in steps of a beat's interval.
struct Cluster {
    random: Jitter,
    /// True time since the beginning, in milliseconds.
    now: u64,
    nodes: Vec<Node>,
    /// Longest delay of a beat, in milliseconds.
    delay: u64,
    /// Beats on the way: when they arrive, from whom to whom.
    beats: Vec<(u64, usize, usize, Clocks)>,
    /// A node that does not run.
    suspended: Option<usize>,
}

impl Cluster {
    fn new(seed: u64, nodes: usize, offs: &[i64]) -> Self {
        let mut random = Jitter::new(seed);
        let nodes = (0..nodes)
            .map(|at| Node {
                clock: None,
                mono: 10_000_000_000 + draw(&mut random, 1_000_000_000),
                ppm: draw(&mut random, 200) - 100,
                off: offs.get(at).copied().unwrap_or(0) + draw(&mut random, 20),
                last: 0,
                last_at: Time(0),
            })
            .collect();
        Self { random, now: 0, nodes, delay: 40, beats: Vec::new(), suspended: None }
    }

    fn start_all(&mut self) {
        for at in 0..self.nodes.len() {
            self.start(at);
        }
    }

    fn start(&mut self, at: usize) {
        let (mono, wall, count) = (self.mono(at), self.wall(at), self.nodes.len());
        self.nodes[at].last = 0;
        self.nodes[at].clock = Some(ClusterClock::new(mono, wall, count));
    }

    fn stop(&mut self, at: usize) {
        self.nodes[at].clock = None;
    }

    fn mono(&self, at: usize) -> Time {
        let (node, micros) = (&self.nodes[at], self.now as i64 * 1000);
        Time((node.mono + micros + micros * node.ppm / 1_000_000) as u64)
    }

    fn wall(&self, at: usize) -> u64 {
        (BEGAN + self.now as i64 + self.nodes[at].off) as u64
    }

    fn state(&self, at: usize) -> ClockState {
        self.nodes[at].clock.as_ref().map_or(ClockState::Unknown, |clock| clock.reading().state)
    }

    /// How far a node's replicated time is ahead of the true time, in milliseconds.
    fn error(&self, at: usize) -> i64 {
        let clock = self.nodes[at].clock.as_ref().expect("it runs");
        clock.reading().wall_ms(self.mono(at)) as i64 - BEGAN - self.now as i64
    }

    /// One beat's interval.
    fn step(&mut self) {
        self.now += BEAT;
        let (due, later) = self.beats.drain(..).partition(|(at, ..)| *at <= self.now);
        self.beats = later;
        for (_, from, to, clocks) in due {
            let mono = self.mono(to);
            let runs = self.suspended != Some(to);
            if let Some(clock) = self.nodes[to].clock.as_mut().filter(|_| runs) {
                clock.heard(mono, NodeId(from as u32), clocks);
            }
        }
        let suspended = self.suspended;
        for from in (0..self.nodes.len()).filter(|at| suspended != Some(*at)) {
            let (mono, wall) = (self.mono(from), self.wall(from));
            let Some(clock) = &mut self.nodes[from].clock else { continue };
            clock.own(mono, wall);
            let clocks = clock.says(mono);
            for to in 0..self.nodes.len() {
                // One in ten is lost.
                if to != from && draw(&mut self.random, 10) > 0 {
                    let arrives = self.now + draw(&mut self.random, self.delay) as u64;
                    self.beats.push((arrives, from, to, clocks));
                }
            }
            self.check(from);
        }
    }

    /// The time never goes back, nor ahead by more than it may be slewed, unless it catches up.
    fn check(&mut self, at: usize) {
        let mono = self.mono(at);
        let node = &mut self.nodes[at];
        let Some(clock) = &node.clock else { return };
        let reading = clock.reading();
        if reading.state == ClockState::Unknown {
            return;
        }
        let shown = reading.wall_ms(mono);
        if node.last > 0 {
            let passed = mono.since(node.last_at).as_millis() as u64;
            assert!(shown + 1 >= node.last + passed - passed / 1000, "it stood still");
            assert!(shown >= node.last, "it went back by {}", node.last - shown);
        }
        (node.last, node.last_at) = (shown, mono);
    }

    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 1000 / BEAT {
            self.step();
        }
    }
}

fn draw(random: &mut Jitter, below: u64) -> i64 {
    let span = Duration::from_micros(below.saturating_sub(1));
    random.between(Duration::ZERO, span).as_micros() as i64
}

#[test]
fn nodes_that_agree_have_one_time_at_once_and_keep_it() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, 3 + 2 * (seed as usize % 2), &[]);
        cluster.start_all();
        cluster.run(1);
        for round in 0..60 {
            for at in 0..cluster.nodes.len() {
                assert_eq!(cluster.state(at), ClockState::Good, "seed {seed} round {round}");
                assert!(cluster.error(at).abs() < CLOSE, "{} in seed {seed}", cluster.error(at));
            }
            cluster.run(60);
        }
    }
}

#[test]
fn a_node_that_is_days_off_from_the_start_is_off_and_has_the_right_time() {
    for seed in 0..20 {
        for off in [8 * DAY, -8 * DAY, 3000, -3000, -BEGAN] {
            let mut cluster = Cluster::new(seed, 3, &[off]);
            // In any order, some of them late.
            let first = draw(&mut cluster.random, 3) as usize;
            cluster.start(first);
            let waits = [draw(&mut cluster.random, 4), draw(&mut cluster.random, 4)];
            cluster.run(waits[0] as u64);
            cluster.start((first + 1) % 3);
            cluster.run(waits[1] as u64);
            cluster.start((first + 2) % 3);
            cluster.run(2);
            for _ in 0..30 {
                for at in 0..3 {
                    let good = if at == 0 { ClockState::Off } else { ClockState::Good };
                    assert_eq!(cluster.state(at), good, "node {at} of seed {seed}, {off} off");
                    let error = cluster.error(at);
                    assert!(error.abs() < TAKEN_OVER, "{error} at {at} in {seed}, {off} off");
                }
                cluster.run(10);
            }
        }
    }
}

#[test]
fn a_step_of_days_forward_and_back_on_one_node_moves_nothing() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, 3, &[]);
        cluster.start_all();
        cluster.run(5);
        for step in [2 * DAY, -2 * DAY, 2 * DAY] {
            let before = cluster.nodes[1].off;
            cluster.nodes[1].off += step;
            cluster.run(1);
            for _ in 0..20 {
                assert_eq!(cluster.state(1), ClockState::Off);
                assert!([0, 2].iter().all(|at| cluster.state(*at) == ClockState::Good));
                assert!((0..3).all(|at| cluster.error(at).abs() < CLOSE), "seed {seed}");
                cluster.run(30);
            }
            cluster.nodes[1].off = before;
            cluster.run(2);
            assert_eq!(cluster.state(1), ClockState::Good, "it was set right");
            assert!((0..3).all(|at| cluster.error(at).abs() < CLOSE), "seed {seed}");
        }
    }
}

#[test]
fn a_node_alone_is_never_off_and_follows_its_clock_slowly() {
    let mut cluster = Cluster::new(3, 1, &[]);
    cluster.start(0);
    assert_eq!(cluster.state(0), ClockState::Good, "there is nobody to wait for");
    cluster.run(10);
    cluster.nodes[0].off = 2 * DAY;
    cluster.run(3600);
    let moved = cluster.error(0);
    assert!((1500..2500).contains(&moved), "500 ppm of an hour are 1.8 s: {moved}");
    assert_eq!(cluster.state(0), ClockState::Good);
    cluster.nodes[0].off = 0;
    cluster.run(2 * 3600);
    assert!(cluster.error(0).abs() < CLOSE, "{}", cluster.error(0));
}

#[test]
fn of_two_nodes_the_one_whose_clock_left_is_off() {
    for (seed, step) in [(1, 2 * DAY), (2, -2 * DAY)] {
        let mut cluster = Cluster::new(seed, 2, &[]);
        cluster.start_all();
        cluster.run(5);
        cluster.nodes[1].off += step;
        cluster.run(60);
        assert_eq!((cluster.state(0), cluster.state(1)), (ClockState::Good, ClockState::Off));
        assert!((0..2).all(|at| cluster.error(at).abs() < CLOSE));
    }
}

#[test]
fn of_two_nodes_that_never_agreed_the_earlier_time_counts() {
    let mut cluster = Cluster::new(4, 2, &[0, DAY]);
    cluster.start_all();
    cluster.run(GRACE.as_secs() - 1);
    assert_eq!((cluster.state(0), cluster.state(1)), (ClockState::Unknown, ClockState::Unknown));
    cluster.run(3);
    assert_eq!((cluster.state(0), cluster.state(1)), (ClockState::Good, ClockState::Off));
    assert!((0..2).all(|at| cluster.error(at).abs() < CLOSE));
}

#[test]
fn a_corrected_majority_makes_nothing_older_than_it_is_and_restarts_take_over_the_time() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(seed, 3, &[-7_200_000; 3]);
        cluster.start_all();
        cluster.run(10);
        for node in &mut cluster.nodes {
            node.off += 7_200_000;
        }
        cluster.run(60);
        let behind = |error: i64| (-7_200_000 - TAKEN_OVER..-7_199_500).contains(&error);
        assert!((0..3).all(|at| behind(cluster.error(at))), "{}", cluster.error(0));
        // One after the other, each takes the time of those that run.
        for at in 0..3 {
            cluster.stop(at);
            cluster.run(10);
            cluster.start(at);
            cluster.run(2);
            assert_eq!(cluster.state(at), ClockState::Good);
            assert!(behind(cluster.error(at)), "{} at {at} of seed {seed}", cluster.error(at));
        }
        // All at once: the time is right.
        (0..3).for_each(|at| cluster.stop(at));
        cluster.run(10);
        cluster.start_all();
        cluster.run(2);
        assert!((0..3).all(|at| cluster.error(at).abs() < CLOSE), "{}", cluster.error(0));
    }
}

#[test]
fn a_node_that_was_suspended_catches_up() {
    for (nodes, running) in [(3, 3), (3, 2), (2, 2)] {
        let mut cluster = Cluster::new(7, nodes, &[]);
        cluster.start_all();
        cluster.run(5);
        if running < nodes {
            cluster.stop(nodes - 1);
        }
        // Its monotonic clock stands still for half an hour.
        cluster.suspended = Some(0);
        cluster.run(1800);
        cluster.suspended = None;
        cluster.nodes[0].mono -= 1_800_000_000;
        cluster.run(3);
        assert_eq!(cluster.state(0), ClockState::Good, "{nodes} nodes, {running} run");
        assert!(cluster.error(0).abs() < CLOSE, "{}", cluster.error(0));
    }
}

#[test]
fn without_a_majority_the_time_runs_on() {
    let mut cluster = Cluster::new(9, 3, &[]);
    cluster.start_all();
    cluster.run(5);
    cluster.stop(1);
    cluster.stop(2);
    cluster.run(3600);
    assert_eq!(cluster.state(0), ClockState::Good);
    assert!(cluster.error(0).abs() < 500, "100 ppm of an hour: {}", cluster.error(0));
    cluster.nodes[0].off += DAY;
    cluster.run(10);
    assert_eq!(cluster.state(0), ClockState::Off, "it differs from what the majority had");
}

#[test]
fn slow_links_put_nobody_off() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, 3, &[]);
        cluster.delay = 900;
        cluster.start_all();
        cluster.run(5);
        for _ in 0..60 {
            cluster.run(10);
            assert!((0..3).all(|at| cluster.state(at) == ClockState::Good), "seed {seed}");
            assert!((0..3).all(|at| cluster.error(at).abs() < 600), "seed {seed}");
        }
    }
}

#[test]
fn no_number_in_a_beat_does_harm() {
    let mut cluster = Cluster::new(1, 3, &[]);
    cluster.start_all();
    cluster.run(5);
    for (wall_ms, cluster_ms) in
        [(u64::MAX, Some(u64::MAX)), (0, Some(0)), (0, None), (u64::MAX / 1000, Some(1))]
    {
        for _ in 0..10 {
            let mono = cluster.mono(0);
            let clock = cluster.nodes[0].clock.as_mut().expect("it runs");
            clock.heard(mono, NodeId(2), Clocks { wall_ms, cluster_ms });
            assert!(cluster.error(0).abs() < CLOSE, "{}", cluster.error(0));
        }
        assert_eq!(cluster.state(0), ClockState::Good);
    }
}
