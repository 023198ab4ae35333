//! Writes one lane's frames to its stream, many at a time.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use quinn::{Connection, SendStream, WriteError};

use super::session::CODE_BROKEN;
use crate::pacing::Pacer;
use crate::send_queue::SendQueue;
use crate::{Class, Frame, Lane};

/// Bytes of one write, about: enough to fill many packets, little enough that newer urgent frames
/// can still push out older ones.
const BATCH_BYTES: usize = 128 << 10;
/// Pieces shorter than this are copied together. A stream looks through all its pieces for every
/// packet that it sends, so many small ones cost more than their copy.
const GATHER_BELOW: usize = 4 << 10;

/// Writes until the queue ends, and then waits until the peer has everything. A stream that breaks
/// ends the connection: without it, the lane would be dead and nobody would know.
pub(crate) async fn run(
    connection: Connection,
    lane: Lane,
    queue: Arc<SendQueue>,
    pacer: Arc<Pacer>,
) {
    if let Err(error) = write(&connection, lane, &queue, &pacer).await {
        // Nothing new if it is the connection that was lost.
        let text = format!("a stream cannot be written to: {error}");
        connection.close(CODE_BROKEN.into(), text.as_bytes());
    }
}

async fn write(
    connection: &Connection,
    lane: Lane,
    queue: &SendQueue,
    pacer: &Pacer,
) -> Result<(), WriteError> {
    let mut stream = open(connection, lane).await?;
    while let Some(frames) = queue.next(BATCH_BYTES).await {
        let bytes = frames.iter().map(Frame::len).sum();
        if lane.class == Class::Bulk {
            pacer.pass(bytes).await;
        }
        let count = frames.len();
        let mut chunks = gather(frames);
        stream.write_all_chunks(&mut chunks).await?;
        queue.meter().sent(count, bytes);
    }
    if stream.finish().is_ok() {
        // Either it has all, or it is gone: there is nothing more to do.
        let _ = stream.stopped().await;
    }
    Ok(())
}

/// What a stream begins with: its class and its shard.
async fn open(connection: &Connection, lane: Lane) -> Result<SendStream, WriteError> {
    let mut stream = connection.open_uni().await?;
    stream.set_priority(lane.class.priority())?;
    let mut head = [lane.class.code(), 0, 0, 0, 0];
    head[1..].copy_from_slice(&lane.shard.to_le_bytes());
    stream.write_all(&head).await?;
    Ok(stream)
}

/// Frames as they stand in a stream: a length of four bytes, little-endian, and the frame.
fn gather(frames: Vec<Frame>) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    let mut small = BytesMut::new();
    for frame in frames {
        // The queue refuses what is longer than 1 GiB.
        small.put_u32_le(frame.len() as u32);
        for piece in frame.into_pieces() {
            if piece.len() < GATHER_BELOW {
                small.extend_from_slice(&piece);
            } else {
                if !small.is_empty() {
                    chunks.push(small.split().freeze());
                }
                chunks.push(piece);
            }
        }
    }
    if !small.is_empty() {
        chunks.push(small.freeze());
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_are_gathered_and_large_ones_are_not_copied() {
        let large = Bytes::from(vec![1; GATHER_BELOW]);
        let frames = vec![
            Frame::from(vec![2; 10]),
            Frame::from(Bytes::new()),
            Frame::new(Bytes::from(vec![3; 5]), vec![large.clone(), Bytes::from(vec![4; 3])]),
        ];
        let chunks = gather(frames);
        let lengths: Vec<usize> = chunks.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [4 + 10 + 4 + 4 + 5, GATHER_BELOW, 3]);
        assert_eq!(chunks.get(1).map(|chunk| chunk.as_ptr()), Some(large.as_ptr()));
    }
}
