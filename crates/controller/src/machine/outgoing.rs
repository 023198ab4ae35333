//! Answers to other nodes, until their connection has room.

use std::collections::{BTreeMap, BTreeSet};

use flintmq_consensus::{Index, NodeId};
use flintmq_shard::{Group, NotSent};

use crate::message::ControllerMessage;

/// What one node is owed. A node has one question at a time and few changes under way, so there is
/// at most one answer of each kind, and no more numbers than its window has.
#[derive(Default)]
struct Owed {
    not_taken: BTreeMap<u64, BTreeSet<u64>>,
    read_at: Option<(u64, u64, Option<Index>)>,
}

/// Answers that are not sent yet, and connections that are full.
#[derive(Default)]
pub(super) struct Outgoing {
    owed: BTreeMap<NodeId, Owed>,
    full: BTreeSet<NodeId>,
}

impl Outgoing {
    /// The node's changes were not taken.
    pub(super) fn not_taken(&mut self, to: NodeId, process: u64, number: u64) {
        let owed = self.owed.entry(to).or_default();
        // Only the latest process reads answers.
        owed.not_taken.retain(|known, _| *known >= process);
        owed.not_taken.entry(process).or_default().insert(number);
    }

    /// The node's question is answered; earlier ones need no answer any more.
    pub(super) fn read_at(
        &mut self,
        to: NodeId,
        (process, number): (u64, u64),
        index: Option<Index>,
    ) {
        self.owed.entry(to).or_default().read_at = Some((process, number, index));
    }

    /// The connection to the node is gone, or is another one: so is what was owed on it.
    pub(super) fn forget(&mut self, peer: NodeId) {
        self.owed.remove(&peer);
        self.full.remove(&peer);
    }

    /// The connection has room again.
    pub(super) fn room(&mut self, peer: NodeId) {
        self.full.remove(&peer);
    }

    /// Sends a message now, or says that it has to wait.
    pub(super) fn send(
        &mut self,
        group: &mut dyn Group,
        to: NodeId,
        message: &ControllerMessage,
    ) -> Result<(), NotSent> {
        if self.full.contains(&to) {
            return Err(NotSent::Full);
        }
        let sent = group.send(to, message.to_bytes());
        if sent == Err(NotSent::Full) {
            self.full.insert(to);
        }
        sent
    }

    /// Sends what is owed as far as there is room.
    pub(super) fn flush(&mut self, group: &mut dyn Group) {
        let nodes: Vec<NodeId> = self.owed.keys().copied().collect();
        for to in nodes {
            let Some(mut owed) = self.owed.remove(&to) else { continue };
            if self.settle(group, to, &mut owed) == Err(NotSent::Full) {
                self.owed.insert(to, owed);
            }
        }
    }

    fn settle(
        &mut self,
        group: &mut dyn Group,
        to: NodeId,
        owed: &mut Owed,
    ) -> Result<(), NotSent> {
        if let Some((process, number, index)) = owed.read_at {
            self.send(group, to, &ControllerMessage::ReadAt { process, number, index })?;
            owed.read_at = None;
        }
        while let Some((process, numbers)) = owed.not_taken.first_key_value() {
            let (process, numbers) = (*process, numbers.iter().copied().collect());
            self.send(group, to, &ControllerMessage::NotTaken { process, numbers })?;
            owed.not_taken.pop_first();
        }
        Ok(())
    }
}
