//! Purging and deleting queues, and new settings of domains, for administrators of this node and of
//! others.

use std::time::Duration;

use flintmq_consensus::Time;
use flintmq_queue::{Domain, DomainVersion, QueueId};
use flintmq_shard::Group;

use super::applying::Deferred;
use super::{Leader, Requester};
use crate::context::Context;
use crate::effect::{AdminRefusal, Answer, Purged};
use crate::request::Removable;

impl Leader {
    /// Drops all messages of a queue.
    pub(crate) fn on_purge(
        &mut self,
        cx: &mut Context,
        group: &mut dyn Group,
        requester: Requester,
        queue: QueueId,
    ) {
        // Behind a deletion that is under way nothing is left to be purged, and nothing tells of
        // it.
        if cx.machine.settings(queue).is_none() || cx.queues.was_deleted(queue) {
            return self.reply_purge(cx, group, requester, Err(AdminRefusal::NoSuchQueue));
        }
        self.builder.purge(queue, None);
        self.taken += 1;
        self.purges.push_back((queue, requester));
    }

    /// Deletes a queue, if it is what it must be for that, with everything applied that was taken
    /// before.
    pub(crate) fn on_delete(
        &mut self,
        cx: &mut Context,
        group: &mut dyn Group,
        requester: Requester,
        queue: QueueId,
        only_if: Removable,
    ) {
        let view = cx.machine.view(queue);
        let consumers: usize =
            view.iter().flat_map(|view| &view.apps).map(|app| app.consumers as usize).sum();
        let producers = view.map_or(0, |view| view.producers as usize);
        if self.creating.contains_key(&queue) {
            let in_use = AdminRefusal::InUse { consumers: 0, producers: 1 };
            self.reply_delete(cx, group, requester, Err(in_use));
        } else if cx.machine.settings(queue).is_none() {
            // Its place is given up: an open that comes late must ask for a new one.
            cx.queues.remember_deleted(group.now(), queue);
            self.reply_delete(cx, group, requester, Err(AdminRefusal::NoSuchQueue));
        } else if consumers + producers > 0 {
            let in_use = AdminRefusal::InUse { consumers, producers };
            self.reply_delete(cx, group, requester, Err(in_use));
        } else if only_if == Removable::Closed && !self.knows_all(group, false) {
            let why = "another node has not told yet what its clients have open: try again";
            self.reply_delete(cx, group, requester, Err(AdminRefusal::Failed(why.to_owned())));
        } else if let Removable::UnusedFor(timeout) = only_if
            && !self.is_unused_for(cx, group.now(), queue, timeout)
        {
            self.reply_delete(cx, group, requester, Err(AdminRefusal::Used));
        } else {
            // From now on no client gets in: an open that comes before the deletion is applied
            // would hold a queue that is about to vanish.
            cx.queues.remember_deleted(group.now(), queue);
            self.builder.delete_queue(queue);
            self.taken += 1;
            self.defer(Deferred::Deleted(queue, requester));
        }
    }

    /// Whether a queue is on its way out.
    pub(super) fn is_deleting(&self) -> bool {
        self.deferred.iter().any(|(_, deferred)| matches!(deferred, Deferred::Deleted(..)))
    }

    /// Puts the settings of a domain into the log, once per version, where queues of it are here.
    pub(crate) fn on_set_domain(
        &mut self,
        cx: &mut Context,
        group: &mut dyn Group,
        requester: Requester,
        domain: &Domain,
    ) {
        let Domain { id, version, settings } = domain;
        let is_news = match cx.machine.domain(*id) {
            Some((known, present)) if *version == DomainVersion::UNKNOWN => {
                known == *version && present != settings
            }
            Some((known, _)) => known < *version,
            // One that is on its way may have been opened under older settings.
            None => self.creating.values().any(|creating| creating == id),
        };
        if !is_news {
            self.answer_domain_set(cx, requester, Ok(()));
            return self.flush_forwarders(cx, group);
        }
        if self.setting.get(id).is_none_or(|under_way| under_way < version) {
            self.setting.insert(*id, *version);
            self.builder.set_domain(domain);
            self.taken += 1;
        }
        self.defer(Deferred::DomainSet { requester, domain: *id, version: *version });
    }

    /// Queues that have been empty and closed for this long, to the accuracy of a tick.
    pub(crate) fn idle_queues(&self, cx: &Context, now: Time, timeout: Duration) -> Vec<String> {
        let idle = cx.queues.ids().into_iter();
        let idle = idle.filter(|queue| self.is_unused_for(cx, now, *queue, timeout));
        idle.map(|queue| cx.queues.uri(queue).to_owned()).collect()
    }

    /// Whether a queue has been closed and empty for this long and is so now, with nothing of it
    /// under way. Never while nodes in reach, whose clients may have it open, have not attached.
    fn is_unused_for(&self, cx: &Context, now: Time, queue: QueueId, timeout: Duration) -> bool {
        let since = cx.queues.unused_since(queue);
        since.is_some_and(|since| now.since(since) >= timeout)
            && self.is_attended()
            && self.has_nothing_under_way()
            && cx.machine.view(queue).is_some_and(|view| view.messages == 0)
    }

    /// Answers a purge; another node's answer waits for the end of the turn.
    pub(super) fn answer_purge(
        &mut self,
        cx: &mut Context,
        requester: Requester,
        result: Result<Purged, AdminRefusal>,
    ) {
        match requester {
            Requester::Here(ticket) => cx.answer(ticket, Answer::Purged(result)),
            Requester::Node { node, attachment, number } => {
                self.keep_admin_answer(node, attachment, number, result);
            }
        }
    }

    /// Answers a deletion.
    pub(super) fn answer_delete(
        &mut self,
        cx: &mut Context,
        requester: Requester,
        result: Result<(), AdminRefusal>,
    ) {
        match requester {
            Requester::Here(ticket) => cx.answer(ticket, Answer::Deleted(result)),
            Requester::Node { node, attachment, number } => {
                let result = result.map(|()| Purged::default());
                self.keep_admin_answer(node, attachment, number, result);
            }
        }
    }

    /// Answers a change of a domain's settings; another node's answer waits for the end of the
    /// turn.
    pub(super) fn answer_domain_set(
        &mut self,
        cx: &mut Context,
        requester: Requester,
        result: Result<(), AdminRefusal>,
    ) {
        match requester {
            Requester::Here(ticket) => cx.answer(ticket, Answer::DomainSet(result)),
            Requester::Node { node, attachment, number } => {
                let result = result.map(|()| Purged::default());
                self.keep_admin_answer(node, attachment, number, result);
            }
        }
    }

    fn reply_purge(
        &mut self,
        cx: &mut Context,
        group: &mut dyn Group,
        requester: Requester,
        result: Result<Purged, AdminRefusal>,
    ) {
        self.answer_purge(cx, requester, result);
        self.flush_forwarders(cx, group);
    }

    fn reply_delete(
        &mut self,
        cx: &mut Context,
        group: &mut dyn Group,
        requester: Requester,
        result: Result<(), AdminRefusal>,
    ) {
        self.answer_delete(cx, requester, result);
        self.flush_forwarders(cx, group);
    }
}
