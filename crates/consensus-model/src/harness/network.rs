//! What is under way between replicas.

use super::{Harness, State};
use flintmq_consensus::{Body, Message, Mutant, Role};
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A set of messages. None is taken out by its arrival.
#[derive(Clone, Debug, Default)]
pub struct Network {
    messages: BTreeMap<u64, Arc<Message>>,
}

impl PartialEq for Network {
    fn eq(&self, other: &Self) -> bool {
        self.messages.keys().eq(other.messages.keys())
    }
}

impl Hash for Network {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for print in self.messages.keys() {
            print.hash(state);
        }
    }
}

impl Network {
    /// All of them, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.messages.values()
    }

    pub(super) fn send(&mut self, message: Message) {
        let print = super::print(&message);
        self.messages.entry(print).or_insert_with(|| Arc::new(message));
    }
}

impl Harness {
    /// Takes out what can have no effect any more, and what only costs states.
    pub(super) fn prune(&self, state: &mut State) {
        let mut network = std::mem::take(&mut state.network.messages);
        network.retain(|_, message| self.matters(state, message));
        let all: Vec<Arc<Message>> = network.values().map(Arc::clone).collect();
        network.retain(|_, message| !all.iter().any(|other| replaces(other, message)));
        state.network.messages = network;
    }

    fn matters(&self, state: &State, message: &Message) -> bool {
        let (Some(to), Some(from)) =
            (state.replicas.get(&message.to), state.replicas.get(&message.from))
        else {
            return false;
        };
        let (to, from) = (&to.core, &from.core);
        let old = message.term < to.term();
        let stands = |core: &flintmq_consensus::Core| {
            core.term() == message.term && matches!(core.role(), Role::Candidate | Role::Syncing)
        };
        match &message.body {
            // The sender stands no more: all that it could do is to raise the receiver's term.
            Body::Propose { .. } => !old && stands(from) && message.term > to.term(),
            Body::Scout { next, .. } => from.role() == Role::Scout && *next > to.term(),
            Body::ScoutReply { next, .. } => to.role() == Role::Scout && *next > to.term(),
            Body::SyncRequest { .. } => !old && from.role() == Role::Syncing && stands(from),
            Body::Reply(_) | Body::FetchReply { .. } => stands(to),
            Body::Fetch { .. } => !old && stands(from),
            Body::Append { .. } => {
                let leads = to.role() == Role::Ready && to.term() == message.term;
                !old && !leads
            }
            Body::Ack { .. } => {
                self.breaks(Mutant::W12CountAcksOfOlderTerms)
                    || (message.term == to.term() && to.role() == Role::Ready)
            }
            Body::RejoinGrant(target) => {
                let old_loss = self.breaks(Mutant::W03GrantWithoutEpoch);
                (to.recovering() == Some(target.epoch) || old_loss)
                    && (!old || self.breaks(Mutant::W05GrantOfOlderTerm))
            }
            // Configurations are also learnt this way; terms are learnt from everything.
            Body::Refused { newer } => {
                newer.as_ref().is_some_and(|newer| newer.stamp > to.config().stamp)
            }
            // News that only save time, and reads, which timers and clients begin.
            _ => false,
        }
    }
}

/// True when whatever the other message could bring about comes about with this one too.
fn replaces(one: &Message, other: &Message) -> bool {
    let ends = |message: &Message| (message.from, message.to, message.term);
    if ends(one) != ends(other) || one == other {
        return false;
    }
    match (&one.body, &other.body) {
        (
            Body::Ack { outcome: Ok(upto), config, recovering, .. },
            Body::Ack { outcome: Ok(old_upto), config: old_config, recovering: lost, .. },
        ) => (upto, config) >= (old_upto, old_config) && config >= old_config && recovering == lost,
        (
            Body::Append { prev, entries, commit, config, newer, rejoin, .. },
            Body::Append {
                prev: old_prev,
                entries: old_entries,
                commit: old_commit,
                config: old_config,
                newer: old_newer,
                rejoin: old_rejoin,
                ..
            },
        ) => {
            prev == old_prev
                && entries.starts_with(old_entries)
                && commit >= old_commit
                && config >= old_config
                && (newer.is_some() || old_newer.is_none())
                && (rejoin == old_rejoin || old_rejoin.is_none())
        }
        _ => false,
    }
}
