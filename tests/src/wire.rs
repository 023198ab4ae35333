//! A client made by hand: it can send any bytes, also those that no proper client sends.
//!
//! It knows the eight bytes of an event's header and nothing of what is inside; the layouts are
//! those of BlazingMQ's protocol, written down here a second time on purpose, so that a mistake in
//! `flintmq-protocol` cannot hide in its own tests.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use crate::wait::LIMIT;

/// Event type of control messages.
pub const CONTROL: u8 = 1;
/// Event type of published messages.
pub const PUT: u8 = 2;
/// Event type of confirms.
pub const CONFIRM: u8 = 3;
/// Event type of delivered messages.
pub const PUSH: u8 = 4;
/// Event type of acknowledgements.
pub const ACK: u8 = 5;
/// Event type of a heartbeat request.
pub const HEARTBEAT_REQUEST: u8 = 11;
/// Event type of the answer to it.
pub const HEARTBEAT_RESPONSE: u8 = 12;

/// One event as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEvent {
    /// Its type.
    pub kind: u8,
    /// The byte that names the encoding of a control message.
    pub encoding: u8,
    /// What follows the header.
    pub body: Vec<u8>,
}

/// A connection over which events come whole and go as they are.
#[derive(Debug)]
pub struct RawClient {
    stream: TcpStream,
}

impl RawClient {
    /// Takes over a connection.
    ///
    /// # Panics
    /// When the connection's limits cannot be set.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(LIMIT)).expect("a time limit");
        stream.set_write_timeout(Some(LIMIT)).expect("a time limit");
        stream.set_nodelay(true).expect("no delay");
        Self { stream }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection is closed, which a bad client has to expect.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next event; `None` when the broker has closed the connection.
    ///
    /// # Panics
    /// When what comes is not an event, or nothing comes in time.
    #[track_caller]
    pub fn receive(&mut self) -> Option<RawEvent> {
        let mut header = [0; 8];
        if !self.fill(&mut header) {
            return None;
        }
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let begin = usize::from(header[5]) * 4;
        assert!(header[4] >> 6 == 1 && begin >= 8 && length >= begin, "bad header: {header:?}");
        assert!(length <= 66 << 20, "the broker must not send such an event: length={length}");
        let mut rest = vec![0; length - 8];
        if !self.fill(&mut rest) {
            return None;
        }
        Some(RawEvent {
            kind: header[4] & 0x3f,
            encoding: header[6],
            body: rest.split_off(begin - 8),
        })
    }

    /// Requires that the broker closes the connection; what it says before is returned.
    ///
    /// # Panics
    /// When it is still open after [`LIMIT`].
    #[track_caller]
    pub fn expect_closed(mut self) -> Vec<RawEvent> {
        let began = Instant::now();
        let mut said = Vec::new();
        while let Some(event) = self.receive() {
            assert!(began.elapsed() < LIMIT, "the broker goes on talking: {said:?}");
            said.push(event);
        }
        said
    }

    /// The socket itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    #[track_caller]
    fn fill(&mut self, buffer: &mut [u8]) -> bool {
        match self.stream.read_exact(buffer) {
            Ok(()) => true,
            Err(error) => match error.kind() {
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                    false
                }
                _ => panic!("neither an event nor the end of the connection came: {error}"),
            },
        }
    }
}

/// A whole event around `body`.
///
/// # Panics
/// When the body is too long for the length field.
pub fn event(kind: u8, encoding: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 8).expect("a test's event is small");
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend([0x40 | kind, 2, encoding, 0]);
    bytes.extend(body);
    bytes
}

/// Appends the padding to whole words: one to four bytes, each with their number.
pub fn pad(bytes: &mut Vec<u8>) {
    let count = 4 - bytes.len() % 4;
    bytes.resize(bytes.len() + count, u8::try_from(count).unwrap_or_default());
}

/// The body of a PUT event with one message without properties: the 16 bytes are a GUID or a
/// correlation id.
///
/// # Panics
/// When the payload is too long for the header's field.
pub fn put_message(queue: u32, identity: [u8; 16], payload: &[u8]) -> Vec<u8> {
    let mut data = payload.to_vec();
    pad(&mut data);
    let words = u32::try_from(9 + data.len() / 4).expect("a test's message is small");
    let mut bytes = (1u32 << 28 | words).to_be_bytes().to_vec();
    bytes.extend(9u32.to_be_bytes());
    bytes.extend(queue.to_be_bytes());
    bytes.extend(identity);
    bytes.extend(crc32c::crc32c(payload).to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(data);
    bytes
}

/// Bytes written as hexadecimal digits.
///
/// # Panics
/// When they are not.
#[track_caller]
pub fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits
        .chars()
        .filter(|letter| !letter.is_whitespace())
        .map(|letter| u8::try_from(letter.to_digit(16).expect("a digit")).expect("below 16"))
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_laid_out_as_the_official_client_does() {
        let guid = hex("400000000000002d3835629556b3f9f7");
        let body = put_message(0, guid.try_into().expect("16 bytes"), b"hello");
        assert_eq!(
            event(PUT, 0, &body),
            hex("00000034420200001000000b0000000900000000400000000000002d3835629556b3f9f7
                 9a71bb4c0000000068656c6c6f030303")
        );
    }

    #[test]
    fn padding_is_never_empty() {
        let mut bytes = vec![9; 4];
        pad(&mut bytes);
        assert_eq!(bytes, [9, 9, 9, 9, 4, 4, 4, 4]);
    }
}
