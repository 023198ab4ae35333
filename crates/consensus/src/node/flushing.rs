//! What all groups asked for since the last flush, put together.

use super::books::Books;
use super::budget::{self, Lane};
use super::group::Group;
use super::{NodeCore, NodeEffect, Packet, Voice};
use crate::{Effect, GroupId, Input, Message, NodeId, Role, Time};

impl NodeCore {
    /// Hands over all that is to be done since the last flush: at most one batch of hard states,
    /// and as few packets as their bounds allow.
    pub fn flush(&mut self, now: Time, effects: &mut Vec<NodeEffect>) {
        let waited_for: Vec<NodeId> = self
            .books
            .peers
            .iter()
            .filter(|(_, peer)| peer.pair.is_waited_for())
            .map(|(node, _)| *node)
            .collect();
        for peer in waited_for {
            self.grant(now, peer);
        }
        effects.append(&mut self.events);
        for id in std::mem::take(&mut self.books.dirty) {
            self.collect(now, id, effects);
        }
        self.open_snapshots(now, effects);
        let states = self.saves.pending() as u64;
        self.books.counters.hard_states += states;
        self.books.counters.hard_state_batches += u64::from(states > 0);
        effects.extend(self.saves.take_batch());
        self.send_packets(now, effects);
    }

    /// Lets the next snapshots be opened, as many as there is room for.
    fn open_snapshots(&mut self, now: Time, effects: &mut Vec<NodeEffect>) {
        let (groups, max) = (&self.groups, self.books.settings.max_snapshots);
        let is_wanted = |(id, to): (GroupId, NodeId)| {
            groups.get(&id).is_some_and(|group| group.core.sends_snapshot_to(to))
        };
        while let Some((group, to)) = self.books.transfers.next_turn(now, max, is_wanted) {
            effects.push(NodeEffect::Group { group, effect: Effect::SnapshotOpen { to } });
        }
    }

    fn collect(&mut self, now: Time, id: GroupId, effects: &mut Vec<NodeEffect>) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let creation = group.core.creation();
        let mut asked = Books::take_effects(group);
        for effect in asked.drain(..) {
            match effect {
                Effect::Send(message) => self.books.post(message),
                Effect::SaveHardState { save, state } => self.saves.push(id, creation, save, state),
                Effect::SnapshotOpen { to }
                    if group.core.role() == Role::Ready
                        && !self.books.may_open_snapshot(now, id, to) => {}
                effect => effects.push(NodeEffect::Group { group: id, effect }),
            }
        }
        self.books.reuse(asked);
    }

    /// Lets groups send to a peer, in turns, while there is room.
    fn grant(&mut self, now: Time, peer: NodeId) {
        let (window, quantum) =
            (self.books.settings.pair_window_bytes, self.books.settings.pair_quantum_bytes);
        while let Some(pair) = self.books.peers.get_mut(&peer).map(|peer| &mut peer.pair) {
            let Some((id, lane)) = pair.next_turn(window, quantum) else {
                self.books.counters.window_full += u64::from(pair.is_waited_for());
                return;
            };
            if let Some(group) = self.groups.get_mut(&id) {
                self.books.take_turn(now, group, peer, lane);
            }
        }
    }

    fn send_packets(&mut self, now: Time, effects: &mut Vec<NodeEffect>) {
        let books = &mut self.books;
        let greets = books.has_own_liveness();
        let beat = greets && self.beat_at <= now;
        if beat {
            self.beat_at = now + books.settings.beat_interval;
        }
        let mute = matches!(self.voice, Voice::Stalled | Voice::Silent);
        if self.voice == Voice::LastWords {
            self.voice = Voice::Silent;
        }
        let (settings, unfit) = (&books.settings, books.unfit);
        for (node, peer) in &mut books.peers {
            if mute {
                peer.outbox.clear();
                continue;
            }
            let greet = greets && (std::mem::take(&mut peer.contact.greet) || beat);
            let (contact, counters) = (&mut peer.contact, &mut books.counters);
            let (max_messages, max_bytes) = (settings.packet_messages, settings.packet_bytes);
            peer.outbox.pack(greet, max_messages, max_bytes, |class, messages| {
                counters.packets_sent += 1;
                counters.messages_sent += messages.len() as u64;
                counters.beats_sent += u64::from(messages.is_empty());
                let mut packet = Packet {
                    from: settings.node,
                    to: *node,
                    from_incarnation: settings.incarnation,
                    to_incarnation: 0,
                    number: 0,
                    contact: 0,
                    heard_contact: 0,
                    hears_you: false,
                    clocks: None,
                    unfit,
                    messages,
                };
                contact.stamp(now, &mut packet);
                effects.push(NodeEffect::Send { class, packet });
            });
        }
    }
}

impl Books {
    /// Puts a message into the next packet for its receiver, if the receiver's process is known:
    /// no message may reach another.
    pub(super) fn post(&mut self, message: Message) {
        let peer = self.peers.get_mut(&message.to);
        match peer.filter(|peer| peer.contact.incarnation > 0) {
            Some(peer) => self.counters.acks_left_out += u64::from(peer.outbox.push(message)),
            None => self.counters.messages_unsent += 1,
        }
    }

    /// Whether a leader may open a snapshot for a member now. Otherwise it waits for its turn. A
    /// snapshot for a leader that synchronises is urgent: its group is not served before.
    fn may_open_snapshot(&mut self, now: Time, group: GroupId, to: NodeId) -> bool {
        let may = self.transfers.ask(now, (group, to), self.settings.max_snapshots);
        self.counters.snapshots_held += u64::from(!may);
        may
    }

    /// Says again what a leader said when it stopped for good.
    pub(super) fn repeat_last_words(&mut self, group: &Group, to: NodeId) {
        for message in group.last_words.iter().filter(|message| message.to == to) {
            self.counters.last_words_repeated += 1;
            self.post(message.clone());
        }
    }

    /// One group's turn to send to a peer.
    fn take_turn(&mut self, now: Time, group: &mut Group, peer: NodeId, lane: Lane) {
        let id = group.core.group();
        let (window, quantum) = (self.settings.pair_window_bytes, self.settings.pair_quantum_bytes);
        let Some(account) = group.account_mut(peer).filter(|account| account.queued) else {
            return;
        };
        account.begin_turn(quantum);
        loop {
            let core = &group.core;
            let progress = core.progress().iter().find(|progress| progress.node == peer);
            let hungry = progress.is_some_and(|p| budget::is_hungry(core, p, &core.settings));
            let Some(account) = group.accounts.iter_mut().find(|account| account.peer == peer)
            else {
                return;
            };
            let Some(pair) = self.peers.get_mut(&peer).map(|peer| &mut peer.pair) else { return };
            if !hungry {
                account.leave();
                return;
            }
            if !account.may_go_on() {
                pair.requeue(id, lane);
                return;
            }
            if !pair.has_room(lane, window, quantum) {
                pair.put_back(id, lane);
                return;
            }
            let before = pair.in_flight();
            self.step(now, group, Input::Allowance { peer, bytes: 1 });
            self.counters.grants += 1;
            self.counters.catch_up_grants += u64::from(lane == Lane::CatchUp);
            if let Some(peer) = self.peers.get_mut(&peer) {
                peer.pair.spend(lane, peer.pair.in_flight().saturating_sub(before));
            }
        }
    }
}
