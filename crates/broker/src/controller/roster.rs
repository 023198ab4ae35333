//! Who belongs to the cluster, and which nodes are to hold each group.
//!
//! The roster is what is wanted. Each group's leader brings the group there, step by step
//! ([`crate::replica::Reconciler`]); every node connects to whom it names. A node's number is never
//! used again: what it voted for is remembered under it.

use std::collections::BTreeMap;

use flintmq_consensus::{GroupId, NodeId};
use serde::{Deserialize, Serialize};

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeRecord {
    /// Its number.
    pub(crate) id: u32,
    /// Where other nodes reach it, HOST:PORT.
    pub(crate) peers: String,
    pub(crate) state: NodeState,
    /// The number that its data directory drew; none until the node has come for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) directory: Option<u64>,
    /// It was there when the cluster was born, and made its groups with the others.
    #[serde(default)]
    pub(crate) founder: bool,
    /// The node that it takes the place of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replaces: Option<u32>,
}

/// What is to become of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NodeState {
    /// It holds groups and leads some.
    Active,
    /// It holds groups and leads none.
    Draining,
    /// Its groups move to others.
    Leaving,
    /// It is no node of the cluster any more.
    Removed,
}

/// Which nodes are to hold a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Those that vote, ascending.
    pub(crate) voters: Vec<u32>,
    /// Those that only hear of everything, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) learners: Vec<u32>,
    /// Who should lead while it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) leader: Option<u32>,
}

impl Place {
    /// Whether the node is to have the group's log.
    pub(crate) fn holds(&self, node: NodeId) -> bool {
        self.voters.contains(&node.0) || self.learners.contains(&node.0)
    }
}

/// All nodes and places, as the applied log says. Empty until the first leader of the controller
/// has written down with whom the cluster began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roster {
    pub(super) nodes: BTreeMap<u32, NodeRecord>,
    pub(super) places: BTreeMap<u32, Place>,
    pub(super) head: RosterHead,
}

/// What the roster has besides nodes and places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RosterHead {
    /// Counts all changes.
    pub(super) version: u64,
    /// Nodes that hold each partition; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) replicas: Option<u32>,
}

/// One change of the roster, as it stands in the log. What does not fit any more does nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RosterCommand {
    /// The nodes that the cluster began with.
    Seed {
        /// All of them.
        nodes: Vec<NodeRecord>,
        /// Nodes that hold each partition; none: all.
        replicas: Option<u32>,
    },
    /// One more node may come.
    Add {
        /// Its number, never used before.
        id: u32,
        /// Where it is reached.
        peers: String,
        /// The node that leaves as soon as this one is there.
        replaces: Option<u32>,
    },
    /// A node that was added came for the first time, with this directory.
    Admit {
        /// Which.
        id: u32,
        /// The number of its directory.
        directory: u64,
    },
    /// A node is to lead nothing, or may again.
    Drain {
        /// Which.
        id: u32,
        /// False takes it back.
        draining: bool,
    },
    /// A node is to leave. One that never came is forgotten at once, and whom it was to replace
    /// stays.
    Remove {
        /// Which.
        id: u32,
    },
    /// Nobody needs this leaving node any more.
    Forget {
        /// Which.
        id: u32,
    },
    /// Which nodes are to hold which groups.
    Place {
        /// The roster's version that this was planned for: another one makes it void.
        version: u64,
        /// The groups whose places change.
        places: BTreeMap<u32, Place>,
    },
}

/// What a change touched, to be written down.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    pub(super) nodes: Vec<u32>,
    pub(super) places: Vec<u32>,
}

impl Roster {
    /// Whether the cluster's beginning is written down.
    pub(crate) fn is_known(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// Counts all changes.
    pub(crate) fn version(&self) -> u64 {
        self.head.version
    }

    /// Nodes that hold each partition; none: all.
    pub(crate) fn replicas(&self) -> Option<u32> {
        self.head.replicas
    }

    /// A node, also one that was removed.
    pub(crate) fn node(&self, id: u32) -> Option<&NodeRecord> {
        self.nodes.get(&id)
    }

    /// All nodes by number, those that were removed among them.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &NodeRecord> {
        self.nodes.values()
    }

    /// Who is to hold the group; none before it is planned.
    pub(crate) fn place(&self, group: GroupId) -> Option<&Place> {
        self.places.get(&group.0)
    }

    /// Whether the node must not lead.
    pub(crate) fn is_barred(&self, node: NodeId) -> bool {
        self.node(node.0).is_some_and(|node| node.state != NodeState::Active)
    }

    /// Whether groups may be placed on the node: it has come, and is not to leave, or not yet.
    pub(crate) fn is_home(&self, node: &NodeRecord) -> bool {
        let awaited = |node: &NodeRecord| {
            self.nodes().any(|new| new.replaces == Some(node.id) && new.directory.is_none())
        };
        node.directory.is_some()
            && match node.state {
                NodeState::Active | NodeState::Draining => true,
                NodeState::Leaving => awaited(node),
                NodeState::Removed => false,
            }
    }

    /// Whether a group is to have the node as a voter.
    pub(crate) fn is_wanted(&self, id: u32) -> bool {
        self.places.values().any(|place| place.voters.contains(&id))
    }

    /// Takes a change. None: it does not fit, and nothing was changed.
    pub(crate) fn apply(&mut self, command: RosterCommand) -> Option<Touched> {
        let touched = self.change(command)?;
        self.head.version += 1;
        Some(touched)
    }

    fn change(&mut self, command: RosterCommand) -> Option<Touched> {
        let nodes = |nodes: Vec<u32>| Some(Touched { nodes, places: Vec::new() });
        match command {
            RosterCommand::Seed { nodes: seed, replicas } => {
                if self.is_known() || seed.is_empty() {
                    return None;
                }
                self.head.replicas = replicas;
                self.nodes = seed.into_iter().map(|node| (node.id, node)).collect();
                nodes(self.nodes.keys().copied().collect())
            }
            RosterCommand::Add { id, peers, replaces } => {
                if !self.is_known() || self.nodes.contains_key(&id) {
                    return None;
                }
                if let Some(old) = replaces {
                    let old = self.nodes.get_mut(&old).filter(|o| o.state != NodeState::Removed)?;
                    old.state = NodeState::Leaving;
                }
                let (state, founder) = (NodeState::Active, false);
                let node = NodeRecord { id, peers, state, directory: None, founder, replaces };
                self.nodes.insert(id, node);
                nodes(replaces.into_iter().chain([id]).collect())
            }
            RosterCommand::Admit { id, directory } => {
                let node = self.nodes.get_mut(&id).filter(|node| node.directory.is_none())?;
                node.directory = Some(directory);
                nodes(vec![id])
            }
            RosterCommand::Drain { id, draining } => {
                let (from, to) = match draining {
                    true => (NodeState::Active, NodeState::Draining),
                    false => (NodeState::Draining, NodeState::Active),
                };
                let node = self.nodes.get_mut(&id).filter(|node| node.state == from)?;
                node.state = to;
                nodes(vec![id])
            }
            RosterCommand::Remove { id } => {
                let others = self.nodes().filter(|node| node.id != id);
                let is_last = !others.into_iter().any(|node| self.is_home(node));
                let node = self.nodes.get_mut(&id)?;
                if node.directory.is_none() {
                    // Whom it was to replace stays.
                    let stays = node.replaces.take();
                    self.nodes.remove(&id);
                    let old = stays.and_then(|stays| self.nodes.get_mut(&stays));
                    if let Some(old) = old.filter(|old| old.state == NodeState::Leaving) {
                        old.state = NodeState::Active;
                    }
                    return nodes(stays.into_iter().chain([id]).collect());
                } else if is_last || matches!(node.state, NodeState::Leaving | NodeState::Removed) {
                    return None;
                } else {
                    node.state = NodeState::Leaving;
                }
                nodes(vec![id])
            }
            RosterCommand::Forget { id } => {
                let node = self.nodes.get_mut(&id).filter(|n| n.state == NodeState::Leaving)?;
                node.state = NodeState::Removed;
                nodes(vec![id])
            }
            RosterCommand::Place { version, places } => {
                if version != self.head.version || places.is_empty() {
                    return None;
                }
                let touched = places.keys().copied().collect();
                self.places.extend(places);
                Some(Touched { nodes: Vec::new(), places: touched })
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Nodes that have come, all active.
    pub(crate) fn roster_of(ids: &[u32]) -> Roster {
        let mut roster = Roster::default();
        let nodes = ids.iter().map(|id| NodeRecord {
            id: *id,
            peers: format!("10.0.0.{id}:7114"),
            state: NodeState::Active,
            directory: Some(u64::from(*id)),
            founder: true,
            replaces: None,
        });
        roster.apply(RosterCommand::Seed { nodes: nodes.collect(), replicas: None }).unwrap();
        roster
    }

    fn add(id: u32, replaces: Option<u32>) -> RosterCommand {
        RosterCommand::Add { id, peers: format!("10.0.0.{id}:7114"), replaces }
    }

    fn homes(roster: &Roster) -> Vec<u32> {
        roster.nodes().filter(|node| roster.is_home(node)).map(|node| node.id).collect()
    }

    #[test]
    fn a_node_comes_with_one_directory_and_its_number_is_never_used_again() {
        let mut roster = roster_of(&[1, 2, 3]);
        assert!(roster.apply(add(3, None)).is_none());
        assert!(roster.apply(add(4, None)).is_some());
        assert_eq!(homes(&roster), [1, 2, 3], "it has not come yet");
        assert!(roster.apply(RosterCommand::Admit { id: 4, directory: 7 }).is_some());
        assert!(roster.apply(RosterCommand::Admit { id: 4, directory: 8 }).is_none());
        assert_eq!((roster.node(4).unwrap().directory, homes(&roster).len()), (Some(7), 4));
        assert!(roster.apply(RosterCommand::Forget { id: 4 }).is_none(), "it holds groups");
        assert!(roster.apply(RosterCommand::Remove { id: 4 }).is_some());
        assert!(roster.is_barred(NodeId(4)) && homes(&roster) == [1, 2, 3]);
        assert!(roster.apply(RosterCommand::Forget { id: 4 }).is_some());
        assert!(roster.apply(add(4, None)).is_none());
        assert!(roster.apply(RosterCommand::Remove { id: 4 }).is_none());
    }

    #[test]
    fn one_that_never_came_can_be_added_again() {
        let mut roster = roster_of(&[1]);
        for _ in 0..2 {
            assert!(roster.apply(add(2, None)).is_some());
            assert!(roster.apply(RosterCommand::Remove { id: 2 }).is_some());
            assert!(roster.node(2).is_none());
        }
        assert!(roster.apply(RosterCommand::Remove { id: 1 }).is_none(), "nobody would be left");
    }

    #[test]
    fn a_replaced_node_stays_until_the_new_one_is_there() {
        let mut roster = roster_of(&[1, 2, 3]);
        assert!(roster.apply(add(4, Some(9))).is_none() && roster.node(4).is_none());
        assert!(roster.apply(add(4, Some(2))).is_some());
        assert_eq!(homes(&roster), [1, 2, 3]);
        assert!(roster.is_barred(NodeId(2)), "but it leads no more");
        assert!(roster.apply(RosterCommand::Remove { id: 4 }).is_some());
        assert!(!roster.is_barred(NodeId(2)), "nothing replaces it");
        assert!(roster.apply(add(4, Some(2))).is_some());
        roster.apply(RosterCommand::Admit { id: 4, directory: 7 }).unwrap();
        assert_eq!(homes(&roster), [1, 3, 4]);
    }

    #[test]
    fn draining_is_taken_back_and_plans_for_another_roster_are_void() {
        let mut roster = roster_of(&[1, 2]);
        let version = roster.version();
        assert!(roster.apply(RosterCommand::Drain { id: 1, draining: false }).is_none());
        assert!(roster.apply(RosterCommand::Drain { id: 1, draining: true }).is_some());
        assert!(roster.is_barred(NodeId(1)) && homes(&roster) == [1, 2]);
        let places = BTreeMap::from([(1, Place { voters: vec![1], ..Place::default() })]);
        let late = RosterCommand::Place { version, places: places.clone() };
        assert!(roster.apply(late).is_none());
        let version = roster.version();
        assert!(roster.apply(RosterCommand::Place { version, places }).is_some());
        assert!(roster.place(GroupId(1)).unwrap().holds(NodeId(1)));
        assert!(roster.apply(RosterCommand::Drain { id: 1, draining: false }).is_some());
        assert!(!roster.is_barred(NodeId(1)));
    }
}
