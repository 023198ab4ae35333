//! What clients are sent, and check.

use flintmq_partition::SessionId;
use flintmq_protocol::ack::AckStatus;

use crate::client::{Answered, Item, Said, parse};
use crate::coverage::Situation;
use crate::node::Stopping;
use crate::oracle::{Violation, key_of, key_of_data, violation};
use crate::world::World;

impl World {
    /// A client gets something.
    pub(crate) fn client_gets(
        &mut self,
        number: usize,
        session: SessionId,
        item: Item,
    ) -> Result<(), Violation> {
        let now = self.now;
        let Some(client) = self.clients.get_mut(number) else { return Ok(()) };
        if !client.is_here(session) {
            return Ok(());
        }
        match item {
            Item::Lost | Item::Ended => {
                client.connection = None;
                client.retry_at = now + client.random.skewed(1_000, 500_000);
            }
            Item::Left => {
                if let Some(connection) = &mut client.connection {
                    connection.leaving = connection.leaving.saturating_sub(1);
                    if connection.leaving == 0 {
                        client.connection = None;
                        client.retry_at = now + client.random.skewed(1_000, 500_000);
                    }
                }
            }
            Item::Refused(message) => {
                self.say(|| format!("client {} is refused: {message}", number + 1));
                self.die(number);
            }
            Item::Opened(request, opened) => self.on_opened(number, request, opened),
            Item::Events(events) => {
                // Who has said goodbye hears no more than what became of the PUTs.
                let leaves = client.connection.is_some_and(|connection| connection.leaving > 0);
                for said in parse(events)? {
                    if !leaves || matches!(said, Said::Ack(_)) {
                        self.on_said(number, said)?;
                    }
                }
            }
        }
        Ok(())
    }

    pub(crate) fn on_said(&mut self, number: usize, said: Said) -> Result<(), Violation> {
        let Some(client) = self.clients.get_mut(number) else { return Ok(()) };
        match said {
            Said::Ack(ack) => {
                let key = key_of(ack.guid);
                let put = client.unacknowledged.get(&key).copied();
                if !client.on_ack(&ack, key)? {
                    self.coverage.saw(Situation::Refused);
                    // Some are sent again under the same GUID, as real clients may.
                    let again = ack.status != AckStatus::Unknown && client.random.chance(300);
                    if let Some(put) = put.filter(|_| again) {
                        client.unacknowledged.insert(key, put);
                    }
                }
            }
            Said::Push(push) => {
                let key = key_of(push.guid);
                if key_of_data(&push.app_data) != Some(key) {
                    return violation("RightContent", format!("message {key:x}"));
                }
                let slot = client.on_push(&push, key)?;
                if self.published_to.get(&key) != Some(&slot) {
                    let detail = format!("message {key:x} comes from slot {slot}");
                    return violation("RightQueue", detail);
                }
                if client.settles {
                    self.confirm_all(number);
                }
            }
            Said::Response(response) => {
                // A node that stops waits for nothing that cannot be committed.
                let stops = client.connection.is_some_and(|connection| {
                    let node = self.nodes.get(&connection.node);
                    let process = node.and_then(|node| node.process.as_ref());
                    process.is_none_or(|process| process.stopping != Stopping::No)
                });
                if stops {
                    let closed = client.uses.iter_mut().find(|one| one.closing == Some(response));
                    closed.into_iter().for_each(|one| one.unanswered.clear());
                }
                if let Answered::Closed(_) = client.on_response(response)? {
                    let rest = client.random.below(self.profile.rest + 1);
                    let until = self.now + rest;
                    let closed = client.uses.iter_mut().filter(|one| one.queue_id == 0);
                    closed.for_each(|one| one.rests_until = until);
                }
            }
        }
        Ok(())
    }
}
