//! Keys and values of the column families, byte by byte.
//!
//! Keys are big-endian, so that RocksDB's order is ours. Every value starts with a format byte; a
//! reader refuses what it does not know rather than guess.

use crate::group_record::Slot;
use bytes::Bytes;
use flintmq_consensus::{
    ConfigRegister, ConfigStamp, Entry, EntryKind, GroupId, HardState, History, Index, NodeId,
    ProducerSequence, Term,
};

/// The format of every value but those that need more.
const FORMAT: u8 = 1;

/// The format of a hard state whose configuration is joint. Written only where it is needed, so
/// that an older program can take the directory back as long as it would understand all of it.
const FORMAT_JOINT: u8 = 2;

/// The format of a hard state whose log does not count. Written only where it is needed.
const FORMAT_VOID: u8 = 3;

/// Bytes at the front of every entry: format, kind, two zero bytes, history, term. What the kind
/// holds follows, then the payload.
const ENTRY_HEADER: usize = 16;

/// Bytes of a producer and its sequence.
const ENTRY_SEQUENCE: usize = 16;

const KIND_BARRIER: u8 = 0;
const KIND_COMMANDS: u8 = 1;
const KIND_SEQUENCED: u8 = 2;

/// Key of a group in `hard_state` and `group`.
pub(crate) fn group_key(group: GroupId) -> [u8; 4] {
    group.0.to_be_bytes()
}

/// The group in a key of `hard_state` or `group`.
pub(crate) fn key_group(key: &[u8]) -> Option<GroupId> {
    key.try_into().ok().map(|group| GroupId(u32::from_be_bytes(group)))
}

/// Key of an entry in `log`.
pub(crate) fn log_key(slot: Slot, index: Index) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&slot.prefix());
    key[4..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The index in a key of `log`, or `None` if the key has not the right length.
pub(crate) fn log_key_index(key: &[u8]) -> Option<Index> {
    let key: &[u8; 12] = key.try_into().ok()?;
    key.last_chunk::<8>().map(|index| Index::from_be_bytes(*index))
}

/// Key in `queue`: the slot, then the caller's suffix.
pub(crate) fn queue_key(slot: Slot, suffix: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(4 + suffix.len());
    key.extend_from_slice(&slot.prefix());
    key.extend_from_slice(suffix);
    key
}

/// The bytes in front of an entry's payload.
pub(crate) struct EntryHeader {
    bytes: [u8; ENTRY_HEADER + ENTRY_SEQUENCE],
    length: usize,
}

impl EntryHeader {
    /// The header of this entry.
    pub(crate) fn of(entry: &Entry) -> Self {
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
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Bytes of the payload in an entry's value, without looking whether the rest is readable.
pub(crate) fn payload_size(value: &[u8]) -> usize {
    let sequenced = value.get(1) == Some(&KIND_SEQUENCED);
    let header = ENTRY_HEADER + if sequenced { ENTRY_SEQUENCE } else { 0 };
    value.len().saturating_sub(header)
}

/// An entry from its value in `log`; the payload is copied out.
pub(crate) fn decode_entry(index: Index, value: &[u8]) -> Result<Entry, String> {
    let StoredEntry { term, history, kind, payload } = StoredEntry::of(value)?;
    Ok(Entry { index, term, history, kind, payload: Bytes::copy_from_slice(payload) })
}

/// The term of an entry, if its value in `log` is one that can be read.
pub(crate) fn check_entry(value: &[u8]) -> Result<Term, String> {
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

/// Value of `hard_state`.
pub(crate) fn encode_hard_state(state: &HardState) -> Vec<u8> {
    let config = &state.config;
    let format = if state.void {
        FORMAT_VOID
    } else if config.is_joint() {
        FORMAT_JOINT
    } else {
        FORMAT
    };
    let mut lists = vec![&config.voters, &config.learners];
    if format >= FORMAT_JOINT {
        lists.push(&config.outgoing);
    }
    let members: usize = lists.iter().map(|list| list.len()).sum();
    let mut out = Vec::with_capacity(48 + 4 * members);
    out.push(format);
    out.extend_from_slice(&state.term.to_be_bytes());
    out.push(u8::from(state.voted_for.is_some()));
    out.extend_from_slice(&state.voted_for.map_or(0, |node| node.0).to_be_bytes());
    out.extend_from_slice(&state.history.to_be_bytes());
    out.extend_from_slice(&config.stamp.term.to_be_bytes());
    out.extend_from_slice(&config.stamp.version.to_be_bytes());
    for members in lists {
        out.extend_from_slice(&(members.len() as u32).to_be_bytes());
        for member in members {
            out.extend_from_slice(&member.0.to_be_bytes());
        }
    }
    if format >= FORMAT_VOID {
        out.push(u8::from(state.void));
    }
    out
}

/// A hard state from its value.
pub(crate) fn decode_hard_state(value: &[u8]) -> Result<HardState, String> {
    let mut fields = Fields { rest: value };
    let format = fields.format_up_to(FORMAT_VOID)?;
    let term = fields.u64()?;
    let voted = fields.flag()?;
    let node = NodeId(fields.u32()?);
    let history = fields.u32()?;
    let stamp = ConfigStamp { term: fields.u64()?, version: fields.u64()? };
    let voters = fields.nodes()?;
    let learners = fields.nodes()?;
    let outgoing = if format >= FORMAT_JOINT { fields.nodes()? } else { Vec::new() };
    let void = format >= FORMAT_VOID && fields.flag()?;
    fields.end()?;
    let config = ConfigRegister { stamp, voters, outgoing, learners };
    Ok(HardState { term, voted_for: voted.then_some(node), config, history, void })
}

/// Reads fields off the front of a value.
pub(crate) struct Fields<'a> {
    pub(crate) rest: &'a [u8],
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (field, rest) =
            self.rest.split_first_chunk::<N>().ok_or_else(|| "record too short".to_owned())?;
        self.rest = rest;
        Ok(*field)
    }

    fn format(&mut self) -> Result<(), String> {
        self.format_up_to(FORMAT).map(drop)
    }

    pub(crate) fn format_up_to(&mut self, newest: u8) -> Result<u8, String> {
        match self.u8()? {
            known if (FORMAT..=newest).contains(&known) => Ok(known),
            other => Err(format!("unknown record format format={other}")),
        }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, String> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, String> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(format!("not a flag value={other}")),
        }
    }

    fn u16(&mut self) -> Result<u16, String> {
        self.take().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, String> {
        self.take().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, String> {
        self.take().map(u64::from_be_bytes)
    }

    fn nodes(&mut self) -> Result<Vec<NodeId>, String> {
        let count = self.u32()? as usize;
        // A damaged count must not reserve memory: what is there bounds it.
        if count > self.rest.len() / 4 {
            return Err(format!("more members than bytes members={count}"));
        }
        (0..count).map(|_| self.u32().map(NodeId)).collect()
    }

    pub(crate) fn end(&self) -> Result<(), String> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(format!("bytes behind the record bytes={}", self.rest.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nodes() -> impl Strategy<Value = Vec<NodeId>> {
        prop::collection::vec(any::<u32>().prop_map(NodeId), 0..9)
    }

    fn kinds() -> impl Strategy<Value = EntryKind> {
        prop_oneof![
            Just(EntryKind::Barrier),
            Just(EntryKind::Commands),
            any::<(u64, u64)>().prop_map(|(producer, sequence)| {
                EntryKind::Sequenced(ProducerSequence { producer, sequence })
            }),
        ]
    }

    /// What version 0.1 wrote is read for ever, and written as long as it says everything.
    #[test]
    fn the_first_format_of_a_hard_state_stays() {
        let mut value = vec![1];
        value.extend_from_slice(&7u64.to_be_bytes()); // term
        value.extend_from_slice(&[1, 0, 0, 0, 3]); // voted for node 3
        value.extend_from_slice(&2u32.to_be_bytes()); // history
        value.extend_from_slice(&6u64.to_be_bytes()); // stamp
        value.extend_from_slice(&4u64.to_be_bytes());
        value.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 3]); // voters
        value.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 9]); // learners
        let config = ConfigRegister {
            stamp: ConfigStamp { term: 6, version: 4 },
            voters: vec![NodeId(3)],
            outgoing: Vec::new(),
            learners: vec![NodeId(9)],
        };
        let state =
            HardState { term: 7, voted_for: Some(NodeId(3)), config, history: 2, void: false };
        assert_eq!(encode_hard_state(&state), value);
        assert_eq!(decode_hard_state(&value), Ok(state));
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
        fn hard_state_comes_back(
            term: u64,
            vote: Option<u32>,
            history: u32,
            stamp: (u64, u64),
            voters in nodes(),
            outgoing in nodes(),
            learners in nodes(),
            void: bool,
        ) {
            let stamp = ConfigStamp { term: stamp.0, version: stamp.1 };
            let config = ConfigRegister { stamp, voters, outgoing, learners };
            let state = HardState { term, voted_for: vote.map(NodeId), config, history, void };
            let value = encode_hard_state(&state);
            prop_assert_eq!(decode_hard_state(&value), Ok(state));
            for cut in 0..value.len() {
                prop_assert!(decode_hard_state(&value[..cut]).is_err());
            }
        }

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
            let _ = decode_hard_state(&value);
            let _ = check_entry(&value);
            let _ = decode_entry(1, &value);
            let _ = payload_size(&value);
            let _ = log_key_index(&value);
        }

        #[test]
        fn keys_sort_like_their_numbers(a: (u32, u64), b: (u32, u64)) {
            let slot = |number: u32| Slot::of_key(&number.to_be_bytes()).unwrap();
            let key = |(number, index): (u32, u64)| log_key(slot(number), index);
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
            prop_assert_eq!(log_key_index(&key(a)), Some(a.1));
            prop_assert_eq!(Slot::of_key(&key(a)), Some(slot(a.0)));
            prop_assert!(key(a).as_slice() < slot(a.0).end().as_slice());
        }
    }
}
