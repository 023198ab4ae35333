//! Carries out what shards ask for, as the host of a node does.

use flintmq_consensus::{GroupId, NodeId};
use flintmq_node::NodeEffect;
use flintmq_partition::{Answer, Effect, Ticket};
use flintmq_shard::{AdminAnswer, Notice, ShardEffect, ShardInput};

use crate::client::Item;
use crate::coverage::Situation;
use crate::event::{Event, Waits};
use crate::oracle::{Violation, violation};
use crate::world::World;

impl World {
    pub(crate) fn carry_out(
        &mut self,
        id: NodeId,
        incarnation: u64,
        effect: ShardEffect<NodeEffect>,
    ) -> Result<(), Violation> {
        match effect {
            ShardEffect::Machine { group, effect: NodeEffect::Partition(effect) } => {
                self.carry_out_engine(id, group, effect)?;
            }
            ShardEffect::Machine { effect: NodeEffect::Controller(effect), .. } => {
                self.carry_out_controller(id, incarnation, effect)?;
            }
            ShardEffect::Answer { ticket, answer } => self.admin_answers(ticket, answer),
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
            ShardEffect::StatusChanged { group } => self.status_changed(id, incarnation, group),
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

    fn admin_answers(&mut self, ticket: u64, answer: AdminAnswer) {
        let Some((_, _, waits)) = self.tickets.remove(&Ticket(ticket)) else { return };
        match (waits, answer) {
            (Waits::Transfer, AdminAnswer::Transferred(result)) => {
                let done = result.is_ok();
                let (yes, no) = (Situation::Transferred, Situation::NotTransferred);
                self.coverage.saw(if done { yes } else { no });
            }
            (Waits::Needs { sweep, group }, AdminAnswer::Inspected(view)) => {
                self.told_needs(sweep, group, &view);
            }
            (Waits::Standing { sweep, group, node }, AdminAnswer::Inspected(view)) => {
                self.told_standing(sweep, group, node, view);
            }
            _ => {}
        }
    }

    pub(crate) fn notice(&mut self, id: NodeId, notice: Notice) {
        let situation = match notice {
            Notice::ElectionWon { .. } => Situation::LeadershipTaken,
            Notice::LeadershipLost { .. } => {
                let node = self.nodes.get(&id).and_then(|node| node.process.as_ref());
                let waits = node.is_some_and(|process| {
                    let mut groups = process.shard.groups();
                    groups.any(|g| process.engine(g).is_some_and(|one| !one.is_idle()))
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

    pub(crate) fn carry_out_engine(
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
            Effect::QueueCreated { uri, version } => {
                self.follow_new_queue(id, group, &uri, version);
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

    pub(crate) fn answer(
        &mut self,
        id: NodeId,
        ticket: Ticket,
        answer: Answer,
    ) -> Result<(), Violation> {
        let Some((node, incarnation, waits)) = self.tickets.remove(&ticket) else {
            return violation("AnsweredOnce", format!("node {}: {ticket:?} {answer:?}", id.0));
        };
        if node != id || self.process_of(id) != Some(incarnation) {
            return violation("Harness", format!("{ticket:?} of another process"));
        }
        match (waits, answer) {
            (Waits::Open { opening, handle }, Answer::Opened(result)) => {
                self.opened(opening, handle, result)?;
            }
            (Waits::End { session }, Answer::Ended) => self.hand_to_client(session, Item::Left),
            (Waits::Idle { unused_ms }, Answer::Idle(uris)) => {
                self.remove_idle(id, unused_ms, uris);
            }
            (Waits::Delete { uri, queue }, Answer::Deleted(result)) => {
                self.removed(id, uri, queue, &result);
            }
            (Waits::SetDomain { group, domain, enforcing }, Answer::DomainSet(result)) => {
                self.domain_set((id, incarnation), (group, domain), enforcing, &result);
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
}
