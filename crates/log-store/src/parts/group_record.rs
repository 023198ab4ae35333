//! What is kept of a group besides its hard state, and where its log and its state are.
//!
//! A group has two *sides*, of which one is in use. What replaces a group's past as a whole (a
//! snapshot, or nothing) comes to be on the spare side, however large it is, and one small write
//! switches sides. What the other side held is deleted afterwards, piece by piece.

use crate::parts::fields::Fields;
use flintmq_consensus::{CreationId, Epoch, GroupId, HardState, Index, LogPosition};

/// The format of groups that need none of what came later.
const FORMAT: u8 = 1;

/// The format with creation, side and the rest. Written only where it is needed, so that an older
/// program can take the directory back as long as it would understand all of it.
const FORMAT_REPLICATED: u8 = 2;

const FLAG_SECOND_SIDE: u8 = 1;
const FLAG_REMOVED: u8 = 2;
const FLAG_SYNCHRONOUS: u8 = 4;

/// The highest number that a group may have: the upper half of the numbers are the second sides,
/// and no key may sort behind the last of them.
pub const HIGHEST_GROUP: GroupId = GroupId((u32::MAX >> 1) - 1);

/// One of the two places of a group's log and state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    #[default]
    /// Its keys begin with the group's number.
    First,
    /// Its keys begin with the group's number in the upper half of the numbers.
    Second,
}

impl Side {
    /// The side that is not in use when this one is.
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// What the keys of a side of a group begin with in `log` and `queue`. The first side's is the
/// group's number, as it was before there were sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u32);

impl Slot {
    const SECOND: u32 = 1 << 31;

    /// The slot of a side of a group.
    pub fn new(group: GroupId, side: Side) -> Self {
        if group > HIGHEST_GROUP {
            // There is no such group, and nothing is ever written here.
            return Self(u32::MAX);
        }
        match side {
            Side::First => Self(group.0),
            Side::Second => Self(group.0 | Self::SECOND),
        }
    }

    /// The group that it belongs to.
    pub fn group(self) -> GroupId {
        GroupId(self.0 & !Self::SECOND)
    }

    /// The slot that a key belongs to.
    pub fn of_key(key: &[u8]) -> Option<Self> {
        key.first_chunk::<4>().map(|slot| Self(u32::from_be_bytes(*slot)))
    }

    /// What its keys begin with.
    pub fn prefix(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }

    /// The first key behind all of its keys.
    pub fn end(self) -> Vec<u8> {
        match self.0.checked_add(1) {
            Some(next) => next.to_be_bytes().to_vec(),
            // Nothing is ever written here (`HIGHEST_GROUP`).
            None => vec![0xff; 64],
        }
    }
}

/// What is kept of a group besides its hard state and its `queue` records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    /// The checkpoint; `None` before the first one.
    pub applied: Option<LogPosition>,
    /// Every entry from this index up to the last one is there.
    pub contiguous_from: Index,
    /// The loss epoch of the node at which the group last had everything.
    pub rejoined_epoch: Epoch,
    /// The group is being deleted: whatever is left of it goes away at the next start.
    pub dropping: bool,
    /// Which making of the group this is.
    pub creation: CreationId,
    /// Where its log and its state are.
    pub side: Side,
    /// Log and state are gone on purpose; the hard state stays.
    pub removed: bool,
    /// Whatever is written is fsynced before it is reported.
    pub synchronous: bool,
}

impl GroupState {
    /// The node's loss epoch, while the group has not made that loss good.
    pub fn recovering(&self, loss_epoch: Epoch) -> Option<Epoch> {
        // What was never reported cannot be missed.
        let can_lose = !self.synchronous && !self.removed;
        (can_lose && self.rejoined_epoch < loss_epoch).then_some(loss_epoch)
    }

    /// Where its log and its state are.
    pub fn slot(&self, group: GroupId) -> Slot {
        Slot::new(group, self.side)
    }

    /// The place where its log and its state are not.
    pub fn spare_slot(&self, group: GroupId) -> Slot {
        Slot::new(group, self.side.other())
    }

    /// The group without log and state, on its other side.
    pub fn emptied(self) -> Self {
        Self { applied: None, contiguous_from: 1, side: self.side.other(), ..self }
    }

    fn flags(&self) -> u8 {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        flag(self.side == Side::Second, FLAG_SECOND_SIDE)
            | flag(self.removed, FLAG_REMOVED)
            | flag(self.synchronous, FLAG_SYNCHRONOUS)
    }
}

/// Value of `group`.
pub fn encode_group(state: &GroupState) -> Vec<u8> {
    let applied = state.applied.unwrap_or_default();
    let flags = state.flags();
    let plain = flags == 0 && state.creation == CreationId::default();
    let mut out = Vec::with_capacity(48);
    out.push(if plain { FORMAT } else { FORMAT_REPLICATED });
    out.push(u8::from(state.applied.is_some()));
    out.push(u8::from(state.dropping));
    out.extend_from_slice(&applied.term.to_be_bytes());
    out.extend_from_slice(&applied.index.to_be_bytes());
    out.extend_from_slice(&state.contiguous_from.to_be_bytes());
    out.extend_from_slice(&state.rejoined_epoch.to_be_bytes());
    if !plain {
        out.push(flags);
        out.extend_from_slice(&state.creation.0.to_be_bytes());
    }
    out
}

/// A group's state from its value.
pub fn decode_group(value: &[u8]) -> Result<GroupState, String> {
    let mut fields = Fields { rest: value };
    let format = fields.format_up_to(FORMAT_REPLICATED)?;
    let has_applied = fields.flag()?;
    let dropping = fields.flag()?;
    let applied = LogPosition { term: fields.u64()?, index: fields.u64()? };
    let contiguous_from = fields.u64()?;
    let rejoined_epoch = fields.u64()?;
    let (flags, creation) = match format {
        FORMAT => (0, CreationId::default()),
        _ => (fields.u8()?, CreationId(fields.u64()?)),
    };
    fields.end()?;
    if flags & !(FLAG_SECOND_SIDE | FLAG_REMOVED | FLAG_SYNCHRONOUS) != 0 {
        return Err(format!("unknown flags of a group flags={flags}"));
    }
    let second = flags & FLAG_SECOND_SIDE != 0;
    Ok(GroupState {
        applied: has_applied.then_some(applied),
        contiguous_from,
        rejoined_epoch,
        dropping,
        creation,
        side: if second { Side::Second } else { Side::First },
        removed: flags & FLAG_REMOVED != 0,
        synchronous: flags & FLAG_SYNCHRONOUS != 0,
    })
}

/// Whether going from one hard state to the other forgets a promise.
pub fn forgets(kept: &HardState, new: &HardState) -> bool {
    let other_vote = kept.voted_for.is_some() && kept.voted_for != new.voted_for;
    new.term < kept.term || (new.term == kept.term && other_vote)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What version 0.1 wrote is read for ever, and written as long as it says everything.
    #[test]
    fn the_first_format_of_a_group_stays() {
        let mut value = vec![1, 1, 0];
        for field in [7u64, 9, 4, 2] {
            value.extend_from_slice(&field.to_be_bytes());
        }
        let state = GroupState {
            applied: Some(LogPosition { term: 7, index: 9 }),
            contiguous_from: 4,
            rejoined_epoch: 2,
            ..GroupState::default()
        };
        assert_eq!(encode_group(&state), value);
        assert_eq!(decode_group(&value), Ok(state));
        value[0] = 3;
        assert!(decode_group(&value).is_err(), "a format of tomorrow");
    }

    #[test]
    fn the_sides_of_a_group_do_not_meet_others() {
        let group = GroupId(5);
        let (first, second) = (Slot::new(group, Side::First), Slot::new(group, Side::Second));
        assert_eq!(first.prefix(), 5u32.to_be_bytes());
        assert!(first < second && first.group() == group && second.group() == group);
        let last = Slot::new(HIGHEST_GROUP, Side::Second);
        assert!(last.prefix().as_slice() < last.end().as_slice());
        let beyond = Slot::new(GroupId(HIGHEST_GROUP.0 + 1), Side::First);
        assert!(last < beyond, "no group's");
    }

    proptest! {
        #[test]
        fn group_comes_back(
            applied: Option<(u64, u64)>,
            numbers: (u64, u64, u64),
            flags: (bool, bool, bool, bool),
        ) {
            let state = GroupState {
                applied: applied.map(|(term, index)| LogPosition { term, index }),
                contiguous_from: numbers.0,
                rejoined_epoch: numbers.1,
                creation: CreationId(numbers.2),
                dropping: flags.0,
                side: if flags.1 { Side::Second } else { Side::First },
                removed: flags.2,
                synchronous: flags.3,
            };
            let value = encode_group(&state);
            prop_assert_eq!(decode_group(&value), Ok(state));
            for cut in 0..value.len() {
                prop_assert!(decode_group(&value[..cut]).is_err());
            }
        }

        #[test]
        fn nothing_on_disk_panics(value: Vec<u8>) {
            let _ = decode_group(&value);
        }
    }
}
