//! Peers about which the host tells, because another part of it beats and listens.
//!
//! What the host says and what packets bring travel on different ways, and either may overtake the
//! other. A message counts only between the two processes that both sides were told of: if one of
//! a process that just started came through before the groups know that it started, they would
//! take the leadership that it won for the one that its predecessor lost.

use super::books::Peer;
use super::{Liveness, NodeCore};
use crate::{NodeId, Time};

/// What the host says of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// This process of it can be reached.
    Up {
        /// Which process.
        incarnation: u64,
        /// It is not the one that was there before.
        restarted: bool,
    },
    /// It cannot be reached.
    Down,
}

impl NodeCore {
    pub(super) fn on_told(&mut self, now: Time, peer: NodeId, word: Word) {
        if self.books.settings.liveness != Liveness::Told {
            return;
        }
        let Some(known) = self.books.peers.get_mut(&peer) else {
            if peer != self.books.settings.node {
                self.books.words.insert(peer, word);
            }
            return;
        };
        let before = known.contact.incarnation;
        let changes = match word {
            Word::Up { incarnation, restarted } => known.contact.on_told_up(incarnation, restarted),
            Word::Down => known.contact.on_told_down().into_iter().collect(),
        };
        let now_known = known.contact.incarnation;
        self.books.counters.restarts_seen += u64::from(before != 0 && now_known > before);
        for change in changes {
            self.tell_groups(now, peer, Some(change));
        }
    }

    /// Keeps the last word on a peer that is removed: it may have come before the removal and be
    /// meant for the time after.
    pub(super) fn keep_word(&mut self, peer: NodeId) {
        let told = self.books.settings.liveness == Liveness::Told;
        let contact = self.books.peers.get(&peer).map(|peer| &peer.contact).filter(|_| told);
        if let Some(contact) = contact.filter(|contact| contact.up) {
            let word = Word::Up { incarnation: contact.incarnation, restarted: false };
            self.books.words.insert(peer, word);
        }
    }

    pub(super) fn add_peer(&mut self, now: Time, peer: NodeId) {
        if peer == self.books.settings.node || self.books.peers.contains_key(&peer) {
            return;
        }
        self.books.peers.insert(peer, Peer::new(now, &self.books.settings));
        if let Some(word) = self.books.words.remove(&peer) {
            self.on_told(now, peer, word);
        }
    }
}
