//! The replica over a store in memory, whose writes the test lets happen one by one.

use std::sync::mpsc::{Receiver, channel};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use flintmq_consensus::{Body, ConfigStamp, CreationId, HardState, Role, Time};
use flintmq_storage::{Delivery, MemoryStore};

use super::*;

const GROUP: GroupId = GroupId(3);
const NODE: NodeId = NodeId(1);

struct Node {
    store: MemoryStore,
    reports: Receiver<Report>,
    answers: StoreEvents,
    replica: Replica,
}

fn record(store: &MemoryStore) -> GroupRecord {
    store.groups().unwrap().remove(0)
}

fn listen(store: &MemoryStore) -> Receiver<Report> {
    let (sender, reports) = channel();
    store.register(GROUP, Box::new(move |report| drop(sender.send(report))));
    reports
}

fn store_of(hard_state: HardState) -> MemoryStore {
    let store = MemoryStore::new(Delivery::Stepped);
    store.create_group(GROUP, hard_state).unwrap();
    store.run();
    store
}

fn open(store: &MemoryStore, node: NodeId) -> Result<(Replica, StoreEvents), ReplicaError> {
    let store_of_host = Arc::new(store.clone());
    let settings = Settings::default();
    let host = ReplicaHost::new(node, store_of_host, CoreClock::start(), None, settings);
    let (events, answers) = tokio::sync::mpsc::unbounded_channel();
    Ok((Replica::open(&record(store), &host, events)?, answers))
}

impl Node {
    fn start(store: &MemoryStore) -> Self {
        let reports = listen(store);
        let (mut replica, answers) = open(store, NODE).unwrap();
        replica.start().unwrap();
        Self { store: store.clone(), reports, answers, replica }
    }

    /// A new group that serves.
    fn serving() -> Self {
        let mut node = Self::start(&store_of(Core::sole_member(NODE)));
        node.run();
        assert!(node.replica.is_serving());
        assert_eq!(node.applied(), [(1, Bytes::new())]);
        node
    }

    /// Lets the store and the replica work until nothing is left to do.
    fn run(&mut self) {
        loop {
            self.store.run();
            let Ok(report) = self.reports.try_recv() else { return };
            self.replica.on_report(report).unwrap();
        }
    }

    fn propose(&mut self, payload: &'static [u8]) -> Index {
        let payload = Bytes::from_static(payload);
        self.replica.propose(payload, AppendKind::Growing).unwrap().unwrap()
    }

    fn applied(&mut self) -> Vec<(Index, Bytes)> {
        std::iter::from_fn(|| self.replica.next_committed())
            .map(|entry| (entry.index, entry.payload))
            .collect()
    }

    fn checkpoint(&mut self, dead: &[Index]) {
        let (applied, dead_entries) = (self.replica.applied(), dead.to_vec());
        let batch = CheckpointBatch { applied, dead_entries, ..CheckpointBatch::default() };
        assert!(self.replica.checkpoint(batch).unwrap().is_ok());
        self.run();
    }
}

#[test]
fn entries_are_decided_when_they_are_written() {
    let mut node = Node::serving();
    assert_eq!((node.propose(b"a"), node.propose(b"bc")), (2, 3));
    assert_eq!((node.replica.under_way(), node.replica.bytes_under_way()), (2, 3));
    assert!(node.applied().is_empty(), "nothing is written yet");
    node.run();
    assert_eq!(node.applied(), [(2, Bytes::from_static(b"a")), (3, Bytes::from_static(b"bc"))]);
    assert_eq!(node.replica.under_way(), 0);
    assert_eq!(node.replica.status().at_risk_bytes, 3);
    node.store.sync();
    node.run();
    let status = node.replica.status();
    assert_eq!((status.at_risk_bytes, status.fsynced_index), (0, 3));
    assert_eq!((status.commit_index, status.leader), (3, Some(NODE)));
}

#[test]
fn a_restart_goes_on_behind_the_checkpoint() {
    let mut node = Node::serving();
    node.propose(b"a");
    node.run();
    node.applied();
    node.checkpoint(&[]);
    assert_eq!(node.replica.core.log().floor().index, 0, "what is not dead is still in the log");
    node.propose(b"gone");
    node.run();
    node.applied();
    node.checkpoint(&[1, 3]);
    assert_eq!(node.replica.core.log().floor(), node.replica.applied(), "the last dead entry");
    node.propose(b"b");
    node.run();
    let history = node.replica.status().history;
    node.store.crash();

    let mut again = Node::start(&node.store);
    assert!(again.applied().is_empty(), "not before the new term's barrier");
    again.run();
    let applied = again.applied();
    assert_eq!(applied, [(4, Bytes::from_static(b"b")), (5, Bytes::new())]);
    assert!(again.replica.is_serving());
    assert_eq!(again.replica.status().history, history, "nothing was lost");
}

#[test]
fn a_power_loss_is_told_and_made_good() {
    let mut node = Node::serving();
    node.store.sync();
    node.propose(b"a");
    node.run();
    let history = node.replica.status().history;
    node.store.lose_power(0);
    assert_eq!(record(&node.store).recovering, Some(1));

    let mut again = Node::start(&node.store);
    again.run();
    assert!(again.replica.is_serving());
    assert_eq!(again.replica.status().history, history + 1);
    assert_eq!(again.applied(), [(1, Bytes::new()), (2, Bytes::new())]);
    assert_eq!(record(&node.store).recovering, None);
}

#[test]
fn another_nodes_directory_is_refused() {
    let store = store_of(Core::sole_member(NodeId(2)));
    let refused = open(&store, NODE).map(drop).unwrap_err();
    assert!(matches!(refused, ReplicaError::NotAVoter { group: GROUP, node: NODE }));
    let nobody = store_of(HardState::default());
    let refused = open(&nobody, NODE).map(drop).unwrap_err();
    assert!(refused.to_string().contains("the data directory that belongs to it"), "{refused}");
}

#[test]
fn groups_with_members_elsewhere_are_refused() {
    let voters = ConfigRegister::of_voters([NODE, NodeId(2), NodeId(5)]);
    let learner = ConfigRegister {
        learners: vec![NodeId(2)],
        stamp: ConfigStamp { term: 1, version: 1 },
        ..ConfigRegister::of_voters([NODE])
    };
    for (config, count) in [(voters, 3), (learner, 2)] {
        let store = store_of(HardState { config, ..HardState::default() });
        let refused = open(&store, NODE).map(drop).unwrap_err();
        assert!(
            matches!(refused, ReplicaError::SeveralMembers { members, .. } if members == count)
        );
    }
}

#[test]
fn what_the_store_has_no_room_for_waits_in_order() {
    let mut node = Node::serving();
    node.store.set_capacity(1);
    let last = [node.propose(b"a"), node.propose(b"b"), node.propose(b"c")];
    assert_eq!(node.replica.waiting.len(), 2);
    node.run();
    assert_eq!(node.applied().into_iter().map(|(index, _)| index).collect::<Vec<_>>(), last);
}

#[test]
fn a_full_disk_does_not_take_an_index_back() {
    let mut node = Node::serving();
    node.store.set_low_disk(Some((1, 2)));
    let index = node.propose(b"a");
    node.run();
    assert_eq!(node.applied(), [(index, Bytes::from_static(b"a"))]);
}

#[test]
fn an_idle_group_has_no_deadline() {
    let mut node = Node::serving();
    node.propose(b"a");
    node.run();
    let mut now = node.replica.clock.now();
    for _ in 0..10 {
        let Some(deadline) = node.replica.core.next_deadline() else { return };
        now = now.max(deadline);
        node.replica.core.step(now, Input::Tick, &mut node.replica.effects);
        node.replica.carry_out(AppendKind::Relief).unwrap();
    }
    panic!("still ticking: {:?}", node.replica.core);
}

#[test]
fn a_slow_disk_delays_the_election_and_no_more() {
    let mut node = Node::start(&store_of(Core::sole_member(NODE)));
    let later = node.replica.clock.now() + Duration::from_secs(10);
    node.replica.core.step(later, Input::Tick, &mut node.replica.effects);
    node.replica.carry_out(AppendKind::Relief).unwrap();
    node.run();
    assert!(node.replica.is_serving());
    assert_eq!(node.replica.status().term, 1);
}

#[test]
fn a_failed_store_is_the_end() {
    let mut node = Node::serving();
    let failure = StorageError::Sync { detail: "input/output error".to_owned() };
    node.store.fail(failure.clone());
    let error = node.replica.on_report(node.reports.recv().unwrap()).unwrap_err();
    assert!(matches!(error, ReplicaError::Storage { source, .. } if source == failure));
    assert_eq!(node.replica.core.role(), Role::Failed);
    let refused = node.replica.propose(Bytes::new(), AppendKind::Growing).unwrap();
    assert_eq!(refused, Err(NotProposed::NotLeader));
}

#[test]
fn a_cut_log_takes_its_entries_along() {
    let mut node = Node::serving();
    let first = node.propose(b"a");
    node.propose(b"b");
    let entry = node.replica.unapplied.back().cloned().unwrap();
    let other = Entry { index: first, payload: Bytes::from_static(b"c"), ..entry };
    let cut = Effect::Append { write: 9, truncate_from: Some(first), entries: vec![other.clone()] };
    node.replica.effects.push(cut);
    node.replica.carry_out(AppendKind::Relief).unwrap();
    assert_eq!(node.replica.unapplied, [other]);
}

#[test]
fn entries_that_are_gone_are_read_as_none() {
    let mut node = Node::serving();
    node.propose(b"a");
    node.run();
    for (read, (after, upto)) in [(0, 2), (1, 2), (9, 10)].into_iter().enumerate() {
        let read = read as u64;
        node.replica.effects.push(Effect::ReadLog { read, after, upto, max_bytes: 99 });
    }
    node.replica.carry_out(AppendKind::Relief).unwrap();
    node.run();
    let mut lengths = Vec::new();
    while let Ok(answer) = node.answers.try_recv() {
        if let StoreEvent::LogRead { entries, .. } = &answer {
            lengths.push(entries.as_ref().map_or(0, Vec::len));
        }
        node.replica.on_store(answer).unwrap();
    }
    assert_eq!(lengths, [2, 1, 0]);
}

#[test]
fn the_alarm_rings_at_its_time_only() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _within = runtime.enter();
    let clock = CoreClock::start();
    let mut alarm = Alarm::new(clock);
    let rings = |alarm: &mut Alarm, at: Option<Time>| {
        let ring = std::pin::pin!(alarm.ring(at));
        ring.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    };
    let hour = clock.now() + Duration::from_secs(3600);
    assert!(!rings(&mut alarm, None));
    assert!(!rings(&mut alarm, Some(hour)));
    runtime.block_on(alarm.ring(Some(Time::default())));
    assert!(!rings(&mut alarm, Some(hour)), "set anew");
    assert!(!rings(&mut alarm, Some(Time(u64::MAX))), "never, rather than a panic");
}

#[test]
fn administrators_orders_are_answered() {
    let mut node = Node::start(&store_of(Core::sole_member(NODE)));
    let transfer = |node: &mut Node, to, force| {
        let (done, mut answer) = tokio::sync::oneshot::channel();
        node.replica.on_order(Order::Transfer { to, force, done }).unwrap();
        answer.try_recv().unwrap().unwrap_err()
    };
    assert_eq!(transfer(&mut node, NodeId(2), true), NotCeded::NotLeader);
    node.run();
    assert_eq!(transfer(&mut node, NodeId(2), true), NotCeded::NotAVoter);
    let (done, mut answer) = tokio::sync::oneshot::channel();
    node.replica.on_order(Order::Look { done }).unwrap();
    let view: GroupView = answer.try_recv().unwrap();
    assert!(view.status.serving && view.status.led && view.peers.is_empty());
    assert_eq!((view.config.voters, view.last.index), (vec![NODE], 1));
}

/// What the leader of a later term says, who has this configuration and these entries behind
/// nothing.
fn of_leader(config: &ConfigRegister, entries: Vec<Entry>) -> Message {
    let commit = entries.last().map_or(0, |entry| entry.index);
    let body = Body::Append {
        prev: LogPosition::default(),
        entries,
        commit,
        history: 0,
        config: config.stamp,
        newer: Some(Arc::new(config.clone())),
        rejoin: None,
    };
    let (group, creation) = (GROUP, CreationId::default());
    Message { group, creation, from: NodeId(2), to: NODE, term: config.stamp.term, body }
}

#[test]
fn what_a_group_left_here_is_dropped_and_the_vote_is_not() {
    let mut node = Node::serving();
    node.propose(b"a");
    node.run();
    node.applied();
    let without = ConfigRegister {
        stamp: ConfigStamp { term: 9, version: 1 },
        ..ConfigRegister::of_voters([NodeId(2)])
    };
    node.replica.on_message(of_leader(&without, Vec::new())).unwrap();
    node.run();
    assert!(!node.replica.is_member() && !node.replica.is_leftover(), "only just");
    node.replica.leftover.since = Instant::now().checked_sub(leftover::SETTLED);
    assert!(node.replica.is_leftover());
    node.replica.drop_leftover().unwrap();
    assert_eq!(node.replica.status().last_index, 2, "the disk does not have all of it yet");
    node.store.sync();
    node.run();
    node.replica.drop_leftover().unwrap();
    node.run();
    let status = node.replica.status();
    assert_eq!((status.last_index, status.applied_index, status.term), (0, 0, 9));
    assert_eq!(node.replica.take_replaced().unwrap(), Some(Vec::new()));
    let kept = record(&node.store);
    assert_eq!(
        (kept.hard_state.term, kept.hard_state.config, kept.bounds.last.index),
        (9, without.clone(), 0)
    );
    assert!(!node.replica.is_leftover(), "nothing is left");

    // Taken back, it begins with nothing.
    let again = ConfigRegister {
        stamp: ConfigStamp { term: 9, version: 2 },
        learners: vec![NODE],
        ..without
    };
    let entry = |index| Entry {
        index,
        term: 9,
        history: 0,
        kind: EntryKind::Commands,
        payload: Bytes::from_static(b"b"),
    };
    node.replica.on_message(of_leader(&again, vec![entry(1), entry(2)])).unwrap();
    node.run();
    assert_eq!(node.applied().len(), 2);
}
