//! A set of positions: what an app has not confirmed yet.
//!
//! Positions live in pages of 4096. A page that holds all of its positions is a mark and nothing
//! else, a page that holds none does not exist, any other is a bitmap of 512 bytes. So an untouched
//! backlog costs about 10 bytes per thousand messages, the worst pattern of confirms costs one bit
//! per message, and one message left behind costs one page.

use std::collections::BTreeMap;

use crate::codec::{Malformed, Reader, malformed, put_varint};
use crate::ids::Position;

/// Positions per page.
pub(crate) const PAGE: u64 = 4096;
const WORDS: usize = (PAGE / 64) as usize;

/// An ordered set of positions that knows which of its pages changed since they were last written.
#[derive(Debug, Default)]
pub(crate) struct PositionSet {
    pages: BTreeMap<u64, Page>,
    len: u64,
    /// Pages that changed since the last checkpoint; each once.
    changed: Vec<u64>,
    /// Pages that are in the store and no longer exist.
    removed: Vec<u64>,
}

#[derive(Debug)]
struct Page {
    /// `None`: all positions of the page are in the set.
    bits: Option<Box<[u64; WORDS]>>,
    /// Positions in the set; never 0.
    live: u16,
    saved: bool,
    dirty: bool,
}

impl PositionSet {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn contains(&self, position: Position) -> bool {
        let Some(page) = self.pages.get(&(position / PAGE)) else { return false };
        let (word, bit) = place(position);
        page.bits.as_ref().is_none_or(|bits| bits[word] & bit != 0)
    }

    /// The first position of the set at or after `from`.
    pub(crate) fn next(&self, from: Position) -> Option<Position> {
        for (&number, page) in self.pages.range(from / PAGE..) {
            let start = from.max(number * PAGE);
            let Some(bits) = &page.bits else { return Some(start) };
            let first = ((start % PAGE) / 64) as usize;
            let mut word = bits[first] & (u64::MAX << (start % 64));
            for at in first..WORDS {
                if at > first {
                    word = bits[at];
                }
                if word != 0 {
                    return Some(number * PAGE + at as u64 * 64 + u64::from(word.trailing_zeros()));
                }
            }
        }
        None
    }

    /// Adds a run, first to last inclusive. The positions must not be in the set.
    pub(crate) fn insert_run(&mut self, first: Position, last: Position) {
        let mut at = first;
        while at <= last {
            let number = at / PAGE;
            let end = last.min(number * PAGE + (PAGE - 1));
            self.insert_in_page(number, at, end);
            if end == last {
                break;
            }
            at = end + 1;
        }
    }

    fn insert_in_page(&mut self, number: u64, first: Position, last: Position) {
        let page = self.pages.entry(number).or_insert_with(|| Page {
            bits: Some(Box::new([0; WORDS])),
            live: 0,
            saved: false,
            dirty: false,
        });
        let Some(bits) = &mut page.bits else { return };
        let mut added = 0u16;
        for position in first..=last {
            let (word, bit) = place(position);
            added += u16::from(bits[word] & bit == 0);
            bits[word] |= bit;
        }
        page.live += added;
        self.len += u64::from(added);
        if u64::from(page.live) == PAGE {
            page.bits = None;
        }
        mark(page, number, &mut self.changed);
    }

    /// Takes a position out; false when it was not in.
    pub(crate) fn remove(&mut self, position: Position) -> bool {
        let number = position / PAGE;
        let Some(page) = self.pages.get_mut(&number) else { return false };
        let (word, bit) = place(position);
        let bits = page.bits.get_or_insert_with(|| Box::new([u64::MAX; WORDS]));
        if bits[word] & bit == 0 {
            return false;
        }
        bits[word] &= !bit;
        page.live -= 1;
        self.len -= 1;
        if page.live == 0 {
            if page.saved {
                self.removed.push(number);
            }
            self.pages.remove(&number);
        } else {
            mark(page, number, &mut self.changed);
        }
        true
    }

    /// Notes that something stored with the page of `position` changed.
    pub(crate) fn touch(&mut self, position: Position) {
        let number = position / PAGE;
        if let Some(page) = self.pages.get_mut(&number) {
            mark(page, number, &mut self.changed);
        }
    }

    pub(crate) fn clear(&mut self) {
        let saved = self.pages.iter().filter(|(_, page)| page.saved).map(|(&number, _)| number);
        self.removed.extend(saved);
        self.pages.clear();
        self.changed.clear();
        self.len = 0;
    }

    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = Position> + '_ {
        let mut from = Some(0);
        std::iter::from_fn(move || {
            let position = self.next(from?)?;
            from = position.checked_add(1);
            Some(position)
        })
    }

    /// 64 positions as bits, lowest first, from `start`, which must be a multiple of 64.
    pub(crate) fn word(&self, start: Position) -> u64 {
        match self.pages.get(&(start / PAGE)) {
            None => 0,
            Some(page) => page.bits.as_ref().map_or(u64::MAX, |bits| bits[place(start).0]),
        }
    }

    /// The numbers of all pages, ascending.
    pub(crate) fn page_numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.pages.keys().copied()
    }

    /// Forgets what changed, and says it: pages to write (ascending, existing) and pages to remove.
    pub(crate) fn take_changes(&mut self) -> (Vec<u64>, Vec<u64>) {
        let mut changed = std::mem::take(&mut self.changed);
        let removed = std::mem::take(&mut self.removed);
        changed.sort_unstable();
        changed.dedup();
        changed.retain(|number| match self.pages.get_mut(number) {
            Some(page) => {
                page.dirty = false;
                page.saved = true;
                true
            }
            None => false,
        });
        (changed, removed)
    }

    /// Appends a page's content: 0 for a full page; 1, count and runs (gap, length - 1); or 2 and
    /// the bitmap, whichever is shorter.
    pub(crate) fn encode_page(&self, number: u64, out: &mut Vec<u8>) {
        let Some(page) = self.pages.get(&number) else { return };
        let Some(bits) = &page.bits else {
            out.push(0);
            return;
        };
        let start = out.len();
        let runs = runs(bits);
        out.push(1);
        put_varint(out, runs.len() as u64);
        let mut next = 0;
        for (first, last) in runs {
            put_varint(out, first - next);
            put_varint(out, last - first);
            next = last + 1;
        }
        if out.len() - start > 1 + WORDS * 8 {
            out.truncate(start);
            out.push(2);
            bits.iter().for_each(|word| out.extend_from_slice(&word.to_be_bytes()));
        }
    }

    /// Reads a page back; it counts as saved.
    pub(crate) fn decode_page(
        &mut self,
        number: u64,
        reader: &mut Reader<'_>,
    ) -> Result<(), Malformed> {
        const WHAT: &str = "position page";
        if number > u64::MAX / PAGE || self.pages.contains_key(&number) {
            return malformed(WHAT);
        }
        let mut bits = Box::new([0u64; WORDS]);
        match reader.u8(WHAT)? {
            0 => bits.fill(u64::MAX),
            1 => {
                let mut next = 0u64;
                for _ in 0..reader.count(2, WHAT)? {
                    let first = next.saturating_add(reader.varint(WHAT)?);
                    let last = first.saturating_add(reader.varint(WHAT)?);
                    if last >= PAGE {
                        return malformed(WHAT);
                    }
                    for position in first..=last {
                        let (word, bit) = place(position);
                        bits[word] |= bit;
                    }
                    next = last + 1;
                }
            }
            2 => {
                for word in bits.iter_mut() {
                    *word = reader.u64(WHAT)?;
                }
            }
            _ => return malformed(WHAT),
        }
        let live: u32 = bits.iter().map(|word| word.count_ones()).sum();
        if live == 0 {
            return malformed(WHAT);
        }
        self.len += u64::from(live);
        let bits = (u64::from(live) != PAGE).then_some(bits);
        self.pages.insert(number, Page { bits, live: live as u16, saved: true, dirty: false });
        Ok(())
    }
}

fn mark(page: &mut Page, number: u64, changed: &mut Vec<u64>) {
    if !page.dirty {
        page.dirty = true;
        changed.push(number);
    }
}

fn place(position: Position) -> (usize, u64) {
    (((position % PAGE) / 64) as usize, 1 << (position % 64))
}

/// Runs of set bits, first to last inclusive.
fn runs(bits: &[u64; WORDS]) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for position in (0..PAGE).filter(|&position| {
        let (word, bit) = place(position);
        bits[word] & bit != 0
    }) {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == position => *last = position,
            _ => runs.push((position, position)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Copies a set through its changes, as a checkpoint does.
    fn save(set: &mut PositionSet, store: &mut BTreeMap<u64, Vec<u8>>) {
        let (changed, removed) = set.take_changes();
        removed.iter().for_each(|number| assert!(store.remove(number).is_some()));
        for number in changed {
            let mut value = Vec::new();
            set.encode_page(number, &mut value);
            store.insert(number, value);
        }
    }

    proptest! {
        #[test]
        fn behaves_like_an_ordinary_set_and_survives_checkpoints(
            steps in prop::collection::vec((0u8..4, 0u64..20_000, 1u64..6000), 1..40),
        ) {
            let (mut set, mut model) = (PositionSet::default(), BTreeSet::new());
            let (mut store, mut next) = (BTreeMap::new(), 0);
            for (kind, at, len) in steps {
                match kind {
                    0 => {
                        set.insert_run(next, next + len - 1);
                        model.extend(next..next + len);
                        next += len + at % 3;
                    }
                    1 | 2 => {
                        for position in (at..at + len).step_by(usize::from(kind)) {
                            prop_assert_eq!(set.remove(position), model.remove(&position));
                        }
                    }
                    _ => save(&mut set, &mut store),
                }
                prop_assert_eq!(set.len(), model.len() as u64);
                prop_assert_eq!(set.next(at), model.range(at..).next().copied());
                prop_assert_eq!(set.contains(at), model.contains(&at));
            }
            save(&mut set, &mut store);
            let mut back = PositionSet::default();
            for (&number, value) in &store {
                let mut reader = Reader::new(value);
                back.decode_page(number, &mut reader).unwrap();
                prop_assert!(reader.finish("page").is_ok());
            }
            prop_assert!(back.iter().eq(model.iter().copied()));
            prop_assert_eq!(back.len(), model.len() as u64);
        }

        #[test]
        fn no_bytes_panic_the_page_reader(bytes: Vec<u8>, number: u64) {
            let _ = PositionSet::default().decode_page(number, &mut Reader::new(&bytes));
        }
    }

    #[test]
    fn golden_bytes_of_the_three_page_forms() {
        let mut set = PositionSet::default();
        set.insert_run(0, PAGE - 1);
        set.insert_run(PAGE + 1, PAGE + 300);
        for position in (2 * PAGE..3 * PAGE).step_by(2) {
            set.insert_run(position, position);
        }
        let page = |number| {
            let mut out = Vec::new();
            set.encode_page(number, &mut out);
            out
        };
        assert_eq!(page(0), [0]);
        assert_eq!(page(1), [1, 1, 1, 0xab, 0x02]);
        assert_eq!(page(2), [&[2][..], &[0x55; 512]].concat());
    }

    #[test]
    fn a_page_that_came_and_went_between_checkpoints_is_never_written() {
        let mut set = PositionSet::default();
        set.insert_run(5, 9);
        (5..=9).for_each(|position| assert!(set.remove(position)));
        assert_eq!(set.take_changes(), (vec![], vec![]));
    }
}
