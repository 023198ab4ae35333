//! States that take the place of others.

use bytes::Bytes;
use flintmq_consensus::{NodeId, SnapshotId};
use flintmq_log_store::{Delivery, LogStore, MemoryStore, Report, SnapshotReport, StagedPiece};

use super::bench::*;
use crate::store_queue::{Request, StoreQueue};
use crate::*;

/// A cluster of three in which one node lacks what is gone from the others' logs.
fn with_one_that_is_behind() -> (Cluster, NodeId, NodeId) {
    let mut cluster = Cluster::new(3, 3);
    let leader = cluster.elect();
    let late = cluster.nodes.keys().copied().find(|id| *id != leader).unwrap();
    cluster.pass(500);
    cluster.cut_off(late, true);
    for payload in [b"a", b"b", b"c"] {
        cluster.node(leader).ask(Ask::Propose(payload));
    }
    cluster.pass(500);
    for id in cluster.nodes.keys().copied().filter(|id| *id != late).collect::<Vec<_>>() {
        cluster.node(id).ask(Ask::Checkpoint(vec![2, 3]));
    }
    cluster.pass(500);
    assert_eq!(cluster.leader(), Some(leader));
    assert!(cluster.node(leader).shard.core(GROUP).unwrap().log().floor().index >= 3);
    (cluster, leader, late)
}

fn has_all(node: &Node) -> bool {
    let payloads: Vec<_> = node.machine().applied.iter().map(|(_, p)| p.clone()).collect();
    [b"a", b"b", b"c"].iter().all(|payload| payloads.contains(&Bytes::from_static(*payload)))
}

#[test]
fn one_that_is_far_behind_takes_a_snapshot_up() {
    let (mut cluster, leader, late) = with_one_that_is_behind();
    cluster.node(late).take_calls();
    cluster.cut_off(late, false);
    cluster.pass(3000);
    assert!(has_all(cluster.node(late)));
    let calls = cluster.node(late).take_calls();
    assert!(calls.iter().any(|call| matches!(call, Call::Restored(_))));
    cluster.node(leader).ask(Ask::Propose(b"d"));
    cluster.pass(500);
    assert_eq!(cluster.node(late).machine().applied.last().unwrap().1, b"d"[..]);
}

/// R2: a snapshot that cannot be opened is tried again.
#[test]
fn a_snapshot_that_could_not_be_opened_is_tried_again() {
    let (mut cluster, leader, late) = with_one_that_is_behind();
    cluster.cut_off(late, false);
    // Whatever is opened fails, until it does not any more.
    cluster.node(leader).fails_snapshots = true;
    cluster.pass(3000);
    assert!(!has_all(cluster.node(late)));
    assert!(cluster.node(leader).snapshots_failed >= 2, "it is tried again");
    assert!(cluster.node(leader).snapshots_failed < 60, "but not all the time");
    cluster.node(leader).fails_snapshots = false;
    cluster.pass(8000);
    assert!(has_all(cluster.node(late)));
}

/// R4: a piece that would take from the reserve is kept, and the node goes on.
#[test]
fn a_full_disk_makes_a_snapshot_wait() {
    let (mut cluster, _, late) = with_one_that_is_behind();
    cluster.node(late).store.set_low_disk(Some((1, 2)));
    cluster.cut_off(late, false);
    cluster.pass(3000);
    assert_eq!(cluster.node(late).fatal, None);
    assert!(!has_all(cluster.node(late)));
    cluster.node(late).store.set_low_disk(None);
    cluster.pass(5000);
    assert!(has_all(cluster.node(late)));
}

/// R8: nothing is written of a state that another one is about to replace.
#[test]
fn a_checkpoint_waits_for_the_state_that_is_installed() {
    let (mut cluster, _, late) = with_one_that_is_behind();
    cluster.node(late).machine_mut().checkpoints = true;
    cluster.cut_off(late, false);
    cluster.node(late).stalled = true;
    for _ in 0..4000 {
        cluster.pass(1);
        let installing = cluster.node(late).shard.groups[&GROUP].replica.installing;
        if installing.is_some() {
            break;
        }
        cluster.node(late).store.step();
    }
    assert!(cluster.node(late).shard.groups[&GROUP].replica.installing.is_some());
    cluster.node(late).ask(Ask::Checkpoint(vec![]));
    assert!(cluster.node(late).machine().changed, "it was handed back");
    cluster.node(late).stalled = false;
    cluster.pass(3000);
    assert!(has_all(cluster.node(late)));
    assert_eq!(cluster.node(late).fatal, None);
    let applied = record(&cluster.node(late).store).applied.unwrap();
    assert!(applied.index >= 4, "checkpoints go on: {applied:?}");
}

#[test]
fn a_refused_snapshot_is_taken_from_its_beginning() {
    let (mut cluster, leader, late) = with_one_that_is_behind();
    cluster.node(late).refuses_pieces = 2;
    cluster.cut_off(late, false);
    cluster.pass(6000);
    assert_eq!(cluster.node(late).refuses_pieces, 0);
    assert!(cluster.node(late).notices.contains(&Notice::SnapshotRefused));
    assert_eq!(cluster.node(late).fatal, None);
    assert!(has_all(cluster.node(late)), "led by {leader}");
}

/// R13: a piece of before that waits is of no use once another snapshot begins.
#[test]
fn a_stale_piece_does_not_disturb_the_next_snapshot() {
    let store = store_of(flintmq_consensus::Core::sole_member(NODE));
    let (teller, told) = std::sync::mpsc::channel();
    store.register(GROUP, Box::new(move |report| drop(teller.send(report))));
    let source = MemoryStore::new(Delivery::Immediate);
    source.create_group(GROUP, flintmq_consensus::Core::sole_member(NODE)).unwrap();
    source.try_checkpoint(GROUP, CheckpointBatch::default()).unwrap();
    let (sender, opened) = std::sync::mpsc::channel();
    source.open_snapshot(GROUP, Box::new(move |opened| drop(sender.send(opened))));
    let opened = opened.recv().unwrap().unwrap();
    let (sender, piece) = std::sync::mpsc::channel();
    let then = Box::new(move |piece| drop(sender.send(piece)));
    source.read_snapshot(GROUP, opened.number, Bytes::new(), 1 << 20, then);
    let data = piece.recv().unwrap().unwrap().data;
    let id = |number| SnapshotId { source: NodeId(2), number, position: opened.position };

    let mut queue = StoreQueue::default();
    store.set_capacity(0);
    let stale = Bytes::from_static(b"in the middle");
    let old = StagedPiece { id: id(1), cursor: stale, data: data.clone() };
    queue.stage(&store, GROUP, old).unwrap();
    let new = StagedPiece { id: id(2), cursor: Bytes::new(), data };
    queue.stage(&store, GROUP, new).unwrap();
    store.set_capacity(10);
    queue.go_on(&store, GROUP).unwrap();
    store.run();
    let reports: Vec<Report> = told.try_iter().filter(|report| *report != Report::Room).collect();
    let staged = SnapshotReport::Staged { id: id(2), cursor: Bytes::new() };
    assert_eq!(reports, [Report::Snapshot(staged)]);
    assert!(queue.is_empty());
}

/// What waits keeps its order, whatever it is.
#[test]
fn an_install_stays_behind_what_waits() {
    let store = store_of(flintmq_consensus::Core::sole_member(NODE));
    let mut queue = StoreQueue::default();
    store.set_capacity(0);
    let id = SnapshotId { source: NodeId(2), number: 1, position: Default::default() };
    queue.push(&store, GROUP, Request::Checkpoint(CheckpointBatch::default())).unwrap();
    queue.push(&store, GROUP, Request::Install { id, keep_log_after: false }).unwrap();
    assert!(queue.has_checkpoint());
    assert_eq!((queue.len(), store.step()), (2, false), "an install alone would have been taken");
}
