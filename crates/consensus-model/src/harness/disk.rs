//! What a replica has written, and what a power loss may make of it.

use flintmq_consensus::{Entry, Epoch, HardState, Index};
use std::collections::VecDeque;
use std::sync::Arc;

/// A write of the log that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Write {
    pub(super) number: u64,
    /// All that was there goes, with an fsync.
    pub(super) reset: bool,
    pub(super) truncate_from: Option<Index>,
    pub(super) entries: Vec<Entry>,
}

/// A store that keeps the storage contract, and no more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Disk {
    /// The fsynced hard state.
    pub hard: HardState,
    /// The log as written; not fsynced.
    pub log: Arc<Vec<Entry>>,
    /// How often the tail may have been lost.
    pub epoch: Epoch,
    /// The loss that was made good last.
    pub rejoined: Epoch,
    /// What this process has applied; a new one begins at a checkpoint, here an empty one.
    pub applied: Arc<Vec<Entry>>,
    /// Logs of before, oldest first, that a power loss may bring back.
    pub(super) versions: Vec<Arc<Vec<Entry>>>,
    pub(super) saves: VecDeque<(u64, HardState)>,
    pub(super) writes: VecDeque<Write>,
}

impl Disk {
    pub(super) fn new(hard: HardState) -> Self {
        Self {
            hard,
            log: Arc::default(),
            epoch: 0,
            rejoined: 0,
            applied: Arc::default(),
            versions: Vec::new(),
            saves: VecDeque::new(),
            writes: VecDeque::new(),
        }
    }

    /// Carries out the oldest save; its number.
    pub(super) fn save(&mut self) -> Option<u64> {
        let (number, hard) = self.saves.pop_front()?;
        self.hard = hard;
        Some(number)
    }

    /// Carries out the oldest write; its number.
    pub(super) fn write(&mut self, keep_versions: bool) -> Option<u64> {
        let write = self.writes.pop_front()?;
        if keep_versions {
            self.remember();
        }
        let mut log = Vec::clone(&self.log);
        if write.reset {
            log.clear();
            self.versions.clear();
            self.applied = Arc::default();
        }
        if let Some(from) = write.truncate_from {
            log.truncate(usize::try_from(from).unwrap_or(usize::MAX).saturating_sub(1));
        }
        for entry in write.entries {
            if keep_versions && !log.is_empty() {
                // Entries of one write are written one after the other.
                self.log = Arc::new(log.clone());
                self.remember();
            }
            log.push(entry);
        }
        self.log = Arc::new(log);
        Some(write.number)
    }

    /// Lowers the numbers of what is under way.
    pub(super) fn renumber(&mut self, saves: u64, writes: u64) {
        for (number, _) in &mut self.saves {
            *number -= saves;
        }
        for write in &mut self.writes {
            write.number -= writes;
        }
    }

    fn remember(&mut self) {
        if self.versions.last() != Some(&self.log) {
            self.versions.push(Arc::clone(&self.log));
        }
    }

    /// The process is gone; with `done`, what was under way got written.
    pub(super) fn crash(&mut self, done: bool, keep_versions: bool) {
        while done && self.save().is_some() {}
        while done && self.write(keep_versions).is_some() {}
        self.saves.clear();
        self.writes.clear();
        self.applied = Arc::default();
    }

    /// The versions that a power loss may leave, newest first.
    pub(super) fn left_by_power_loss(&self) -> Vec<Arc<Vec<Entry>>> {
        let mut left = vec![Arc::clone(&self.log)];
        for version in self.versions.iter().rev() {
            if !left.contains(version) {
                left.push(Arc::clone(version));
            }
        }
        left
    }

    /// Back to this version; the loss is noticed.
    pub(super) fn lose_power(&mut self, version: &Arc<Vec<Entry>>, keep_versions: bool) {
        self.crash(false, keep_versions);
        if let Some(at) = self.versions.iter().rposition(|known| known == version) {
            self.versions.truncate(at);
        }
        if !keep_versions {
            self.versions.clear();
        }
        self.log = Arc::clone(version);
        self.epoch += 1;
    }
}
