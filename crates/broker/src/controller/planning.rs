//! What the controller's leader sees to by itself: that the roster says with whom the cluster
//! began, and that everything has its place.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::placement::plan;
use super::roster::{NodeRecord, NodeState, Roster, RosterCommand};
use super::{Controller, ControllerError};
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
        if !roster.is_known() {
            let (nodes, replicas) = (self.first.clone(), self.replicas);
            tracing::info!(nodes = nodes.len(), "the cluster's first nodes are written down");
            return self.controller.change_roster(RosterCommand::Seed { nodes, replicas }).await;
        }
        let away = |id: u32| !self.controller.reaches(id);
        let places = plan(roster, self.controller.partitions(), &away);
        if places.is_empty() {
            return Ok(());
        }
        tracing::info!(groups = places.len(), "groups get other places");
        let version = roster.version();
        self.controller.change_roster(RosterCommand::Place { version, places }).await
    }
}

/// The first nodes, from the configuration and the numbers that the founders' directories drew. The
/// others are expected, and admitted when they come. None where no founder is known.
pub(crate) fn first_nodes(
    config: &ClusterConfig,
    directory: impl Fn(u32) -> Option<u64>,
) -> Vec<NodeRecord> {
    let nodes = config.nodes.iter().map(|node| NodeRecord {
        id: node.id,
        peers: node.peers.clone(),
        state: NodeState::Active,
        directory: directory(node.id),
        founder: directory(node.id).is_some(),
        replaces: None,
    });
    let nodes: Vec<NodeRecord> = nodes.collect();
    if nodes.iter().any(|node| node.founder) { nodes } else { Vec::new() }
}
