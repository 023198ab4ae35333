//! A few nodes with one partition, in one process: links that lose frames, leaderships that move,
//! and clients that note what they get.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flintmq_consensus::{EntryKind, NodeId, Term};
use flintmq_queue::{Partition, QueueId};
use flintmq_shard::Machine as _;

use super::clients::{Client, Seen};
use super::group::FakeGroup;
use crate::{Answer, DomainUsage, PartitionEngine, PartitionUsage, Request, Ticket};

/// A node: one process with an engine, its group, and its clients.
pub(super) struct Node {
    pub(super) engine: PartitionEngine,
    pub(super) group: FakeGroup,
    pub(super) client: Client,
    pub(super) led: Option<Term>,
}

/// All of it.
pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    pub(super) term: Term,
    /// Frames on their way: from, to.
    pub(super) wire: VecDeque<(usize, usize, Bytes)>,
    /// How many frames were sent, and which of them are lost.
    pub(super) frames: u64,
    pub(super) lost: BTreeSet<u64>,
    /// Of all these, every frame from one node to another is lost.
    pub(super) cut: BTreeSet<(usize, usize)>,
    /// Nodes that get no entries.
    pub(super) isolated: BTreeSet<usize>,
    /// Whether the leader's entries are committed after each turn, and reads answered.
    pub(super) commits: bool,
    pub(super) reads: bool,
    /// The largest frame that was sent.
    pub(super) largest: usize,
    processes: u64,
    /// What the domains hold on each node, where partitions share it.
    usages: Vec<Arc<DomainUsage>>,
}

impl World {
    pub(super) fn new(nodes: usize) -> Self {
        Self::sharing((0..nodes).map(|_| Arc::default()).collect())
    }

    /// One partition of a cluster of several; with what the domains hold on each node.
    pub(super) fn sharing(usages: Vec<Arc<DomainUsage>>) -> Self {
        let nodes = usages.len();
        let mut world = Self {
            nodes: Vec::new(),
            term: 0,
            wire: VecDeque::new(),
            frames: 0,
            lost: BTreeSet::new(),
            cut: BTreeSet::new(),
            isolated: BTreeSet::new(),
            commits: true,
            reads: true,
            largest: 0,
            processes: 0,
            usages,
        };
        for at in 0..nodes {
            let node = world.start(at, nodes);
            world.nodes.push(node);
        }
        world
    }

    /// A cluster whose first node leads and serves, with everybody attached.
    pub(super) fn led(nodes: usize) -> Self {
        let mut world = Self::new(nodes);
        world.elect(0);
        world.tick();
        world
    }

    fn start(&mut self, at: usize, nodes: usize) -> Node {
        self.processes += 1;
        let usage = PartitionUsage::new(Arc::clone(&self.usages[at]));
        Node {
            engine: PartitionEngine::new(Partition::default(), usage, self.processes),
            group: FakeGroup::new(id(at), nodes as u32),
            client: Client::default(),
            led: None,
        }
    }

    /// The process dies and another begins with the log. What was on its way from it is lost.
    pub(super) fn restart(&mut self, at: usize, told: bool) {
        self.usages[at] = Arc::default();
        let fresh = self.start(at, self.nodes.len());
        let old = std::mem::replace(&mut self.nodes[at], fresh);
        self.wire.retain(|(from, to, _)| *from != at && *to != at);
        let group = &mut self.nodes[at].group;
        (group.now, group.term, group.leader) = (old.group.now, old.group.term, old.group.leader);
        (group.log, group.commit) = (old.group.log, old.group.commit);
        if group.leader == Some(id(at)) {
            group.leader = None;
        }
        if told {
            for peer in 0..self.nodes.len() {
                self.peer(peer, at, false);
                self.peer(peer, at, true);
            }
        }
        self.settle();
    }

    /// A node is told of another.
    pub(super) fn peer(&mut self, at: usize, peer: usize, up: bool) {
        if at == peer {
            return;
        }
        let node = &mut self.nodes[at];
        if up {
            node.group.in_reach.insert(id(peer));
        } else {
            node.group.in_reach.remove(&id(peer));
        }
        node.engine.on_peer(&mut node.group, id(peer), up);
    }

    /// A node begins to lead, under the next term; those that are not isolated hear of it.
    pub(super) fn elect(&mut self, at: usize) {
        self.term += 1;
        for other in 0..self.nodes.len() {
            if !self.isolated.contains(&other) {
                self.follow(other, at);
            }
        }
        let group = &mut self.nodes[at].group;
        group.append(EntryKind::Barrier, Bytes::new());
        self.commit_at(at);
        self.nodes[at].group.serving = true;
        self.settle();
    }

    fn follow(&mut self, at: usize, leader: usize) {
        let term = self.term;
        let group = &mut self.nodes[at].group;
        (group.term, group.leader, group.serving) = (term, Some(id(leader)), false);
    }

    /// An isolated node is back: it learns who leads, and gets the leader's log.
    pub(super) fn heal(&mut self, at: usize) {
        self.isolated.remove(&at);
        if let Some(leader) = self.leader() {
            if leader != at {
                self.follow(at, leader);
            }
            self.commit_at(leader);
        }
    }

    /// Who leads, of those that are not isolated.
    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |at: &usize| {
            let group = &self.nodes[*at].group;
            group.serving && group.term == self.term && !self.isolated.contains(at)
        };
        (0..self.nodes.len()).find(leads)
    }

    /// A connection has room, or none.
    pub(super) fn set_full(&mut self, from: usize, to: usize, full: bool) {
        let node = &mut self.nodes[from];
        if full {
            node.group.full.insert(id(to));
        } else if node.group.full.remove(&id(to)) {
            node.engine.on_room(&mut node.group, id(to));
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        for node in &mut self.nodes {
            node.group.now = node.group.now + time;
        }
        self.settle();
    }

    /// A second passes everywhere.
    pub(super) fn tick(&mut self) {
        for node in &mut self.nodes {
            node.group.now = node.group.now + Duration::from_secs(1);
            node.engine.on_tick(&mut node.group);
        }
        self.settle();
    }

    pub(super) fn ticks(&mut self, count: usize) {
        (0..count).for_each(|_| self.tick());
    }

    /// Hands a request over without a turn.
    pub(super) fn give(&mut self, at: usize, request: Request) {
        let node = &mut self.nodes[at];
        node.engine.on_request(&mut node.group, request);
    }

    /// Hands a request over and lets everything happen.
    pub(super) fn ask(&mut self, at: usize, request: Request) {
        self.give(at, request);
        self.settle();
    }

    pub(super) fn seen(&self, at: usize, session: u64) -> &[Seen] {
        self.nodes[at].client.seen(session)
    }

    pub(super) fn answers(&self, at: usize, ticket: u64) -> &[Answer] {
        self.nodes[at].client.answers.get(&Ticket(ticket)).map_or(&[], Vec::as_slice)
    }

    pub(super) fn messages(&self, at: usize, queue: u32) -> u64 {
        self.nodes[at].engine.machine().view(QueueId(queue)).map_or(0, |view| view.messages)
    }
}

pub(super) fn id(at: usize) -> NodeId {
    NodeId(at as u32 + 1)
}
