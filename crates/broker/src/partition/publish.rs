//! From PUTs to a proposed entry.

use std::time::Instant;

use flintmq_consensus::Index;
use flintmq_protocol::ack::{AckMessage, AckStatus};
use flintmq_protocol::guid::MessageGuid;
use flintmq_queue::{Admission, Guid, HandleId, Message, Outcome};
use flintmq_storage::{AppendKind, DiskState};

use super::clock::wall_clock_ms;
use super::requests::{Confirm, HandleRole, Publish, Put};
use super::task::{MAX_ENTRY_BYTES, PartitionTask};
use crate::domain_usage::DomainFull;
use crate::link::SessionId;
use crate::metrics::RejectReason;
use crate::replica::{NotProposed, ReplicaError};

/// A PUT whose entry is under way: what its answer needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingPut {
    session: SessionId,
    handle: HandleId,
    guid: MessageGuid,
    correlation_id: u32,
    ack_requested: bool,
    bytes: usize,
}

/// A proposed entry with the PUTs in it.
pub(super) struct Proposed {
    pub(super) index: Index,
    pub(super) puts: Vec<PendingPut>,
    /// Which of `puts` each outcome belongs to.
    pub(super) order: Vec<u32>,
    pub(super) since: Instant,
}

impl PartitionTask {
    /// Takes the messages of one read of a session.
    pub(super) fn on_publish(&mut self, publish: Publish) {
        let session = publish.session.id;
        self.waiting_puts.extend(publish.puts.into_iter().map(|put| (session, put)));
        self.fill_entry();
    }

    /// Moves PUTs into the entry that is being collected as long as it stays small. One message may
    /// make an entry of its own, whatever its size.
    fn fill_entry(&mut self) {
        let disk_low = self.replica.disk_state() != DiskState::Ok;
        while let Some((session, put)) = self.waiting_puts.pop_front() {
            let size = self.builder.bytes() + put.app_data.len();
            if size > MAX_ENTRY_BYTES && !self.builder.is_empty() {
                self.waiting_puts.push_front((session, put));
                return;
            }
            self.take_put(session, put, disk_low);
        }
    }

    /// Takes confirmations: the consumer has room again at once, the message goes when the
    /// confirmation is decided.
    pub(super) fn on_confirm(&mut self, confirms: Vec<Confirm>) {
        for confirm in confirms {
            if let Some(item) = self.machine.confirm(confirm.handle, Guid(confirm.guid.0)) {
                if let Some(queue) = self.queues.get(&item.queue) {
                    queue.series.confirmed(1);
                }
                self.builder.confirm(item);
            }
        }
    }

    /// Proposes what was collected, as one entry unless it is large. While enough entries are under
    /// way it grows on.
    pub(super) fn propose(&mut self) -> Result<(), ReplicaError> {
        let ageing = std::mem::take(&mut self.ageing_due);
        if ageing && self.builder.is_empty() && self.may_propose() {
            self.propose_entry()?;
        }
        while !self.builder.is_empty() && self.may_propose() {
            self.propose_entry()?;
            self.fill_entry();
        }
        Ok(())
    }

    fn propose_entry(&mut self) -> Result<(), ReplicaError> {
        self.last_proposal = Instant::now();
        let kind =
            if self.builder.messages() > 0 { AppendKind::Growing } else { AppendKind::Relief };
        self.last_arrival_ms = self.last_arrival_ms.max(wall_clock_ms());
        let built = self.builder.finish(self.last_arrival_ms);
        self.log_bytes += built.payload.len();
        let proposed = self.replica.propose(built.payload, kind)?;
        match proposed {
            Ok(index) => self.under_way.push_back(Proposed {
                index,
                puts: std::mem::take(&mut self.puts),
                order: built.publish_order,
                since: self.collecting_since.take().unwrap_or_else(Instant::now),
            }),
            Err(NotProposed::NotLeader | NotProposed::WindowFull) => {
                // `may_propose` has excluded these; were it wrong, the client must hear of it.
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
            if let (Some(queue), true) = (self.queue_of(put.handle), status == AckStatus::Success) {
                match outcome {
                    Outcome::Duplicate => queue.series.duplicates(1),
                    _ => queue.series.published(1, put.bytes as u64),
                }
            }
            self.answer(put, status, rejected);
        }
        self.publish_ack.record(proposed.since.elapsed().as_secs_f64());
    }

    fn take_put(&mut self, session: SessionId, put: Put, disk_low: bool) {
        let pending = PendingPut {
            session,
            handle: put.handle,
            guid: put.guid,
            correlation_id: put.correlation_id,
            ack_requested: put.ack_requested,
            bytes: put.app_data.len(),
        };
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
    fn answer(&mut self, put: &PendingPut, status: AckStatus, rejected: Option<RejectReason>) {
        self.links.answered(put.session, put.bytes);
        let Some(entry) = self.handles.get(&put.handle) else { return };
        let HandleRole::Writer { queue_id } = entry.role else { return };
        if let (Some(reason), Some(queue)) = (rejected, self.queues.get(&entry.queue)) {
            queue.series.rejected(reason, 1);
        }
        if status == AckStatus::Success && !put.ack_requested {
            return;
        }
        let ack =
            AckMessage { status, correlation_id: put.correlation_id, guid: put.guid, queue_id };
        self.links.ack(put.session, ack);
    }
}
