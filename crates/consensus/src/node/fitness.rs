//! Nodes that should not lead: their clock is off, or their disk takes nothing.

use std::ops::BitOr;
use std::time::Duration;

use super::books::Books;
use super::group::Group;
use super::{Liveness, NodeCore};
use crate::mutants::node_broken;
use crate::{Input, NodeId, Role, Time};

/// How long until a group that is still led here is tried to be handed over again.
pub(super) const HAND_OVER_AGAIN: Duration = Duration::from_millis(500);

/// Why a node should not lead. Nodes tell each other in their beats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UnfitReasons(pub u8);

impl UnfitReasons {
    /// No reason: the node is fit.
    pub const NONE: Self = Self(0);
    /// Its wall clock disagrees with a majority's.
    pub const CLOCK_OFF: Self = Self(1);
    /// Its disk is full: it takes no entries.
    pub const DISK_FULL: Self = Self(2);
    /// Its disk does not get on: it does not acknowledge entries.
    pub const DISK_STALLED: Self = Self(4);

    /// True when one of the reasons is in both.
    #[must_use]
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// True for a node that acknowledges what it is sent all the same.
    fn acknowledges(self) -> bool {
        !self.intersects(Self::DISK_FULL | Self::DISK_STALLED)
    }
}

impl BitOr for UnfitReasons {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Books {
    pub(super) fn is_unfit(&self) -> bool {
        self.unfit != UnfitReasons::NONE
    }

    pub(super) fn is_fit(&self, node: NodeId) -> bool {
        self.reasons(node) == UnfitReasons::NONE
    }

    fn reasons(&self, node: NodeId) -> UnfitReasons {
        if node == self.settings.node {
            return self.unfit;
        }
        self.peers.get(&node).map_or(UnfitReasons::NONE, |peer| peer.contact.unfit)
    }

    /// Who should lead this group instead of this node, if a majority acknowledges what that one
    /// proposes.
    fn fit_successor(&self, group: &Group) -> Option<NodeId> {
        let node = self.settings.node;
        let goes_on = group.core.config().is_quorum(|member| {
            (member == node || group.core.is_up(member)) && self.reasons(member).acknowledges()
        });
        if goes_on { group.best_successor(|peer| self.is_fit(peer)) } else { None }
    }
}

impl NodeCore {
    pub(super) fn on_unfit(&mut self, now: Time, reasons: UnfitReasons) {
        if self.books.unfit == reasons {
            return;
        }
        let was_unfit = self.books.is_unfit();
        self.books.unfit = reasons;
        let reluctant = self.books.is_unfit();
        for peer in self.books.peers.values_mut() {
            // They are told at once.
            peer.contact.greet = true;
        }
        if reluctant != was_unfit {
            for group in self.groups.values_mut() {
                self.books.step(now, group, Input::Reluctant { reluctant });
            }
        }
        self.hand_over_what_is_led(now);
    }

    pub(super) fn on_peer_unfit(&mut self, now: Time, peer: NodeId, reasons: UnfitReasons) {
        if self.books.settings.liveness == Liveness::Told
            && let Some(peer) = self.books.peers.get_mut(&peer)
        {
            peer.contact.unfit = reasons;
            self.look_for_successors(now);
        }
    }

    /// A peer may have become fit to lead.
    pub(super) fn look_for_successors(&mut self, now: Time) {
        if self.books.is_unfit() {
            self.hand_over_what_is_led(now);
        }
    }

    /// Hands over, in good order, what is led here and had better be led elsewhere. Looks again
    /// later as long as something is led.
    pub(super) fn hand_over_what_is_led(&mut self, now: Time) {
        self.books.hand_over_at = None;
        let keeps = node_broken!(self.books.settings, N02UnfitKeepsLeading);
        if !self.books.is_unfit() || self.books.stopping || keeps {
            return;
        }
        for group in self.groups.values_mut() {
            if group.core.leader() != Some(self.books.settings.node) {
                continue;
            }
            self.books.hand_over_at = Some(now + HAND_OVER_AGAIN);
            let waits = group.core.role() != Role::Ready || group.core.is_transferring();
            if !waits && let Some(to) = self.books.fit_successor(group) {
                self.books.counters.unfit_hand_overs += 1;
                self.books.step(now, group, Input::Transfer { to, force: false });
            }
        }
    }
}
