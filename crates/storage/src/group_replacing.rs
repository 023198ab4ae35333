//! What the log writer does to groups as a whole: they are born, emptied, removed, forgotten, and
//! replaced by a snapshot.
//!
//! Whatever replaces a past comes to be on the group's spare side, and one fsynced write of the
//! group's record switches to it: after a power loss it is the old past or the new one.

use crate::database::Family;
use crate::inbox::SyncMark;
use crate::log_writer::{LogWriter, Trouble};
use crate::records;
use crate::side_clearing::Clearing;
use flintmq_consensus::{GroupId, HardState, Index, LogPosition, SnapshotId};
use flintmq_log_store::StorageError;
use flintmq_log_store::parts::group_log::GroupLog;
use flintmq_log_store::parts::group_record::{GroupState, HIGHEST_GROUP, Side, Slot, forgets};
use flintmq_log_store::parts::snapshot_staging::{StagedRecord, Staging};
use flintmq_log_store::{NewGroup, Report, SnapshotReport, StagedPiece};
use rocksdb::{ReadOptions, WriteBatch, WriteOptions};
use std::io::IoSlice;

impl LogWriter {
    /// Creates a group, or brings one back that was removed.
    pub(crate) fn create(&mut self, group: GroupId, new: &NewGroup) -> Result<(), Trouble> {
        if group > HIGHEST_GROUP {
            return Err(Trouble::Misfit(format!("groups end at {HIGHEST_GROUP}")));
        }
        let mut side = Side::First;
        if let Some(log) = self.groups.get(&group).and_then(|known| known.log.as_ref()) {
            let state = log.state;
            if !state.removed {
                return Err(Trouble::Misfit("the group exists already".to_owned()));
            }
            if state.creation == new.creation {
                self.check_remembered(group, &new.hard_state)?;
            }
            side = state.side;
        } else {
            self.finish_clearing(Slot::new(group, Side::First))?;
            self.finish_clearing(Slot::new(group, Side::Second))?;
        }
        let state = GroupState {
            contiguous_from: 1,
            rejoined_epoch: self.loss_epoch,
            creation: new.creation,
            side,
            synchronous: new.synchronous,
            ..GroupState::default()
        };
        let known = self.groups.entry(group).or_default();
        known.log = Some(match &known.log {
            Some(log) => log.replaced(state, LogPosition::default()),
            None => GroupLog::new(state, LogPosition::default(), 0),
        });
        self.put_hard_state(group, &new.hard_state);
        self.put_group(group, &state);
        self.pending.sync = true;
        self.pending.reports.push((group, Report::Created));
        Ok(())
    }

    /// A group that comes back must not forget what it voted for: two nodes could lead one term.
    fn check_remembered(&mut self, group: GroupId, new: &HardState) -> Result<(), Trouble> {
        self.write()?;
        let family = self.database.family(Family::HardState);
        let kept = self.database.db().get_pinned_cf(family, records::group_key(group))?;
        let Some(kept) = kept else { return Ok(()) };
        let kept = records::decode_hard_state(&kept)?;
        if forgets(&kept, new) {
            return Err(Trouble::Misfit(format!(
                "the group comes back without what it voted for kept_term={} given_term={}",
                kept.term, new.term
            )));
        }
        Ok(())
    }

    /// Drops log and state; the hard state stays.
    pub(crate) fn reset(&mut self, group: GroupId, write: u64) -> Result<(), Trouble> {
        let state = self.live_log_of(group)?.state.emptied();
        self.clean_spare(group)?;
        self.switch(group, state, LogPosition::default());
        if let Some(known) = self.groups.get_mut(&group) {
            known.last_append = self.pending.reports.len();
        }
        let upto = LogPosition::default();
        self.pending.reports.push((group, Report::Appended { write, upto }));
        Ok(())
    }

    /// Drops log and state for as long as the group does not come back; the hard state stays.
    pub(crate) fn remove_group(&mut self, group: GroupId) -> Result<(), Trouble> {
        let state = self.log_of(group)?.state;
        if !state.removed {
            self.clean_spare(group)?;
            let state = GroupState { removed: true, ..state.emptied() };
            self.switch(group, state, LogPosition::default());
        }
        if let Some(known) = self.groups.get_mut(&group) {
            known.broken = false;
        }
        self.pending.reports.push((group, Report::Removed));
        Ok(())
    }

    /// Deletes a group in steps that each are synced: first it is marked, so that a crash half-way
    /// is completed at the next start.
    pub(crate) fn drop_group(&mut self, group: GroupId) -> Result<(), Trouble> {
        let state = GroupState { dropping: true, ..self.log_of(group)?.state };
        self.put_group(group, &state);
        self.pending
            .batch
            .delete_cf(self.database.family(Family::HardState), records::group_key(group));
        self.pending.sync = true;
        self.write()?;
        self.finish_clearing(Slot::new(group, Side::First))?;
        self.finish_clearing(Slot::new(group, Side::Second))?;
        for side in [Side::First, Side::Second] {
            self.clear_all(Clearing::new(Slot::new(group, side), 0))?;
        }
        delete_group_record(&self.database, group)?;
        self.database.set_side(group, Side::First);
        if let Some(gone) = self.groups.remove(&group) {
            gone.report(Report::Dropped);
        }
        Ok(())
    }

    /// Takes a piece of a snapshot in, on the spare side.
    pub(crate) fn stage(&mut self, group: GroupId, piece: &StagedPiece) -> Result<(), Trouble> {
        self.live_log_of(group)?;
        if piece.cursor.is_empty() {
            self.clean_spare(group)?;
            if let Some(known) = self.groups.get_mut(&group) {
                known.staging = Some(Staging::begin(piece.id));
                known.is_spare_dirty = true;
            }
        }
        let slot = self.live_log_of(group)?.state.spare_slot(group);
        let staging = self.groups.get_mut(&group).and_then(|known| known.staging.take());
        let Some(mut staging) = staging else {
            return self.refuse(group, piece.id, "its beginning is not here".to_owned());
        };
        let queue = self.database.family(Family::Queue);
        let log = self.database.family(Family::Log);
        let batch = &mut self.pending.batch;
        let prefix = slot.prefix();
        let taken = staging.take(piece.id, &piece.cursor, &piece.data, |record| {
            match record {
                StagedRecord::State(suffix, value) => {
                    let key = [IoSlice::new(&prefix), IoSlice::new(suffix)];
                    batch.put_cf_vectored(queue, &key, &[IoSlice::new(value)])?;
                }
                StagedRecord::Entry(index, value) => {
                    batch.put_cf(log, records::log_key(slot, index), value);
                }
            }
            Ok(())
        });
        match taken {
            Ok(()) => {
                if let Some(known) = self.groups.get_mut(&group) {
                    known.staging = Some(staging);
                }
                let (id, cursor) = (piece.id, piece.cursor.clone());
                let staged = SnapshotReport::Staged { id, cursor };
                self.pending.reports.push((group, Report::Snapshot(staged)));
                Ok(())
            }
            Err(Trouble::Misfit(detail)) => self.refuse(group, piece.id, detail),
            Err(failed) => Err(failed),
        }
    }

    /// Switches to the snapshot that was staged.
    pub(crate) fn install(
        &mut self,
        group: GroupId,
        id: SnapshotId,
        keep_log_after: bool,
    ) -> Result<(), Trouble> {
        let state = self.live_log_of(group)?.state;
        let staging = self.groups.get_mut(&group).and_then(|known| known.staging.take());
        if !staging.is_some_and(|staging| staging.is_complete(id)) {
            return self.refuse(group, id, "not all of it is here".to_owned());
        }
        let mut last = id.position;
        if keep_log_after {
            self.write()?;
            match self.position(group, id.position.index) {
                Ok(found) if found == id.position => {}
                Ok(_) | Err(Trouble::Misfit(_)) => {
                    let detail = "the log that is to stay does not have its position".to_owned();
                    return self.refuse(group, id, detail);
                }
                Err(failed) => return Err(failed),
            }
            last = self.live_log_of(group)?.last;
            let (from, to) = (state.slot(group), state.spare_slot(group));
            self.copy_entries(from, to, id.position.index)?;
        }
        let state = GroupState {
            applied: Some(id.position),
            contiguous_from: id.position.index.saturating_add(1),
            ..state.emptied()
        };
        self.switch(group, state, last);
        if let Some(log) = self.groups.get(&group).and_then(|known| known.log.as_ref()) {
            let mark = SyncMark { upto: last.index, truncations: log.truncations };
            self.pending.marks.push((group, mark));
        }
        let installed = Report::Snapshot(SnapshotReport::Installed { id });
        self.pending.reports.push((group, installed));
        Ok(())
    }

    /// Copies the entries behind an index from side to side, un-synced: the switch syncs them.
    fn copy_entries(&mut self, from: Slot, to: Slot, after: Index) -> Result<(), Trouble> {
        let db = self.database.db();
        let family = self.database.family(Family::Log);
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_iterate_upper_bound(from.end());
        let mut entries = db.raw_iterator_cf_opt(family, options);
        let mut batch = WriteBatch::default();
        entries.seek(records::log_key(from, after.saturating_add(1)));
        while let Some((key, value)) = entries.item() {
            let Some(index) = records::log_key_index(key) else { break };
            batch.put_cf(family, records::log_key(to, index), value);
            if batch.size_in_bytes() >= self.write_bytes {
                db.write(&batch)?;
                batch.clear();
            }
            entries.next();
        }
        entries.status()?;
        if !batch.is_empty() {
            db.write(&batch)?;
        }
        Ok(())
    }

    /// Drops what is staged, and says why.
    fn refuse(&mut self, group: GroupId, id: SnapshotId, detail: String) -> Result<(), Trouble> {
        tracing::warn!(group = group.0, detail, "a snapshot cannot be used");
        if let Some(known) = self.groups.get_mut(&group) {
            known.staging = None;
            let spare = known.log.as_ref().map(|log| log.state.spare_slot(group));
            // What is staged of it may still be pending: it is deleted after that is written.
            self.pending.replaced.extend(spare.filter(|_| known.is_spare_dirty));
        }
        let refused = Report::Snapshot(SnapshotReport::Refused { id, detail });
        self.pending.reports.push((group, refused));
        Ok(())
    }

    /// Puts the other side of a group into use, with this state, durably.
    fn switch(&mut self, group: GroupId, state: GroupState, last: LogPosition) {
        let Some(known) = self.groups.get_mut(&group) else { return };
        known.staging = None;
        known.is_spare_dirty = true;
        known.log = known.log.as_ref().map(|log| log.replaced(state, last));
        self.put_group(group, &state);
        self.pending.sync = true;
        self.pending.replaced.push(state.spare_slot(group));
    }

    /// After a write: readers learn of sides that were switched, and what is on spare sides is
    /// going to be deleted.
    pub(crate) fn put_out_of_use(&mut self) {
        for slot in self.pending.replaced.drain(..) {
            let group = slot.group();
            let log = self.groups.get(&group).and_then(|known| known.log.as_ref());
            let entry_bytes = log.map_or(0, GroupLog::entry_bytes);
            if let Some(log) = log {
                self.database.set_side(group, log.state.side);
            }
            if self.clearing.iter().all(|clearing| clearing.slot != slot) {
                self.clearing.push_back(Clearing::new(slot, entry_bytes));
            }
        }
    }

    /// Goes on deleting what is on spare sides.
    pub(crate) fn clear_some(&mut self) -> Result<(), StorageError> {
        let Some(mut clearing) = self.clearing.pop_front() else { return Ok(()) };
        let done = clearing.step(&self.database, &self.counters);
        if done.map_err(|error| StorageError::Write { detail: error.to_string() })? {
            self.cleared(clearing.slot);
        } else {
            self.clearing.push_front(clearing);
        }
        Ok(())
    }

    /// Sees to it that the spare side is empty.
    fn clean_spare(&mut self, group: GroupId) -> Result<(), Trouble> {
        let Some(known) = self.groups.get_mut(&group).filter(|known| known.is_spare_dirty) else {
            return Ok(());
        };
        known.staging = None;
        let Some(log) = &known.log else { return Ok(()) };
        let clearing = Clearing::new(log.state.spare_slot(group), log.entry_bytes());
        // What is pending may be for that very side.
        self.write()?;
        self.finish_clearing(clearing.slot)?;
        if self.groups.get(&group).is_some_and(|known| known.is_spare_dirty) {
            self.clear_all(clearing)?;
        }
        Ok(())
    }

    /// Completes a deletion, if it is under way.
    fn finish_clearing(&mut self, slot: Slot) -> Result<(), Trouble> {
        match self.clearing.iter().position(|clearing| clearing.slot == slot) {
            Some(at) => match self.clearing.remove(at) {
                Some(clearing) => self.clear_all(clearing),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }

    fn clear_all(&mut self, mut clearing: Clearing) -> Result<(), Trouble> {
        while !clearing.step(&self.database, &self.counters)? {}
        self.cleared(clearing.slot);
        Ok(())
    }

    fn cleared(&mut self, slot: Slot) {
        let group = slot.group();
        if let Some(known) = self.groups.get_mut(&group)
            && known.log.as_ref().is_some_and(|log| log.state.spare_slot(group) == slot)
        {
            known.is_spare_dirty = false;
        }
    }
}

/// Deletes a group's record, which is the last of it; synced.
pub(crate) fn delete_group_record(
    database: &crate::database::Database,
    group: GroupId,
) -> Result<(), rocksdb::Error> {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    database.db().delete_cf_opt(database.family(Family::Group), records::group_key(group), &options)
}
