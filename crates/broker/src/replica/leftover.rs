//! Gives back the disk space of a group that this node does not hold any more.
//!
//! What a replica has acknowledged may be nowhere else until its group's leader says that nobody
//! needs it. From then on log and state are dropped; the hard state stays, so that the node never
//! forgets what it voted for, and may be taken back with an empty log.

use std::time::{Duration, Instant};

use flintmq_consensus::{Core, Input, LogPosition, LogTerms, Restored};

use super::at_risk::AtRisk;
use super::retention::Retention;
use super::{Replaced, Replica, ReplicaError};

/// How long a replica is left alone after it left the group: what was under way comes to its end.
pub(super) const SETTLED: Duration = Duration::from_secs(5);

/// Numbers the write that drops everything; no core counts so far.
pub(super) const DROPPING: u64 = u64::MAX;

/// A replica that is no part of its group.
#[derive(Debug, Default)]
pub(super) struct Leftover {
    /// Since when.
    pub(super) since: Option<Instant>,
    /// Everything is being dropped; messages are lost meanwhile.
    pub(super) dropping: bool,
}

impl Replica {
    /// Whether this node has data of a group that it has left for some time. To be asked now and
    /// then.
    pub(crate) fn is_leftover(&mut self) -> bool {
        if self.is_member() || self.leftover.dropping {
            self.leftover.since = None;
            return false;
        }
        let since = *self.leftover.since.get_or_insert_with(Instant::now);
        since.elapsed() >= SETTLED && self.core.last().index > 0
    }

    /// Whether this node leads and nobody who has left the group is needed any more.
    pub(crate) fn is_settled(&self) -> bool {
        self.core.change_complete()
    }

    /// Drops log and state, as the group's leader says that nobody needs them; not while anything
    /// is under way.
    ///
    /// # Errors
    /// The store takes no more writes.
    pub(crate) fn drop_leftover(&mut self) -> Result<(), ReplicaError> {
        let quiet = self.waiting.is_empty()
            && self.staging.is_none()
            && self.core.is_hard_state_synced()
            && self.core.synced_index() >= self.core.last().index
            && !self.core.hard_state().void;
        if !quiet || !self.is_leftover() {
            return Ok(());
        }
        tracing::info!(group = self.group.0, "drops what it has of a group that it has left");
        self.leftover.dropping = true;
        let dropped = self.store.reset(self.group, DROPPING);
        dropped.map_err(|refused| self.refused(refused.reason))
    }

    /// Everything is dropped: begins anew, with nothing but what was voted for.
    pub(super) fn begin_anew(&mut self) -> Result<(), ReplicaError> {
        let restored = Restored {
            group: self.group,
            creation: self.core.creation(),
            node: self.core.node(),
            hard_state: self.core.hard_state().clone(),
            log: LogTerms::default(),
            applied: 0,
            recovering: self.core.recovering(),
        };
        let members = self.core.config().members();
        let down: Vec<_> = members.into_iter().filter(|node| !self.core.is_up(*node)).collect();
        self.core = Core::new(restored, self.settings.clone(), self.seed)?;
        self.unapplied.clear();
        self.holes.clear();
        self.applied = LogPosition::default();
        self.at_risk = AtRisk::default();
        self.retention = Retention::default();
        self.replaced = Some(Replaced::Emptied);
        self.leftover = Leftover::default();
        self.step(Input::Started)?;
        down.into_iter().try_for_each(|peer| self.step(Input::PeerDown { peer }))
    }
}
