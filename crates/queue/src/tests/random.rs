//! Random histories of a partition against the [model](super::model), with a second replica that
//! only applies the log, a store that gets the checkpoints, and restarts at any point.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::model::{Model, ModelMessage};
use crate::ids::Stamp;
use crate::*;

/// The first is alone in its domain, the others share one.
const QUEUES: [QueueId; 3] = [QueueId(1), QueueId(2), QueueId(3)];
const DOMAINS: [DomainId; 2] = [DomainId(1), DomainId(2)];

fn domain_of(queue: QueueId) -> DomainId {
    if queue == QUEUES[0] { DOMAINS[0] } else { DOMAINS[1] }
}

/// One random step; the numbers mean what the step makes of them.
#[derive(Debug, Clone, Copy)]
struct Step {
    kind: u8,
    a: u64,
    b: u64,
}

/// What one publish command holds: GUIDs and data.
type Batch = (QueueId, Vec<(Guid, Vec<u8>)>);

/// A command as the world put it into the builder, for the model to follow.
#[derive(Debug, Clone)]
enum Put {
    Publish(QueueId, Vec<(Guid, Vec<u8>)>),
    Confirm(ConfirmItem),
    Attempt(AttemptItem),
    Expire(ExpireItem),
    Purge(QueueId, Option<AppKey>),
    /// With the settings that it carries.
    Create(QueueId, Option<Domain>),
    Set(Domain),
    Delete(QueueId),
}

#[derive(Debug)]
struct Consumer {
    queue: QueueId,
    app_name: String,
    app: Option<AppKey>,
    subscription: Option<Subscription>,
    paused: bool,
    /// Sent and not confirmed: position, GUID, size, subscription, in order.
    held: Vec<(Position, Guid, u64, u32)>,
}

#[derive(Default)]
struct World {
    leader: Partition,
    follower: Partition,
    model: Model,
    store: BTreeMap<Vec<u8>, Vec<u8>>,
    log: BTreeMap<Index, Bytes>,
    puts: Vec<Put>,
    consumers: BTreeMap<HandleId, Consumer>,
    /// Newest position that was sent for the first time under this leadership.
    sent: BTreeMap<(QueueId, AppKey), Position>,
    /// Proposed and not applied.
    proposed: BTreeSet<(QueueId, AppKey, Position)>,
    now_ms: u64,
    next_index: Index,
    next_guid: u64,
    next_handle: u64,
    next_version: u64,
}

fn domain(id: DomainId, version: u64, variant: u64) -> Domain {
    let names = ["a", "b", "c"].iter().enumerate();
    let apps = names.filter(|(n, _)| variant >> n & 1 == 1).map(|(_, name)| (*name).to_owned());
    let settings = DomainSettings {
        mode: match id {
            DomainId(1) => Mode::Priority,
            _ => Mode::Fanout { apps: apps.collect() },
        },
        message_ttl_ms: if variant & 8 == 0 { 30_000 } else { 0 },
        dedup_window_ms: 40_000,
        max_delivery_attempts: (variant >> 4 & 3) as u8,
        queue_limits: Limits { messages: 60, bytes: 3000 },
        ..DomainSettings::priority()
    };
    Domain { id, version: DomainVersion { term: 1, index: version }, settings }
}

fn guid(number: u64) -> Guid {
    // Three producers, each ascending; every eleventh message falls behind.
    let timer = if number % 11 == 10 { 5000 + number } else { 100_000 + number * 10 };
    Guid::from_parts([number as u8 % 3; 6], Stamp { timer, head: 0x40_0000 + number as u32 / 3 })
}

impl World {
    fn new() -> Self {
        let mut world = Self { now_ms: 1_000_000, next_index: 1, ..Self::default() };
        world.leader.lead();
        for queue in QUEUES {
            world.puts.push(Put::Create(queue, Some(domain(domain_of(queue), 1, 0x13))));
        }
        world.commit();
        world
    }

    fn step(&mut self, Step { kind, a, b }: Step) {
        let queue = QUEUES[(a % 3) as usize];
        let handle = self.consumers.keys().nth(b as usize % self.consumers.len().max(1)).copied();
        match kind {
            0..=4 => self.publish(queue, a / 2, b),
            5..=7 => self.commit(),
            8 | 9 => self.open(queue, a / 2, b),
            10 => handle.into_iter().for_each(|handle| self.configure(handle, a)),
            11 => handle.into_iter().for_each(|handle| self.close(handle)),
            12 => handle.into_iter().for_each(|handle| self.lost(handle)),
            13 => {
                if let Some(handle) = handle
                    && let Some(consumer) = self.consumers.get_mut(&handle)
                {
                    consumer.paused = !consumer.paused;
                    if consumer.paused {
                        self.leader.pause(handle);
                    } else {
                        self.leader.resume(handle);
                    }
                }
            }
            14..=17 => handle.into_iter().for_each(|handle| self.confirm_some(handle, a)),
            18 => handle.into_iter().for_each(|handle| self.confirm_any(handle, a)),
            19..=21 => self.deliver(a, b),
            22 => {
                self.now_ms = (self.now_ms + a * 40).saturating_sub(b % 7 * 300);
                for item in self.leader.expire(self.now_ms, 10) {
                    self.puts.push(Put::Expire(item));
                }
            }
            23 if b % 3 == 0 => {
                let keys = self.model.queues.get(&queue).map(|q| q.apps.keys().copied().collect());
                let keys: Vec<AppKey> = keys.unwrap_or_default();
                self.puts.push(Put::Purge(queue, keys.get(b as usize / 3 % 4).copied()));
            }
            24 | 25 => self.checkpoint(),
            26 if b % 2 == 0 => self.restart(),
            27 if b % 2 == 0 => self.change_leader(),
            28 if b % 4 == 0 => self.puts.push(Put::Delete(queue)),
            28 | 29 => {
                let carried = (b % 3 > 0).then(|| self.next_domain(domain_of(queue), a, b));
                self.puts.push(Put::Create(queue, carried));
            }
            30 if b % 2 == 0 => {
                let domain = self.next_domain(domain_of(queue), a, b);
                self.puts.push(Put::Set(domain));
            }
            _ => {}
        }
    }

    /// Settings of the next version, or now and then of an older one that comes late.
    fn next_domain(&mut self, id: DomainId, a: u64, b: u64) -> Domain {
        self.next_version += 1;
        let late = if b.is_multiple_of(5) { b % self.next_version } else { 0 };
        domain(id, self.next_version - late, a)
    }

    fn publish(&mut self, queue: QueueId, a: u64, b: u64) {
        let messages = (0..a % 6 + 1).map(|n| {
            let again = (a + n) % 5 == 4;
            let number = if again { b * 7 % self.next_guid.max(1) } else { self.next_guid };
            self.next_guid += u64::from(!again);
            let size = if b.is_multiple_of(2) { 16 } else { 8 + n as usize * 3 };
            let mut data = number.to_be_bytes().to_vec();
            data.resize(size, b'x');
            (guid(number), data)
        });
        let messages = messages.collect();
        self.puts.push(Put::Publish(queue, messages));
    }

    /// One entry with everything that was put; applied to all replicas and to the model.
    fn commit(&mut self) {
        let puts = std::mem::take(&mut self.puts);
        let mut builder = EntryBuilder::default();
        // The builder joins neighbours; a published batch must stay one command for the model.
        let mut batches: Vec<Batch> = Vec::new();
        let mut order = Vec::new();
        let (mut open, mut confirms) = (BTreeMap::new(), BTreeMap::new());
        for put in puts {
            match &put {
                Put::Publish(queue, messages) => {
                    let at = *open.entry(*queue).or_insert_with(|| {
                        batches.push((*queue, Vec::new()));
                        order.push(Put::Publish(*queue, Vec::new()));
                        batches.len() - 1
                    });
                    batches[at].1.extend(messages.iter().cloned());
                    for (guid, data) in messages {
                        let app_data = Bytes::copy_from_slice(data);
                        let attributes = Attributes::default();
                        let message = Message { guid: *guid, attributes, app_data };
                        builder.publish(*queue, message).unwrap();
                    }
                    continue;
                }
                Put::Confirm(item) => {
                    builder.confirm(*item);
                    let new = order.len();
                    let at = *confirms.entry((item.queue, item.app)).or_insert(new);
                    order.insert(at, put.clone());
                    // Later commands moved by one.
                    confirms.values_mut().for_each(|other| *other += usize::from(*other > at));
                    continue;
                }
                Put::Attempt(item) => builder.attempt(item),
                Put::Expire(item) => builder.expire(*item),
                Put::Purge(queue, app) => builder.purge(*queue, *app),
                Put::Create(queue, carried) => {
                    let known = QueueDomain::Known(domain_of(*queue));
                    let domain = carried.as_ref().map_or(known, QueueDomain::Carried);
                    builder.create_queue(*queue, "bmq://d/q", domain);
                }
                Put::Set(domain) => builder.set_domain(domain),
                Put::Delete(queue) => builder.delete_queue(*queue),
            }
            if matches!(put, Put::Set(_) | Put::Create(_, Some(_))) {
                open.clear();
                confirms.clear();
                order.push(put);
                continue;
            }
            let of = match &put {
                Put::Set(_) => continue,
                Put::Attempt(item) => item.queue,
                Put::Expire(item) => item.queue,
                Put::Purge(queue, _)
                | Put::Create(queue, _)
                | Put::Delete(queue)
                | Put::Publish(queue, _) => *queue,
                Put::Confirm(item) => item.queue,
            };
            open.remove(&of);
            confirms.retain(|(queue, _), _| *queue != of);
            order.push(put);
        }
        let payload = builder.finish(self.now_ms).payload;
        let index = self.next_index;
        self.next_index += 1 + index % 2;
        let mut applied = Applied::default();
        self.leader.apply(index, &payload, &mut applied).unwrap();
        let mut again = Applied::default();
        self.follower.apply(index, &payload, &mut again).unwrap();
        assert_eq!((&applied.outcomes, &applied.effects), (&again.outcomes, &again.effects));
        self.log.insert(index, payload);
        self.follow_in_model(index, order, batches, &applied);
        self.proposed.clear();
        self.check();
    }

    fn follow_in_model(
        &mut self,
        index: Index,
        order: Vec<Put>,
        batches: Vec<Batch>,
        applied: &Applied,
    ) {
        self.model.pass(self.now_ms);
        let (mut batches, mut outcomes) = (batches.into_iter(), &applied.outcomes[..]);
        for put in order {
            match put {
                Put::Publish(..) => {
                    let (queue, messages) = batches.next().unwrap();
                    let (mine, rest) = outcomes.split_at(messages.len());
                    outcomes = rest;
                    self.model.publish(queue, index, &messages, mine);
                }
                Put::Confirm(item) => self.model.confirm(item),
                Put::Attempt(item) => self.model.attempt(&item),
                Put::Expire(item) => self.model.expire(item),
                Put::Purge(queue, app) => {
                    self.model.purge(queue, app);
                }
                Put::Create(queue, carried) => {
                    self.model.create(queue, domain_of(queue), carried);
                    QUEUES.into_iter().for_each(|queue| self.drop_unregistered(queue));
                }
                Put::Set(domain) => {
                    self.model.set_domain(domain);
                    QUEUES.into_iter().for_each(|queue| self.drop_unregistered(queue));
                }
                Put::Delete(queue) => {
                    self.model.delete(queue);
                    self.consumers.retain(|_, consumer| consumer.queue != queue);
                    self.sent.retain(|(of, _), _| *of != queue);
                }
            }
        }
        assert!(outcomes.is_empty());
    }

    /// Consumers of an app that was removed hold nothing any more.
    fn drop_unregistered(&mut self, queue: QueueId) {
        let Some(apps) = self.model.queues.get(&queue).map(|queue| &queue.apps) else { return };
        for consumer in self.consumers.values_mut().filter(|c| c.queue == queue) {
            let app = apps.iter().find(|(_, name)| **name == consumer.app_name);
            let app = app.map(|(&key, _)| key);
            if app != consumer.app {
                consumer.held.clear();
                consumer.app = app;
            }
        }
    }

    /// Everything that can be compared is equal.
    fn check(&self) {
        assert_eq!(self.leader.records(), self.follower.records());
        let ids: Vec<QueueId> = self.leader.queue_ids().collect();
        assert_eq!(ids, self.model.queues.keys().copied().collect::<Vec<_>>());
        for id in DOMAINS {
            let queues = || self.model.queues.values().filter(|queue| queue.domain == id);
            let waiting: usize = queues().map(|queue| queue.messages.len()).sum();
            let bytes = queues().map(|queue| queue.bytes()).sum();
            assert_eq!(self.leader.state.domain(id), (waiting as u64, bytes));
            let known = self.leader.domain(id);
            let expected = self.model.domains.get(&id).map(|domain| {
                assert!(queues().all(|queue| queue.settings == domain.settings));
                (domain.version, &domain.settings)
            });
            assert_eq!(known, expected);
        }
        for (&id, queue) in &self.model.queues {
            let view = self.leader.view(id).unwrap();
            assert_eq!(view.messages, queue.messages.len() as u64);
            assert_eq!(view.bytes, queue.bytes());
            let keys: Vec<AppKey> = view.apps.iter().map(|app| app.key).collect();
            assert_eq!(keys, queue.apps.keys().copied().collect::<Vec<_>>());
            for app in &view.apps {
                let bytes: usize = queue.pending(app.key).map(|message| message.data.len()).sum();
                assert_eq!(app.messages, queue.pending(app.key).count() as u64);
                assert_eq!(app.bytes, bytes as u64);
            }
            let peeked = self.leader.peek(id, 0, usize::MAX);
            assert_eq!(peeked.len(), queue.messages.len());
            for (location, message) in peeked.iter().zip(&queue.messages) {
                assert_eq!(location.position, message.position);
                assert_eq!(location.arrival_ms, message.arrival_ms);
                let read = Partition::read(location, &self.log[&location.index]).unwrap();
                assert_eq!((read.guid, &read.app_data[..]), (message.guid, &message.data[..]));
            }
        }
        assert_eq!(self.leader.state.live_entries(), self.model.live_entries());
    }

    fn open(&mut self, queue: QueueId, a: u64, b: u64) {
        if self.consumers.len() > 6 {
            return;
        }
        let app = (queue != QUEUES[0]).then(|| ["a", "b", "c"][a as usize % 3]);
        let handle = HandleId(self.next_handle);
        self.next_handle += 1;
        let roles = Roles { reader: true, writer: a.is_multiple_of(3) };
        let opened = self.leader.open(handle, queue, roles, app);
        assert_eq!(opened.is_ok(), self.model.queues.contains_key(&queue));
        if opened.is_ok() {
            let name = app.unwrap_or_default();
            let mut apps = self.model.queues[&queue].apps.iter();
            let consumer = Consumer {
                queue,
                app_name: name.to_owned(),
                app: apps.find(|(_, known)| **known == name).map(|(&key, _)| key),
                subscription: None,
                paused: false,
                held: Vec::new(),
            };
            self.consumers.insert(handle, consumer);
            self.configure(handle, b);
        }
    }

    fn configure(&mut self, handle: HandleId, a: u64) {
        let consumer = self.consumers.get_mut(&handle).unwrap();
        consumer.subscription = (a % 7 != 6).then(|| Subscription {
            id: (a % 2) as u32,
            priority: (a / 3 % 2) as i32,
            count: (a / 5 % 3) as u32,
            max_messages: a / 7 % 6,
            max_bytes: [0, 20, 1000][a as usize / 11 % 3].max(a % 5 * 30),
            filter: Filter::All,
        });
        let subscriptions = consumer.subscription.iter().cloned().collect();
        self.leader.configure(handle, subscriptions).unwrap();
    }

    fn close(&mut self, handle: HandleId) {
        self.consumers.remove(&handle);
        self.leader.close(handle).unwrap();
    }

    fn lost(&mut self, handle: HandleId) {
        self.consumers.remove(&handle);
        if let Some(item) = self.leader.lost(handle).unwrap() {
            self.puts.push(Put::Attempt(item));
        }
    }

    fn confirm_some(&mut self, handle: HandleId, a: u64) {
        let consumer = self.consumers.get_mut(&handle).unwrap();
        for n in 0..a % 4 {
            if consumer.held.is_empty() {
                return;
            }
            let at = if a.is_multiple_of(3) { (a + n) as usize % consumer.held.len() } else { 0 };
            let (position, guid, ..) = consumer.held.remove(at);
            let item = self.leader.confirm(handle, guid).expect("held messages can be confirmed");
            assert_eq!(item.position, position);
            self.proposed.insert((item.queue, item.app, item.position));
            self.puts.push(Put::Confirm(item));
        }
    }

    /// A confirm of any GUID, held or not.
    fn confirm_any(&mut self, handle: HandleId, a: u64) {
        let guid = guid(a * 13 % self.next_guid.max(1));
        let Some(item) = self.leader.confirm(handle, guid) else { return };
        let consumer = self.consumers.get_mut(&handle).unwrap();
        consumer.held.retain(|(position, ..)| *position != item.position);
        self.proposed.insert((item.queue, item.app, item.position));
        self.puts.push(Put::Confirm(item));
    }

    fn deliver(&mut self, a: u64, b: u64) {
        let mut out = Deliveries::default();
        let mut fail = b.is_multiple_of(3);
        self.leader.retry_loads();
        for _ in 0..200 {
            let more = self.leader.deliver(1 + a as usize % 400, &mut out);
            for delivery in std::mem::take(&mut out.messages) {
                self.received(delivery);
            }
            let loads = std::mem::take(&mut out.loads);
            if loads.is_empty() && !more {
                break;
            }
            for index in loads {
                if std::mem::take(&mut fail) {
                    self.leader.load_failed(index);
                    self.leader.load_failed(index);
                } else {
                    self.leader.loaded(index, &self.log[&index]).unwrap();
                }
            }
        }
        if !b.is_multiple_of(3) {
            self.nothing_is_left();
        }
    }

    /// A delivery is legal.
    fn received(&mut self, delivery: Delivery) {
        let key = (delivery.queue, delivery.app);
        let queue = &self.model.queues[&delivery.queue];
        let mut pending = queue.pending(delivery.app);
        let message = pending.find(|m| m.position == delivery.position).expect("not pending");
        assert_eq!((delivery.guid, &delivery.app_data[..]), (message.guid, &message.data[..]));
        let failed = message.apps[&delivery.app];
        let limit = queue.settings.max_delivery_attempts;
        assert_eq!(delivery.attempts_left, (limit > 0).then(|| limit.saturating_sub(failed)));
        let proposed = self.proposed.contains(&(key.0, key.1, delivery.position));
        assert!(!proposed, "sent while its confirm is on the way");

        let app_name = &queue.apps[&delivery.app];
        let mut best = None;
        for consumer in self.consumers.values() {
            if consumer.queue == delivery.queue && consumer.app_name == *app_name {
                let out = consumer.held.iter().any(|held| held.0 == delivery.position);
                assert!(!out, "sent while out: {delivery:?}");
                best = best.max(consumer.subscription.as_ref().map(|s| s.priority));
            }
        }
        let sent = self.sent.get(&key).copied();
        if sent.is_none_or(|sent| delivery.position > sent) {
            self.sent.insert(key, delivery.position);
        } else {
            assert!(delivery.redelivered, "new messages come in order");
        }
        let mut before = queue.pending(delivery.app).take_while(|m| m.position < delivery.position);
        let passed_over = before.find(|message| !self.is_kept_back(key, message));
        let passed_over = passed_over.map(|message| message.position);
        assert_eq!(passed_over, None, "the oldest comes first, not {delivery:?}");
        let consumer = self.consumers.get_mut(&delivery.handle).unwrap();
        assert_eq!((consumer.queue, &consumer.app_name), (delivery.queue, app_name));
        let subscription = consumer.subscription.as_ref().expect("configured");
        assert_eq!(subscription.id, delivery.subscription);
        assert_eq!(Some(subscription.priority), best, "highest priority only");
        assert!(!consumer.paused);
        let mine = consumer.held.iter().filter(|held| held.3 == subscription.id);
        let (count, bytes) = mine.fold((0, 0), |(count, bytes), held| (count + 1, bytes + held.2));
        assert!(count < subscription.max_messages && bytes < subscription.max_bytes);
        let size = delivery.app_data.len() as u64;
        consumer.held.push((delivery.position, delivery.guid, size, delivery.subscription));
    }

    /// After a full round no consumer that takes part has room while a message waits for it.
    fn nothing_is_left(&self) {
        for (&id, queue) in &self.model.queues {
            for (&app, name) in &queue.apps {
                let mine =
                    || self.consumers.values().filter(|c| c.queue == id && c.app_name == *name);
                let subscribed = || mine().filter_map(|c| Some((c, c.subscription.as_ref()?)));
                let Some(best) = subscribed().map(|(_, s)| s.priority).max() else { continue };
                let has_room = subscribed().any(|(consumer, s)| {
                    let held = consumer.held.iter().filter(|held| held.3 == s.id);
                    let (count, bytes) = held.fold((0, 0), |(n, b), held| (n + 1, b + held.2));
                    let free = count < s.max_messages && bytes < s.max_bytes;
                    s.priority == best && free && !consumer.paused
                });
                if !has_room {
                    continue;
                }
                for message in queue.pending(app) {
                    let kept_back = self.is_kept_back((id, app), message);
                    assert!(kept_back, "left behind: {} of {id:?} {app:?}", message.position);
                }
            }
        }
    }

    /// Whether a pending message may not be delivered: it, or one with its GUID, is out, or it
    /// waits for a command in the log.
    fn is_kept_back(&self, (id, app): (QueueId, AppKey), message: &ModelMessage) -> bool {
        let (at, name) = (message.position, &self.model.queues[&id].apps[&app]);
        let mut mine = self.consumers.values().filter(|c| c.queue == id && c.app_name == *name);
        let is_out =
            |(held, guid, ..): &(Position, Guid, u64, u32)| *held == at || *guid == message.guid;
        let mut puts = self.puts.iter();
        let is_counted = |put: &Put| match put {
            Put::Attempt(item) => {
                item.queue == id && item.app == app && item.positions.contains(&at)
            }
            _ => false,
        };
        mine.any(|consumer| consumer.held.iter().any(is_out))
            || puts.any(is_counted)
            || self.proposed.contains(&(id, app, at))
    }

    /// The net change brings the store to exactly the state, and the log to exactly what is needed.
    fn checkpoint(&mut self) {
        let checkpoint = self.leader.take_checkpoint();
        for key in &checkpoint.deletes {
            assert!(self.store.remove(key).is_some(), "delete of an absent key");
        }
        self.store.extend(checkpoint.puts);
        assert_eq!(self.store.clone().into_iter().collect::<Vec<_>>(), self.leader.records());
        for index in checkpoint.dead_entries {
            assert!(index <= checkpoint.applied);
            assert!(self.log.remove(&index).is_some(), "entry died twice");
        }
        let kept: BTreeSet<Index> = self.log.keys().copied().collect();
        assert_eq!(kept, self.model.live_entries());
    }

    fn restart(&mut self) {
        self.leader = Partition::restore(&self.store).unwrap();
        let applied = self.leader.applied();
        for (&index, payload) in self.log.range(applied + 1..) {
            self.leader.apply(index, payload, &mut Applied::default()).unwrap();
        }
        self.change_leader();
        self.check();
    }

    fn change_leader(&mut self) {
        self.leader.follow();
        self.leader.lead();
        self.consumers.clear();
        self.sent.clear();
        self.proposed.clear();
        // What the old leader proposed and did not commit is lost.
        self.puts.retain(|put| matches!(put, Put::Publish(..) | Put::Create(..) | Put::Set(..)));
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0u8..31, 0u64..1000, 0u64..1000).prop_map(|(kind, a, b)| Step { kind, a, b });
    prop::collection::vec(step, 1..150)
}

proptest! {
    #[test]
    fn a_partition_behaves_like_its_model(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.commit();
        world.deliver(1, 1);
        world.checkpoint();
        world.restart();
    }
}
