//! A group's applied state as a row of records, cut into pieces that fit a message.
//!
//! A snapshot is its head (format and position), the records of the `queue` family by key, the
//! living entries at or below the position by index, and an end. A piece holds *parts* of records:
//! a record that is larger than the rest of a piece goes on in the next one. Each piece but the
//! last ends with the cursor of the one after it, so that whoever stages pieces notices a gap. A
//! cursor names the record and the byte where its piece begins, and nothing that only the sender's
//! memory knows: any piece can be read again.

use crate::parts::fields::Fields;
use bytes::Bytes;
use flintmq_consensus::{Index, LogPosition};

const FORMAT: u8 = 1;

/// Bytes of a record's value at most: what a receiver may have to put together in memory.
pub const MAX_RECORD_BYTES: usize = 256 << 20;

/// Bytes of a record's key at most: cursors hold one.
pub const MAX_KEY_BYTES: usize = 64 << 10;

/// Bytes that a piece may always hold, however few were asked for.
const MIN_PIECE_BYTES: usize = 1 << 10;

/// Bytes that a piece never holds, however many were asked for: a receiver's inbox must take it.
const MAX_PIECE_BYTES: usize = 8 << 20;

/// Kind, length of the key, of the value, offset in the value, length of the part.
const PART_HEADER: usize = 17;

/// Bytes of a value that are worth beginning a record at the end of a piece.
const MIN_PART: usize = 1 << 10;

/// Place kept free for the cursor at the end.
const CURSOR_ROOM: usize = PART_HEADER + CURSOR_HEADER + 64;
const CURSOR_HEADER: usize = 5;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Format and position.
    Head = 0,
    /// A record of the `queue` family, by its suffix.
    State = 1,
    /// An entry as it is in `log`, by its index.
    Entry = 2,
    /// Everything is said.
    End = 3,
    /// No record: the cursor of the next piece.
    Next = 4,
}

impl Kind {
    fn of(byte: u8) -> Result<Self, String> {
        match byte {
            0 => Ok(Self::Head),
            1 => Ok(Self::State),
            2 => Ok(Self::Entry),
            3 => Ok(Self::End),
            4 => Ok(Self::Next),
            other => Err(format!("unknown kind of record in a snapshot kind={other}")),
        }
    }
}

/// A byte of a snapshot, named by its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Kind of the record.
    pub kind: Kind,
    /// Its key.
    pub key: Vec<u8>,
    /// Byte of its value.
    pub offset: usize,
}

impl Place {
    /// The place of a cursor; the empty one is the beginning.
    pub fn decode(cursor: &[u8]) -> Result<Self, String> {
        if cursor.is_empty() {
            return Ok(Self { kind: Kind::Head, key: Vec::new(), offset: 0 });
        }
        let mut fields = Fields { rest: cursor };
        let kind = Kind::of(fields.u8()?)?;
        let offset = fields.u32()? as usize;
        if kind == Kind::Next || fields.rest.len() > MAX_KEY_BYTES {
            return Err("a cursor that names no record".to_owned());
        }
        Ok(Self { kind, key: fields.rest.to_vec(), offset })
    }

    fn encode(&self) -> Vec<u8> {
        let mut cursor = Vec::with_capacity(CURSOR_HEADER + self.key.len());
        cursor.push(self.kind as u8);
        cursor.extend_from_slice(&(self.offset as u32).to_be_bytes());
        cursor.extend_from_slice(&self.key);
        cursor
    }

    /// Where to look for the first record of `kind`: `None` if the place is behind all of them.
    pub fn first_key(&self, kind: Kind) -> Option<&[u8]> {
        match kind.cmp(&self.kind) {
            std::cmp::Ordering::Less => None,
            std::cmp::Ordering::Equal => Some(&self.key),
            std::cmp::Ordering::Greater => Some(&[]),
        }
    }
}

/// A piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPiece {
    /// The bytes, opaque to all but the store that stages them.
    pub data: Bytes,
    /// Where the next piece begins; none after the last.
    pub next: Option<Bytes>,
}

/// Puts a piece together: records are added from its place on, until it is full.
pub struct PieceBuilder {
    data: Vec<u8>,
    max_bytes: usize,
    place: Place,
    next: Option<Place>,
}

impl PieceBuilder {
    /// A piece that begins at `place`.
    pub fn new(place: Place, max_bytes: usize) -> Self {
        let max_bytes = max_bytes.clamp(MIN_PIECE_BYTES, MAX_PIECE_BYTES);
        Self { data: Vec::new(), max_bytes, place, next: None }
    }

    /// Adds the head, if the piece begins with it. True: there is room for more.
    pub fn head(&mut self, position: LogPosition) -> Result<bool, String> {
        if self.place.kind > Kind::Head {
            return Ok(true);
        }
        self.add(Kind::Head, &[], &head(position))
    }

    /// Ends the snapshot, if there is room for it.
    pub fn end(&mut self) -> Result<bool, String> {
        self.add(Kind::End, &[], &[])
    }

    /// Adds a record, or as much of it as there is room for. True: there is room for more.
    pub fn add(&mut self, kind: Kind, key: &[u8], value: &[u8]) -> Result<bool, String> {
        if key.len() > MAX_KEY_BYTES || value.len() > MAX_RECORD_BYTES {
            return Err(format!(
                "a record is too large for a snapshot key_bytes={} bytes={}",
                key.len(),
                value.len()
            ));
        }
        let mut offset = 0;
        if self.data.is_empty() && self.place.offset > 0 {
            // A piece that begins within a record begins within this one, or nowhere.
            let same = kind == self.place.kind && key == self.place.key;
            if !same || self.place.offset >= value.len() {
                return Err("the cursor names no byte of this snapshot".to_owned());
            }
            offset = self.place.offset;
        }
        let rest = value.get(offset..).unwrap_or_default();
        let front = PART_HEADER + key.len();
        let used = self.data.len() + front + CURSOR_ROOM;
        let room = self.max_bytes.saturating_sub(used);
        if !self.data.is_empty() && (used > self.max_bytes || room < rest.len().min(MIN_PART)) {
            self.next = Some(Place { kind, key: key.to_vec(), offset });
            return Ok(false);
        }
        let part = rest.get(..room.max(1)).unwrap_or(rest);
        push_part(&mut self.data, kind, key, (value.len(), offset), part);
        if part.len() < rest.len() {
            self.next = Some(Place { kind, key: key.to_vec(), offset: offset + part.len() });
            return Ok(false);
        }
        Ok(true)
    }

    /// The piece.
    pub fn finish(mut self) -> SnapshotPiece {
        let next = self.next.map(|place| place.encode());
        if let Some(cursor) = &next {
            push_part(&mut self.data, Kind::Next, cursor, (0, 0), &[]);
        }
        SnapshotPiece { data: self.data.into(), next: next.map(Bytes::from) }
    }
}

fn push_part(
    data: &mut Vec<u8>,
    kind: Kind,
    key: &[u8],
    (total, offset): (usize, usize),
    part: &[u8],
) {
    data.push(kind as u8);
    // All of them were checked against bounds far below 4 GiB.
    for length in [key.len(), total, offset, part.len()] {
        data.extend_from_slice(&(length as u32).to_be_bytes());
    }
    data.extend_from_slice(key);
    data.extend_from_slice(part);
}

/// A part of a record, as it is found in a piece.
pub struct Part<'a> {
    /// Kind of the record.
    pub kind: Kind,
    /// Its key.
    pub key: &'a [u8],
    /// Bytes of the whole value.
    pub total: usize,
    /// Where the part begins in it.
    pub offset: usize,
    /// The part.
    pub bytes: &'a [u8],
}

/// Takes the next part off the front of `data`; `None` at the end.
pub fn next_part<'a>(data: &mut &'a [u8]) -> Result<Option<Part<'a>>, String> {
    if data.is_empty() {
        return Ok(None);
    }
    let mut fields = Fields { rest: data };
    let kind = Kind::of(fields.u8()?)?;
    let key_length = fields.u32()? as usize;
    let (total, offset) = (fields.u32()? as usize, fields.u32()? as usize);
    let length = fields.u32()? as usize;
    let most = if kind == Kind::Next { MAX_KEY_BYTES + CURSOR_HEADER } else { MAX_KEY_BYTES };
    if key_length > most || total > MAX_RECORD_BYTES {
        return Err(format!("a record is too large key_bytes={key_length} bytes={total}"));
    }
    let short = || "a piece of a snapshot is cut off".to_owned();
    let (key, rest) = fields.rest.split_at_checked(key_length).ok_or_else(short)?;
    let (bytes, rest) = rest.split_at_checked(length).ok_or_else(short)?;
    if offset.checked_add(length).is_none_or(|end| end > total) {
        return Err(format!("a part beyond its record offset={offset} bytes={length}"));
    }
    *data = rest;
    Ok(Some(Part { kind, key, total, offset, bytes }))
}

fn head(position: LogPosition) -> [u8; 17] {
    let mut value = [0; 17];
    value[0] = FORMAT;
    value[1..9].copy_from_slice(&position.term.to_be_bytes());
    value[9..].copy_from_slice(&position.index.to_be_bytes());
    value
}

/// The position in a head.
pub fn decode_head(value: &[u8]) -> Result<LogPosition, String> {
    let mut fields = Fields { rest: value };
    match fields.u8()? {
        FORMAT => {}
        other => return Err(format!("unknown format of a snapshot format={other}")),
    }
    let position = LogPosition { term: fields.u64()?, index: fields.u64()? };
    fields.end()?;
    Ok(position)
}

/// The index in an entry's key.
pub fn decode_index(key: &[u8]) -> Result<Index, String> {
    key.try_into().map(Index::from_be_bytes).map_err(|_| "an entry without index".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(cursor: &[u8]) -> Place {
        Place::decode(cursor).unwrap()
    }

    #[test]
    fn a_piece_takes_what_fits_and_names_where_it_stopped() {
        let position = LogPosition { term: 3, index: 9 };
        let mut piece = PieceBuilder::new(at(&[]), 0);
        assert_eq!(piece.head(position), Ok(true));
        assert_eq!(piece.add(Kind::State, b"a", &[7; 5000]), Ok(false));
        let first = piece.finish();
        assert!(first.data.len() <= MIN_PIECE_BYTES, "{}", first.data.len());
        let place = at(first.next.as_ref().unwrap());
        assert_eq!((place.kind, place.key.as_slice(), place.offset), (Kind::State, &b"a"[..], 0));
        let mut piece = PieceBuilder::new(place, 4096);
        assert_eq!(piece.head(position), Ok(true), "not again");
        assert_eq!(piece.add(Kind::State, b"a", &[7; 5000]), Ok(false));
        let second = piece.finish();
        assert!((3500..=4096).contains(&second.data.len()), "{}", second.data.len());
        let place = at(second.next.as_ref().unwrap());
        assert!(place.offset > 3500, "{}", place.offset);
        let mut piece = PieceBuilder::new(place.clone(), 4096);
        assert_eq!(piece.add(Kind::State, b"a", &[7; 5000]), Ok(true));
        assert_eq!(piece.end(), Ok(true));
        assert_eq!(piece.finish().next, None);
        let mut strange = PieceBuilder::new(place.clone(), 4096);
        assert!(strange.add(Kind::State, b"b", &[7; 5000]).is_err(), "another record");
        let mut strange = PieceBuilder::new(place, 4096);
        assert!(strange.add(Kind::State, b"a", &[7; 9]).is_err(), "beyond its end");
    }

    #[test]
    fn places_are_looked_for_behind_their_own() {
        let place = Place { kind: Kind::State, key: b"k".to_vec(), offset: 0 };
        assert_eq!(at(&place.encode()), place);
        assert_eq!(place.first_key(Kind::Head), None);
        assert_eq!(place.first_key(Kind::State), Some(&b"k"[..]));
        assert_eq!(place.first_key(Kind::Entry), Some(&b""[..]));
    }

    #[test]
    fn heads_of_tomorrow_are_refused() {
        let position = LogPosition { term: 1, index: 2 };
        let mut value = head(position);
        assert_eq!(decode_head(&value), Ok(position));
        value[0] = 2;
        assert!(decode_head(&value).is_err());
    }

    proptest! {
        #[test]
        fn nothing_that_a_peer_sends_panics(mut data: Vec<u8>, cursor: Vec<u8>, kind in 0..6u8) {
            let _ = Place::decode(&cursor);
            if let Some(first) = data.first_mut() {
                *first = kind;
            }
            let mut rest = data.as_slice();
            while let Ok(Some(part)) = next_part(&mut rest) {
                prop_assert!(part.offset + part.bytes.len() <= part.total);
            }
        }
    }
}
