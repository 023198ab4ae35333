//! What the consensus asks for, done at the store and the network.

use flintmq_consensus::{Effect, GroupId, NodeEffect, Role, SnapshotId};
use flintmq_log_store::{AppendBatch, AppendKind, HardStates, StagedPiece};

use crate::effect::{Notice, ShardError};
use crate::host::Host;
use crate::input::StoreEvent;
use crate::machine::Machine;
use crate::replica::Replica;
use crate::shard::Shard;
use crate::store_queue::Request;

impl<M: Machine> Shard<M> {
    /// Does everything that the consensus has asked for since the last time.
    pub(crate) fn flush(&mut self) {
        let mut asked = std::mem::take(&mut self.node_effects);
        self.core.flush(self.host.now, &mut asked);
        for effect in asked.drain(..) {
            match effect {
                NodeEffect::Send { class, packet } => {
                    self.host.network.send_packet(class, packet);
                }
                // A node that cannot go on writes nothing more.
                _ if self.host.failure.is_some() => {}
                NodeEffect::SaveHardStates { batch, states } => {
                    // Members and histories change with them.
                    for (group, ..) in &states {
                        self.mark(*group);
                    }
                    let then = Box::new(self.saved_teller(batch));
                    let group = states.first().map_or(GroupId::CONTROLLER, |(group, ..)| *group);
                    let saved = self.host.store.save_hard_states(HardStates { states, then });
                    if let Err(refused) = saved {
                        self.host.fail(ShardError::Refused { group, reason: refused.reason });
                    }
                }
                NodeEffect::Group { group, effect } => self.carry_out(group, effect),
                // The host of the shard has said so.
                NodeEffect::PeerSuspected { .. }
                | NodeEffect::PeerTrusted { .. }
                | NodeEffect::PeerUnfit { .. } => {}
            }
        }
        self.node_effects = asked;
    }

    /// Does one thing that a group's core asked for.
    pub(crate) fn carry_out(&mut self, id: GroupId, effect: Effect) {
        if !matches!(effect, Effect::Append { .. } | Effect::ReadLog { .. }) {
            self.mark(id);
        }
        let Some(hosted) = self.groups.get_mut(&id) else { return };
        let (host, replica) = (&mut self.host, &mut hosted.replica);
        match effect {
            Effect::ReadReady { read, index } => {
                self.with(id, |machine, group| machine.on_read_index(group, read, Some(index)));
            }
            Effect::ReadRefused { read } => {
                self.with(id, |machine, group| machine.on_read_index(group, read, None));
            }
            effect => replica.carry_out(host, effect),
        }
    }
}

impl Replica {
    /// Does one thing that the group's core asked for.
    fn carry_out(&mut self, host: &mut Host, effect: Effect) {
        let group = self.group;
        match effect {
            Effect::Append { write, truncate_from, entries } => {
                self.take_into_tail(truncate_from, &entries);
                self.own_writes.asked(write, &entries, host.now);
                let kind = std::mem::replace(&mut self.append_kind, AppendKind::Relief);
                let batch = AppendBatch { write, truncate_from, entries, kind };
                self.ask_store(host, Request::Append(batch));
            }
            Effect::ReadLog { read, after, upto, max_bytes } => {
                let (life, teller) = (self.life, host.teller(group));
                let then = move |entries| teller(StoreEvent::LogRead { life, read, entries });
                host.store.read_log(group, after, upto, max_bytes as usize, Box::new(then));
            }
            Effect::Serving { term } => host.notice(group, Notice::ElectionWon { term }),
            Effect::RoleChanged { role, term, leader } => {
                tracing::debug!(group = group.0, ?role, term, ?leader, "role");
                if role == Role::Candidate {
                    host.notice(group, Notice::ElectionStarted { term });
                }
                if !matches!(role, Role::Syncing | Role::Ready) {
                    self.leads_no_more(host, term);
                }
            }
            Effect::Rejoined { .. } => self.ask_store(host, Request::Rejoined),
            Effect::HistoryForked { history, last, commit_bound } => {
                host.notice(group, Notice::HistoryForked { history, last, commit_bound });
            }
            Effect::Stop { reason } => host.fail(ShardError::Stopped { group, reason }),
            Effect::SnapshotOpen { to } => {
                let (life, teller) = (self.life, host.teller(group));
                let then = move |opened| teller(StoreEvent::SnapshotOpened { life, to, opened });
                host.store.open_snapshot(group, Box::new(then));
            }
            Effect::SnapshotRead { to, id, cursor, max_bytes } => {
                let (life, teller, at) = (self.life, host.teller(group), cursor.clone());
                let then = move |piece| {
                    teller(StoreEvent::SnapshotRead { life, to, id, cursor: at, piece });
                };
                let max_bytes = max_bytes as usize;
                host.store.read_snapshot(group, id.number, cursor, max_bytes, Box::new(then));
            }
            Effect::SnapshotClose { id, .. } => host.store.close_snapshot(id.number),
            Effect::SnapshotStage { id, cursor, data } => {
                let piece = StagedPiece { id, cursor, data };
                let asked = self.queue.stage(&*host.store, group, piece);
                self.look_at(host, asked);
            }
            Effect::SnapshotInstall { id, keep_log_after } => {
                self.install(host, id, keep_log_after);
            }
            Effect::Reset { write } => {
                self.empty();
                host.notice(group, Notice::StateReplaced { by_snapshot: false });
                self.ask_store(host, Request::Reset { write });
            }
            Effect::TransferAbandoned { to } => self.transfer_abandoned(host, to),
            Effect::Removed => host.notice(group, Notice::Removed),
            // What is committed is looked for in the group's turn, and the rest is no effect of a
            // group that its node does not see to.
            Effect::Commit { .. }
            | Effect::Send(_)
            | Effect::SaveHardState { .. }
            | Effect::ReadReady { .. }
            | Effect::ReadRefused { .. } => {}
        }
    }

    fn install(&mut self, host: &mut Host, id: SnapshotId, keep_log_after: bool) {
        self.queue.forget_piece();
        self.installing = Some((id, keep_log_after));
        self.ask_store(host, Request::Install { id, keep_log_after });
    }
}
