//! How much room the next read from a socket gets: little while a client is quiet, because there
//! may be thousands of them; much more than a packet for one that is busy, so that it costs few
//! system calls.

use bytes::BytesMut;

/// Enough for any request and its answer.
const LEAST: usize = 4 << 10;

/// More gains nothing: a socket's own buffer is hardly larger.
const MOST: usize = 256 << 10;

/// The room of one connection, learnt from what it sent last.
#[derive(Debug)]
pub(crate) struct ReadRoom {
    bytes: usize,
}

impl Default for ReadRoom {
    fn default() -> Self {
        Self { bytes: LEAST }
    }
}

impl ReadRoom {
    /// Makes room in the buffer, or gives back room that is not needed any more.
    pub(crate) fn prepare(&self, buffer: &mut BytesMut) {
        if buffer.is_empty() && buffer.capacity() > 2 * self.bytes {
            *buffer = BytesMut::new();
        }
        buffer.reserve(self.bytes);
    }

    /// Takes down how much came.
    pub(crate) fn learn(&mut self, read: usize) {
        if read >= self.bytes {
            self.bytes = (4 * self.bytes).min(MOST);
        } else if read < self.bytes / 8 {
            self.bytes = (self.bytes / 2).max(LEAST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_with_a_busy_client_and_shrinks_with_a_quiet_one() {
        let mut room = ReadRoom::default();
        let mut buffer = BytesMut::new();
        for _ in 0..5 {
            room.prepare(&mut buffer);
            let filled = buffer.capacity();
            room.learn(filled);
        }
        room.prepare(&mut buffer);
        assert!(buffer.capacity() >= MOST);
        for _ in 0..10 {
            room.learn(36);
            room.prepare(&mut buffer);
        }
        assert!(buffer.capacity() <= 2 * LEAST, "{}", buffer.capacity());
    }

    #[test]
    fn what_was_read_in_part_stays() {
        let room = ReadRoom::default();
        let mut buffer = BytesMut::with_capacity(MOST);
        buffer.extend_from_slice(b"half an event");
        room.prepare(&mut buffer);
        assert_eq!(&buffer[..], b"half an event");
    }
}
