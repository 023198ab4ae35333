//! Answers nodes that come with a new directory, for one that has formed: those who were expected
//! are let in, all others are told what is the matter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flintmq_consensus::NodeId;
use tokio_util::sync::CancellationToken;

use super::PeerLinks;
use super::formation::{Formation, Word, tell};
use crate::controller::{Controller, ControllerError, NodeState, ClusterMembership, MembershipCommand};

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
}

impl Answering {
    pub(super) fn new(
        formation: Formation,
        links: PeerLinks,
        controller: Controller,
        removed: CancellationToken,
    ) -> Self {
        let (formation, deciding) = (Arc::new(formation), Arc::default());
        Self { formation, links, controller, deciding, removed }
    }

    pub(super) fn answer(&self, from: NodeId, frame: &Bytes) {
        let Ok(word) = serde_json::from_slice::<Word>(frame) else { return };
        if word.removed {
            self.removed.cancel();
            return;
        }
        if word.asks {
            match self.verdict(from) {
                Verdict::Expected => self.admit(from, word.number),
                verdict => self.tell_verdict(from, word.number, &verdict),
            }
        }
    }

    fn verdict(&self, from: NodeId) -> Verdict {
        verdict(&self.controller.membership(), self.formation.members.get(&from.0).copied(), from)
    }

    fn tell_verdict(&self, to: NodeId, theirs: u64, verdict: &Verdict) {
        let number = self.formation.number;
        let word = match verdict {
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
                Word { number, formed_with: Some(*directory), joins, nodes, ..Word::default() }
            }
            Verdict::Unexpected => Word { number, unexpected: true, ..Word::default() },
            Verdict::Removed => Word { number, removed: true, ..Word::default() },
            Verdict::Expected => return,
        };
        tell(&self.links, to, &word);
    }

    fn addresses(&self) -> BTreeMap<u32, String> {
        let roster = self.controller.membership();
        let nodes = roster.nodes().filter(|node| node.state != NodeState::Removed);
        nodes.map(|node| (node.id, node.peers.clone())).collect()
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

/// What a node is told that comes; `met` is the number of its directory at the cluster's birth.
fn verdict(roster: &ClusterMembership, met: Option<u64>, from: NodeId) -> Verdict {
    match roster.node(from.0) {
        Some(node) if node.state == NodeState::Removed => Verdict::Removed,
        Some(node) => match node.directory {
            Some(directory) => Verdict::Known { directory, joins: !node.founder },
            None => Verdict::Expected,
        },
        None if roster.is_known() => Verdict::Unexpected,
        // The cluster has just been born, and its nodes are not written down yet. A node that
        // nobody knows was formed with no number at all.
        None => Verdict::Known { directory: met.unwrap_or(0), joins: false },
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
        let known = |directory| Verdict::Known { directory, joins: false };
        let unwritten = ClusterMembership::default();
        assert_eq!(verdict(&unwritten, Some(7), NodeId(2)), known(7));
        assert_eq!(verdict(&unwritten, None, NodeId(4)), known(0), "no directory has this number");
        assert_eq!(verdict(&roster_of(&[1, 2]), Some(7), NodeId(2)), known(2), "the roster counts");
    }

    #[test]
    fn who_comes_later_is_expected_once() {
        let mut roster = roster_of(&[1, 2]);
        let told = |roster: &ClusterMembership| verdict(roster, None, NodeId(3));
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
