//! The content of the in-memory store's pretended disk, and what requests do to it.

use crate::ReadError;
use crate::parts::entry_record::{self, EntryHeader};
use crate::parts::group_log::GroupLog;
use crate::parts::group_record::{GroupState, HIGHEST_GROUP, forgets};
use crate::parts::snapshot_pieces::{Kind, PieceBuilder, Place, SnapshotPiece};
use crate::parts::snapshot_staging::{StagedRecord, Staging};
use crate::{AppendBatch, CheckpointBatch, NewGroup, StagedPiece};
use crate::{GroupRecord, LogBounds, OpenSnapshot};
use flintmq_consensus::{Entry, Epoch, GroupId, HardState, Index, LogPosition, SnapshotId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The content of the pretended disk.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) groups: BTreeMap<GroupId, Group>,
}

#[derive(Clone, Default)]
pub(crate) struct Group {
    pub(crate) hard_state: HardState,
    pub(crate) log: GroupLog,
    pub(crate) entries: BTreeMap<Index, Entry>,
    pub(crate) queue: BTreeMap<Vec<u8>, Vec<u8>>,
    staged: Option<Staged>,
}

/// A snapshot that is coming in.
#[derive(Clone)]
struct Staged {
    progress: Staging,
    entries: BTreeMap<Index, Entry>,
    queue: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a request does to the disk.
#[derive(Clone)]
pub(crate) enum Change {
    Create(NewGroup),
    Drop,
    Remove,
    Append(Arc<AppendBatch>),
    Reset {
        write: u64,
    },
    /// Without a number: one of several, which are reported together.
    HardState {
        save: Option<u64>,
        state: HardState,
    },
    Checkpoint(Arc<CheckpointBatch>),
    Rejoined,
    Stage(Arc<StagedPiece>),
    Install {
        id: SnapshotId,
        keep_log_after: bool,
    },
    /// What is staged is dropped.
    Unstage,
}

impl Disk {
    /// Whether the change fits its group.
    pub(crate) fn check(&self, group: GroupId, change: &Change) -> Result<(), String> {
        let known = self.groups.get(&group);
        if let Change::Create(new) = change {
            return check_new(group, new, known);
        }
        let known = known.ok_or("there is no such group")?;
        match change {
            Change::Append(_)
            | Change::Reset { .. }
            | Change::Checkpoint(_)
            | Change::Stage(_)
            | Change::Install { .. }
                if known.log.state.removed =>
            {
                Err("the group was removed".to_owned())
            }
            Change::Append(batch) => {
                let mut last = known.log.last;
                if let Some(from) = batch.truncate_from
                    && !known.log.check_truncation(from)?.is_empty()
                {
                    last = known.position(from - 1)?;
                }
                crate::parts::group_log::check_entries(last, &batch.entries)
            }
            Change::Checkpoint(batch) => known.log.check_checkpoint(batch),
            _ => Ok(()),
        }
    }

    /// Whether what comes in of a snapshot can be used.
    pub(crate) fn check_snapshot(&self, group: GroupId, change: &Change) -> Result<(), String> {
        let Some(known) = self.groups.get(&group) else { return Ok(()) };
        match change {
            Change::Stage(piece) => known.clone().stage(piece),
            Change::Install { id, keep_log_after } => known.check_install(*id, *keep_log_after),
            _ => Ok(()),
        }
    }

    /// Applies a change that was checked.
    pub(crate) fn apply(&mut self, group: GroupId, change: &Change, loss_epoch: Epoch) {
        match change {
            Change::Create(new) => {
                let state = GroupState {
                    contiguous_from: 1,
                    rejoined_epoch: loss_epoch,
                    creation: new.creation,
                    synchronous: new.synchronous,
                    ..GroupState::default()
                };
                let log = GroupLog::new(state, LogPosition::default(), 0);
                let hard_state = new.hard_state.clone();
                self.groups.insert(group, Group { hard_state, log, ..Group::default() });
            }
            Change::Drop => {
                self.groups.remove(&group);
            }
            _ => {
                if let Some(known) = self.groups.get_mut(&group) {
                    known.apply(change, loss_epoch);
                }
            }
        }
    }

    /// Drops what no process goes on with.
    pub(crate) fn drop_staged(&mut self) {
        self.groups.values_mut().for_each(|group| group.staged = None);
    }
}

fn check_new(group: GroupId, new: &NewGroup, known: Option<&Group>) -> Result<(), String> {
    if group > HIGHEST_GROUP {
        return Err(format!("groups end at {HIGHEST_GROUP}"));
    }
    let Some(known) = known else { return Ok(()) };
    let state = known.log.state;
    if !state.removed {
        return Err("the group exists already".to_owned());
    }
    let same = state.creation == new.creation;
    if same && forgets(&known.hard_state, &new.hard_state) {
        return Err("the group comes back without what it voted for".to_owned());
    }
    Ok(())
}

impl Group {
    fn position(&self, index: Index) -> Result<LogPosition, String> {
        let applied = self.log.applied();
        if index == 0 || index == applied.index {
            return Ok(LogPosition { index, ..applied });
        }
        let entry = self.entries.get(&index).ok_or_else(|| format!("no entry index={index}"))?;
        Ok(LogPosition { term: entry.term, index })
    }

    fn apply(&mut self, change: &Change, loss_epoch: Epoch) {
        match change {
            Change::Create(_) | Change::Drop => {}
            Change::HardState { state, .. } => self.hard_state = state.clone(),
            Change::Rejoined => self.log.state.rejoined_epoch = loss_epoch,
            Change::Append(batch) => {
                if let Some(from) = batch.truncate_from
                    && from <= self.log.last.index
                    && let Ok(last) = self.position(from - 1)
                {
                    self.entries.split_off(&from);
                    self.log.truncated(last);
                }
                for entry in &batch.entries {
                    self.entries.insert(entry.index, entry.clone());
                    let last = LogPosition { term: entry.term, index: entry.index };
                    self.log.appended(last, entry.payload.len());
                }
            }
            Change::Checkpoint(batch) => {
                self.log.checkpointed(batch);
                for suffix in &batch.deletes {
                    self.queue.remove(suffix);
                }
                self.queue.extend(batch.puts.iter().cloned());
                for index in &batch.dead_entries {
                    self.entries.remove(index);
                }
            }
            Change::Reset { .. } => self.empty(self.log.state.emptied()),
            Change::Remove => self.empty(GroupState { removed: true, ..self.log.state.emptied() }),
            Change::Stage(piece) => {
                // It was checked with a copy.
                let _ = self.stage(piece);
            }
            Change::Unstage => self.staged = None,
            Change::Install { id, keep_log_after } => self.install(*id, *keep_log_after),
        }
    }

    fn empty(&mut self, state: GroupState) {
        self.log = self.log.replaced(state, LogPosition::default());
        self.entries.clear();
        self.queue.clear();
        self.staged = None;
    }

    fn stage(&mut self, piece: &StagedPiece) -> Result<(), String> {
        if piece.cursor.is_empty() {
            let progress = Staging::begin(piece.id);
            self.staged =
                Some(Staged { progress, entries: BTreeMap::new(), queue: BTreeMap::new() });
        }
        let staged = self.staged.as_mut().ok_or("its beginning is not here")?;
        let Staged { progress, entries, queue } = staged;
        progress.take(piece.id, &piece.cursor, &piece.data, |record| {
            match record {
                StagedRecord::State(suffix, value) => {
                    queue.insert(suffix.to_vec(), value.to_vec());
                }
                StagedRecord::Entry(index, value) => {
                    entries.insert(index, entry_record::decode_entry(index, value)?);
                }
            }
            Ok::<(), String>(())
        })
    }

    fn check_install(&self, id: SnapshotId, keep_log_after: bool) -> Result<(), String> {
        if !self.staged.as_ref().is_some_and(|staged| staged.progress.is_complete(id)) {
            return Err("not all of it is here".to_owned());
        }
        if keep_log_after && self.position(id.position.index) != Ok(id.position) {
            return Err("the log that is to stay does not have its position".to_owned());
        }
        Ok(())
    }

    fn install(&mut self, id: SnapshotId, keep_log_after: bool) {
        let Some(staged) = self.staged.take() else { return };
        let behind = self.entries.split_off(&(id.position.index + 1));
        self.entries = staged.entries;
        let mut last = id.position;
        if keep_log_after {
            last = self.log.last;
            self.entries.extend(behind);
        }
        self.queue = staged.queue;
        let state = GroupState {
            applied: Some(id.position),
            contiguous_from: id.position.index + 1,
            ..self.log.state.emptied()
        };
        self.log = self.log.replaced(state, last);
    }

    pub(crate) fn bounds(&self) -> LogBounds {
        let last = self.log.last;
        let first_index = self.entries.keys().next().copied().unwrap_or(last.index + 1);
        LogBounds { first_index, contiguous_from: self.log.state.contiguous_from, last }
    }

    pub(crate) fn record(&self, id: GroupId, loss_epoch: Epoch) -> GroupRecord {
        let state = self.log.state;
        GroupRecord {
            id,
            creation: state.creation,
            hard_state: self.hard_state.clone(),
            bounds: self.bounds(),
            applied: state.applied,
            recovering: state.recovering(loss_epoch),
            removed: state.removed,
            synchronous: state.synchronous,
        }
    }
}

/// A snapshot that is open.
pub(crate) struct OpenedSnapshot {
    pub(crate) group: GroupId,
    position: LogPosition,
    content: Group,
}

impl OpenedSnapshot {
    pub(crate) fn new(
        group: GroupId,
        content: &Group,
        number: u64,
    ) -> Result<(Self, OpenSnapshot), ReadError> {
        let applied = content.log.state.applied.filter(|_| !content.log.state.removed);
        let position = applied.ok_or(ReadError::NothingApplied { group })?;
        let opened = Self { group, position, content: content.clone() };
        Ok((opened, OpenSnapshot { number, position }))
    }

    pub(crate) fn piece(
        &self,
        cursor: &[u8],
        max_bytes: usize,
    ) -> Result<SnapshotPiece, ReadError> {
        self.cut(cursor, max_bytes)
            .map_err(|detail| ReadError::BadCursor { group: self.group, detail })
    }

    fn cut(&self, cursor: &[u8], max_bytes: usize) -> Result<SnapshotPiece, String> {
        let place = Place::decode(cursor)?;
        let mut piece = PieceBuilder::new(place.clone(), max_bytes);
        let mut room = piece.head(self.position)?;
        if let Some(first) = place.first_key(Kind::State) {
            for (suffix, value) in self.content.queue.range(first.to_vec()..) {
                room = room && piece.add(Kind::State, suffix, value)?;
            }
        }
        if let Some(first) = place.first_key(Kind::Entry) {
            for (index, entry) in self.content.entries.range(..=self.position.index) {
                let key = index.to_be_bytes();
                if room && key.as_slice() >= first {
                    let value = [EntryHeader::of(entry).as_slice(), &entry.payload].concat();
                    room = piece.add(Kind::Entry, &key, &value)?;
                }
            }
        }
        if room {
            piece.end()?;
        }
        Ok(piece.finish())
    }
}
