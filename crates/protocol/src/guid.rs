//! Message GUIDs: the identity of a message in PUT, ACK, PUSH and CONFIRM, and for de-duplication.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The 16 bytes that identify a message. A broker treats them as opaque; all zero means "none".
///
/// | offset | bits | field |
/// | --- | --- | --- |
/// | 0 | 2 | version, 1 |
/// | 0 | 22 | counter, wraps |
/// | 3 | 56 | nanoseconds since the generator was made |
/// | 10 | 48 | client id |
///
/// ```
/// use flintmq_protocol::guid::MessageGuid;
/// let guid: MessageGuid = "400000000000002D3835629556B3F9F7".parse()?;
/// assert_eq!(guid.to_string(), "400000000000002D3835629556B3F9F7");
/// assert_eq!(guid.client_id().to_string(), "629556B3F9F7");
/// # Ok::<(), flintmq_protocol::guid::ParseGuidError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MessageGuid(pub [u8; 16]);

impl MessageGuid {
    /// The GUID that stands for "none".
    pub const UNSET: Self = Self([0; 16]);

    /// Whether this is [`UNSET`](Self::UNSET).
    #[must_use]
    pub fn is_unset(&self) -> bool {
        *self == Self::UNSET
    }

    /// The version in the first two bits; 1 in every generated GUID.
    #[must_use]
    pub const fn version(&self) -> u8 {
        self.0[0] >> 6
    }

    /// The 22-bit counter.
    #[must_use]
    pub const fn counter(&self) -> u32 {
        u32::from_be_bytes([0, self.0[0] & 0x3f, self.0[1], self.0[2]])
    }

    /// The 56-bit timer: nanoseconds since the generator was made.
    #[must_use]
    pub const fn timer_ns(&self) -> u64 {
        let g = &self.0;
        u64::from_be_bytes([0, g[3], g[4], g[5], g[6], g[7], g[8], g[9]])
    }

    /// The id of the client (or broker) that made the GUID.
    #[must_use]
    pub const fn client_id(&self) -> ClientId {
        let g = &self.0;
        ClientId([g[10], g[11], g[12], g[13], g[14], g[15]])
    }

    /// What the GUID area of a PUT holds when the client makes no GUIDs: a 24-bit correlation id in
    /// bytes 1 to 3. Higher bits of `id` are dropped.
    #[must_use]
    pub const fn from_correlation_id(id: u32) -> Self {
        let [_, a, b, c] = id.to_be_bytes();
        Self([0, a, b, c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    }

    /// The correlation id in the GUID area of a PUT from a client that makes no GUIDs; 0 means "no
    /// ACK wanted".
    #[must_use]
    pub const fn correlation_id(&self) -> u32 {
        u32::from_be_bytes([0, self.0[1], self.0[2], self.0[3]])
    }
}

impl fmt::Display for MessageGuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for MessageGuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MessageGuid {
    type Err = ParseGuidError;

    fn from_str(text: &str) -> Result<Self, ParseGuidError> {
        parse_hex(text).map(Self)
    }
}

/// Six bytes that are unique to one session: the end of every GUID it makes, announced in
/// negotiation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ClientId(pub [u8; 6]);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ClientId {
    type Err = ParseGuidError;

    fn from_str(text: &str) -> Result<Self, ParseGuidError> {
        parse_hex(text).map(Self)
    }
}

/// Makes GUIDs that never repeat as long as the client id is unique and fewer than 4 million are
/// made in the same nanosecond.
///
/// ```
/// use flintmq_protocol::guid::{ClientId, GuidGenerator};
/// let mut generator = GuidGenerator::new(ClientId([1, 2, 3, 4, 5, 6]));
/// let guid = generator.next_guid(1_000);
/// assert_eq!((guid.version(), guid.counter(), guid.timer_ns()), (1, 0, 1_000));
/// assert_ne!(guid, generator.next_guid(1_000));
/// ```
#[derive(Debug, Clone)]
pub struct GuidGenerator {
    client_id: ClientId,
    counter: u32,
}

impl GuidGenerator {
    /// A generator for the session with this id.
    #[must_use]
    pub const fn new(client_id: ClientId) -> Self {
        Self { client_id, counter: 0 }
    }

    /// The id in every GUID of this generator.
    #[must_use]
    pub const fn client_id(&self) -> ClientId {
        self.client_id
    }

    /// The next GUID. `elapsed_ns` is the time since the generator was made, in nanoseconds, from a
    /// clock that does not go back; its low 56 bits (2.2 years) are used.
    pub fn next_guid(&mut self, elapsed_ns: u64) -> MessageGuid {
        let counter = self.counter & COUNTER_MASK;
        self.counter = counter.wrapping_add(1);
        let mut guid = [0; 16];
        guid[..3].copy_from_slice(&(VERSION << 22 | counter).to_be_bytes()[1..]);
        guid[3..10].copy_from_slice(&elapsed_ns.to_be_bytes()[1..]);
        guid[10..].copy_from_slice(&self.client_id.0);
        MessageGuid(guid)
    }
}

/// Text that is not a GUID or client id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected {digits} hexadecimal digits: text={text:?}")]
pub struct ParseGuidError {
    /// How many digits were expected.
    pub digits: usize,
    /// The beginning of the text.
    pub text: String,
}

const VERSION: u32 = 1;
const COUNTER_MASK: u32 = (1 << 22) - 1;

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseGuidError> {
    let error = || ParseGuidError { digits: 2 * N, text: text.chars().take(64).collect() };
    if text.len() != 2 * N {
        return Err(error());
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        let (high, low) = digit(pair[0]).zip(digit(pair[1])).ok_or_else(error)?;
        *byte = (high << 4 | low) as u8;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_where_the_format_puts_them() {
        let guid: MessageGuid = "400001000000006953510E42724AC777".parse().unwrap();
        assert_eq!(guid.version(), 1);
        assert_eq!(guid.counter(), 1);
        assert_eq!(guid.timer_ns(), 6_902_609);
        assert_eq!(guid.client_id(), "0E42724AC777".parse().unwrap());
    }

    #[test]
    fn generated_guids_wrap_and_differ() {
        let mut generator = GuidGenerator { client_id: ClientId([9; 6]), counter: COUNTER_MASK };
        let last = generator.next_guid(u64::MAX);
        assert_eq!((last.counter(), last.timer_ns()), (COUNTER_MASK, (1 << 56) - 1));
        assert_eq!(generator.next_guid(5).counter(), 0);
        assert_eq!(last.version(), 1);
    }

    #[test]
    fn text_in_either_case_is_read_and_anything_else_refused() {
        let lower: MessageGuid = "400001000000006953510e42724ac777".parse().unwrap();
        assert_eq!(lower.to_string(), "400001000000006953510E42724AC777");
        for bad in ["", "40", "400001000000006953510e42724ac77g", "é00001000000006953510e42724ac77"]
        {
            assert!(bad.parse::<MessageGuid>().is_err(), "{bad}");
        }
    }

    #[test]
    fn correlation_ids_keep_24_bits() {
        let area = MessageGuid::from_correlation_id(0xff01_0203);
        assert_eq!(area.correlation_id(), 0x01_0203);
        assert_eq!(area.0[0], 0);
        assert!(MessageGuid::from_correlation_id(0).is_unset());
    }
}
