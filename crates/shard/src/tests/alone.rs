//! A group of one, over a store whose writes happen when the test wants.

use std::sync::Arc;

use bytes::Bytes;
use flintmq_consensus::{
    Body, ConfigRegister, ConfigStamp, Core, CreationId, Effect, Entry, EntryKind, GroupId,
    HardState, Index, LogPosition, Message, NodeId, Packet, Time,
};
use flintmq_log_store::{LogStore, Report, StorageError};

use super::bench::*;
use crate::machine::{NotProposed, NotSent};
use crate::*;

fn indexes(applied: &[(Index, Bytes)]) -> Vec<Index> {
    applied.iter().map(|(index, _)| *index).collect()
}

#[test]
fn entries_are_committed_when_they_are_written() {
    let mut node = Node::serving();
    node.ask(Ask::Propose(b"a"));
    node.ask(Ask::Propose(b"bc"));
    node.turn();
    assert_eq!(indexes(&node.machine().applied), [1], "nothing is written yet");
    node.run();
    let position = |index| LogPosition { term: 1, index };
    assert_eq!(node.machine().acknowledged, [position(2), position(3)]);
    assert_eq!(node.status().at_risk_bytes, 3);
    node.store.sync();
    node.run();
    let status = node.status();
    assert_eq!((status.at_risk_bytes, status.fsynced_index), (0, 3));
    assert_eq!((status.commit_index, status.leader), (3, Some(NODE)));
}

#[test]
fn proposals_of_one_turn_share_a_write() {
    let mut node = Node::serving();
    let before = node.store.stats().log_write_batches;
    for _ in 0..10 {
        node.ask(Ask::Propose(b"a"));
    }
    node.run();
    assert_eq!(node.machine().acknowledged.len(), 10);
    assert_eq!(node.store.stats().log_write_batches, before + 1);
}

#[test]
fn a_restart_goes_on_behind_the_checkpoint() {
    let mut node = Node::serving();
    node.ask(Ask::Propose(b"a"));
    node.run();
    node.ask(Ask::Checkpoint(vec![]));
    node.run();
    let floor = |node: &Node| node.shard.core(GROUP).unwrap().log().floor().index;
    assert_eq!(floor(&node), 0, "what is not dead is still in the log");
    node.ask(Ask::Propose(b"gone"));
    node.run();
    node.ask(Ask::Checkpoint(vec![1, 3]));
    node.run();
    assert_eq!(floor(&node), 3, "the last dead entry");
    node.ask(Ask::Propose(b"b"));
    node.run();
    let history = node.status().history;
    node.store.crash();

    let mut again = Node::open(&node.store, NODE, &[], Time(0));
    again.turn();
    assert_eq!(indexes(&again.machine().applied), [1, 2, 3], "not before the new term's no-op");
    again.run();
    assert_eq!(indexes(&again.machine().applied), [1, 2, 3, 4, 5]);
    assert!(again.machine().leads);
    assert_eq!(again.status().history, history, "nothing was lost");
    assert_eq!(again.machine().stored, [2], "no checkpoint said that it is dead");
    let calls = again.take_calls();
    assert!(matches!(
        calls[..],
        [Call::Restored(_), Call::Applied(_), Call::Applied(_), Call::Taken]
    ));
}

#[test]
fn a_power_loss_is_told_and_made_good() {
    let mut node = Node::serving();
    node.store.sync();
    node.ask(Ask::Propose(b"a"));
    node.run();
    let history = node.status().history;
    node.store.lose_power(0);
    assert_eq!(record(&node.store).recovering, Some(1));

    let mut again = Node::open(&node.store, NODE, &[], Time(0));
    again.run();
    assert!(again.machine().leads);
    assert_eq!(again.status().history, history + 1);
    assert_eq!(indexes(&again.machine().applied), [1, 2]);
    assert!(again.notices.iter().any(|n| matches!(n, Notice::HistoryForked { .. })));
    assert_eq!(record(&node.store).recovering, None);
}

#[test]
fn another_nodes_directory_is_refused() {
    for hard_state in [Core::sole_member(NodeId(2)), HardState::default()] {
        let store = store_of(hard_state);
        let (mut shard, ..) = shard_over(&store, NODE, &[]);
        let stored = StoredGroup::read(&store, record(&store)).unwrap();
        let refused = shard.add_group(Time(0), stored, Recorder::default()).unwrap_err();
        assert!(matches!(refused, ShardError::NotAVoter { group: GROUP, node: NODE }));
        assert!(refused.to_string().contains("the data directory that belongs to it"), "{refused}");
    }
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
        let (mut shard, ..) = shard_over(&store, NODE, &[]);
        let stored = StoredGroup::read(&store, record(&store)).unwrap();
        let refused = shard.add_group(Time(0), stored, Recorder::default()).unwrap_err();
        assert!(matches!(refused, ShardError::SeveralMembers { members, .. } if members == count));
    }
}

#[test]
fn what_the_store_has_no_room_for_waits_in_order() {
    let mut node = Node::serving();
    node.store.set_capacity(1);
    for payload in [b"a", b"b", b"c"] {
        node.ask(Ask::Propose(payload));
        node.turn();
    }
    assert_eq!(node.shard.groups[&GROUP].replica.queue.len(), 2);
    node.run();
    assert_eq!(indexes(&node.machine().applied), [1, 2, 3, 4]);
    assert_eq!(node.fatal, None);
}

#[test]
fn a_full_disk_does_not_take_an_index_back() {
    let mut node = Node::serving();
    node.store.set_low_disk(Some((1, 2)));
    node.ask(Ask::Propose(b"a"));
    node.run();
    assert_eq!(node.machine().acknowledged.len(), 1);
    assert_eq!(node.store.stats().refused_disk_full, 1);
}

#[test]
fn an_idle_group_has_no_deadline_but_its_second() {
    let mut node = Node::serving();
    node.ask(Ask::Propose(b"a"));
    node.run_until(Time::from_millis(10_000));
    assert_eq!(node.shard.core(GROUP).unwrap().next_deadline(), None);
    node.take_calls();
    node.run_until(Time::from_millis(20_000));
    assert_eq!(node.take_calls(), vec![Call::Tick; 10]);
}

#[test]
fn a_slow_disk_delays_the_election_and_no_more() {
    let mut node = Node::open(&store_of(Core::sole_member(NODE)), NODE, &[], Time(0));
    node.stalled = true;
    node.run_until(Time::from_millis(10_000));
    assert!(!node.machine().leads);
    node.stalled = false;
    node.run();
    assert!(node.machine().leads);
    assert_eq!(node.status().term, 1);
}

#[test]
fn a_failed_store_is_the_end() {
    let mut node = Node::serving();
    let failure = StorageError::Sync { detail: "input/output error".to_owned() };
    node.store.fail(failure.clone());
    node.run();
    assert!(node.fatal.as_ref().is_some_and(|fatal| fatal.contains(&failure.to_string())));
    node.ask(Ask::Propose(b"a"));
    node.run();
    assert!(node.machine().acknowledged.is_empty() && node.shard.next_deadline().is_none());
}

#[test]
fn a_machine_that_cannot_apply_an_entry_stops_the_node() {
    let mut node = Node::serving();
    node.ask(Ask::Propose(b"poison"));
    node.run();
    assert!(node.fatal.as_ref().is_some_and(|fatal| fatal.contains("cannot be applied")));
}

#[test]
fn a_cut_log_takes_its_entries_along() {
    let mut node = Node::serving();
    node.ask(Ask::Propose(b"a"));
    node.ask(Ask::Propose(b"b"));
    node.turn();
    let replica = &mut node.shard.groups.get_mut(&GROUP).unwrap().replica;
    let entry = replica.tail.back().cloned().unwrap();
    let other = Entry { index: 2, payload: Bytes::from_static(b"c"), ..entry };
    replica.take_into_tail(Some(2), std::slice::from_ref(&other));
    assert_eq!(replica.tail, std::slice::from_ref(&other));
    assert_eq!((replica.unapplied(2), replica.unapplied(3)), (Some(&other), None));
}

#[test]
fn administrators_are_answered() {
    let mut node = Node::open(&store_of(Core::sole_member(NODE)), NODE, &[], Time(0));
    let transfer = |node: &mut Node| {
        let command = AdminCommand::Transfer { to: NodeId(2), force: true };
        node.step(ShardInput::Admin { group: GROUP, ticket: 7, command });
        node.turn();
        match node.effects.drain(..).find(|e| matches!(e, ShardEffect::Answer { .. })).unwrap() {
            ShardEffect::Answer { ticket: 7, answer: AdminAnswer::Transferred(Err(why)) } => why,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(transfer(&mut node), NotCeded::NotLeader);
    node.run();
    node.effects.clear();
    assert_eq!(transfer(&mut node), NotCeded::NotAVoter);
    let command = AdminCommand::Inspect;
    node.step(ShardInput::Admin { group: GROUP, ticket: 8, command });
    node.step(ShardInput::Admin {
        group: GroupId(99),
        ticket: 9,
        command: AdminCommand::KeepLeadership,
    });
    node.turn();
    let answers: Vec<_> = node.effects.drain(..).collect();
    let [
        ShardEffect::Answer { ticket: 8, answer: AdminAnswer::Inspected(view) },
        ShardEffect::Answer { ticket: 9, answer: AdminAnswer::UnknownGroup },
    ] = &answers[..]
    else {
        panic!("{answers:?}")
    };
    assert!(view.status.serving && view.status.led && view.peers.is_empty());
    assert_eq!((view.config.voters.clone(), view.last.index), (vec![NODE], 1));
}

#[test]
fn reads_and_entries_are_answered() {
    let mut node = Node::serving();
    node.take_calls();
    node.ask(Ask::ReadIndex);
    node.run();
    assert_eq!(node.take_calls(), [Call::ReadIndex(1, Some(1))]);
    let read = Ok(Bytes::new());
    node.step(ShardInput::EntryRead { group: GROUP, index: 1, read });
    assert_eq!(node.take_calls(), [Call::EntryRead(1)]);
}

#[test]
fn a_node_stops_with_a_checkpoint_once_it_is_settled() {
    let mut node = Node::serving();
    node.ask(Ask::Propose(b"a"));
    node.step(ShardInput::Stop);
    node.turn();
    assert!(!node.effects.iter().any(|e| matches!(e, ShardEffect::Stopped)), "it is under way");
    node.run();
    assert!(node.effects.iter().any(|e| matches!(e, ShardEffect::Stopped)));
    assert_eq!(node.machine().acknowledged.len(), 1);
    assert_eq!(record(&node.store).applied.unwrap().index, 2);
}

#[test]
fn an_alarm_of_a_machine_goes_off() {
    let mut node = Node::serving();
    node.machine_mut().deadline = Some(Time::from_millis(5));
    node.ask(Ask::ReadIndex);
    node.run();
    assert_eq!(node.shard.next_deadline(), Some(Time::from_millis(5)));
    node.machine_mut().deadline = None;
    node.now = Time::from_millis(5);
    node.turn();
    assert!(node.shard.next_deadline() > Some(Time::from_millis(5)));
}

/// What the leader of a later term says, to a node that was told of its process.
pub(super) fn say_as_leader(
    node: &mut Node,
    config: &ConfigRegister,
    prev: LogPosition,
    entries: Vec<Entry>,
) {
    let commit = entries.last().map_or(0, |entry| entry.index);
    let body = Body::Append {
        prev,
        entries,
        commit,
        history: 0,
        config: config.stamp,
        newer: Some(Arc::new(config.clone())),
        rejoin: None,
    };
    let (from, to) = (NodeId(2), NODE);
    let term = config.stamp.term;
    let message = Message { group: GROUP, creation: CreationId::default(), from, to, term, body };
    node.step(ShardInput::Peer {
        peer: from,
        up: true,
        incarnation: incarnation(from),
        restarted: false,
    });
    node.step(ShardInput::Packet(Packet {
        from,
        to,
        from_incarnation: incarnation(from),
        to_incarnation: incarnation(to),
        number: node.now.0 + 1,
        contact: 1,
        heard_contact: 1,
        hears_you: true,
        clocks: None,
        unfit: flintmq_consensus::UnfitReasons::NONE,
        messages: vec![message],
    }));
}

pub(super) fn entry(index: Index, term: u64) -> Entry {
    let payload = Bytes::from_static(b"of another leader");
    Entry { index, term, history: 0, kind: EntryKind::Commands, payload }
}

/// R1: what another leader put at the index of an own proposal must not count as that proposal,
/// and the leadership is lost before anything of the next leader is applied.
#[test]
fn an_entry_of_another_leader_acknowledges_nothing() {
    let mut node = Node::serving();
    node.stalled = true;
    node.ask(Ask::Propose(b"a"));
    node.turn();
    assert_eq!(node.machine().under_way, [LogPosition { term: 1, index: 2 }]);
    node.take_calls();
    let config = ConfigRegister {
        stamp: ConfigStamp { term: 9, version: 1 },
        ..ConfigRegister::of_voters([NODE, NodeId(2), NodeId(3)])
    };
    say_as_leader(&mut node, &config, LogPosition { term: 1, index: 1 }, vec![entry(2, 9)]);
    node.turn();
    let other = LogPosition { term: 9, index: 2 };
    let calls: Vec<Call> =
        node.take_calls().into_iter().filter(|call| !matches!(call, Call::Peer(..))).collect();
    assert_eq!(calls, [Call::Lost, Call::Applied(other)]);
    assert!(node.machine().acknowledged.is_empty());
    node.ask(Ask::Propose(b"b"));
    assert_eq!(node.machine().refused, [NotProposed::NotLeader]);
    node.stalled = false;
    node.run();
    assert_eq!(node.fatal, None);
}

/// R3: a checkpoint of entries that others have committed does not overtake their own writes.
#[test]
fn a_checkpoint_stays_behind_refused_appends() {
    let mut node = Node::serving();
    node.store.set_capacity(0);
    node.ask(Ask::Propose(b"a"));
    node.turn();
    assert_eq!(node.shard.groups[&GROUP].replica.queue.len(), 1, "refused");
    // As if a majority of others had committed it.
    let hosted = node.shard.groups.get_mut(&GROUP).unwrap();
    let entry = hosted.replica.tail.pop_front().unwrap();
    hosted.replica.applied = entry.position();
    // There is room again, of which the replica does not know yet.
    node.store.set_capacity(10);
    node.ask(Ask::Checkpoint(vec![1]));
    node.turn();
    assert!(!node.store.step(), "nothing came before the append");
    assert_eq!(node.shard.groups[&GROUP].replica.queue.len(), 2);
    node.step(ShardInput::Store { group: GROUP, event: StoreEvent::Report(Report::Room) });
    node.run();
    assert_eq!(node.fatal, None);
    assert_eq!(record(&node.store).applied, Some(LogPosition { term: 1, index: 2 }));
}

/// R3: what waits for the own disk is bounded.
#[test]
fn nothing_is_proposed_while_too_much_waits_for_the_own_disk() {
    static LARGE: [u8; 33 << 20] = [0; 33 << 20];
    let mut node = Node::serving();
    node.stalled = true;
    for _ in 0..3 {
        node.ask(Ask::Propose(&LARGE));
        node.turn();
    }
    assert_eq!(node.machine().refused, [NotProposed::WindowFull]);
    node.stalled = false;
    node.run();
    node.ask(Ask::Propose(b"a"));
    node.run();
    assert_eq!(node.machine().acknowledged.len(), 3);
}

#[test]
fn answers_of_the_store_to_an_earlier_life_are_void() {
    let mut node = Node::serving();
    for life in [0, 1] {
        let entries = Ok(Vec::new());
        let event = StoreEvent::LogRead { life, read: 1, entries };
        node.step(ShardInput::Store { group: GROUP, event });
    }
    node.ask(Ask::Checkpoint(vec![]));
    node.run();
    let store = node.store.clone();
    let open = |node: &mut Node, life| {
        let (sender, opened) = std::sync::mpsc::channel();
        store.open_snapshot(GROUP, Box::new(move |opened| drop(sender.send(opened))));
        let opened = opened.recv().unwrap().unwrap();
        let event = StoreEvent::SnapshotOpened { life, to: NodeId(2), opened: Ok(opened) };
        node.step(ShardInput::Store { group: GROUP, event });
        opened.number
    };
    let number = open(&mut node, 5);
    let (sender, read) = std::sync::mpsc::channel();
    let then = Box::new(move |piece| drop(sender.send(piece)));
    node.store.read_snapshot(GROUP, number, Bytes::new(), 1024, then);
    let gone = ReadError::SnapshotGone { group: GROUP, number };
    assert_eq!(read.recv().unwrap(), Err(gone), "it was closed");
}

#[test]
fn entries_that_are_gone_are_read_as_none() {
    let mut node = Node::serving();
    node.ask(Ask::Propose(b"a"));
    node.run();
    for (read, (after, upto)) in [(0, 2), (1, 2), (9, 10)].into_iter().enumerate() {
        let read = read as u64;
        node.shard.carry_out(GROUP, Effect::ReadLog { read, after, upto, max_bytes: 99 });
    }
    let lengths: Vec<usize> = node
        .take_told()
        .into_iter()
        .map(|told| match told {
            FromStore::Group { event: StoreEvent::LogRead { entries, .. }, .. } => {
                entries.map_or(0, |entries| entries.len())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lengths, [2, 1, 0]);
}

#[test]
fn who_had_no_room_is_told_of_room_once() {
    let mut node = Node::open(&store_of(HardState::default()), NODE, &[NodeId(2)], Time(0));
    let peer = NodeId(2);
    node.step(ShardInput::Peer { peer, up: true, incarnation: 5, restarted: false });
    node.wire_full.store(true, std::sync::atomic::Ordering::Relaxed);
    node.ask(Ask::Say(peer, b"a"));
    assert_eq!(node.machine().not_sent, [NotSent::Full]);
    node.wire_full.store(false, std::sync::atomic::Ordering::Relaxed);
    node.take_calls();
    node.step(ShardInput::Room { peer });
    node.step(ShardInput::Room { peer });
    assert_eq!(node.take_calls(), [Call::Room(peer)]);
}

#[test]
fn a_restarted_process_is_told_as_one_that_went_away_and_came() {
    let mut node = Node::open(&store_of(HardState::default()), NODE, &[NodeId(2)], Time(0));
    let peer = NodeId(2);
    let up = |incarnation, restarted| ShardInput::Peer { peer, up: true, incarnation, restarted };
    let word = |process| ShardInput::Message {
        from: peer,
        process,
        group: GROUP,
        bytes: Bytes::from(vec![process as u8]),
    };
    node.step(word(6));
    node.step(up(5, false));
    node.step(word(5));
    assert_eq!(
        node.take_calls(),
        [Call::Peer(peer, true), Call::Message(peer, Bytes::from_static(&[5]))],
        "the new process waits until it is told"
    );
    node.step(up(6, true));
    node.step(word(5));
    let new = Call::Message(peer, Bytes::from_static(&[6]));
    assert_eq!(node.take_calls(), [Call::Peer(peer, false), Call::Peer(peer, true), new]);
}
