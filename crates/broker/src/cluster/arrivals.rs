//! What other nodes send, sorted by group. Nothing that they send can stop the node: what cannot be
//! read is dropped and told.

use bytes::{Buf, Bytes};
use flintmq_consensus::{GroupId, NodeId, Packet};
use flintmq_transport::{Batch, wire};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::FromAdministration;
use super::admission::Answering;
use super::formation::FORMATION;
use crate::admin::ADMINISTRATION;
use crate::host::{FromPeer, ShardSender};

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
    while let Some(batch) = next(&mut arriving, &stop).await {
        for frame in &batch.frames {
            let Some((group, frame)) = split(frame.clone()) else {
                tracing::warn!(from = batch.from.0, "a frame is too short to be read");
                continue;
            };
            let from = batch.from;
            let sending = async {
                if group == FORMATION {
                    to.formed.answer(from, &frame);
                    true
                } else if group == ADMINISTRATION {
                    to.administration.send(FromAdministration { from, frame }).await.is_ok()
                } else {
                    let process = batch.incarnation;
                    let message = FromPeer::Message { from, process, group, bytes: frame };
                    to.shard.message(message).await
                }
            };
            tokio::select! {
                _ = sending => {}
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
