//! The ways between nodes: packets that may be lost, and connections that keep messages in order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use flintmq_consensus::{Class, GroupId, NodeId, Packet};
use flintmq_shard::{Network, NotSent};

/// What a process has sent and the world has not taken up yet, and where it may send to.
#[derive(Clone, Default)]
pub(crate) struct Wire {
    state: Arc<Mutex<WireState>>,
}

#[derive(Default)]
pub(crate) struct WireState {
    pub(crate) ways: BTreeMap<NodeId, Way>,
    pub(crate) packets: Vec<Packet>,
    pub(crate) messages: Vec<(NodeId, GroupId, Bytes)>,
    pub(crate) refused_full: u64,
    pub(crate) refused_gone: u64,
}

/// The way out to one node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Way {
    pub(crate) open: bool,
    pub(crate) in_flight: usize,
    pub(crate) starved: bool,
    pub(crate) limit: usize,
}

impl Wire {
    pub(crate) fn lock(&self) -> MutexGuard<'_, WireState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Network for Wire {
    fn send_packet(&mut self, _class: Class, packet: Packet) {
        self.lock().packets.push(packet);
    }

    fn send_message(&mut self, to: NodeId, group: GroupId, message: Bytes) -> Result<(), NotSent> {
        let mut state = self.lock();
        let Some(way) = state.ways.get_mut(&to).filter(|way| way.open) else {
            state.refused_gone += 1;
            return Err(NotSent::Gone);
        };
        if way.in_flight > 0 && way.in_flight + message.len() > way.limit {
            way.starved = true;
            state.refused_full += 1;
            return Err(NotSent::Full);
        }
        way.in_flight += message.len();
        state.messages.push((to, group, message));
        Ok(())
    }
}

/// A message on a connection.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    pub(crate) arrival: u64,
    pub(crate) process: u64,
    pub(crate) group: GroupId,
    pub(crate) bytes: Bytes,
}

/// One direction between two nodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    pub(crate) cut: bool,
    /// Of the connection, oldest first.
    pub(crate) flow: VecDeque<InFlight>,
    pub(crate) last_arrival: u64,
    /// A look at the flow is due then.
    pub(crate) looked_at: Option<u64>,
}

/// How well packets get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weather {
    /// Microseconds.
    pub(crate) delay: (u64, u64),
    /// Packets of a thousand that get lost.
    pub(crate) loss: u64,
}

impl Weather {
    pub(crate) const FAIR: Self = Self { delay: (50, 500), loss: 0 };
}

/// All links and connections. A connection is named by its two ends, the smaller first.
#[derive(Clone, Debug)]
pub(crate) struct Net {
    pub(crate) links: BTreeMap<(NodeId, NodeId), Link>,
    pub(crate) open: BTreeMap<(NodeId, NodeId), bool>,
    pub(crate) weather: Weather,
    pub(crate) way_limit: usize,
}

pub(crate) fn ends(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}

impl Net {
    pub(crate) fn new(nodes: &[NodeId]) -> Self {
        let mut links = BTreeMap::new();
        for from in nodes {
            for to in nodes.iter().filter(|to| *to != from) {
                links.insert((*from, *to), Link::default());
            }
        }
        let open = BTreeMap::new();
        Self { links, open, weather: Weather::FAIR, way_limit: 4 << 20 }
    }

    pub(crate) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.links.get(&(from, to)).is_none_or(|link| link.cut)
    }

    pub(crate) fn is_open(&self, a: NodeId, b: NodeId) -> bool {
        self.open.get(&ends(a, b)).copied().unwrap_or_default()
    }

    /// Drops what is on its way between two nodes; tells how much that was.
    pub(crate) fn drop_flows(&mut self, a: NodeId, b: NodeId) -> usize {
        let mut lost = 0;
        for way in [(a, b), (b, a)] {
            if let Some(link) = self.links.get_mut(&way) {
                lost += link.flow.len();
                link.flow.clear();
            }
        }
        lost
    }
}
