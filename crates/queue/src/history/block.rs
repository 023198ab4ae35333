//! A sealed run of remembered messages of one client, coded by differences.

use crate::codec::{Malformed, Reader, malformed, put_varint, unzigzag, zigzag};
use crate::ids::{Position, Stamp};

/// Messages per block.
pub(crate) const BLOCK: usize = 256;

/// A remembered message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) stamp: Stamp,
    pub(crate) position: Position,
}

/// [`BLOCK`] remembered messages in the order of their stamps.
///
/// Code: timer (varint), head (varint) and position (varint) of the first; then per message twice
/// the difference of the timers, plus 1 when the head or the position did not grow by exactly one;
/// in that case followed by both differences (zigzag).
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) first: Stamp,
    pub(crate) last: Stamp,
    /// History clock when the last message was added.
    pub(crate) newest: u64,
    pub(crate) saved: bool,
    code: Box<[u8]>,
}

impl Block {
    /// Seals messages that are sorted by stamp; `None` when there are none.
    pub(crate) fn seal(seen: &[Seen], newest: u64, saved: bool) -> Option<Self> {
        let (first, last) = (seen.first()?.stamp, seen.last()?.stamp);
        let mut code = Vec::with_capacity(seen.len() * 4);
        encode(seen, &mut code);
        Some(Self { first, last, newest, saved, code: code.into() })
    }

    /// The position of a message, if the block holds it.
    pub(crate) fn position(&self, stamp: Stamp) -> Option<Position> {
        if stamp < self.first || stamp > self.last {
            return None;
        }
        let mut reader = Reader::new(&self.code);
        let mut seen = decode_first(&mut reader).ok()?;
        while seen.stamp < stamp {
            seen = decode_next(seen, &mut reader).ok()?;
        }
        (seen.stamp == stamp).then_some(seen.position)
    }

    pub(crate) fn code(&self) -> &[u8] {
        &self.code
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>() + self.code.len()
    }
}

/// Appends the code of messages that are sorted by stamp.
pub(crate) fn encode(seen: &[Seen], out: &mut Vec<u8>) {
    let Some(first) = seen.first() else { return };
    put_varint(out, first.stamp.timer);
    put_varint(out, u64::from(first.stamp.head));
    put_varint(out, first.position);
    for pair in seen.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        let timer = b.stamp.timer.wrapping_sub(a.stamp.timer) << 1;
        let head = i64::from(b.stamp.head) - i64::from(a.stamp.head);
        let position = b.position.wrapping_sub(a.position) as i64;
        if head == 1 && position == 1 {
            put_varint(out, timer);
        } else {
            put_varint(out, timer | 1);
            put_varint(out, zigzag(head));
            put_varint(out, zigzag(position));
        }
    }
}

/// Reads `count` messages; they must be in ascending order.
pub(crate) fn decode(reader: &mut Reader<'_>, count: usize) -> Result<Vec<Seen>, Malformed> {
    if count == 0 || count > BLOCK {
        return malformed("history block");
    }
    let mut seen = vec![decode_first(reader)?];
    while let Some(&last) = seen.last().filter(|_| seen.len() < count) {
        let next = decode_next(last, reader)?;
        if next.stamp <= last.stamp {
            return malformed("history block");
        }
        seen.push(next);
    }
    Ok(seen)
}

fn decode_first(reader: &mut Reader<'_>) -> Result<Seen, Malformed> {
    let timer = reader.varint("history block")?;
    let head = reader.varint_u32("history block")?;
    let position = reader.varint("history block")?;
    Ok(Seen { stamp: Stamp { timer, head }, position })
}

#[inline]
fn decode_next(last: Seen, reader: &mut Reader<'_>) -> Result<Seen, Malformed> {
    let timer = reader.varint("history block")?;
    let (mut head, mut position) = (1, 1);
    if timer & 1 == 1 {
        head = unzigzag(reader.varint("history block")?);
        position = unzigzag(reader.varint("history block")?);
    }
    let head = i64::from(last.stamp.head).saturating_add(head);
    let Ok(head) = u32::try_from(head) else { return malformed("history block") };
    Ok(Seen {
        stamp: Stamp { timer: last.stamp.timer.wrapping_add(timer >> 1), head },
        position: last.position.wrapping_add(position as u64),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn blocks_find_what_they_hold_and_nothing_else(
            stamps in prop::collection::btree_set((0u64..1 << 56, 0u32..1 << 24), 1..BLOCK),
            positions in prop::collection::vec(any::<u64>(), BLOCK),
            other in (0u64..1 << 56, 0u32..1 << 24),
        ) {
            let seen: Vec<Seen> = stamps
                .iter()
                .zip(positions)
                .map(|(&(timer, head), position)| Seen { stamp: Stamp { timer, head }, position })
                .collect();
            let block = Block::seal(&seen, 1, false).unwrap();
            for one in &seen {
                prop_assert_eq!(block.position(one.stamp), Some(one.position));
            }
            let absent = Stamp { timer: other.0, head: other.1 };
            prop_assert_eq!(block.position(absent).is_some(), stamps.contains(&other));
            let mut reader = Reader::new(block.code());
            prop_assert_eq!(decode(&mut reader, seen.len()).unwrap(), seen);
        }

        #[test]
        fn no_bytes_panic_the_reader(bytes: Vec<u8>, count in 0usize..300) {
            let _ = decode(&mut Reader::new(&bytes), count);
        }
    }

    #[test]
    fn a_steady_producer_takes_two_bytes_per_message() {
        let seen: Vec<Seen> = (0..BLOCK as u64)
            .map(|n| Seen {
                stamp: Stamp { timer: n * 6667, head: 0x40_0000 + n as u32 },
                position: n,
            })
            .collect();
        let block = Block::seal(&seen, 1, false).unwrap();
        assert_eq!(block.code().len(), 6 + 255 * 2);
    }
}
