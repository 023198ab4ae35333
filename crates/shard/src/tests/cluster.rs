//! Several shards with one group: who leads, who commits, who is a member.

use std::sync::Arc;
use std::time::Duration;

use flintmq_consensus::NodeId;

use super::bench::*;
use crate::machine::NotSent;
use crate::*;

const LEARNER: NodeId = NodeId(4);

fn assign(cluster: &mut Cluster, voters: &[u32], ineligible: &[u32]) {
    let nodes = |ids: &[u32]| -> Vec<NodeId> { ids.iter().copied().map(NodeId).collect() };
    let place = Place { voters: nodes(voters), ..Place::default() };
    let assignment = Arc::new(Assignment {
        groups: [(GROUP, place)].into(),
        ineligible: nodes(ineligible).into_iter().collect(),
    });
    for node in cluster.nodes.values_mut() {
        node.step(ShardInput::Assignment(Arc::clone(&assignment)));
        node.step(ShardInput::ControllerLed { led: true });
    }
}

fn payloads(node: &Node) -> Vec<&[u8]> {
    let applied = node.machine().applied.iter();
    applied.map(|(_, payload)| &payload[..]).filter(|payload| !payload.is_empty()).collect()
}

#[test]
fn what_a_leader_acknowledged_is_applied_everywhere() {
    let mut cluster = Cluster::new(3, 3);
    let leader = cluster.elect();
    for payload in [b"a", b"b", b"c"] {
        cluster.node(leader).ask(Ask::Propose(payload));
    }
    cluster.pass(100);
    assert_eq!(cluster.node(leader).machine().acknowledged.len(), 3);
    for node in cluster.nodes.values() {
        assert_eq!(payloads(node), [b"a", b"b", b"c"], "node {}", node.id.0);
        assert_eq!(node.status().leader, Some(leader));
        assert!(node.status().led);
    }
}

/// R1, with all that belongs to it: the deposed leader hears everything at once.
#[test]
fn a_deposed_leader_acknowledges_nothing_of_its_successor() {
    let mut cluster = Cluster::new(3, 3);
    let old = cluster.elect();
    cluster.pass(2000);
    let first = cluster.node(old).machine().acknowledged.len();
    cluster.cut_off.insert(old);
    cluster.node(old).ask(Ask::Propose(b"lost"));
    cluster.pass(10);
    let proposed = cluster.node(old).machine().under_way.clone();
    assert_eq!(proposed.len(), 1);
    let others: Vec<NodeId> = cluster.nodes.keys().copied().filter(|id| *id != old).collect();
    for other in &others {
        let incarnation = incarnation(old);
        cluster.node(*other).step(ShardInput::Peer {
            peer: old,
            up: false,
            incarnation,
            restarted: false,
        });
    }
    let new = cluster.elect();
    cluster.node(new).ask(Ask::Propose(b"kept"));
    cluster.pass(100);
    assert_eq!(cluster.node(new).machine().acknowledged.len(), 1);
    cluster.cut_off(old, false);
    cluster.pass(3000);
    let machine = cluster.node(old).machine();
    assert_eq!(machine.acknowledged.len(), first, "what it proposed was never committed");
    let lost = machine.calls.iter().position(|call| *call == Call::Lost).unwrap();
    let later = machine.calls.iter().position(
        |call| matches!(call, Call::Applied(position) if position.term > proposed[0].term),
    );
    assert!(lost < later.unwrap());
    assert!(payloads(cluster.node(old)).contains(&&b"kept"[..]));
    assert!(!payloads(cluster.node(old)).contains(&&b"lost"[..]));
}

/// R6: a node that was never heard counts as out of reach.
#[test]
fn peers_that_were_never_told_are_out_of_reach() {
    let mut cluster = Cluster::new(3, 3);
    let hard_state = record(&cluster.node(NODE).store).hard_state;
    let peers = [NodeId(2), NodeId(3)];
    let mut node = Node::open(&store_of(hard_state), NODE, &peers, cluster.now);
    node.run();
    assert!(!node.machine().in_reach);
    let core = node.shard.core(GROUP).unwrap();
    assert!(!core.is_up(NodeId(2)) && !core.is_up(NodeId(3)));
    node.step(ShardInput::Peer { peer: NodeId(2), up: true, incarnation: 1, restarted: false });
    node.run();
    assert!(node.machine().in_reach);
    assert!(node.shard.core(GROUP).unwrap().is_up(NodeId(2)));
}

#[test]
fn a_leader_without_a_quorum_in_reach_cedes() {
    let mut cluster = Cluster::new(3, 3);
    let leader = cluster.elect();
    cluster.pass(100);
    for other in cluster.nodes.keys().copied().filter(|id| *id != leader).collect::<Vec<_>>() {
        cluster.cut_off(other, true);
    }
    cluster.pass(3000);
    let machine = cluster.node(leader).machine();
    assert!(!machine.leads && !machine.in_reach);
}

/// R3: others commit what the own disk does not take, for some time, then one of them leads.
#[test]
fn a_leader_whose_disk_stalls_makes_room() {
    let mut cluster = Cluster::new(3, 3);
    let leader = cluster.elect();
    cluster.pass(100);
    cluster.node(leader).stalled = true;
    cluster.node(leader).ask(Ask::Propose(b"a"));
    cluster.pass(500);
    let machine = cluster.node(leader).machine();
    assert!(machine.leads && machine.acknowledged.len() == 1, "the others have it");
    cluster.pass(4000);
    assert!(cluster.node(leader).notices.contains(&Notice::OwnWritesLag));
    let next = cluster.leader().expect("another node leads");
    assert_ne!(next, leader);
    cluster.node(leader).stalled = false;
    cluster.pass(500);
    assert_eq!(payloads(cluster.node(leader)), [b"a"]);
    assert!(cluster.nodes.values().all(|node| node.fatal.is_none()));
}

#[test]
fn a_leadership_is_handed_over_and_the_administrator_is_told() {
    let mut cluster = Cluster::new(3, 3);
    let leader = cluster.elect();
    cluster.pass(500);
    let to = cluster.nodes.keys().copied().find(|id| *id != leader).unwrap();
    let command = AdminCommand::Transfer { to, force: false };
    cluster.node(leader).step(ShardInput::Admin { group: GROUP, ticket: 4, command });
    cluster.pass(500);
    assert_eq!(cluster.leader(), Some(to));
    let answered = cluster.node(leader).effects.iter().any(|effect| {
        matches!(effect, ShardEffect::Answer { ticket: 4, answer: AdminAnswer::Transferred(Ok(_)) })
    });
    assert!(answered);
}

#[test]
fn a_stopping_leader_cedes_at_once() {
    let mut cluster = Cluster::new(3, 3);
    let leader = cluster.elect();
    cluster.pass(500);
    cluster.node(leader).step(ShardInput::Stop);
    let stopped_at = cluster.now;
    cluster.pass(1);
    assert!(cluster.node(leader).effects.iter().any(|e| matches!(e, ShardEffect::Stopped)));
    while cluster.leader().is_none_or(|next| next == leader) {
        cluster.pass(10);
        assert!(cluster.now.since(stopped_at) < Duration::from_millis(450), "nobody was told");
    }
}

#[test]
fn a_group_gets_the_members_that_are_assigned_to_it() {
    let mut cluster = Cluster::new(3, 4);
    let leader = cluster.elect();
    let gone = cluster.nodes.keys().copied().find(|id| *id != leader && *id != LEARNER).unwrap();
    let wanted: Vec<u32> = (1..=4).filter(|id| *id != gone.0).collect();
    cluster.node(leader).ask(Ask::Propose(b"a"));
    assign(&mut cluster, &wanted, &[]);
    cluster.pass(4000);
    let leader = cluster.leader().unwrap();
    let core = cluster.node(leader).shard.core(GROUP).unwrap();
    let voters: Vec<u32> = core.config().voters.iter().map(|id| id.0).collect();
    assert_eq!(voters, wanted);
    assert!(core.config().learners.is_empty());
    assert_eq!(payloads(cluster.node(LEARNER)), [b"a"]);
    assert!(cluster.node(leader).shard.host.catching_up.is_empty());
}

#[test]
fn members_stay_while_the_controller_is_not_led() {
    let mut cluster = Cluster::new(3, 4);
    cluster.elect();
    assign(&mut cluster, &[1, 2, 4], &[]);
    for node in cluster.nodes.values_mut() {
        node.step(ShardInput::ControllerLed { led: false });
    }
    cluster.pass(4000);
    let leader = cluster.leader().unwrap();
    let core = cluster.node(leader).shard.core(GROUP).unwrap();
    assert_eq!(core.config().members(), [NodeId(1), NodeId(2), NodeId(3)]);
}

#[test]
fn a_node_that_must_not_lead_makes_room() {
    let mut cluster = Cluster::new(3, 3);
    let leader = cluster.elect();
    cluster.pass(500);
    assign(&mut cluster, &[1, 2, 3], &[leader.0]);
    cluster.pass(3000);
    assert!(cluster.leader().is_some_and(|next| next != leader));
}

#[test]
fn machines_talk_to_each_other() {
    let mut cluster = Cluster::new(3, 3);
    cluster.settle();
    cluster.node(NodeId(1)).ask(Ask::Say(NodeId(2), b"hello"));
    cluster.settle();
    let heard = Call::Message(NodeId(1), bytes::Bytes::from_static(b"hello"));
    assert!(cluster.node(NodeId(2)).take_calls().contains(&heard));
    assert_eq!(cluster.node(NodeId(1)).machine().not_sent, Vec::<NotSent>::new());
}
