//! What all groups of a shard share, beside the consensus itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use flintmq_consensus::{ConfigRegister, GroupId, NodeId, Time};
use flintmq_log_store::LogStore;

use crate::assignment::Assignment;
use crate::clock::GroupTime;
use crate::effect::{Notice, ShardError, Told};
use crate::fitness::Fitness;
use crate::input::{FromStore, StoreEvent, StoreEvents};
use crate::network::Network;
use crate::peers::Peers;

/// The way out, the time, and what the node knows besides its groups.
pub(crate) struct Host {
    pub(crate) node: NodeId,
    /// Whether the cluster has other nodes at all.
    pub(crate) clustered: bool,
    pub(crate) store: Arc<dyn LogStore>,
    pub(crate) events: StoreEvents,
    pub(crate) network: Box<dyn Network + Send>,
    pub(crate) now: Time,
    pub(crate) time: GroupTime,
    pub(crate) fitness: Fitness,
    pub(crate) peers: Peers,
    pub(crate) assignment: Arc<Assignment>,
    /// Whether the controller is led: otherwise the assignment may be outdated.
    pub(crate) controller_led: bool,
    /// Groups that have a new member which catches up.
    pub(crate) catching_up: BTreeSet<GroupId>,
    /// What the host of the shard is to do.
    pub(crate) told: Vec<Told>,
    /// For groups that are not there.
    pub(crate) no_members: ConfigRegister,
    pub(crate) failure: Option<ShardError>,
}

impl Host {
    pub(crate) fn tell(&mut self, told: Told) {
        self.told.push(told);
    }

    pub(crate) fn notice(&mut self, group: GroupId, notice: Notice) {
        self.told.push(Told::Notice { group, notice });
    }

    /// The node cannot go on. The first failure says most.
    pub(crate) fn fail(&mut self, error: ShardError) {
        self.failure.get_or_insert(error);
    }

    /// Where the store's answers about a group go.
    pub(crate) fn teller(&self, group: GroupId) -> impl Fn(StoreEvent) + Send + 'static {
        let events = Arc::clone(&self.events);
        move |event| events(FromStore::Group { group, event })
    }
}
