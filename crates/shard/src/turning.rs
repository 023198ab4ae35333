//! One turn: what is due, what the consensus asks for, and each group's part in its fixed order.

use flintmq_consensus::{ClockReading, GroupId, Input, NodeInput, Time};

use crate::effect::{Notice, ShardEffect, ShardError, Told};
use crate::group::InGroup;
use crate::machine::{Machine, MachineFailure};
use crate::replica::{Replaced, StoredState};
use crate::shard::{Hosted, Shard};

/// Entries that a group applies in one turn: the others have their part in between.
const APPLY_AT_ONCE: usize = 1024;

impl<M: Machine> Shard<M> {
    /// Does what follows from the inputs so far and from the time. `clock` is the cluster's time as
    /// this node has it, a reading of not long ago. True when there is more to do at once.
    pub fn turn(
        &mut self,
        now: Time,
        clock: ClockReading,
        effects: &mut Vec<ShardEffect<M::Effect>>,
    ) -> bool {
        if self.done {
            return false;
        }
        self.host.now = self.host.now.max(now);
        if self.host.time.told(self.host.now, clock) {
            let groups: Vec<GroupId> = self.groups.keys().copied().collect();
            groups.into_iter().for_each(|group| self.mark(group));
        }
        if self.host.failure.is_none() {
            self.look_at_time();
            self.look_at_fitness();
        }
        self.flush();
        let mut due = std::mem::replace(&mut self.dirty, std::mem::take(&mut self.spare));
        for id in due.drain(..) {
            if self.host.failure.is_none() {
                self.take_part(id, effects);
            }
        }
        self.spare = due;
        self.go_on_stopping(effects);
        self.flush();
        if self.host.failure.is_some() {
            self.break_off();
        }
        self.hand_out(effects);
        !self.done && !self.dirty.is_empty()
    }

    /// Looks for whom the time has come.
    fn look_at_time(&mut self) {
        let now = self.host.now;
        if self.core.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.step_core(NodeInput::Tick);
        }
        let mut ticking = std::mem::take(&mut self.spare);
        self.ticks.take_ticking(now, &mut ticking);
        for id in ticking.drain(..) {
            self.tick(id);
        }
        self.spare = ticking;
        while let Some(id) = self.ticks.pop_alarm(now) {
            if let Some(hosted) = self.groups.get_mut(&id) {
                hosted.armed = None;
            }
            self.mark(id);
        }
    }

    /// A second has passed for a group.
    fn tick(&mut self, id: GroupId) {
        self.mark(id);
        let Some(hosted) = self.groups.get_mut(&id) else { return };
        let leader = hosted.machine.leader_elsewhere();
        let (core, host, replica) = (&mut self.core, &mut self.host, &mut hosted.replica);
        // A full disk may have room again.
        replica.go_on_asking(host);
        let stalled = replica.own_writes.is_stalled(host.now);
        host.fitness.note_writes(id, stalled, host.now);
        if host.clustered {
            replica.step_members(core, host);
            replica.give_way_if_late(core, host);
            replica.look_at_leftover(core, host, leader);
            if replica.leftover.dropping {
                self.dropping.insert(id);
            }
        }
        self.with(id, |machine, group| machine.on_tick(group));
    }

    /// A group's part in the turn.
    fn take_part(&mut self, id: GroupId, effects: &mut Vec<ShardEffect<M::Effect>>) {
        let Some(hosted) = self.groups.get_mut(&id) else { return };
        hosted.dirty = false;
        let Hosted { machine, replica, .. } = hosted;
        let mut group = InGroup { core: &mut self.core, host: &mut self.host, replica };
        let worked = take_part(machine, &mut group);
        let more = match worked {
            Ok(more) => more,
            Err(source) => {
                self.host.fail(ShardError::Machine { group: id, source });
                return;
            }
        };
        let now = self.host.now;
        let members_due = hosted.replica.members_due;
        let deadline = [hosted.machine.next_deadline(), members_due].into_iter().flatten().min();
        self.ticks.set_alarm(id, &mut hosted.armed, deadline);
        if let Some(core) = self.core.group(id)
            && hosted.note_leadership(core, now)
        {
            self.host.tell(Told::StatusChanged { group: id });
        }
        self.take_effects_of(id, effects);
        if more {
            self.mark(id);
        }
    }

    /// Stops the groups that have settled, each with its last checkpoint.
    fn go_on_stopping(&mut self, effects: &mut Vec<ShardEffect<M::Effect>>) {
        let Some(stopping) = self.stopping.take() else { return };
        let mut left = stopping.clone();
        for id in stopping {
            if self.host.failure.is_some() {
                return;
            }
            let Some(hosted) = self.groups.get_mut(&id) else { continue };
            let Hosted { machine, replica, .. } = hosted;
            let mut group = InGroup { core: &mut self.core, host: &mut self.host, replica };
            if !group.replica.stopped && machine.is_settled(&group) {
                group.replica.stopped = true;
            }
            if !group.replica.stopped {
                continue;
            }
            // The others need not wait until they miss this node.
            let leads = |core: &flintmq_consensus::Core| core.leader() == Some(core.node());
            if group.core.group(id).is_some_and(leads) {
                group.core.step(group.host.now, NodeInput::Group { group: id, input: Input::Cede });
            }
            if machine.checkpoint(&mut group) && group.replica.queue.is_empty() {
                left.remove(&id);
            }
            self.take_effects_of(id, effects);
        }
        if left.is_empty() {
            self.flush();
            self.dirty.clear();
            self.host.tell(Told::Stopped);
            self.done = true;
        }
        self.stopping = Some(left);
    }

    /// The node cannot go on: others lead its groups from now on.
    fn break_off(&mut self) {
        self.step_core(NodeInput::CedeAll);
        self.flush();
        self.dirty.clear();
        self.done = true;
        if let Some(error) = self.host.failure.take() {
            self.host.tell(Told::Fatal(error));
        }
    }
}

/// What a machine is called for, in the order that [`Machine`] promises. True when there is more to
/// do at once.
fn take_part<M: Machine>(machine: &mut M, group: &mut InGroup<'_>) -> Result<bool, MachineFailure> {
    let id = group.replica.group;
    let serves = |group: &InGroup<'_>| {
        let core = group.core.group(id)?;
        core.is_serving().then(|| core.term())
    };
    let serving = serves(group);
    if let Some(led) = group.replica.led_term
        && serving != Some(led)
    {
        group.replica.led_term = None;
        group.host.notice(id, Notice::LeadershipLost { term: led });
        machine.lose_leadership(group);
    }
    match std::mem::take(&mut group.replica.replaced) {
        Replaced::No => {}
        Replaced::Emptied => machine.restore(group, Vec::new())?,
        Replaced::Read(StoredState { records, entries }) => {
            machine.restore(group, records)?;
            machine.reclaim(group, &entries);
        }
        reading @ Replaced::Reading(_) => group.replica.replaced = reading,
    }
    let mut more = true;
    for _ in 0..APPLY_AT_ONCE {
        let core = group.core.group(id);
        let Some(entry) = core.and_then(|core| group.replica.next_committed(core)) else {
            more = false;
            break;
        };
        machine.apply(group, &entry)?;
    }
    if group.replica.members_due.is_some_and(|due| due <= group.host.now) {
        group.replica.step_members(group.core, group.host);
    }
    let serving = serves(group);
    let is_up_to_date = !more && !group.replica.replaced.is_pending();
    let may_lead = group.host.time.may_lead(group.host.now);
    if group.replica.led_term.is_none() && serving.is_some() && is_up_to_date && may_lead {
        group.replica.led_term = serving;
        machine.take_leadership(group);
    }
    for (index, payload) in std::mem::take(&mut group.replica.at_hand) {
        machine.on_entry_read(group, index, Ok(payload));
    }
    Ok(machine.work(group) || more || !group.replica.at_hand.is_empty())
}
