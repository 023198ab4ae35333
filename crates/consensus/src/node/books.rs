//! What the groups of a node share, brought up to date after each step of one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::budget::{self, Account, Pair};
use super::elections::Elections;
use super::fitness::HAND_OVER_AGAIN;
use super::group::Group;
use super::liveness::Contact;
use super::outbox::Outbox;
use super::timers::Timers;
use super::told::Word;
use super::transfers::Transfers;
use super::{Liveness, NodeCounters, NodeSettings, UnfitReasons};
use crate::{Effect, GroupId, Input, NodeId, Role, Time};

/// Lists of effects that are kept for the next groups that need one.
const SPARE_LISTS: usize = 64;

/// A peer, as far as its groups do not matter.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) contact: Contact,
    pub(super) outbox: Outbox,
    pub(super) pair: Pair,
}

impl Peer {
    pub(super) fn new(now: Time, settings: &NodeSettings) -> Self {
        Self {
            contact: Contact::new(now, settings),
            outbox: Outbox::default(),
            pair: Pair::default(),
        }
    }
}

/// Everything but the groups themselves.
#[derive(Clone, Debug)]
pub(super) struct Books {
    pub(super) settings: NodeSettings,
    pub(super) peers: BTreeMap<NodeId, Peer>,
    /// The last word on nodes that are no peers yet: they may be added later than they are heard.
    pub(super) words: BTreeMap<NodeId, Word>,
    /// The groups that are told when a node goes up or down.
    pub(super) groups_of: BTreeMap<NodeId, BTreeSet<GroupId>>,
    pub(super) timers: Timers,
    pub(super) elections: Elections,
    pub(super) transfers: Transfers,
    /// Groups with effects, in the order in which they got them.
    pub(super) dirty: Vec<GroupId>,
    pub(super) spare: Vec<Vec<Effect>>,
    /// No leadership is kept or sought.
    pub(super) stopping: bool,
    /// Why this node should not lead.
    pub(super) unfit: UnfitReasons,
    /// When groups that are led here although they should not be are handed over.
    pub(super) hand_over_at: Option<Time>,
    pub(super) counters: NodeCounters,
}

impl Books {
    pub(super) fn new(settings: NodeSettings) -> Self {
        let peers = settings
            .peers
            .iter()
            .filter(|peer| **peer != settings.node)
            .map(|peer| (*peer, Peer::new(Time(0), &settings)))
            .collect();
        Self {
            settings,
            peers,
            words: BTreeMap::new(),
            groups_of: BTreeMap::new(),
            timers: Timers::default(),
            elections: Elections::default(),
            transfers: Transfers::default(),
            dirty: Vec::new(),
            spare: Vec::new(),
            stopping: false,
            unfit: UnfitReasons::NONE,
            hand_over_at: None,
            counters: NodeCounters::default(),
        }
    }

    /// True when this node beats and suspects by itself.
    pub(super) fn has_own_liveness(&self) -> bool {
        self.settings.liveness == Liveness::Own
    }

    pub(super) fn is_up(&self, peer: NodeId) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.contact.up)
    }

    /// Steps a group and brings everything up to date.
    pub(super) fn step(&mut self, now: Time, group: &mut Group, input: Input) {
        self.touch(group);
        group.core.step(now, input, &mut group.effects);
        self.settle(now, group);
    }

    /// Gives up the leadership of a group that is led here, to the member that has most.
    pub(super) fn hand_over(&mut self, now: Time, group: &mut Group) {
        if group.core.leader() == Some(group.core.node()) {
            let fit = group.best_successor(|node| self.is_fit(node));
            let input = match fit.or_else(|| group.best_successor(|_| true)) {
                Some(to) => Input::Transfer { to, force: true },
                None => Input::Cede,
            };
            self.step(now, group, input);
        }
    }

    /// How long an election counts: two rounds of questions and answers. Whoever takes longer waits
    /// for somebody who is not there.
    pub(super) fn election_limit(&self) -> Duration {
        self.settings.group.round_timeout * 2
    }

    /// To be called before a group is stepped.
    pub(super) fn touch(&mut self, group: &mut Group) {
        if !group.dirty {
            group.dirty = true;
            self.dirty.push(group.core.group());
            if group.effects.capacity() == 0 {
                group.effects = self.spare.pop().unwrap_or_default();
            }
        }
    }

    /// Takes the list of effects of a group, which is flushed. Give it back with [`Self::reuse`].
    pub(super) fn take_effects(group: &mut Group) -> Vec<Effect> {
        group.dirty = false;
        std::mem::take(&mut group.effects)
    }

    pub(super) fn reuse(&mut self, mut effects: Vec<Effect>) {
        effects.clear();
        if self.spare.len() < SPARE_LISTS && effects.capacity() <= 64 {
            self.spare.push(effects);
        }
    }

    /// To be called after a group was stepped.
    pub(super) fn settle(&mut self, now: Time, group: &mut Group) {
        if self.stopping && group.core.leader() == Some(group.core.node()) {
            group.core.step(now, Input::Cede, &mut group.effects);
        }
        if self.is_unfit() && group.core.leader() == Some(group.core.node()) {
            self.hand_over_at.get_or_insert(now + HAND_OVER_AGAIN);
        }
        if group.core.role() == Role::Failed && group.last_words.is_empty() {
            group.keep_last_words();
        }
        self.note_peers(now, group);
        self.note_in_flight(now, group);
        let (id, electing) = (group.core.group(), group.core.is_electing());
        self.transfers.note(id, |to| group.core.sends_snapshot_to(to));
        if self.elections.note(now, id, &mut group.standing, electing) {
            self.counters.elections += 1;
        }
        self.arm(now, group);
    }

    /// Sets the timer. A group that waits for its turn to elect has none for that.
    pub(super) fn arm(&mut self, now: Time, group: &mut Group) {
        if let Some(deadline) = group.core.next_deadline()
            && !(group.standing.waiting && deadline <= now)
        {
            self.timers.arm(group.core.group(), &mut group.armed, deadline);
        }
    }

    /// Finds out whose liveness the group has to be told, and tells it where that is news.
    fn note_peers(&mut self, now: Time, group: &mut Group) {
        let of = Some((group.core.config().stamp, group.core.leader()));
        if group.peers_of == of {
            return;
        }
        group.peers_of = of;
        let peers = group.find_peers();
        if peers == group.peers {
            return;
        }
        let id = group.core.group();
        let before = std::mem::replace(&mut group.peers, peers);
        for peer in before {
            if group.peers.binary_search(&peer).is_err() {
                self.forget_group_of(peer, id);
            }
        }
        for peer in group.peers.clone() {
            if self.groups_of.entry(peer).or_default().insert(id) {
                let input = match (group.core.is_up(peer), self.is_up(peer)) {
                    (true, false) => Input::PeerDown { peer },
                    (false, true) => Input::PeerUp { peer, restarted: false },
                    _ => continue,
                };
                group.core.step(now, input, &mut group.effects);
            }
        }
    }

    fn forget_group_of(&mut self, peer: NodeId, group: GroupId) {
        if let Some(groups) = self.groups_of.get_mut(&peer) {
            groups.remove(&group);
            if groups.is_empty() {
                self.groups_of.remove(&peer);
            }
        }
    }

    /// Takes over what the group has on the way, and lines it up where it has more to send.
    fn note_in_flight(&mut self, now: Time, group: &mut Group) {
        if group.core.progress().is_empty() && group.accounts.is_empty() {
            return;
        }
        // A leader that was told nothing would send without limit.
        while let Some(peer) = group
            .core
            .progress()
            .iter()
            .find(|peer| peer.allowance.is_none() && group.core.role() == Role::Ready)
            .map(|peer| peer.node)
        {
            let input = Input::Allowance { peer, bytes: 0 };
            group.core.step(now, input, &mut group.effects);
        }
        let (core, accounts) = (&group.core, &mut group.accounts);
        accounts.retain_mut(|account| {
            let stays = core.progress().iter().any(|progress| progress.node == account.peer);
            if !stays && let Some(peer) = self.peers.get_mut(&account.peer) {
                peer.pair.note(account, 0);
            }
            stays
        });
        let settings = &core.settings;
        for progress in core.progress() {
            let Some(peer) = self.peers.get_mut(&progress.node) else { continue };
            let at = accounts.iter().position(|account| account.peer == progress.node);
            let at = at.unwrap_or_else(|| {
                accounts.push(Account::new(progress.node));
                accounts.len() - 1
            });
            let account = &mut accounts[at];
            let sent = progress.in_flight_bytes();
            let reserved = peer.pair.reserve(account, progress.reading.is_some(), sent);
            peer.pair.note(account, sent + reserved);
            if !account.queued && budget::is_hungry(core, progress, settings) {
                let lane = budget::lane(core, progress);
                peer.pair.enqueue(core.group(), account, lane);
            }
        }
    }

    /// Forgets a group that is removed.
    pub(super) fn strike_out(&mut self, now: Time, group: &mut Group) {
        let id = group.core.group();
        self.timers.cancel(id, &mut group.armed);
        self.elections.note(now, id, &mut group.standing, false);
        self.transfers.note(id, |_| false);
        for account in &mut group.accounts {
            if let Some(peer) = self.peers.get_mut(&account.peer) {
                peer.pair.note(account, 0);
            }
        }
        for peer in std::mem::take(&mut group.peers) {
            self.forget_group_of(peer, id);
        }
    }
}
