//! What controllers of different nodes send each other.
//!
//! A message is a version byte and the rest in JSON. A receiver counts and drops what it cannot
//! read: the sender repeats what it still needs, and gives up at its deadline.

use bytes::Bytes;
use flintmq_consensus::Index;
use serde::{Deserialize, Serialize};

use crate::command::MetadataCommand;

/// The version that this program writes and reads.
const VERSION: u8 = 1;

/// One message. `process` is the number of the process that asks, also in the answer: an answer to
/// an earlier process of the same node is none to this one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ControllerMessage {
    /// To the leader: make these changes. There is no answer to one that is taken: it comes to the
    /// sender with the log.
    Forward {
        /// The asking process.
        process: u64,
        /// It does not wait for changes with smaller numbers.
        oldest: u64,
        /// In the order of their numbers.
        changes: Vec<ForwardedChange>,
    },
    /// To the sender of changes: these were not taken, send them again.
    NotTaken {
        /// The asking process.
        process: u64,
        /// The changes.
        numbers: Vec<u64>,
    },
    /// To the leader: what is committed now?
    Read {
        /// The asking process.
        process: u64,
        /// The process's own count.
        number: u64,
    },
    /// Answer to `Read`.
    ReadAt {
        /// The asking process.
        process: u64,
        /// The read's number.
        number: u64,
        /// All that was committed when the leader was asked is at or below it; none: ask again, the
        /// node does not lead.
        index: Option<Index>,
    },
}

/// A change on its way to the leader.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ForwardedChange {
    /// Its number among those of the asking process.
    pub(crate) number: u64,
    /// What to do.
    pub(crate) commands: Vec<MetadataCommand>,
}

impl ControllerMessage {
    /// As it is sent.
    pub(crate) fn to_bytes(&self) -> Bytes {
        let mut bytes = vec![VERSION];
        // Plain data and a growing buffer: nothing can fail.
        let _infallible = serde_json::to_writer(&mut bytes, self);
        Bytes::from(bytes)
    }

    /// None for another version, or for a message that this version does not know.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        if *version != VERSION {
            return None;
        }
        serde_json::from_slice(rest).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_and_unknown_ones_are_none() {
        let commands = vec![MetadataCommand::RemoveDomain { name: "d".into(), only_unused: true }];
        let changes = vec![ForwardedChange { number: 4, commands }];
        let message = ControllerMessage::Forward { process: 9, oldest: 3, changes };
        let bytes = message.to_bytes();
        assert_eq!(ControllerMessage::from_bytes(&bytes), Some(message));
        let mut newer = bytes.to_vec();
        newer[0] = 2;
        assert_eq!(ControllerMessage::from_bytes(&newer), None);
        assert_eq!(ControllerMessage::from_bytes(b"\x01{\"unheard_of\":{}}"), None);
        assert_eq!(ControllerMessage::from_bytes(b"{\"Change\":{}}"), None, "an earlier version");
        assert_eq!(ControllerMessage::from_bytes(b""), None);
    }
}
