//! Reads the store: entries for peers and consumers, and the applied state at a restart.

use crate::database::{Database, Family};
use crate::records;
use flintmq_consensus::{Entry, Epoch, GroupId, HardState, Index, LogPosition};
use flintmq_log_store::ReadError;
use flintmq_log_store::parts::group_record::{self, GroupState, Slot};
use flintmq_log_store::{GroupRecord, LogBounds, QueueRecords};
use rocksdb::{DBRawIterator, ErrorKind, ReadOptions, Snapshot};
use std::sync::Arc;

/// Reads the store; cheap to clone, usable from any thread. It sees what has been reported, and
/// perhaps a little more. It keeps the directory in use: drop it to open the directory again.
#[derive(Clone)]
pub struct StoreReader {
    pub(crate) database: Arc<Database>,
    pub(crate) loss_epoch: Epoch,
}

impl StoreReader {
    /// See [`crate::LogStore::groups`].
    pub fn groups(&self) -> Result<Vec<GroupRecord>, ReadError> {
        let mut groups = Vec::new();
        let family = self.database.family(Family::HardState);
        let mut records = self.database.db().raw_iterator_cf(family);
        records.seek_to_first();
        while let Some((key, value)) = records.item() {
            let corrupt = |detail| ReadError::CorruptState {
                group: records::key_group(key).unwrap_or(GroupId(u32::MAX)),
                detail,
            };
            let id = records::key_group(key).filter(|_| key.len() == 4);
            let id = id.ok_or_else(|| corrupt("not the key of a group".to_owned()))?;
            let hard_state = records::decode_hard_state(value).map_err(corrupt)?;
            groups.push(self.record(id, hard_state)?);
            records.next();
        }
        // Which group the damage hits is not known here; the first one behind it stands for it.
        let last = groups.last().map_or(GroupId(0), |group| group.id);
        records.status().map_err(|error| state_error(last, &error))?;
        Ok(groups)
    }

    /// See [`crate::LogStore::group`].
    pub fn group(&self, group: GroupId) -> Result<Option<GroupRecord>, ReadError> {
        let family = self.database.family(Family::HardState);
        let value = self.database.db().get_pinned_cf(family, records::group_key(group));
        let Some(value) = value.map_err(|error| state_error(group, &error))? else {
            return Ok(None);
        };
        let corrupt = |detail| ReadError::CorruptState { group, detail };
        let hard_state = records::decode_hard_state(&value).map_err(corrupt)?;
        self.record(group, hard_state).map(Some)
    }

    /// See [`crate::LogStore::bounds`].
    pub fn bounds(&self, group: GroupId) -> Result<LogBounds, ReadError> {
        // The log may be replaced while it is looked at.
        let snapshot = self.database.db().snapshot();
        let state = group_state_at(self, &snapshot, group)?.unwrap_or_default();
        let applied = state.applied.unwrap_or_default();
        let family = self.database.family(Family::Log);
        let mut log = snapshot.raw_iterator_cf_opt(&family, log_of(state.slot(group)));
        log.seek_to_last();
        let last = match log.item() {
            Some((key, value)) => {
                let index = entry_index(group, key)?;
                let entry = decode(group, index, value)?;
                LogPosition { term: entry.term, index }
            }
            None => LogPosition::default(),
        };
        self.check(&log, group)?;
        let last = if last.index > applied.index { last } else { applied };
        log.seek_to_first();
        let first_index = match log.key() {
            Some(key) => entry_index(group, key)?,
            None => last.index + 1,
        };
        self.check(&log, group)?;
        Ok(LogBounds { first_index, contiguous_from: state.contiguous_from.max(1), last })
    }

    /// See [`crate::LogStore::entry`].
    pub fn entry(&self, group: GroupId, index: Index) -> Result<Option<Entry>, ReadError> {
        let family = self.database.family(Family::Log);
        self.where_it_is(group, |slot| {
            let key = records::log_key(slot, index);
            match self.database.db().get_pinned_cf_opt(family, key, &read_once()) {
                Ok(Some(value)) => decode(group, index, &value).map(Some),
                Ok(None) => Ok(None),
                Err(error) => Err(entry_error(group, index, &error)),
            }
        })
    }

    /// See [`crate::LogStore::entries`].
    pub fn entries(
        &self,
        group: GroupId,
        from: Index,
        to: Index,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        self.where_it_is(group, |slot| self.entries_at((group, slot), from, to, max_bytes))
    }

    fn entries_at(
        &self,
        (group, slot): (GroupId, Slot),
        from: Index,
        to: Index,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        let family = self.database.family(Family::Log);
        let mut log = self.database.db().raw_iterator_cf_opt(family, log_of(slot));
        log.seek(records::log_key(slot, from));
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let mut next = from;
        while next <= to {
            let Some((key, value)) = log.item() else { break };
            if entry_index(group, key)? != next {
                break;
            }
            bytes += records::payload_size(value);
            if bytes > max_bytes && !entries.is_empty() {
                return Ok(entries);
            }
            entries.push(decode(group, next, value)?);
            let Some(following) = next.checked_add(1) else { break };
            next = following;
            log.next();
        }
        log.status().map_err(|error| entry_error(group, next, &error))?;
        if entries.is_empty() && from <= to {
            return Err(ReadError::Missing { group, index: from });
        }
        Ok(entries)
    }

    /// See [`crate::LogStore::indexes`].
    pub fn indexes(&self, group: GroupId, upto: Index) -> Result<Vec<Index>, ReadError> {
        let family = self.database.family(Family::Log);
        self.where_it_is(group, |slot| {
            let mut log = self.database.db().raw_iterator_cf_opt(family, log_of(slot));
            log.seek(records::log_key(slot, 0));
            let mut indexes = Vec::new();
            while let Some(key) = log.key() {
                let index = entry_index(group, key)?;
                if index > upto {
                    break;
                }
                indexes.push(index);
                log.next();
            }
            let last = indexes.last().copied().unwrap_or_default();
            log.status().map_err(|error| entry_error(group, last, &error))?;
            Ok(indexes)
        })
    }

    /// See [`crate::LogStore::applied`].
    pub fn applied(&self, group: GroupId) -> Result<Option<LogPosition>, ReadError> {
        Ok(self.group_state(group)?.and_then(|state| state.applied))
    }

    /// See [`crate::LogStore::queue_record`].
    pub fn queue_record(
        &self,
        group: GroupId,
        suffix: &[u8],
    ) -> Result<Option<Vec<u8>>, ReadError> {
        let family = self.database.family(Family::Queue);
        self.where_it_is(group, |slot| {
            let found = self.database.db().get_cf(family, records::queue_key(slot, suffix));
            found.map_err(|error| state_error(group, &error))
        })
    }

    /// See [`crate::LogStore::queue_records`].
    pub fn queue_records(&self, group: GroupId, prefix: &[u8], from: &[u8]) -> QueueRecords<'_> {
        let family = self.database.family(Family::Queue);
        // From here on the iterator sees what is there now, whatever happens to the group.
        let (slot, mut found) = self.where_it_is(group, |slot| {
            let mut options = read_once();
            options.set_iterate_upper_bound(slot.end());
            (slot, self.database.db().raw_iterator_cf_opt(family, options))
        });
        let prefix = records::queue_key(slot, prefix);
        let from = records::queue_key(slot, from);
        found.seek(prefix.clone().max(from));
        let mut ended = false;
        Box::new(std::iter::from_fn(move || {
            if ended {
                return None;
            }
            if let Some((key, value)) = found.item()
                && key.starts_with(&prefix)
            {
                let record = (key[4..].to_vec(), value.to_vec());
                found.next();
                return Some(Ok(record));
            }
            ended = true;
            found.status().err().map(|error| Err(state_error(group, &error)))
        }))
    }

    /// Reads where log and state of the group are; once more if they are elsewhere meanwhile, for
    /// the place may hold something else by then.
    fn where_it_is<T>(&self, group: GroupId, read: impl Fn(Slot) -> T) -> T {
        loop {
            let slot = self.database.slot(group);
            let found = read(slot);
            if self.database.slot(group) == slot {
                return found;
            }
        }
    }

    pub(crate) fn group_state(&self, group: GroupId) -> Result<Option<GroupState>, ReadError> {
        let family = self.database.family(Family::Group);
        let value = self.database.db().get_pinned_cf(family, records::group_key(group));
        let value = value.map_err(|error| state_error(group, &error))?;
        value
            .map(|value| group_record::decode_group(&value))
            .transpose()
            .map_err(|detail| ReadError::CorruptState { group, detail })
    }

    fn record(&self, id: GroupId, hard_state: HardState) -> Result<GroupRecord, ReadError> {
        let missing = || ReadError::CorruptState {
            group: id,
            detail: "a hard state without its group".to_owned(),
        };
        let state = self.group_state(id)?.ok_or_else(missing)?;
        let bounds = self.bounds(id)?;
        let recovering = state.recovering(self.loss_epoch);
        Ok(GroupRecord {
            id,
            creation: state.creation,
            hard_state,
            bounds,
            applied: state.applied,
            recovering,
            removed: state.removed,
            synchronous: state.synchronous,
        })
    }

    fn check(&self, log: &DBRawIterator<'_>, group: GroupId) -> Result<(), ReadError> {
        // Where the iterator stumbled is not known; the end of the log is as good a name as any.
        log.status().map_err(|error| entry_error(group, 0, &error))
    }
}

/// What is kept of a group, as a snapshot of the database has it.
pub(crate) fn group_state_at(
    reader: &StoreReader,
    snapshot: &Snapshot<'_>,
    group: GroupId,
) -> Result<Option<GroupState>, ReadError> {
    let value = snapshot.get_cf(&reader.database.family(Family::Group), records::group_key(group));
    let value = value.map_err(|error| state_error(group, &error))?;
    value
        .map(|value| group_record::decode_group(&value))
        .transpose()
        .map_err(|detail| ReadError::CorruptState { group, detail })
}

/// Reads the log of a slot and nothing else.
fn log_of(slot: Slot) -> ReadOptions {
    let mut options = read_once();
    options.set_iterate_lower_bound(slot.prefix());
    options.set_iterate_upper_bound(slot.end());
    options
}

/// Payloads are read once or twice and would only push out of the cache what is read always.
fn read_once() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options
}

fn entry_index(group: GroupId, key: &[u8]) -> Result<Index, ReadError> {
    records::log_key_index(key).ok_or_else(|| ReadError::CorruptEntry {
        group,
        index: 0,
        detail: format!("a key of the wrong length bytes={}", key.len()),
    })
}

fn decode(group: GroupId, index: Index, value: &[u8]) -> Result<Entry, ReadError> {
    records::decode_entry(index, value).map_err(|detail| ReadError::CorruptEntry {
        group,
        index,
        detail,
    })
}

pub(crate) fn entry_error(group: GroupId, index: Index, error: &rocksdb::Error) -> ReadError {
    let detail = error.to_string();
    if error.kind() == ErrorKind::Corruption {
        ReadError::CorruptEntry { group, index, detail }
    } else {
        ReadError::Failed { group, detail }
    }
}

pub(crate) fn state_error(group: GroupId, error: &rocksdb::Error) -> ReadError {
    let detail = error.to_string();
    if error.kind() == ErrorKind::Corruption {
        ReadError::CorruptState { group, detail }
    } else {
        ReadError::Failed { group, detail }
    }
}
