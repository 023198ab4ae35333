//! A cluster in which nothing happens unless a script says so.

mod commands;
mod telling;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use flintmq_consensus::{
    Core, CreationId, Effect, Entry, EntryKind, Epoch, GroupId, HardState, Index, Input,
    LogPosition, LogTerms, Message, NodeId, Restored, Settings, SnapshotId, Time,
};

/// What survives a process.
#[derive(Clone, Debug, Default)]
struct Disk {
    hard_state: HardState,
    /// Entries above the floor.
    log: Vec<Entry>,
    floor: LogPosition,
    /// The machine: every payload applied, oldest first, with its index.
    machine: Vec<(Index, String)>,
    applied: Index,
    loss_epoch: Epoch,
    rejoined_epoch: Epoch,
}

impl Disk {
    fn truncate_from(&mut self, index: Index) {
        self.log.retain(|entry| entry.index < index);
    }
}

/// A node: its process, if it runs, and its disk.
#[derive(Default)]
struct Host {
    core: Option<Core>,
    disk: Disk,
    /// Writes wait until the script lets them happen.
    slow: bool,
    waiting: VecDeque<Effect>,
    snapshots: BTreeMap<SnapshotId, (Index, Vec<(Index, String)>)>,
    staged: Vec<u8>,
    opened: u64,
    /// Snapshots cannot be opened.
    refuses: bool,
    /// The piece that cannot be read, the first time.
    bad_piece: Option<u8>,
    /// The next piece to be kept is refused.
    refuses_piece: bool,
}

/// The nodes, what is on the way between them, and the time.
#[derive(Default)]
pub(crate) struct Cluster {
    hosts: BTreeMap<NodeId, Host>,
    settings: Settings,
    network: VecDeque<Message>,
    /// Directions in which nothing arrives.
    cut: BTreeSet<(NodeId, NodeId)>,
    now: Time,
    trace: Vec<String>,
}

impl Cluster {
    pub(crate) fn take_trace(&mut self) -> Vec<String> {
        std::mem::take(&mut self.trace)
    }

    fn host(&mut self, node: NodeId) -> Result<&mut Host, String> {
        self.hosts.get_mut(&node).ok_or_else(|| format!("there is no node {node}"))
    }

    fn start(&mut self, node: NodeId) -> Result<(), String> {
        let settings = Arc::new(self.settings.clone());
        let host = self.host(node)?;
        let disk = &host.disk;
        let log = LogTerms::from_positions(disk.floor, disk.log.iter().map(Entry::position));
        let restored = Restored {
            group: GroupId(1),
            creation: CreationId(1),
            node,
            hard_state: disk.hard_state.clone(),
            log,
            applied: disk.applied,
            recovering: (disk.rejoined_epoch < disk.loss_epoch).then_some(disk.loss_epoch),
        };
        let core = Core::new(restored, settings, u64::from(node.0));
        host.core = Some(core.map_err(|error| error.to_string())?);
        self.input(node, Input::Started)
    }

    /// Steps a core and carries out what it asks for.
    fn input(&mut self, node: NodeId, input: Input) -> Result<(), String> {
        let now = self.now;
        let host = self.host(node)?;
        let Some(core) = host.core.as_mut() else { return Ok(()) };
        let mut effects = Vec::new();
        core.step(now, input, &mut effects);
        self.carry_out(node, effects)
    }

    /// Does all of it, then tells the core what came of it.
    fn carry_out(&mut self, node: NodeId, effects: Vec<Effect>) -> Result<(), String> {
        let mut answers = Vec::new();
        for effect in effects {
            if let Effect::Send(message) = effect {
                self.network.push_back(message);
                continue;
            }
            self.trace.push(telling::effect(node, &effect));
            let host = self.host(node)?;
            let writes = matches!(
                effect,
                Effect::SaveHardState { .. }
                    | Effect::Append { .. }
                    | Effect::Reset { .. }
                    | Effect::Rejoined { .. }
            );
            if host.slow && writes {
                host.waiting.push_back(effect);
            } else {
                answers.extend(self.finish(node, effect)?);
            }
        }
        answers.into_iter().try_for_each(|answer| self.input(node, answer))
    }

    /// Lets the disk, or the machine, do what was asked for, and tells its report.
    fn finish(&mut self, node: NodeId, effect: Effect) -> Result<Option<Input>, String> {
        let host = self.host(node)?;
        let disk = &mut host.disk;
        let answer = match effect {
            Effect::SaveHardState { save, state } => {
                disk.hard_state = state;
                Input::HardStateSynced { save }
            }
            Effect::Append { write, truncate_from, entries } => {
                if let Some(index) = truncate_from {
                    disk.truncate_from(index);
                }
                disk.log.extend(entries);
                Input::Appended { write }
            }
            Effect::Reset { write } => {
                disk.log.clear();
                disk.machine.clear();
                (disk.floor, disk.applied) = (LogPosition::default(), 0);
                Input::Appended { write }
            }
            Effect::ReadLog { read, after, upto, max_bytes: _ } => {
                let wanted = |entry: &&Entry| entry.index > after && entry.index <= upto;
                let entries = disk.log.iter().filter(wanted).cloned().collect();
                Input::LogRead { read, entries }
            }
            Effect::Commit { upto } => {
                for entry in &disk.log {
                    if entry.index > disk.applied && entry.index <= upto {
                        if entry.kind != EntryKind::Barrier {
                            let text = String::from_utf8_lossy(&entry.payload).into_owned();
                            disk.machine.push((entry.index, text));
                        }
                        disk.applied = entry.index;
                    }
                }
                return Ok(None);
            }
            Effect::Rejoined { epoch } => {
                disk.rejoined_epoch = epoch;
                return Ok(None);
            }
            Effect::SnapshotOpen { to } if host.refuses => {
                self.trace.push(format!("{node}: cannot open it"));
                Input::SnapshotFailed { to }
            }
            Effect::SnapshotRead { to, ref cursor, .. }
                if cursor.first().is_some_and(|at| host.bad_piece == Some(*at)) =>
            {
                host.bad_piece = None;
                self.trace.push(format!("{node}: cannot read it"));
                Input::SnapshotFailed { to }
            }
            Effect::SnapshotOpen { to } => {
                host.opened += 1;
                let index = disk.applied;
                let term = disk.log.iter().find(|e| e.index == index).map(|e| e.term);
                let position = LogPosition { term: term.unwrap_or(disk.floor.term), index };
                let id = SnapshotId { source: node, number: host.opened, position };
                host.snapshots.insert(id, (index, disk.machine.clone()));
                Input::SnapshotOpened { to, id }
            }
            Effect::SnapshotRead { to, id, cursor, max_bytes: _ } => {
                // One payload to a piece.
                let (_, machine) = &host.snapshots[&id];
                let at = cursor.first().map_or(0, |at| usize::from(*at));
                let data = machine.get(at).map(|(i, text)| format!("{i}={text};"));
                let next = u8::try_from(at + 1).ok().filter(|at| usize::from(*at) < machine.len());
                Input::SnapshotRead {
                    to,
                    id,
                    cursor,
                    data: Bytes::from(data.unwrap_or_default()),
                    next: next.map(|at| Bytes::from(vec![at])),
                }
            }
            Effect::SnapshotStage { id, .. } if std::mem::take(&mut host.refuses_piece) => {
                self.trace.push(format!("{node}: cannot keep it"));
                Input::SnapshotRefused { id }
            }
            Effect::SnapshotStage { id, cursor, data } => {
                if cursor.is_empty() {
                    host.staged.clear();
                }
                host.staged.extend_from_slice(&data);
                Input::SnapshotStaged { id, cursor }
            }
            Effect::SnapshotInstall { id, keep_log_after } => {
                let text = String::from_utf8_lossy(&host.staged).into_owned();
                let pieces = text.split_terminator(';').filter_map(|piece| piece.split_once('='));
                disk.machine = pieces
                    .filter_map(|(index, text)| Some((index.parse().ok()?, text.to_owned())))
                    .collect();
                disk.log.retain(|entry| keep_log_after && entry.index > id.position.index);
                disk.floor = id.position;
                disk.applied = id.position.index;
                Input::SnapshotInstalled { id }
            }
            _ => return Ok(None),
        };
        Ok(Some(answer))
    }

    /// Delivers what is on the way, and what that causes, until nothing is left.
    fn run(&mut self) -> Result<(), String> {
        for _ in 0..10_000 {
            let Some(message) = self.network.pop_front() else { return Ok(()) };
            self.deliver(message)?;
        }
        Err("messages never end".to_owned())
    }

    fn deliver(&mut self, message: Message) -> Result<(), String> {
        let arrives = !self.cut.contains(&(message.from, message.to))
            && self.hosts.get(&message.to).is_some_and(|host| host.core.is_some());
        self.trace.push(telling::message(&message, arrives));
        if arrives { self.input(message.to, Input::Message(message)) } else { Ok(()) }
    }

    /// Lets time pass: every timer that ends meanwhile, in order, with all that it causes.
    fn advance(&mut self, until: Time) -> Result<(), String> {
        loop {
            self.run()?;
            let next = self
                .hosts
                .iter()
                .filter_map(|(node, host)| Some((host.core.as_ref()?.next_deadline()?, *node)))
                .filter(|(deadline, _)| *deadline <= until)
                .min();
            let Some((deadline, node)) = next else {
                self.now = until;
                return Ok(());
            };
            if deadline > self.now {
                self.now = deadline;
                self.trace.push(format!("-- {} ms", deadline.0 / 1000));
            }
            self.input(node, Input::Tick)?;
        }
    }
}
