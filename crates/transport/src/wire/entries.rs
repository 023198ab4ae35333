//! Entries of a log, told by what differs from the entry before.

use flintmq_consensus::{Entry, EntryKind, LogPosition, ProducerSequence};

use super::WireError;
use super::limits::MAX_ENTRIES;
use super::reader::Reader;
use super::writer::Writer;

const BARRIER: u8 = 0;
const COMMANDS: u8 = 1;
const SEQUENCED: u8 = 2;
/// The entry follows the one before it: same term and history, next index. Nearly all do.
const FOLLOWS: u8 = 0x80;

/// Writes entries that are expected to stand behind `prev`.
pub(super) fn write(
    to: &mut Writer,
    prev: LogPosition,
    entries: &[Entry],
) -> Result<(), WireError> {
    to.counted().entries(entries.len())?;
    to.length(entries.len(), "entries", MAX_ENTRIES)?;
    let mut before = Before::at(prev);
    for entry in entries {
        let Entry { index, term, history, kind, payload } = entry;
        let (tag, sequence) = match kind {
            EntryKind::Barrier => (BARRIER, None),
            EntryKind::Commands => (COMMANDS, None),
            EntryKind::Sequenced(sequence) => (SEQUENCED, Some(*sequence)),
        };
        let here = Before { index: *index, term: *term, history: *history };
        if here == before.next() {
            to.byte(tag | FOLLOWS);
        } else {
            to.byte(tag);
            to.difference(before.index, here.index);
            to.difference(before.term, here.term);
            to.difference(u64::from(before.history), u64::from(here.history));
        }
        if let Some(ProducerSequence { producer, sequence }) = sequence {
            to.number(producer);
            to.number(sequence);
        }
        to.payload(payload);
        before = here;
    }
    Ok(())
}

/// Reads what [`write`] wrote behind the same `prev`.
pub(super) fn read(from: &mut Reader<'_>, prev: LogPosition) -> Result<Vec<Entry>, WireError> {
    let length = from.length("entries", MAX_ENTRIES)?;
    from.counted().entries(length)?;
    let mut entries = Vec::with_capacity(length);
    let mut before = Before::at(prev);
    for _ in 0..length {
        let tag = from.byte("kind of an entry")?;
        let here = if tag & FOLLOWS != 0 {
            before.next()
        } else {
            Before {
                index: from.difference(before.index, "index of an entry")?,
                term: from.difference(before.term, "term of an entry")?,
                history: from.difference32(before.history, "history of an entry")?,
            }
        };
        let kind = match tag & !FOLLOWS {
            BARRIER => EntryKind::Barrier,
            COMMANDS => EntryKind::Commands,
            SEQUENCED => {
                let producer = from.number("producer")?;
                let sequence = from.number("sequence")?;
                EntryKind::Sequenced(ProducerSequence { producer, sequence })
            }
            other => {
                return Err(WireError::Unknown { what: "kind of an entry", value: other.into() });
            }
        };
        let payload = from.payload("payload of an entry")?;
        let Before { index, term, history } = here;
        entries.push(Entry { index, term, history, kind, payload });
        before = here;
    }
    Ok(entries)
}

/// What an entry is told relative to.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Before {
    index: u64,
    term: u64,
    history: u32,
}

impl Before {
    fn at(position: LogPosition) -> Self {
        Self { index: position.index, term: position.term, history: 0 }
    }

    fn next(self) -> Self {
        Self { index: self.index.wrapping_add(1), ..self }
    }
}
