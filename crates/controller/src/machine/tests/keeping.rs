//! Checkpoints, restarts and snapshots.

use flintmq_shard::Machine as _;

use super::cluster::Cluster;
use super::{assign, catch_up, change, put, unassign};
use crate::command::PutCondition;
use crate::metadata::MetadataState;

#[test]
fn a_snapshot_answers_what_was_applied_in_it() {
    let mut cluster = Cluster::led(3);
    cluster.lagging = vec![3];
    cluster.request(3, change(1, put("d", PutCondition::New)));
    cluster.request(3, change(2, put("d", PutCondition::New)));
    cluster.request(3, catch_up(3));
    cluster.settle();
    assert_eq!(cluster.node(3).changed(), []);
    cluster.install_snapshot(1, 3);
    cluster.work(3);
    let answers = cluster.node(3).changed();
    assert_eq!(answers[0], (1, Ok(())));
    assert!(answers[1].1.is_err(), "the second was refused: {answers:?}");
    assert_eq!(cluster.node(3).caught_up(), [(3, Ok(()))]);
    assert!(cluster.node(3).machine.metadata().domain("d").is_some());
}

#[test]
fn a_checkpoint_without_room_is_written_later_as_the_state_is_then() {
    let mut cluster = Cluster::led(1);
    cluster.node(1).group.checkpoint_refused = true;
    cluster.request(1, change(1, assign("bmq://d/a")));
    cluster.settle();
    let node = cluster.node(1);
    assert!(!node.machine.checkpoint(&mut node.group));
    cluster.request(1, change(2, unassign("bmq://d/a", 1)));
    cluster.request(1, change(3, assign("bmq://d/b")));
    cluster.settle();
    let node = cluster.node(1);
    node.group.checkpoint_refused = false;
    assert!(node.machine.checkpoint(&mut node.group));
    let batch = node.group.checkpoints.last().unwrap();
    assert_eq!(batch.applied.index, 3);
    assert_eq!(batch.dead_entries, [1, 2, 3], "also those of the checkpoint that was refused");
    let restored = MetadataState::restore(node.records()).unwrap();
    let uris: Vec<_> = restored.metadata().queues().map(|(uri, _)| uri.to_owned()).collect();
    assert_eq!(uris, ["bmq://d/b"]);
    assert!(node.machine.checkpoint(&mut node.group));
    assert_eq!(node.group.checkpoints.len(), 1, "nothing is new");
}

#[test]
fn every_entry_is_given_up_once_also_across_restarts() {
    let mut cluster = Cluster::led(1);
    cluster.node(1).group.compaction_limit = 2;
    for ticket in 0..4 {
        cluster.request(1, change(ticket, assign(&format!("bmq://d/{ticket}"))));
        cluster.settle();
    }
    let node = cluster.node(1);
    assert!(node.machine.checkpoint(&mut node.group));
    assert_eq!(node.group.checkpoints[0].dead_entries, [1, 2], "a follower needs the others");
    let records = node.records();
    cluster.restart(1, 101, records);
    cluster.elect(1);
    cluster.settle();
    let node = cluster.node(1);
    assert!(node.machine.checkpoint(&mut node.group));
    assert_eq!(node.group.checkpoints[0].dead_entries, [3, 4, 5, 6]);
}

#[test]
fn checkpoints_come_by_themselves_and_are_tried_again() {
    let mut cluster = Cluster::led(1);
    cluster.node(1).group.checkpoint_refused = true;
    for ticket in 0..256 {
        cluster.request(1, change(ticket, assign(&format!("bmq://d/{ticket}"))));
        cluster.work(1);
        cluster.commit();
        cluster.apply(1);
    }
    cluster.settle();
    cluster.node(1).group.checkpoint_refused = false;
    cluster.settle();
    assert!(cluster.node(1).group.checkpoints.is_empty(), "not before the next tick");
    cluster.tick();
    cluster.settle();
    assert_eq!(cluster.node(1).group.checkpoints.len(), 1);
}

#[test]
fn a_restarted_node_takes_up_its_checkpoint_and_the_rest_of_the_log() {
    let mut cluster = Cluster::led(3);
    cluster.request(2, change(1, assign("bmq://d/a")));
    cluster.settle();
    let node = cluster.node(2);
    assert!(node.machine.checkpoint(&mut node.group));
    let records = node.records();
    cluster.restart(2, 101, records);
    cluster.request(2, change(1, assign("bmq://d/b")));
    cluster.settle();
    assert_eq!(cluster.node(2).changed(), [(1, Ok(()))], "numbers start over in a new process");
    assert_eq!(cluster.node(2).machine.metadata().queue_count(), 2);
    assert_eq!(cluster.node(1).machine.metadata().queue_count(), 2);
}
