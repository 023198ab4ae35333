//! The history's records in the store.
//!
//! Block: version 1, history clock of the newest message, count (varints), code. A block with fewer
//! than 256 messages is the one that still grows. Stray: version 1, position, history clock at
//! arrival.

use super::block::{BLOCK, Block, decode, encode};
use super::{BlockKey, Client, History, Stray};
use crate::codec::{Malformed, Reader, malformed, put_varint};
use crate::ids::Guid;

/// What to write to and to remove from the store.
#[derive(Debug, Default)]
pub(crate) struct HistoryChanges {
    pub(crate) blocks: Vec<BlockKey>,
    pub(crate) blocks_removed: Vec<BlockKey>,
    pub(crate) strays: Vec<Guid>,
    pub(crate) strays_removed: Vec<Guid>,
}

impl History {
    /// Forgets what changed, and says it.
    pub(crate) fn take_changes(&mut self) -> HistoryChanges {
        let changes = std::mem::take(&mut self.changes);
        for (id, number) in &changes.blocks {
            let Some(client) = self.clients.get_mut(id) else { continue };
            let at = number.wrapping_sub(client.first_number) as usize;
            if let Some(block) = client.blocks.get_mut(at) {
                block.saved = true;
            } else {
                client.open.saved = true;
                client.open.dirty = false;
            }
        }
        for guid in &changes.strays {
            if let Some(stray) = self.strays.get_mut(guid) {
                stray.saved = true;
            }
        }
        HistoryChanges {
            blocks: changes.blocks.into_iter().collect(),
            blocks_removed: changes.blocks_removed,
            strays: changes.strays.into_iter().collect(),
            strays_removed: changes.strays_removed,
        }
    }

    /// All records there are, by key.
    pub(crate) fn block_keys(&self) -> impl Iterator<Item = BlockKey> + '_ {
        self.clients.iter().flat_map(|(id, client)| {
            let open = u64::from(!client.open.seen.is_empty());
            (client.first_number..client.open_number() + open).map(|number| (*id, number))
        })
    }

    pub(crate) fn stray_guids(&self) -> impl Iterator<Item = Guid> + '_ {
        self.strays.keys().copied()
    }

    pub(crate) fn encode_block(&self, (id, number): BlockKey, out: &mut Vec<u8>) {
        let Some(client) = self.clients.get(&id) else { return };
        out.push(1);
        match client.blocks.get(number.wrapping_sub(client.first_number) as usize) {
            Some(block) => {
                put_varint(out, block.newest);
                put_varint(out, BLOCK as u64);
                out.extend_from_slice(block.code());
            }
            None => {
                put_varint(out, client.open.newest);
                put_varint(out, client.open.seen.len() as u64);
                encode(&client.open.seen, out);
            }
        }
    }

    pub(crate) fn encode_stray(&self, guid: Guid, out: &mut Vec<u8>) {
        let Some(stray) = self.strays.get(&guid) else { return };
        out.push(1);
        put_varint(out, stray.position);
        put_varint(out, stray.seen_at);
    }

    /// Reads a block back. Blocks of a client must come by ascending number.
    pub(crate) fn restore_block(
        &mut self,
        (id, number): BlockKey,
        value: &[u8],
    ) -> Result<(), Malformed> {
        const WHAT: &str = "history block";
        let mut reader = Reader::new(value);
        if reader.u8(WHAT)? != 1 {
            return malformed(WHAT);
        }
        let newest = reader.varint(WHAT)?;
        let count = reader.count(1, WHAT)?;
        let seen = decode(&mut reader, count)?;
        reader.finish(WHAT)?;
        if number > u64::MAX / 2 {
            return malformed(WHAT);
        }
        let client = self
            .clients
            .entry(id)
            .or_insert_with(|| Client { first_number: number, ..Client::default() });
        let ascends = client.last_sealed().is_none_or(|last| seen[0].stamp > last);
        if number != client.open_number() || !client.open.seen.is_empty() || !ascends {
            return malformed(WHAT);
        }
        self.guids += count as u64;
        if count == BLOCK
            && let Some(block) = Block::seal(&seen, newest, true)
        {
            self.sealed_bytes += block.memory();
            client.blocks.push_back(block);
            self.sealed.push_back((newest, (id, number)));
        } else {
            client.open.seen = seen;
            client.open.newest = newest;
            client.open.saved = true;
        }
        Ok(())
    }

    /// Reads a stray back.
    pub(crate) fn restore_stray(&mut self, guid: Guid, value: &[u8]) -> Result<(), Malformed> {
        const WHAT: &str = "history stray";
        let mut reader = Reader::new(value);
        if reader.u8(WHAT)? != 1 {
            return malformed(WHAT);
        }
        let stray =
            Stray { position: reader.varint(WHAT)?, seen_at: reader.varint(WHAT)?, saved: true };
        reader.finish(WHAT)?;
        if self.strays.insert(guid, stray).is_some() {
            return malformed(WHAT);
        }
        self.guids += 1;
        self.stray_order.push_back((stray.position, guid));
        Ok(())
    }

    /// Brings the ages back in order after all records were read.
    pub(crate) fn restored(&mut self) {
        self.sealed.make_contiguous().sort_unstable();
        self.stray_order.make_contiguous().sort_unstable();
    }
}
