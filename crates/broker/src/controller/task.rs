//! The task that owns the controller group: it puts metadata changes into the log and applies what
//! is decided.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flintmq_consensus::{EntryKind, Index, Input, LogPosition, NodeId};
use flintmq_controller::{
    AppliedChange, LoggedChange, MetadataCommand, Refusal, Seen, encode_entry,
};
use flintmq_storage::{AppendKind, CheckpointBatch};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{ControllerError, ControllerRequest, Metadata, MetadataState, Roster};
use crate::cluster::{FromPeer, Mailbox, PeerLinks, heard};
use crate::fatal::FatalSignal;
use crate::replica::{NotProposed, Reconciler, Replica, ReplicaError, ReplicaStatus, StoreEvents};

/// Applied entries after which the metadata are checkpointed, so that a restart replays few.
const CHECKPOINT_EVERY: usize = 256;

/// How long a change waits for a leader.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a change is handed on while no leader takes it.
const RETRY: Duration = Duration::from_millis(20);

/// How often it is looked whether the group has the members that it should have.
const LOOK: Duration = Duration::from_millis(500);

/// What controllers of different nodes say to each other.
#[derive(Serialize, Deserialize)]
enum Said {
    /// To the leader: make this change.
    Change { number: u64, commands: Vec<MetadataCommand> },
    /// From the leader: it is decided with this entry, or it does not lead.
    Decided {
        number: u64,
        at: Option<Index>,
        #[serde(default)]
        refusal: Option<Refusal>,
    },
}

/// Who waits for an entry of the log.
enum Waiting {
    Here(Change),
    Node(NodeId, u64),
}

/// A change of this node that is handed on to a leader elsewhere.
struct HandedOn {
    change: Change,
    since: Instant,
    /// Whom it was given to, when.
    given: Option<(NodeId, Instant)>,
}

/// Where a change is answered.
type Done = oneshot::Sender<Result<(), ControllerError>>;

/// A change to be made, answered when it is decided and applied.
pub(crate) struct Change {
    pub(crate) commands: Vec<MetadataCommand>,
    pub(crate) done: Done,
}

/// Everything the controller's task is made of.
pub(crate) struct ControllerParts {
    pub(crate) replica: Replica,
    pub(crate) state: MetadataState,
    pub(crate) metadata: Arc<RwLock<Metadata>>,
    pub(crate) roster: watch::Sender<Arc<Roster>>,
    pub(crate) in_reach: watch::Sender<BTreeSet<NodeId>>,
    pub(crate) reconciler: Reconciler,
    pub(crate) status: watch::Sender<ReplicaStatus>,
    pub(crate) requests: mpsc::Receiver<ControllerRequest>,
    pub(crate) events: StoreEvents,
    /// The way to other nodes and what comes from them; none for a cluster of one.
    pub(crate) peers: Option<(PeerLinks, Mailbox)>,
    pub(crate) fatal: FatalSignal,
    pub(crate) stop: CancellationToken,
}

pub(crate) struct ControllerTask {
    replica: Replica,
    state: MetadataState,
    /// What the node looks at: a copy of the state's.
    metadata: Arc<RwLock<Metadata>>,
    roster: watch::Sender<Arc<Roster>>,
    /// This node, and the others that can be reached.
    in_reach: watch::Sender<BTreeSet<NodeId>>,
    reconciler: Reconciler,
    status: watch::Sender<ReplicaStatus>,
    requests: mpsc::Receiver<ControllerRequest>,
    events: StoreEvents,
    peers: Option<(PeerLinks, Mailbox)>,
    fatal: FatalSignal,
    stop: CancellationToken,
    under_way: VecDeque<(Index, Waiting)>,
    handed_on: BTreeMap<u64, HandedOn>,
    /// Decided elsewhere, to be answered once applied here.
    decided: Vec<(Index, Option<Refusal>, Done)>,
    next_number: u64,
    leads: bool,
    /// Entries that nothing here needs any more: the metadata have them.
    applied: Vec<Index>,
    /// How many were applied since the last checkpoint.
    since_checkpoint: usize,
}

impl ControllerTask {
    pub(crate) fn new(parts: ControllerParts) -> Self {
        Self {
            replica: parts.replica,
            state: parts.state,
            metadata: parts.metadata,
            roster: parts.roster,
            in_reach: parts.in_reach,
            reconciler: parts.reconciler,
            status: parts.status,
            requests: parts.requests,
            events: parts.events,
            peers: parts.peers,
            fatal: parts.fatal,
            stop: parts.stop,
            under_way: VecDeque::new(),
            handed_on: BTreeMap::new(),
            decided: Vec::new(),
            next_number: 0,
            leads: false,
            applied: Vec::new(),
            since_checkpoint: 0,
        }
    }

    /// Runs until stopped; leaves a checkpoint behind.
    pub(crate) async fn run(mut self) {
        if let Err(error) = self.serve().await {
            self.fatal.raise(error);
        }
    }

    async fn serve(&mut self) -> Result<(), ReplicaError> {
        self.replica.start()?;
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => self.replica.on_store(event)?,
                Some(said) = heard(self.peers.as_mut().map(|(_, mailbox)| mailbox)) => self.on_peer(said)?,
                Some(request) = self.requests.recv(), if self.takes_changes() => match request {
                    ControllerRequest::Change(change) if self.replica.is_serving() => {
                        self.propose(change)?;
                    }
                    ControllerRequest::Change(change) => self.hand_on(change),
                    ControllerRequest::CatchUp { done } => {
                        let _gone = done.send(Ok(()));
                    }
                },
                () = tokio::time::sleep(RETRY), if !self.handed_on.is_empty() => {}
                () = self.replica.deadline() => self.replica.on_deadline()?,
                _ = look.tick(), if self.peers.is_some() => {
                    self.reconciler.step(&mut self.replica)?;
                }
                () = self.stop.cancelled(), if self.is_settled() => {
                    // The others need not wait until they miss this node.
                    self.replica.cede()?;
                    self.checkpoint()?;
                    return Ok(());
                }
            }
            self.take_up_replaced()?;
            self.apply()?;
            self.tell_roster()?;
            self.follow_leadership()?;
            self.give();
            self.replica.status().publish(&self.status);
        }
    }

    fn note(&mut self, peer: NodeId, is_up: bool) {
        self.reconciler.note(peer, is_up);
        let there = self.reconciler.in_reach().chain([self.replica.node()]).collect();
        self.in_reach.send_replace(there);
    }

    /// Tells everybody when the nodes or their places have changed.
    fn tell_roster(&mut self) -> Result<(), ReplicaError> {
        let present = self.state.metadata().membership();
        if present.version() == self.roster.borrow().version() {
            return Ok(());
        }
        self.roster.send_replace(Arc::clone(present));
        // After a restart this node has to find the others before anything more is decided.
        self.checkpoint()
    }

    /// Nothing is under way that the members in reach can decide.
    fn is_settled(&self) -> bool {
        self.under_way.is_empty() || !self.replica.is_quorum_in_reach()
    }

    fn takes_changes(&self) -> bool {
        self.replica.is_serving() || self.peers.is_some()
    }

    /// When this node begins to lead, what it handed on it decides itself. When it ceases to, what
    /// was under way has an unknown outcome, and is made again: changes may be made twice.
    fn follow_leadership(&mut self) -> Result<(), ReplicaError> {
        let serves = self.replica.is_serving();
        if serves && !self.leads {
            for (_, handed_on) in std::mem::take(&mut self.handed_on) {
                self.propose(handed_on.change)?;
            }
        }
        if !serves && self.leads {
            for (_, waiting) in std::mem::take(&mut self.under_way) {
                match waiting {
                    Waiting::Here(change) => self.hand_on(change),
                    Waiting::Node(node, number) => {
                        self.tell(node, &Said::Decided { number, at: None, refusal: None })
                    }
                }
            }
        }
        self.leads = serves;
        Ok(())
    }

    fn hand_on(&mut self, change: Change) {
        self.next_number += 1;
        let handed_on = HandedOn { change, since: Instant::now(), given: None };
        self.handed_on.insert(self.next_number, handed_on);
    }

    /// Gives the leader what it has not got yet.
    fn give(&mut self) {
        let leader = self.replica.leader();
        let mut words = Vec::new();
        let mut late = Vec::new();
        for (number, handed_on) in &mut self.handed_on {
            if handed_on.since.elapsed() > PATIENCE || handed_on.change.done.is_closed() {
                late.push(*number);
                continue;
            }
            let Some(leader) = leader else { continue };
            let lately = |(to, at): &(NodeId, Instant)| {
                *to == leader && at.elapsed() < Duration::from_secs(2)
            };
            if !handed_on.given.as_ref().is_some_and(lately) {
                handed_on.given = Some((leader, Instant::now()));
                let commands = handed_on.change.commands.clone();
                words.push((leader, Said::Change { number: *number, commands }));
            }
        }
        for (to, word) in words {
            self.tell(to, &word);
        }
        for number in late {
            if let Some(handed_on) = self.handed_on.remove(&number) {
                let _gone = handed_on.change.done.send(Err(ControllerError::NotReady));
            }
        }
    }

    fn tell(&self, to: NodeId, said: &Said) {
        if let (Some((links, _)), Ok(said)) = (&self.peers, serde_json::to_vec(said)) {
            // What gets lost is asked for again.
            let _not_sent = links.send_gateway(to, self.replica.group(), Bytes::from(said));
        }
    }

    fn on_peer(&mut self, said: FromPeer) -> Result<(), ReplicaError> {
        match said {
            FromPeer::Message(message) => self.replica.on_message(*message),
            FromPeer::Up { peer, restarted } => {
                self.note(peer, true);
                self.replica.on_peer(Input::PeerUp { peer, restarted })
            }
            FromPeer::Down { peer } => {
                self.note(peer, false);
                self.replica.on_peer(Input::PeerDown { peer })
            }
            FromPeer::Gateway { from, frame } => match serde_json::from_slice(&frame) {
                Ok(said) => self.on_said(from, said),
                Err(error) => {
                    tracing::warn!(from = from.0, %error, "a frame cannot be read");
                    Ok(())
                }
            },
        }
    }

    fn on_said(&mut self, from: NodeId, said: Said) -> Result<(), ReplicaError> {
        match said {
            Said::Change { number, commands } => {
                let at = match encoded(commands) {
                    Ok(payload) if self.replica.is_serving() => {
                        self.replica.propose(payload, AppendKind::Relief)?.ok()
                    }
                    _ => None,
                };
                match at {
                    Some(index) => {
                        self.under_way.push_back((index, Waiting::Node(from, number)));
                    }
                    None => {
                        self.tell(from, &Said::Decided { number, at: None, refusal: None });
                    }
                }
            }
            Said::Decided { number, at: Some(index), refusal } => {
                if let Some(handed_on) = self.handed_on.remove(&number) {
                    self.decided.push((index, refusal, handed_on.change.done));
                }
            }
            Said::Decided { number, at: None, .. } => {
                if let Some(handed_on) = self.handed_on.get_mut(&number) {
                    handed_on.given = None;
                }
            }
        }
        Ok(())
    }

    fn take_up_replaced(&mut self) -> Result<(), ReplicaError> {
        let Some(records) = self.replica.take_replaced()? else { return Ok(()) };
        self.applied.clear();
        match MetadataState::restore(records) {
            Ok(state) => {
                self.state = state;
                self.publish();
            }
            Err(error) => self.fatal.raise(error),
        }
        Ok(())
    }

    fn publish(&self) {
        let present = self.state.metadata().clone();
        *self.metadata.write().unwrap_or_else(std::sync::PoisonError::into_inner) = present;
    }

    fn propose(&mut self, change: Change) -> Result<(), ReplicaError> {
        let payload = match encoded(change.commands.clone()) {
            Ok(payload) => payload,
            Err(error) => {
                let _gone = change.done.send(Err(ControllerError::Encoding(error.to_string())));
                return Ok(());
            }
        };
        match self.replica.propose(payload, AppendKind::Relief)? {
            Ok(index) => self.under_way.push_back((index, Waiting::Here(change))),
            Err(NotProposed::NotLeader | NotProposed::WindowFull) => {
                let _gone = change.done.send(Err(ControllerError::NotReady));
            }
        }
        Ok(())
    }

    fn apply(&mut self) -> Result<(), ReplicaError> {
        while let Some(entry) = self.replica.next_committed() {
            let mut refusal = None;
            match entry.kind {
                EntryKind::Barrier => {}
                EntryKind::Commands => {
                    // The term is not known here.
                    let position = LogPosition { term: 0, index: entry.index };
                    match self.state.apply(position, &entry.payload) {
                        Ok(applied) => refusal = first_refusal(applied),
                        // Written by this program and checked by the store: a newer version's
                        // entry, or a bug.
                        Err(error) => self.fatal.raise(error),
                    }
                    self.publish();
                }
                EntryKind::Sequenced(_) => return Err(entry.not_known(self.replica.group())),
            }
            self.applied.push(entry.index);
            self.since_checkpoint += 1;
            while self.under_way.front().is_some_and(|(index, _)| *index <= entry.index) {
                match self.under_way.pop_front() {
                    Some((_, Waiting::Here(change))) => {
                        let _gone = change.done.send(outcome(refusal.clone()));
                    }
                    Some((at, Waiting::Node(node, number))) => {
                        let (at, refusal) = (Some(at), refusal.clone());
                        self.tell(node, &Said::Decided { number, at, refusal });
                    }
                    None => {}
                }
            }
        }
        let applied = self.replica.applied().index;
        for (index, refusal, done) in std::mem::take(&mut self.decided) {
            if index <= applied {
                let _gone = done.send(outcome(refusal));
            } else {
                self.decided.push((index, refusal, done));
            }
        }
        if self.since_checkpoint >= CHECKPOINT_EVERY {
            self.checkpoint()?;
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), ReplicaError> {
        if self.since_checkpoint == 0 {
            return Ok(());
        }
        self.since_checkpoint = 0;
        let (puts, deletes) = self.state.take_changes();
        let limit = self.replica.compaction_limit();
        let dead_entries = self.applied.extract_if(.., |index| *index <= limit).collect();
        let applied = self.replica.applied();
        let batch = CheckpointBatch { applied, puts, deletes, dead_entries };
        if let Err(batch) = self.replica.checkpoint(batch)? {
            // No room in the writer's inbox: keep it all for the next time.
            self.since_checkpoint = self.applied.len() + batch.dead_entries.len();
            self.applied.extend(batch.dead_entries);
            self.state.put_back(&batch.puts, &batch.deletes);
        }
        Ok(())
    }
}

fn encoded(commands: Vec<MetadataCommand>) -> Result<Bytes, serde_json::Error> {
    encode_entry(&[LoggedChange { id: None, oldest: 0, commands }])
}

/// What did not fit, of an entry with one change.
fn first_refusal(applied: Vec<AppliedChange>) -> Option<Refusal> {
    applied.into_iter().find_map(|change| match change.outcome {
        Seen::Applied(outcome) => outcome.err(),
        Seen::New | Seen::Over => None,
    })
}

fn outcome(refusal: Option<Refusal>) -> Result<(), ControllerError> {
    refusal.map_or(Ok(()), |refusal| Err(refusal.into()))
}
