//! One queue of the replicated state.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Meter;
use crate::extents::Extents;
use crate::history::History;
use crate::ids::{AppKey, DomainId, Index, Position, QueueId};
use crate::positions::PositionSet;
use crate::settings::{DomainSettings, Mode};

/// A queue: where its messages are, and who still needs them.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) id: QueueId,
    pub(crate) uri: String,
    pub(crate) domain: DomainId,
    /// Those of the domain, which all its queues share.
    pub(crate) settings: Arc<DomainSettings>,
    pub(crate) next_position: Position,
    pub(crate) next_app: u32,
    /// Ascending by key.
    pub(crate) apps: Vec<App>,
    pub(crate) extents: Extents,
    pub(crate) history: History,
    /// Messages that some app needs, and their bytes.
    pub(crate) meter: Meter,
    /// The queue's own record differs from the one in the store.
    pub(crate) dirty: bool,
    pub(crate) saved: bool,
}

/// An app's share of a queue.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) key: AppKey,
    /// Empty for the implicit app.
    pub(crate) name: String,
    /// What it has not confirmed.
    pub(crate) pending: PositionSet,
    /// Failed deliveries of pending messages that had any. Stored with the pages of `pending`.
    pub(crate) attempts: BTreeMap<Position, u8>,
    /// Bytes of the pending messages.
    pub(crate) bytes: u64,
}

/// What became of a message that an app no longer needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Released {
    /// The app did not have it.
    Nothing,
    /// Other apps still need it.
    ForApp,
    /// It left the queue; with it the last live message of an extent in `entry`, if any.
    Message { bytes: u64, entry: Option<Index> },
}

impl App {
    pub(crate) fn new(key: AppKey, name: &str) -> Self {
        Self {
            key,
            name: name.to_owned(),
            pending: PositionSet::default(),
            attempts: BTreeMap::new(),
            bytes: 0,
        }
    }
}

impl Queue {
    pub(crate) fn new(
        id: QueueId,
        uri: &str,
        domain: DomainId,
        settings: Arc<DomainSettings>,
    ) -> Self {
        let mut queue = Self {
            id,
            uri: uri.to_owned(),
            domain,
            next_position: 0,
            next_app: 0,
            apps: Vec::new(),
            extents: Extents::default(),
            history: History::default(),
            meter: Meter::default(),
            dirty: true,
            saved: false,
            settings,
        };
        for name in queue.wanted_apps() {
            queue.add_app(&name);
        }
        queue
    }

    /// The apps that the settings ask for; the empty name is the implicit app.
    pub(crate) fn wanted_apps(&self) -> Vec<String> {
        match &self.settings.mode {
            Mode::Priority | Mode::Broadcast => vec![String::new()],
            Mode::Fanout { apps } => {
                let mut wanted: Vec<String> = Vec::new();
                for app in apps {
                    if !wanted.contains(app) {
                        wanted.push(app.clone());
                    }
                }
                wanted
            }
        }
    }

    pub(crate) fn add_app(&mut self, name: &str) {
        self.apps.push(App::new(AppKey(self.next_app), name));
        self.next_app += 1;
    }

    pub(crate) fn app(&self, key: AppKey) -> Option<&App> {
        self.apps.get(self.app_at(key)?)
    }

    pub(crate) fn app_at(&self, key: AppKey) -> Option<usize> {
        self.apps.binary_search_by_key(&key, |app| app.key).ok()
    }

    /// An app no longer needs a message.
    pub(crate) fn release(&mut self, app: usize, position: Position) -> Released {
        let Some(mine) = self.apps.get_mut(app) else { return Released::Nothing };
        if !mine.pending.remove(position) {
            return Released::Nothing;
        }
        if !mine.attempts.is_empty() {
            mine.attempts.remove(&position);
        }
        let bytes = u64::from(self.extents.size_of(position).unwrap_or(0));
        mine.bytes = mine.bytes.saturating_sub(bytes);
        let others = |at: usize, other: &App| at != app && other.pending.contains(position);
        if self.apps.iter().enumerate().any(|(at, other)| others(at, other)) {
            return Released::ForApp;
        }
        self.meter.subtract(1, bytes);
        Released::Message { bytes, entry: self.extents.release(position) }
    }
}
