//! Takes the pieces of a snapshot that a peer sends, in order, and checks that they are whole.
//!
//! What comes in is a peer's word: nothing in it may reserve memory that was not sent, and nothing
//! counts before the end was seen.

use crate::parts::entry_record;
use crate::parts::snapshot_pieces::{self, Kind, Part};
use flintmq_consensus::{Index, SnapshotId};

/// A record of a snapshot that is all there.
pub enum StagedRecord<'a> {
    /// Of the `queue` family: suffix and value.
    State(&'a [u8], &'a [u8]),
    /// Of the log: index and the value that `log` holds.
    Entry(Index, &'a [u8]),
}

/// How far a snapshot has come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staging {
    id: SnapshotId,
    /// Where the next piece must begin; `None` once the end was seen.
    next: Option<Vec<u8>>,
    /// The record that began last, and what there is of its value while that is not all there.
    record: Option<(Kind, Vec<u8>)>,
    partial: Option<Vec<u8>>,
}

impl Staging {
    /// Nothing yet of this snapshot.
    pub fn begin(id: SnapshotId) -> Self {
        Self { id, next: Some(Vec::new()), record: None, partial: None }
    }

    /// Whether everything of this very snapshot is there.
    pub fn is_complete(&self, id: SnapshotId) -> bool {
        self.id == id && self.next.is_none()
    }

    /// Takes a piece in and hands its whole records to `put`. After an error the staging is worth
    /// nothing: it must begin anew.
    pub fn take<E: From<String>>(
        &mut self,
        id: SnapshotId,
        cursor: &[u8],
        mut data: &[u8],
        mut put: impl FnMut(StagedRecord<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if id != self.id {
            return Err(E::from("a piece of another snapshot".to_owned()));
        }
        if self.next.as_deref() != Some(cursor) {
            return Err(E::from("not the next piece".to_owned()));
        }
        self.next = Some(Vec::new());
        let mut open = true;
        while let Some(part) = snapshot_pieces::next_part(&mut data)? {
            if !open {
                return Err(E::from("a piece goes on behind its end".to_owned()));
            }
            open = self.take_part(&part, &mut put)?;
        }
        if open {
            return Err(E::from("a piece does not say what follows it".to_owned()));
        }
        Ok(())
    }

    /// Takes a part in; false: it must be the last of its piece.
    fn take_part<E: From<String>>(
        &mut self,
        part: &Part<'_>,
        put: &mut impl FnMut(StagedRecord<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        match part.kind {
            Kind::Next if part.key.is_empty() => {
                return Err(E::from("the piece would follow itself".to_owned()));
            }
            Kind::Next => {
                self.next = Some(part.key.to_vec());
                return Ok(false);
            }
            Kind::End if self.partial.is_some() || self.record.is_none() => {
                return Err(E::from("the snapshot ends within a record".to_owned()));
            }
            Kind::End if !part.key.is_empty() || part.total > 0 => {
                return Err(E::from("the end of the snapshot is damaged".to_owned()));
            }
            Kind::End => {
                self.next = None;
                return Ok(false);
            }
            Kind::Head | Kind::State | Kind::Entry => {}
        }
        if part.bytes.len() == part.total {
            self.begin_record(part)?;
            self.whole(part.kind, part.key, part.bytes, put)?;
            return Ok(true);
        }
        if part.offset == 0 {
            self.begin_record(part)?;
            self.partial = Some(part.bytes.to_vec());
            return Ok(true);
        }
        let same =
            self.record.as_ref().is_some_and(|(kind, key)| *kind == part.kind && key == part.key);
        let Some(mut value) = self.partial.take().filter(|v| same && v.len() == part.offset) else {
            return Err(E::from("a record goes on that did not begin".to_owned()));
        };
        // Grows by what was sent, never by what was announced.
        value.extend_from_slice(part.bytes);
        if value.len() == part.total {
            self.whole(part.kind, part.key, &value, put)?;
        } else {
            self.partial = Some(value);
        }
        Ok(true)
    }

    /// Records must ascend, so that none is written twice.
    fn begin_record(&mut self, part: &Part<'_>) -> Result<(), String> {
        if self.partial.is_some() {
            return Err("a record begins within another".to_owned());
        }
        let follows = match &self.record {
            None => part.kind == Kind::Head,
            Some((kind, key)) => (*kind, key.as_slice()) < (part.kind, part.key),
        };
        if !follows || (part.kind == Kind::Head && self.record.is_some()) {
            return Err("the records of the snapshot are out of order".to_owned());
        }
        self.record = Some((part.kind, part.key.to_vec()));
        Ok(())
    }

    fn whole<E: From<String>>(
        &self,
        kind: Kind,
        key: &[u8],
        value: &[u8],
        put: &mut impl FnMut(StagedRecord<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        match kind {
            Kind::Head => {
                let position = snapshot_pieces::decode_head(value)?;
                if position != self.id.position {
                    return Err(E::from(format!(
                        "the snapshot is not at the position that was offered found={position:?}"
                    )));
                }
                Ok(())
            }
            Kind::State => put(StagedRecord::State(key, value)),
            Kind::Entry => {
                let index = snapshot_pieces::decode_index(key)?;
                let entry = entry_record::check_entry(value)?;
                let position = self.id.position;
                if index == 0 || index > position.index || entry > position.term {
                    return Err(E::from(format!(
                        "an entry beyond the snapshot's position index={index} term={entry}"
                    )));
                }
                put(StagedRecord::Entry(index, value))
            }
            Kind::End | Kind::Next => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::entry_record::EntryHeader;
    use crate::parts::snapshot_pieces::{PieceBuilder, Place, SnapshotPiece};
    use bytes::Bytes;
    use flintmq_consensus::{Entry, EntryKind, LogPosition, NodeId};
    use proptest::prelude::*;

    const POSITION: LogPosition = LogPosition { term: 4, index: 20 };

    fn id() -> SnapshotId {
        SnapshotId { source: NodeId(1), number: 7, position: POSITION }
    }

    type Records = Vec<(Kind, Vec<u8>, Vec<u8>)>;

    fn entry(index: u64, bytes: usize) -> (Kind, Vec<u8>, Vec<u8>) {
        let payload = Bytes::from(vec![index as u8; bytes]);
        let entry = Entry { index, term: 4, history: 0, kind: EntryKind::Commands, payload };
        let value = [EntryHeader::of(&entry).as_slice(), &entry.payload].concat();
        (Kind::Entry, index.to_be_bytes().to_vec(), value)
    }

    fn piece(records: &Records, cursor: &[u8], max_bytes: usize) -> SnapshotPiece {
        let place = Place::decode(cursor).unwrap();
        let mut piece = PieceBuilder::new(place.clone(), max_bytes);
        let mut room = piece.head(POSITION).unwrap();
        for (kind, key, value) in records {
            if room && place.first_key(*kind).is_some_and(|first| key.as_slice() >= first) {
                room = piece.add(*kind, key, value).unwrap();
            }
        }
        if room {
            piece.end().unwrap();
        }
        piece.finish()
    }

    fn pieces(records: &Records, max_bytes: usize) -> Vec<(Bytes, SnapshotPiece)> {
        let mut found = Vec::new();
        let mut cursor = Some(Bytes::new());
        while let Some(at) = cursor {
            let piece = piece(records, &at, max_bytes);
            cursor = piece.next.clone();
            found.push((at, piece));
        }
        found
    }

    fn take(staging: &mut Staging, cursor: &[u8], data: &[u8]) -> Result<Records, String> {
        let mut found = Records::new();
        staging.take(id(), cursor, data, |record| {
            found.push(match record {
                StagedRecord::State(key, value) => (Kind::State, key.to_vec(), value.to_vec()),
                StagedRecord::Entry(index, value) => {
                    (Kind::Entry, index.to_be_bytes().to_vec(), value.to_vec())
                }
            });
            Ok::<(), String>(())
        })?;
        Ok(found)
    }

    fn sample() -> Records {
        let state = |key: &[u8], bytes| (Kind::State, key.to_vec(), vec![5; bytes]);
        vec![state(b"", 3), state(b"a", 0), state(b"b", 4000), entry(2, 0), entry(9, 2500)]
    }

    #[test]
    fn a_gap_a_repetition_and_another_snapshot_are_noticed() {
        let pieces = pieces(&sample(), 0);
        assert!(pieces.len() > 4, "{}", pieces.len());
        let mut staging = Staging::begin(id());
        take(&mut staging, &pieces[0].0, &pieces[0].1.data).unwrap();
        assert!(!staging.is_complete(id()));
        for wrong in [0, 2] {
            let mut staging = staging.clone();
            take(&mut staging, &pieces[wrong].0, &pieces[wrong].1.data).unwrap_err();
        }
        let other = SnapshotId { number: 8, ..id() };
        let nothing = |_: StagedRecord<'_>| Ok::<(), String>(());
        let (cursor, piece) = &pieces[1];
        assert!(staging.take(other, cursor, &piece.data, nothing).is_err());
        let elsewhere = LogPosition { term: 4, index: 21 };
        let mut misled = Staging::begin(SnapshotId { position: elsewhere, ..id() });
        let misled_id = SnapshotId { position: elsewhere, ..id() };
        assert!(misled.take(misled_id, b"", &pieces[0].1.data, nothing).is_err());
    }

    #[test]
    fn an_entry_beyond_the_position_is_refused() {
        for bad in [entry(21, 1), entry(0, 1)] {
            let whole = piece(&vec![bad], b"", 1 << 20);
            assert!(take(&mut Staging::begin(id()), b"", &whole.data).is_err());
        }
        let upside_down = piece(&vec![entry(5, 1), entry(4, 1)], b"", 1 << 20);
        assert!(take(&mut Staging::begin(id()), b"", &upside_down.data).is_err());
    }

    proptest! {
        #[test]
        fn what_was_cut_is_whole_again(
            sizes in prop::collection::vec(0..6000usize, 0..12),
            max_bytes in 0..9000usize,
        ) {
            let mut records: Records = Vec::new();
            for (at, size) in sizes.iter().enumerate().take(6) {
                records.push((Kind::State, vec![at as u8; at], vec![at as u8; *size]));
            }
            for (at, size) in sizes.iter().enumerate().skip(6) {
                records.push(entry(at as u64, *size));
            }
            let mut staging = Staging::begin(id());
            let mut found = Records::new();
            for (cursor, piece) in pieces(&records, max_bytes) {
                prop_assert!(piece.data.len() <= max_bytes.max(1024));
                prop_assert!(!staging.is_complete(id()));
                found.extend(take(&mut staging, &cursor, &piece.data).unwrap());
            }
            prop_assert!(staging.is_complete(id()));
            prop_assert_eq!(found, records);
        }

        #[test]
        fn damage_never_panics_and_never_completes_early(
            at in 0..20_000usize, flip in 1..=255u8, cut in 0..3usize,
        ) {
            let mut staging = Staging::begin(id());
            for (cursor, piece) in pieces(&sample(), 2000) {
                let mut data = piece.data.to_vec();
                let length = data.len();
                data[at % length] ^= flip;
                data.truncate(length - cut);
                if take(&mut staging, &cursor, &data).is_err() {
                    break;
                }
                prop_assert_eq!(staging.is_complete(id()), piece.next.is_none());
            }
        }
    }
}
