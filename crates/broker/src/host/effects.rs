//! What comes out of a turn, done.

use std::sync::Arc;

use flintmq_consensus::GroupId;
use flintmq_node::NodeEffect;
use flintmq_partition::{Effect, Request, SessionId};
use flintmq_protocol::control::StatusCategory;
use flintmq_shard::{Notice, ShardEffect, read_state};

use super::inbox::Signal;
use super::run::{CreatedQueue, ShardHost};
use crate::metrics::{ELECTIONS, HISTORY_FORKS, LEADER_TRANSFERS};

impl ShardHost {
    /// Does what one turn asks for, in order. Requests that follow from it go to the shard with the
    /// next turn.
    pub(super) fn carry_out(&mut self, effects: &mut Vec<ShardEffect<NodeEffect>>) {
        for effect in effects.drain(..) {
            match effect {
                ShardEffect::Machine { group, effect: NodeEffect::Partition(effect) } => {
                    self.for_partition(group, effect);
                }
                ShardEffect::Machine { effect: NodeEffect::Controller(effect), .. } => {
                    self.controller.carry_out(effect, &self.sender);
                }
                ShardEffect::Answer { ticket, answer } => self.admin_tickets.answer(ticket, answer),
                ShardEffect::ReadEntry { group, index } => {
                    let sender = self.sender.clone();
                    let then = move |read| {
                        sender.signal(Signal::EntryRead { group, index, read });
                    };
                    self.reader.read(group, index, Box::new(then));
                }
                ShardEffect::ReadState { group, read } => {
                    let (sender, store) = (self.sender.clone(), Arc::clone(&self.store));
                    tokio::task::spawn_blocking(move || {
                        let state = read_state(&*store, group);
                        sender.signal(Signal::StateRead { group, read, state });
                    });
                }
                ShardEffect::StatusChanged { group } => self.publish_status(group),
                ShardEffect::Notice { group, notice } => note(group, notice),
                ShardEffect::Unfit { reasons } => self.fitness.set_unfit(reasons),
                ShardEffect::Fatal(error) => {
                    self.fatal.raise(error);
                    self.ended = true;
                }
                ShardEffect::Stopped => self.ended = true,
            }
        }
    }

    fn for_partition(&mut self, group: GroupId, effect: Effect) {
        match effect {
            Effect::Answer { ticket, answer } => self.partition_tickets.answer(ticket.0, answer),
            Effect::Send { session, events, answered } => {
                self.send(group, session, events, answered);
            }
            Effect::Refuse { session, request_id, message } => {
                if let Some(link) = self.sessions.get(session) {
                    link.refuse(request_id, StatusCategory::Unknown, message);
                }
            }
            Effect::EndSession { session, reason } => {
                if let Some(link) = self.sessions.get(session) {
                    link.end(reason);
                }
            }
            Effect::QueueCreated { uri, version } => {
                // Without a receiver the node is stopping.
                let _gone = self.created.send(CreatedQueue { group, uri, version });
            }
            Effect::QueueOpened { queue, uri } => self.series.open(group, queue, &uri),
            Effect::QueueClosed { queue, uri } => self.series.close(group, queue, &uri),
            Effect::Counted { queue, counts } => self.series.count(group, queue, &counts),
            Effect::Levels { queue, levels } => self.series.set_levels(group, queue, &levels),
            Effect::PublishLatency(latency) => self.publish_ack.record(latency.as_secs_f64()),
            Effect::DeliveryLatency(waited) => {
                for (ms, messages) in waited {
                    self.end_to_end.record_many(ms as f64 / 1000.0, messages as usize);
                }
            }
        }
    }

    /// Hands events to a session, and tells its group when the way out is full by it.
    fn send(&mut self, group: GroupId, id: SessionId, events: bytes::Bytes, answered: usize) {
        let Some(link) = self.sessions.get(id) else { return };
        link.in_flight.release(answered);
        link.outbox.push(events);
        if !link.outbox.is_full() || !self.full.insert((group, id)) {
            return;
        }
        self.follow_ups.push((group, Request::SessionFull(id)));
        let sender = self.sender.clone();
        link.outbox.when_room(Box::new(move || {
            sender.signal(Signal::SessionRoom { group, session: id });
        }));
    }
}

fn note(group: GroupId, notice: Notice) {
    let id = group.0;
    match notice {
        Notice::ElectionStarted { term } => {
            tracing::debug!(group = id, term, "stands for election");
            ELECTIONS.counter(&["started"]).increment(1);
        }
        Notice::ElectionWon { term } => {
            tracing::info!(group = id, term, "leads");
            ELECTIONS.counter(&["won"]).increment(1);
        }
        Notice::LeadershipLost { term } => tracing::info!(group = id, term, "leads no more"),
        Notice::TransferDone { to } => {
            tracing::info!(group = id, to = to.0, "leadership handed over");
            LEADER_TRANSFERS.counter(&["done"]).increment(1);
        }
        Notice::TransferAbandoned { to } => {
            tracing::warn!(group = id, to = to.0, "a transfer of leadership was given up");
            LEADER_TRANSFERS.counter(&["abandoned"]).increment(1);
        }
        Notice::HistoryForked { history, last, commit_bound } => {
            HISTORY_FORKS.counter(&[id.to_string().as_str()]).increment(1);
            tracing::error!(
                group = id,
                history,
                last_index = last.index,
                committed_index = commit_bound,
                "the end of the log may be lost after an unclean stop of the machine; going on with what is there"
            );
        }
        Notice::StateReplaced { by_snapshot } => {
            tracing::info!(
                group = id,
                by_snapshot,
                "another state takes the place of the group's own"
            );
        }
        Notice::SnapshotRefused => {
            tracing::warn!(
                group = id,
                "a snapshot of another node cannot be used: it is asked for again"
            );
        }
        Notice::OwnWritesLag => tracing::warn!(
            group = id,
            "this node's disk is far behind those of the others: another node is to lead"
        ),
        Notice::Removed => {
            tracing::info!(group = id, "this node is no longer a member of the group");
        }
        Notice::LeftoverDropped => {
            tracing::info!(group = id, "drops what it has of a group that it has left");
        }
    }
}
