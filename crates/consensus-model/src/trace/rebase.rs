//! Cuts what is decided off the model's logs, so that it has room for more.

use super::{Index, TraceChecker};
use crate::protocol::{Committed, Log, MAX_LEN, Message, Role};
use std::collections::BTreeSet;

/// Entries that an ordinary step may add.
const ROOM: Index = 3;

impl TraceChecker {
    /// Makes room for a log that ends here, if that is possible.
    pub(super) fn make_room(&mut self, last: Index) {
        if last.saturating_sub(self.base) + ROOM < MAX_LEN as Index {
            return;
        }
        let cut = self.decided_prefix();
        if cut.len() > 1 {
            self.cut_off(cut.len());
            self.base += Index::from(cut.len());
            self.base_term = cut.at(cut.len());
        }
    }

    /// The longest decided log that nobody contradicts. Those who do not have it yet will: a log
    /// that ends within it is as good as empty.
    fn decided_prefix(&self) -> Log {
        let leaders = self.state.nodes.iter().filter(|node| node.role == Role::Leader);
        let Some(leader) = leaders.max_by_key(|node| node.term) else { return Log::default() };
        let decided = |index: &u8| {
            let term = leader.log.at(*index);
            self.state.committed.iter().any(|e| e.index == *index && e.term == term)
        };
        let mut len = (1..=leader.log.len()).take_while(decided).count() as u8;
        for log in self.logs() {
            while log.prefix(len) != leader.log.prefix(log.len().min(len)) {
                len -= 1;
            }
        }
        for message in &self.state.messages {
            if let Message::Grant { index, .. } = message {
                len = len.min(index.saturating_sub(1));
            }
        }
        leader.log.prefix(len)
    }

    fn logs(&self) -> Vec<Log> {
        let nodes = self.state.nodes.iter();
        let logs = nodes.flat_map(|node| node.versions.iter().chain([&node.log]));
        let sent = self.state.messages.iter().filter_map(|message| match message {
            Message::Append { log, .. } | Message::Reply { log, .. } => Some(log),
            _ => None,
        });
        let replicas = self.replicas.iter();
        let views = replicas.flat_map(|replica| replica.pending.iter().chain(&replica.last));
        let installed = self.replicas.iter().flat_map(|replica| {
            let replaced = replica.replaced.iter().map(|(_, log)| log);
            replica.installed.iter().chain(replaced)
        });
        logs.chain(sent).chain(views.map(|view| &view.log)).chain(installed).copied().collect()
    }

    fn cut_off(&mut self, len: u8) {
        let rest = |log: &Log| Log::of(log.terms().get(usize::from(len)..).unwrap_or_default());
        let before = self.state.clone();
        for (node, replica) in self.state.nodes.iter_mut().zip(&mut self.replicas) {
            if (1..=len).contains(&node.need) {
                replica.need = self.base + Index::from(node.need);
            }
            node.log = rest(&node.log);
            node.versions = node.versions.iter().map(rest).collect();
            node.need = node.need.saturating_sub(len);
        }
        let message = |message: &Message| match *message {
            Message::Reply { term, from, to, log, recovering } => {
                Some(Message::Reply { term, from, to, log: rest(&log), recovering })
            }
            Message::Append { term, from, log } => {
                Some(Message::Append { term, from, log: rest(&log) })
            }
            Message::Ack { term, from, to, index } => {
                // It may still count for what a change of members needs.
                let needed = index >= before.node(to).need;
                let index = index.saturating_sub(len);
                (needed || index > 0).then_some(Message::Ack { term, from, to, index })
            }
            Message::Grant { term, to, index, last } => {
                (index > len).then(|| Message::Grant { term, to, index: index - len, last })
            }
            other => Some(other),
        };
        self.state.messages = before.messages.iter().filter_map(message).collect();
        let later = |entry: &Committed| {
            (entry.index > len).then(|| Committed { index: entry.index - len, ..*entry })
        };
        self.state.committed = before.committed.iter().filter_map(later).collect();
        for replica in &mut self.replicas {
            let below: BTreeSet<u8> =
                replica.acked.iter().map(|entry| entry.0).filter(|index| *index <= len).collect();
            replica.acked_base =
                (self.base == 0 || replica.acked_base) && below.len() == usize::from(len);
            replica.acked =
                replica.acked.iter().filter(|e| e.0 > len).map(|e| (e.0 - len, e.1)).collect();
            let grants: BTreeSet<Message> = replica.grants.iter().filter_map(message).collect();
            replica.grants_cut |= grants.len() < replica.grants.len();
            replica.grants = grants;
            replica.installed = replica.installed.iter().map(rest).collect();
            replica.replaced = replica.replaced.map(|(term, log)| (term, rest(&log)));
            for (_, end) in replica.at_loss.values_mut() {
                *end = end.saturating_sub(len);
            }
            for view in replica.pending.iter_mut().chain(&mut replica.last) {
                view.log = rest(&view.log);
            }
        }
    }
}
