//! Carries out what shards and livenesses ask for, as the host of a node does.

use flintmq_consensus::{GroupId, NodeEffect, NodeId, NodeInput};
use flintmq_partition::{Answer, Effect, Request, Ticket};
use flintmq_shard::{AdminAnswer, Machine as _, Notice, ShardEffect, ShardInput};

use crate::client::Item;
use crate::clocks;
use crate::coverage::Situation;
use crate::node::{Process, Stopping};
use crate::oracle::{Violation, violation};
use crate::world::{Event, Waits, World};

/// Turns that follow one another without an event between them, at most: more is a loop.
const TURNS: u32 = 2_000;

/// How often a shard may want to run in a row, microsecond by microsecond, with nothing to do.
const MOST_FOR_NOTHING: u32 = 50;

impl World {
    /// Starts a node's process.
    pub(crate) fn boot(&mut self, id: NodeId) -> Result<(), Violation> {
        let peers: Vec<NodeId> = self.ids().into_iter().filter(|peer| *peer != id).collect();
        let (now, count) = (self.now, self.nodes.len());
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        if node.process.is_some() {
            return Ok(());
        }
        node.incarnation += 1 + now / 1000;
        if count == 1 {
            // Without others a new process has to believe what it finds.
            node.clock.wall_offset_ms = 0;
        }
        match Process::start(node, now, &peers, count) {
            Ok(process) => node.process = Some(process),
            Err(error) => return violation("Restartable", format!("node {} {error}", id.0)),
        }
        self.say(|| format!("node {} starts", id.0));
        self.wake_shard(id, now);
        self.wake_liveness(id, now);
        for peer in peers {
            let later = self.net_random.between(1_000, 60_000);
            self.after(later, Event::Connect(id, peer));
        }
        self.tell_controller(id);
        Ok(())
    }

    /// Tells a node's shard what is planned.
    pub(crate) fn tell_controller(&mut self, id: NodeId) {
        if let Some(incarnation) = self.process_of(id) {
            self.tell_now(id, incarnation, ShardInput::ControllerLed { led: true });
            let assignment = std::sync::Arc::new(self.settling.assignment.clone());
            self.tell_now(id, incarnation, ShardInput::Assignment(assignment));
        }
    }

    /// Ends a node's process; its sessions and connections are lost.
    pub(crate) fn end_process(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(process) = node.process.take() else { return };
        node.paused_until = 0;
        node.shard_stalled_until = 0;
        let incarnation = process.incarnation;
        drop(process);
        for peer in self.ids().into_iter().filter(|peer| *peer != id) {
            self.disconnect(id, peer);
        }
        let mut unknown = Vec::new();
        self.tickets.retain(|_, (node, process, waits)| {
            let lost = *node == id && *process == incarnation;
            if let Waits::Delete { slot, unused_ms } = waits
                && lost
            {
                unknown.push((*slot, *unused_ms));
            }
            !lost
        });
        // What became of a removal is not known: it is asked for again.
        for (slot, unused_ms) in unknown {
            self.after(200_000, Event::Remove(slot, unused_ms));
        }
        let sessions: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, info)| info.node == id && info.incarnation == incarnation)
            .map(|(session, info)| (*session, info.client))
            .collect();
        for (session, client) in sessions {
            self.sessions.remove(&session);
            let later = self.net_random.between(1_000, 100_000);
            self.after(later, Event::ToClient(client, session, Item::Lost));
        }
    }

    /// A node's liveness runs.
    pub(crate) fn live(&mut self, id: NodeId, incarnation: u64) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let (time, paused) = (node.clock.time(now), node.paused_until);
        let Some(process) = node.process.as_mut().filter(|p| p.incarnation == incarnation) else {
            return;
        };
        if process.live_at.is_none_or(|due| due != now) {
            return;
        }
        process.live_at = None;
        if paused > now {
            return self.wake_liveness(id, paused);
        }
        process.step_liveness(time, NodeInput::Tick);
        let mut effects = Vec::new();
        process.liveness.flush(time, &mut effects);
        let due = process.liveness.next_deadline();
        let mut packets = Vec::new();
        let mut words = Vec::new();
        for effect in effects {
            match effect {
                NodeEffect::Send { packet, .. } => packets.push(packet),
                effect => words.extend(clocks::word(&process.liveness, effect)),
            }
        }
        for word in words {
            self.say(|| format!("node {} hears {word:?}", id.0));
            let delay = self.host_random.skewed(1, 20_000);
            let Some(process) = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut())
            else {
                return;
            };
            let at = (now + delay).max(process.last_word + 1);
            process.last_word = at;
            self.at(at, Event::Tell(id, incarnation, Box::new(word)));
        }
        for mut packet in packets {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.stamp(now, &mut packet);
            }
            self.send_packet(packet, true);
        }
        if let Some(due) = due
            && let Some(node) = self.nodes.get(&id)
        {
            let at = node.clock.when(due);
            self.wake_liveness(id, at.max(now + 1));
        }
    }

    /// A node's shard runs.
    pub(crate) fn wake(&mut self, id: NodeId, incarnation: u64) -> Result<(), Violation> {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let held = node.paused_until.max(node.shard_stalled_until);
        let Some(process) = node.process.as_mut().filter(|p| p.incarnation == incarnation) else {
            return Ok(());
        };
        if process.wake_at.is_none_or(|due| due != now) {
            return Ok(());
        }
        process.wake_at = None;
        if held > now {
            self.wake_shard(id, held);
            return Ok(());
        }
        let for_nothing = process.inbox.is_empty() && now <= process.ran_at + 2;
        process.ran_for_nothing = if for_nothing { process.ran_for_nothing + 1 } else { 0 };
        process.ran_at = now;
        if process.ran_for_nothing > MOST_FOR_NOTHING {
            let detail = format!("node {}: {:?}", id.0, process.shard.next_deadline());
            return violation("SleepsWithoutWork", detail);
        }
        let mut turns = 0;
        loop {
            turns += 1;
            if turns > TURNS {
                return violation("Endless", format!("node {} turns without an end", id.0));
            }
            if !self.turn(id)? {
                break;
            }
        }
        let due = self.nodes.get(&id).and_then(|node| {
            let due = node.process.as_ref()?.shard.next_deadline()?;
            Some(node.clock.when(due))
        });
        if let Some(at) = due {
            self.wake_shard(id, at.max(now + 1));
        }
        Ok(())
    }

    /// Inputs, requests, one turn, and what follows from it. True when there is more to do.
    fn turn(&mut self, id: NodeId) -> Result<bool, Violation> {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(false) };
        let Some(reading) = node.read_clock(now) else { return Ok(false) };
        let time = node.clock.time(now);
        let Some(process) = &mut node.process else { return Ok(false) };
        let incarnation = process.incarnation;
        let before = served_by(process);
        while let Some(input) = process.inbox.pop_front() {
            process.shard.step(time, input);
        }
        for (group, waiting) in &mut process.waiting {
            while !waiting.is_empty()
                && process.shard.machine(*group).is_some_and(|machine| machine.takes_requests())
                && let Some(request) = waiting.pop_front()
            {
                let request = ShardInput::Request { group: *group, request };
                process.shard.step(time, request);
            }
        }
        let mut effects = Vec::new();
        let mut more = process.shard.turn(time, reading, &mut effects);
        let after = served_by(process);
        more |= process.waiting.iter().any(|(group, waiting)| {
            let takes = process.shard.machine(*group).is_some_and(|one| one.takes_requests());
            takes && !waiting.is_empty()
        });
        process.served_by = before
            .into_iter()
            .zip(after)
            .map(|((group, before), (_, after))| (group, before.filter(|_| before == after)))
            .collect();
        let events = process.take_store_events();
        let mut wire = process.wire.lock();
        let packets = std::mem::take(&mut wire.packets);
        let messages = std::mem::take(&mut wire.messages);
        self.coverage.saw_times(Situation::SentIntoFull, std::mem::take(&mut wire.refused_full));
        self.coverage.saw_times(Situation::SentIntoGone, std::mem::take(&mut wire.refused_gone));
        drop(wire);
        self.tell_store_events(id, incarnation, events);
        packets.into_iter().for_each(|packet| self.send_packet(packet, false));
        for (to, group, bytes) in messages {
            self.send_message(id, to, (incarnation, group, bytes));
        }
        self.look_at_commits(id)?;
        self.start_disk(id);
        for effect in effects {
            self.carry_out(id, incarnation, effect)?;
        }
        let lives = self.process_of(id) == Some(incarnation);
        if lives {
            self.check_bounds(id)?;
        }
        Ok(more && lives)
    }

    fn tell_store_events(
        &mut self,
        id: NodeId,
        incarnation: u64,
        events: Vec<flintmq_shard::FromStore>,
    ) {
        for event in events {
            let delay = self.disk_random.skewed(1, 300);
            let now = self.now;
            let Some(process) = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut())
            else {
                return;
            };
            let at = (now + delay).max(process.last_store_word + 1);
            process.last_store_word = at;
            self.at(at, Event::Tell(id, incarnation, Box::new(event.into())));
        }
    }

    /// Lets the disk work if there may be something to do.
    pub(crate) fn start_disk(&mut self, id: NodeId) {
        let now = self.now;
        let quick = self.profile.quick_disks;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let slow = node.slow_disk_until > now;
        let stalled = node.disk_stalled_until;
        let unsynced = node.store.inner.unsynced_changes() > 0;
        let Some(process) = &mut node.process else { return };
        let incarnation = process.incarnation;
        let disk = process.disk_at.is_none();
        let sync = process.sync_at.is_none() && unsynced;
        if disk {
            let delay = match (slow, quick) {
                (true, _) => self.disk_random.skewed(5_000, 100_000),
                (false, true) => self.disk_random.skewed(10, 300),
                (false, false) => self.disk_random.skewed(50, 5_000),
            };
            let at = (now + delay).max(stalled);
            process.disk_at = Some(at);
            self.at(at, Event::Disk(id, incarnation));
        }
        if sync {
            let delay = self.disk_random.skewed(5_000, 120_000);
            let at = (now + delay).max(stalled);
            if let Some(process) = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut()) {
                process.sync_at = Some(at);
            }
            self.at(at, Event::Sync(id, incarnation));
        }
    }

    pub(crate) fn work_disk(&mut self, id: NodeId, incarnation: u64) {
        let now = self.now;
        let quick = self.profile.quick_disks;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let stalled = node.disk_stalled_until;
        let Some(process) = node.process.as_mut().filter(|p| p.incarnation == incarnation) else {
            return;
        };
        process.disk_at = None;
        if stalled > now {
            process.disk_at = Some(stalled);
            return self.at(stalled, Event::Disk(id, incarnation));
        }
        let most = if quick { self.disk_random.between(1, 8) } else { 1 };
        let mut done = 0;
        while done < most && node.store.inner.step() {
            done += 1;
        }
        let events = process.take_store_events();
        self.tell_store_events(id, incarnation, events);
        if done > 0 {
            self.start_disk(id);
        }
    }

    pub(crate) fn sync_disk(&mut self, id: NodeId, incarnation: u64) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let stalled = node.disk_stalled_until;
        let Some(process) = node.process.as_mut().filter(|p| p.incarnation == incarnation) else {
            return;
        };
        process.sync_at = None;
        if stalled > now {
            process.sync_at = Some(stalled);
            return self.at(stalled, Event::Sync(id, incarnation));
        }
        node.store.inner.sync();
        let events = process.take_store_events();
        self.tell_store_events(id, incarnation, events);
    }

    fn carry_out(
        &mut self,
        id: NodeId,
        incarnation: u64,
        effect: ShardEffect<Effect>,
    ) -> Result<(), Violation> {
        match effect {
            ShardEffect::Machine { group, effect } => self.carry_out_engine(id, group, effect)?,
            ShardEffect::Answer { answer, .. } => {
                if let AdminAnswer::Transferred(result) = answer {
                    let done = result.is_ok();
                    self.coverage.saw(if done {
                        Situation::Transferred
                    } else {
                        Situation::NotTransferred
                    });
                }
            }
            ShardEffect::Unfit { reasons } => self.say_unfit(id, reasons),
            ShardEffect::ReadEntry { group, index } => {
                let read = self.read_entry(id, group, index);
                let outcome =
                    if read.is_ok() { Situation::EntryRead } else { Situation::ReadFailed };
                self.coverage.saw(outcome);
                let input = ShardInput::EntryRead { group, index, read };
                let delay = self.disk_random.skewed(10, 20_000);
                self.after(delay, Event::Tell(id, incarnation, Box::new(input)));
            }
            ShardEffect::ReadState { group, read } => {
                let Some(node) = self.nodes.get(&id) else { return Ok(()) };
                let records = flintmq_shard::read_state(&node.store, group);
                let input = ShardInput::StateRead { group, read, records };
                let delay = self.disk_random.skewed(100, 50_000);
                self.after(delay, Event::Tell(id, incarnation, Box::new(input)));
            }
            ShardEffect::StatusChanged { .. } => {}
            ShardEffect::Notice { group, notice } => {
                self.say(|| format!("node {} group {}: {notice:?}", id.0, group.0));
                self.notice(id, notice);
            }
            ShardEffect::Fatal(error) => {
                return violation("NodeGoesOn", format!("node {}: {error}", id.0));
            }
            ShardEffect::Stopped => {
                self.say(|| format!("node {} has stopped", id.0));
                self.coverage.saw(Situation::StoppedInOrder);
                if let Some(node) = self.nodes.get_mut(&id) {
                    // A store is closed when all that it was given is written.
                    node.store.inner.run();
                    node.store.inner.sync();
                    node.store.inner.crash();
                }
                self.end_process(id);
                let later = self.host_random.between(10_000, 500_000);
                self.after(later, Event::Boot(id));
            }
        }
        Ok(())
    }

    fn notice(&mut self, id: NodeId, notice: Notice) {
        let situation = match notice {
            Notice::ElectionWon { .. } => Situation::LeadershipTaken,
            Notice::LeadershipLost { .. } => {
                let node = self.nodes.get(&id).and_then(|node| node.process.as_ref());
                let waits = node.is_some_and(|process| {
                    let mut groups = process.shard.groups();
                    groups.any(|g| process.shard.machine(g).is_some_and(|one| !one.is_idle()))
                });
                if waits {
                    self.coverage.saw(Situation::LostWithPending);
                }
                Situation::LeadershipLost
            }
            Notice::StateReplaced { by_snapshot: true } => Situation::SnapshotInstalled,
            Notice::StateReplaced { by_snapshot: false } => Situation::StateEmptied,
            Notice::LeftoverDropped => Situation::LeftoverDropped,
            Notice::Removed => Situation::MembersChanged,
            _ => return,
        };
        self.coverage.saw(situation);
    }

    fn carry_out_engine(
        &mut self,
        id: NodeId,
        group: GroupId,
        effect: Effect,
    ) -> Result<(), Violation> {
        match effect {
            Effect::Answer { ticket, answer } => self.answer(id, ticket, answer)?,
            Effect::Send { session, events, .. } => {
                self.check_sent(id, group, session, &events)?;
                self.hand_to_client(session, Item::Events(events));
            }
            Effect::Refuse { session, message, .. } => {
                self.hand_to_client(session, Item::Refused(message));
            }
            Effect::EndSession { session, reason } => {
                self.say(|| format!("node {} ends {session:?}: {reason}", id.0));
                self.coverage.saw(Situation::SessionEnded);
                self.end_session(session);
            }
            Effect::QueueOpened { .. }
            | Effect::QueueClosed { .. }
            | Effect::Counted { .. }
            | Effect::Levels { .. }
            | Effect::PublishLatency(_)
            | Effect::DeliveryLatency(_) => {}
        }
        Ok(())
    }

    fn answer(&mut self, id: NodeId, ticket: Ticket, answer: Answer) -> Result<(), Violation> {
        let Some((node, incarnation, waits)) = self.tickets.remove(&ticket) else {
            return violation("AnsweredOnce", format!("node {}: {ticket:?} {answer:?}", id.0));
        };
        if node != id || self.process_of(id) != Some(incarnation) {
            return violation("Harness", format!("{ticket:?} of another process"));
        }
        match (waits, answer) {
            (Waits::Open { session, handle, group, queue, queue_id }, Answer::Opened(result)) => {
                if result.is_ok()
                    && let Some(info) = self.sessions.get_mut(&session)
                {
                    info.open.insert(handle, (group, queue));
                    info.names.insert(queue_id, (handle, group, queue));
                    let member = self.nodes.get(&id).and_then(|node| node.process.as_ref());
                    let core = member.and_then(|process| process.shard.core(group));
                    if core.is_some_and(|core| !core.config().is_member(id)) {
                        self.coverage.saw(Situation::ServedNonMember);
                    }
                }
                self.hand_to_client(session, Item::Opened(handle, result));
            }
            (Waits::End { session }, Answer::Ended) => self.hand_to_client(session, Item::Left),
            (Waits::Idle { node, unused_ms }, Answer::Idle(uris)) => {
                self.remove_idle(node, unused_ms, &uris);
            }
            (Waits::Delete { slot, unused_ms }, Answer::Deleted(result)) => {
                self.removed(slot, unused_ms, &result);
            }
            (Waits::Purge, Answer::Purged(result)) => {
                if result.is_ok() {
                    self.coverage.saw(Situation::Purged);
                }
            }
            (Waits::StopDelivery { node, incarnation }, Answer::Idle(_)) => {
                self.delivery_stopped(node, incarnation);
            }
            (waits, answer) => {
                return violation("RightAnswer", format!("{waits:?} got {answer:?}"));
            }
        }
        Ok(())
    }

    /// A partition of a stopping node has nothing left to wait for.
    fn delivery_stopped(&mut self, id: NodeId, incarnation: u64) {
        let now = self.now;
        let Some(process) = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut()) else {
            return;
        };
        let Stopping::Delivery { missing, since } = process.stopping else { return };
        if missing > 1 {
            process.stopping = Stopping::Delivery { missing: missing - 1, since };
            return;
        }
        process.stopping = Stopping::Shard { since: now };
        // Sessions end before the shard does.
        let sessions: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, info)| info.node == id && info.incarnation == incarnation)
            .map(|(session, _)| *session)
            .collect();
        for session in sessions {
            self.end_session(session);
        }
        self.tell_now(id, incarnation, ShardInput::Stop);
    }

    /// The broker ends a session: its client and every partition are notified.
    pub(crate) fn end_session(&mut self, session: flintmq_partition::SessionId) {
        let Some(info) = self.sessions.get_mut(&session) else { return };
        if std::mem::replace(&mut info.over, true) {
            return;
        }
        self.hand_to_client(session, Item::Ended);
        self.tell_session_over(session, true);
    }

    /// Tells all partitions of the session's node that it is over.
    pub(crate) fn tell_session_over(&mut self, session: flintmq_partition::SessionId, lost: bool) {
        let Some(info) = self.sessions.get_mut(&session) else { return };
        if lost {
            info.unanswered.clear();
        }
        info.open.clear();
        let (node, incarnation) = (info.node, info.incarnation);
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        for group in groups {
            let ticket = Ticket(self.name());
            self.tickets.insert(ticket, (node, incarnation, Waits::End { session }));
            let ended = flintmq_partition::SessionEnded { session, lost, ticket };
            self.request(node, incarnation, group, Request::SessionEnded(ended));
        }
    }

    /// A request reaches a partition of a node.
    pub(crate) fn request(
        &mut self,
        id: NodeId,
        incarnation: u64,
        group: GroupId,
        request: Request,
    ) {
        let Some(process) = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut()) else {
            return;
        };
        if process.incarnation != incarnation {
            return;
        }
        process.waiting.entry(group).or_default().push_back(request);
        let soon = self.now + self.host_random.skewed(1, 200);
        self.wake_shard(id, soon);
    }

    pub(crate) fn hand_to_client(&mut self, session: flintmq_partition::SessionId, item: Item) {
        let delay = self.net_random.skewed(20, 2_000);
        let Some(info) = self.sessions.get_mut(&session) else { return };
        if info.over && !matches!(item, Item::Ended) {
            return;
        }
        let at = (self.now + delay).max(info.last_to_client + 1);
        info.last_to_client = at;
        let client = info.client;
        self.at(at, Event::ToClient(client, session, item));
    }
}

/// The leadership that serves the clients of a node, for each group.
fn served_by(
    process: &Process,
) -> std::collections::BTreeMap<GroupId, Option<(NodeId, flintmq_consensus::Term)>> {
    let shard = &process.shard;
    let served = |group: GroupId| {
        let core = shard.core(group)?;
        match shard.machine(group)?.leader_elsewhere() {
            Some(leader) => Some(leader),
            None => core.is_serving().then(|| (core.node(), core.term())),
        }
    };
    shard.groups().map(|group| (group, served(group))).collect()
}
