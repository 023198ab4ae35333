//! The partition: the state machine and, on the leader, its delivery engine.

use bytes::Bytes;

use crate::checkpoint::Checkpoint;
use crate::codec::Malformed;
use crate::delivery::{
    Deliveries, Engine, EntryMismatch, OpenError, Roles, Subscription, UnknownHandle,
};
use crate::entry::{self, AttemptItem, Command, ConfirmItem, ExpireItem};
use crate::ids::{DomainId, Guid, HandleId, Index, QueueId};
use crate::outcome::{Admission, Applied, ApplyError};
use crate::settings::QueueSettings;
use crate::state::State;

/// Many queues that share one replicated log.
///
/// Its methods come in four families:
///
/// - **log** ([`apply`](Self::apply), [`applied`](Self::applied)): every replica, every committed
///   entry, in order. Two replicas that applied the same entries are in the same state.
/// - **store** ([`restore`](Self::restore), [`take_checkpoint`](Self::take_checkpoint),
///   [`records`](Self::records)): every replica.
/// - **leader**: from [`lead`](Self::lead) to [`follow`](Self::follow); [`open`](Self::open),
///   [`configure`](Self::configure), [`confirm`](Self::confirm), [`close`](Self::close) and the
///   like change what [`deliver`](Self::deliver) does and return what must be proposed.
/// - **views**: any replica, any time.
///
/// Nothing a leader does changes the state; only the log does. Items that leader methods return
/// *must* be proposed: until they are applied the messages concerned are kept from delivery. When
/// leadership is lost they need not be proposed any more.
#[derive(Debug, Default)]
pub struct Partition {
    pub(crate) state: State,
    pub(crate) engine: Option<Engine>,
}

impl Partition {
    /// Rebuilds the partition from all records in the store, given in ascending order of their key
    /// suffixes. Then apply the log from [`applied`](Self::applied) on. No records make an empty
    /// partition.
    ///
    /// Fails when the records do not fit together: get the state from another replica.
    pub fn restore<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        records: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, Malformed> {
        Ok(Self { state: State::restore(records)?, engine: None })
    }

    /// Of these entries at or below [`applied`](Self::applied), those that no waiting message needs
    /// and no later checkpoint will report: they died before the state was restored.
    pub fn forgotten(&self, stored: &[Index]) -> Vec<Index> {
        self.state.forgotten(stored)
    }

    /// The last applied entry; 0 before the first.
    pub fn applied(&self) -> Index {
        self.state.applied
    }

    /// Applies a committed entry. `payload` is what [`EntryBuilder`](crate::EntryBuilder) built, or
    /// nothing for an entry that is not ours. Indexes must ascend; gaps are allowed. The payload's
    /// buffer may be kept for delivery.
    ///
    /// The entry's time drives the history of all queues, so an entry without commands makes an
    /// idle partition forget GUIDs: worth one every minute or so.
    ///
    /// On an error nothing was applied, and this replica cannot go on.
    pub fn apply(
        &mut self,
        index: Index,
        payload: &Bytes,
        out: &mut Applied,
    ) -> Result<(), ApplyError> {
        out.outcomes.clear();
        out.effects.clear();
        if index <= self.state.applied {
            return Err(ApplyError::OutOfOrder { index, applied: self.state.applied });
        }
        let (time_ms, commands) =
            entry::decode(payload).map_err(|source| ApplyError::Malformed { index, source })?;
        self.state.begin_entry(index, time_ms);
        for command in commands {
            self.apply_command(index, payload, command, out);
        }
        self.state.end_entry(index);
        Ok(())
    }

    fn apply_command(
        &mut self,
        index: Index,
        payload: &Bytes,
        command: Command<'_>,
        out: &mut Applied,
    ) {
        let (state, engine) = (&mut self.state, self.engine.as_mut());
        let id = command.queue();
        match &command {
            Command::Publish(batch) => {
                let stored = state.publish(index, batch, &mut out.outcomes);
                if let (Some(_), Some(engine)) = (stored, engine)
                    && let Some(queue) = state.queues.get(&id)
                    && let Some(extent) = queue.extents.back()
                {
                    engine.published(queue, extent, payload);
                }
                return;
            }
            Command::Confirm { app, runs, .. } => {
                state.confirm(id, *app, runs);
                if let Some(engine) = engine {
                    engine.confirmed(id, *app, runs);
                }
                return;
            }
            Command::Attempt { app, positions, .. } => {
                state.attempt(id, *app, positions, &mut out.effects);
            }
            Command::Expire { up_to, .. } => state.expire(id, *up_to, &mut out.effects),
            Command::Purge { app, .. } => state.purge(id, *app, &mut out.effects),
            Command::CreateQueue { uri, settings, .. } => {
                state.create_queue(id, uri, (**settings).clone(), &mut out.effects);
            }
            Command::UpdateQueue { settings, .. } => state.update_queue(id, (**settings).clone()),
            Command::DeleteQueue { .. } => state.delete_queue(id, &mut out.effects),
        }
        let Some(engine) = engine else { return };
        let Some(queue) = state.queues.get(&id) else { return engine.deleted(id) };
        match &command {
            Command::Attempt { app, positions, .. } => engine.counted(queue, *app, positions),
            Command::Purge { app, .. } => engine.purged(queue, *app),
            Command::UpdateQueue { .. } => engine.updated(queue),
            _ => {}
        }
    }

    /// A cheap check of a message before it is proposed: what would become of it if everything that
    /// is proposed already were refused. Applying decides.
    pub fn admit(&self, queue: QueueId, guid: Guid, bytes: usize) -> Admission {
        // The rule looks at what waits, not at the size of what comes.
        let _ = bytes;
        self.state.admit(queue, guid)
    }

    /// The net change since the last call, to be written atomically. The first after
    /// [`restore`](Self::restore) or `default` is relative to that.
    pub fn take_checkpoint(&mut self) -> Checkpoint {
        self.state.take_checkpoint()
    }

    /// All records of the state, sorted by key: for the store of a new replica and for comparisons.
    /// Takes time and memory in proportion to the extents and the history.
    pub fn records(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.state.records()
    }

    /// This replica leads from now on. Delivery starts from nothing: nobody has a queue open, and
    /// every message that is not confirmed is offered again.
    pub fn lead(&mut self) {
        self.engine = Some(Engine::default());
    }

    /// This replica no longer leads. All handles are gone.
    pub fn follow(&mut self) {
        self.engine = None;
    }

    /// True between [`lead`](Self::lead) and [`follow`](Self::follow).
    pub fn is_leading(&self) -> bool {
        self.engine.is_some()
    }

    /// Opens a queue. An open handle of the same queue and app gets the roles in addition.
    ///
    /// An app that is not registered with a fanout queue may be opened: it gets nothing until it
    /// is. Nothing is delivered before [`configure`](Self::configure).
    pub fn open(
        &mut self,
        handle: HandleId,
        queue: QueueId,
        roles: Roles,
        app: Option<&str>,
    ) -> Result<(), OpenError> {
        let engine = self.engine.as_mut().ok_or(OpenError::NotLeading)?;
        engine.open(&self.state, handle, queue, roles, app)
    }

    /// Replaces the subscriptions of a handle. None at all stops delivery and leaves unconfirmed
    /// messages with the handle. The next [`deliver`](Self::deliver) follows the new set, so answer
    /// the client first.
    pub fn configure(
        &mut self,
        handle: HandleId,
        subscriptions: Vec<Subscription>,
    ) -> Result<(), UnknownHandle> {
        self.engine_of(handle)?.configure(handle, subscriptions)
    }

    /// A consumer is done with a message. Makes room for it at once. `None` when there is nothing
    /// to propose: unknown, confirmed before, or the handle's app is not registered.
    ///
    /// A message that the handle does not hold is looked up in the queue's history, so a confirm
    /// that comes after a reconnect counts while the GUID is remembered. For a held message that
    /// has expired or was purged meanwhile there is an item too; applying it does nothing.
    pub fn confirm(&mut self, handle: HandleId, guid: Guid) -> Option<ConfirmItem> {
        self.engine.as_mut()?.confirm(&self.state, handle, guid)
    }

    /// Takes roles from a handle and closes it when none is left. A handle that no longer reads
    /// gives its unconfirmed messages back.
    pub fn release(&mut self, handle: HandleId, roles: Roles) -> Result<(), UnknownHandle> {
        let engine = self.engine.as_mut().ok_or(UnknownHandle { handle })?;
        engine.release(&self.state, handle, roles)
    }

    /// Closes a handle in good order: its unconfirmed messages are delivered to others, in the
    /// order in which it got them; no failed delivery is counted.
    pub fn close(&mut self, handle: HandleId) -> Result<(), UnknownHandle> {
        let engine = self.engine.as_mut().ok_or(UnknownHandle { handle })?;
        engine.close(&self.state, handle)
    }

    /// Closes a handle whose session died without saying so. Where the queue limits delivery
    /// attempts the item must be proposed, and the messages are delivered to others after it was
    /// applied.
    pub fn lost(&mut self, handle: HandleId) -> Result<Option<AttemptItem>, UnknownHandle> {
        let engine = self.engine.as_mut().ok_or(UnknownHandle { handle })?;
        engine.lost(&self.state, handle)
    }

    /// The way to a consumer is full: it counts as having no room. Unknown handles are ignored.
    pub fn pause(&mut self, handle: HandleId) {
        if let Some(engine) = &mut self.engine {
            engine.set_paused(handle, true);
        }
    }

    /// The way to a consumer has room again. Unknown handles are ignored.
    pub fn resume(&mut self, handle: HandleId) {
        if let Some(engine) = &mut self.engine {
            engine.set_paused(handle, false);
        }
    }

    /// Delivers about `budget_bytes` of application data (plus 64 bytes per message) and at least
    /// one message, if there is any to deliver; adds to `out`. Returns true when it stopped for the
    /// budget: call again after the output was sent. Otherwise call again after anything happened:
    /// an entry was applied or loaded, a handle was configured, confirmed, resumed or closed.
    pub fn deliver(&mut self, budget_bytes: usize, out: &mut Deliveries) -> bool {
        match &mut self.engine {
            Some(engine) => engine.deliver(&self.state, budget_bytes, out),
            None => false,
        }
    }

    /// Brings an entry that [`Deliveries::loads`] asked for. Others are ignored.
    ///
    /// An error says that the entry is not the one that was applied; its messages cannot be
    /// delivered.
    pub fn loaded(&mut self, index: Index, payload: &Bytes) -> Result<(), EntryMismatch> {
        match &mut self.engine {
            Some(engine) => engine.loaded(&self.state, index, payload),
            None => Ok(()),
        }
    }

    /// An entry that [`Deliveries::loads`] asked for could not be read. It is asked for again when
    /// something else happens to its queue, or after [`retry_loads`](Self::retry_loads).
    pub fn load_failed(&mut self, index: Index) {
        if let Some(engine) = &mut self.engine {
            engine.load_failed(index);
        }
    }

    /// Asks again, in the next [`deliver`](Self::deliver), for what could not be read. Call it on a
    /// timer, every second or so; costs nothing when all reads succeeded.
    pub fn retry_loads(&mut self) {
        if let Some(engine) = &mut self.engine {
            engine.retry_loads();
        }
    }

    /// Finds messages that outlived their TTL (strictly, by the wall clock `now_ms`, milliseconds
    /// since 1970), oldest first, about `max_messages` at most. Leader only. Delivered and
    /// unconfirmed messages expire too. Propose every item; it is not found again while this
    /// replica leads.
    pub fn expire(&mut self, now_ms: u64, max_messages: u64) -> Vec<ExpireItem> {
        let Some(engine) = &mut self.engine else { return Vec::new() };
        let (mut items, mut room) = (Vec::new(), max_messages);
        for queue in self.state.queues.values() {
            let ttl = queue.settings.message_ttl_ms;
            let from = engine.expiring.get(&queue.id).copied().unwrap_or(0);
            let mut up_to = None;
            for extent in queue.extents.live_from(from) {
                if room == 0 || ttl == 0 || now_ms.saturating_sub(extent.arrival_ms) <= ttl {
                    break;
                }
                room = room.saturating_sub(u64::from(extent.live));
                up_to = Some(extent.end() - 1);
            }
            if let Some(up_to) = up_to {
                engine.expiring.insert(queue.id, up_to + 1);
                items.push(ExpireItem { queue: queue.id, up_to });
            }
        }
        items
    }

    /// The wall-clock time from which [`expire`](Self::expire) will find something; `None` when
    /// nothing waits that can expire. Walks all queues. Leader only.
    pub fn next_expiry(&self) -> Option<u64> {
        let engine = self.engine.as_ref()?;
        let queues = self.state.queues.values();
        let times = queues.filter(|queue| queue.settings.message_ttl_ms > 0).filter_map(|queue| {
            let from = engine.expiring.get(&queue.id).copied().unwrap_or(0);
            let oldest = queue.extents.live_from(from).next()?;
            Some(oldest.arrival_ms.saturating_add(queue.settings.message_ttl_ms).saturating_add(1))
        });
        times.min()
    }

    /// All queues, ascending.
    pub fn queue_ids(&self) -> impl Iterator<Item = QueueId> + '_ {
        self.state.queues.keys().copied()
    }

    /// What waits in each domain, in all its queues in this partition: id, messages, bytes.
    pub fn domain_usage(&self) -> impl Iterator<Item = (DomainId, u64, u64)> + '_ {
        self.state.meters().map(|(id, meter)| (id, meter.messages(), meter.bytes()))
    }

    /// The settings of a queue as last applied.
    pub fn settings(&self, queue: QueueId) -> Option<&QueueSettings> {
        self.state.queues.get(&queue).map(|queue| &queue.settings)
    }

    fn engine_of(&mut self, handle: HandleId) -> Result<&mut Engine, UnknownHandle> {
        self.engine.as_mut().ok_or(UnknownHandle { handle })
    }
}
