//! How a [`Walk`] ends: all is well again, and then nothing may be missing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flintmq_protocol::ack::AckStatus;
use flintmq_queue::{Admission, Guid, QueueId};

use super::clients::{Seen, configure, guid};
use super::walk::{Walk, pairs};
use crate::{Request, SessionId};

impl Walk {
    /// All is well again, for long enough.
    pub(super) fn calm_down(&mut self) {
        (self.world.commits, self.world.reads) = (true, true);
        self.world.cut.clear();
        self.world.lost.clear();
        self.world.late.clear();
        self.mend_reach();
        for (from, to) in pairs() {
            self.world.set_full(from, to, false);
        }
        let isolated: Vec<usize> = self.world.isolated.iter().copied().collect();
        isolated.into_iter().for_each(|at| self.world.heal(at));
        for at in 0..self.sessions.len() {
            if std::mem::take(&mut self.sessions[at].full) {
                let (node, number) = (self.sessions[at].node, self.sessions[at].number);
                self.world.give(node, Request::SessionRoom(SessionId(number)));
            }
        }
        for _ in 0..80 {
            self.world.tick();
        }
    }

    /// Consumers take all that there is; nothing may be left.
    pub(super) fn drain(&mut self) {
        for at in 0..self.sessions.len() {
            if self.is_open(&self.sessions[at], self.sessions[at].reader) {
                let session = &mut self.sessions[at];
                session.configures += 1;
                let (number, id) = (session.number, session.configures.into());
                let request = configure(number, session.reader, id, 1000);
                self.world.ask(session.node, request);
            }
        }
        for _ in 0..200 {
            (0..self.sessions.len()).for_each(|at| self.confirm_some(at));
            self.world.pass(Duration::from_millis(20));
        }
    }

    /// The first session, which alone reads, got each producer's messages in their order, however
    /// often they were delivered again.
    pub(super) fn check_order(&self) {
        let Some(session) = self.sessions.first() else { return };
        let (mut known, mut last) = (BTreeSet::new(), BTreeMap::new());
        for message in self.world.nodes[session.node].client.pushed(session.number) {
            if known.insert(message) {
                let before = last.insert(self.producers[&message], message);
                assert!(before < Some(message), "first delivered behind {before:?}: {message}");
            }
        }
    }

    /// Tells how many messages were answered.
    pub(super) fn check(&self) -> usize {
        let mut answered = 0;
        for (node, ticket) in &self.tickets {
            let answers = self.world.answers(*node, *ticket);
            assert_eq!(answers.len(), 1, "node={node} ticket={ticket} {answers:?}");
        }
        let lived = self.sessions.iter().map(|one| (one.node, one.number, &one.published));
        let gone = self.gone.iter().map(|(node, number, published)| (*node, *number, published));
        for (node, number, published) in lived.chain(gone) {
            let seen = self.world.seen(node, number);
            assert!(!seen.contains(&Seen::SessionEnds), "no queue was deleted");
            let mut acks: BTreeMap<u64, usize> = BTreeMap::new();
            for seen in seen {
                if let Seen::Ack { message, status } = seen {
                    assert_eq!(*status, AckStatus::Success, "message={message}");
                    *acks.entry(*message).or_default() += 1;
                }
            }
            answered += published.len();
            for message in published {
                let count = acks.get(message).copied().unwrap_or(0);
                assert_eq!(count, 1, "node={node} session={number} message={message}");
                let guid = Guid(guid(*message).0);
                let stored = self.world.nodes[0].engine.machine().admit(QueueId(1), guid, 1);
                assert_eq!(stored, Admission::Duplicate, "message={message}: success is a lie");
            }
        }
        for session in &self.sessions {
            let seen = self.world.seen(session.node, session.number);
            let answers = seen.iter().filter(|seen| matches!(seen, Seen::Response(_))).count();
            assert_eq!(answers, session.configures as usize, "session={}", session.number);
        }
        if self.sessions.iter().any(|session| self.is_open(session, session.reader)) {
            let left = self.world.messages(0, 1);
            let leader = self.world.leader().unwrap();
            let view = self.world.nodes[leader].engine.machine().view(QueueId(1));
            assert_eq!(left, 0, "messages wait beside a consumer with room: {view:?}");
        }
        for (at, node) in self.world.nodes.iter().enumerate() {
            assert!(node.engine.is_idle(), "node={at} has work that nothing will end");
        }
        answered
    }
}
