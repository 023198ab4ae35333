//! The value that a store keeps of an entry, byte by byte. Snapshots hold entries in this form too.

use crate::parts::fields::{FORMAT, Fields};
use bytes::Bytes;
use flintmq_consensus::{Entry, EntryKind, History, Index, ProducerSequence, Term};

/// Bytes at the front of every entry: format, kind, two zero bytes, history, term. What the kind
/// holds follows, then the payload.
const ENTRY_HEADER: usize = 16;

/// Bytes of a producer and its sequence.
const ENTRY_SEQUENCE: usize = 16;

const KIND_BARRIER: u8 = 0;
const KIND_COMMANDS: u8 = 1;
const KIND_SEQUENCED: u8 = 2;

/// The bytes in front of an entry's payload.
pub struct EntryHeader {
    bytes: [u8; ENTRY_HEADER + ENTRY_SEQUENCE],
    length: usize,
}

impl EntryHeader {
    /// The header of this entry.
    pub fn of(entry: &Entry) -> Self {
        let mut bytes = [0; ENTRY_HEADER + ENTRY_SEQUENCE];
        bytes[0] = FORMAT;
        bytes[4..8].copy_from_slice(&entry.history.to_be_bytes());
        bytes[8..16].copy_from_slice(&entry.term.to_be_bytes());
        let length = match entry.kind {
            EntryKind::Barrier => {
                bytes[1] = KIND_BARRIER;
                ENTRY_HEADER
            }
            EntryKind::Commands => {
                bytes[1] = KIND_COMMANDS;
                ENTRY_HEADER
            }
            EntryKind::Sequenced(ProducerSequence { producer, sequence }) => {
                bytes[1] = KIND_SEQUENCED;
                bytes[16..24].copy_from_slice(&producer.to_be_bytes());
                bytes[24..].copy_from_slice(&sequence.to_be_bytes());
                ENTRY_HEADER + ENTRY_SEQUENCE
            }
        };
        Self { bytes, length }
    }

    /// As they are written.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Bytes of the payload in an entry's value, without looking whether the rest is readable.
pub fn payload_size(value: &[u8]) -> usize {
    let sequenced = value.get(1) == Some(&KIND_SEQUENCED);
    let header = ENTRY_HEADER + if sequenced { ENTRY_SEQUENCE } else { 0 };
    value.len().saturating_sub(header)
}

/// An entry from its value in `log`; the payload is copied out.
pub fn decode_entry(index: Index, value: &[u8]) -> Result<Entry, String> {
    let StoredEntry { term, history, kind, payload } = StoredEntry::of(value)?;
    Ok(Entry { index, term, history, kind, payload: Bytes::copy_from_slice(payload) })
}

/// The term of an entry, if its value in `log` is one that can be read.
pub fn check_entry(value: &[u8]) -> Result<Term, String> {
    StoredEntry::of(value).map(|entry| entry.term)
}

/// What a value of `log` says, its payload where it lies.
struct StoredEntry<'a> {
    term: Term,
    history: History,
    kind: EntryKind,
    payload: &'a [u8],
}

impl<'a> StoredEntry<'a> {
    fn of(value: &'a [u8]) -> Result<Self, String> {
        let mut fields = Fields { rest: value };
        fields.format()?;
        let kind = fields.u8()?;
        fields.u16()?;
        let history = fields.u32()?;
        let term = fields.u64()?;
        let kind = match kind {
            KIND_BARRIER => EntryKind::Barrier,
            KIND_COMMANDS => EntryKind::Commands,
            KIND_SEQUENCED => {
                let (producer, sequence) = (fields.u64()?, fields.u64()?);
                EntryKind::Sequenced(ProducerSequence { producer, sequence })
            }
            other => return Err(format!("unknown kind of entry kind={other}")),
        };
        Ok(Self { term, history, kind, payload: fields.rest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds() -> impl Strategy<Value = EntryKind> {
        prop_oneof![
            Just(EntryKind::Barrier),
            Just(EntryKind::Commands),
            any::<(u64, u64)>().prop_map(|(producer, sequence)| {
                EntryKind::Sequenced(ProducerSequence { producer, sequence })
            }),
        ]
    }

    #[test]
    fn the_bytes_of_an_entry_stay() {
        let sequenced = ProducerSequence { producer: 5, sequence: 6 };
        let kinds = [
            (EntryKind::Barrier, 0, Vec::new()),
            (EntryKind::Commands, 1, Vec::new()),
            (EntryKind::Sequenced(sequenced), 2, [5u64.to_be_bytes(), 6u64.to_be_bytes()].concat()),
        ];
        for (kind, byte, more) in kinds {
            let payload = Bytes::from_static(b"xy");
            let entry = Entry { index: 9, term: 7, history: 3, kind, payload };
            let front = [1, byte, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 7];
            let value = [&front[..], &more, b"xy"].concat();
            assert_eq!([EntryHeader::of(&entry).as_slice(), b"xy"].concat(), value);
            assert_eq!(decode_entry(9, &value), Ok(entry));
        }
        assert!(decode_entry(9, &[&[1, 3][..], &[0; 30]].concat()).is_err(), "a kind of tomorrow");
    }

    proptest! {
        #[test]
        fn entry_comes_back(
            index: u64, term: u64, history: u32, kind in kinds(), payload: Vec<u8>,
        ) {
            let entry = Entry { index, term, history, kind, payload: payload.into() };
            let header = EntryHeader::of(&entry);
            let mut value = header.as_slice().to_vec();
            value.extend_from_slice(&entry.payload);
            prop_assert_eq!(payload_size(&value), entry.payload.len());
            prop_assert_eq!(decode_entry(index, &value), Ok(entry));
            for cut in 0..header.as_slice().len() {
                prop_assert!(decode_entry(index, &value[..cut]).is_err());
            }
        }

        #[test]
        fn nothing_on_disk_panics(value: Vec<u8>) {
            let _ = check_entry(&value);
            let _ = decode_entry(1, &value);
            let _ = payload_size(&value);
        }
    }
}
