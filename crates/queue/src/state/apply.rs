//! Applying commands. Nothing here may depend on anything but the state and the log.

use std::sync::Arc;

use super::queue::{App, Queue, Released};
use super::{Admission, Entries, Meter, SWEEP_MS, State, keys, refusal};
use crate::extents::{Extent, Sizes};
use crate::ids::{AppKey, DomainId, Index, Position, QueueId};
use crate::message::Batch;
use crate::outcome::{CreateRefusal, Effect, Outcome};
use crate::settings::{Domain, Mode};

impl State {
    /// Opens the application of an entry: time passes, the entry is held until
    /// [`State::end_entry`].
    pub(crate) fn begin_entry(&mut self, index: Index, time_ms: Option<u64>) {
        self.entries.hold(index);
        let Some(time_ms) = time_ms else { return };
        let before = self.clock;
        // The first time ever seen is where the clock starts, not a step.
        if self.time_ms != 0 {
            self.clock = before.saturating_add(time_ms.saturating_sub(self.time_ms));
        }
        self.time_ms = time_ms;
        if before / SWEEP_MS != self.clock / SWEEP_MS {
            for (id, queue) in &mut self.queues {
                queue.history.sweep(self.clock, queue.settings.dedup_window_ms);
                self.touched.insert(*id);
            }
        }
    }

    /// Closes the application of an entry: it is dead unless a message of it is live.
    pub(crate) fn end_entry(&mut self, index: Index) {
        self.entries.release(index);
        self.applied = index;
    }

    /// Stores messages. Returns the position of the first, if any of the batch was stored.
    pub(crate) fn publish(
        &mut self,
        index: Index,
        batch: &Batch<'_>,
        outcomes: &mut Vec<Outcome>,
    ) -> Option<Position> {
        let Some(queue) = self.queues.get_mut(&batch.queue) else {
            outcomes.extend((0..batch.count()).map(|_| Outcome::UnknownQueue));
            return None;
        };
        let first = queue.next_position;
        if queue.apps.is_empty() {
            // Nobody is interested: acknowledged, not stored, not remembered.
            let stored = (first..).take(batch.count() as usize);
            outcomes.extend(stored.map(|position| Outcome::Stored { position }));
            return None;
        }
        let Some(domain) = self.domains.get_mut(queue.domain) else {
            outcomes.extend((0..batch.count()).map(|_| Outcome::UnknownQueue));
            return None;
        };
        let domain = &mut domain.meter;
        queue.history.expire(self.clock, queue.settings.dedup_window_ms);
        let mut sizes = Vec::with_capacity(batch.count() as usize);
        let mut run = Run::default();
        let mut live = 0;
        for (position, header) in (first..).zip(batch.iter()) {
            sizes.push(header.size);
            let outcome = if queue.history.position(header.guid).is_some() {
                Outcome::Duplicate
            } else {
                match refusal(&queue.settings, queue.meter, *domain) {
                    Some(Admission::RefusedMessages) => Outcome::RefusedMessages,
                    Some(_) => Outcome::RefusedBytes,
                    None => Outcome::Stored { position },
                }
            };
            if matches!(outcome, Outcome::Stored { .. }) {
                queue.history.insert(header.guid, position, self.clock);
                queue.meter.add(u64::from(header.size));
                domain.add(u64::from(header.size));
                live += 1;
                run.extend(position, u64::from(header.size), &mut queue.apps);
            }
            outcomes.push(outcome);
        }
        run.flush(&mut queue.apps);
        if live == 0 {
            return None;
        }
        queue.next_position = first + u64::from(batch.count());
        queue.dirty = true;
        queue.extents.push(Extent {
            first,
            index,
            arrival_ms: self.time_ms,
            offset: batch.offset,
            count: batch.count(),
            live,
            sizes: Sizes::new(&sizes),
        });
        self.entries.hold(index);
        self.touched.insert(batch.queue);
        Some(first)
    }

    /// An app is done with runs of messages.
    pub(crate) fn confirm(&mut self, id: QueueId, key: AppKey, runs: &[(Position, Position)]) {
        let Some((queue, mut ledger)) = self.ledger(id) else { return };
        let Some(app) = queue.app_at(key) else { return };
        for &(first, last) in runs {
            // Walks what is pending, so that a run costs no more than what it removes.
            let mut from = first;
            while let Some(position) = queue.apps[app].pending.next(from)
                && position <= last
            {
                ledger.settle(queue.release(app, position));
                let Some(next) = position.checked_add(1) else { break };
                from = next;
            }
        }
    }

    /// A consumer died holding messages.
    pub(crate) fn attempt(
        &mut self,
        id: QueueId,
        key: AppKey,
        positions: &[Position],
        effects: &mut Vec<Effect>,
    ) {
        let Some((queue, mut ledger)) = self.ledger(id) else { return };
        let Some(at) = queue.app_at(key) else { return };
        let limit = queue.settings.max_delivery_attempts;
        for &position in positions {
            let app = &mut queue.apps[at];
            if limit == 0 || !app.pending.contains(position) {
                continue;
            }
            let failed = app.attempts.get(&position).copied().unwrap_or(0).saturating_add(1);
            if failed < limit {
                app.attempts.insert(position, failed);
                app.pending.touch(position);
            } else {
                let index = queue.extents.find(position).map_or(0, |extent| extent.index);
                ledger.settle(queue.release(at, position));
                effects.push(Effect::Poisoned { queue: id, app: key, position, index });
            }
        }
    }

    /// Messages up to a position have outlived their TTL.
    pub(crate) fn expire(&mut self, id: QueueId, up_to: Position, effects: &mut Vec<Effect>) {
        let Some((queue, mut ledger)) = self.ledger(id) else { return };
        let before = queue.meter;
        for app in 0..queue.apps.len() {
            while let Some(position) = queue.apps[app].pending.next(0)
                && position <= up_to
            {
                ledger.settle(queue.release(app, position));
            }
        }
        let messages = before.messages - queue.meter.messages;
        if messages > 0 {
            let bytes = before.bytes - queue.meter.bytes;
            effects.push(Effect::Expired { queue: id, messages, bytes });
        }
    }

    /// An operator drops an app's share, or everything. The history stays: a producer that sends
    /// again what it had through before the purge gets a success and no second message.
    pub(crate) fn purge(&mut self, id: QueueId, app: Option<AppKey>, effects: &mut Vec<Effect>) {
        let Some((queue, mut ledger)) = self.ledger(id) else { return };
        let (messages, bytes) = match app {
            Some(key) => {
                let Some(at) = queue.app_at(key) else { return };
                let lost = (queue.apps[at].pending.len(), queue.apps[at].bytes);
                release_all(queue, at, &mut ledger);
                lost
            }
            None => {
                let lost = (queue.meter.messages, queue.meter.bytes);
                drop_all(queue, &mut ledger);
                lost
            }
        };
        effects.push(Effect::Purged { queue: id, app, messages, bytes });
    }

    /// A queue comes into being. Returns other queues of its domain that got new settings by it.
    pub(crate) fn create_queue(
        &mut self,
        id: QueueId,
        uri: &str,
        domain: DomainId,
        carried: Option<Domain>,
        effects: &mut Vec<Effect>,
    ) -> Vec<QueueId> {
        let known = self.domains.get(domain).map(|known| &*known.settings);
        let carried_settings = carried.as_ref().map(|carried| &carried.settings);
        let settings = known.or(carried_settings);
        let reason = match settings {
            _ if self.queues.contains_key(&id) => Some(CreateRefusal::Exists),
            None => Some(CreateRefusal::UnknownDomain),
            Some(settings) if settings.mode == Mode::Broadcast => {
                Some(CreateRefusal::UnsupportedMode)
            }
            Some(_) => None,
        };
        if let Some(reason) = reason {
            effects.push(Effect::CreateRefused { queue: id, reason });
            return Vec::new();
        }
        let updated = match carried {
            Some(carried) if self.domains.get(domain).is_some() => self.set_domain(carried),
            Some(carried) => {
                self.domains.enter(carried);
                Vec::new()
            }
            None => Vec::new(),
        };
        if let Some(settings) = self.domains.add_queue(domain) {
            self.queues.insert(id, Queue::new(id, uri, domain, settings));
            self.touched.insert(id);
            effects.push(Effect::QueueCreated { queue: id });
        }
        updated
    }

    /// A domain's policy changes for all its queues, unless it is older than what is known. The
    /// kind of mode stays as it is. Returns the queues that have new settings.
    pub(crate) fn set_domain(&mut self, domain: Domain) -> Vec<QueueId> {
        let id = domain.id;
        let Some(settings) = self.domains.update(domain) else { return Vec::new() };
        let mut updated = Vec::new();
        for queue in self.queues.values_mut().filter(|queue| queue.domain == id) {
            queue.settings = Arc::clone(&settings);
            updated.push(queue.id);
        }
        if matches!(settings.mode, Mode::Fanout { .. }) {
            updated.iter().for_each(|queue| self.follow_apps(*queue));
        }
        updated
    }

    /// Adds and removes apps as the settings say.
    fn follow_apps(&mut self, id: QueueId) {
        let mut gone = Vec::new();
        let Some((queue, mut ledger)) = self.ledger(id) else { return };
        queue.dirty = true;
        let wanted = queue.wanted_apps();
        for at in (0..queue.apps.len()).rev() {
            if !wanted.contains(&queue.apps[at].name) {
                release_all(queue, at, &mut ledger);
                let mut app = queue.apps.remove(at);
                let (_, removed) = app.pending.take_changes();
                gone.extend(removed.iter().map(|&page| keys::page(id, app.key, page)));
            }
        }
        for name in wanted {
            if !queue.apps.iter().any(|app| app.name == name) {
                queue.add_app(&name);
            }
        }
        self.gone.extend(gone);
    }

    /// A queue ends with all that belongs to it.
    pub(crate) fn delete_queue(&mut self, id: QueueId, effects: &mut Vec<Effect>) {
        let Some((queue, mut ledger)) = self.ledger(id) else { return };
        let (messages, bytes) = (queue.meter.messages, queue.meter.bytes);
        drop_all(queue, &mut ledger);
        queue.history.clear();
        if let Some(mut queue) = self.queues.remove(&id) {
            let mut removed = Vec::new();
            if queue.saved {
                removed.push(keys::queue(id));
            }
            queue.save(&mut Vec::new(), &mut removed);
            removed.extend(self.domains.remove_queue(queue.domain));
            self.gone.extend(removed);
        }
        effects.push(Effect::QueueDeleted { queue: id, messages, bytes });
    }

    /// A queue together with what its messages count on; marks it as changed.
    fn ledger(&mut self, id: QueueId) -> Option<(&mut Queue, Ledger<'_>)> {
        let queue = self.queues.get_mut(&id)?;
        let domain = &mut self.domains.get_mut(queue.domain)?.meter;
        self.touched.insert(id);
        Some((queue, Ledger { domain, entries: &mut self.entries }))
    }
}

/// The books in which a message that leaves is written off.
struct Ledger<'a> {
    domain: &'a mut Meter,
    entries: &'a mut Entries,
}

impl Ledger<'_> {
    fn settle(&mut self, released: Released) {
        if let Released::Message { bytes, entry } = released {
            self.domain.subtract(1, bytes);
            entry.into_iter().for_each(|index| self.entries.release(index));
        }
    }
}

fn release_all(queue: &mut Queue, app: usize, ledger: &mut Ledger<'_>) {
    while let Some(position) = queue.apps[app].pending.next(0) {
        ledger.settle(queue.release(app, position));
    }
}

/// Drops all messages; by extent, not by message.
fn drop_all(queue: &mut Queue, ledger: &mut Ledger<'_>) {
    ledger.domain.subtract(queue.meter.messages, queue.meter.bytes);
    queue.meter = Meter::default();
    queue.extents.clear().into_iter().for_each(|index| ledger.entries.release(index));
    for app in &mut queue.apps {
        app.pending.clear();
        app.attempts.clear();
        app.bytes = 0;
    }
}

/// Consecutive stored positions, given to the apps together.
#[derive(Default)]
struct Run {
    first: Position,
    count: u64,
    bytes: u64,
}

impl Run {
    fn extend(&mut self, position: Position, bytes: u64, apps: &mut [App]) {
        if self.count > 0 && self.first + self.count != position {
            self.flush(apps);
        }
        if self.count == 0 {
            self.first = position;
        }
        self.count += 1;
        self.bytes += bytes;
    }

    fn flush(&mut self, apps: &mut [App]) {
        if self.count > 0 {
            for app in apps {
                app.pending.insert_run(self.first, self.first + (self.count - 1));
                app.bytes += self.bytes;
            }
        }
        *self = Self::default();
    }
}
