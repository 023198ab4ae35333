//! From PUTs and confirmations to a proposed entry. Batches come from load, never from a timer.

use std::time::Duration;

use bytes::Bytes;
use flintmq_consensus::{LogPosition, NodeId, Time};
use flintmq_protocol::ack::AckStatus;
use flintmq_protocol::guid::MessageGuid;
use flintmq_queue::{Admission, Attributes, DomainId, Guid, HandleId, Message, QueueId};
use flintmq_shard::{AppendKind, Group};

use super::Leader;
use super::applying::Deferred;
use crate::context::Context;
use crate::domain_usage::DomainFull;
use crate::effect::RejectReason;
use crate::peer_message::AttachmentId;
use crate::pending::PendingPut;
use crate::request::{Confirm, Publish};

/// Size from which an entry is not added to any more: no request is taken until it is proposed.
pub(crate) const MAX_ENTRY_BYTES: usize = 1 << 20;

/// Entries under way at a time. More would make entries smaller, not the log faster: the writer
/// takes all that waits.
pub(crate) const MAX_UNDER_WAY: usize = 3;

/// Bytes under way at which no more are proposed: large messages go one after the other.
const MAX_BYTES_UNDER_WAY: u64 = 16 << 20;

/// How long confirmations wait for a message to share its entry, and how many bytes of them do.
const CONFIRMS_WAIT: Duration = Duration::from_millis(5);
const CONFIRMS_BYTES: usize = 1024;

/// Messages that one entry lets expire at most.
const EXPIRE_AT_ONCE: u64 = 100_000;

/// Whom a PUT is answered to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client of this node; the number among what is pending.
    Here(u64),
    /// A client of another node; the number there.
    Node { node: NodeId, attachment: AttachmentId, number: u64 },
}

/// A PUT that waits for room in an entry.
pub(super) struct WaitingPut {
    pub(super) origin: Origin,
    /// Its place in [`Leader::taken`].
    pub(super) taken: u64,
    /// Of a client of another node.
    pub(super) remote: Option<RemotePut>,
}

/// A message of a client of another node.
pub(super) struct RemotePut {
    pub(super) queue: QueueId,
    pub(super) guid: MessageGuid,
    pub(super) attributes: Attributes,
    pub(super) app_data: Bytes,
}

/// A PUT in an entry: what its answer needs.
pub(super) struct Collected {
    pub(super) origin: Origin,
    pub(super) queue: QueueId,
    pub(super) bytes: usize,
}

/// What an entry has of a domain.
pub(super) struct TakenOfDomain {
    pub(super) domain: DomainId,
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

/// A proposed entry with the PUTs in it.
pub(super) struct Proposed {
    pub(super) position: LogPosition,
    pub(super) puts: Vec<Collected>,
    /// Which of `puts` each outcome belongs to.
    pub(super) order: Vec<u32>,
    /// The same by domain; one may be there several times.
    pub(super) of_domains: Vec<TakenOfDomain>,
    /// The last confirmation of a client of this node in it, or before it.
    pub(super) confirmed_upto: u64,
    /// When it is applied, everything taken up to this count is done.
    pub(super) done: u64,
    pub(super) since: Time,
}

/// An entry that is complete and was not taken by the log yet.
pub(super) struct Finished {
    payload: Bytes,
    kind: AppendKind,
    /// Its position is known once it is taken.
    proposed: Proposed,
}

impl Leader {
    /// Takes the messages of one read of a session.
    pub(crate) fn on_publish(&mut self, cx: &mut Context, group: &dyn Group, publish: Publish) {
        let session = publish.session;
        for put in publish.puts {
            let number = cx.pending.puts.push(PendingPut { session, put });
            self.take_local_put(number);
        }
        self.fill_entry(cx, group);
    }

    pub(super) fn take_local_put(&mut self, number: u64) {
        self.taken += 1;
        let (origin, taken) = (Origin::Here(number), self.taken);
        self.waiting.push_back(WaitingPut { origin, taken, remote: None });
    }

    /// Moves PUTs into the entry that is being collected as long as it stays small. One message may
    /// make an entry of its own, whatever its size.
    pub(super) fn fill_entry(&mut self, cx: &mut Context, group: &dyn Group) {
        if self.waiting.is_empty() {
            return;
        }
        let disk_low = group.is_disk_low();
        let now = group.now();
        while let Some(waiting) = self.waiting.pop_front() {
            let size = match (&waiting.remote, waiting.origin) {
                (Some(remote), _) => remote.app_data.len(),
                (None, Origin::Here(number)) => {
                    cx.pending.puts.get(number).map_or(0, |pending| pending.put.app_data.len())
                }
                (None, Origin::Node { .. }) => 0,
            };
            if self.builder.bytes() + size > MAX_ENTRY_BYTES && !self.builder.is_empty() {
                self.waiting.push_front(waiting);
                return;
            }
            self.take_put(cx, waiting, disk_low, now);
        }
    }

    fn take_put(&mut self, cx: &mut Context, waiting: WaitingPut, disk_low: bool, now: Time) {
        let origin = waiting.origin;
        let put = match (waiting.remote, origin) {
            (Some(remote), _) => remote,
            (None, Origin::Here(number)) => {
                let Some(pending) = cx.pending.puts.get(number) else { return };
                RemotePut {
                    queue: pending.put.queue,
                    guid: pending.put.guid,
                    attributes: pending.put.attributes,
                    app_data: pending.put.app_data.clone(),
                }
            }
            (None, Origin::Node { .. }) => return,
        };
        let queue = put.queue;
        if disk_low {
            let reason = Some(RejectReason::Storage);
            return self.answer_put(cx, origin, queue, AckStatus::StorageFailure, reason);
        }
        let (guid, bytes) = (Guid(put.guid.0), put.app_data.len());
        let (admission, domain) = admit(cx, queue, guid, bytes);
        let (status, reason) = match admission {
            Admission::Admit => {
                let message = Message { guid, attributes: put.attributes, app_data: put.app_data };
                match self.builder.publish(queue, message) {
                    Ok(()) => {
                        self.collecting_since.get_or_insert(now);
                        if let Some(domain) = domain {
                            self.note_taken(domain, bytes as u64);
                        }
                        return self.collected.push(Collected { origin, queue, bytes });
                    }
                    Err(_) => {
                        if let Some(domain) = domain {
                            cx.usage.arrived(domain, 1, bytes as u64);
                        }
                        (AckStatus::Unknown, Some(RejectReason::Invalid))
                    }
                }
            }
            Admission::Duplicate => {
                cx.queues.count(queue, |counts| counts.duplicates += 1);
                (AckStatus::Success, None)
            }
            Admission::RefusedMessages => {
                (AckStatus::LimitMessages, Some(RejectReason::LimitMessages))
            }
            Admission::RefusedBytes => (AckStatus::LimitBytes, Some(RejectReason::LimitBytes)),
            Admission::UnknownQueue => (AckStatus::Unknown, Some(RejectReason::Invalid)),
        };
        self.answer_put(cx, origin, queue, status, reason);
    }

    fn note_taken(&mut self, domain: DomainId, bytes: u64) {
        match self.of_domains.last_mut().filter(|last| last.domain == domain) {
            Some(last) => {
                last.messages += 1;
                last.bytes += bytes;
            }
            None => self.of_domains.push(TakenOfDomain { domain, messages: 1, bytes }),
        }
    }

    /// Answers a PUT to whom it came from.
    pub(super) fn answer_put(
        &mut self,
        cx: &mut Context,
        origin: Origin,
        queue: QueueId,
        status: AckStatus,
        rejected: Option<RejectReason>,
    ) {
        match origin {
            Origin::Here(number) => cx.answer_put(number, status, rejected),
            Origin::Node { node, attachment, number } => {
                if let Some(reason) = rejected {
                    cx.queues.rejected(queue, reason);
                }
                self.ack_remote(node, attachment, number, status);
            }
        }
    }

    /// Takes confirmations: the consumer has room again at once, the message goes when the
    /// confirmation is committed.
    pub(crate) fn on_confirm(
        &mut self,
        cx: &mut Context,
        group: &dyn Group,
        confirms: Vec<Confirm>,
    ) {
        if !group.is_clustered() {
            for confirm in confirms {
                self.take_confirm(cx, confirm.handle, confirm.guid);
            }
            return;
        }
        let confirms = cx.admit_confirms(confirms);
        let taken: Vec<_> = confirms
            .into_iter()
            .filter(|(handle, guid)| self.take_confirm(cx, *handle, *guid))
            .collect();
        if !taken.is_empty() {
            self.confirmed_upto = cx.pending.add_confirms(taken.into_iter());
        }
    }

    /// Puts a confirmation into the entry; false for one that confirms nothing.
    pub(super) fn take_confirm(
        &mut self,
        cx: &mut Context,
        handle: HandleId,
        guid: MessageGuid,
    ) -> bool {
        let Some(item) = cx.machine.confirm(handle, Guid(guid.0)) else { return false };
        cx.queues.count(item.queue, |counts| counts.confirmed += 1);
        self.builder.confirm(item);
        self.taken += 1;
        true
    }

    /// Proposes the end of messages that outlived their time to live. A node whose clock
    /// contradicts the others' lets nothing expire.
    pub(super) fn expire(&mut self, cx: &mut Context, group: &dyn Group) {
        if !group.is_clock_trusted() {
            return;
        }
        let now = group.wall_ms();
        if cx.machine.next_expiry().is_some_and(|due| due <= now) {
            for item in cx.machine.expire(now, EXPIRE_AT_ONCE) {
                self.builder.expire(item);
                self.taken += 1;
            }
        }
    }

    /// The next entry is proposed although nothing is in it: it carries the time.
    pub(crate) fn age(&mut self, now: Time, after: Duration) {
        self.ageing_due = now.since(self.last_proposal) >= after;
    }

    /// Proposes what was collected, as one entry unless it is large. While enough entries are under
    /// way it grows on.
    pub(super) fn propose(&mut self, cx: &mut Context, group: &mut dyn Group) {
        if self.may_propose(group) {
            self.propose_finished(group);
        }
        let ageing = std::mem::take(&mut self.ageing_due);
        if ageing && self.is_empty() && self.may_propose(group) {
            self.propose_entry(group);
        }
        self.blocked = self.finished.is_some();
        if self.blocked || self.confirms_may_wait(cx, group.now()) {
            return;
        }
        while self.finished.is_none() && !self.builder.is_empty() && self.may_propose(group) {
            self.confirms_due = None;
            self.propose_entry(group);
            self.fill_entry(cx, group);
        }
        self.blocked = !self.is_empty();
    }

    /// Whether nothing waits to be proposed, beside PUTs that wait for room.
    pub(super) fn is_empty(&self) -> bool {
        self.builder.is_empty() && self.finished.is_none()
    }

    /// Whether nothing that was taken is still to be proposed.
    pub(super) fn has_nothing_collected(&self) -> bool {
        self.is_empty() && self.waiting.is_empty()
    }

    /// Whether nothing that was taken is still to be proposed or to be applied.
    pub(super) fn has_nothing_under_way(&self) -> bool {
        self.has_nothing_collected() && self.under_way.is_empty()
    }

    /// Whether one more entry may be under way.
    fn may_propose(&self, group: &dyn Group) -> bool {
        group.takes_proposals()
            && group.under_way() < MAX_UNDER_WAY
            && group.bytes_under_way() < MAX_BYTES_UNDER_WAY
    }

    /// Nobody waits for a confirmation to be committed, so it waits a moment for a message whose
    /// entry it can share: an entry of its own costs as much as the message did.
    fn confirms_may_wait(&mut self, cx: &Context, now: Time) -> bool {
        let waited_for =
            |(_, deferred): &(u64, Deferred)| !matches!(deferred, Deferred::Confirmed { .. });
        if !self.builder.is_only_confirms()
            || self.builder.bytes() >= CONFIRMS_BYTES
            || cx.stopping
            || self.deferred.iter().any(waited_for)
        {
            self.confirms_due = None;
            return false;
        }
        now < *self.confirms_due.get_or_insert(now + CONFIRMS_WAIT)
    }

    fn propose_entry(&mut self, group: &mut dyn Group) {
        let now = group.now();
        self.last_proposal = now;
        let kind =
            if self.builder.messages() > 0 { AppendKind::Growing } else { AppendKind::Relief };
        self.last_arrival_ms = self.last_arrival_ms.max(group.wall_ms());
        let built = self.builder.finish(self.last_arrival_ms);
        let puts = std::mem::take(&mut self.collected);
        let proposed = Proposed {
            position: LogPosition::default(),
            puts,
            order: built.publish_order,
            of_domains: std::mem::take(&mut self.of_domains),
            confirmed_upto: self.confirmed_upto,
            done: self.waiting.front().map_or(self.taken, |next| next.taken - 1),
            since: self.collecting_since.take().unwrap_or(now),
        };
        self.finished = Some(Finished { payload: built.payload, kind, proposed });
        self.propose_finished(group);
    }

    /// Proposes the entry that is complete. The log may refuse it although little is under way: it
    /// waits for the own disk. Nothing in it may get lost.
    fn propose_finished(&mut self, group: &mut dyn Group) {
        let Some(finished) = self.finished.take() else { return };
        match group.propose(finished.payload.clone(), finished.kind) {
            Ok(position) => self.under_way.push_back(Proposed { position, ..finished.proposed }),
            Err(not_proposed) => {
                tracing::debug!(group = group.id().0, ?not_proposed, "an entry waits for the log");
                self.finished = Some(finished);
            }
        }
    }
}

/// What is known before the log decides: this partition's state, and what its domain holds in all
/// partitions. With the domain on which an admitted message counts from now on.
fn admit(
    cx: &mut Context,
    queue: QueueId,
    guid: Guid,
    bytes: usize,
) -> (Admission, Option<DomainId>) {
    let here = cx.machine.admit(queue, guid, bytes);
    if here != Admission::Admit {
        return (here, None);
    }
    let Some((domain, limits)) = cx.machine.domain_limits(queue) else { return (here, None) };
    match cx.usage.take(domain, limits, bytes as u64) {
        Ok(()) => (Admission::Admit, Some(domain)),
        Err(DomainFull::Messages) => (Admission::RefusedMessages, None),
        Err(DomainFull::Bytes) => (Admission::RefusedBytes, None),
    }
}
