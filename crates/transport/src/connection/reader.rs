//! Cuts a stream into frames, and hands those on that arrived together.

use std::io;
use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use flintmq_consensus::NodeId;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::Semaphore;

use crate::delivery::{Batch, Routes};
use crate::metrics::LaneMeter;
use crate::settings::MAX_SHARDS;
use crate::{Class, Lane};

/// Read at once at most; also the block that small frames share.
const BLOCK_BYTES: usize = 64 << 10;
/// A block with less room than this is not read into any more.
const MIN_ROOM: usize = 8 << 10;
/// A frame's buffer grows by this much at least, as its bytes arrive. A length alone claims no
/// memory.
const GROW_BYTES: usize = 1 << 20;
/// Counted for a frame besides its bytes, so that empty ones do not come for free.
const FRAME_OVERHEAD: usize = 64;
/// Frames of one batch at most.
const BATCH_FRAMES: usize = 4096;
/// Bytes before a frame that tell its length.
const LENGTH_BYTES: usize = 4;

/// Why a stream is not read any further. The connection is closed then, because a node that sends
/// such a thing cannot be understood.
#[derive(Debug, Error)]
pub(crate) enum StreamError {
    #[error("a stream of the peer broke: {0}")]
    Io(#[from] io::Error),
    #[error(
        "the peer opened a stream of a kind that this version does not know; both nodes must run \
         compatible releases class={class} shard={shard}"
    )]
    UnknownLane { class: u8, shard: u32 },
    #[error(
        "the peer sends a frame that is longer than allowed; give all nodes the same bounds \
         class={class} bytes={bytes} allowed={allowed}"
    )]
    TooLong { class: Class, bytes: usize, allowed: usize },
    #[error("the peer ended a stream in the middle of a frame")]
    CutShort,
}

/// Where a connection's frames come from and go to.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    pub(crate) from: NodeId,
    pub(crate) incarnation: u64,
    pub(crate) connection: u64,
    pub(crate) routes: Routes,
}

/// The bounds and the account of the lane's class.
pub(crate) struct Intake {
    pub(crate) frame_bytes: usize,
    pub(crate) unread_bytes: usize,
    /// One permit for each byte that may be unread, of all peers.
    pub(crate) room: Arc<Semaphore>,
    pub(crate) meter: LaneMeter,
}

/// Reads what a stream begins with.
pub(crate) async fn lane(stream: &mut (impl AsyncRead + Unpin)) -> Result<Lane, StreamError> {
    let class = stream.read_u8().await?;
    let shard = stream.read_u32_le().await?;
    match Class::of_code(class) {
        Some(class) if shard < u32::from(MAX_SHARDS) => Ok(Lane { class, shard }),
        _ => Err(StreamError::UnknownLane { class, shard }),
    }
}

/// Reads frames until the stream ends.
pub(crate) async fn run(
    mut stream: impl AsyncRead + Unpin,
    lane: Lane,
    destination: Destination,
    intake: Intake,
) -> Result<(), StreamError> {
    let mut buffer = BytesMut::new();
    loop {
        let (frames, missing) = cut(&mut buffer, lane.class, intake.frame_bytes)?;
        if !frames.is_empty() {
            deliver(frames, lane, &destination, &intake).await;
            continue;
        }
        make_room(&mut buffer, missing);
        if stream.read_buf(&mut buffer).await? == 0 {
            return if buffer.is_empty() { Ok(()) } else { Err(StreamError::CutShort) };
        }
    }
}

/// Takes all whole frames out of the buffer, as far as they fit a batch, and tells how many bytes
/// the next one lacks.
fn cut(
    buffer: &mut BytesMut,
    class: Class,
    allowed: usize,
) -> Result<(Vec<Bytes>, usize), StreamError> {
    let mut frames = Vec::new();
    loop {
        let Some(length) = buffer.first_chunk::<LENGTH_BYTES>() else {
            return Ok((frames, LENGTH_BYTES - buffer.len()));
        };
        let bytes = u32::from_le_bytes(*length) as usize;
        if bytes > allowed {
            return Err(StreamError::TooLong { class, bytes, allowed });
        }
        let whole = LENGTH_BYTES + bytes;
        if buffer.len() < whole || frames.len() == BATCH_FRAMES {
            return Ok((frames, whole.saturating_sub(buffer.len())));
        }
        buffer.advance(LENGTH_BYTES);
        frames.push(buffer.split_to(bytes).freeze());
    }
}

fn make_room(buffer: &mut BytesMut, missing: usize) {
    let room = buffer.capacity() - buffer.len();
    if missing > BLOCK_BYTES {
        // A long frame gets a buffer of its own, which at most doubles with what has arrived.
        buffer.reserve(missing.min(GROW_BYTES.max(buffer.len())));
    } else if room < missing.max(MIN_ROOM) {
        buffer.reserve(BLOCK_BYTES);
    }
}

pub(crate) async fn deliver(
    frames: Vec<Bytes>,
    lane: Lane,
    destination: &Destination,
    intake: &Intake,
) {
    let bytes: usize = frames.iter().map(Bytes::len).sum();
    intake.meter.received(frames.len(), bytes);
    // A batch that is larger than the whole account waits until nothing else is unread.
    let claimed = (bytes + frames.len() * FRAME_OVERHEAD).min(intake.unread_bytes);
    let claimed = u32::try_from(claimed).unwrap_or(u32::MAX);
    let Ok(room) = Arc::clone(&intake.room).acquire_many_owned(claimed).await else { return };
    let Destination { from, incarnation, connection, routes } = destination;
    let Some(route) = routes.of(lane) else { return };
    let batch = Batch {
        from: *from,
        incarnation: *incarnation,
        connection: *connection,
        lane,
        frames,
        _room: room,
    };
    // Without a receiver the frames are lost, as the user wished.
    let _ = route.send(batch).await;
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt as _;

    const LANE: Lane = Lane { class: Class::Append, shard: 1 };

    fn intake(frame_bytes: usize, unread_bytes: usize) -> Intake {
        let meter = LaneMeter::new(NodeId(2), Class::Append);
        Intake { frame_bytes, unread_bytes, room: Arc::new(Semaphore::new(unread_bytes)), meter }
    }

    fn destination(routes: Routes) -> Destination {
        Destination { from: NodeId(2), incarnation: 3, connection: 4, routes }
    }

    fn framed(frames: &[Vec<u8>]) -> Vec<u8> {
        let with_length = |frame: &Vec<u8>| {
            let length = (frame.len() as u32).to_le_bytes();
            [&length[..], frame].concat()
        };
        frames.iter().flat_map(with_length).collect()
    }

    proptest! {
        #[test]
        fn frames_arrive_whole_however_the_stream_is_cut(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5000), 0..40),
            pipe in 1_usize..3000,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (routes, mut inbound) = Routes::by_class(1);
                let (mut here, there) = tokio::io::duplex(pipe);
                let reading = tokio::spawn(run(
                    there, LANE, destination(routes), intake(5000, 8000),
                ));
                let bytes = framed(&frames);
                let writing = tokio::spawn(async move { here.write_all(&bytes).await });
                let mut arrived = Vec::new();
                while let Some(batch) = inbound.append.recv().await {
                    assert_eq!((batch.from, batch.lane), (NodeId(2), LANE));
                    arrived.extend(batch.frames.iter().map(|frame| frame.to_vec()));
                }
                writing.await.unwrap().unwrap();
                reading.await.unwrap().unwrap();
                prop_assert_eq!(arrived, frames);
                Ok(())
            })?;
        }
    }

    #[tokio::test]
    async fn a_frame_that_is_too_long_ends_the_stream_before_it_takes_memory() {
        let (routes, _inbound) = Routes::by_class(1);
        let bytes = u32::MAX.to_le_bytes();
        let error = run(&bytes[..], LANE, destination(routes), intake(1000, 1000)).await;
        assert!(matches!(error, Err(StreamError::TooLong { allowed: 1000, .. })), "{error:?}");
    }

    #[tokio::test]
    async fn a_length_alone_claims_little_memory() {
        let mut buffer = BytesMut::from(&(1_u32 << 29).to_le_bytes()[..]);
        let (_, missing) = cut(&mut buffer, Class::Bulk, 1 << 30).unwrap();
        make_room(&mut buffer, missing);
        assert!(buffer.capacity() <= 2 * GROW_BYTES, "{}", buffer.capacity());
    }

    #[tokio::test]
    async fn a_stream_that_ends_within_a_frame_is_broken() {
        let (routes, _inbound) = Routes::by_class(1);
        let bytes = &framed(&[vec![1; 10]])[..9];
        let result = run(bytes, LANE, destination(routes), intake(1000, 1000)).await;
        assert!(matches!(result, Err(StreamError::CutShort)), "{result:?}");
    }

    #[tokio::test]
    async fn batches_that_nobody_drops_hold_the_class_back() {
        let (routes, mut inbound) = Routes::by_class(100);
        let (mut here, there) = tokio::io::duplex(1 << 16);
        let intake = intake(1000, 200);
        let room = Arc::clone(&intake.room);
        tokio::spawn(run(there, LANE, destination(routes), intake));
        here.write_all(&framed(&[vec![0; 100]])).await.unwrap();
        let first = inbound.append.recv().await.unwrap();
        here.write_all(&framed(&[vec![0; 100]])).await.unwrap();
        assert_eq!(room.available_permits(), 200 - 164);
        assert!(inbound.append.try_recv().is_err());
        drop(first);
        assert_eq!(inbound.append.recv().await.unwrap().frames.len(), 1);
    }

    #[tokio::test]
    async fn streams_of_unknown_kinds_are_refused() {
        for head in [[9, 0, 0, 0, 0], [2, 64, 0, 0, 0]] {
            let lane = lane(&mut &head[..]).await;
            assert!(matches!(lane, Err(StreamError::UnknownLane { .. })), "{lane:?}");
        }
        assert_eq!(lane(&mut &[2, 1, 0, 0, 0][..]).await.unwrap(), LANE);
    }
}
