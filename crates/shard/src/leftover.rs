//! Gives back the disk space of a group that this node does not hold any more.
//!
//! What a replica has acknowledged may be nowhere else until its group's leader says that no member
//! needs it. From then on log and state are dropped; the hard state stays, so that the node never
//! forgets what it voted for, and may be taken back with an empty log.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flintmq_consensus::{Core, NodeCore, NodeId, Term, Time};

use crate::effect::Notice;
use crate::host::Host;
use crate::network::own_number;
use crate::replica::Replica;
use crate::store_queue::Request;

/// How long a replica is left alone after it left the group: what was under way comes to its end.
const SETTLED: Duration = Duration::from_secs(5);

/// Numbers the write that drops everything; no core counts so far.
pub(crate) const DROPPING: u64 = u64::MAX;

/// A replica that is no part of its group.
#[derive(Debug, Default)]
pub(crate) struct Leftover {
    since: Option<Time>,
    /// The leader says that no member needs what is here.
    may_drop: bool,
    /// Everything is being dropped; messages are lost meanwhile.
    pub(crate) dropping: bool,
}

/// What shards say to each other about a leftover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// To the leader of this term: does any member need what is here?
    MayDrop(Term),
    /// From the leader of this term: none does.
    Drop(Term),
}

impl Word {
    pub(crate) fn encode(self) -> Bytes {
        let (kind, term) = match self {
            Self::MayDrop(term) => (0, term),
            Self::Drop(term) => (1, term),
        };
        let mut bytes = BytesMut::with_capacity(9);
        bytes.put_u8(kind);
        bytes.put_u64(term);
        bytes.freeze()
    }

    /// None: it is a newer version's.
    pub(crate) fn decode(mut bytes: Bytes) -> Option<Self> {
        if bytes.len() < 9 {
            return None;
        }
        match (bytes.get_u8(), bytes.get_u64()) {
            (0, term) => Some(Self::MayDrop(term)),
            (1, term) => Some(Self::Drop(term)),
            _ => None,
        }
    }
}

impl Replica {
    /// Whether this node has had data for some time of a group that it has left.
    pub(crate) fn is_leftover(&mut self, core: &Core, now: Time) -> bool {
        if core.config().is_member(core.node()) || self.leftover.dropping {
            self.leftover.since = None;
            return false;
        }
        let since = *self.leftover.since.get_or_insert(now);
        now.since(since) >= SETTLED && core.last().index > 0
    }

    /// Once per second: asks the leader about a leftover, or drops it. `leader` serves this node's
    /// clients.
    pub(crate) fn look_at_leftover(
        &mut self,
        core: &NodeCore,
        host: &mut Host,
        leader: Option<(NodeId, Term)>,
    ) {
        let Some(core) = core.group(self.group) else { return };
        if !self.is_leftover(core, host.now) {
            self.leftover.may_drop = false;
            return;
        }
        if std::mem::take(&mut self.leftover.may_drop) {
            return self.drop_leftover(core, host);
        }
        if let Some((leader, term)) = leader
            && !host.assignment.wants(self.group, host.node)
        {
            self.say(host, leader, Word::MayDrop(term));
        }
    }

    /// Takes the word of another node's shard. `leader` serves this node's clients.
    pub(crate) fn on_word(
        &mut self,
        core: &NodeCore,
        host: &mut Host,
        from: NodeId,
        word: Word,
        leader: Option<(NodeId, Term)>,
    ) {
        let Some(core) = core.group(self.group) else { return };
        match word {
            Word::MayDrop(term) => {
                let needed = host.assignment.wants(self.group, from)
                    || core.config().is_member(from)
                    || !core.change_complete();
                if term == core.term() && !needed {
                    self.say(host, from, Word::Drop(term));
                }
            }
            Word::Drop(term) => self.leftover.may_drop |= leader == Some((from, term)),
        }
    }

    fn say(&self, host: &mut Host, to: NodeId, word: Word) {
        // What gets lost is said again with the next tick.
        let _lost = host.network.send_message(to, own_number(self.group), word.encode());
    }

    /// Drops log and state; not while anything is under way.
    fn drop_leftover(&mut self, core: &Core, host: &mut Host) {
        let quiet = self.queue.is_empty()
            && self.installing.is_none()
            && !self.replaced.is_pending()
            && core.is_hard_state_synced()
            && core.synced_index() >= core.last().index
            && !core.hard_state().void;
        if quiet {
            host.notice(self.group, Notice::LeftoverDropped);
            self.leftover.dropping = true;
            self.ask_store(host, Request::Reset { write: DROPPING });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_and_strange_ones_are_left() {
        for word in [Word::MayDrop(7), Word::Drop(u64::MAX)] {
            assert_eq!(Word::decode(word.encode()), Some(word));
        }
        assert_eq!(Word::decode(Bytes::from_static(&[2, 0, 0, 0, 0, 0, 0, 0, 0])), None);
        assert_eq!(Word::decode(Bytes::from_static(&[1, 0])), None);
    }
}
