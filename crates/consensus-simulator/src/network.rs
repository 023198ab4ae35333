//! Links between nodes: delay, loss, doubling, reordering, and directions that do not work.

use std::collections::{BTreeMap, BTreeSet};

use flintmq_consensus::{Class, NodeId};

use crate::random::Random;

/// How all links behave for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// Packets lost, in a million.
    pub loss: u64,
    /// Packets that arrive twice, in a million.
    pub doubled: u64,
    /// Packets that may overtake others or be overtaken, in a million.
    pub reordered: u64,
    /// Least delay, in microseconds.
    pub delay_min: u64,
    /// Usual greatest delay, in microseconds.
    pub delay_max: u64,
    /// Packets that are late by up to a hundred times as much, in a million.
    pub late: u64,
}

impl Weather {
    /// A network without faults.
    pub const CALM: Self =
        Self { loss: 0, doubled: 0, reordered: 0, delay_min: 100, delay_max: 600, late: 0 };
}

#[derive(Clone, Debug)]
struct Link {
    random: Random,
    /// When the last packet of each class arrives that keeps its order.
    arrives: [u64; 3],
    /// Raised when the connection is lost: what was under way is lost with it.
    connection: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    seed: u64,
    pub(crate) weather: Weather,
    links: BTreeMap<(NodeId, NodeId), Link>,
    /// Directions that do not work, with how many faults are the reason.
    blocked: BTreeMap<(NodeId, NodeId), u32>,
    /// Packets go to whatever process is there, not only to the one that was connected.
    pub(crate) datagrams: bool,
}

/// When copies of one packet arrive.
pub(crate) type Arrivals = Vec<u64>;

impl Network {
    pub(crate) fn new(seed: u64, weather: Weather, datagrams: bool) -> Self {
        Self { seed, weather, links: BTreeMap::new(), blocked: BTreeMap::new(), datagrams }
    }

    fn link(&mut self, from: NodeId, to: NodeId) -> &mut Link {
        let seed = self.seed;
        self.links.entry((from, to)).or_insert_with(|| Link {
            random: Random::new(seed, 1000 + u64::from(from.0) * 1000 + u64::from(to.0)),
            arrives: [0; 3],
            connection: 0,
        })
    }

    pub(crate) fn works(&self, from: NodeId, to: NodeId) -> bool {
        !self.blocked.contains_key(&(from, to))
    }

    pub(crate) fn connection(&mut self, from: NodeId, to: NodeId) -> u64 {
        self.link(from, to).connection
    }

    pub(crate) fn lose_connection(&mut self, a: NodeId, b: NodeId) {
        self.link(a, b).connection += 1;
        self.link(b, a).connection += 1;
    }

    pub(crate) fn block(&mut self, directions: &BTreeSet<(NodeId, NodeId)>) {
        for direction in directions {
            *self.blocked.entry(*direction).or_default() += 1;
        }
    }

    pub(crate) fn unblock(&mut self, directions: &BTreeSet<(NodeId, NodeId)>) {
        for direction in directions {
            if let Some(count) = self.blocked.get_mut(direction) {
                *count -= 1;
                if *count == 0 {
                    self.blocked.remove(direction);
                }
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        self.blocked.clear();
        self.weather = Weather::CALM;
    }

    /// When the packet arrives: never, once or twice.
    pub(crate) fn send(&mut self, now: u64, from: NodeId, to: NodeId, class: Class) -> Arrivals {
        if !self.works(from, to) {
            return Arrivals::new();
        }
        let weather = self.weather;
        let link = self.link(from, to);
        if link.random.chance(weather.loss) {
            return Arrivals::new();
        }
        let mut arrivals = Arrivals::new();
        let copies = if link.random.chance(weather.doubled) { 2 } else { 1 };
        for _ in 0..copies {
            let mut delay = link.random.between(weather.delay_min, weather.delay_max);
            if link.random.chance(weather.late) {
                delay *= link.random.between(2, 100);
            }
            let lane = match class {
                Class::Urgent => 0,
                Class::Append => 1,
                Class::Bulk => 2,
            };
            let at = now + delay;
            if link.random.chance(weather.reordered) {
                arrivals.push(at);
            } else {
                let at = at.max(link.arrives[lane]);
                link.arrives[lane] = at;
                arrivals.push(at);
            }
        }
        arrivals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    #[test]
    fn without_faults_packets_keep_their_order() {
        let mut network = Network::new(1, Weather::CALM, false);
        let mut last = 0;
        for now in 0..500 {
            let arrivals = network.send(now * 10, A, B, Class::Append);
            assert_eq!(arrivals.len(), 1);
            assert!(arrivals[0] >= last && arrivals[0] > now * 10);
            last = arrivals[0];
        }
    }

    #[test]
    fn a_direction_is_blocked_until_every_reason_is_gone() {
        let mut network = Network::new(1, Weather::CALM, false);
        let one_way = BTreeSet::from([(A, B)]);
        network.block(&one_way);
        network.block(&one_way);
        network.unblock(&one_way);
        assert!(!network.works(A, B) && network.works(B, A));
        assert_eq!(network.send(0, A, B, Class::Urgent), Arrivals::new());
        network.unblock(&one_way);
        assert!(network.works(A, B));
    }
}
