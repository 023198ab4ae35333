//! From PUTs to a proposed entry.

use std::time::{Duration, Instant};

use flintmq_consensus::{Index, NodeId};
use flintmq_protocol::ack::{AckMessage, AckStatus};
use flintmq_protocol::guid::MessageGuid;
use flintmq_queue::{Admission, Guid, HandleId, Message, Outcome, QueueId};
use flintmq_storage::{AppendKind, DiskState};

use super::clock::wall_clock_ms;
use super::requests::{Confirm, HandleRole, Publish, Put};
use super::task::{Deferred, HandleEntry, MAX_ENTRY_BYTES, Owner, PartitionTask};
use crate::domain_usage::DomainFull;
use crate::link::SessionId;
use crate::metrics::RejectReason;
use crate::replica::{NotProposed, ReplicaError};

/// How long confirmations wait for a message to share its entry, and how many bytes of them do.
const CONFIRMS_WAIT: Duration = Duration::from_millis(5);
const CONFIRMS_BYTES: usize = 1024;

/// Where a PUT came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client of this node.
    Session(SessionId),
    /// A client of another node.
    Node(NodeId),
}

/// A PUT whose entry is under way: what its answer needs.
pub(super) struct PendingPut {
    pub(super) origin: Origin,
    handle: HandleId,
    queue: QueueId,
    guid: MessageGuid,
    correlation_id: u32,
    ack_requested: bool,
    bytes: usize,
    /// The message itself, where another node may lead before it is decided.
    pub(super) kept: Option<Put>,
}

impl PendingPut {
    /// What is needed to answer this PUT; the message is not kept.
    pub(super) fn of(origin: Origin, put: &Put) -> Self {
        Self {
            origin,
            handle: put.handle,
            queue: put.queue,
            guid: put.guid,
            correlation_id: put.correlation_id,
            ack_requested: put.ack_requested,
            bytes: put.app_data.len(),
            kept: None,
        }
    }
}

/// A proposed entry with the PUTs in it.
pub(super) struct Proposed {
    pub(super) index: Index,
    pub(super) puts: Vec<PendingPut>,
    /// Confirmations of this node's clients in it.
    pub(super) confirms: Vec<(HandleId, MessageGuid)>,
    /// Which of `puts` each outcome belongs to.
    pub(super) order: Vec<u32>,
    pub(super) since: Instant,
}

impl PartitionTask {
    /// Takes the messages of one read of a session.
    pub(super) fn on_publish(&mut self, publish: Publish) {
        let origin = Origin::Session(publish.session.id);
        self.waiting_puts.extend(publish.puts.into_iter().map(|put| (origin, put)));
        self.fill_entry();
    }

    /// Moves PUTs into the entry that is being collected as long as it stays small. One message may
    /// make an entry of its own, whatever its size.
    pub(super) fn fill_entry(&mut self) {
        let disk_low = self.replica.disk_state() != DiskState::Ok;
        while let Some((origin, put)) = self.waiting_puts.pop_front() {
            let size = self.builder.bytes() + put.app_data.len();
            if size > MAX_ENTRY_BYTES && !self.builder.is_empty() {
                self.waiting_puts.push_front((origin, put));
                return;
            }
            self.take_put(origin, put, disk_low);
        }
    }

    /// Takes confirmations: the consumer has room again at once, the message goes when the
    /// confirmation is decided.
    pub(super) fn on_confirm(&mut self, confirms: Vec<Confirm>) {
        for confirm in confirms {
            if self.take_confirm(confirm.handle, confirm.guid) && self.gateway.is_needed() {
                self.confirms.push((confirm.handle, confirm.guid));
            }
        }
    }

    /// Puts a confirmation into the entry; false for one that confirms nothing.
    pub(super) fn take_confirm(&mut self, handle: HandleId, guid: MessageGuid) -> bool {
        let Some(item) = self.machine.confirm(handle, Guid(guid.0)) else { return false };
        if let Some(queue) = self.queues.get(&item.queue) {
            queue.series.confirmed(1);
        }
        self.builder.confirm(item);
        true
    }

    /// Proposes what was collected, as one entry unless it is large. While enough entries are under
    /// way it grows on.
    pub(super) fn propose(&mut self) -> Result<(), ReplicaError> {
        let ageing = std::mem::take(&mut self.ageing_due);
        if ageing && self.builder.is_empty() && self.may_propose() {
            self.propose_entry()?;
        }
        if self.confirms_may_wait() {
            return Ok(());
        }
        while !self.builder.is_empty() && self.may_propose() {
            self.confirms_due = None;
            self.propose_entry()?;
            self.fill_entry();
        }
        Ok(())
    }

    /// Nobody waits for a confirmation to be decided, so it waits a moment for a message whose
    /// entry it can share: an entry of its own costs as much as the message did.
    fn confirms_may_wait(&mut self) -> bool {
        let waited_for =
            |(_, deferred): &(Index, Deferred)| !matches!(deferred, Deferred::ConfirmedRemote(..));
        if !self.builder.is_only_confirms()
            || self.builder.bytes() >= CONFIRMS_BYTES
            || self.stop.is_cancelled()
            || self.deferred.iter().any(waited_for)
        {
            return false;
        }
        let now = Instant::now();
        now < *self.confirms_due.get_or_insert(now + CONFIRMS_WAIT)
    }

    fn propose_entry(&mut self) -> Result<(), ReplicaError> {
        self.last_proposal = Instant::now();
        let kind =
            if self.builder.messages() > 0 { AppendKind::Growing } else { AppendKind::Relief };
        self.last_arrival_ms = self.last_arrival_ms.max(wall_clock_ms());
        let built = self.builder.finish(self.last_arrival_ms);
        let proposed = self.replica.propose(built.payload, kind)?;
        match proposed {
            Ok(index) => self.under_way.push_back(Proposed {
                index,
                puts: std::mem::take(&mut self.puts),
                confirms: std::mem::take(&mut self.confirms),
                order: built.publish_order,
                since: self.collecting_since.take().unwrap_or_else(Instant::now),
            }),
            Err(NotProposed::NotLeader | NotProposed::WindowFull) => {
                // `may_propose` has excluded these; were it wrong, the client must hear of it.
                self.confirms.clear();
                for put in std::mem::take(&mut self.puts) {
                    self.answer(&put, AckStatus::NotReady, Some(RejectReason::Unavailable));
                }
            }
        }
        Ok(())
    }

    /// Answers the PUTs of an applied entry.
    pub(super) fn answer_outcomes(&mut self, proposed: &Proposed, outcomes: &[Outcome]) {
        for (outcome, put) in outcomes.iter().zip(&proposed.order) {
            let Some(put) = proposed.puts.get(*put as usize) else { continue };
            let (status, rejected) = match outcome {
                Outcome::Stored { .. } | Outcome::Duplicate => (AckStatus::Success, None),
                Outcome::RefusedMessages => {
                    (AckStatus::LimitMessages, Some(RejectReason::LimitMessages))
                }
                Outcome::RefusedBytes => (AckStatus::LimitBytes, Some(RejectReason::LimitBytes)),
                Outcome::UnknownQueue => (AckStatus::Unknown, Some(RejectReason::Invalid)),
            };
            if let (Some(queue), true) = (self.queues.get(&put.queue), status == AckStatus::Success)
            {
                match outcome {
                    Outcome::Duplicate => queue.series.duplicates(1),
                    _ => queue.series.published(1, put.bytes as u64),
                }
            }
            self.answer(put, status, rejected);
        }
        self.publish_ack.record(proposed.since.elapsed().as_secs_f64());
    }

    fn take_put(&mut self, origin: Origin, put: Put, disk_low: bool) {
        let keep = self.gateway.is_needed() && matches!(origin, Origin::Session(_));
        let kept = keep.then(|| put.clone());
        let pending = PendingPut { kept, ..PendingPut::of(origin, &put) };
        if disk_low {
            return self.answer(&pending, AckStatus::StorageFailure, Some(RejectReason::Storage));
        }
        let guid = Guid(put.guid.0);
        let (status, reason) = match self.admit(&put, guid) {
            Admission::Admit => {
                let message = Message { guid, attributes: put.attributes, app_data: put.app_data };
                match self.builder.publish(put.queue, message) {
                    Ok(()) => {
                        self.collecting_since.get_or_insert_with(Instant::now);
                        return self.puts.push(pending);
                    }
                    Err(_) => (AckStatus::Unknown, Some(RejectReason::Invalid)),
                }
            }
            Admission::Duplicate => {
                if let Some(queue) = self.queues.get(&put.queue) {
                    queue.series.duplicates(1);
                }
                (AckStatus::Success, None)
            }
            Admission::RefusedMessages => {
                (AckStatus::LimitMessages, Some(RejectReason::LimitMessages))
            }
            Admission::RefusedBytes => (AckStatus::LimitBytes, Some(RejectReason::LimitBytes)),
            Admission::UnknownQueue => (AckStatus::Unknown, Some(RejectReason::Invalid)),
        };
        self.answer(&pending, status, reason);
    }

    /// What is known before the log decides: this partition's state, and what its domain holds in
    /// all partitions.
    fn admit(&self, put: &Put, guid: Guid) -> Admission {
        let here = self.machine.admit(put.queue, guid, put.app_data.len());
        if here != Admission::Admit {
            return here;
        }
        let Some(settings) = self.machine.settings(put.queue) else { return here };
        match self.usage.check(settings.domain, settings.domain_limits) {
            Ok(()) => Admission::Admit,
            Err(DomainFull::Messages) => Admission::RefusedMessages,
            Err(DomainFull::Bytes) => Admission::RefusedBytes,
        }
    }

    /// Queues the answer to a PUT: success only if asked for, failure always, nothing for a queue
    /// that the client has closed: an answer then would crash it (protocol: data events, section
    /// 7).
    pub(super) fn answer(
        &mut self,
        put: &PendingPut,
        status: AckStatus,
        rejected: Option<RejectReason>,
    ) {
        if let (Some(reason), Some(queue)) = (rejected, self.queues.get(&put.queue)) {
            queue.series.rejected(reason, 1);
        }
        let session = match put.origin {
            Origin::Session(session) => session,
            Origin::Node(node) => return self.ack_remote(node, put.guid, status),
        };
        self.links.answered(session, put.bytes);
        let Some(HandleEntry { owner: Owner::Session(local), .. }) = self.handles.get(&put.handle)
        else {
            return;
        };
        let HandleRole::Writer { queue_id } = local.role else { return };
        if status == AckStatus::Success && !put.ack_requested {
            return;
        }
        let ack =
            AckMessage { status, correlation_id: put.correlation_id, guid: put.guid, queue_id };
        self.links.ack(session, ack);
    }
}
