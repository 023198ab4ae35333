//! A naive copy of a partition: a list of messages with a flag per app. Slow and obvious.

use std::collections::{BTreeMap, BTreeSet};

use crate::*;

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) queues: BTreeMap<QueueId, ModelQueue>,
    pub(super) domains: BTreeMap<DomainId, Domain>,
    /// GUIDs that were stored, where and when; per queue.
    seen: BTreeMap<(QueueId, Guid), (Position, u64)>,
    /// The history clock: all forward steps of time.
    clock: u64,
    time_ms: Option<u64>,
}

#[derive(Debug)]
pub(super) struct ModelQueue {
    pub(super) domain: DomainId,
    pub(super) settings: DomainSettings,
    next_position: Position,
    next_app: u32,
    pub(super) apps: BTreeMap<AppKey, String>,
    pub(super) messages: Vec<ModelMessage>,
}

#[derive(Debug, Clone)]
pub(super) struct ModelMessage {
    pub(super) position: Position,
    pub(super) guid: Guid,
    pub(super) data: Vec<u8>,
    pub(super) index: Index,
    pub(super) arrival_ms: u64,
    /// Apps that need it, with how often its delivery failed.
    pub(super) apps: BTreeMap<AppKey, u8>,
}

impl ModelQueue {
    pub(super) fn pending(&self, app: AppKey) -> impl Iterator<Item = &ModelMessage> {
        self.messages.iter().filter(move |message| message.apps.contains_key(&app))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.messages.iter().map(|message| message.data.len() as u64).sum()
    }

    fn drop_app(&mut self, app: AppKey, which: impl Fn(&ModelMessage) -> bool) {
        for message in self.messages.iter_mut().filter(|message| which(message)) {
            message.apps.remove(&app);
        }
        self.messages.retain(|message| !message.apps.is_empty());
    }

    fn names(settings: &DomainSettings) -> BTreeSet<String> {
        match &settings.mode {
            Mode::Fanout { apps } => apps.iter().cloned().collect(),
            _ => [String::new()].into(),
        }
    }

    fn follow_apps(&mut self) {
        let wanted = Self::names(&self.settings);
        let gone: Vec<AppKey> = self
            .apps
            .iter()
            .filter(|(_, name)| !wanted.contains(*name))
            .map(|(&key, _)| key)
            .collect();
        for key in gone {
            self.drop_app(key, |_| true);
            self.apps.remove(&key);
        }
        self.add_apps();
    }

    fn add_apps(&mut self) {
        let Mode::Fanout { apps } = self.settings.mode.clone() else { return };
        for name in apps {
            if !self.apps.values().any(|known| *known == name) {
                self.apps.insert(AppKey(self.next_app), name);
                self.next_app += 1;
            }
        }
    }
}

impl Model {
    pub(super) fn pass(&mut self, time_ms: u64) {
        let last = self.time_ms.replace(time_ms).unwrap_or(time_ms);
        self.clock += time_ms.saturating_sub(last);
    }

    pub(super) fn create(&mut self, id: QueueId, domain: DomainId, carried: Option<Domain>) {
        if self.queues.contains_key(&id) {
            return;
        }
        match carried {
            Some(carried) if self.domains.contains_key(&domain) => self.set_domain(carried),
            Some(carried) => drop(self.domains.insert(domain, carried)),
            None => {}
        }
        let Some(settings) = self.domains.get(&domain).map(|domain| domain.settings.clone()) else {
            return;
        };
        let mut queue = ModelQueue {
            domain,
            next_position: 0,
            next_app: 0,
            apps: BTreeMap::new(),
            messages: Vec::new(),
            settings,
        };
        if queue.settings.mode == Mode::Priority {
            queue.apps.insert(AppKey(0), String::new());
            queue.next_app = 1;
        }
        queue.add_apps();
        self.queues.insert(id, queue);
    }

    pub(super) fn set_domain(&mut self, domain: Domain) {
        let Some(known) = self.domains.get_mut(&domain.id) else { return };
        if known.version >= domain.version {
            return;
        }
        *known = domain.clone();
        for queue in self.queues.values_mut().filter(|queue| queue.domain == domain.id) {
            queue.settings = domain.settings.clone();
            queue.follow_apps();
        }
    }

    pub(super) fn delete(&mut self, id: QueueId) {
        self.queues.remove(&id);
        self.seen.retain(|(queue, _), _| *queue != id);
        let queues = &self.queues;
        self.domains.retain(|id, _| queues.values().any(|queue| queue.domain == *id));
    }

    /// Stores messages of one publish command and checks what the partition said about each.
    pub(super) fn publish(
        &mut self,
        id: QueueId,
        index: Index,
        messages: &[(Guid, Vec<u8>)],
        outcomes: &[Outcome],
    ) {
        let Some(queue) = self.queues.get_mut(&id) else {
            assert!(outcomes.iter().all(|outcome| *outcome == Outcome::UnknownQueue));
            return;
        };
        let first = queue.next_position;
        let interested: BTreeMap<AppKey, u8> = queue.apps.keys().map(|&app| (app, 0)).collect();
        let mut stored = false;
        for ((position, (guid, data)), outcome) in (first..).zip(messages).zip(outcomes) {
            let known = self.seen.get(&(id, *guid));
            let known_for = known.map(|(_, at)| self.clock - at);
            let limits = queue.settings.queue_limits;
            match outcome {
                // Blocks are forgotten as a whole, so a GUID may be remembered longer.
                Outcome::Duplicate => assert!(known.is_some(), "a new message was lost: {guid}"),
                Outcome::Stored { position: at } => {
                    assert_eq!(*at, position);
                    if interested.is_empty() {
                        continue;
                    }
                    let window = queue.settings.dedup_window_ms;
                    assert!(known_for.is_none_or(|age| age > window), "stored twice: {guid}");
                    assert!(queue.messages.len() as u64 <= limits.messages);
                    assert!(queue.bytes() <= limits.bytes);
                    stored = true;
                    self.seen.insert((id, *guid), (position, self.clock));
                    queue.messages.push(ModelMessage {
                        position,
                        guid: *guid,
                        data: data.clone(),
                        index,
                        arrival_ms: self.time_ms.unwrap_or(0),
                        apps: interested.clone(),
                    });
                }
                Outcome::RefusedMessages => {
                    assert!(queue.messages.len() as u64 > limits.messages);
                }
                Outcome::RefusedBytes => assert!(queue.bytes() > limits.bytes),
                Outcome::UnknownQueue => panic!("the queue exists"),
            }
        }
        if stored {
            queue.next_position = first + messages.len() as u64;
        }
    }

    pub(super) fn confirm(&mut self, item: ConfirmItem) {
        if let Some(queue) = self.queues.get_mut(&item.queue) {
            queue.drop_app(item.app, |message| message.position == item.position);
        }
    }

    pub(super) fn attempt(&mut self, item: &AttemptItem) {
        let Some(queue) = self.queues.get_mut(&item.queue) else { return };
        let limit = queue.settings.max_delivery_attempts;
        for message in &mut queue.messages {
            let failed = message.apps.get_mut(&item.app);
            if let Some(failed) = failed.filter(|_| item.positions.contains(&message.position)) {
                *failed += u8::from(limit > 0);
                if limit > 0 && *failed >= limit {
                    message.apps.remove(&item.app);
                }
            }
        }
        queue.messages.retain(|message| !message.apps.is_empty());
    }

    pub(super) fn expire(&mut self, item: ExpireItem) {
        if let Some(queue) = self.queues.get_mut(&item.queue) {
            queue.messages.retain(|message| message.position > item.up_to);
        }
    }

    pub(super) fn purge(&mut self, id: QueueId, app: Option<AppKey>) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        match app {
            Some(app) => queue.drop_app(app, |_| true),
            None => queue.messages.clear(),
        }
    }

    /// Entries that hold a message somebody needs.
    pub(super) fn live_entries(&self) -> BTreeSet<Index> {
        let queues = self.queues.values();
        queues.flat_map(|queue| queue.messages.iter().map(|message| message.index)).collect()
    }
}
