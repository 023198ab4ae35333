//! Groups that come, go, and change their members.

use super::*;
use crate::{Body, Term, UnfitReasons};

fn packet(net: &mut Net, from: NodeId, to: NodeId, messages: Vec<Message>) -> Packet {
    let now = net.now;
    let settings = net.node(from).settings().clone();
    let mut packet = Packet {
        from,
        to,
        from_incarnation: settings.incarnation,
        to_incarnation: 0,
        number: 0,
        contact: 0,
        heard_contact: 0,
        hears_you: false,
        clocks: None,
        unfit: UnfitReasons::NONE,
        messages,
    };
    let peer = net.host_mut(from).node.books.peers.get_mut(&to).expect("a peer");
    peer.contact.stamp(now, &mut packet);
    packet
}

fn message(group: u32, creation: CreationId, from: NodeId, to: NodeId, term: Term) -> Message {
    Message { group: GroupId(group), creation, from, to, term, body: Body::Wake }
}

#[test]
fn what_is_for_no_group_here_is_dropped_and_counted() {
    let mut net = Net::with_groups(3, 1, |_| {});
    net.run_until("all groups rest", Net::all_at_rest);
    let term = net.core(B, GroupId(1)).term();
    let strays = vec![
        message(7, CREATION, A, B, 90),
        message(1, CreationId(8), A, B, 90),
        message(1, CREATION, C, B, 90),
    ];
    let packet = packet(&mut net, A, B, strays);
    let before = *net.counters(B);
    net.input(B, NodeInput::Packet(packet.clone()));
    net.input(C, NodeInput::Packet(packet));
    let after = *net.counters(B);
    assert_eq!(after.messages_unknown_group, before.messages_unknown_group + 1);
    assert_eq!(after.messages_other_creation, before.messages_other_creation + 1);
    assert_eq!(after.packets_misdirected, before.packets_misdirected + 1);
    assert_eq!(after.messages_received, before.messages_received);
    assert_eq!(net.core(B, GroupId(1)).term(), term);
    assert_eq!(net.counters(C).packets_misdirected, 1);
}

#[test]
fn a_removed_group_cedes_and_leaves_nothing_behind() {
    let mut net = Net::with_groups(3, 2, |_| {});
    net.run_until("all groups rest", Net::all_at_rest);
    let leader = net.leader(GroupId(1)).expect("it is led");
    net.propose(leader, GroupId(1), 1000);
    let now = net.now;
    assert!(net.host_mut(leader).node.remove_group(now, GroupId(1)));
    assert!(!net.host_mut(leader).node.remove_group(now, GroupId(1)));
    let node = net.node(leader);
    assert!(node.group(GroupId(1)).is_none());
    assert_eq!(node.books.elections.active(), 0);
    assert!(node.books.groups_of.values().flatten().all(|group| *group != GroupId(1)));
    assert!(node.books.peers.values().all(|peer| peer.pair.in_flight() == 0));
    let took = net.run_until("the others go on", |net| net.leader(GroupId(1)).is_some());
    assert!(took < 490, "{took}");
}

#[test]
fn a_group_made_anew_is_another_one() {
    let mut net = Net::with_groups(3, 1, |_| {});
    net.run_until("all groups rest", Net::all_at_rest);
    let now = net.now;
    // The report of a save of the old group comes when the new one is there.
    net.input(A, NodeInput::Group { group: GroupId(1), input: Input::Stand { scout: false } });
    let mut effects = Vec::new();
    net.host_mut(A).node.flush(now, &mut effects);
    assert!(effects.iter().any(|effect| matches!(effect, NodeEffect::SaveHardStates { .. })));
    let config = ConfigRegister::of_voters([A, B, C]);
    let restored = Restored {
        group: GroupId(1),
        creation: CreationId(10),
        node: A,
        hard_state: HardState { config, ..HardState::default() },
        log: LogTerms::default(),
        applied: 0,
        recovering: None,
    };
    net.host_mut(A).node.add_group(now, restored).expect("it is consistent");
    net.input(A, NodeInput::HardStatesSynced { batch: u64::MAX });
    net.run(200);
    assert_eq!(net.core(A, GroupId(1)).creation(), CreationId(10));
    assert!(net.counters(A).messages_other_creation + net.counters(B).messages_other_creation > 0);
    assert_eq!(net.core(A, GroupId(1)).leader(), None);
}

#[test]
fn a_new_member_is_told_of_and_told() {
    let mut net = Net::new(4, |_| {});
    let d = NodeId(4);
    net.add_group(GroupId(1), &[A, B, C]);
    let _ = net.kill(d);
    net.run_until("all groups rest", Net::all_at_rest);
    net.run(1000);
    let leader = net.leader(GroupId(1)).expect("it is led");
    let now = net.now;
    let add = MemberChange::AddLearner(d);
    net.host_mut(leader).node.change_members(now, GroupId(1), add).expect("nothing is pending");
    assert!(!net.core(leader, GroupId(1)).is_up(d), "it is down, and that is known at once");
    net.boot(d);
    net.host_mut(d).hard.insert(GroupId(1), HardState::default());
    net.restore(d, GroupId(1));
    net.run_until("it has everything", |net| {
        net.core(d, GroupId(1)).commit_index() == net.core(leader, GroupId(1)).last().index
            && net.core(d, GroupId(1)).config().learners == [d]
    });
    assert!(net.core(leader, GroupId(1)).is_up(d));
    net.run_until("all groups rest", Net::all_at_rest);
}

#[test]
fn last_words_are_repeated_to_whoever_did_not_hear_them() {
    let mut net = Net::with_groups(3, 1, |_| {});
    net.run_until("all groups rest", Net::all_at_rest);
    let leader = net.leader(GroupId(1)).expect("it is led");
    net.lost = |message| matches!(message.body, Body::Cede { .. });
    net.input(leader, NodeInput::Group { group: GroupId(1), input: Input::StorageFailed });
    net.run(1000);
    assert_eq!(net.leader(GroupId(1)), None, "its node lives, and all are loyal");
    net.lost = |_| false;
    let other = if leader == A { B } else { A };
    net.input(other, NodeInput::Group { group: GroupId(1), input: Input::Wake });
    net.run_until("somebody else leads", |net| net.leader(GroupId(1)).is_some());
    assert!(net.counters(leader).last_words_repeated > 0);
}
