//! A round of delivery: lanes with work have their turns, each app gets what its consumers have
//! room for, and entries that are not at hand are asked for.

use bytes::Bytes;

use super::engine::Engine;
use super::lane::{AppLane, Lane, REDELIVERY_AHEAD};
use super::window::{PARTITION_BYTES, WINDOW_BYTES};
use super::{Deliveries, Delivery, EntryMismatch};
use crate::codec::Reader;
use crate::extents::Extent;
use crate::ids::{AppKey, Index, Position, QueueId};
use crate::message::{Batch, Located};
use crate::state::State;
use crate::state::queue::{App, Queue};

/// What every message counts on a budget besides its data, so that tiny ones are bounded too.
const MESSAGE_OVERHEAD: usize = 64;
/// What an app may deliver before other queues have their turn.
const TURN_BYTES: usize = 256 << 10;
/// Extents and bytes that an app reads ahead, and entries that a partition reads at once.
const AHEAD_EXTENTS: usize = 8;
const AHEAD_BYTES: u64 = 1 << 20;
const LOADING_ENTRIES: usize = 64;

/// Why an app's turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// No messages, or nobody has room.
    Done,
    /// An entry must be read first.
    Wait,
    /// The budget is used up.
    More,
}

impl Engine {
    /// Delivers about `budget` bytes. True when there is more to deliver at once.
    pub(crate) fn deliver(&mut self, state: &State, budget: usize, out: &mut Deliveries) -> bool {
        let mut budget = budget.max(1);
        while budget > 0
            && let Some(id) = self.ready.pop_front()
        {
            let Some(queue) = state.queues.get(&id) else { continue };
            let Some(mut lane) = self.lanes.remove(&id) else { continue };
            lane.ready = false;
            let mut more = false;
            lane.turn = lane.turn.wrapping_add(1);
            let (before, after) = queue.apps.split_at(lane.turn % queue.apps.len().max(1));
            for app in after.iter().chain(before) {
                let mut turn = budget.min(TURN_BYTES);
                let given = turn;
                let Some(app_lane) = lane.apps.get_mut(&app.key) else { continue };
                let end = if turn == 0 {
                    Turn::More
                } else {
                    self.deliver_app(queue, app, app_lane, &lane.window, &mut turn, out)
                };
                budget -= given - turn;
                match end {
                    Turn::Done => {}
                    Turn::Wait => self.read_ahead(queue, app, &mut lane, out),
                    Turn::More => more = true,
                }
            }
            if let Some(before) = lane.back_cursor() {
                let apps = &lane.apps;
                let keep = |first, end| apps.values().any(|app| app.redelivers(first, end));
                lane.window.trim(before, keep, &mut self.pins);
            } else {
                lane.window.clear(&mut self.pins);
            }
            self.lanes.insert(id, lane);
            if more {
                self.wake(id);
            }
        }
        !self.ready.is_empty()
    }

    fn deliver_app(
        &mut self,
        queue: &Queue,
        app: &App,
        lane: &mut AppLane,
        window: &super::window::Window,
        budget: &mut usize,
        out: &mut Deliveries,
    ) -> Turn {
        while *budget > 0 {
            let Some(member) = lane.ring.front() else {
                lane.blocked = true;
                return Turn::Done;
            };
            let Some(handle) = self.handles.get_mut(&member.handle) else {
                lane.ring.pop();
                continue;
            };
            if !handle.can_take(member.at) {
                if let Some(live) = handle.subscriptions.get_mut(member.at) {
                    live.ringed = false;
                }
                lane.ring.pop();
                continue;
            }
            lane.blocked = false;
            let Some((position, again)) = lane.next(app) else {
                lane.cursor = lane.cursor.max(queue.next_position);
                return Turn::Done;
            };
            let Some((cached, ordinal)) = window.get(position) else { return Turn::Wait };
            let Some(header) = cached.located.header(ordinal) else { return Turn::Wait };
            if handle.is_twin(header.guid, position) {
                lane.took(position, again);
                continue;
            }
            let held = handle.hold(member.at, header.guid, position, header.size);
            let Some((subscription, count)) = held else { return Turn::Done };
            lane.took(position, again);
            lane.ring.sent(count);
            let failed = match app.attempts.is_empty() {
                true => None,
                false => app.attempts.get(&position).copied(),
            };
            let limit = queue.settings.max_delivery_attempts;
            out.messages.push(Delivery {
                queue: queue.id,
                handle: member.handle,
                subscription,
                app: app.key,
                position,
                guid: header.guid,
                attributes: header.attributes,
                app_data: cached.located.app_data(&header),
                entry: cached.index,
                offset: header.start as u32,
                arrival_ms: cached.arrival_ms,
                redelivered: again || failed.is_some(),
                attempts_left: (limit > 0).then(|| limit.saturating_sub(failed.unwrap_or(0))),
            });
            *budget = budget.saturating_sub(header.size as usize + MESSAGE_OVERHEAD);
        }
        Turn::More
    }

    /// Asks for the entries that an app needs next.
    fn read_ahead(&mut self, queue: &Queue, app: &App, lane: &mut Lane, out: &mut Deliveries) {
        if self.pins.bytes >= PARTITION_BYTES {
            self.shed();
        }
        let Some(app_lane) = lane.apps.get(&app.key) else { return };
        let mut room = AHEAD_BYTES.min(WINDOW_BYTES.saturating_sub(lane.window.bytes()));
        let mut asked = 0;
        let again = app_lane.redelivery.iter().take(REDELIVERY_AHEAD);
        let again = again.filter_map(|&at| queue.extents.find(at).filter(|e| e.live > 0));
        let next = app_lane.next_new(app);
        let ahead = next.into_iter().flat_map(|at| queue.extents.live_from(at));
        let wanted: Vec<&Extent> = again.chain(ahead.take(AHEAD_EXTENTS)).collect();
        for extent in wanted {
            if lane.window.contains(extent.first) {
                continue;
            }
            if asked > 0 && (asked >= AHEAD_EXTENTS || extent.bytes() > room) {
                break;
            }
            let loads = self.loading.len();
            match self.loading.entry(extent.index) {
                std::collections::btree_map::Entry::Occupied(mut waiting) => {
                    let want = (queue.id, extent.first);
                    if !waiting.get().contains(&want) {
                        waiting.get_mut().push(want);
                    }
                }
                std::collections::btree_map::Entry::Vacant(_) if loads >= LOADING_ENTRIES => {
                    if !self.starved.contains(&queue.id) {
                        self.starved.push(queue.id);
                    }
                    break;
                }
                std::collections::btree_map::Entry::Vacant(waiting) => {
                    waiting.insert(vec![(queue.id, extent.first)]);
                    out.loads.push(extent.index);
                }
            }
            asked += 1;
            room = room.saturating_sub(extent.bytes());
        }
    }

    /// Lets go of the windows of queues that cannot deliver now, in favour of one that can.
    fn shed(&mut self) {
        for lane in self.lanes.values_mut().filter(|lane| !lane.ready) {
            lane.window.clear(&mut self.pins);
        }
    }

    /// An entry was read.
    pub(crate) fn loaded(
        &mut self,
        state: &State,
        index: Index,
        payload: &Bytes,
    ) -> Result<(), EntryMismatch> {
        let Some(waiting) = self.loading.remove(&index) else { return Ok(()) };
        let mut result = Ok(());
        for (id, first) in waiting {
            let Some(queue) = state.queues.get(&id) else { continue };
            // Confirmed, expired or purged meanwhile: nothing to deliver any more.
            let live = queue.extents.find(first).filter(|e| e.first == first && e.live > 0);
            let Some(extent) = live.filter(|extent| extent.index == index) else {
                self.wake(id);
                continue;
            };
            if let Some(located) = locate(extent, id, payload) {
                if let Some(lane) = self.lanes.get_mut(&id) {
                    lane.window.insert(extent, located, &mut self.pins);
                }
                self.wake(id);
            } else {
                self.failed.insert(id);
                result = Err(EntryMismatch { index });
            }
        }
        self.wake_starved();
        result
    }

    /// An entry could not be read.
    pub(crate) fn load_failed(&mut self, index: Index) {
        let waiting = self.loading.remove(&index).unwrap_or_default();
        self.failed.extend(waiting.into_iter().map(|(id, _)| id));
        self.wake_starved();
    }

    /// Time to try again what could not be read.
    pub(crate) fn retry_loads(&mut self) {
        for id in std::mem::take(&mut self.failed) {
            self.wake(id);
        }
    }

    fn wake_starved(&mut self) {
        for id in std::mem::take(&mut self.starved) {
            self.wake(id);
        }
    }

    /// What the handles of a queue do: producers, then consumers and unconfirmed messages of an
    /// app.
    pub(crate) fn producers(&self, queue: QueueId) -> u32 {
        let Some(lane) = self.lanes.get(&queue) else { return 0 };
        let handles = lane.handles.iter().filter_map(|id| self.handles.get(id));
        handles.filter(|handle| handle.roles.writer).count() as u32
    }

    /// Consumers, unconfirmed and redelivery count of an app.
    pub(crate) fn app_figures(&self, queue: QueueId, app: AppKey) -> (u32, u64, u64) {
        let Some(lane) = self.lanes.get(&queue) else { return (0, 0, 0) };
        let handles = lane.handles.iter().filter_map(|id| self.handles.get(id));
        let (mut consumers, mut unconfirmed) = (0, 0);
        for handle in handles.filter(|handle| handle.app == Some(app)) {
            consumers += u32::from(handle.roles.reader);
            unconfirmed += handle.unconfirmed();
        }
        let again = lane.apps.get(&app).map_or(0, |app| app.redelivery.len() + app.counting.len());
        (consumers, unconfirmed, again as u64)
    }
}

impl AppLane {
    /// The message to offer next, and whether it was offered before.
    fn next(&mut self, app: &App) -> Option<(Position, bool)> {
        while let Some(&position) = self.redelivery.first() {
            if app.pending.contains(position) && !self.confirming.contains(&position) {
                return Some((position, true));
            }
            self.redelivery.pop_first();
        }
        self.next_new(app).map(|position| (position, false))
    }

    /// The first message that was not offered yet.
    fn next_new(&self, app: &App) -> Option<Position> {
        let mut from = self.cursor;
        loop {
            let position = app.pending.next(from)?;
            if !self.confirming.contains(&position) {
                return Some(position);
            }
            from = position.checked_add(1)?;
        }
    }

    /// The message was sent.
    fn took(&mut self, position: Position, again: bool) {
        if again {
            self.redelivery.remove(&position);
        } else {
            self.cursor = position + 1;
        }
    }
}

/// The messages of an extent in its entry, if they are there.
pub(crate) fn locate(extent: &Extent, queue: QueueId, payload: &Bytes) -> Option<Located> {
    let located = Located { entry: payload.clone(), offset: extent.offset, count: extent.count };
    matches(extent.offset, extent.count, queue, payload).then_some(located)
}

/// True when a publish command of this queue with so many messages has its table at `offset`.
pub(crate) fn matches(offset: u32, count: u32, queue: QueueId, payload: &Bytes) -> bool {
    // The command's head before the table: queue and count, as the builder wrote them.
    let mut head = Vec::with_capacity(12);
    crate::codec::put_varint(&mut head, u64::from(queue.0));
    crate::codec::put_varint(&mut head, u64::from(count));
    let Some(start) = (offset as usize).checked_sub(head.len()) else { return false };
    let mut reader = Reader::starting_at(payload, start);
    let batch = Batch::decode(payload, &mut reader);
    batch.is_ok_and(|b| b.queue == queue && b.count() == count && b.offset == offset)
}
