//! What other nodes send, sorted by group. Nothing that they send can stop the node: what cannot be
//! read is dropped and told.

use std::collections::BTreeSet;

use bytes::Bytes;
use flintmq_consensus::{NodeId, Packet};
use flintmq_peer_message::{Addressee, PeerMessage, Unreadable};
use flintmq_transport::{Batch, wire};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::FromAdministration;
use super::addressing::number_of;
use super::admission::Answering;
use crate::host::{FromPeer, ShardSender};
use crate::metrics::UNREADABLE_MESSAGES;

/// Processes of nodes that are remembered as logged.
const MAX_LOGGED: usize = 1024;

/// Hands consensus' packets to the shard, beats to `beats`. A shard that is busy loses some, whose
/// content consensus repeats.
pub(super) async fn sort(
    mut arriving: mpsc::Receiver<Batch>,
    shard: ShardSender,
    beats: Option<mpsc::Sender<Packet>>,
    stop: CancellationToken,
) {
    while let Some(batch) = next(&mut arriving, &stop).await {
        for frame in &batch.frames {
            let Some(packet) = decode(batch.from, frame) else { continue };
            if !packet.messages.is_empty() {
                shard.packet(packet);
            } else if let Some(beats) = &beats {
                let _late_is_as_bad_as_lost = beats.try_send(packet);
            }
        }
    }
}

/// Where messages go that must not be left out.
pub(super) struct Messages {
    pub(super) shard: ShardSender,
    pub(super) administration: mpsc::Sender<FromAdministration>,
    pub(super) formed: Answering,
}

/// Hands messages to whom they are for, waiting for those who are busy: none may be left out.
pub(super) async fn sort_messages(
    mut arriving: mpsc::Receiver<Batch>,
    to: Messages,
    stop: CancellationToken,
) {
    let mut unreadable = UnreadableMessages::default();
    while let Some(batch) = next(&mut arriving, &stop).await {
        for frame in &batch.frames {
            let message = match PeerMessage::decode(frame.clone()) {
                Ok(message) => message,
                Err(error) => {
                    unreadable.note(batch.from, batch.incarnation, error);
                    continue;
                }
            };
            tokio::select! {
                () = to.hand_over(&batch, message) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

impl Messages {
    async fn hand_over(&self, batch: &Batch, message: PeerMessage) {
        let PeerMessage { to, body } = message;
        let from = batch.from;
        match to {
            Addressee::Formation => self.formed.answer(from, &body),
            Addressee::Administration => {
                let request = FromAdministration { from, frame: body };
                // Without it the node is stopping.
                let _gone = self.administration.send(request).await;
            }
            Addressee::Partition(_) | Addressee::Controller | Addressee::Shard(_) => {
                if let Some(group) = number_of(to) {
                    let process = batch.incarnation;
                    let message = FromPeer::Message { from, process, group, bytes: body };
                    self.shard.message(message).await;
                }
            }
        }
    }
}

/// Messages that were dropped because they cannot be read.
#[derive(Default)]
struct UnreadableMessages {
    /// Of whom the log has it already. A node that runs another version sends many.
    logged: BTreeSet<(NodeId, u64, &'static str)>,
}

impl UnreadableMessages {
    fn note(&mut self, from: NodeId, process: u64, error: Unreadable) {
        let reason = error.reason();
        UNREADABLE_MESSAGES.counter(&[reason]).increment(1);
        if self.logged.len() >= MAX_LOGGED {
            self.logged.clear();
        }
        if self.logged.insert((from, process, reason)) {
            tracing::warn!(from = from.0, %error, "messages of another node are dropped");
        }
    }
}

async fn next(arriving: &mut mpsc::Receiver<Batch>, stop: &CancellationToken) -> Option<Batch> {
    tokio::select! {
        batch = arriving.recv() => batch,
        () = stop.cancelled() => None,
    }
}

fn decode(from: NodeId, frame: &Bytes) -> Option<Packet> {
    match wire::decode(frame) {
        Ok(packet) if packet.from == from => Some(packet),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(from = from.0, %error, "a message cannot be read: is the other node newer?");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_sends_what_cannot_be_read_is_logged_once_per_reason() {
        let mut unreadable = UnreadableMessages::default();
        for _ in 0..3 {
            unreadable.note(NodeId(2), 1, Unreadable::Version(7));
            unreadable.note(NodeId(2), 1, Unreadable::TooShort);
        }
        unreadable.note(NodeId(2), 2, Unreadable::Version(7));
        assert_eq!(unreadable.logged.len(), 3);
        (0..5000).for_each(|process| unreadable.note(NodeId(2), process, Unreadable::Kind(9)));
        assert!(unreadable.logged.len() <= MAX_LOGGED);
    }
}
