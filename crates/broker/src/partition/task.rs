//! The task that owns a partition: it takes what waits, proposes it as one entry, applies what is
//! decided, delivers, and sends everything out. Batches come from load, never from a timer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use flintmq_consensus::{GroupId, Index, Input, NodeId};
use flintmq_protocol::guid::MessageGuid;
use flintmq_queue::{
    Applied, Deliveries, EntryBuilder, HandleId, Partition, QueueId, QueueSettings, Subscription,
};
use flintmq_storage::{CheckpointBatch, ReadError};
use metrics::Histogram;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::clock::TICK;
use super::gateway::Gateway;
use super::links::Links;
use super::publish::{Origin, PendingPut, Proposed};
use super::requests::{AdminRefusal, Close, HandleRole, Open, Purged, Put, Request, SessionEnded};
use crate::cluster::{FromPeer, Mailbox, PeerLinks, heard};
use crate::domain_usage::PartitionUsage;
use crate::entry_reader::EntryReader;
use crate::fatal::FatalSignal;
use crate::link::SessionId;
use crate::metrics::{END_TO_END, Metrics, PUBLISH_ACK, QueueSeries};
use crate::replica::{Reconciler, Replica, ReplicaError, ReplicaStatus, StoreEvents};

/// Size from which an entry is not added to any more: no request is taken until it is proposed.
pub(super) const MAX_ENTRY_BYTES: usize = 1 << 20;

/// Entries under way at a time. More would make entries smaller, not the log faster: the writer
/// takes all that waits.
const MAX_UNDER_WAY: usize = 3;

/// Bytes under way at which no more are proposed: large messages go one after the other.
const MAX_BYTES_UNDER_WAY: u64 = 16 << 20;

/// Requests taken before entries are proposed and messages delivered.
const MAX_REQUESTS_PER_ROUND: usize = 256;

/// Everything a partition's task is made of.
pub(crate) struct PartitionParts {
    pub(crate) replica: Replica,
    /// The state as of the replica's checkpoint.
    pub(crate) machine: Partition,
    pub(crate) reader: EntryReader,
    pub(crate) usage: PartitionUsage,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) events: StoreEvents,
    /// The way to other nodes and what comes from them; none for a cluster of one.
    pub(crate) peers: Option<(PeerLinks, Mailbox)>,
    pub(crate) reconciler: Reconciler,
    pub(crate) status: watch::Sender<ReplicaStatus>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) fatal: FatalSignal,
    pub(crate) stop: CancellationToken,
}

/// A handle that a client has open here.
#[derive(Clone, Debug)]
pub(super) struct HandleEntry {
    pub(super) owner: Owner,
    pub(super) queue: QueueId,
}

/// Whose a handle is.
#[derive(Clone, Debug)]
pub(super) enum Owner {
    /// A client of this node.
    Session(LocalHandle),
    /// A client of another node, which is served through that node's gateway.
    Node(NodeId),
}

/// What a client of this node opened, so that it can be opened anew elsewhere.
#[derive(Clone, Debug)]
pub(super) struct LocalHandle {
    pub(super) session: SessionId,
    pub(super) role: HandleRole,
    pub(super) uri: Arc<str>,
    pub(super) settings: Arc<QueueSettings>,
    pub(super) subscriptions: Arc<[Subscription]>,
}

/// An open of a gateway.
#[derive(Clone, Copy, Debug)]
pub(super) struct RemoteOpen {
    pub(super) node: NodeId,
    pub(super) handle: HandleId,
    pub(super) queue: QueueId,
    pub(super) reads: bool,
}

/// A queue of this partition, beside its state.
pub(super) struct QueueEntry {
    pub(super) uri: String,
    pub(super) series: Arc<QueueSeries>,
    /// Since when it has been empty and closed.
    pub(super) unused_since: Option<Instant>,
}

/// What waits until an entry is applied.
pub(super) enum Deferred {
    Open(Box<Open>),
    Close(Box<Close>),
    SessionEnded(SessionEnded),
    Settled(oneshot::Sender<()>),
    Delete(QueueId, oneshot::Sender<Result<(), AdminRefusal>>),
    OpenRemote(RemoteOpen),
    CloseRemote(NodeId, u64, Vec<HandleId>),
    ConfirmedRemote(NodeId, u64),
}

/// What other threads tell the task; at most one per session and per entry asked for.
pub(super) enum Signal {
    Resume(SessionId),
    Loaded(Index, Result<Bytes, ReadError>),
    /// An entry that holds a message from a leader elsewhere.
    EntryRead(Index, Result<Bytes, ReadError>),
    /// A connection to another node has room again.
    GatewayRoom,
    /// The answer to an administrator of another node.
    Answer(NodeId, u64, Result<Purged, AdminRefusal>),
}

/// The task.
pub(crate) struct PartitionTask {
    pub(super) replica: Replica,
    pub(super) machine: Partition,
    pub(super) reader: EntryReader,
    pub(super) usage: PartitionUsage,
    pub(super) metrics: Arc<Metrics>,
    pub(super) fatal: FatalSignal,
    pub(super) signals: mpsc::UnboundedSender<Signal>,

    pub(super) handles: FxHashMap<HandleId, HandleEntry>,
    pub(super) queues: FxHashMap<QueueId, QueueEntry>,
    /// Numbers of queues that were deleted since the process started: an open that was on its way
    /// must not bring one back. Numbers are never given twice.
    pub(super) deleted: FxHashSet<QueueId>,
    /// Queues whose creation is on its way through the log, for clients that open them.
    pub(super) creating: FxHashSet<QueueId>,
    pub(super) links: Links,

    /// The entry that is being collected, with the PUTs in it.
    pub(super) builder: EntryBuilder,
    pub(super) puts: Vec<PendingPut>,
    /// PUTs that did not fit into it. No request is taken while there are any, so that they keep
    /// their place.
    pub(super) waiting_puts: VecDeque<(Origin, Put)>,
    /// Confirmations of this node's clients in the entry that is being collected.
    pub(super) confirms: Vec<(HandleId, MessageGuid)>,
    /// When they are proposed at the latest, if nothing else is.
    pub(super) confirms_due: Option<Instant>,
    pub(super) gateway: Gateway,
    pub(super) reconciler: Reconciler,
    /// The leader says that nobody needs what this node has of the group that it has left.
    pub(super) may_drop: bool,
    pub(super) collecting_since: Option<Instant>,
    pub(super) under_way: VecDeque<Proposed>,
    pub(super) deferred: VecDeque<(Index, Deferred)>,
    pub(super) purges: Vec<(QueueId, oneshot::Sender<Result<Purged, AdminRefusal>>)>,
    /// Entries carry a wall clock that never goes back within a leadership.
    pub(super) last_arrival_ms: u64,
    /// An entry without commands is due, so that the histories of an idle partition grow old.
    pub(super) ageing_due: bool,
    /// When the last entry was proposed.
    pub(super) last_proposal: Instant,

    pub(super) delivering: bool,
    /// The node was told to stop.
    pub(super) stopping: bool,
    /// Since when this node leads.
    pub(super) leads_since: Option<Instant>,
    /// The node is stopping and hands its leaderships over; told when this one is.
    pub(super) handing_over: Option<(Instant, oneshot::Sender<()>)>,
    /// Told when nothing is unconfirmed any more; set while the node is stopping.
    pub(super) idle: Option<oneshot::Sender<()>>,
    pub(super) checkpoint_waiting: Option<CheckpointBatch>,
    /// Entries whose messages are gone, kept in the log for members that may need them.
    pub(super) held_dead: Vec<Index>,
    pub(super) applied_since_checkpoint: u64,
    /// Payload bytes applied since the last checkpoint.
    pub(super) log_bytes: usize,

    // Reused from round to round.
    pub(super) applied: Applied,
    pub(super) deliveries: Deliveries,
    pub(super) publish_ack: Histogram,
    pub(super) end_to_end: Histogram,

    requests: mpsc::Receiver<Request>,
    events: StoreEvents,
    mailbox: Option<Mailbox>,
    signalled: mpsc::UnboundedReceiver<Signal>,
    status: watch::Sender<ReplicaStatus>,
    pub(super) stop: CancellationToken,
}

impl PartitionTask {
    pub(crate) fn new(parts: PartitionParts) -> Self {
        let (signals, signalled) = mpsc::unbounded_channel();
        let (links, mailbox) = parts.peers.unzip();
        let mut task = Self {
            replica: parts.replica,
            machine: parts.machine,
            reader: parts.reader,
            usage: parts.usage,
            metrics: parts.metrics,
            fatal: parts.fatal,
            signals,
            handles: FxHashMap::default(),
            queues: FxHashMap::default(),
            deleted: FxHashSet::default(),
            creating: FxHashSet::default(),
            links: Links::default(),
            builder: EntryBuilder::default(),
            puts: Vec::new(),
            waiting_puts: VecDeque::new(),
            confirms: Vec::new(),
            confirms_due: None,
            gateway: Gateway::new(links),
            reconciler: parts.reconciler,
            may_drop: false,
            collecting_since: None,
            under_way: VecDeque::new(),
            deferred: VecDeque::new(),
            purges: Vec::new(),
            last_arrival_ms: 0,
            ageing_due: false,
            last_proposal: Instant::now(),
            delivering: true,
            stopping: false,
            leads_since: None,
            handing_over: None,
            idle: None,
            checkpoint_waiting: None,
            held_dead: Vec::new(),
            applied_since_checkpoint: 0,
            log_bytes: 0,
            applied: Applied::default(),
            deliveries: Deliveries::default(),
            publish_ack: PUBLISH_ACK.histogram(&[]),
            end_to_end: END_TO_END.histogram(&[]),
            requests: parts.requests,
            events: parts.events,
            mailbox,
            signalled,
            status: parts.status,
            stop: parts.stop,
        };
        let known: Vec<QueueId> = task.machine.queue_ids().collect();
        known.into_iter().for_each(|queue| task.enter_queue(queue));
        task.report_usage();
        task
    }

    /// Runs until stopped; leaves a checkpoint behind. A failure stops the node.
    pub(crate) async fn run(mut self) {
        if let Err(error) = self.serve().await {
            self.fatal.raise(error);
        }
    }

    /// The group.
    pub(super) fn group(&self) -> GroupId {
        self.replica.group()
    }

    /// Whether one more entry may be under way.
    pub(super) fn may_propose(&self) -> bool {
        self.replica.is_serving()
            && !self.replica.is_transferring()
            && self.replica.under_way() < MAX_UNDER_WAY
            && self.replica.bytes_under_way() < MAX_BYTES_UNDER_WAY
    }

    /// Whether confirmations wait for something that may come, here or at a leader elsewhere.
    fn confirms_may_go(&self) -> bool {
        self.confirms_due.is_some() && (self.may_propose() || !self.machine.is_leading())
    }

    /// The index at which everything collected and proposed so far is applied.
    pub(super) fn after_everything(&self) -> Index {
        let last = self.replica.status().last_index;
        if self.builder.is_empty() { last } else { last + 1 }
    }

    /// Does it when everything collected and proposed so far is applied.
    pub(super) fn defer(&mut self, deferred: Deferred) {
        let index = self.after_everything();
        self.deferred.push_back((index, deferred));
        self.run_deferred(self.replica.applied().index);
    }

    async fn serve(&mut self) -> Result<(), ReplicaError> {
        self.replica.start()?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut more_to_deliver = false;
        loop {
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => self.replica.on_store(event)?,
                Some(said) = heard(self.mailbox.as_mut()) => self.on_peer(said)?,
                Some(signal) = self.signalled.recv() => self.on_signal(signal),
                Some(request) = self.requests.recv(), if self.takes_requests() => {
                    self.on_request(request);
                }
                _ = tick.tick() => self.on_tick()?,
                () = self.reconciler.due() => self.reconciler.step(&mut self.replica)?,
                () = at(self.confirms_due), if self.confirms_may_go() => {}
                () = self.replica.deadline() => self.replica.on_deadline()?,
                () = self.stop.cancelled(), if self.is_settled() => {
                    if self.checkpoint()? {
                        return Ok(());
                    }
                    tokio::task::yield_now().await;
                }
                () = tokio::task::yield_now(), if more_to_deliver => {}
            }
            self.take_waiting()?;
            self.take_up_replaced()?;
            self.apply_committed()?;
            self.follow_leadership();
            self.propose()?;
            self.send_due_confirms();
            more_to_deliver = self.deliver();
            self.flush();
            self.checkpoint_if_large()?;
            self.go_on_handing_over()?;
            self.let_sessions_go();
            self.tell_if_idle();
            self.present_status().publish(&self.status);
        }
    }

    /// Takes everything else that is there already, so that it shares an entry and an event.
    fn take_waiting(&mut self) -> Result<(), ReplicaError> {
        while let Ok(event) = self.events.try_recv() {
            self.replica.on_store(event)?;
        }
        for _ in 0..MAX_REQUESTS_PER_ROUND {
            let Some(Ok(said)) = self.mailbox.as_mut().map(mpsc::Receiver::try_recv) else { break };
            self.on_peer(said)?;
        }
        while let Ok(signal) = self.signalled.try_recv() {
            self.on_signal(signal);
        }
        for _ in 0..MAX_REQUESTS_PER_ROUND {
            if !self.takes_requests() {
                break;
            }
            let Ok(request) = self.requests.try_recv() else { break };
            self.on_request(request);
        }
        Ok(())
    }

    fn takes_requests(&self) -> bool {
        if !self.machine.is_leading() {
            return self.gateway.is_needed()
                && !self.replica.is_serving()
                && self.gateway_has_room();
        }
        self.waiting_puts.is_empty() && self.builder.bytes() < MAX_ENTRY_BYTES
    }

    /// Nothing is collected, under way or asked for. What another node leads is its business, and
    /// what is under way while the others are gone is decided when they are back.
    fn is_settled(&self) -> bool {
        if self.is_cut_off() {
            return true;
        }
        let leads = self.machine.is_leading();
        self.builder.is_empty()
            && (!leads || self.replica.under_way() == 0)
            && self.requests.is_empty()
    }

    fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Resume(session) => self.resume(session),
            Signal::Loaded(index, loaded) => self.on_loaded(index, loaded),
            Signal::EntryRead(index, read) => self.on_entry_read(index, read),
            Signal::GatewayRoom => self.on_gateway_room(),
            Signal::Answer(to, number, result) => {
                if self.machine.is_leading() {
                    self.tell_answer(to, number, result);
                }
            }
        }
    }

    fn on_peer(&mut self, said: FromPeer) -> Result<(), ReplicaError> {
        match said {
            FromPeer::Message(message) => self.replica.on_message(*message),
            FromPeer::Gateway { from, frame } => {
                self.on_gateway(from, frame);
                Ok(())
            }
            FromPeer::Up { peer, restarted } => {
                self.reconciler.note(peer, true);
                self.replica.on_peer(Input::PeerUp { peer, restarted })?;
                // Not while it only has not noticed yet that another one leads.
                if self.machine.is_leading() && self.replica.is_serving() {
                    self.invite(Some(peer));
                }
                Ok(())
            }
            FromPeer::Down { peer } => {
                self.reconciler.note(peer, false);
                self.forget_leader(peer);
                self.drop_gateway(peer);
                self.replica.on_peer(Input::PeerDown { peer })
            }
        }
    }

    fn on_request(&mut self, request: Request) {
        if !self.machine.is_leading() {
            return self.hand_on(request);
        }
        match request {
            Request::Publish(publish) => self.on_publish(publish),
            Request::Confirm(confirms) => self.on_confirm(confirms),
            Request::Open(open) => self.on_open(open),
            Request::Configure(configure) => self.on_configure(*configure),
            Request::Close(close) => self.on_close(close),
            Request::SessionEnded(ended) => self.on_session_ended(ended),
            Request::UpdateQueue { queue, settings } => self.on_update(queue, &settings),
            Request::Purge { queue, done } => self.on_purge(queue, done),
            Request::Delete { queue, only_if, done } => self.on_delete(queue, only_if, done),
            Request::View { queue, done } => {
                let _gone = done.send(self.view(queue));
            }
            Request::ViewAll { done } => {
                let _gone = done.send(self.view_all());
            }
            Request::Peek { queue, count, done } => self.peek(queue, count, done),
            Request::Settled { done } => self.defer(Deferred::Settled(done)),
            Request::IdleQueues { timeout, done } => {
                let _gone = done.send(self.idle_queues(timeout));
            }
            Request::StopDelivery { idle } => self.on_stop_delivery(idle),
        }
    }
}

async fn at(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due.into()).await;
    }
}
