//! The history of a queue: which GUIDs it has seen lately, and at which position.
//!
//! It is exact: it never takes a new message for a duplicate. A GUID is remembered for at least the
//! queue's window after arrival, counted on the history clock, which moves only with the times of
//! log entries; every replica therefore forgets at the same entry. Confirmed, expired and purged
//! messages stay remembered. The position lets a late confirm find its message.
//!
//! GUIDs of a client arrive in ascending order as a rule: a greater one than ever before is new
//! without looking further. They are kept in blocks of 256, coded by differences: 2 to 5 bytes
//! each. GUIDs that fall behind the blocks, or belong to more clients than [`MAX_CLIENTS`], are
//! *strays*, held one by one, at most [`MAX_STRAYS`]: beyond that the oldest stray is forgotten
//! before its time (which can let a duplicate in, and never loses a message).

mod block;
mod records;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use block::{BLOCK, Block, Seen};

use crate::ids::{Guid, Position, Stamp};

/// Clients per queue whose GUIDs are kept in blocks.
pub(crate) const MAX_CLIENTS: usize = 65_536;
/// GUIDs per queue that are kept one by one.
pub(crate) const MAX_STRAYS: usize = 262_144;

type ClientId = [u8; 6];

/// Names a block: client, number.
pub(crate) type BlockKey = (ClientId, u64);

/// The GUIDs of one queue.
#[derive(Debug, Default)]
pub(crate) struct History {
    clients: BTreeMap<ClientId, Client>,
    strays: BTreeMap<Guid, Stray>,
    /// Strays by age: positions ascend with arrival.
    stray_order: VecDeque<(Position, Guid)>,
    /// Sealed blocks by age: `newest` ascends.
    sealed: VecDeque<(u64, BlockKey)>,
    guids: u64,
    sealed_bytes: usize,
    changes: Changes,
}

#[derive(Debug, Default)]
struct Client {
    /// The number of the first block in `blocks`.
    first_number: u64,
    blocks: VecDeque<Block>,
    open: Open,
}

/// The block that still grows, sorted by stamp.
#[derive(Debug, Default)]
struct Open {
    seen: Vec<Seen>,
    newest: u64,
    saved: bool,
    dirty: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stray {
    position: Position,
    /// History clock at arrival.
    seen_at: u64,
    saved: bool,
}

#[derive(Debug, Default)]
struct Changes {
    blocks: BTreeSet<BlockKey>,
    blocks_removed: Vec<BlockKey>,
    strays: BTreeSet<Guid>,
    strays_removed: Vec<Guid>,
}

impl Client {
    fn open_number(&self) -> u64 {
        self.first_number + self.blocks.len() as u64
    }

    fn is_idle(&self) -> bool {
        self.blocks.is_empty() && self.open.seen.is_empty()
    }

    fn last_sealed(&self) -> Option<Stamp> {
        self.blocks.back().map(|block| block.last)
    }

    fn position(&self, stamp: Stamp) -> Option<Position> {
        if self.last_sealed().is_none_or(|last| stamp > last) {
            if self.open.seen.last().is_none_or(|last| stamp > last.stamp) {
                return None;
            }
            let at = self.open.seen.binary_search_by_key(&stamp, |seen| seen.stamp).ok()?;
            return Some(self.open.seen[at].position);
        }
        let at = self.blocks.partition_point(|block| block.last < stamp);
        self.blocks.get(at)?.position(stamp)
    }
}

impl History {
    /// The position of a remembered message.
    pub(crate) fn position(&self, guid: Guid) -> Option<Position> {
        let known =
            self.clients.get(&guid.client()).and_then(|client| client.position(guid.stamp()));
        known.or_else(|| self.strays.get(&guid).map(|stray| stray.position))
    }

    /// Remembers a message that [`History::position`] does not know. Positions and `clock` ascend.
    pub(crate) fn insert(&mut self, guid: Guid, position: Position, clock: u64) {
        let (id, stamp) = (guid.client(), guid.stamp());
        self.guids += 1;
        if self.clients.len() >= MAX_CLIENTS && !self.clients.contains_key(&id) {
            return self.insert_stray(guid, position, clock);
        }
        let client = self.clients.entry(id).or_default();
        if client.last_sealed().is_some_and(|last| stamp <= last) {
            return self.insert_stray(guid, position, clock);
        }
        let number = client.open_number();
        let open = &mut client.open;
        let seen = Seen { stamp, position };
        match open.seen.last() {
            Some(last) if last.stamp >= stamp => {
                let at = open.seen.partition_point(|other| other.stamp < stamp);
                open.seen.insert(at, seen);
            }
            _ => open.seen.push(seen),
        }
        open.newest = clock;
        if !open.dirty {
            open.dirty = true;
            self.changes.blocks.insert((id, number));
        }
        if open.seen.len() == BLOCK
            && let Some(block) = Block::seal(&open.seen, clock, open.saved)
        {
            self.sealed_bytes += block.memory();
            client.blocks.push_back(block);
            self.sealed.push_back((clock, (id, number)));
            open.seen.clear();
            open.saved = false;
            open.dirty = false;
        }
    }

    fn insert_stray(&mut self, guid: Guid, position: Position, clock: u64) {
        if self.strays.len() >= MAX_STRAYS {
            self.forget_oldest_stray();
        }
        self.strays.insert(guid, Stray { position, seen_at: clock, saved: false });
        self.stray_order.push_back((position, guid));
        self.changes.strays.insert(guid);
    }

    fn forget_oldest_stray(&mut self) {
        let Some((_, guid)) = self.stray_order.pop_front() else { return };
        if let Some(stray) = self.strays.remove(&guid) {
            self.guids -= 1;
            self.changes.strays.remove(&guid);
            if stray.saved {
                self.changes.strays_removed.push(guid);
            }
        }
    }

    /// Forgets sealed blocks and strays older than the window; cheap when there are none.
    pub(crate) fn expire(&mut self, clock: u64, window_ms: u64) {
        let is_old = |newest: u64| clock.saturating_sub(newest) > window_ms;
        while let Some(&(newest, key)) = self.sealed.front() {
            if !is_old(newest) {
                break;
            }
            self.sealed.pop_front();
            self.forget_block(key);
        }
        while let Some((_, guid)) = self.stray_order.front() {
            if self.strays.get(guid).is_some_and(|stray| !is_old(stray.seen_at)) {
                break;
            }
            self.forget_oldest_stray();
        }
    }

    fn forget_block(&mut self, key: BlockKey) {
        let Some(client) = self.clients.get_mut(&key.0) else { return };
        let Some(block) = client.blocks.pop_front() else { return };
        client.first_number += 1;
        self.guids -= BLOCK as u64;
        self.sealed_bytes -= block.memory();
        self.changes.blocks.remove(&key);
        if block.saved {
            self.changes.blocks_removed.push(key);
        }
        if client.is_idle() {
            self.clients.remove(&key.0);
        }
    }

    /// Forgets also clients that have been silent for the whole window. Walks all clients.
    pub(crate) fn sweep(&mut self, clock: u64, window_ms: u64) {
        self.expire(clock, window_ms);
        self.clients.retain(|id, client| {
            let open = &mut client.open;
            if !client.blocks.is_empty() || clock.saturating_sub(open.newest) <= window_ms {
                return true;
            }
            let key = (*id, client.first_number);
            self.guids -= open.seen.len() as u64;
            self.changes.blocks.remove(&key);
            if open.saved {
                self.changes.blocks_removed.push(key);
            }
            false
        });
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        for (id, client) in std::mem::take(&mut self.clients) {
            let open_number = client.open_number();
            let saved = (client.first_number..).zip(&client.blocks).filter(|(_, b)| b.saved);
            self.changes.blocks_removed.extend(saved.map(|(number, _)| (id, number)));
            if client.open.saved {
                self.changes.blocks_removed.push((id, open_number));
            }
        }
        let saved = self.strays.iter().filter(|(_, stray)| stray.saved).map(|(&guid, _)| guid);
        self.changes.strays_removed.extend(saved);
        self.changes.blocks.clear();
        self.changes.strays.clear();
        self.strays.clear();
        self.stray_order.clear();
        self.sealed.clear();
        self.guids = 0;
        self.sealed_bytes = 0;
    }

    /// How many GUIDs are remembered.
    pub(crate) fn guids(&self) -> u64 {
        self.guids
    }

    /// Bytes of memory, about.
    pub(crate) fn memory(&self) -> u64 {
        let open: usize = self
            .clients
            .values()
            .map(|client| client.open.seen.capacity() * size_of::<Seen>())
            .sum();
        let clients = self.clients.len() * size_of::<(ClientId, Client)>();
        let strays = self.strays.len() * (size_of::<(Guid, Stray)>() + 32);
        (self.sealed_bytes + self.sealed.len() * 24 + open + clients + strays) as u64
    }
}

#[cfg(test)]
mod tests;
