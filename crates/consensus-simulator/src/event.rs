//! What is going to happen, and when.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use flintmq_consensus::{GroupId, Index, Input, NodeId, Packet, ProducerSequence};

use crate::network::Weather;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Propose {
        sequenced: Option<ProducerSequence>,
        payload: u64,
        bytes: u64,
    },
    Read,
    /// Of any replica, with what was seen last.
    ReadAt {
        history: u32,
        index: Index,
    },
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Proposed { proposal: ProducerSequence, index: Index, forks: usize },
    NotLeader { leader: Option<NodeId> },
    Busy,
    Read { history: u32, index: Index },
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    Deliver { packet: Box<Packet>, run: u64, connection: u64 },
    Link { node: NodeId, peer: NodeId, up: bool },
    Timer { node: NodeId, run: u64, at: u64 },
    Beat { node: NodeId, run: u64, at: u64 },
    Told { node: NodeId, run: u64 },
    NotStepped { node: NodeId, run: u64 },
    Fit { node: NodeId, run: u64 },
    Flush { node: NodeId, run: u64 },
    Written { node: NodeId, run: u64, count: usize },
    SyncDue { node: NodeId, run: u64 },
    Synced { node: NodeId, run: u64 },
    HardSynced { node: NodeId, run: u64, count: usize },
    Answer { node: NodeId, run: u64, group: GroupId, input: Input },
    Apply { node: NodeId, run: u64, group: GroupId },
    Checkpoint { node: NodeId, run: u64 },
    Start { node: NodeId },
    StopClean { node: NodeId, run: u64, down: u64 },
    Fault { number: usize },
    Unblock { directions: BTreeSet<(NodeId, NodeId)> },
    Block { directions: BTreeSet<(NodeId, NodeId)> },
    ResetWeather { weather: Weather },
    Resumed { node: NodeId, run: u64 },
    LosePower { node: NodeId, down: u64 },
    Delete { node: NodeId, run: u64, group: GroupId, born: u64 },
    Client { client: usize },
    Arrive { client: usize, node: NodeId, request: Request },
    Answered { client: usize, reply: Reply },
    Operator,
    Heal,
    Watch,
}

#[derive(Debug)]
struct Scheduled {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The agenda: events in the order of their time, those of one time in the order of their making.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    pub(crate) now: u64,
    made: u64,
    heap: BinaryHeap<Reverse<Scheduled>>,
}

impl Schedule {
    pub(crate) fn at(&mut self, at: u64, event: Event) {
        self.made += 1;
        let at = at.max(self.now);
        self.heap.push(Reverse(Scheduled { at, number: self.made, event }));
    }

    pub(crate) fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    pub(crate) fn next(&mut self) -> Option<Event> {
        let Reverse(scheduled) = self.heap.pop()?;
        self.now = scheduled.at;
        Some(scheduled.event)
    }
}

impl Event {
    /// True when the half of a process that beats takes the event, where there are two.
    pub(crate) fn is_for_beats(&self) -> bool {
        match self {
            Self::Deliver { packet, .. } => packet.messages.is_empty(),
            Self::Link { .. } | Self::Beat { .. } | Self::NotStepped { .. } => true,
            _ => false,
        }
    }

    /// The node whose process takes the event: not while it is suspended.
    pub(crate) fn runs_on(&self) -> Option<NodeId> {
        match self {
            Self::Deliver { packet, .. } => Some(packet.to),
            Self::Link { node, .. }
            | Self::Timer { node, .. }
            | Self::Beat { node, .. }
            | Self::Told { node, .. }
            | Self::NotStepped { node, .. }
            | Self::Fit { node, .. }
            | Self::Flush { node, .. }
            | Self::Written { node, .. }
            | Self::SyncDue { node, .. }
            | Self::Synced { node, .. }
            | Self::HardSynced { node, .. }
            | Self::Answer { node, .. }
            | Self::Apply { node, .. }
            | Self::Checkpoint { node, .. }
            | Self::StopClean { node, .. }
            | Self::Resumed { node, .. }
            | Self::Delete { node, .. }
            | Self::Arrive { node, .. } => Some(*node),
            _ => None,
        }
    }
}
