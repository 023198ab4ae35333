//! Lanes: how far each queue and each of its apps has been delivered.

use std::collections::{BTreeMap, BTreeSet};

use super::routing::Ring;
use super::window::Window;
use crate::ids::{AppKey, HandleId, Position};

/// How many messages that were given back are looked at when entries are read or let go.
pub(super) const REDELIVERY_AHEAD: usize = 64;

/// Delivery of one queue.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// All handles of the queue.
    pub(super) handles: BTreeSet<HandleId>,
    pub(super) apps: BTreeMap<AppKey, AppLane>,
    pub(super) window: Window,
    /// Is in the list of lanes with work.
    pub(super) ready: bool,
    /// Which app comes first in the next turn.
    pub(super) turn: usize,
}

/// Delivery of one app of a queue.
#[derive(Debug, Default)]
pub(super) struct AppLane {
    /// Everything before it was offered; pending messages from here on were not.
    pub(super) cursor: Position,
    /// Offered and given back, to be offered again before new ones, oldest first. Not in the order
    /// in which they were given back: a consumer that goes while it gets them again would put what
    /// it had behind what it had not, and the next one would see the queue out of order.
    pub(super) redelivery: BTreeSet<Position>,
    /// Given back by consumers that died; they wait until the log has counted the failed delivery.
    pub(super) counting: BTreeSet<Position>,
    /// Confirmed by somebody who does not hold them; not offered while the log has not said so.
    pub(super) confirming: BTreeSet<Position>,
    /// Has consumers that take part.
    pub(super) active: bool,
    /// Nobody in the ring had room when last asked.
    pub(super) blocked: bool,
    pub(super) ring: Ring,
}

impl Lane {
    /// The furthest cursor of the apps with consumers.
    pub(super) fn front_cursor(&self) -> Option<Position> {
        self.apps.values().filter(|app| app.active).map(|app| app.cursor).max()
    }

    /// Up to where all apps that the window serves have been delivered. When the window is half
    /// full, apps whose consumers are all busy are no reason to keep more.
    pub(super) fn back_cursor(&self) -> Option<Position> {
        let crowded = self.window.bytes() > super::window::WINDOW_BYTES / 2;
        let active = || self.apps.values().filter(|app| app.active);
        let served = active().filter(|app| !(crowded && app.blocked)).map(|app| app.cursor).min();
        served.or_else(|| active().map(|app| app.cursor).min())
    }
}

impl AppLane {
    /// True when one of the next messages to redeliver is in the range.
    pub(super) fn redelivers(&self, first: Position, end: Position) -> bool {
        self.redelivery.iter().take(REDELIVERY_AHEAD).any(|&at| first <= at && at < end)
    }
}
