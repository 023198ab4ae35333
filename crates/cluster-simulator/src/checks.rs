//! What must hold after every step: what leaves a node, against what is true.

use bytes::Bytes;
use flintmq_consensus::{GroupId, Index, NodeId};
use flintmq_partition::SessionId;
use flintmq_protocol::ack::{AckMessage, AckStatus};
use flintmq_protocol::flags::PushFlags;
use flintmq_protocol::push::PushMessage;
use flintmq_queue::{HandleId, Position, QueueId};

use crate::client::{Said, parse};
use crate::controller::ControllerNews;
use crate::coverage::Situation;
use crate::event::Event;
use crate::oracle::{News, Violation, key_of, violation};
use crate::world::World;

/// PUTs, confirmations and other things that one partition of a node may hold for its clients.
const MOST_PENDING: usize = 70_000;

/// For how long a leader may go on without a majority in reach, in microseconds: it has to notice
/// that, and gives the others time to come back.
const ALONE: u64 = 3_000_000;

/// By how much a message may expire too early, in microseconds: clocks differ by so much unnoticed.
const EARLY: u64 = 1_500_000;

impl World {
    /// Looks at what a node has learnt to be committed.
    pub(crate) fn look_at_commits(&mut self, id: NodeId) -> Result<(), Violation> {
        let partitions: Vec<GroupId> = self.groups.keys().copied().collect();
        for group in std::iter::once(GroupId::CONTROLLER).chain(partitions) {
            while let Some((index, last)) = self.next_unseen(id, group)
                && index <= last
                && self.see(id, group, index)?
            {}
        }
        Ok(())
    }

    fn next_unseen(&self, id: NodeId, group: GroupId) -> Option<(Index, Index)> {
        let process = self.nodes.get(&id)?.process.as_ref()?;
        let core = process.shard.core(group)?;
        let seen = process.seen.get(&group).copied().unwrap_or_default();
        Some((seen + 1, core.commit_index()))
    }

    /// Takes one committed entry down; false when it is not to be found at present.
    fn see(&mut self, id: NodeId, group: GroupId, index: Index) -> Result<bool, Violation> {
        let now = self.now;
        let Some(node) = self.nodes.get(&id) else { return Ok(false) };
        let Some(process) = &node.process else { return Ok(false) };
        let term = process.shard.core(group).and_then(|core| core.log().term_at(index));
        let known = match self.groups.get(&group) {
            Some(oracle) => oracle.position(index),
            None => self.controller.position(index),
        };
        if let (Some(term), Some(known)) = (term, known)
            && term != known.term
        {
            let detail = format!(
                "group {group} node {}: index {index} is of term {term}, committed was {known:?}",
                id.0
            );
            return violation("OneLog", detail);
        }
        if known.is_none() {
            let own = node.store.appended(group, index);
            let others = self.nodes.values().map(|node| node.store.appended(group, index));
            let mut found = std::iter::once(own).chain(others).flatten();
            let fits = |entry: &flintmq_consensus::Entry| term.is_none_or(|t| entry.term == t);
            let Some(entry) = found.find(fits) else { return Ok(false) };
            match self.groups.get_mut(&group) {
                Some(oracle) => {
                    let news = oracle.commit(group, now, entry)?;
                    self.heed(group, news)?;
                }
                None => {
                    let news = self.controller.commit(entry)?;
                    self.heed_controller(news)?;
                }
            }
        }
        if let Some(process) = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut()) {
            process.seen.insert(group, index);
        }
        Ok(true)
    }

    /// What the log says about queues, against what clients have open and what time it is.
    fn heed(&mut self, group: GroupId, news: News) -> Result<(), Violation> {
        self.coverage.saw_times(Situation::DuplicateInLog, news.duplicates);
        self.coverage.saw_times(Situation::Purged, news.purged);
        for (queue, left) in news.deleted {
            self.coverage.saw(Situation::IdleQueueRemoved);
            if !left.is_empty() {
                let detail = format!("group {group} queue {} with {left:x?}", queue.0);
                return violation("OnlyEmptyQueuesAreRemoved", detail);
            }
            for (session, info) in &self.sessions {
                let open = info.open.values().any(|place| *place == (group, queue));
                let node = self.nodes.get(&info.node);
                let calm = node.is_some_and(|node| node.troubled_until < self.now && !info.over);
                if open && calm {
                    let detail = format!("group {group} queue {} by {session:?}", queue.0);
                    return violation("NoOpenQueueIsRemoved", detail);
                }
            }
        }
        for (queue, messages, age) in news.expired {
            self.coverage.saw_times(Situation::Expired, messages);
            let ttl_us = self.shortest_life(group, queue);
            if age.saturating_add(EARLY) < ttl_us {
                let detail =
                    format!("group {group} queue {}: {messages} messages after {age} us", queue.0);
                return violation("NothingExpiresEarly", detail);
            }
        }
        Ok(())
    }

    /// The shortest time that messages of a queue ever had to live, in microseconds.
    fn shortest_life(&self, group: GroupId, queue: QueueId) -> u64 {
        let oracle = self.groups.get(&group);
        let settings = oracle.and_then(|oracle| oracle.reference.settings(queue));
        let places = self.controller.metadata().queues();
        let place = places.map(|(_, place)| place).find(|place| place.id() == queue);
        let ever = place.and_then(|place| self.controller.shortest_life_s(&place.domain));
        let now_ms = settings.map_or(0, |settings| settings.message_ttl_ms);
        ever.map_or(now_ms, |seconds| now_ms.min(seconds * 1000)) * 1000
    }

    /// What the controller's log says about queues and nodes.
    fn heed_controller(&mut self, news: ControllerNews) -> Result<(), Violation> {
        for (uri, place) in news.given_up {
            let oracle = self.groups.get(&GroupId(place.partition));
            let view = oracle.and_then(|oracle| oracle.reference.view(place.id()));
            if let Some(view) = view {
                let detail = format!("{uri} gives up {place:?} with {view:?}");
                return violation("OnlyDeletedQueuesLoseTheirPlace", detail);
            }
        }
        for id in news.removed {
            self.after(3_000_000, Event::TurnOff(NodeId(id)));
        }
        Ok(())
    }

    /// Looks at what a partition sends to a session.
    pub(crate) fn check_sent(
        &mut self,
        id: NodeId,
        group: GroupId,
        session: SessionId,
        events: &Bytes,
    ) -> Result<(), Violation> {
        self.trace.fold_bytes(events.get(..64.min(events.len())).unwrap_or_default());
        for said in parse(events.clone())? {
            match said {
                Said::Ack(ack) => self.check_ack(id, group, session, &ack)?,
                Said::Push(push) => self.check_push(id, group, session, &push)?,
                Said::Response(number) => self.say(|| format!("response {number}")),
            }
        }
        Ok(())
    }

    fn check_ack(
        &mut self,
        id: NodeId,
        group: GroupId,
        session: SessionId,
        ack: &AckMessage,
    ) -> Result<(), Violation> {
        let key = key_of(ack.guid);
        self.say(|| format!("node {} group {} acks {key:x} {:?}", id.0, group.0, ack.status));
        let Some(info) = self.sessions.get_mut(&session).filter(|info| !info.over) else {
            return Ok(());
        };
        let Some((queue, _)) = info.unanswered.remove(&key) else {
            let detail = format!("node {} {session:?} message {key:x} {:?}", id.0, ack.status);
            return violation("AnsweredOnce", detail);
        };
        if ack.status != AckStatus::Success {
            return Ok(());
        }
        let stored = self.groups.get(&group).is_some_and(|oracle| oracle.is_stored(queue, key));
        if !stored {
            let detail = format!(
                "node {} group {group}: message {key:x} is acknowledged and in no committed entry",
                id.0
            );
            return violation("AckedIsCommitted", detail);
        }
        self.acknowledged.insert(key, (group, queue));
        self.coverage.saw(Situation::Acknowledged);
        if self.is_forwarder(id, group) {
            self.coverage.saw(Situation::AcknowledgedThroughForwarder);
        }
        Ok(())
    }

    fn is_forwarder(&self, id: NodeId, group: GroupId) -> bool {
        let process = self.nodes.get(&id).and_then(|node| node.process.as_ref());
        let core = process.and_then(|process| process.shard.core(group));
        core.is_some_and(|core| !core.is_serving())
    }

    fn check_push(
        &mut self,
        id: NodeId,
        group: GroupId,
        session: SessionId,
        push: &PushMessage,
    ) -> Result<(), Violation> {
        let key = key_of(push.guid);
        self.say(|| format!("node {} group {} pushes {key:x} to {session:?}", id.0, group.0));
        let Some(info) = self.sessions.get(&session).filter(|info| !info.over) else {
            return Ok(());
        };
        let Some((handle, _, queue)) = info.names.get(&push.queue_id).copied() else {
            let detail = format!("node {} queue id {}", id.0, push.queue_id);
            return violation("PushForOpenQueue", detail);
        };
        let Some(oracle) = self.groups.get(&group) else { return Ok(()) };
        let Some(stored) = oracle.stored.get(&(queue, key)).copied() else {
            let detail = format!("node {} group {group} message {key:x}", id.0);
            return violation("PushedIsCommitted", detail);
        };
        let process = self.nodes.get(&id).and_then(|node| node.process.as_ref());
        let applied = process.and_then(|process| process.shard.applied(group)).unwrap_or_default();
        let served = process.and_then(|process| process.served_by.get(&group).copied()).flatten();
        let forwards = self.is_forwarder(id, group);
        if let Some((since, by)) = stored.gone {
            let late = self
                .settling
                .healed_since
                .is_some_and(|healed| since > healed + 5_000_000 && self.now > since + 2_000_000);
            let leads = served.is_some_and(|(leader, _)| leader == id);
            if (leads && by <= applied) || late {
                let detail = format!("node {} group {group} message {key:x}", id.0);
                return violation("ConfirmedStaysAway", detail);
            }
        }
        self.coverage.saw(Situation::Delivered);
        if forwards {
            self.coverage.saw(Situation::DeliveredThroughForwarder);
        }
        let redelivered = push.flags.contains(PushFlags::OUT_OF_ORDER);
        self.check_lone_consumer((group, queue), handle, stored.position, redelivered)?;
        if redelivered {
            self.coverage.saw(Situation::Redelivered);
            return Ok(());
        }
        let Some((_, term)) = served else { return Ok(()) };
        let pushed = self.pushed.entry(group).or_default();
        if !pushed.insert((term, queue, key)) {
            let detail = format!("node {} group {group} term {term} message {key:x}", id.0);
            return violation("RedeliveryIsFlagged", detail);
        }
        let upto = self.pushed_upto.entry((term, handle)).or_default();
        if stored.position < *upto {
            let detail = format!(
                "node {} group {group} term {term} message {key:x} at {} behind {upto}",
                id.0, stored.position
            );
            return violation("FirstDeliveriesInOrder", detail);
        }
        *upto = stored.position + 1;
        Ok(())
    }

    /// A consumer that never shared its queue gets no message for the first time behind a newer
    /// one, whatever is delivered to it again and how often.
    fn check_lone_consumer(
        &mut self,
        place: (GroupId, QueueId),
        handle: HandleId,
        position: Position,
        redelivered: bool,
    ) -> Result<(), Violation> {
        let got = self.got.entry(handle).or_default();
        let newest = got.last().copied().unwrap_or_default();
        let is_first = got.insert(position);
        if self.readers.get(&place).is_none_or(|readers| readers.len() > 1) {
            return Ok(());
        }
        if is_first && position < newest {
            let (group, queue) = (place.0, place.1.0);
            let detail =
                format!("group {group} queue {queue} {handle:?}: {position} after {newest}");
            return violation("LoneConsumerInOrder", detail);
        }
        if redelivered {
            self.coverage.saw(Situation::RedeliveredToLoneConsumer);
        }
        Ok(())
    }

    /// No leader goes on for long without a majority in reach.
    pub(crate) fn check_leaders(&mut self) -> Result<(), Violation> {
        let now = self.now;
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        for id in self.ids() {
            for group in &groups {
                let alone = self.leads_alone(id, *group);
                let node = self.nodes.get_mut(&id);
                let Some(process) = node.and_then(|node| node.process.as_mut()) else { break };
                if !alone {
                    process.alone_since.remove(group);
                    continue;
                }
                let since = *process.alone_since.entry(*group).or_insert(now);
                if now > since + ALONE {
                    let detail = format!("group {group} node {} since {since} us", id.0);
                    return violation("NobodyLeadsAlone", detail);
                }
            }
        }
        Ok(())
    }

    fn leads_alone(&self, id: NodeId, group: GroupId) -> bool {
        let runs = |id| {
            let node = self.nodes.get(&id).filter(|node| node.paused_until <= self.now)?;
            node.process.as_ref()
        };
        let Some(node) = self.nodes.get(&id) else { return false };
        let Some(core) = runs(id).and_then(|process| process.shard.core(group)) else {
            return false;
        };
        let reached = |member| {
            let parted = self.net.is_cut(id, member) && self.net.is_cut(member, id);
            member == id || (runs(member).is_some() && !parted)
        };
        node.shard_stalled_until <= self.now
            && core.is_serving()
            && !core.config().is_quorum(reached)
    }

    /// A node can be reached again: leaders need not give up.
    pub(crate) fn forget_who_is_alone(&mut self) {
        let processes = self.nodes.values_mut().filter_map(|node| node.process.as_mut());
        processes.for_each(|process| process.alone_since.clear());
    }

    /// What a node holds is bounded.
    pub(crate) fn check_bounds(&self, id: NodeId) -> Result<(), Violation> {
        let Some(process) = self.nodes.get(&id).and_then(|node| node.process.as_ref()) else {
            return Ok(());
        };
        let waiting: usize = process.waiting.values().map(|waiting| waiting.len()).sum();
        if waiting > MOST_PENDING {
            return violation("Bounded", format!("node {}: {waiting} requests wait", id.0));
        }
        Ok(())
    }
}
