//! Keys and values of the column families, byte by byte.
//!
//! Keys are big-endian, so that RocksDB's order is ours. Every value starts with a format byte; a
//! reader refuses what it does not know rather than guess.

use flintmq_consensus::{ConfigRegister, ConfigStamp, GroupId, HardState, Index, NodeId};
pub(crate) use flintmq_log_store::parts::entry_record::{
    EntryHeader, check_entry, decode_entry, payload_size,
};
use flintmq_log_store::parts::fields::{FORMAT, Fields};
use flintmq_log_store::parts::group_record::Slot;

/// The format of a hard state whose configuration is joint. Written only where it is needed, so
/// that an older program can take the directory back as long as it would understand all of it.
const FORMAT_JOINT: u8 = 2;

/// The format of a hard state whose log does not count. Written only where it is needed.
const FORMAT_VOID: u8 = 3;

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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nodes() -> impl Strategy<Value = Vec<NodeId>> {
        prop::collection::vec(any::<u32>().prop_map(NodeId), 0..9)
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
        fn nothing_on_disk_panics(value: Vec<u8>) {
            let _ = decode_hard_state(&value);
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
