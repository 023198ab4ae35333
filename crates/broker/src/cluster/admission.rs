//! Answers nodes that come with a new directory, for one that has formed: those who were expected
//! are let in, all others are told what is the matter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flintmq_consensus::NodeId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::PeerLinks;
use super::formation::Formation;
use super::forming::{FormationMessage, send};
use super::founding::Founders;
use crate::controller::{
    ClusterMembership, Controller, ControllerError, MembershipCommand, NodeState,
};

/// Who answers.
#[derive(Clone)]
pub(super) struct Answering {
    formation: Arc<Formation>,
    links: PeerLinks,
    controller: Controller,
    /// Nodes whose coming is being decided.
    deciding: Arc<Mutex<BTreeSet<u32>>>,
    /// Raised when this node was removed from the cluster.
    removed: CancellationToken,
    /// Nodes that others name, for the list of peers.
    named: mpsc::Sender<BTreeMap<u32, String>>,
}

/// What a node that asks is told.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is known under this number; with `joins`, it comes to a cluster that is there already.
    Known {
        directory: u64,
        joins: bool,
    },
    /// It was expected: its number is to be noted.
    Expected,
    Unexpected,
    Removed,
    /// The cluster was formed just now, and the roster is empty yet: the founders are all there is
    /// to tell.
    Newborn,
}

impl Answering {
    pub(super) fn new(
        formation: Formation,
        links: PeerLinks,
        controller: Controller,
        removed: CancellationToken,
        named: mpsc::Sender<BTreeMap<u32, String>>,
    ) -> Self {
        let (formation, deciding) = (Arc::new(formation), Arc::default());
        Self { formation, links, controller, deciding, removed, named }
    }

    pub(super) fn answer(&self, from: NodeId, frame: &Bytes) {
        let Ok(message) = serde_json::from_slice::<FormationMessage>(frame) else { return };
        if message.removed {
            self.removed.cancel();
            return;
        }
        if message.looks {
            let (number, nodes) = (self.formation.number, self.addresses());
            let answer = FormationMessage { number, nodes, ..FormationMessage::default() };
            send(&self.links, from, &answer);
        } else if !message.nodes.is_empty() {
            // Another answer comes where this one finds no room.
            let _late = self.named.try_send(message.nodes);
        } else if message.asks {
            let verdict = self.verdict(from);
            self.tell_verdict(from, message.number, &verdict);
            if verdict == Verdict::Expected {
                self.admit(from, message.number);
            }
        }
    }

    fn verdict(&self, from: NodeId) -> Verdict {
        verdict(&self.controller.membership(), from)
    }

    fn tell_verdict(&self, to: NodeId, theirs: u64, verdict: &Verdict) {
        let (number, founders) = (self.formation.number, self.founders());
        let plain = || FormationMessage { number, ..FormationMessage::default() };
        let message = match verdict {
            Verdict::Known { directory, joins } => {
                if *directory != theirs {
                    tracing::error!(
                        node = to.0,
                        "a node came with a new data directory in place of the one that the cluster knows: it is refused"
                    );
                }
                let (joins, nodes) = if *joins && *directory == theirs {
                    (Some(self.controller.partitions()), self.addresses())
                } else {
                    (None, BTreeMap::new())
                };
                let formed_with = Some(*directory);
                FormationMessage { formed_with, joins, nodes, founders, ..plain() }
            }
            // Even before it is admitted: from here on it takes part in no other formation.
            Verdict::Expected | Verdict::Newborn => FormationMessage { founders, ..plain() },
            Verdict::Unexpected => FormationMessage { unexpected: true, ..plain() },
            Verdict::Removed => FormationMessage { removed: true, ..plain() },
        };
        send(&self.links, to, &message);
    }

    /// With whom the cluster began.
    fn founders(&self) -> Founders {
        if !self.formation.founders.is_empty() {
            return self.formation.founders.clone();
        }
        // This node was admitted by an earlier version.
        let roster = self.controller.membership();
        let founders = roster.nodes().filter(|node| node.founder);
        founders.filter_map(|node| Some((node.id, node.directory?))).collect()
    }

    fn addresses(&self) -> BTreeMap<u32, String> {
        let roster = self.controller.membership();
        roster.present().map(|node| (node.id, node.peers.clone())).collect()
    }

    /// Notes the number of a node that was expected, and answers when that is decided. It asks
    /// again until then.
    fn admit(&self, id: NodeId, directory: u64) {
        if !self.deciding().insert(id.0) {
            return;
        }
        let answering = self.clone();
        tokio::spawn(async move {
            let change = MembershipCommand::Admit { id: id.0, directory };
            match answering.controller.change_membership(change).await {
                Ok(()) | Err(ControllerError::Refused(_)) => {
                    let verdict = answering.verdict(id);
                    answering.tell_verdict(id, directory, &verdict);
                }
                Err(error) => tracing::warn!(node = id.0, %error, "a node is not let in yet"),
            }
            answering.deciding().remove(&id.0);
        });
    }

    fn deciding(&self) -> std::sync::MutexGuard<'_, BTreeSet<u32>> {
        self.deciding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the node that asks is.
fn verdict(roster: &ClusterMembership, from: NodeId) -> Verdict {
    match roster.node(from.0) {
        Some(node) if node.state == NodeState::Removed => Verdict::Removed,
        Some(node) => match node.directory {
            Some(directory) => Verdict::Known { directory, joins: !node.founder },
            None => Verdict::Expected,
        },
        None if roster.is_known() => Verdict::Unexpected,
        None => Verdict::Newborn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::NodeRecord;

    /// Nodes that have joined, all active.
    fn roster_of(ids: &[u32]) -> ClusterMembership {
        let mut roster = ClusterMembership::default();
        let nodes = ids.iter().map(|id| NodeRecord {
            id: *id,
            peers: format!("10.0.0.{id}:7114"),
            state: NodeState::Active,
            directory: Some(u64::from(*id)),
            founder: true,
            replaces: None,
        });
        roster.apply(MembershipCommand::Seed { nodes: nodes.collect(), replicas: None }).unwrap();
        roster
    }

    #[test]
    fn who_was_there_from_the_beginning_is_known_by_its_number() {
        assert_eq!(verdict(&ClusterMembership::default(), NodeId(2)), Verdict::Newborn);
        let known = Verdict::Known { directory: 2, joins: false };
        assert_eq!(verdict(&roster_of(&[1, 2]), NodeId(2)), known);
    }

    #[test]
    fn a_configured_node_that_was_away_at_the_beginning_is_admitted_with_one_directory() {
        let config = r#"
            [[cluster_nodes]]
            id = 1
            peers = "h:1"
            [[cluster_nodes]]
            id = 2
            peers = "h:2"
            [[cluster_nodes]]
            id = 3
            peers = "h:3"
        "#;
        let config: crate::config::NodeConfig = toml::from_str(config).unwrap();
        let config = config.cluster();
        let founders = BTreeMap::from([(1, 11), (3, 13)]);
        let nodes = crate::controller::first_nodes(&config, |id| founders.get(&id).copied());
        let mut roster = ClusterMembership::default();
        roster.apply(MembershipCommand::Seed { nodes, replicas: None }).unwrap();
        assert_eq!(verdict(&roster, NodeId(1)), Verdict::Known { directory: 11, joins: false });
        assert_eq!(verdict(&roster, NodeId(2)), Verdict::Expected);
        roster.apply(MembershipCommand::Admit { id: 2, directory: 12 }).unwrap();
        assert!(roster.apply(MembershipCommand::Admit { id: 2, directory: 99 }).is_err());
        assert_eq!(verdict(&roster, NodeId(2)), Verdict::Known { directory: 12, joins: true });
    }

    #[test]
    fn who_comes_later_is_expected_once() {
        let mut roster = roster_of(&[1, 2]);
        let told = |roster: &ClusterMembership| verdict(roster, NodeId(3));
        assert_eq!(told(&roster), Verdict::Unexpected);
        let add = MembershipCommand::Add { id: 3, peers: "h:1".into(), replaces: None };
        roster.apply(add).unwrap();
        assert_eq!(told(&roster), Verdict::Expected);
        roster.apply(MembershipCommand::Admit { id: 3, directory: 9 }).unwrap();
        assert_eq!(told(&roster), Verdict::Known { directory: 9, joins: true });
        roster.apply(MembershipCommand::Remove { id: 3 }).unwrap();
        assert_eq!(told(&roster), Verdict::Known { directory: 9, joins: true }, "until it is gone");
        roster.apply(MembershipCommand::Forget { id: 3 }).unwrap();
        assert_eq!(told(&roster), Verdict::Removed);
    }
}
