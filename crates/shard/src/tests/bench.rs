//! What the tests have in common: a machine that takes everything down, a network of channels, and
//! nodes that are driven by hand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bytes::Bytes;
use flintmq_consensus::{
    Class, ClockReading, ClockState, ConfigRegister, GroupId, HardState, Index, LogPosition,
    NodeId, NodeSettings, Packet, Term, Time, UnfitReasons,
};
use flintmq_log_store::{
    AppendKind, CheckpointBatch, Delivery, GroupRecord, LogStore, MemoryStore, QueueRecord,
    ReadError, Report, SnapshotReport,
};

use crate::machine::{Committed, Group, Machine, MachineFailure, NotProposed, NotSent};
use crate::{
    FromStore, Network, Notice, Shard, ShardEffect, ShardInput, ShardParts, StoreEvent,
    StoredGroup, read_state,
};

pub(super) const GROUP: GroupId = GroupId(3);
pub(super) const NODE: NodeId = NodeId(1);

/// What a machine was called for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Lost,
    Taken,
    Restored(Vec<QueueRecord>),
    Applied(LogPosition),
    Peer(NodeId, bool),
    Room(NodeId),
    Message(NodeId, Bytes),
    ReadIndex(u64, Option<Index>),
    EntryRead(Index),
    Tick,
}

/// What a machine is asked for.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Propose(&'static [u8]),
    Checkpoint(Vec<Index>),
    Say(NodeId, &'static [u8]),
    ReadIndex,
}

/// A machine whose state is the list of its payloads.
#[derive(Default)]
pub(super) struct Recorder {
    pub(super) calls: Vec<Call>,
    pub(super) applied: Vec<(Index, Bytes)>,
    /// Proposed, and not seen applied.
    pub(super) under_way: VecDeque<LogPosition>,
    /// Proposed and seen applied: acknowledged to clients.
    pub(super) acknowledged: Vec<LogPosition>,
    pub(super) refused: Vec<NotProposed>,
    pub(super) not_sent: Vec<NotSent>,
    pub(super) leads: bool,
    /// Whether a checkpoint is written after each turn that applied something.
    pub(super) checkpoints: bool,
    pub(super) changed: bool,
    pub(super) leader_elsewhere: Option<(NodeId, Term)>,
    pub(super) deadline: Option<Time>,
    pub(super) last_reads: Vec<u64>,
    pub(super) in_reach: bool,
    /// Entries that the restored state came with.
    pub(super) stored: Vec<Index>,
}

impl Recorder {
    fn batch(&self, group: &dyn Group, dead_entries: Vec<Index>) -> CheckpointBatch {
        let mut value = Vec::new();
        for (index, payload) in &self.applied {
            value.extend(index.to_be_bytes());
            value.extend((payload.len() as u64).to_be_bytes());
            value.extend(payload);
        }
        let puts = vec![(b"all".to_vec(), value)];
        CheckpointBatch { applied: group.applied(), puts, dead_entries, ..Default::default() }
    }

    fn read(mut value: &[u8]) -> Vec<(Index, Bytes)> {
        let mut all = Vec::new();
        while let Some((index, rest)) = value.split_first_chunk::<8>() {
            let (length, rest) = rest.split_first_chunk::<8>().unwrap();
            let (payload, rest) = rest.split_at(u64::from_be_bytes(*length) as usize);
            all.push((u64::from_be_bytes(*index), Bytes::copy_from_slice(payload)));
            value = rest;
        }
        all
    }
}

impl Machine for Recorder {
    type Request = Ask;
    type Effect = LogPosition;

    fn on_request(&mut self, group: &mut dyn Group, request: Ask) {
        match request {
            Ask::Propose(payload) => {
                match group.propose(Bytes::from_static(payload), AppendKind::Growing) {
                    Ok(position) => self.under_way.push_back(position),
                    Err(refused) => self.refused.push(refused),
                }
            }
            Ask::Checkpoint(dead) => {
                let batch = self.batch(group, dead);
                self.changed = group.checkpoint(batch).is_err();
            }
            Ask::Say(to, word) => {
                self.not_sent.extend(group.send(to, Bytes::from_static(word)).err());
            }
            Ask::ReadIndex => self.last_reads.push(group.read_index()),
        }
    }

    fn on_message(&mut self, _: &mut dyn Group, from: NodeId, message: Bytes) {
        self.calls.push(Call::Message(from, message));
    }

    fn on_peer(&mut self, _: &mut dyn Group, peer: NodeId, up: bool) {
        self.calls.push(Call::Peer(peer, up));
    }

    fn on_room(&mut self, _: &mut dyn Group, peer: NodeId) {
        self.calls.push(Call::Room(peer));
    }

    fn on_entry_read(&mut self, _: &mut dyn Group, index: Index, read: Result<Bytes, ReadError>) {
        read.unwrap();
        self.calls.push(Call::EntryRead(index));
    }

    fn on_read_index(&mut self, _: &mut dyn Group, read: u64, index: Option<Index>) {
        self.calls.push(Call::ReadIndex(read, index));
    }

    fn on_tick(&mut self, _: &mut dyn Group) {
        self.calls.push(Call::Tick);
    }

    fn lose_leadership(&mut self, _: &mut dyn Group) {
        assert!(std::mem::take(&mut self.leads));
        self.under_way.clear();
        self.calls.push(Call::Lost);
    }

    fn take_leadership(&mut self, group: &mut dyn Group) {
        assert!(!std::mem::replace(&mut self.leads, true) && group.is_serving());
        self.calls.push(Call::Taken);
    }

    fn restore(
        &mut self,
        _: &mut dyn Group,
        records: Vec<QueueRecord>,
    ) -> Result<(), MachineFailure> {
        self.applied = records.first().map(|(_, all)| Self::read(all)).unwrap_or_default();
        self.changed = false;
        self.calls.push(Call::Restored(records));
        Ok(())
    }

    fn reclaim(&mut self, _: &mut dyn Group, stored: &[Index]) {
        self.stored = stored.to_vec();
    }

    fn apply(&mut self, group: &mut dyn Group, entry: &Committed) -> Result<(), MachineFailure> {
        assert_eq!(group.applied(), entry.position);
        if entry.payload == b"poison"[..] {
            return Err(MachineFailure("the entry cannot be applied".into()));
        }
        self.applied.push((entry.position.index, entry.payload.clone()));
        self.changed = true;
        self.calls.push(Call::Applied(entry.position));
        if self.under_way.front() == Some(&entry.position) {
            self.acknowledged.extend(self.under_way.pop_front());
        }
        Ok(())
    }

    fn work(&mut self, group: &mut dyn Group) -> bool {
        self.in_reach = group.is_quorum_in_reach();
        if self.checkpoints {
            self.checkpoint(group);
        }
        false
    }

    fn next_deadline(&self) -> Option<Time> {
        self.deadline
    }

    fn checkpoint(&mut self, group: &mut dyn Group) -> bool {
        if self.changed {
            let batch = self.batch(group, Vec::new());
            self.changed = group.checkpoint(batch).is_err();
        }
        !self.changed
    }

    fn is_settled(&self, group: &dyn Group) -> bool {
        self.under_way.is_empty() || !group.is_quorum_in_reach()
    }

    fn leader_elsewhere(&self) -> Option<(NodeId, Term)> {
        self.leader_elsewhere
    }

    fn take_effects(&mut self, effects: &mut Vec<LogPosition>) {
        effects.extend(self.acknowledged.last());
    }
}

/// What a node sends.
#[derive(Debug)]
pub(super) enum Sent {
    Packet(Packet),
    Message(NodeId, GroupId, Bytes),
}

/// A network of one node that keeps everything, unless it is full.
struct Wire {
    sent: Sender<Sent>,
    full: Arc<std::sync::atomic::AtomicBool>,
}

impl Network for Wire {
    fn send_packet(&mut self, _: Class, packet: Packet) {
        let _test_is_over = self.sent.send(Sent::Packet(packet));
    }

    fn send_message(&mut self, to: NodeId, group: GroupId, message: Bytes) -> Result<(), NotSent> {
        if self.full.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(NotSent::Full);
        }
        let _test_is_over = self.sent.send(Sent::Message(to, group, message));
        Ok(())
    }
}

/// One node, driven by hand.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) store: MemoryStore,
    pub(super) shard: Shard<Recorder>,
    pub(super) now: Time,
    pub(super) notices: Vec<Notice>,
    pub(super) fatal: Option<String>,
    pub(super) effects: Vec<ShardEffect<LogPosition>>,
    /// Its disk does nothing.
    pub(super) stalled: bool,
    /// Its disk does not open snapshots.
    pub(super) fails_snapshots: bool,
    pub(super) snapshots_failed: usize,
    /// So many pieces of snapshots are refused as damaged.
    pub(super) refuses_pieces: usize,
    pub(super) wire_full: Arc<std::sync::atomic::AtomicBool>,
    /// What it is told of the time.
    pub(super) clock: ClockState,
    told: Receiver<FromStore>,
    sent: Receiver<Sent>,
}

pub(super) fn record(store: &MemoryStore) -> GroupRecord {
    store.group(GROUP).unwrap().unwrap()
}

pub(super) fn store_of(hard_state: HardState) -> MemoryStore {
    let store = MemoryStore::new(Delivery::Stepped);
    store.create_group(GROUP, hard_state).unwrap();
    store.run();
    store
}

pub(super) fn shard_over(
    store: &MemoryStore,
    id: NodeId,
    peers: &[NodeId],
) -> (Shard<Recorder>, Receiver<FromStore>, Receiver<Sent>, Arc<std::sync::atomic::AtomicBool>) {
    let (teller, told) = channel();
    let (sender, sent) = channel();
    let full = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let shard = Shard::new(ShardParts {
        node: NodeSettings::new(id, incarnation(id), peers.iter().copied()),
        clustered: !peers.is_empty(),
        store: Arc::new(store.clone()),
        events: Arc::new(move |event| drop(teller.send(event))),
        network: Box::new(Wire { sent: sender, full: Arc::clone(&full) }),
    });
    (shard, told, sent, full)
}

pub(super) fn incarnation(id: NodeId) -> u64 {
    100 + u64::from(id.0)
}

impl Node {
    /// A node with what is in the store, which has not done anything yet.
    pub(super) fn open(store: &MemoryStore, id: NodeId, peers: &[NodeId], now: Time) -> Self {
        let (mut shard, told, sent, wire_full) = shard_over(store, id, peers);
        let stored = StoredGroup::read(store, record(store)).unwrap();
        shard.add_group(now, stored, Recorder::default()).unwrap();
        Self {
            id,
            store: store.clone(),
            shard,
            now,
            notices: Vec::new(),
            fatal: None,
            effects: Vec::new(),
            stalled: false,
            fails_snapshots: false,
            snapshots_failed: 0,
            refuses_pieces: 0,
            wire_full,
            clock: ClockState::Good,
            told,
            sent,
        }
    }

    /// A group of one that serves.
    pub(super) fn serving() -> Self {
        let hard_state =
            HardState { config: ConfigRegister::of_voters([NODE]), ..HardState::default() };
        let mut node = Self::open(&store_of(hard_state), NODE, &[], Time(0));
        node.run();
        assert!(node.machine().leads);
        node
    }

    pub(super) fn machine(&self) -> &Recorder {
        self.shard.machine(GROUP).unwrap()
    }

    pub(super) fn machine_mut(&mut self) -> &mut Recorder {
        &mut self.shard.groups.get_mut(&GROUP).unwrap().machine
    }

    pub(super) fn take_calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.machine_mut().calls)
    }

    pub(super) fn status(&self) -> crate::ReplicaStatus {
        self.shard.status(GROUP).unwrap()
    }

    pub(super) fn step(&mut self, input: ShardInput<Ask>) {
        self.shard.step(self.now, input);
    }

    pub(super) fn ask(&mut self, request: Ask) {
        self.step(ShardInput::Request { group: GROUP, request });
    }

    /// One turn after the other until nothing is left to do.
    pub(super) fn turn(&mut self) {
        let mut effects = Vec::new();
        let clock = ClockReading::new(Time(0), 1_000_000, self.clock);
        while self.shard.turn(self.now, clock, &mut effects) {}
        for effect in effects {
            match effect {
                ShardEffect::ReadState { group, read } => {
                    let records = read_state(&self.store, group);
                    self.step(ShardInput::StateRead { group, read, records });
                }
                ShardEffect::Notice { notice, .. } => self.notices.push(notice),
                ShardEffect::Fatal(error) => self.fatal = Some(error.to_string()),
                effect => self.effects.push(effect),
            }
        }
    }

    /// What the store has told since; false when it was nothing.
    pub(super) fn hear_store(&mut self) -> bool {
        let mut any = false;
        while let Ok(mut told) = self.told.try_recv() {
            self.make_fail(&mut told);
            self.step(told.into());
            any = true;
        }
        any
    }

    /// Pretends that the store failed, where it is to.
    fn make_fail(&mut self, told: &mut FromStore) {
        let FromStore::Group { event, .. } = told else { return };
        match event {
            StoreEvent::SnapshotOpened { opened, .. } if self.fails_snapshots => {
                *opened = Err(ReadError::Busy { group: GROUP });
                self.snapshots_failed += 1;
            }
            StoreEvent::Report(Report::Snapshot(report)) if self.refuses_pieces > 0 => {
                let SnapshotReport::Staged { id, .. } = *report else { return };
                self.refuses_pieces -= 1;
                *report = SnapshotReport::Refused { id, detail: "damaged".to_owned() };
            }
            _ => {}
        }
    }

    /// Lets the store and the shard work until nothing is left to do.
    pub(super) fn run(&mut self) {
        loop {
            self.turn();
            if !self.stalled {
                self.store.run();
            }
            if !self.hear_store() && self.shard.dirty.is_empty() {
                return;
            }
        }
    }

    /// Runs on until this moment.
    pub(super) fn run_until(&mut self, end: Time) {
        loop {
            self.run();
            let next = self.shard.next_deadline().filter(|next| *next <= end);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
        }
        self.now = end;
        self.run();
    }

    pub(super) fn take_told(&self) -> Vec<FromStore> {
        self.told.try_iter().collect()
    }

    pub(super) fn take_sent(&self) -> Vec<Sent> {
        self.sent.try_iter().collect()
    }
}

/// Several nodes with one group.
pub(super) struct Cluster {
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) now: Time,
    /// Nodes that cannot be reached.
    pub(super) cut_off: BTreeSet<NodeId>,
}

impl Cluster {
    /// Nodes 1 to `voters` vote; those up to `count` have an empty replica that is no member yet.
    pub(super) fn new(voters: u32, count: u32) -> Self {
        let ids: Vec<NodeId> = (1..=count).map(NodeId).collect();
        let config = ConfigRegister::of_voters((1..=voters).map(NodeId));
        let mut nodes = BTreeMap::new();
        for id in &ids {
            let member = config.is_member(*id);
            let config = if member { config.clone() } else { ConfigRegister::default() };
            let store = store_of(HardState { config, ..HardState::default() });
            let peers: Vec<NodeId> = ids.iter().copied().filter(|peer| peer != id).collect();
            nodes.insert(*id, Node::open(&store, *id, &peers, Time(0)));
        }
        let mut cluster = Self { nodes, now: Time(0), cut_off: BTreeSet::new() };
        for id in &ids {
            cluster.tell_of(*id, true);
        }
        cluster
    }

    pub(super) fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    /// Tells all others that can be reached, and it, whether they can reach each other.
    fn tell_of(&mut self, id: NodeId, up: bool) {
        let peer = |peer: NodeId, up| {
            let incarnation = incarnation(peer);
            ShardInput::Peer { peer, up, incarnation, restarted: false }
        };
        let others: Vec<NodeId> = self.nodes.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            if !self.cut_off.contains(&other) {
                self.node(other).step(peer(id, up));
                self.node(id).step(peer(other, up));
            }
        }
    }

    /// Cuts a node off, or joins it again.
    pub(super) fn cut_off(&mut self, id: NodeId, cut: bool) {
        if cut {
            self.cut_off.insert(id);
        } else {
            self.cut_off.remove(&id);
        }
        self.tell_of(id, !cut);
    }

    /// Lets all nodes work until nothing is left to do at this moment.
    pub(super) fn settle(&mut self) {
        loop {
            let mut sent = Vec::new();
            for node in self.nodes.values_mut() {
                node.now = self.now;
                node.run();
                let id = node.id;
                sent.extend(node.take_sent().into_iter().map(|sent| (id, sent)));
            }
            if sent.is_empty() {
                return;
            }
            for (from, sent) in sent {
                self.deliver(from, sent);
            }
        }
    }

    /// Lets all others hear why a node should not lead, as its beats say.
    pub(super) fn beat(&mut self, id: NodeId, reasons: UnfitReasons) {
        for other in self.nodes.values_mut().filter(|other| other.id != id) {
            other.step(ShardInput::PeerUnfit { peer: id, reasons });
        }
    }

    fn deliver(&mut self, from: NodeId, sent: Sent) {
        let to = match &sent {
            Sent::Packet(packet) => packet.to,
            Sent::Message(to, ..) => *to,
        };
        if self.cut_off.contains(&from) || self.cut_off.contains(&to) {
            return;
        }
        let Some(node) = self.nodes.get_mut(&to) else { return };
        node.step(match sent {
            Sent::Packet(packet) => ShardInput::Packet(packet),
            Sent::Message(_, group, bytes) => {
                ShardInput::Message { from, process: incarnation(from), group, bytes }
            }
        });
    }

    /// Lets some time pass.
    pub(super) fn pass(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        loop {
            self.settle();
            let deadlines = self.nodes.values().filter_map(|node| node.shard.next_deadline());
            let Some(next) = deadlines.min().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
        }
        self.now = end;
        self.settle();
    }

    /// The node whose machine leads, and that can be reached.
    pub(super) fn leader(&self) -> Option<NodeId> {
        let leads = |node: &&Node| node.machine().leads && !self.cut_off.contains(&node.id);
        self.nodes.values().find(leads).map(|node| node.id)
    }

    /// Waits until a node leads.
    pub(super) fn elect(&mut self) -> NodeId {
        for _ in 0..100 {
            if let Some(leader) = self.leader() {
                return leader;
            }
            self.pass(100);
        }
        panic!("no node leads");
    }
}
