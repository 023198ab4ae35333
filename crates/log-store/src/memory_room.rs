//! What the in-memory store lets wait, as the real one's inbox does, and what its reads refuse.

use crate::{ReadError, RefusedReason};
use flintmq_consensus::GroupId;

/// Whether a request brings new messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// It makes the disk fuller.
    Growing,
    /// It helps to get rid of what is there: it has a quarter of the room on top.
    Relief,
    /// It must not wait behind messages: it has places of its own, which no setting takes away.
    Urgent,
}

/// Places of requests that must not wait behind messages.
const URGENT_PLACES: usize = 65_536;

/// The bounds of what waits, and what waits.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) max_requests: usize,
    pub(crate) max_bytes: usize,
    requests: usize,
    bytes: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { max_requests: 65_536, max_bytes: 256 << 20, requests: 0, bytes: 0 }
    }
}

impl Room {
    /// Takes room for a request of so many bytes.
    pub(crate) fn take(&mut self, class: Class, size: usize) -> Result<(), RefusedReason> {
        let limit = match class {
            Class::Growing => self.max_bytes,
            Class::Relief => self.max_bytes + self.max_bytes / 4,
            Class::Urgent => usize::MAX,
        };
        if size > limit {
            return Err(RefusedReason::TooLarge { bytes: size, limit });
        }
        let places = match class {
            Class::Growing | Class::Relief => self.max_requests,
            Class::Urgent => self.max_requests.saturating_add(URGENT_PLACES),
        };
        if self.requests >= places || self.bytes.saturating_add(size) > limit {
            return Err(RefusedReason::Full);
        }
        self.requests += 1;
        self.bytes += size;
        Ok(())
    }

    /// A request of so many bytes is done.
    pub(crate) fn give_back(&mut self, size: usize) {
        self.requests -= 1;
        self.bytes -= size;
    }

    /// What waited is lost.
    pub(crate) fn clear(&mut self) {
        (self.requests, self.bytes) = (0, 0);
    }

    /// True when those who were refused should try again.
    pub(crate) fn is_half_empty(&self) -> bool {
        self.requests <= self.max_requests / 2 && self.bytes <= self.max_bytes / 2
    }
}

/// What reads are refused.
#[derive(Debug)]
pub(crate) struct Reads {
    pub(crate) max_snapshots: usize,
    pub(crate) fail: bool,
}

impl Default for Reads {
    fn default() -> Self {
        Self { max_snapshots: 16, fail: false }
    }
}

impl Reads {
    pub(crate) fn check(&self, group: GroupId) -> Result<(), ReadError> {
        if !self.fail {
            return Ok(());
        }
        Err(ReadError::Failed { group, detail: "reads are made to fail".to_owned() })
    }
}
