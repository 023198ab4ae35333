//! One input of a node, and what it means for the groups.

use super::liveness::{Cause, Change, Heard};
use super::told::Word;
use super::{Liveness, NodeCore, NodeEffect, NodeInput, Packet, Voice};
use crate::mutants::node_broken;
use crate::{GroupId, Input, NodeId, Role, Time};

impl NodeCore {
    /// Takes one input. What is to be done comes with the next [`Self::flush`].
    pub fn step(&mut self, now: Time, input: NodeInput) {
        self.note_time(now);
        match input {
            NodeInput::Tick => self.on_tick(now),
            NodeInput::Packet(packet) => self.on_packet(now, packet),
            NodeInput::Connected { peer } => {
                if let Some(peer) = self.books.peers.get_mut(&peer) {
                    peer.contact.greet = true;
                }
            }
            NodeInput::Disconnected { peer } => {
                // Where the host tells of peers, it says so itself if that means anything.
                let own = self.books.has_own_liveness();
                let known = self.books.peers.get_mut(&peer).filter(|_| own);
                let change = known.and_then(|peer| peer.contact.on_disconnected(now));
                self.tell_groups(now, peer, change);
            }
            NodeInput::PeerUp { peer, incarnation, restarted } => {
                self.on_told(now, peer, Word::Up { incarnation, restarted });
            }
            NodeInput::PeerDown { peer } => self.on_told(now, peer, Word::Down),
            NodeInput::AddPeer { peer } => self.add_peer(now, peer),
            NodeInput::RemovePeer { peer } => {
                self.keep_word(peer);
                let change =
                    self.books.peers.get_mut(&peer).and_then(|p| p.contact.on_disconnected(now));
                self.tell_groups(now, peer, change);
                self.books.peers.remove(&peer);
                // Whoever comes back under this number is owed nothing and owes nothing.
                for group in self.groups.values_mut() {
                    group.accounts.retain(|account| account.peer != peer);
                }
            }
            NodeInput::Group { input: Input::SnapshotFailed { .. }, .. }
                if node_broken!(self.books.settings, N01SnapshotNotRetried) => {}
            NodeInput::Group { group, input } => self.step_group(now, group, input),
            NodeInput::HardStatesSynced { batch } => self.on_hard_states_synced(now, batch),
            NodeInput::CedeAll => {
                self.books.stopping = true;
                for group in self.groups.values_mut() {
                    self.books.hand_over(now, group);
                }
            }
            NodeInput::GroupStalled { group } => {
                // Where no other can lead, a slow leader is better than none.
                if let Some(group) = self.groups.get_mut(&group)
                    && group.best_successor(|_| true).is_some()
                {
                    self.books.hand_over(now, group);
                }
            }
            NodeInput::Unfit { reasons } => self.on_unfit(now, reasons),
            NodeInput::PeerUnfit { peer, reasons } => self.on_peer_unfit(now, peer, reasons),
            NodeInput::Stalled => self.change_voice(Voice::Speaking, Voice::Stalled),
            NodeInput::Resumed => self.change_voice(Voice::Stalled, Voice::Speaking),
            NodeInput::StorageFailed => {
                self.voice = Voice::LastWords;
                for group in self.groups.values_mut() {
                    self.books.step(now, group, Input::StorageFailed);
                }
            }
        }
        self.admit(now);
    }

    fn change_voice(&mut self, from: Voice, to: Voice) {
        if self.voice == from {
            self.voice = to;
        }
    }

    /// A node that was not run for a while has heard nobody, and must not blame the others for it.
    fn note_time(&mut self, now: Time) {
        let settings = &self.books.settings;
        let late = now.since(self.last_step.unwrap_or(now));
        self.last_step = self.last_step.max(Some(now));
        let blames = self.books.has_own_liveness() && !self.books.peers.is_empty();
        if late > settings.suspicion_min / 2 && blames {
            let slept = late.saturating_sub(settings.beat_interval);
            self.books.counters.late_steps += 1;
            for peer in self.books.peers.values_mut() {
                peer.contact.excuse(slept);
            }
        }
    }

    fn step_group(&mut self, now: Time, group: GroupId, input: Input) {
        if let Some(group) = self.groups.get_mut(&group) {
            self.books.step(now, group, input);
        }
    }

    fn on_tick(&mut self, now: Time) {
        let silent: Vec<(NodeId, Option<Change>)> = self
            .books
            .peers
            .iter_mut()
            .map(|(node, peer)| (*node, peer.contact.on_time(now, &self.books.settings)))
            .collect();
        for (peer, change) in silent {
            self.tell_groups(now, peer, change);
        }
        let limit = self.books.election_limit();
        while let Some((began, id)) = self.books.elections.pop_overdue(now, limit) {
            if let Some(group) = self.groups.get_mut(&id)
                && self.books.elections.uncount(began, &mut group.standing)
            {
                self.books.counters.elections_uncounted += 1;
            }
        }
        self.books.transfers.on_time(now);
        if self.books.hand_over_at.is_some_and(|at| at <= now) {
            self.hand_over_what_is_led(now);
        }
        // A group that is due again at once has its turn with the next tick.
        for id in self.books.timers.pop_all_due(now) {
            if let Some(group) = self.groups.get_mut(&id) {
                group.armed = None;
                if group.core.next_deadline().is_some_and(|deadline| deadline <= now) {
                    self.tick_group(now, id);
                } else {
                    self.books.arm(now, group);
                }
            }
        }
    }

    /// A follower that is about to stand for election has to wait for its turn.
    fn tick_group(&mut self, now: Time, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let books = &mut self.books;
        if group.core.role() == Role::Follower && group.core.is_election_due(now) {
            if books.stopping {
                return;
            }
            if !books.elections.has_room(books.settings.max_elections) {
                let reachable = group
                    .core
                    .config()
                    .is_quorum(|node| node == books.settings.node || books.is_up(node));
                books.counters.elections_held += 1;
                books.elections.hold(id, &mut group.standing, reachable);
                return;
            }
        }
        books.step(now, group, Input::Tick);
    }

    /// Lets the next groups stand for election, as many as there is room for.
    fn admit(&mut self, now: Time) {
        let max = self.books.settings.max_elections;
        while let Some(id) = self.books.elections.next_turn(max) {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            group.standing.waiting = false;
            let due = group.core.next_deadline().is_some_and(|deadline| deadline <= now);
            if !due {
                self.books.arm(now, group);
            } else if group.core.role() != Role::Follower || !self.books.stopping {
                self.books.step(now, group, Input::Tick);
            }
        }
    }

    fn on_packet(&mut self, now: Time, packet: Packet) {
        let books = &mut self.books;
        let from = packet.from;
        books.counters.packets_received += 1;
        let to_us = packet.to == books.settings.node;
        let Some(peer) = books.peers.get_mut(&from).filter(|_| to_us) else {
            books.counters.packets_misdirected += 1;
            return;
        };
        if books.settings.liveness == Liveness::Told {
            let heard = peer.contact.judge(&books.settings, &packet);
            self.on_heard(now, heard, packet);
            return;
        }
        let mut changes = Vec::new();
        let (before, overtaken) = (peer.contact.incarnation, peer.contact.overtaken);
        let unfit = peer.contact.unfit;
        let heard = peer.contact.on_packet(now, &books.settings, &packet, &mut changes);
        let unfit_now = peer.contact.unfit;
        books.counters.restarts_seen += u64::from(before != 0 && peer.contact.incarnation > before);
        books.counters.packets_overtaken += peer.contact.overtaken - overtaken;
        for change in changes {
            self.tell_groups(now, from, Some(change));
        }
        if unfit_now != unfit {
            self.events.push(NodeEffect::PeerUnfit { peer: from, reasons: unfit_now });
            self.look_for_successors(now);
        }
        self.on_heard(now, heard, packet);
    }

    fn on_heard(&mut self, now: Time, heard: Heard, packet: Packet) {
        match heard {
            Heard::Outlived => self.books.counters.packets_outlived += 1,
            Heard::Early => self.books.counters.packets_early += 1,
            Heard::ForAnother => self.books.counters.packets_for_others += 1,
            Heard::Messages => self.on_messages(now, packet),
        }
    }

    fn on_messages(&mut self, now: Time, packet: Packet) {
        for message in packet.messages {
            let books = &mut self.books;
            if message.from != packet.from {
                books.counters.packets_misdirected += 1;
                continue;
            }
            let Some(group) = self.groups.get_mut(&message.group) else {
                books.counters.messages_unknown_group += 1;
                continue;
            };
            if group.core.creation() != message.creation {
                books.counters.messages_other_creation += 1;
                continue;
            }
            books.counters.messages_received += 1;
            if group.core.role() == Role::Failed {
                if group.may_not_have_heard(&message) {
                    books.repeat_last_words(group, message.from);
                }
            } else {
                books.step(now, group, Input::Message(message));
            }
        }
    }

    /// Tells the groups that know a peer, and only those, what became of it.
    pub(super) fn tell_groups(&mut self, now: Time, peer: NodeId, change: Option<Change>) {
        let books = &mut self.books;
        let input = match change {
            None => return,
            Some(Change::Down(cause)) => {
                books.counters.suspicions += 1;
                books.counters.suspicions_by_silence += u64::from(cause == Cause::Silent);
                books.counters.suspicions_one_way += u64::from(cause == Cause::OneWay);
                if books.has_own_liveness() {
                    self.events.push(NodeEffect::PeerSuspected { peer });
                }
                Input::PeerDown { peer }
            }
            Some(Change::Up { restarted }) => {
                books.counters.trusts += 1;
                books.elections.retry_unreachable();
                if books.has_own_liveness() {
                    let contact = books.peers.get(&peer).map(|peer| &peer.contact);
                    let incarnation = contact.map_or(0, |contact| contact.incarnation);
                    self.events.push(NodeEffect::PeerTrusted { peer, incarnation, restarted });
                }
                Input::PeerUp { peer, restarted }
            }
        };
        let told: Vec<GroupId> =
            books.groups_of.get(&peer).into_iter().flatten().copied().collect();
        for id in told {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            if group.core.role() != Role::Failed {
                self.books.step(now, group, input.clone());
            } else if matches!(input, Input::PeerUp { .. }) {
                self.books.repeat_last_words(group, peer);
            }
        }
    }

    fn on_hard_states_synced(&mut self, now: Time, batch: u64) {
        for (id, creation, save) in self.saves.on_synced(batch) {
            if let Some(group) = self.groups.get_mut(&id)
                && group.core.creation() == creation
            {
                self.books.step(now, group, Input::HardStateSynced { save });
            }
        }
    }
}
