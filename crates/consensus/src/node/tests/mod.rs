//! A few nodes joined by lists of packets, in steps of one millisecond: packets and reports of the
//! store arrive one step after they were asked for.

mod budgets;
mod chaos;
mod checks;
mod fitness;
mod groups;
mod nodes;
mod restarts;
mod snapshots;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::{
    ConfigRegister, CreationId, Effect, Entry, Epoch, HardState, LogTerms, Message, Role,
    SnapshotId,
};

/// One node with its store.
struct Host {
    node: NodeCore,
    /// What the store has, by group.
    logs: BTreeMap<GroupId, Vec<Entry>>,
    hard: BTreeMap<GroupId, HardState>,
    /// Losses of this node's store, and the last one that each group has made good.
    epoch: Epoch,
    rejoined: BTreeMap<GroupId, Epoch>,
    /// Answers of the store that are given in the next step.
    reports: Vec<NodeInput>,
    /// What the store does with snapshots.
    snapshots: Snapshots,
    /// Snapshots that are open.
    open: BTreeSet<(GroupId, NodeId)>,
    /// What the last flush gave.
    effects: Vec<NodeEffect>,
}

/// What a store does when a snapshot is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Snapshots {
    /// It does not answer.
    Unanswered,
    /// It cannot open one.
    Refused,
    /// It opens them, all in one empty piece.
    Opened,
}

struct Net {
    now: Time,
    hosts: BTreeMap<NodeId, Host>,
    wires: Vec<(Class, Packet)>,
    /// Directions in which nothing arrives.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Messages that never arrive.
    lost: fn(&Message) -> bool,
    incarnation: u64,
    template: NodeSettings,
    /// Packets with messages that were sent.
    packets: u64,
}

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);
const CREATION: CreationId = CreationId(9);

impl Net {
    /// This many nodes, without groups.
    fn new(nodes: u32, change: impl FnOnce(&mut NodeSettings)) -> Self {
        let mut template = NodeSettings::new(A, 1, (1..=nodes).map(NodeId));
        template.seed = 5;
        change(&mut template);
        let mut net = Self {
            now: Time::from_millis(1000),
            hosts: BTreeMap::new(),
            wires: Vec::new(),
            cut: BTreeSet::new(),
            lost: |_| false,
            incarnation: 1,
            template,
            packets: 0,
        };
        for node in 1..=nodes {
            net.boot(NodeId(node));
        }
        net
    }

    /// Starts a process, with an empty store and without groups.
    fn boot(&mut self, node: NodeId) {
        self.incarnation += 1;
        let settings =
            NodeSettings { node, incarnation: self.incarnation, ..self.template.clone() };
        let host = Host {
            node: NodeCore::new(settings),
            logs: BTreeMap::new(),
            hard: BTreeMap::new(),
            epoch: 0,
            rejoined: BTreeMap::new(),
            reports: Vec::new(),
            snapshots: Snapshots::Unanswered,
            open: BTreeSet::new(),
            effects: Vec::new(),
        };
        self.hosts.insert(node, host);
    }

    /// Nodes with this many groups, all of which they are voters of.
    fn with_groups(nodes: u32, groups: u32, change: impl FnOnce(&mut NodeSettings)) -> Self {
        let mut net = Self::new(nodes, change);
        let members: Vec<NodeId> = (1..=nodes).map(NodeId).collect();
        for group in 1..=groups {
            net.add_group(GroupId(group), &members);
        }
        net
    }

    fn add_group(&mut self, group: GroupId, members: &[NodeId]) {
        let config = ConfigRegister::of_voters(members.iter().copied());
        for node in members {
            let hard = HardState { config: config.clone(), ..HardState::default() };
            self.host_mut(*node).hard.insert(group, hard);
            self.restore(*node, group);
        }
    }

    /// Gives a node's process what its store has of a group.
    fn restore(&mut self, node: NodeId, group: GroupId) {
        let now = self.now;
        let host = self.host_mut(node);
        let entries = host.logs.entry(group).or_default();
        let log = LogTerms::from_positions(
            crate::LogPosition::default(),
            entries.iter().map(Entry::position),
        );
        let lost = host.rejoined.get(&group).is_none_or(|epoch| *epoch < host.epoch);
        let recovering = (host.epoch > 0 && lost).then_some(host.epoch);
        let restored = Restored {
            group,
            creation: CREATION,
            node,
            hard_state: host.hard.get(&group).cloned().unwrap_or_default(),
            log,
            applied: 0,
            recovering,
        };
        host.node.add_group(now, restored).expect("the store is consistent");
    }

    /// The process dies and comes back as a new one with everything.
    fn restart(&mut self, node: NodeId) {
        self.come_back(node, usize::MAX);
    }

    /// The power fails: this many entries of each log survive.
    fn lose_power(&mut self, node: NodeId, keep: usize) {
        self.host_mut(node).epoch += 1;
        self.come_back(node, keep);
    }

    fn come_back(&mut self, node: NodeId, keep: usize) {
        let old = self.kill(node);
        self.boot(node);
        let groups: Vec<GroupId> = old.hard.keys().copied().collect();
        let host = self.host_mut(node);
        host.hard = old.hard;
        host.logs = old.logs;
        (host.epoch, host.rejoined) = (old.epoch, old.rejoined);
        for log in host.logs.values_mut() {
            log.truncate(keep);
        }
        for group in groups {
            self.restore(node, group);
        }
    }

    /// The process dies; its peers do not hear of it by themselves.
    fn kill(&mut self, node: NodeId) -> Host {
        self.wires.retain(|(_, packet)| packet.from != node && packet.to != node);
        self.hosts.remove(&node).expect("it runs")
    }

    fn host(&self, node: NodeId) -> &Host {
        self.hosts.get(&node).expect("it runs")
    }

    fn host_mut(&mut self, node: NodeId) -> &mut Host {
        self.hosts.get_mut(&node).expect("it runs")
    }

    fn node(&self, node: NodeId) -> &NodeCore {
        &self.host(node).node
    }

    fn core(&self, node: NodeId, group: GroupId) -> &Core {
        self.node(node).group(group).expect("the group is here")
    }

    fn counters(&self, node: NodeId) -> &NodeCounters {
        self.node(node).counters()
    }

    fn input(&mut self, node: NodeId, input: NodeInput) {
        let now = self.now;
        self.host_mut(node).node.step(now, input);
    }

    fn propose(&mut self, node: NodeId, group: GroupId, size: usize) -> Index {
        let now = self.now;
        let payload = Bytes::from(vec![0; size]);
        self.host_mut(node)
            .node
            .propose(now, group, EntryKind::Commands, payload)
            .expect("it leads and has room")
    }

    /// One millisecond.
    fn step(&mut self) {
        self.now = self.now + std::time::Duration::from_millis(1);
        let now = self.now;
        for (_, packet) in std::mem::take(&mut self.wires) {
            if let Some(host) = self.hosts.get_mut(&packet.to) {
                host.node.step(now, NodeInput::Packet(packet));
            }
        }
        let (cut, lost) = (&self.cut, self.lost);
        for host in self.hosts.values_mut() {
            for report in std::mem::take(&mut host.reports) {
                host.node.step(now, report);
            }
            if host.node.next_deadline().is_some_and(|deadline| deadline <= now) {
                host.node.step(now, NodeInput::Tick);
            }
            host.effects.clear();
            host.node.flush(now, &mut host.effects);
            if host.hard.len() <= 30 {
                checks::check_books(&host.node, now);
            }
            for effect in host.effects.clone() {
                if let Some((class, mut packet)) = host.carry_out(effect) {
                    self.packets += u64::from(!packet.messages.is_empty());
                    packet.messages.retain(|message| !lost(message));
                    if !cut.contains(&(packet.from, packet.to)) {
                        self.wires.push((class, packet));
                    }
                }
            }
        }
    }

    fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.step();
        }
    }

    /// Runs until it is so, and tells after how many milliseconds.
    fn run_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> u64 {
        for millis in 0..20_000 {
            if is_so(self) {
                return millis;
            }
            self.step();
        }
        panic!("after 20 s it still is not so: {what}\n{}", self.tell());
    }

    /// The state of all replicas, a line each.
    fn tell(&self) -> String {
        let cores = self.hosts.values().flat_map(|host| host.node.groups());
        let line = |core: &Core| {
            format!(
                "group {} at {}: {:?} of term {}, leader {:?}, last {:?}, commit {}, \
                 config {:?}, at rest {}\n",
                core.group(),
                core.node(),
                core.role(),
                core.term(),
                core.leader(),
                core.last(),
                core.commit_index(),
                core.config().stamp,
                core.is_quiesced(),
            )
        };
        cores.take(100).map(line).collect()
    }

    /// Who leads and serves the group, if it is one.
    fn leader(&self, group: GroupId) -> Option<NodeId> {
        let serves = |host: &&Host| host.node.group(group).is_some_and(Core::is_serving);
        let mut serving = self.hosts.values().filter(serves);
        let leader = serving.next()?.node.settings().node;
        serving.next().is_none().then_some(leader)
    }

    fn groups(&self) -> BTreeSet<GroupId> {
        self.hosts.values().flat_map(|host| host.node.groups().map(Core::group)).collect()
    }

    fn all_led(&self) -> bool {
        self.groups().into_iter().all(|group| self.leader(group).is_some())
    }

    /// All groups are led, and wait for nothing. A follower need not know that its leader rests.
    fn all_at_rest(&self) -> bool {
        let rests = |core: &Core| {
            core.next_deadline().is_none() && (core.is_quiesced() || !core.is_serving())
        };
        self.all_led() && self.hosts.values().all(|host| host.node.groups().all(rests))
    }

    /// Every member has the same log, and knows that all of it is decided.
    fn all_decided(&self, group: GroupId) -> bool {
        let mut cores = self.hosts.values().filter_map(|host| host.node.group(group));
        let first = cores.next().map(Core::last);
        let decided = |core: &Core| core.commit_index() == core.last().index;
        cores.all(|core| Some(core.last()) == first && decided(core))
    }

    fn electing(&self, node: NodeId) -> usize {
        self.node(node).groups().filter(|core| core.is_electing()).count()
    }

    fn led_by(&self, node: NodeId) -> usize {
        self.node(node).groups().filter(|core| core.is_serving()).count()
    }
}

impl Host {
    fn carry_out(&mut self, effect: NodeEffect) -> Option<(Class, Packet)> {
        match effect {
            NodeEffect::Send { class, packet } => return Some((class, packet)),
            NodeEffect::SaveHardStates { batch, states } => {
                self.hard.extend(states.into_iter().map(|(group, _, state)| (group, state)));
                self.reports.push(NodeInput::HardStatesSynced { batch });
            }
            NodeEffect::Group { group, effect } => {
                if let Some(input) = self.carry_out_for(group, effect) {
                    self.reports.push(NodeInput::Group { group, input });
                }
            }
            NodeEffect::PeerSuspected { .. }
            | NodeEffect::PeerTrusted { .. }
            | NodeEffect::PeerUnfit { .. } => {}
        }
        None
    }

    /// Answers what is asked for about snapshots.
    fn answer_snapshot(&mut self, group: GroupId, effect: &Effect) -> Option<Input> {
        match effect {
            Effect::SnapshotOpen { to } => match self.snapshots {
                Snapshots::Unanswered => None,
                Snapshots::Refused => Some(Input::SnapshotFailed { to: *to }),
                Snapshots::Opened => {
                    let core = self.node.group(group)?;
                    let position = core.log().position_at(core.commit_index())?;
                    self.open.insert((group, *to));
                    let id = SnapshotId { source: core.node(), number: 1, position };
                    Some(Input::SnapshotOpened { to: *to, id })
                }
            },
            Effect::SnapshotRead { to, id, cursor, .. } => {
                let (to, id, cursor) = (*to, *id, cursor.clone());
                Some(Input::SnapshotRead { to, id, cursor, data: Bytes::new(), next: None })
            }
            Effect::SnapshotStage { id, cursor, .. } => {
                Some(Input::SnapshotStaged { id: *id, cursor: cursor.clone() })
            }
            Effect::SnapshotInstall { id, .. } => {
                self.logs.remove(&group);
                Some(Input::SnapshotInstalled { id: *id })
            }
            Effect::SnapshotClose { to, .. } => {
                self.open.remove(&(group, *to));
                None
            }
            _ => None,
        }
    }

    fn carry_out_for(&mut self, group: GroupId, effect: Effect) -> Option<Input> {
        if let Some(answer) = self.answer_snapshot(group, &effect) {
            return Some(answer);
        }
        let log = self.logs.entry(group).or_default();
        match effect {
            Effect::Append { write, truncate_from, entries } => {
                if let Some(from) = truncate_from {
                    log.retain(|entry| entry.index < from);
                }
                log.extend(entries);
                Some(Input::Appended { write })
            }
            Effect::ReadLog { read, after, upto, max_bytes } => {
                let mut bytes = 0;
                let fits = |entry: &&Entry| {
                    let first = bytes == 0;
                    bytes += entry.payload.len();
                    first || bytes <= max_bytes as usize
                };
                let wanted = |entry: &&Entry| entry.index > after && entry.index <= upto;
                let entries = log.iter().filter(wanted).take_while(fits).cloned().collect();
                Some(Input::LogRead { read, entries })
            }
            Effect::Rejoined { epoch } => {
                self.rejoined.insert(group, epoch);
                None
            }
            Effect::Stop { reason } => match reason {
                crate::StopReason::StorageFailed => None,
                other => panic!("group {group} stopped: {other}"),
            },
            _ => None,
        }
    }
}

#[test]
fn groups_elect_replicate_and_come_to_rest() {
    let mut net = Net::with_groups(3, 20, |_| {});
    net.run_until("all groups are led", Net::all_led);
    for group in 1..=20 {
        let leader = net.leader(GroupId(group)).expect("it is led");
        for _ in 0..10 {
            net.propose(leader, GroupId(group), 100);
        }
    }
    net.run_until("all is decided", |net| {
        net.groups().into_iter().all(|group| net.all_decided(group))
    });
    assert!(net.core(A, GroupId(1)).last().index >= 11);
    net.run_until("all groups rest", Net::all_at_rest);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let trace = |seed| {
        let mut net = Net::with_groups(3, 5, |settings| settings.seed = seed);
        let mut trace = Vec::new();
        for _ in 0..700 {
            net.step();
            trace.extend(net.hosts.values().map(|host| format!("{:?}", host.effects)));
        }
        trace
    };
    assert!(trace(1) == trace(1));
    assert!(trace(1) != trace(2));
}
