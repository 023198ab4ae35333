//! A node's disk, as the storage contract describes it
//! (docs/internals/consensus.md#what-is-written-where): one history of versions of everything that
//! is not fsynced, and the hard states beside it.

use std::collections::{BTreeMap, VecDeque};

use flintmq_consensus::{
    Core, CreationId, Entry, Epoch, GroupId, HardState, Index, Input, LogPosition, SnapshotId, Term,
};

use crate::ghost::{Check, Violation};
use crate::random::Random;
use crate::replica::{Action, Change, Replica};

/// What is told to the core once a write returned.
#[derive(Clone, Debug)]
pub(crate) enum Report {
    Appended { write: u64 },
    Staged { id: SnapshotId, cursor: bytes::Bytes },
    Installed { id: SnapshotId },
    Compacted { upto: LogPosition },
    Nothing,
}

impl Report {
    pub(crate) fn input(self) -> Option<Input> {
        match self {
            Self::Appended { write } => Some(Input::Appended { write }),
            Self::Staged { id, cursor } => Some(Input::SnapshotStaged { id, cursor }),
            Self::Installed { id } => Some(Input::SnapshotInstalled { id }),
            Self::Compacted { upto } => Some(Input::Compacted { upto }),
            Self::Nothing => None,
        }
    }
}

#[derive(Clone, Debug)]
struct Queued {
    change: Change,
    report: Report,
}

type HardStates = Vec<(GroupId, CreationId, HardState)>;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    /// Raised durably at each start that follows an unclean stop
    /// (docs/internals/storage.md#what-an-unclean-stop-leaves).
    pub(crate) loss_epoch: Epoch,
    /// The last stop was a clean one, so nothing can be missing.
    pub(crate) clean: bool,
    /// Something may be missing since the last start.
    pub(crate) lossy: bool,
    /// Process starts.
    pub(crate) runs: u64,
    hard: BTreeMap<GroupId, (CreationId, HardState)>,
    pending_hard: VecDeque<(u64, HardStates)>,
    /// As of the last fsync.
    synced: BTreeMap<GroupId, Replica>,
    /// Written since, in order; numbered from `first_change`.
    written: VecDeque<Change>,
    first_change: u64,
    /// All that is written.
    current: BTreeMap<GroupId, Replica>,
    /// Asked for, not written yet.
    queue: VecDeque<Queued>,
    /// Written, to be reported once fsynced.
    waiting: VecDeque<(u64, GroupId, Report)>,
    /// Up to which change the fsync under way reaches.
    pub(crate) syncing: Option<u64>,
}

fn carry_out(store: &mut BTreeMap<GroupId, Replica>, change: &Change) -> Result<(), String> {
    if matches!(change.action, Action::Delete) {
        store.remove(&change.group);
        return Ok(());
    }
    match store.get_mut(&change.group) {
        Some(replica) => change.action.apply(replica),
        // A write that was under way when the group was deleted.
        None => Ok(()),
    }
}

impl Disk {
    pub(crate) fn groups(&self) -> impl Iterator<Item = (GroupId, &Replica)> {
        self.current.iter().map(|(group, replica)| (*group, replica))
    }

    pub(crate) fn replica(&self, group: GroupId) -> Option<&Replica> {
        self.current.get(&group)
    }

    pub(crate) fn synced_replica(&self, group: GroupId) -> Option<&Replica> {
        self.synced.get(&group)
    }

    pub(crate) fn hard_state(&self, group: GroupId) -> Option<&HardState> {
        self.hard.get(&group).map(|(_, state)| state)
    }

    /// Makes a group, durably, without a log. A hard state that is there already stays.
    pub(crate) fn create(&mut self, group: GroupId, creation: CreationId, state: HardState) {
        self.hard.entry(group).or_insert((creation, state));
        self.sync_all();
        let replica = Replica::new(creation, self.loss_epoch);
        self.synced.insert(group, replica.clone());
        self.current.insert(group, replica);
        // What is under way for an earlier making is void.
        self.queue.retain(|queued| queued.change.group != group);
    }

    /// True when the entry is written that the core means: what is decided may be on its way to the
    /// disk still, while an earlier entry is in its place.
    pub(crate) fn may_apply(&self, core: Option<&Core>, group: GroupId, index: Index) -> bool {
        let written = self.current.get(&group).and_then(|replica| replica.log.get(index));
        written.is_some_and(|entry| {
            core.is_some_and(|core| core.log().term_at(index) == Some(entry.term))
        })
    }

    pub(crate) fn enqueue(&mut self, change: Change, report: Report) {
        self.queue.push_back(Queued { change, report });
    }

    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_installing(&self) -> bool {
        let install = |change: &Change| matches!(change.action, Action::Install { .. });
        self.queue.iter().any(|queued| install(&queued.change)) || self.written.iter().any(install)
    }

    /// Writes the first `count` that are asked for. `fsync` tells for which groups an append is
    /// reported only once it is fsynced; what replaces the log always is. What can be reported at
    /// once is returned. `observe` sees the entries that are written, and the term before them.
    pub(crate) fn write(
        &mut self,
        count: usize,
        fsync: impl Fn(GroupId) -> bool,
        mut observe: impl FnMut(GroupId, Term, &[Entry]) -> Check,
    ) -> Result<Vec<(GroupId, Report)>, Violation> {
        let mut reports = Vec::new();
        for _ in 0..count {
            let Some(Queued { change, report }) = self.queue.pop_front() else { break };
            let group = change.group;
            if let Action::Append { entries, .. } = &change.action
                && let (Some(first), Some(replica)) = (entries.first(), self.current.get(&group))
                && let Some(before) = replica.log.term_at(first.index - 1)
            {
                observe(group, before, entries)?;
            }
            carry_out(&mut self.current, &change).map_err(|why| Violation {
                invariant: "Write order",
                detail: format!("group {group}: {why}"),
            })?;
            let replaces = matches!(change.action, Action::Reset | Action::Install { .. });
            self.written.push_back(change);
            if replaces || fsync(group) && matches!(report, Report::Appended { .. }) {
                self.waiting.push_back((self.last_change(), group, report));
            } else {
                reports.push((group, report));
            }
        }
        Ok(reports)
    }

    fn last_change(&self) -> u64 {
        self.first_change + self.written.len() as u64
    }

    pub(crate) fn has_unsynced(&self) -> bool {
        !self.written.is_empty()
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(crate) fn begin_sync(&mut self) {
        self.syncing = Some(self.last_change());
    }

    /// The fsync returned: what was written before it began is safe. Returns what can be reported,
    /// and for each changed group up to where its present log is safe.
    #[allow(clippy::type_complexity)] // two lists, each obvious
    pub(crate) fn end_sync(&mut self) -> (Vec<(GroupId, Report)>, Vec<(GroupId, Index)>) {
        let Some(upto) = self.syncing.take() else { return (Vec::new(), Vec::new()) };
        let mut changed = Vec::new();
        while self.first_change < upto {
            let Some(change) = self.written.pop_front() else { break };
            self.first_change += 1;
            changed.push(change.group);
            // It fitted when it was written.
            let _ = carry_out(&mut self.synced, &change);
        }
        self.first_change = self.first_change.max(upto);
        changed.sort_unstable();
        changed.dedup();
        let mut safe = Vec::new();
        for group in changed {
            if let Some(replica) = self.synced.get(&group) {
                safe.push((group, self.first_cut(group, replica.log.last().index)));
            }
        }
        let mut reports = Vec::new();
        while self.waiting.front().is_some_and(|(change, ..)| *change <= upto) {
            reports.extend(self.waiting.pop_front().map(|(_, group, report)| (group, report)));
        }
        (reports, safe)
    }

    /// Up to where the fsynced log was not cut since.
    fn first_cut(&self, group: GroupId, last: Index) -> Index {
        let queued = self.queue.iter().map(|queued| &queued.change);
        self.written
            .iter()
            .chain(queued)
            .filter(|change| change.group == group)
            .filter_map(|change| match &change.action {
                Action::Append { truncate_from: Some(index), .. } => Some(index - 1),
                Action::Reset | Action::Delete | Action::Install { keep_log_after: false, .. } => {
                    Some(0)
                }
                _ => None,
            })
            .fold(last, Index::min)
    }

    pub(crate) fn save_hard(&mut self, batch: u64, states: HardStates) {
        self.pending_hard.push_back((batch, states));
    }

    /// Makes up to `count` batches of hard states durable; the number of the last is returned, and
    /// whose they are.
    pub(crate) fn sync_hard(&mut self, count: usize) -> Option<(u64, Vec<GroupId>)> {
        let mut last = None;
        let mut groups = Vec::new();
        for _ in 0..count {
            let Some((batch, states)) = self.pending_hard.pop_front() else { break };
            for (group, creation, state) in states {
                self.hard.insert(group, (creation, state));
                groups.push(group);
            }
            last = Some(batch);
        }
        Some((last?, groups))
    }

    pub(crate) fn pending_hard(&self) -> usize {
        self.pending_hard.len()
    }

    /// The process is gone. What it wrote stays, and perhaps some of what was under way.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        let some = |random: &mut Random, of: usize| -> usize {
            usize::try_from(random.below(of as u64 + 1)).unwrap_or(0)
        };
        let count = some(random, self.queue.len());
        // Reports find nobody.
        let _ = self.write(count, |_| false, |_, _, _| Ok(()));
        self.queue.clear();
        self.waiting.clear();
        self.syncing = None;
        let count = some(random, self.pending_hard.len());
        self.sync_hard(count);
        self.pending_hard.clear();
        self.clean = false;
    }

    /// The power is gone: the store is in any earlier state since its last fsync, or nothing is
    /// lost. Returns how many changes are lost.
    pub(crate) fn lose_power(&mut self, random: &mut Random) -> u64 {
        self.crash(random);
        self.lossy = true;
        let all = self.written.len() as u64;
        let keep = if random.chance(250_000) { all } else { random.below(all + 1) };
        let lost: Vec<Change> = self.written.drain(usize::try_from(keep).unwrap_or(0)..).collect();
        self.sync_all();
        self.current.clone_from(&self.synced);
        lost.len() as u64
    }

    fn sync_all(&mut self) {
        while let Some(change) = self.written.pop_front() {
            self.first_change += 1;
            let _ = carry_out(&mut self.synced, &change);
        }
    }

    /// Everything is written and fsynced, and the node knows that it is.
    pub(crate) fn stop_cleanly(&mut self) {
        let _ = self.write(self.queue.len(), |_| false, |_, _, _| Ok(()));
        self.sync_hard(self.pending_hard.len());
        self.waiting.clear();
        self.syncing = None;
        self.sync_all();
        self.clean = true;
    }

    /// Forgets all of a group that is only kept in memory, hard state and creation excepted.
    pub(crate) fn forget_memory(&mut self, group: GroupId) {
        for store in [&mut self.current, &mut self.synced] {
            if let Some(replica) = store.get_mut(&group) {
                *replica = Replica::new(replica.creation, 0);
            }
        }
    }

    /// The first durable act of a new process: raises the loss epoch when something may be missing.
    pub(crate) fn start(&mut self) {
        if self.lossy && !self.clean {
            self.loss_epoch += 1;
        }
        self.lossy = false;
        self.clean = false;
        self.runs += 1;
        // What a crashed process had written stays in the page cache, unsynced.
    }
}
