//! Why bytes are no packet, or a packet cannot become bytes.

use flintmq_consensus::NodeId;
use thiserror::Error;

/// Why a packet was not encoded or decoded. Packets may be lost, so the receiver drops what it
/// cannot decode, counts it, and goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// Written by a program that is too new or too old for this one, or no packet at all.
    #[error(
        "a packet has a format that this version does not know; upgrade the nodes one release at \
         a time format={format} known={known}"
    )]
    Format {
        /// The format's number in the packet.
        format: u8,
        /// The only one that is known here.
        known: u8,
    },
    /// The bytes end in the middle of something.
    #[error("a packet ends too early; both nodes must run compatible releases reading={what}")]
    Truncated {
        /// What was being read.
        what: &'static str,
    },
    /// There are bytes behind the end.
    #[error(
        "a packet has bytes behind its end; both nodes must run compatible releases bytes={bytes}"
    )]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A value that has no meaning here.
    #[error(
        "a packet has a value that this version does not know; both nodes must run compatible \
         releases in={what} value={value}"
    )]
    Unknown {
        /// Where.
        what: &'static str,
        /// The value.
        value: u64,
    },
    /// The packet, or a message in it, claims to be between other nodes than it came from and went
    /// to.
    #[error(
        "a packet claims to be between other nodes than it travelled between; look into the sender \
         sender={sender} claimed_from={from} claimed_to={to}"
    )]
    OtherNodes {
        /// Whose connection it came on.
        sender: NodeId,
        /// Who it says it is from.
        from: NodeId,
        /// Who it says it is for.
        to: NodeId,
    },
    /// A list is longer than any that a healthy node sends.
    #[error("a list in a packet is too long list={what} length={length} allowed={allowed}")]
    TooMany {
        /// Which list.
        what: &'static str,
        /// Its length.
        length: u64,
        /// The longest that is taken.
        allowed: usize,
    },
}
