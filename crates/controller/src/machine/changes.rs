//! The changes that this node asks for, until their outcome is known here.

use std::collections::{BTreeMap, BTreeSet};

use flintmq_consensus::{NodeId, Time};

use crate::command::{ChangeId, LoggedChange, MetadataCommand};
use crate::message::ForwardedChange;
use crate::metadata::CHANGE_WINDOW;
use crate::request::ChangeError;

/// Most bytes of changes that wait, as they are encoded.
pub(super) const MAX_PENDING_BYTES: usize = 32 << 20;

/// Most bytes of one change.
pub(super) const MAX_CHANGE_BYTES: usize = 16 << 20;

/// Most changes in one message or entry, and the bytes after which none is added.
pub(super) const BATCH_CHANGES: usize = 256;
pub(super) const BATCH_BYTES: usize = 1 << 20;

struct Pending {
    /// None for what the controller asks of itself.
    ticket: Option<u64>,
    commands: Vec<MetadataCommand>,
    bytes: usize,
    deadline: Time,
    /// The present leader has it.
    handed: Option<Time>,
    /// Some leader had it: it may have been made.
    ever_handed: bool,
}

/// The changes that this node asks for, by number. At most [`CHANGE_WINDOW`] numbers apart, and
/// [`MAX_PENDING_BYTES`].
pub(super) struct PendingChanges {
    node: NodeId,
    process: u64,
    next: u64,
    pending: BTreeMap<u64, Pending>,
    deadlines: BTreeSet<(Time, u64)>,
    bytes: usize,
}

impl PendingChanges {
    pub(super) fn new(node: NodeId, process: u64) -> Self {
        let (pending, deadlines) = (BTreeMap::new(), BTreeSet::new());
        Self { node, process, next: 1, pending, deadlines, bytes: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn process(&self) -> u64 {
        self.process
    }

    /// Whether this number is waited for.
    pub(super) fn has(&self, number: u64) -> bool {
        self.pending.contains_key(&number)
    }

    /// Takes a change and gives its number.
    pub(super) fn add(
        &mut self,
        ticket: Option<u64>,
        commands: Vec<MetadataCommand>,
        deadline: Time,
    ) -> Result<u64, ChangeError> {
        let bytes = serde_json::to_vec(&commands).map_or(usize::MAX, |json| json.len());
        if bytes > MAX_CHANGE_BYTES {
            return Err(ChangeError::TooLarge { bytes, limit: MAX_CHANGE_BYTES });
        }
        let is_full = self.next - self.oldest() >= CHANGE_WINDOW;
        if is_full || self.bytes.saturating_add(bytes) > MAX_PENDING_BYTES {
            return Err(ChangeError::Busy);
        }
        let number = self.next;
        self.next += 1;
        self.bytes += bytes;
        self.deadlines.insert((deadline, number));
        let (handed, ever_handed) = (None, false);
        let pending = Pending { ticket, commands, bytes, deadline, handed, ever_handed };
        self.pending.insert(number, pending);
        Ok(number)
    }

    /// The oldest number that is waited for.
    pub(super) fn oldest(&self) -> u64 {
        self.pending.first_key_value().map_or(self.next, |(number, _)| *number)
    }

    /// This node's name for the change of this number.
    pub(super) fn id(&self, number: u64) -> ChangeId {
        ChangeId { node: self.node.0, process: self.process, number }
    }

    /// All numbers.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.pending.keys().copied().collect()
    }

    /// Ends the wait for a change; gives its ticket, if it was waited for and has one.
    pub(super) fn take(&mut self, id: &ChangeId) -> Option<u64> {
        if (id.node, id.process) != (self.node.0, self.process) {
            return None;
        }
        self.remove(id.number).and_then(|pending| pending.ticket)
    }

    /// Gives up a change; its outcome is of no interest any more.
    pub(super) fn give_up(&mut self, number: u64) {
        self.remove(number);
    }

    fn remove(&mut self, number: u64) -> Option<Pending> {
        let pending = self.pending.remove(&number)?;
        self.deadlines.remove(&(pending.deadline, number));
        self.bytes -= pending.bytes;
        Some(pending)
    }

    /// The tickets whose time is up, with what to answer.
    pub(super) fn expired(&mut self, now: Time) -> Vec<(u64, ChangeError)> {
        let mut expired = Vec::new();
        while let Some((deadline, number)) = self.deadlines.first().copied()
            && deadline <= now
        {
            let Some(pending) = self.remove(number) else { break };
            let error = match pending.ever_handed {
                true => ChangeError::Unknown,
                false => ChangeError::NoLeader,
            };
            expired.extend(pending.ticket.map(|ticket| (ticket, error)));
        }
        expired
    }

    /// When the next one's time is up.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// No leader has any of them.
    pub(super) fn none_is_handed(&mut self) {
        self.pending.values_mut().for_each(|pending| pending.handed = None);
    }

    /// The leader did not take these.
    pub(super) fn not_taken(&mut self, numbers: &[u64]) {
        for number in numbers {
            if let Some(pending) = self.pending.get_mut(number) {
                pending.handed = None;
            }
        }
    }

    /// What the leader got before this moment and nothing came of is sent again.
    pub(super) fn resend_older_than(&mut self, then: Time) {
        for pending in self.pending.values_mut() {
            pending.handed = pending.handed.filter(|at| *at > then);
        }
    }

    /// The next changes for a leader elsewhere.
    pub(super) fn batch_to_forward(&self) -> Vec<ForwardedChange> {
        let mut bytes = 0;
        let waiting = self.pending.iter().filter(|(_, pending)| pending.handed.is_none());
        let fit = waiting.take_while(|(_, pending)| {
            let fits = bytes == 0 || bytes + pending.bytes <= BATCH_BYTES;
            bytes += pending.bytes;
            fits
        });
        let change = |(number, pending): (&u64, &Pending)| ForwardedChange {
            number: *number,
            commands: pending.commands.clone(),
        };
        fit.take(BATCH_CHANGES).map(change).collect()
    }

    /// The leader has these now.
    pub(super) fn handed(&mut self, numbers: impl IntoIterator<Item = u64>, now: Time) {
        for number in numbers {
            if let Some(pending) = self.pending.get_mut(&number) {
                pending.handed = Some(now);
                pending.ever_handed = true;
            }
        }
    }

    /// Everything that no leader has, for this node's own log.
    pub(super) fn take_for_log(&mut self, now: Time) -> Vec<(LoggedChange, usize)> {
        let oldest = self.oldest();
        let (node, process) = (self.node.0, self.process);
        let waiting = self.pending.iter_mut().filter(|(_, pending)| pending.handed.is_none());
        waiting
            .map(|(number, pending)| {
                pending.handed = Some(now);
                pending.ever_handed = true;
                let id = Some(ChangeId { node, process, number: *number });
                (LoggedChange { id, oldest, commands: pending.commands.clone() }, pending.bytes)
            })
            .collect()
    }
}
