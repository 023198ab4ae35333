//! What other nodes send, sorted by group. Nothing that they send can stop the node: what cannot be
//! read is dropped and told.

use bytes::{Buf, Bytes};
use flintmq_consensus::{GroupId, NodeId, Packet};
use flintmq_transport::{Batch, wire};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::admission::Answering;
use super::forming::FORMATION;
use super::{FromPeer, Mailboxes};

/// Hands consensus' messages to their groups, beats to `beats`. A group that is busy loses some,
/// which consensus repeats.
pub(super) async fn sort(
    mut arriving: mpsc::Receiver<Batch>,
    mailboxes: Mailboxes,
    beats: Option<mpsc::Sender<Packet>>,
    stop: CancellationToken,
) {
    while let Some(batch) = next(&mut arriving, &stop).await {
        for frame in &batch.frames {
            let Some(mut packet) = decode(batch.from, frame) else { continue };
            for message in std::mem::take(&mut packet.messages) {
                if let Some(mailbox) = mailboxes.get(&message.group)
                    && message.from == batch.from
                {
                    let _lost = mailbox.try_send(FromPeer::Message(Box::new(message)));
                }
            }
            if packet.number > 0
                && let Some(beats) = &beats
            {
                let _late_is_as_bad_as_lost = beats.try_send(packet);
            }
        }
    }
}

/// Hands what gateways say to their groups, waiting for those that are busy: nothing may be left
/// out.
pub(super) async fn sort_gateway(
    mut arriving: mpsc::Receiver<Batch>,
    mailboxes: Mailboxes,
    formed: Answering,
    stop: CancellationToken,
) {
    while let Some(batch) = next(&mut arriving, &stop).await {
        for frame in &batch.frames {
            let Some((group, frame)) = split(frame.clone()) else {
                tracing::warn!(from = batch.from.0, "a frame is too short to be read");
                continue;
            };
            if group == FORMATION {
                formed.answer(batch.from, &frame);
                continue;
            }
            let Some(mailbox) = mailboxes.get(&group) else { continue };
            let said = FromPeer::Gateway { from: batch.from, frame };
            tokio::select! {
                sent = mailbox.send(said) => if sent.is_err() { continue },
                () = stop.cancelled() => return,
            }
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

pub(super) fn split(mut frame: Bytes) -> Option<(GroupId, Bytes)> {
    if frame.len() < 4 {
        return None;
    }
    Some((GroupId(frame.get_u32()), frame))
}
