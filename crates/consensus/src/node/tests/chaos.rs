//! Anything happens to a few nodes, then it stops: the books are right all the time, and in the
//! end everybody agrees and rests.

use super::*;
use crate::Body;

const GROUPS: u32 = 6;

/// Draws for one run.
struct Dice {
    jitter: Jitter,
    drawn: u64,
}

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.drawn += 1;
        self.jitter.fork(self.drawn) % bound
    }

    fn node(&mut self) -> NodeId {
        NodeId(1 + u32::try_from(self.below(3)).unwrap_or(0))
    }

    fn group(&mut self) -> GroupId {
        GroupId(1 + u32::try_from(self.below(u64::from(GROUPS))).unwrap_or(0))
    }
}

fn disturb(net: &mut Net, dice: &mut Dice) {
    let (node, other, group) = (dice.node(), dice.node(), dice.group());
    let group_input = |input| NodeInput::Group { group, input };
    match dice.below(18) {
        0 => net.restart(node),
        15 => {
            let keep = usize::try_from(dice.below(40)).unwrap_or(0);
            net.lose_power(node, keep);
        }
        1 => {
            net.cut.insert((node, other));
        }
        2 | 3 => net.cut.clear(),
        4 => net.input(node, NodeInput::Disconnected { peer: other }),
        5 => net.input(node, group_input(Input::Transfer { to: other, force: true })),
        6 => net.input(node, group_input(Input::Transfer { to: other, force: false })),
        7 => net.input(node, group_input(Input::Stand { scout: true })),
        8 => net.input(node, NodeInput::GroupStalled { group }),
        9 => {
            net.input(node, NodeInput::Stalled);
            net.run(dice.below(800));
            net.input(node, NodeInput::Resumed);
        }
        10 => net.lost = |message| message.term % 3 == 1 && message.group.0 % 2 == 0,
        11 => net.lost = |message| matches!(message.body, Body::Ack { .. } | Body::Cede { .. }),
        12 => net.lost = |_| false,
        13 => {
            net.input(node, NodeInput::RemovePeer { peer: other });
            net.run(dice.below(300));
            net.input(node, NodeInput::AddPeer { peer: other });
        }
        _ => {
            for _ in 0..dice.below(60) {
                let now = net.now;
                let payload = Bytes::from(vec![1; 1000]);
                let node = &mut net.host_mut(node).node;
                let _ = node.propose(now, group, EntryKind::Commands, payload);
            }
        }
    }
    net.run(dice.below(200));
}

fn run(seed: u64) {
    let mut dice = Dice { jitter: Jitter::new(seed), drawn: 0 };
    let mut net = Net::with_groups(3, GROUPS, |settings| {
        settings.seed = seed;
        settings.max_elections = 3;
        settings.pair_window_bytes = 30 << 10;
        settings.pair_quantum_bytes = 4 << 10;
        let message_bytes = 8 << 10;
        settings.group = Arc::new(Settings { message_bytes, ..Settings::default() });
    });
    for _ in 0..60 {
        disturb(&mut net, &mut dice);
    }
    net.cut.clear();
    net.lost = |_| false;
    let what = format!("seed {seed}: all groups agree and rest");
    net.run_until(&what, |net| {
        net.all_at_rest() && net.groups().into_iter().all(|group| net.all_decided(group))
    });
    net.run(1000);
    for host in net.hosts.values() {
        assert!(host.node.groups().all(|core| core.recovering().is_none()), "seed {seed}");
        assert!(host.node.books.timers.next().is_none(), "seed {seed}: timers are left");
        let in_flight = host.node.books.peers.values().map(|peer| peer.pair.in_flight());
        assert_eq!(in_flight.sum::<u64>(), 0, "seed {seed}: bytes are on the way");
    }
}

const SEEDS: RangeInclusive<u64> = 0..=23;

#[test]
fn whatever_happens_the_books_are_right_and_all_comes_to_rest() {
    for seed in SEEDS {
        let failed = std::panic::catch_unwind(|| run(seed)).is_err();
        assert!(
            !failed,
            "seed {seed}: to replay it alone, let SEEDS be {seed}..={seed} and run \
             cargo test -p flintmq-consensus --lib node::tests::chaos"
        );
    }
}
