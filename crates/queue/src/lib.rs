//! FlintMQ queue.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod checkpoint;
mod codec;
mod delivery;
mod entry;
mod extents;
mod history;
mod ids;
mod message;
mod outcome;
mod partition;
mod positions;
mod settings;
mod state;
mod views;

#[cfg(test)]
mod tests;

pub use checkpoint::Checkpoint;
pub use codec::Malformed;
pub use delivery::{
    Deliveries, Delivery, EntryMismatch, Filter, MAX_UNCONFIRMED, OpenError, Roles, Subscription,
    UnknownHandle,
};
pub use entry::{AttemptItem, Built, ConfirmItem, EntryBuilder, ExpireItem, MessageTooLarge};
pub use ids::{AppKey, DomainId, Guid, HandleId, Index, Position, QueueId};
pub use message::{Attributes, MAX_APP_DATA_BYTES, Message};
pub use outcome::{Admission, Applied, ApplyError, CreateRefusal, Effect, Outcome};
pub use partition::Partition;
pub use settings::{Consistency, Limits, Mode, QueueSettings};
pub use views::{AppView, Location, QueueView};
