//! CONFIRM events: sorted by partition. There is no answer to a confirmation, and unknown ones are
//! ignored (protocol: data events, section 8).

use flintmq_partition::Confirm;
use flintmq_protocol::confirm::ConfirmMessages;
use flintmq_protocol::event::Event;
use flintmq_protocol::malformed::MalformedEvent;

use super::handles::Handles;

/// Confirmations on their way to their partitions.
pub(crate) struct Confirmer {
    /// By partition number minus one.
    batches: Vec<Vec<Confirm>>,
}

impl Confirmer {
    pub(crate) fn new(partitions: u32) -> Self {
        Self { batches: (0..partitions).map(|_| Vec::new()).collect() }
    }

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
            if let Some(batch) = self.batches.get_mut(partition as usize - 1) {
                batch.push(Confirm { handle, guid: confirm.guid });
            }
        }
        Ok(())
    }

    /// Hands on what was taken, by partition number.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (u32, Vec<Confirm>)> + '_ {
        (1_u32..)
            .zip(&mut self.batches)
            .filter(|(_, confirms)| !confirms.is_empty())
            .map(|(partition, confirms)| (partition, std::mem::take(confirms)))
    }
}
