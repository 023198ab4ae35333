//! Lets livenesses and shards run, as the host of a node does.

use std::collections::BTreeMap;

use flintmq_consensus::{GroupId, NodeEffect, NodeId, NodeInput, Term};
use flintmq_node::NodeRequest;
use flintmq_shard::{Machine as _, Notice, ShardEffect, ShardInput};

use crate::clocks;
use crate::coverage::Situation;
use crate::event::Event;
use crate::node::Process;
use crate::oracle::{Violation, violation};
use crate::world::World;

/// Turns that follow one another without an event between them, at most: more is a loop.
const TURNS: u32 = 2_000;

/// How often a shard may want to run in a row, microsecond by microsecond, with nothing to do.
const MOST_FOR_NOTHING: u32 = 50;

impl World {
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
    pub(crate) fn turn(&mut self, id: NodeId) -> Result<bool, Violation> {
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
                let request = NodeRequest::Partition(request);
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
        for effect in &effects {
            if let ShardEffect::Notice { group, notice: Notice::HistoryForked { last, .. } } =
                effect
            {
                self.history_forked(id, *group, last.index)?;
            }
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
}

/// The leadership that serves the clients of a node, for each group.
fn served_by(process: &Process) -> BTreeMap<GroupId, Option<(NodeId, Term)>> {
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
