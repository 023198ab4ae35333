//! CONFIRM events: sorted by partition. There is no answer to a confirmation, and unknown ones are
//! ignored (docs/protocol/messages.md#confirm).

use flintmq_partition::Confirm;
use flintmq_protocol::confirm::ConfirmMessages;
use flintmq_protocol::event::Event;
use flintmq_protocol::malformed::MalformedEvent;

use crate::handles::Handles;
use crate::publish::batch_of;

/// Confirmations on their way to their partitions.
#[derive(Default)]
pub(crate) struct Confirmer {
    /// By partition number minus one, as far as the session has queues there.
    batches: Vec<Vec<Confirm>>,
}

impl Confirmer {
    /// Takes the confirmations of one event.
    ///
    /// # Errors
    /// The event cannot be read.
    pub(crate) fn take(&mut self, event: &Event, handles: &Handles) -> Result<(), MalformedEvent> {
        for confirm in ConfirmMessages::parse(&event.body)? {
            let Some((partition, handle)) = handles.reader(confirm.queue_id, confirm.sub_queue_id)
            else {
                continue;
            };
            let batch = batch_of(&mut self.batches, partition);
            batch.push(Confirm { handle, guid: confirm.guid });
        }
        Ok(())
    }

    /// Gives out what was taken, by partition number.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (u32, Vec<Confirm>)> + '_ {
        (1_u32..)
            .zip(&mut self.batches)
            .filter(|(_, confirms)| !confirms.is_empty())
            .map(|(partition, confirms)| (partition, std::mem::take(confirms)))
    }
}
