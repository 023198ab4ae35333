//! The partition: the state machine and, on the leader, its delivery engine.

use bytes::Bytes;

use crate::checkpoint::Checkpoint;
use crate::codec::Malformed;
use crate::delivery::{Deliveries, EntryMismatch, OpenError, Roles, Subscription, UnknownHandle};
use crate::entry::{AttemptItem, ConfirmItem, ExpireItem};
use crate::ids::{Guid, HandleId, Index, Position, QueueId};
use crate::message::Message;
use crate::outcome::{Admission, Applied, ApplyError};
use crate::settings::QueueSettings;
use crate::views::{Location, QueueView};

/// Many queues that share one replicated log.
#[derive(Debug, Default)]
pub struct Partition {}

#[allow(clippy::todo, unused_variables, missing_docs)]
impl Partition {
    pub fn restore<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        records: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, Malformed> {
        todo!()
    }
    pub fn applied(&self) -> Index {
        todo!()
    }
    pub fn apply(
        &mut self,
        index: Index,
        payload: &Bytes,
        out: &mut Applied,
    ) -> Result<(), ApplyError> {
        todo!()
    }
    pub fn admit(&self, queue: QueueId, guid: Guid, bytes: usize) -> Admission {
        todo!()
    }
    pub fn take_checkpoint(&mut self) -> Checkpoint {
        todo!()
    }
    pub fn records(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        todo!()
    }
    pub fn lead(&mut self) {
        todo!()
    }
    pub fn follow(&mut self) {
        todo!()
    }
    pub fn is_leading(&self) -> bool {
        todo!()
    }
    pub fn open(
        &mut self,
        handle: HandleId,
        queue: QueueId,
        roles: Roles,
        app: Option<&str>,
    ) -> Result<(), OpenError> {
        todo!()
    }
    pub fn configure(
        &mut self,
        handle: HandleId,
        subscriptions: Vec<Subscription>,
    ) -> Result<(), UnknownHandle> {
        todo!()
    }
    pub fn confirm(&mut self, handle: HandleId, guid: Guid) -> Option<ConfirmItem> {
        todo!()
    }
    pub fn release(&mut self, handle: HandleId, roles: Roles) -> Result<(), UnknownHandle> {
        todo!()
    }
    pub fn close(&mut self, handle: HandleId) -> Result<(), UnknownHandle> {
        todo!()
    }
    pub fn lost(&mut self, handle: HandleId) -> Result<Option<AttemptItem>, UnknownHandle> {
        todo!()
    }
    pub fn pause(&mut self, handle: HandleId) {
        todo!()
    }
    pub fn resume(&mut self, handle: HandleId) {
        todo!()
    }
    pub fn deliver(&mut self, budget: usize, out: &mut Deliveries) -> bool {
        todo!()
    }
    pub fn loaded(&mut self, index: Index, payload: &Bytes) -> Result<(), EntryMismatch> {
        todo!()
    }
    pub fn load_failed(&mut self, index: Index) {
        todo!()
    }
    pub fn expire(&mut self, now_ms: u64, max_messages: u64) -> Vec<ExpireItem> {
        todo!()
    }
    pub fn next_expiry(&self) -> Option<u64> {
        todo!()
    }
    pub fn queue_ids(&self) -> impl Iterator<Item = QueueId> + '_ {
        std::iter::empty()
    }
    pub fn settings(&self, queue: QueueId) -> Option<&QueueSettings> {
        todo!()
    }
    pub fn view(&self, queue: QueueId) -> Option<QueueView> {
        todo!()
    }
    pub fn peek(&self, queue: QueueId, from: Position, count: usize) -> Vec<Location> {
        todo!()
    }
    pub fn read(location: &Location, payload: &Bytes) -> Result<Message, EntryMismatch> {
        todo!()
    }
}
