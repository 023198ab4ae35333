//! A few nodes with one partition, in one process: links that lose frames, leaderships that move,
//! and clients that note what they get.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use flintmq_consensus::{EntryKind, Index, NodeId, Term};
use flintmq_queue::{Partition, QueueId};
use flintmq_shard::{Committed, Machine as _, ReadError};
use prost::Message as _;

use super::clients::{Client, Seen, decode};
use super::group::FakeGroup;
use crate::peer_message::Frame;
use crate::{Answer, DomainUsage, Effect, PartitionEngine, PartitionUsage, Request, Ticket};

/// A node: one process with an engine, its group, and its clients.
pub(super) struct Node {
    pub(super) engine: PartitionEngine,
    pub(super) group: FakeGroup,
    pub(super) client: Client,
    led: Option<Term>,
}

/// Turns of all nodes after which a test has run away.
const TOO_MANY: usize = 20_000;

/// All of it.
pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    pub(super) term: Term,
    /// Frames on their way: from, to.
    wire: VecDeque<(usize, usize, Bytes)>,
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
}

impl World {
    pub(super) fn new(nodes: usize) -> Self {
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
        let usage = PartitionUsage::new(std::sync::Arc::<DomainUsage>::default());
        Node {
            engine: PartitionEngine::new(Partition::default(), usage, self.processes),
            group: FakeGroup::new(id(at), nodes as u32),
            client: Client::default(),
            led: None,
        }
    }

    /// The process dies and another begins with the log. What was on its way from it is lost.
    pub(super) fn restart(&mut self, at: usize, told: bool) {
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

    /// The leader's log goes to all that are not isolated, and is committed.
    pub(super) fn commit(&mut self) {
        if let Some(leader) = self.leader() {
            self.commit_at(leader);
        }
    }

    fn commit_at(&mut self, leader: usize) {
        let commit = self.nodes[leader].group.log.len() as Index;
        if self.nodes.iter().all(|node| node.group.commit >= commit) {
            return;
        }
        for at in 0..self.nodes.len() {
            if self.isolated.contains(&at) {
                continue;
            }
            let known = self.nodes[at].group.commit as usize;
            let news = self.nodes[leader].group.log[known..].to_vec();
            let group = &mut self.nodes[at].group;
            group.log.truncate(known);
            group.log.extend(news);
            group.commit = commit;
        }
    }

    /// One turn of a node, in the order that the shard promises. True: it wants another.
    pub(super) fn turn(&mut self, at: usize) -> bool {
        let Node { engine, group, client, led } = &mut self.nodes[at];
        let serving = group.serving.then_some(group.term);
        if led.is_some() && serving != *led {
            *led = None;
            engine.lose_leadership(group);
        }
        while group.applied.index < group.commit {
            let entry = group.entry(group.applied.index + 1).unwrap().clone();
            let position = entry.position();
            group.applied = position;
            let entry = Committed { position, kind: entry.kind, payload: entry.payload };
            engine.apply(group, &entry).unwrap();
        }
        if led.is_none() && serving.is_some() {
            *led = serving;
            engine.take_leadership(group);
        }
        let more = engine.work(group);
        let mut effects = Vec::new();
        engine.take_effects(&mut effects);
        for effect in effects {
            client.take(effect);
        }
        for (to, frame) in std::mem::take(&mut group.sent) {
            self.frames += 1;
            self.largest = self.largest.max(frame.len());
            let to = to.0 as usize - 1;
            let lost = self.lost.contains(&self.frames) || self.cut.contains(&(at, to));
            if !lost {
                self.wire.push_back((at, to, frame));
            }
        }
        more
    }

    /// Everything that is on its way arrives, and what follows from it, until nothing moves.
    pub(super) fn settle(&mut self) {
        for _ in 0..TOO_MANY {
            let mut more = false;
            for at in 0..self.nodes.len() {
                more |= self.turn(at);
                if self.commits {
                    self.commit();
                }
                if self.reads {
                    more |= self.read(at);
                }
                let group = &self.nodes[at].group;
                more |= group.applied.index < group.commit || !group.sent.is_empty();
            }
            if let Some((from, to, frame)) = self.wire.pop_front() {
                let node = &mut self.nodes[to];
                node.engine.on_message(&mut node.group, id(from), frame);
                more = true;
            }
            if !more {
                return;
            }
        }
        let last = self.wire.iter().map(|(from, to, f)| (from, to, Frame::decode(f.clone())));
        panic!("it never ends; on the wire: {:?}", last.take(4).collect::<Vec<_>>());
    }

    /// Answers the reads of a node; true if there were any.
    pub(super) fn read(&mut self, at: usize) -> bool {
        let Node { engine, group, .. } = &mut self.nodes[at];
        let reads = std::mem::take(&mut group.reads);
        for index in &reads {
            let read = match group.entry(*index) {
                Some(entry) => Ok(entry.payload.clone()),
                None => {
                    Err(ReadError::Missing { group: flintmq_consensus::GroupId(1), index: *index })
                }
            };
            engine.on_entry_read(group, *index, read);
        }
        !reads.is_empty()
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

impl Client {
    fn take(&mut self, effect: Effect) {
        match effect {
            Effect::Answer { ticket, answer } => {
                self.answers.entry(ticket).or_default().push(answer);
            }
            Effect::Send { session, events, answered } => {
                self.answered += answered;
                let seen: &mut BTreeMap<u64, Vec<Seen>> = &mut self.sessions;
                decode(events, seen.entry(session.0).or_default());
            }
            Effect::Refuse { session, .. } => {
                self.sessions.entry(session.0).or_default().push(Seen::Refused);
            }
            Effect::EndSession { session, .. } => {
                self.sessions.entry(session.0).or_default().push(Seen::SessionEnds);
            }
            _ => {}
        }
    }
}

pub(super) fn id(at: usize) -> NodeId {
    NodeId(at as u32 + 1)
}
