//! The loop: inputs in, a turn, effects out. Batches come from load, never from a timer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flintmq_consensus::GroupId;
use flintmq_node::{NodeEffect, NodeMachine, NodeRequest};
use flintmq_partition::{Answer, Request, SessionId};
use flintmq_queue::DomainVersion;
use flintmq_shard::{AdminAnswer, ReplicaStatus, Shard, ShardEffect, ShardInput};
use flintmq_storage::LogStore;
use metrics::Histogram;
use rustc_hash::FxHashSet;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::clock::{Alarm, CoreClock};
use super::controller_handle::ControllerEffects;
use super::fitness::Fitness;
use super::inbox::{Arrived, FromPeer, Inbox, ShardSender, Signal};
use super::queue_series::QueueSeriesTable;
use super::session_table::SessionTable;
use super::tickets::Tickets;
use crate::entry_reader::EntryReader;
use crate::fatal::FatalSignal;
use crate::metrics::{END_TO_END, Metrics, PUBLISH_ACK};

/// Requests of one partition, and things of other nodes, taken before the shard's turn.
const MAX_PER_TURN: usize = 256;

/// How often the statuses of all groups are published, changed or not.
const STATUS: Duration = Duration::from_secs(1);

/// A queue that was created in a partition which this node leads.
pub(crate) struct CreatedQueue {
    /// The partition.
    pub(crate) group: GroupId,
    /// Its canonical URI.
    pub(crate) uri: String,
    /// The settings of its domain under which it was created.
    pub(crate) version: DomainVersion,
}

/// What the host is made of.
pub(crate) struct HostParts {
    pub(crate) shard: Shard<NodeMachine>,
    pub(crate) clock: CoreClock,
    pub(crate) fitness: Fitness,
    pub(crate) inbox: Inbox,
    pub(crate) sender: ShardSender,
    pub(crate) store: Arc<dyn LogStore>,
    pub(crate) reader: EntryReader,
    pub(crate) sessions: Arc<SessionTable>,
    pub(crate) partition_tickets: Arc<Tickets<Answer>>,
    pub(crate) admin_tickets: Arc<Tickets<AdminAnswer>>,
    pub(crate) controller: ControllerEffects,
    pub(crate) statuses: BTreeMap<GroupId, watch::Sender<ReplicaStatus>>,
    /// Queues that were created; who takes them only looks at the metadata.
    pub(crate) created: mpsc::UnboundedSender<CreatedQueue>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) fatal: FatalSignal,
}

/// The loop's state.
pub(crate) struct ShardHost {
    shard: Shard<NodeMachine>,
    clock: CoreClock,
    pub(super) fitness: Fitness,
    inbox: Inbox,
    pub(super) sender: ShardSender,
    pub(super) store: Arc<dyn LogStore>,
    pub(super) reader: EntryReader,
    pub(super) sessions: Arc<SessionTable>,
    pub(super) partition_tickets: Arc<Tickets<Answer>>,
    pub(super) admin_tickets: Arc<Tickets<AdminAnswer>>,
    pub(super) controller: ControllerEffects,
    statuses: BTreeMap<GroupId, watch::Sender<ReplicaStatus>>,
    pub(super) created: mpsc::UnboundedSender<CreatedQueue>,
    statuses_due: Instant,
    pub(super) series: QueueSeriesTable,
    pub(super) fatal: FatalSignal,
    /// Groups and sessions whose way out is full.
    pub(super) full: FxHashSet<(GroupId, SessionId)>,
    /// Requests that follow from effects.
    pub(super) follow_ups: Vec<(GroupId, Request)>,
    pub(super) publish_ack: Histogram,
    pub(super) end_to_end: Histogram,
    pub(super) ended: bool,
}

impl ShardHost {
    pub(crate) fn new(parts: HostParts) -> Self {
        Self {
            shard: parts.shard,
            clock: parts.clock,
            fitness: parts.fitness,
            inbox: parts.inbox,
            sender: parts.sender,
            store: parts.store,
            reader: parts.reader,
            sessions: parts.sessions,
            partition_tickets: parts.partition_tickets,
            admin_tickets: parts.admin_tickets,
            controller: parts.controller,
            statuses: parts.statuses,
            created: parts.created,
            statuses_due: Instant::now(),
            series: QueueSeriesTable::new(parts.metrics),
            fatal: parts.fatal,
            full: FxHashSet::default(),
            follow_ups: Vec::new(),
            publish_ack: PUBLISH_ACK.histogram(&[]),
            end_to_end: END_TO_END.histogram(&[]),
            ended: false,
        }
    }

    /// Runs until the shard has stopped.
    pub(crate) async fn run(mut self) {
        let mut alarm = Alarm::new(self.clock);
        let mut effects: Vec<ShardEffect<NodeEffect>> = Vec::new();
        let mut more = true;
        while !self.ended {
            if more {
                // Sessions have their turn on this thread, too.
                tokio::task::yield_now().await;
            } else {
                tokio::select! {
                    biased;
                    arrived = self.inbox.next() => match arrived {
                        Some(Arrived::Signal(signal)) => self.on_signal(signal),
                        Some(Arrived::FromPeer(from_peer)) => self.on_peer(from_peer),
                        Some(Arrived::Requests) => {}
                        None => return,
                    },
                    () = alarm.ring(self.shard.next_deadline()) => {}
                    () = tokio::time::sleep_until(self.statuses_due) => {}
                }
            }
            self.take_waiting();
            let (now, time) = (self.clock.now(), self.fitness.reading());
            more = self.shard.turn(now, time, &mut effects);
            self.carry_out(&mut effects);
            more |= self.take_follow_ups();
            if self.statuses_due <= Instant::now() {
                self.statuses_due = Instant::now() + STATUS;
                self.publish_all();
            }
            // What a partition did not take before it may take now.
            more |= self.may_take_requests();
        }
        self.partition_tickets.close();
        self.admin_tickets.close();
        self.controller.close();
    }

    /// Takes everything that is there already, so that it shares an entry, a packet and an event.
    fn take_waiting(&mut self) {
        while let Some(signal) = self.inbox.try_signal() {
            self.on_signal(signal);
        }
        for _ in 0..MAX_PER_TURN {
            let Some(from_peer) = self.inbox.try_from_peer() else { break };
            self.on_peer(from_peer);
        }
        let now = self.clock.now();
        let shard = std::cell::RefCell::new(&mut self.shard);
        self.inbox.requests(
            MAX_PER_TURN,
            |group| {
                let shard = shard.borrow();
                shard.machine(group).is_some_and(flintmq_shard::Machine::takes_requests)
            },
            |group, request| {
                shard.borrow_mut().step(now, ShardInput::Request { group, request });
            },
        );
    }

    fn may_take_requests(&self) -> bool {
        self.inbox.waiting_groups().any(|group| {
            let machine = self.shard.machine(group);
            machine.is_some_and(flintmq_shard::Machine::takes_requests)
        })
    }

    fn take_follow_ups(&mut self) -> bool {
        let now = self.clock.now();
        let any = !self.follow_ups.is_empty();
        for (group, request) in self.follow_ups.drain(..) {
            let request = NodeRequest::Partition(request);
            self.shard.step(now, ShardInput::Request { group, request });
        }
        any
    }

    fn on_peer(&mut self, from_peer: FromPeer) {
        let input = match from_peer {
            FromPeer::Packet(packet) => ShardInput::Packet(*packet),
            FromPeer::Message { from, process, group, bytes } => {
                ShardInput::Message { from, process, group, bytes }
            }
        };
        self.shard.step(self.clock.now(), input);
    }

    fn on_signal(&mut self, signal: Signal) {
        let input = match signal {
            Signal::Store(told) => told.into(),
            Signal::EntryRead { group, index, read } => {
                ShardInput::EntryRead { group, index, read }
            }
            Signal::StateRead { group, read, state } => {
                ShardInput::StateRead { group, read, records: state }
            }
            Signal::SessionRoom { group, session } => {
                self.full.remove(&(group, session));
                let request = NodeRequest::Partition(Request::SessionRoom(session));
                ShardInput::Request { group, request }
            }
            Signal::Room { peer } => ShardInput::Room { peer },
            Signal::Peer { peer, up, process, restarted } => {
                ShardInput::Peer { peer, up, incarnation: process, restarted }
            }
            Signal::PeerUnfit { peer, reasons } => ShardInput::PeerUnfit { peer, reasons },
            // The next turn reads it.
            Signal::Clock => return,
            Signal::PeerRemoved { peer } => ShardInput::PeerRemoved { peer },
            Signal::Controller(request) => {
                let request = NodeRequest::Controller(request);
                ShardInput::Request { group: GroupId::CONTROLLER, request }
            }
            Signal::Admin { group, ticket, command } => {
                ShardInput::Admin { group, ticket, command }
            }
            Signal::Assignment(assignment) => ShardInput::Assignment(assignment),
            Signal::Alive(alive) => {
                let _gone = alive.send(());
                return;
            }
            Signal::Stop => ShardInput::Stop,
        };
        self.shard.step(self.clock.now(), input);
    }

    /// Tells everybody who waits for it how a group is doing.
    pub(super) fn publish_status(&mut self, group: GroupId) {
        let Some(status) = self.shard.status(group) else { return };
        if group == GroupId::CONTROLLER {
            let led = ShardInput::ControllerLed { led: status.led };
            self.shard.step(self.clock.now(), led);
        }
        let Some(sender) = self.statuses.get(&group) else { return };
        // Woken are those who wait for another leadership: how far the log is, is read and not
        // waited for.
        sender.send_if_modified(|known| {
            let led_as = |status: &ReplicaStatus| {
                (status.leader, status.serving, status.led, status.term, status.history)
            };
            let is_news = led_as(known) != led_as(&status);
            *known = status;
            is_news
        });
    }

    fn publish_all(&mut self) {
        let groups: Vec<GroupId> = self.statuses.keys().copied().collect();
        groups.into_iter().for_each(|group| self.publish_status(group));
    }
}
