//! Requests that wait until this node's metadata are as new as what was committed when they came.

use std::collections::{BTreeMap, BTreeSet};

use flintmq_consensus::{Index, Time};

/// Most requests that wait.
pub(super) const MAX_CATCH_UPS: usize = 16_384;

/// A question to a leader elsewhere that is not answered.
struct Asked {
    number: u64,
    /// None: it is to be sent again. Whichever copy is answered, the answer is new enough.
    sent: Option<Time>,
    requests: Vec<u64>,
}

/// The requests of this node. One question answers all that came before it was asked; those that
/// come meanwhile share the next one.
#[derive(Default)]
pub(super) struct CatchUps {
    next: u64,
    requests: BTreeMap<u64, (u64, Time)>,
    deadlines: BTreeSet<(Time, u64)>,
    unasked: Vec<u64>,
    asked: Option<Asked>,
    next_question: u64,
    /// By the entry that has to be applied. Bounded like all by [`MAX_CATCH_UPS`].
    waiting: BTreeMap<Index, Vec<u64>>,
}

impl CatchUps {
    /// Takes a request; false when too many wait.
    pub(super) fn add(&mut self, ticket: u64, deadline: Time) -> bool {
        if self.requests.len() >= MAX_CATCH_UPS {
            return false;
        }
        self.next += 1;
        self.requests.insert(self.next, (ticket, deadline));
        self.deadlines.insert((deadline, self.next));
        self.unasked.push(self.next);
        true
    }

    /// Whether any request waits for a question to be asked.
    pub(super) fn has_unasked(&self) -> bool {
        !self.unasked.is_empty()
    }

    /// All requests that no question was asked for, for one that is asked now.
    pub(super) fn take_unasked(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.unasked)
    }

    /// A question came to nothing.
    pub(super) fn ask_again(&mut self, requests: Vec<u64>) {
        let known = requests.into_iter().filter(|request| self.requests.contains_key(request));
        self.unasked.extend(known);
    }

    /// The number of the next question for a leader elsewhere, if one is to be asked now.
    pub(super) fn next_question(&self) -> Option<u64> {
        match &self.asked {
            Some(asked) => asked.sent.is_none().then_some(asked.number),
            None => self.has_unasked().then_some(self.next_question + 1),
        }
    }

    /// That question was sent.
    pub(super) fn question_sent(&mut self, now: Time) {
        if let Some(asked) = &mut self.asked {
            asked.sent = Some(now);
            return;
        }
        self.next_question += 1;
        let requests = self.take_unasked();
        self.asked = Some(Asked { number: self.next_question, sent: Some(now), requests });
    }

    /// The leader that was asked is not, or may not be, the one to answer.
    pub(super) fn withdraw_question(&mut self) {
        if let Some(asked) = self.asked.take() {
            self.ask_again(asked.requests);
        }
    }

    /// A question that was sent before this moment is sent again.
    pub(super) fn resend_older_than(&mut self, then: Time) {
        if let Some(asked) = &mut self.asked {
            asked.sent = asked.sent.filter(|at| *at > then);
        }
    }

    /// The requests of this question, once it is answered. An answer to an earlier one is none.
    pub(super) fn answered(&mut self, number: u64) -> Option<Vec<u64>> {
        let asked = self.asked.take_if(|asked| asked.number == number)?;
        Some(asked.requests)
    }

    /// These wait until this entry is applied.
    pub(super) fn wait_for(&mut self, index: Index, requests: Vec<u64>) {
        if !requests.is_empty() {
            self.waiting.entry(index).or_default().extend(requests);
        }
    }

    /// The tickets whose wait ends, now that everything up to this entry is applied.
    pub(super) fn reached(&mut self, applied: Index) -> Vec<u64> {
        let mut tickets = Vec::new();
        while let Some(entry) = self.waiting.first_entry()
            && *entry.key() <= applied
        {
            for request in entry.remove() {
                if let Some((ticket, deadline)) = self.requests.remove(&request) {
                    self.deadlines.remove(&(deadline, request));
                    tickets.push(ticket);
                }
            }
        }
        tickets
    }

    /// The tickets whose time is up.
    pub(super) fn expired(&mut self, now: Time) -> Vec<u64> {
        let mut tickets = Vec::new();
        while let Some((deadline, request)) = self.deadlines.first().copied()
            && deadline <= now
        {
            self.deadlines.pop_first();
            tickets.extend(self.requests.remove(&request).map(|(ticket, _)| ticket));
        }
        if !tickets.is_empty() {
            let known = |request: &u64| self.requests.contains_key(request);
            self.unasked.retain(known);
            self.waiting.retain(|_, requests| {
                requests.retain(known);
                !requests.is_empty()
            });
        }
        tickets
    }

    /// When the next one's time is up.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }
}
