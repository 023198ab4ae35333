//! Cutting a byte stream into events.
//!
//! The stream has no marker to find the next event by, so a length word that cannot be right ends
//! the connection.

use bytes::BytesMut;
use thiserror::Error;

use crate::event::{EVENT_HEADER_SIZE, Frame, MAX_EVENT_SIZE, MAX_EVENT_SIZE_BEFORE_NEGOTIATION};

/// Cuts received bytes into whole events without copying them.
///
/// Read from the socket into one [`BytesMut`] and call [`decode`](Self::decode) until it gives
/// `None`:
///
/// ```
/// use bytes::BytesMut;
/// use flintmq_protocol::event::{EventType, HEARTBEAT_REQUEST};
/// use flintmq_protocol::frame::FrameDecoder;
///
/// let mut received = BytesMut::from(&HEARTBEAT_REQUEST[..]);
/// let mut decoder = FrameDecoder::before_negotiation();
/// let frame = decoder.decode(&mut received)?.expect("a whole event was received");
/// assert_eq!(frame.parse()?.event_type(), EventType::HeartbeatRequest);
/// assert!(decoder.decode(&mut received)?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct FrameDecoder {
    max_event_size: usize,
}

impl FrameDecoder {
    /// A decoder that accepts events of up to `max_event_size` bytes, at most [`MAX_EVENT_SIZE`].
    #[must_use]
    pub fn new(max_event_size: usize) -> Self {
        Self { max_event_size: max_event_size.clamp(EVENT_HEADER_SIZE, MAX_EVENT_SIZE) }
    }

    /// A decoder for a peer that has not negotiated: events of up to 64 KiB.
    #[must_use]
    pub fn before_negotiation() -> Self {
        Self::new(MAX_EVENT_SIZE_BEFORE_NEGOTIATION)
    }

    /// Changes the largest accepted size, for the events that have not been decoded yet.
    pub fn set_max_event_size(&mut self, max_event_size: usize) {
        *self = Self::new(max_event_size);
    }

    /// The largest accepted event in bytes.
    #[must_use]
    pub const fn max_event_size(&self) -> usize {
        self.max_event_size
    }

    /// Splits the next whole event off the front of `received`, or gives `None` when more bytes are
    /// needed.
    ///
    /// When it gives `None` it has made room for the next read: never for more than was received so
    /// far plus 64 KiB, whatever length the peer claims.
    ///
    /// # Errors
    /// The stream is lost; close the connection. `received` is left as it was.
    pub fn decode(&mut self, received: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(&word) = received.first_chunk() else {
            received.reserve(RESERVE_STEP);
            return Ok(None);
        };
        let word = u32::from_be_bytes(word);
        let length = word as usize;
        if word >> 31 != 0 {
            return Err(FrameError::Fragment { word });
        }
        if length < EVENT_HEADER_SIZE {
            return Err(FrameError::TooShort { length });
        }
        if length > self.max_event_size {
            return Err(FrameError::TooLong { length, limit: self.max_event_size });
        }
        if received.len() < length {
            let missing = length - received.len();
            received.reserve(missing.min(received.len().max(RESERVE_STEP)));
            return Ok(None);
        }
        Ok(Frame::new(received.split_to(length).freeze()))
    }
}

const RESERVE_STEP: usize = 64 << 10;

/// Why a byte stream cannot be cut into events any further. The only way on is to close the
/// connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The fragment bit is set, which no peer does: the peer speaks another protocol or the stream
    /// is out of step.
    #[error("not an event: the fragment bit is set, close the connection: word={word:#010x}")]
    Fragment {
        /// The length word as found.
        word: u32,
    },
    /// Shorter than the header of an event.
    #[error("event is shorter than its header, close the connection: length={length}")]
    TooShort {
        /// The length found, in bytes.
        length: usize,
    },
    /// Longer than this side accepts.
    #[error("event is larger than accepted, close the connection: length={length} limit={limit}")]
    TooLong {
        /// The length found, in bytes.
        length: usize,
        /// The largest accepted length, in bytes.
        limit: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_streams_are_named() {
        let mut decoder = FrameDecoder::new(100);
        let mut decode = |bytes: &[u8]| decoder.decode(&mut BytesMut::from(bytes));
        assert_eq!(decode(&[0, 0, 0, 4]), Err(FrameError::TooShort { length: 4 }));
        assert_eq!(decode(&[0, 0, 0, 0]), Err(FrameError::TooShort { length: 0 }));
        assert_eq!(
            decode(&[0x80, 0, 0, 8, 0x41, 2, 0, 0]),
            Err(FrameError::Fragment { word: 0x8000_0008 })
        );
        assert_eq!(decode(&[0, 0, 0, 101]), Err(FrameError::TooLong { length: 101, limit: 100 }));
        assert_eq!(decode(&[0, 0, 0]), Ok(None));
    }

    #[test]
    fn a_claimed_length_reserves_no_memory() {
        let mut decoder = FrameDecoder::new(MAX_EVENT_SIZE);
        let mut received = BytesMut::from(&(MAX_EVENT_SIZE as u32).to_be_bytes()[..]);
        assert_eq!(decoder.decode(&mut received), Ok(None));
        assert!(received.capacity() < 4 * RESERVE_STEP, "{}", received.capacity());
    }

    #[test]
    fn limits_stay_within_the_format() {
        assert_eq!(FrameDecoder::new(usize::MAX).max_event_size(), MAX_EVENT_SIZE);
        assert_eq!(FrameDecoder::new(0).max_event_size(), EVENT_HEADER_SIZE);
        let mut decoder = FrameDecoder::before_negotiation();
        assert_eq!(decoder.max_event_size(), MAX_EVENT_SIZE_BEFORE_NEGOTIATION);
        decoder.set_max_event_size(1 << 20);
        assert_eq!(decoder.max_event_size(), 1 << 20);
    }
}
