//! The world: everything there is, and what happens next.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use flintmq_consensus::ConfigRegister;
use flintmq_consensus::{GroupId, HardState, Index, NodeId, NodeInput, Packet};
use flintmq_log_store::{LogStore as _, ReadError};
use flintmq_partition::{Request, SessionId, Ticket};
use flintmq_queue::{HandleId, QueueId};
use flintmq_shard::ShardInput;

use crate::client::{Client, Item, Slot, Use};
use crate::coverage::{Coverage, Situation};
use crate::network::Net;
use crate::node::{Clock, Node};
use crate::oracle::{GroupOracle, Key, Violation};
use crate::plan::{Fault, Plan, Profile};
use crate::random::{Purpose, Random, Trace};
use crate::settle::Settling;
use crate::store::SimStore;

/// What happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// A shard runs.
    Wake(NodeId, u64),
    /// The liveness of a node runs.
    Live(NodeId, u64),
    /// A disk does something.
    Disk(NodeId, u64),
    /// A disk syncs.
    Sync(NodeId, u64),
    /// A packet of the liveness (true) or of the shards arrives.
    Packet(Packet, bool),
    /// Messages between two nodes arrive.
    Flow(NodeId, NodeId),
    /// Something for a shard.
    Tell(NodeId, u64, Box<ShardInput<Request>>),
    /// A node starts.
    Boot(NodeId),
    /// A client does something.
    Act(usize),
    /// A request of a session reaches its node.
    ToNode(SessionId, GroupId, Box<Request>),
    /// Something reaches a client.
    ToClient(usize, SessionId, Item),
    /// A fault happens.
    Fault(usize),
    /// What a fault did ends.
    Heal(Healing),
    /// Two nodes connect, if they can.
    Connect(NodeId, NodeId),
    /// Nodes compare their clocks.
    /// The administrator looks for idle queues.
    Administer,
    /// A queue is to be removed.
    Remove(usize, u64),
    /// All is healed from now on.
    Settle,
    /// Has everything settled?
    Look,
}

/// What ends with a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Healing {
    Link(NodeId, NodeId, bool),
    Weather,
    Congestion,
    DiskLow(NodeId),
    StoreFull(NodeId),
    Snapshots(NodeId),
    Reads(NodeId),
    Wall(NodeId),
}

/// A session, as its node has it.
#[derive(Debug)]
pub(crate) struct SessionInfo {
    pub(crate) client: usize,
    pub(crate) node: NodeId,
    pub(crate) incarnation: u64,
    pub(crate) last_to_node: u64,
    pub(crate) last_to_client: u64,
    /// The broker has ended it.
    pub(crate) over: bool,
    /// PUTs that reached the node and are not answered: their queue, and since when.
    pub(crate) unanswered: BTreeMap<Key, (QueueId, u64)>,
    /// Handles that the node says are open, with the queue; closed ones are gone.
    pub(crate) open: BTreeMap<HandleId, (GroupId, QueueId)>,
    /// Names of queues and subscriptions that pushes were sent under: handle by queue id.
    pub(crate) names: BTreeMap<u32, (HandleId, GroupId, QueueId)>,
}

/// Who waits for the answer to a ticket.
#[derive(Clone, Debug)]
pub(crate) enum Waits {
    Open { session: SessionId, handle: HandleId, group: GroupId, queue: QueueId, queue_id: u32 },
    End { session: SessionId },
    Idle { node: NodeId, unused_ms: u64 },
    Delete { slot: usize, unused_ms: u64 },
    Purge,
    StopDelivery { node: NodeId, incarnation: u64 },
}

/// See the module.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) profile: Profile,
    pub(crate) faults: Vec<Fault>,
    pub(crate) now: u64,
    pub(crate) steps: u64,
    events: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) net: Net,
    pub(crate) net_random: Random,
    pub(crate) disk_random: Random,
    pub(crate) host_random: Random,
    pub(crate) admin_random: Random,
    pub(crate) clients: Vec<Client>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) queues_made: u32,
    pub(crate) sessions: BTreeMap<SessionId, SessionInfo>,
    pub(crate) tickets: BTreeMap<Ticket, (NodeId, u64, Waits)>,
    /// Counts tickets, sessions, handles, queue ids, subscriptions and requests.
    pub(crate) named: u64,
    pub(crate) groups: BTreeMap<GroupId, GroupOracle>,
    /// Messages that were acknowledged with success.
    pub(crate) acknowledged: BTreeMap<Key, (GroupId, QueueId)>,
    /// Pushes of a message without the flag, under a leadership: queue and message.
    pub(crate) pushed: BTreeMap<GroupId, BTreeSet<(u64, QueueId, Key)>>,
    pub(crate) pushed_upto: BTreeMap<(u64, HandleId), u64>,
    pub(crate) settling: Settling,
    pub(crate) coverage: Coverage,
    pub(crate) trace: Trace,
    pub(crate) verbose: bool,
}

impl World {
    pub(crate) fn new(plan: &Plan) -> Self {
        let (seed, profile) = (plan.seed, plan.profile.clone());
        let ids: Vec<NodeId> = (1..=profile.nodes).map(NodeId).collect();
        let mut host_random = Random::new(seed, Purpose::Hosts);
        let group_ids: Vec<GroupId> = (1..=profile.groups).map(GroupId).collect();
        let mut nodes = BTreeMap::new();
        for id in &ids {
            let ppm = host_random.below(profile.drift_ppm + 1) as i64;
            let ppm = if host_random.chance(500) { ppm } else { -ppm };
            let base = host_random.below(1 << 40);
            let store = SimStore::new();
            nodes.insert(
                *id,
                Node {
                    id: *id,
                    store,
                    clock: Clock { base, ppm, wall_offset_ms: 0 },
                    process: None,
                    incarnation: 0,
                    paused_until: 0,
                    shard_stalled_until: 0,
                    disk_stalled_until: 0,
                    slow_disk_until: 0,
                    troubled_until: 0,
                },
            );
        }
        for group in &group_ids {
            let first = group.0 as usize;
            let voters: Vec<NodeId> = (0..profile.replicas as usize)
                .filter_map(|place| ids.get((first + place) % ids.len()).copied())
                .collect();
            for voter in &voters {
                let config = ConfigRegister::of_voters(voters.iter().copied());
                let hard_state = HardState { config, ..HardState::default() };
                if let Some(node) = nodes.get(voter) {
                    let _taken = node.store.create_group(*group, hard_state);
                }
            }
            // Nodes without a replica know of the group, as they would be told of it.
            for id in ids.iter().filter(|id| !voters.contains(id)) {
                if let Some(node) = nodes.get(id) {
                    let _taken = node.store.create_group(*group, HardState::default());
                }
            }
        }
        for node in nodes.values() {
            node.store.inner.run();
            node.store.inner.sync();
        }
        let mut slots = Vec::new();
        let mut queues_made = 0;
        for group in &group_ids {
            for place in 0..profile.queues {
                queues_made += 1;
                let ttl_ms = if (group.0 + place) % 2 == 0 { 0 } else { profile.ttl_ms };
                let number = QueueId(queues_made);
                slots.push(Slot { group: *group, number, ttl_ms, removing: false });
            }
        }
        let clients = draw_clients(seed, &profile, slots.len());
        let mut world = Self {
            seed,
            faults: plan.faults.clone(),
            now: 0,
            steps: 0,
            events: BTreeMap::new(),
            scheduled: 0,
            nodes,
            net: Net::new(&ids),
            net_random: Random::new(seed, Purpose::Network),
            disk_random: Random::new(seed, Purpose::Disks),
            host_random,
            admin_random: Random::new(seed, Purpose::Injection),
            clients,
            slots,
            queues_made,
            sessions: BTreeMap::new(),
            tickets: BTreeMap::new(),
            named: 0,
            groups: group_ids.iter().map(|id| (*id, GroupOracle::default())).collect(),
            acknowledged: BTreeMap::new(),
            pushed: BTreeMap::new(),
            pushed_upto: BTreeMap::new(),
            settling: Settling::default(),
            coverage: Coverage::default(),
            trace: Trace::default(),
            verbose: false,
            profile,
        };
        world.begin(&ids);
        world
    }

    fn begin(&mut self, ids: &[NodeId]) {
        self.set_clocks_right();
        for id in ids {
            let after = self.host_random.below(50_000);
            self.after(after, Event::Boot(*id));
        }
        for client in 0..self.clients.len() {
            let after = self.host_random.between(100_000, 700_000);
            self.after(after, Event::Act(client));
        }
        for number in 0..self.faults.len() {
            let at = self.faults[number].at;
            self.at(at, Event::Fault(number));
        }
        let lasts = self.profile.lasts;
        self.at(lasts, Event::Settle);
    }

    pub(crate) fn at(&mut self, when: u64, event: Event) {
        self.scheduled += 1;
        self.events.insert((when.max(self.now), self.scheduled), event);
    }

    pub(crate) fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    /// The next number for a ticket, a session, a handle or a request.
    pub(crate) fn name(&mut self) -> u64 {
        self.named += 1;
        self.named
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn say(&self, text: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>8} {:>10.3} {}", self.steps, self.now as f64 / 1000.0, text());
        }
    }

    /// The next event; false when the run is over.
    pub(crate) fn step(&mut self) -> Result<bool, Violation> {
        let Some(((at, _), event)) = self.events.pop_first() else { return Ok(false) };
        self.now = self.now.max(at);
        self.steps += 1;
        self.trace.fold(self.now);
        self.happen(event)?;
        Ok(!self.settling.done)
    }

    /// Forgets what was to end later: it ends now.
    pub(crate) fn forget_healing(&mut self) {
        self.events.retain(|_, event| !matches!(event, Event::Heal(_)));
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Wake(id, incarnation) => self.wake(id, incarnation),
            Event::Live(id, incarnation) => {
                self.live(id, incarnation);
                Ok(())
            }
            Event::Disk(id, incarnation) => {
                self.work_disk(id, incarnation);
                Ok(())
            }
            Event::Sync(id, incarnation) => {
                self.sync_disk(id, incarnation);
                Ok(())
            }
            Event::Packet(packet, beat) => {
                self.packet_arrives(packet, beat);
                Ok(())
            }
            Event::Flow(from, to) => {
                self.flow(from, to);
                Ok(())
            }
            Event::Tell(id, incarnation, input) => {
                self.tell_now(id, incarnation, *input);
                Ok(())
            }
            Event::Boot(id) => self.boot(id),
            Event::Act(client) => {
                self.act(client);
                Ok(())
            }
            Event::ToNode(session, group, request) => {
                self.request_arrives(session, group, *request);
                Ok(())
            }
            Event::ToClient(client, session, item) => self.client_gets(client, session, item),
            Event::Fault(number) => self.inject(number),
            Event::Heal(healing) => {
                self.heal(healing);
                Ok(())
            }
            Event::Connect(a, b) => {
                self.connect(a, b);
                Ok(())
            }
            Event::Administer => {
                self.administer();
                Ok(())
            }
            Event::Remove(slot, unused_ms) => {
                self.remove_queue(slot, unused_ms);
                Ok(())
            }
            Event::Settle => {
                self.begin_settling();
                Ok(())
            }
            Event::Look => self.look_whether_settled(),
        }
    }

    /// A node's liveness has something to do.
    pub(crate) fn wake_liveness(&mut self, id: NodeId, at: u64) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let at = at.max(node.paused_until).max(self.now);
        let Some(process) = &mut node.process else { return };
        if process.live_at.is_none_or(|due| at < due) {
            process.live_at = Some(at);
            let incarnation = process.incarnation;
            self.at(at, Event::Live(id, incarnation));
        }
    }

    /// A node's shard has something to do.
    pub(crate) fn wake_shard(&mut self, id: NodeId, at: u64) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let at = at.max(node.paused_until).max(node.shard_stalled_until).max(self.now);
        let Some(process) = &mut node.process else { return };
        if process.wake_at.is_none_or(|due| at < due) {
            process.wake_at = Some(at);
            let incarnation = process.incarnation;
            self.at(at, Event::Wake(id, incarnation));
        }
    }

    /// Gives a shard an input, after a moment.
    pub(crate) fn tell_now(&mut self, id: NodeId, incarnation: u64, input: ShardInput<Request>) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(process) = node.process.as_mut().filter(|p| p.incarnation == incarnation) else {
            return;
        };
        process.inbox.push_back(input);
        let soon = self.now + self.host_random.skewed(1, 200);
        self.wake_shard(id, soon);
    }

    pub(crate) fn process_of(&self, id: NodeId) -> Option<u64> {
        Some(self.nodes.get(&id)?.process.as_ref()?.incarnation)
    }

    fn packet_arrives(&mut self, packet: Packet, beat: bool) {
        let (from, to) = (packet.from, packet.to);
        if self.net.is_cut(from, to) {
            return;
        }
        let Some(node) = self.nodes.get_mut(&to) else { return };
        let time = node.clock.time(self.now.max(node.paused_until));
        let Some(process) = &mut node.process else { return };
        if beat {
            if node.paused_until > self.now {
                // It waits in the socket until the process runs on.
                let at = node.paused_until;
                self.at(at + 1, Event::Packet(packet, beat));
                return;
            }
            process.step_liveness(time, NodeInput::Packet(packet.clone()));
            let news = node.hear_clocks(self.now, &packet);
            self.wake_liveness(to, self.now);
            if news {
                let soon = self.now + self.host_random.skewed(1, 200);
                self.wake_shard(to, soon);
            }
        } else {
            process.inbox.push_back(ShardInput::Packet(packet));
            let soon = self.now + self.host_random.skewed(1, 200);
            self.wake_shard(to, soon);
        }
    }

    /// Sends a packet on its way, unless it gets lost.
    pub(crate) fn send_packet(&mut self, packet: Packet, beat: bool) {
        let (from, to) = (packet.from, packet.to);
        let weather = self.net.weather;
        if self.net.is_cut(from, to) || self.net_random.chance(weather.loss) {
            self.coverage.saw(Situation::PacketLost);
            return;
        }
        let delay = self.net_random.between(weather.delay.0, weather.delay.1);
        self.after(delay, Event::Packet(packet, beat));
    }

    /// Puts a message on the connection between two nodes.
    pub(crate) fn send_message(
        &mut self,
        from: NodeId,
        to: NodeId,
        (process, group, bytes): (u64, GroupId, Bytes),
    ) {
        let (low, high) = self.net.weather.delay;
        let delay = self.net_random.between(low, high);
        let loses = self.net_random.chance(self.net.weather.loss);
        let now = self.now;
        let Some(link) = self.net.links.get_mut(&(from, to)) else { return };
        // What is lost on the way is sent again below: it is only later.
        let arrival = now + if loses { delay * 4 + 2_000 } else { delay };
        let arrival = arrival.max(link.last_arrival);
        link.last_arrival = arrival;
        link.flow.push_back(crate::network::InFlight { arrival, process, group, bytes });
        self.look_at_flow(from, to);
    }

    pub(crate) fn look_at_flow(&mut self, from: NodeId, to: NodeId) {
        let Some(link) = self.net.links.get_mut(&(from, to)) else { return };
        let Some(next) = link.flow.front().filter(|_| !link.cut) else { return };
        let at = next.arrival.max(self.now);
        if link.looked_at.is_none_or(|looked| looked > at) {
            link.looked_at = Some(at);
            self.at(at, Event::Flow(from, to));
        }
    }

    fn flow(&mut self, from: NodeId, to: NodeId) {
        let now = self.now;
        let Some(link) = self.net.links.get_mut(&(from, to)) else { return };
        link.looked_at = None;
        let mut arrived = Vec::new();
        while !link.cut
            && link.flow.front().is_some_and(|message| message.arrival <= now)
            && let Some(message) = link.flow.pop_front()
        {
            arrived.push(message);
        }
        let bytes: usize = arrived.iter().map(|message| message.bytes.len()).sum();
        if bytes > 0 {
            self.make_room(from, to, bytes);
        }
        if let Some(incarnation) = self.process_of(to) {
            for message in arrived {
                let crate::network::InFlight { process, group, bytes, .. } = message;
                let input = ShardInput::Message { from, process, group, bytes };
                self.tell_now(to, incarnation, input);
            }
        }
        self.look_at_flow(from, to);
    }

    /// So many bytes of a connection have arrived.
    fn make_room(&mut self, from: NodeId, to: NodeId, bytes: usize) {
        let Some(process) = self.nodes.get(&from).and_then(|node| node.process.as_ref()) else {
            return;
        };
        let mut wire = process.wire.lock();
        let Some(way) = wire.ways.get_mut(&to) else { return };
        way.in_flight = way.in_flight.saturating_sub(bytes);
        let room = way.starved && way.in_flight <= way.limit / 2;
        way.starved &= !room;
        drop(wire);
        let incarnation = process.incarnation;
        if room {
            self.coverage.saw(Situation::RoomAgain);
            self.tell_now(from, incarnation, ShardInput::Room { peer: to });
        }
    }

    /// Makes a connection between two nodes that run and can reach each other.
    pub(crate) fn connect(&mut self, a: NodeId, b: NodeId) {
        if self.net.is_open(a, b) {
            return;
        }
        let runs = |id: &NodeId| self.process_of(*id).is_some();
        if !runs(&a) || !runs(&b) {
            return;
        }
        if self.net.is_cut(a, b) || self.net.is_cut(b, a) {
            let later = self.net_random.between(50_000, 300_000);
            self.after(later, Event::Connect(a, b));
            return;
        }
        self.net.open.insert(crate::network::ends(a, b), true);
        self.set_ways(a, b, true);
    }

    /// Opens or closes the ways between two nodes; nothing is on them.
    pub(crate) fn set_ways(&mut self, a: NodeId, b: NodeId, open: bool) {
        let limit = self.net.way_limit;
        for (from, to) in [(a, b), (b, a)] {
            let Some(process) = self.nodes.get(&from).and_then(|node| node.process.as_ref()) else {
                continue;
            };
            let incarnation = process.incarnation;
            if process.set_way(to, open, limit) {
                self.tell_now(from, incarnation, ShardInput::Room { peer: to });
            }
        }
    }

    /// The connection between two nodes is no more, with all that was on it.
    pub(crate) fn disconnect(&mut self, a: NodeId, b: NodeId) {
        self.net.drop_flows(a, b);
        if self.net.open.insert(crate::network::ends(a, b), false) == Some(true) {
            self.set_ways(a, b, false);
        }
        let later = self.net_random.between(5_000, 200_000);
        self.after(later, Event::Connect(a, b));
    }

    /// An entry for a shard, as the store has it.
    pub(crate) fn read_entry(
        &self,
        id: NodeId,
        group: GroupId,
        index: Index,
    ) -> Result<Bytes, ReadError> {
        let missing = || ReadError::Missing { group, index };
        let node = self.nodes.get(&id).ok_or_else(missing)?;
        if node.store.fails_reads() {
            return Err(ReadError::Busy { group });
        }
        let found = node.store.entry(group, index)?;
        found.map(|entry| entry.payload).ok_or_else(missing)
    }
}

fn draw_clients(seed: u64, profile: &Profile, slots: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for number in 0..profile.clients {
        let mut random = Random::numbered(seed, Purpose::Clients, u64::from(number));
        let mut uses = Vec::new();
        for turn in 0..random.between(1, 3) {
            let slot = random.below(slots as u64) as usize;
            // The first two clients see to it that something flows.
            let reads = match (number, turn) {
                (0, 0) => false,
                (1, 0) => true,
                _ => random.chance(500),
            };
            let slot = if number < 2 && turn == 0 { 0 } else { slot };
            uses.push(Use::new(slot, reads));
        }
        clients.push(Client {
            number: number + 1,
            random,
            uses,
            connection: None,
            retry_at: 0,
            unacknowledged: BTreeMap::new(),
            sent: 0,
            slow_until: None,
            settles: false,
        });
    }
    clients
}
