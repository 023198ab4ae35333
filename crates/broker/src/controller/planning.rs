//! What the controller's leader sees to by itself: that the roster says with whom the cluster
//! began, and that everything has its place.

use std::sync::Arc;
use std::time::Duration;

use flintmq_controller::PlanningSettings;
use tokio_util::sync::CancellationToken;

use super::{Controller, ControllerError, NodeRecord, NodeState, Roster};
use crate::config::ClusterConfig;

/// How often it is looked, besides after each change.
const LOOK: Duration = Duration::from_secs(1);

/// Writes down the first nodes, and plans places for the nodes that there are.
pub(crate) struct Planning {
    pub(crate) controller: Controller,
    /// The cluster's first nodes, as this one knows them.
    pub(crate) first: Vec<NodeRecord>,
    /// On how many nodes each partition is to live; none: on all, however many there will be.
    pub(crate) replicas: Option<u32>,
}

impl Planning {
    /// Runs until stopped; does something only while this node leads the controller.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut changed = self.controller.watch_roster();
        loop {
            let again = tokio::select! {
                changed = changed.changed() => changed.is_ok(),
                () = tokio::time::sleep(LOOK) => true,
                () = stop.cancelled() => false,
            };
            if !again {
                return;
            }
            let roster = Arc::clone(&changed.borrow_and_update());
            if self.controller.status().serving
                && let Err(error) = self.look(&roster).await
            {
                tracing::debug!(%error, "places are planned again later");
            }
        }
    }

    async fn look(&self, roster: &Roster) -> Result<(), ControllerError> {
        let settings = PlanningSettings {
            first: self.first.clone(),
            replicas: self.replicas,
            partitions: self.controller.partitions(),
        };
        let away = |id: u32| !self.controller.reaches(id);
        let Some(change) = settings.next_change(roster, &away) else { return Ok(()) };
        tracing::info!(version = roster.version(), "the cluster's membership changes as planned");
        self.controller.change_roster(change).await
    }
}

/// The first nodes, from the configuration and the numbers that their directories drew.
pub(crate) fn first_nodes(
    config: &ClusterConfig,
    directory: impl Fn(u32) -> Option<u64>,
) -> Vec<NodeRecord> {
    let nodes = config.nodes.iter().map(|node| NodeRecord {
        id: node.id,
        peers: node.peers.clone(),
        state: NodeState::Active,
        directory: directory(node.id),
        founder: true,
        replaces: None,
    });
    nodes.filter(|node| node.directory.is_some()).collect()
}
