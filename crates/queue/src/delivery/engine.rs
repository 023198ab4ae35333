//! The engine: opening, configuring, confirming and closing, and what applied commands mean for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::consumers::Handle;
use super::lane::{AppLane, Lane};
use super::routing::Member;
use super::window::{PARTITION_BYTES, Pins, WINDOW_BYTES};
use super::{OpenError, Roles, Subscription, UnknownHandle};
use crate::entry::{AttemptItem, ConfirmItem};
use crate::extents::Extent;
use crate::ids::{AppKey, Guid, HandleId, Index, Position, QueueId};
use crate::message::Located;
use crate::settings::Mode;
use crate::state::State;
use crate::state::queue::Queue;

/// A published extent goes into the window when at most this many extents lie between it and the
/// first message not delivered: the others are being read.
const NEAR_EXTENTS: usize = 64;

/// All delivery of a partition.
#[derive(Debug, Default)]
pub(crate) struct Engine {
    pub(super) handles: HashMap<HandleId, Handle, FxBuildHasher>,
    pub(super) lanes: BTreeMap<QueueId, Lane>,
    /// Lanes with work, in the order of their turns.
    pub(super) ready: VecDeque<QueueId>,
    /// Entries being read, and for which extents.
    pub(super) loading: BTreeMap<Index, Vec<(QueueId, Position)>>,
    /// Lanes that want to read and must wait for others' reads.
    pub(super) starved: Vec<QueueId>,
    /// Lanes whose read failed.
    pub(super) failed: BTreeSet<QueueId>,
    pub(super) pins: Pins,
    /// Up to where expiry has been asked for, per queue.
    pub(crate) expiring: BTreeMap<QueueId, Position>,
}

impl Engine {
    /// Opens a queue, or adds roles to an open handle.
    pub(crate) fn open(
        &mut self,
        state: &State,
        id: HandleId,
        queue_id: QueueId,
        roles: Roles,
        app: Option<&str>,
    ) -> Result<(), OpenError> {
        let queue =
            state.queues.get(&queue_id).ok_or(OpenError::UnknownQueue { queue: queue_id })?;
        let fanout = matches!(queue.settings.mode, Mode::Fanout { .. });
        let name = app.unwrap_or_default();
        if !fanout && !name.is_empty() {
            return Err(OpenError::AppNotAllowed);
        }
        if fanout && roles.reader && name.is_empty() {
            return Err(OpenError::AppRequired);
        }
        let existing = self.handles.get(&id);
        if existing.is_some_and(|h| h.queue != queue_id || h.app_name != name) {
            return Err(OpenError::HandleInUse { handle: id });
        }
        let had = existing.map(|handle| handle.roles).unwrap_or_default();
        self.check_limits(queue, name, roles, had)?;
        let key = queue.apps.iter().find(|app| app.name == name).map(|app| app.key);
        let handle = self.handles.entry(id).or_insert_with(|| Handle::new(queue_id, name, key));
        handle.roles.reader |= roles.reader;
        handle.roles.writer |= roles.writer;
        self.lane(queue).handles.insert(id);
        Ok(())
    }

    fn check_limits(
        &self,
        queue: &Queue,
        app: &str,
        roles: Roles,
        had: Roles,
    ) -> Result<(), OpenError> {
        let Some(lane) = self.lanes.get(&queue.id) else { return Ok(()) };
        let others = || lane.handles.iter().filter_map(|id| self.handles.get(id));
        let limit = queue.settings.max_consumers;
        if limit > 0 && roles.reader && !had.reader {
            let readers = others().filter(|h| h.roles.reader && h.app_name == app).count();
            if readers >= limit as usize {
                return Err(OpenError::TooManyConsumers { limit });
            }
        }
        let limit = queue.settings.max_producers;
        if limit > 0 && roles.writer && !had.writer {
            let writers = others().filter(|h| h.roles.writer).count();
            if writers >= limit as usize {
                return Err(OpenError::TooManyProducers { limit });
            }
        }
        Ok(())
    }

    fn lane(&mut self, queue: &Queue) -> &mut Lane {
        self.lanes.entry(queue.id).or_insert_with(|| {
            let mut lane = Lane::default();
            lane.apps.extend(queue.apps.iter().map(|app| (app.key, AppLane::default())));
            lane.window.gap_until = queue.next_position;
            lane
        })
    }

    /// Replaces a handle's subscriptions.
    pub(crate) fn configure(
        &mut self,
        id: HandleId,
        subscriptions: Vec<Subscription>,
    ) -> Result<(), UnknownHandle> {
        let handle = self.handles.get_mut(&id).ok_or(UnknownHandle { handle: id })?;
        handle.configure(subscriptions);
        let (queue, app) = (handle.queue, handle.app);
        self.route(queue, app);
        Ok(())
    }

    /// Takes roles from a handle; without any left it is closed.
    pub(crate) fn release(
        &mut self,
        state: &State,
        id: HandleId,
        roles: Roles,
    ) -> Result<(), UnknownHandle> {
        let handle = self.handles.get_mut(&id).ok_or(UnknownHandle { handle: id })?;
        handle.roles.reader &= !roles.reader;
        handle.roles.writer &= !roles.writer;
        if handle.roles == Roles::default() {
            return self.close(state, id);
        }
        if !handle.roles.reader {
            let given_back = handle.drop_held();
            handle.configure(Vec::new());
            let (queue, app) = (handle.queue, handle.app);
            self.give_back(state, queue, app, given_back);
            self.route(queue, app);
        }
        Ok(())
    }

    /// Closes a handle in good order.
    pub(crate) fn close(&mut self, state: &State, id: HandleId) -> Result<(), UnknownHandle> {
        let (queue, app, held) = self.detach(id)?;
        self.give_back(state, queue, app, held);
        self.route(queue, app);
        Ok(())
    }

    /// Closes a handle whose session died.
    pub(crate) fn lost(
        &mut self,
        state: &State,
        id: HandleId,
    ) -> Result<Option<AttemptItem>, UnknownHandle> {
        let (queue_id, app, mut held) = self.detach(id)?;
        let queue = state.queues.get(&queue_id);
        let counted = queue.is_some_and(|queue| queue.settings.max_delivery_attempts > 0);
        let mut item = None;
        if let Some(queue) = queue
            && let Some(key) = app
            && let Some(share) = queue.app(key)
            && let Some(lane) = self.lanes.get_mut(&queue_id).and_then(|l| l.apps.get_mut(&key))
            && counted
        {
            held.retain(|&position| share.pending.contains(position));
            lane.counting.extend(&held);
            let positions = held;
            item = Some(AttemptItem { queue: queue_id, app: key, positions })
                .filter(|item| !item.positions.is_empty());
        } else {
            self.give_back(state, queue_id, app, held);
        }
        self.route(queue_id, app);
        Ok(item)
    }

    fn detach(
        &mut self,
        id: HandleId,
    ) -> Result<(QueueId, Option<AppKey>, Vec<Position>), UnknownHandle> {
        let mut handle = self.handles.remove(&id).ok_or(UnknownHandle { handle: id })?;
        if let Some(lane) = self.lanes.get_mut(&handle.queue) {
            lane.handles.remove(&id);
        }
        Ok((handle.queue, handle.app, handle.drop_held()))
    }

    fn give_back(
        &mut self,
        state: &State,
        queue: QueueId,
        app: Option<AppKey>,
        held: Vec<Position>,
    ) {
        let Some(key) = app else { return };
        let Some(share) = state.queues.get(&queue).and_then(|queue| queue.app(key)) else { return };
        let Some(lane) = self.lanes.get_mut(&queue).and_then(|lane| lane.apps.get_mut(&key)) else {
            return;
        };
        lane.redelivery.extend(held.into_iter().filter(|&at| share.pending.contains(at)));
        self.wake(queue);
    }

    /// The host's outbox for a handle is full, or has room again.
    pub(crate) fn set_paused(&mut self, id: HandleId, paused: bool) {
        let Some(handle) = self.handles.get_mut(&id) else { return };
        if std::mem::replace(&mut handle.paused, paused) && !paused {
            let (queue, app) = (handle.queue, handle.app);
            self.rejoin(id, queue, app);
        }
    }

    /// A consumer confirms a message: its own, or one that the history knows.
    pub(crate) fn confirm(
        &mut self,
        state: &State,
        id: HandleId,
        guid: Guid,
    ) -> Option<ConfirmItem> {
        let handle = self.handles.get_mut(&id)?;
        let (queue, app) = (handle.queue, handle.app?);
        if let Some((position, room)) = handle.confirm(guid) {
            let twins = handle.take_twins(guid);
            if let Some(at) = room {
                if let Some(live) = handle.subscriptions.get_mut(at) {
                    live.ringed = true;
                }
                if let Some(lane) = self.lanes.get_mut(&queue).and_then(|l| l.apps.get_mut(&app)) {
                    lane.ring.push(Member { handle: id, at });
                }
                self.wake(queue);
            }
            if !twins.is_empty() {
                self.give_back(state, queue, Some(app), twins);
            }
            return Some(ConfirmItem { queue, app, position });
        }
        let known = state.queues.get(&queue)?;
        let position = known.history.position(guid)?;
        if !known.app(app)?.pending.contains(position) {
            return None;
        }
        let lane = self.lanes.get_mut(&queue)?.apps.get_mut(&app)?;
        lane.confirming.insert(position).then_some(ConfirmItem { queue, app, position })
    }

    /// Messages were stored: keeps them at hand if their consumers are near.
    pub(crate) fn published(&mut self, queue: &Queue, extent: &Extent, entry: &Bytes) {
        let Some(lane) = self.lanes.get_mut(&queue.id) else { return };
        let near = lane.front_cursor().is_some_and(|cursor| {
            cursor >= lane.window.gap_until
                || queue.extents.count_after(cursor).saturating_sub(1) <= NEAR_EXTENTS
        });
        let bytes = extent.bytes();
        let fits = lane.window.is_empty() || lane.window.bytes() + bytes <= WINDOW_BYTES;
        if near && fits && self.pins.bytes + entry.len() <= PARTITION_BYTES {
            let located =
                Located { entry: entry.clone(), offset: extent.offset, count: extent.count };
            lane.window.insert(extent, located, &mut self.pins);
        } else {
            lane.window.gap_until = extent.end();
        }
        self.wake(queue.id);
    }

    /// Confirms were applied.
    pub(crate) fn confirmed(&mut self, id: QueueId, app: AppKey, runs: &[(Position, Position)]) {
        let Some(lane) = self.lanes.get_mut(&id).and_then(|lane| lane.apps.get_mut(&app)) else {
            return;
        };
        if !lane.confirming.is_empty() {
            for &(first, last) in runs {
                while let Some(&position) = lane.confirming.range(first..=last).next() {
                    lane.confirming.remove(&position);
                }
            }
        }
    }

    /// Failed deliveries were counted: what survived is delivered again.
    pub(crate) fn counted(&mut self, queue: &Queue, app: AppKey, positions: &[Position]) {
        let Some(share) = queue.app(app) else { return };
        let Some(lane) = self.lanes.get_mut(&queue.id).and_then(|lane| lane.apps.get_mut(&app))
        else {
            return;
        };
        for position in positions {
            // Others' failed deliveries, from before this leadership, are not ours to redeliver.
            if lane.counting.remove(position) && share.pending.contains(*position) {
                lane.redelivery.insert(*position);
            }
        }
        self.wake(queue.id);
    }

    /// Messages went by purge.
    pub(crate) fn purged(&mut self, queue: &Queue, app: Option<AppKey>) {
        let Some(lane) = self.lanes.get_mut(&queue.id) else { return };
        for (key, lane) in &mut lane.apps {
            if app.is_none_or(|app| app == *key) {
                lane.cursor = queue.next_position;
                lane.redelivery.clear();
                lane.counting.clear();
                lane.confirming.clear();
            }
        }
        if app.is_none() {
            lane.window.clear(&mut self.pins);
        }
    }

    /// A queue's settings changed: apps may have come and gone.
    pub(crate) fn updated(&mut self, queue: &Queue) {
        let Some(lane) = self.lanes.get_mut(&queue.id) else { return };
        lane.apps.retain(|key, _| queue.app(*key).is_some());
        for app in &queue.apps {
            lane.apps.entry(app.key).or_default();
        }
        let handles: Vec<HandleId> = lane.handles.iter().copied().collect();
        for id in handles {
            let Some(handle) = self.handles.get_mut(&id) else { continue };
            let key = queue.apps.iter().find(|app| app.name == handle.app_name).map(|app| app.key);
            if key != handle.app {
                handle.drop_held();
                handle.app = key;
            }
        }
        for app in &queue.apps {
            self.route(queue.id, Some(app.key));
        }
    }

    /// A queue is gone.
    pub(crate) fn deleted(&mut self, id: QueueId) {
        self.expiring.remove(&id);
        let Some(mut lane) = self.lanes.remove(&id) else { return };
        lane.window.clear(&mut self.pins);
        for handle in lane.handles {
            self.handles.remove(&handle);
        }
    }

    /// Finds anew who of an app's consumers take part.
    fn route(&mut self, queue: QueueId, app: Option<AppKey>) {
        let Some(key) = app else { return };
        let Some(lane) = self.lanes.get_mut(&queue) else { return };
        let Some(app_lane) = lane.apps.get_mut(&key) else { return };
        app_lane.ring.clear();
        app_lane.active = false;
        let mut top = i32::MIN;
        for id in &lane.handles {
            let Some(handle) = self.handles.get(id).filter(|h| h.reads(key)) else {
                continue;
            };
            let best = handle.subscriptions.iter().map(|live| live.subscription.priority).max();
            top = top.max(best.unwrap_or(i32::MIN));
        }
        for &id in &lane.handles {
            let Some(handle) = self.handles.get_mut(&id).filter(|h| h.reads(key)) else {
                continue;
            };
            for at in 0..handle.subscriptions.len() {
                let takes = handle.can_take(at);
                let live = &mut handle.subscriptions[at];
                live.routed = top != i32::MIN && live.subscription.priority == top;
                live.ringed = live.routed && takes;
                app_lane.active |= live.routed;
                if live.ringed {
                    app_lane.ring.push(Member { handle: id, at });
                }
            }
        }
        if lane.apps.values().all(|app| !app.active) {
            lane.window.clear(&mut self.pins);
        }
        self.wake(queue);
    }

    /// Puts a handle's subscriptions that have room back into the ring.
    fn rejoin(&mut self, id: HandleId, queue: QueueId, app: Option<AppKey>) {
        let Some(handle) = self.handles.get_mut(&id) else { return };
        let Some(key) = app else { return };
        let Some(lane) = self.lanes.get_mut(&queue).and_then(|lane| lane.apps.get_mut(&key)) else {
            return;
        };
        for (at, live) in handle.subscriptions.iter_mut().enumerate() {
            if live.routed && !live.ringed && live.has_room() {
                live.ringed = true;
                lane.ring.push(Member { handle: id, at });
            }
        }
        self.wake(queue);
    }

    /// Puts a lane into the list of those with work.
    pub(super) fn wake(&mut self, queue: QueueId) {
        if let Some(lane) = self.lanes.get_mut(&queue)
            && !lane.ready
        {
            lane.ready = true;
            self.ready.push_back(queue);
        }
    }
}
