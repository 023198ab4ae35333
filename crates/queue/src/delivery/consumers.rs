//! Handles: what each holds unconfirmed, and how much room its subscriptions have.

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::{MAX_UNCONFIRMED, Roles, Subscription};
use crate::ids::{AppKey, Guid, Position, QueueId};

/// An open queue of a session.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) queue: QueueId,
    /// The app asked for; empty for the implicit one.
    pub(super) app_name: String,
    /// The app, while it is registered.
    pub(super) app: Option<AppKey>,
    pub(super) roles: Roles,
    /// The host's outbox for it is full.
    pub(super) paused: bool,
    pub(super) subscriptions: Vec<Live>,
    held: HashMap<Guid, Held, FxBuildHasher>,
    /// Messages that carry the GUID of a held one: two messages can, when the second came after the
    /// history's window. The client could not tell them apart, so they wait here, not sent.
    twins: Vec<(Guid, Position)>,
}

/// The most twins of one handle; a handle with more gets nothing until it confirms something.
const MAX_TWINS: usize = 1024;

/// A subscription and what it has outstanding.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) subscription: Subscription,
    messages: u64,
    bytes: u64,
    /// Belongs to the highest priority of its app.
    pub(super) routed: bool,
    /// Is in the ring.
    pub(super) ringed: bool,
}

/// A message that was sent and not confirmed.
#[derive(Debug, Clone, Copy)]
struct Held {
    position: Position,
    size: u32,
    subscription: u32,
}

impl Live {
    fn new(subscription: Subscription) -> Self {
        Self { subscription, messages: 0, bytes: 0, routed: false, ringed: false }
    }

    /// True while both values are under their limits; a message may then exceed the limit of bytes.
    pub(super) fn has_room(&self) -> bool {
        let wanted = &self.subscription;
        self.messages < wanted.max_messages.min(MAX_UNCONFIRMED) && self.bytes < wanted.max_bytes
    }
}

impl Handle {
    pub(super) fn new(queue: QueueId, app_name: &str, app: Option<AppKey>) -> Self {
        Self {
            queue,
            app_name: app_name.to_owned(),
            app,
            roles: Roles::default(),
            paused: false,
            subscriptions: Vec::new(),
            held: HashMap::default(),
            twins: Vec::new(),
        }
    }

    pub(super) fn reads(&self, app: AppKey) -> bool {
        self.roles.reader && self.app == Some(app)
    }

    /// Replaces all subscriptions. What is outstanding stays so, and counts on the new subscription
    /// with the same id if there is one.
    pub(super) fn configure(&mut self, subscriptions: Vec<Subscription>) {
        self.subscriptions = subscriptions.into_iter().map(Live::new).collect();
        for held in self.held.values() {
            let mut live = self.subscriptions.iter_mut();
            if let Some(live) = live.find(|live| live.subscription.id == held.subscription) {
                live.messages += 1;
                live.bytes += u64::from(held.size);
            }
        }
    }

    /// Whether a subscription may get a message now.
    pub(super) fn can_take(&self, at: usize) -> bool {
        !self.paused
            && self.twins.len() < MAX_TWINS
            && self.subscriptions.get(at).is_some_and(Live::has_room)
    }

    /// Sets a message aside when the handle holds another one with its GUID.
    pub(super) fn is_twin(&mut self, guid: Guid, position: Position) -> bool {
        let twin = self.held.contains_key(&guid);
        if twin {
            self.twins.push((guid, position));
        }
        twin
    }

    /// Takes back the twins of a message that was confirmed.
    pub(super) fn take_twins(&mut self, guid: Guid) -> Vec<Position> {
        if self.twins.is_empty() {
            return Vec::new();
        }
        self.twins.extract_if(.., |(of, _)| *of == guid).map(|(_, position)| position).collect()
    }

    /// Records a message as sent. Returns the subscription's id and count.
    pub(super) fn hold(
        &mut self,
        at: usize,
        guid: Guid,
        position: Position,
        size: u32,
    ) -> Option<(u32, u32)> {
        let live = self.subscriptions.get_mut(at)?;
        live.messages += 1;
        live.bytes += u64::from(size);
        let subscription = live.subscription.id;
        self.held.insert(guid, Held { position, size, subscription });
        Some((subscription, live.subscription.count))
    }

    /// The consumer is done with a message that it holds: makes room. Returns the message's
    /// position and the subscription that has room again and is not in the ring.
    pub(super) fn confirm(&mut self, guid: Guid) -> Option<(Position, Option<usize>)> {
        let held = self.held.remove(&guid)?;
        let mut found = None;
        for (at, live) in self.subscriptions.iter_mut().enumerate() {
            if live.subscription.id == held.subscription {
                live.messages = live.messages.saturating_sub(1);
                live.bytes = live.bytes.saturating_sub(u64::from(held.size));
                found =
                    (live.routed && !live.ringed && !self.paused && live.has_room()).then_some(at);
                break;
            }
        }
        Some((held.position, found))
    }

    pub(super) fn unconfirmed(&self) -> u64 {
        (self.held.len() + self.twins.len()) as u64
    }

    /// Gives up everything that is held, in the order of the queue.
    pub(super) fn drop_held(&mut self) -> Vec<Position> {
        let twins = std::mem::take(&mut self.twins).into_iter().map(|(_, position)| position);
        let mut held: Vec<Position> =
            self.held.drain().map(|(_, held)| held.position).chain(twins).collect();
        held.sort_unstable();
        for live in &mut self.subscriptions {
            live.messages = 0;
            live.bytes = 0;
        }
        held
    }
}
