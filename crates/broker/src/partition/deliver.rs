//! From waiting messages to consumers with room for them.

use flintmq_consensus::Index;
use flintmq_storage::ReadError;

use super::clock::wall_clock_ms;
use super::requests::HandleRole;
use super::task::{Owner, PartitionTask, Signal};
use crate::link::SessionId;

/// Bytes delivered in one round, before the outboxes are looked at again.
const ROUND_BYTES: usize = 1 << 20;

impl PartitionTask {
    /// Gives consumers what they have room for. True when more could be delivered at once.
    pub(super) fn deliver(&mut self) -> bool {
        if !self.delivering || !self.machine.is_leading() {
            return false;
        }
        let mut deliveries = std::mem::take(&mut self.deliveries);
        let more = self.machine.deliver(ROUND_BYTES, &mut deliveries);
        for index in deliveries.loads.drain(..) {
            self.load(index);
        }
        let now = if deliveries.messages.is_empty() { 0 } else { wall_clock_ms() };
        for delivery in deliveries.messages.drain(..) {
            let Some(entry) = self.handles.get(&delivery.handle) else { continue };
            if let Some(queue) = self.queues.get(&entry.queue) {
                let redelivered = u64::from(delivery.redelivered);
                queue.series.delivered(1, delivery.app_data.len() as u64, redelivered);
            }
            if !delivery.redelivered {
                let waited_ms = now.saturating_sub(delivery.arrival_ms);
                self.end_to_end.record(waited_ms as f64 / 1000.0);
            }
            match &entry.owner {
                Owner::Session(local) => {
                    if let HandleRole::Reader { queue_id } = local.role {
                        self.links.push(local.session, queue_id, delivery);
                    }
                }
                Owner::Node(node) => {
                    let node = *node;
                    self.push_remote(node, delivery);
                }
            }
        }
        self.deliveries = deliveries;
        more
    }

    /// Sends out what this round produced, and stops delivering to those who cannot take more.
    pub(super) fn flush(&mut self) {
        for session in self.links.flush() {
            self.pause(session);
        }
        self.flush_gateways();
    }

    /// Goes on delivering to a session whose outbox has room again.
    pub(super) fn resume(&mut self, session: SessionId) {
        let Some(link) = self.links.get_mut(session) else { return };
        link.paused = false;
        for handle in &link.handles {
            self.machine.resume(*handle);
        }
        if !self.machine.is_leading() {
            self.hand_on_pause(session, false);
        }
    }

    /// Takes an entry that delivery asked for.
    pub(super) fn on_loaded(&mut self, index: Index, loaded: Result<bytes::Bytes, ReadError>) {
        match loaded {
            Ok(payload) => {
                if let Err(error) = self.machine.loaded(index, &payload) {
                    self.fatal.raise(format!("group={} {error}", self.group()));
                }
            }
            Err(error) => {
                // A damaged or missing entry: the messages in it cannot be delivered, all others
                // can.
                tracing::error!(group = self.group().0, index, %error, "an entry cannot be read for delivery");
                self.machine.load_failed(index);
            }
        }
    }

    fn pause(&mut self, session: SessionId) {
        let Some(link) = self.links.get_mut(session) else { return };
        link.paused = true;
        for handle in &link.handles {
            self.machine.pause(*handle);
        }
        let signals = self.signals.clone();
        link.session.outbox.when_room(Box::new(move || {
            let _task_gone = signals.send(Signal::Resume(session));
        }));
        if !self.machine.is_leading() {
            self.hand_on_pause(session, true);
        }
    }

    fn load(&self, index: Index) {
        let signals = self.signals.clone();
        let then = move |loaded| {
            let _task_gone = signals.send(Signal::Loaded(index, loaded));
        };
        self.reader.read(self.group(), index, Box::new(then));
    }
}
