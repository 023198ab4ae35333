//! What is carried: opaque bytes, in a few pieces on the way out and in one piece on arrival.

use bytes::Bytes;

/// One frame to send: a head and any number of further pieces, which arrive as if they had been
/// one.
///
/// Pieces keep a frame's payloads out of every copy: large ones are handed to the network as they
/// are, small ones are gathered first because many tiny pieces cost more than their copy.
///
/// ```
/// use bytes::Bytes;
/// use flintmq_transport::Frame;
///
/// let mut frame = Frame::from(Bytes::from_static(b"head "));
/// frame.push(Bytes::from_static(b"and payload"));
/// assert_eq!(frame.len(), 16);
/// assert_eq!(frame.to_bytes(), "head and payload");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    head: Bytes,
    rest: Vec<Bytes>,
    len: usize,
}

impl Frame {
    /// A frame of a head and what follows it.
    #[must_use]
    pub fn new(head: Bytes, rest: Vec<Bytes>) -> Self {
        let len = head.len() + rest.iter().map(Bytes::len).sum::<usize>();
        Self { head, rest, len }
    }

    /// Adds one more piece at the end.
    pub fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        self.rest.push(piece);
    }

    /// Bytes of all pieces together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is not a single byte in it; such a frame is carried like any other.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces in their order.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.head).chain(&self.rest)
    }

    /// The pieces in their order, without a copy.
    pub(crate) fn into_pieces(self) -> impl Iterator<Item = Bytes> {
        std::iter::once(self.head).chain(self.rest)
    }

    /// The frame as the receiver sees it. Copies, unless there is only one piece.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        if self.rest.is_empty() {
            return self.head.clone();
        }
        let mut joined = Vec::with_capacity(self.len);
        for piece in self.pieces() {
            joined.extend_from_slice(piece);
        }
        Bytes::from(joined)
    }
}

impl From<Bytes> for Frame {
    fn from(head: Bytes) -> Self {
        Self::new(head, Vec::new())
    }
}

impl From<Vec<u8>> for Frame {
    fn from(head: Vec<u8>) -> Self {
        Self::from(Bytes::from(head))
    }
}
