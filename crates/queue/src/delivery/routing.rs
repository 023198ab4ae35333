//! Whose turn it is: the consumers of the highest priority with room, round robin.

use std::collections::VecDeque;

use crate::ids::HandleId;

/// One subscription of one handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) handle: HandleId,
    /// Which subscription of the handle.
    pub(super) at: usize,
}

/// The members that may get the next message, in the order of their turns. Members of lower
/// priority are never in it, full ones leave it and come back at the end when there is room again,
/// so that a turn is found without looking at those who wait.
#[derive(Debug, Default)]
pub(super) struct Ring {
    members: VecDeque<Member>,
    /// Messages that the first member got in this turn.
    sent: u32,
}

impl Ring {
    pub(super) fn front(&self) -> Option<Member> {
        self.members.front().copied()
    }

    pub(super) fn push(&mut self, member: Member) {
        self.members.push_back(member);
    }

    /// Takes the first member out; it has no room.
    pub(super) fn pop(&mut self) {
        self.members.pop_front();
        self.sent = 0;
    }

    /// The first member got a message; after `count` in a row the next one has its turn.
    pub(super) fn sent(&mut self, count: u32) {
        self.sent += 1;
        if self.sent >= count.max(1) {
            self.members.rotate_left(usize::from(!self.members.is_empty()));
            self.sent = 0;
        }
    }

    pub(super) fn clear(&mut self) {
        self.members.clear();
        self.sent = 0;
    }
}
