//! One input, and what it means for the groups.

use bytes::Bytes;
use flintmq_consensus::{GroupId, Input, NodeId, NodeInput, Packet, Time};
use flintmq_log_store::{ReadError, Report, SnapshotReport};

use crate::admin::{self, AdminAnswer};
use crate::effect::{Notice, ShardError, Told};
use crate::input::{ShardInput, StoreEvent};
use crate::leftover::{DROPPING, Word};
use crate::machine::Machine;
use crate::mutants::{Mutant, breaks};
use crate::network::{hosted_group, is_own};
use crate::peers::Arrival;
use crate::replica::Replaced;
use crate::shard::Shard;

impl<M: Machine> Shard<M> {
    /// Takes one input. What follows from it is done with the next [`Self::turn`].
    pub fn step(&mut self, now: Time, input: ShardInput<M::Request>) {
        if self.host.failure.is_some() || self.done {
            return;
        }
        self.host.now = self.host.now.max(now);
        match input {
            ShardInput::Packet(packet) => self.on_packet(packet),
            ShardInput::Message { from, process, group, bytes } => {
                let arrival = self.host.peers.on_message(from, process, group, bytes);
                if let Arrival::Now(bytes) = arrival {
                    self.on_message(from, group, bytes);
                }
            }
            ShardInput::Room { peer } => {
                for group in self.host.peers.take_waiting(peer) {
                    self.with(group, |machine, group| machine.on_room(group, peer));
                }
            }
            ShardInput::Peer { peer, up, incarnation, restarted } => {
                self.on_peer(peer, up, incarnation, restarted);
            }
            ShardInput::PeerUnfit { peer, reasons } => self.on_peer_unfit(peer, reasons),
            ShardInput::PeerRemoved { peer } => {
                self.step_core(NodeInput::RemovePeer { peer });
                if self.host.peers.removed(peer) {
                    self.tell_machines(peer, false);
                }
            }
            ShardInput::Store { group, event } => self.on_store(group, event),
            ShardInput::HardStatesSaved { batch } => {
                self.step_core(NodeInput::HardStatesSynced { batch });
            }
            ShardInput::EntryRead { group, index, read } => {
                self.with(group, |machine, group| machine.on_entry_read(group, index, read));
            }
            ShardInput::StateRead { group, read, records } => {
                self.mark(group);
                let Some(hosted) = self.groups.get_mut(&group) else { return };
                if !matches!(hosted.replica.replaced, Replaced::Reading(number) if number == read) {
                    return;
                }
                match records {
                    Ok(state) => hosted.replica.replaced = Replaced::Read(state),
                    Err(error) => self.host.fail(error.into()),
                }
            }
            ShardInput::Request { group, request } => {
                self.with(group, |machine, group| machine.on_request(group, request));
            }
            ShardInput::Admin { group, ticket, command } => {
                self.mark(group);
                match self.groups.get_mut(&group) {
                    Some(hosted) => {
                        let replica = &mut hosted.replica;
                        admin::command(&mut self.core, &mut self.host, replica, ticket, command);
                    }
                    None => {
                        let answer = AdminAnswer::UnknownGroup;
                        self.host.tell(Told::Answer { ticket, answer });
                    }
                }
            }
            ShardInput::Assignment(assignment) => {
                self.host.assignment = assignment;
                self.renew_wishes();
            }
            ShardInput::ControllerLed { led } => self.host.controller_led = led,
            ShardInput::Tick => {}
            ShardInput::GroupStalled { group } => {
                self.step_core(NodeInput::GroupStalled { group });
                self.mark(group);
            }
            ShardInput::Stop => {
                if self.stopping.is_none() {
                    self.stopping = Some(self.groups.keys().copied().collect());
                    let groups: Vec<GroupId> = self.groups.keys().copied().collect();
                    groups.into_iter().for_each(|group| self.mark(group));
                }
            }
        }
    }

    pub(crate) fn step_core(&mut self, input: NodeInput) {
        self.core.step(self.host.now, input);
    }

    fn step_group(&mut self, group: GroupId, input: Input) {
        self.step_core(NodeInput::Group { group, input });
    }

    fn on_packet(&mut self, mut packet: Packet) {
        if !self.dropping.is_empty() {
            packet.messages.retain(|message| !self.dropping.contains(&message.group));
        }
        self.step_core(NodeInput::Packet(packet));
    }

    fn on_message(&mut self, from: NodeId, number: GroupId, bytes: Bytes) {
        let id = hosted_group(number);
        if !is_own(number) {
            self.with(id, |machine, group| machine.on_message(group, from, bytes));
            return;
        }
        let Some(word) = Word::decode(bytes) else { return };
        let Some(hosted) = self.groups.get_mut(&id) else { return };
        let leader = hosted.machine.leader_elsewhere();
        hosted.replica.on_word(&self.core, &mut self.host, from, word, leader);
    }

    pub(crate) fn on_peer(&mut self, peer: NodeId, up: bool, incarnation: u64, restarted: bool) {
        if peer == self.host.node {
            return;
        }
        self.step_core(NodeInput::AddPeer { peer });
        let was_up = self.host.peers.told(peer, up, incarnation);
        self.tell_core(peer, up, incarnation, restarted);
        if was_up && (!up || restarted) {
            self.tell_machines(peer, false);
        }
        if up && (!was_up || restarted) {
            self.tell_machines(peer, true);
        }
        for (group, bytes) in self.host.peers.take_held(peer) {
            self.on_message(peer, group, bytes);
        }
    }

    fn tell_machines(&mut self, peer: NodeId, up: bool) {
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        for id in groups {
            self.with(id, |machine, group| machine.on_peer(group, peer, up));
        }
    }

    fn on_store(&mut self, group: GroupId, event: StoreEvent) {
        self.mark(group);
        let Some(hosted) = self.groups.get(&group) else { return };
        let present = hosted.replica.life;
        match event {
            StoreEvent::Report(report) => self.on_report(group, report),
            StoreEvent::LogRead { life, .. } if life != present => {}
            StoreEvent::LogRead { read, entries, .. } => {
                let entries = entries.unwrap_or_else(|error| {
                    unread(group, "entries for another node", &error);
                    Vec::new()
                });
                self.step_group(group, Input::LogRead { read, entries });
            }
            StoreEvent::SnapshotOpened { life, opened, .. } if life != present => {
                if let Ok(opened) = opened {
                    self.host.store.close_snapshot(opened.number);
                }
            }
            StoreEvent::SnapshotOpened { to, opened, .. } => match opened {
                Ok(opened) => {
                    let (number, position) = (opened.number, opened.position);
                    let source = self.host.node;
                    let id = flintmq_consensus::SnapshotId { source, number, position };
                    self.step_group(group, Input::SnapshotOpened { to, id });
                }
                Err(error) => {
                    unread(group, "a snapshot for another node", &error);
                    self.snapshot_failed(group, to);
                }
            },
            StoreEvent::SnapshotRead { life, .. } if life != present => {}
            StoreEvent::SnapshotRead { to, id, cursor, piece, .. } => match piece {
                Ok(piece) => {
                    let (data, next) = (piece.data, piece.next);
                    self.step_group(group, Input::SnapshotRead { to, id, cursor, data, next });
                }
                Err(error) => {
                    unread(group, "a snapshot for another node", &error);
                    self.snapshot_failed(group, to);
                }
            },
        }
    }

    fn snapshot_failed(&mut self, group: GroupId, to: NodeId) {
        if !breaks(Mutant::SnapshotNotRetried) {
            self.step_group(group, Input::SnapshotFailed { to });
        }
    }

    fn on_report(&mut self, group: GroupId, report: Report) {
        let Some(hosted) = self.groups.get_mut(&group) else { return };
        let replica = &mut hosted.replica;
        match report {
            Report::Appended { write: DROPPING, .. } => self.begin_anew(group),
            Report::Appended { write, .. } => {
                replica.own_writes.written(write);
                self.step_group(group, Input::Appended { write });
            }
            Report::HardStateSynced { save } => {
                self.step_group(group, Input::HardStateSynced { save });
            }
            Report::Synced { upto } => {
                self.core
                    .step(self.host.now, NodeInput::Group { group, input: Input::Synced { upto } });
                let synced = self.core.group(group).map_or(0, |core| core.synced_index());
                replica.at_risk.synced(synced);
            }
            Report::Checkpointed { applied } => {
                if let Some(upto) = replica.checkpointed(applied) {
                    self.step_group(group, Input::Compacted { upto });
                }
            }
            Report::Room => replica.go_on_asking(&mut self.host),
            Report::Failed(source) => {
                self.step_core(NodeInput::StorageFailed);
                self.host.fail(ShardError::Storage { group, source });
            }
            Report::Snapshot(report) => self.on_snapshot_report(group, report),
            Report::Created | Report::Dropped | Report::Rejoined | Report::Removed => {}
        }
    }

    fn on_snapshot_report(&mut self, group: GroupId, report: SnapshotReport) {
        let Some(hosted) = self.groups.get_mut(&group) else { return };
        let replica = &mut hosted.replica;
        match report {
            SnapshotReport::Staged { id, cursor } => {
                self.step_group(group, Input::SnapshotStaged { id, cursor });
            }
            SnapshotReport::Installed { id } => {
                // Of before a reset that has taken its place: that state is gone, too.
                let Some((_, keeps)) = replica.installing.take_if(|(known, _)| *known == id) else {
                    return;
                };
                replica.installed(id.position, keeps);
                let read = replica.states_read;
                self.host.notice(group, Notice::StateReplaced { by_snapshot: true });
                self.host.tell(Told::ReadState { group, read });
                self.step_group(group, Input::SnapshotInstalled { id });
            }
            SnapshotReport::Refused { id, detail } => {
                tracing::warn!(group = group.0, detail, "a snapshot cannot be used: begins again");
                replica.installing.take_if(|(known, _)| *known == id);
                self.host.notice(group, Notice::SnapshotRefused);
                self.step_group(group, Input::SnapshotRefused { id });
            }
        }
    }

    /// Everything of a group that this node has left is dropped: it begins anew, with nothing but
    /// what was voted for.
    fn begin_anew(&mut self, group: GroupId) {
        self.dropping.remove(&group);
        let Some(core) = self.core.group(group) else { return };
        let restored = flintmq_consensus::Restored {
            group,
            creation: core.creation(),
            node: self.host.node,
            hard_state: core.hard_state().clone(),
            log: flintmq_consensus::LogTerms::default(),
            applied: 0,
            recovering: core.recovering(),
        };
        match self.core.add_group(self.host.now, restored) {
            Ok(()) => {}
            Err(error) => return self.host.fail(error.into()),
        }
        if let Some(hosted) = self.groups.get_mut(&group) {
            hosted.replica.begin_anew();
        }
    }

    /// Tells the consensus of another node's process.
    fn tell_core(&mut self, peer: NodeId, up: bool, incarnation: u64, restarted: bool) {
        let input = match up {
            true => NodeInput::PeerUp { peer, incarnation, restarted },
            false => NodeInput::PeerDown { peer },
        };
        self.step_core(input);
    }
}

fn unread(group: GroupId, what: &str, error: &ReadError) {
    tracing::warn!(group = group.0, what, %error, "cannot be read");
}
