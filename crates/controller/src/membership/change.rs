//! Changes of the membership, and why one does not fit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{ClusterMembership, NodeRecord, NodeState, ReplicaAssignment};

/// One change of the membership, as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MembershipCommand {
    /// The nodes that formed the cluster.
    Seed {
        /// All of them.
        nodes: Vec<NodeRecord>,
        /// Nodes that hold each partition; none: all.
        replicas: Option<u32>,
    },
    /// One more node may join.
    Add {
        /// Its number, never used before.
        id: u32,
        /// Where other nodes reach it, HOST:PORT.
        peers: String,
        /// The node that leaves as soon as this one has joined.
        replaces: Option<u32>,
    },
    /// A node that was added joined for the first time, with this directory.
    Admit {
        /// The node.
        id: u32,
        /// The number of its directory.
        directory: u64,
    },
    /// A node is to lead nothing, or may again.
    Drain {
        /// The node.
        id: u32,
        /// False takes it back.
        draining: bool,
    },
    /// A node is to leave. One that never joined is forgotten at once, and the node that it was to
    /// replace stays.
    Remove {
        /// The node.
        id: u32,
    },
    /// No group needs this leaving node any more.
    Forget {
        /// The node.
        id: u32,
    },
    /// Which nodes are to hold which groups.
    Place {
        /// The version of the membership that this was planned for; void for another one.
        version: u64,
        /// The groups whose assignments change.
        places: BTreeMap<u32, ReplicaAssignment>,
    },
}

/// Why a change of the membership does not fit. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[serde(rename_all = "snake_case")]
pub enum MembershipRefusal {
    /// What is asked for is so already.
    #[error("nothing to change: it is so already")]
    Already,
    /// The first nodes are not recorded yet, or none were given.
    #[error("the cluster's first nodes are not recorded yet: try again")]
    NotFormed,
    /// A node of this number exists or existed.
    #[error("the node number is taken: choose a number that was never used, node={id}")]
    NodeExists {
        /// The number.
        id: u32,
    },
    /// The cluster has no such node.
    #[error("the cluster has no such node: see `flintmq admin node list`, node={id}")]
    UnknownNode {
        /// The number.
        id: u32,
    },
    /// The node joined with another data directory.
    #[error(
        "the node joined with another data directory: give it that directory back, or replace the \
         node, node={id}"
    )]
    OtherDirectory {
        /// The number.
        id: u32,
    },
    /// The node's state does not allow it.
    #[error("the node's state does not allow this: node={id} state={state}")]
    WrongState {
        /// The number.
        id: u32,
        /// Its state.
        state: String,
    },
    /// Without the node none would be left to hold the groups.
    #[error("no node would be left to hold the groups: add one first, node={id}")]
    LastNode {
        /// The number.
        id: u32,
    },
    /// The membership has changed since the plan was made.
    #[error("the plan is outdated: plan again, planned_for={planned} version={version}")]
    PlanOutdated {
        /// What it was planned for.
        planned: u64,
        /// What the membership's version is.
        version: u64,
    },
}

/// What a change touched, to be written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Nodes that were changed, added or deleted.
    pub nodes: Vec<u32>,
    /// Groups whose assignment changed.
    pub places: Vec<u32>,
}

impl Touched {
    fn nodes(nodes: impl IntoIterator<Item = u32>) -> Self {
        Self { nodes: nodes.into_iter().collect(), places: Vec::new() }
    }
}

impl ClusterMembership {
    /// Makes a change.
    ///
    /// # Errors
    /// It does not fit; nothing was changed.
    pub fn apply(&mut self, command: MembershipCommand) -> Result<Touched, MembershipRefusal> {
        let touched = match command {
            MembershipCommand::Seed { nodes, replicas } => self.seed(nodes, replicas),
            MembershipCommand::Add { id, peers, replaces } => self.add(id, peers, replaces),
            MembershipCommand::Admit { id, directory } => self.admit(id, directory),
            MembershipCommand::Drain { id, draining } => self.drain(id, draining),
            MembershipCommand::Remove { id } => self.remove(id),
            MembershipCommand::Forget { id } => self.forget(id),
            MembershipCommand::Place { version, places } => self.assign(version, places),
        }?;
        self.head.version += 1;
        Ok(touched)
    }

    fn seed(
        &mut self,
        nodes: Vec<NodeRecord>,
        replicas: Option<u32>,
    ) -> Result<Touched, MembershipRefusal> {
        if self.is_known() {
            return Err(MembershipRefusal::Already);
        }
        if nodes.is_empty() {
            return Err(MembershipRefusal::NotFormed);
        }
        self.head.replicas = replicas;
        self.nodes = nodes.into_iter().map(|node| (node.id, node)).collect();
        Ok(Touched::nodes(self.nodes.keys().copied()))
    }

    fn add(
        &mut self,
        id: u32,
        peers: String,
        replaces: Option<u32>,
    ) -> Result<Touched, MembershipRefusal> {
        if !self.is_known() {
            return Err(MembershipRefusal::NotFormed);
        }
        if self.nodes.contains_key(&id) {
            return Err(MembershipRefusal::NodeExists { id });
        }
        if let Some(old) = replaces {
            let record = self.known(old)?;
            if record.state == NodeState::Removed {
                return Err(MembershipRefusal::UnknownNode { id: old });
            }
            record.state = NodeState::Leaving;
        }
        let (state, founder) = (NodeState::Active, false);
        let node = NodeRecord { id, peers, state, directory: None, founder, replaces };
        self.nodes.insert(id, node);
        Ok(Touched::nodes(replaces.into_iter().chain([id])))
    }

    fn admit(&mut self, id: u32, directory: u64) -> Result<Touched, MembershipRefusal> {
        let node = self.known(id)?;
        match node.directory {
            Some(known) if known == directory => Err(MembershipRefusal::Already),
            Some(_) => Err(MembershipRefusal::OtherDirectory { id }),
            None => {
                node.directory = Some(directory);
                Ok(Touched::nodes([id]))
            }
        }
    }

    fn drain(&mut self, id: u32, draining: bool) -> Result<Touched, MembershipRefusal> {
        let (from, to) = match draining {
            true => (NodeState::Active, NodeState::Draining),
            false => (NodeState::Draining, NodeState::Active),
        };
        let node = self.known(id)?;
        if node.state == to {
            return Err(MembershipRefusal::Already);
        }
        if node.state != from {
            return Err(MembershipRefusal::wrong_state(node));
        }
        node.state = to;
        Ok(Touched::nodes([id]))
    }

    fn remove(&mut self, id: u32) -> Result<Touched, MembershipRefusal> {
        let is_last = !self.nodes().any(|node| node.id != id && self.is_home(node));
        let node = self.known(id)?;
        if node.directory.is_none() {
            let stays = node.replaces.take();
            self.nodes.remove(&id);
            let old = stays.and_then(|stays| self.nodes.get_mut(&stays));
            if let Some(old) = old.filter(|old| old.state == NodeState::Leaving) {
                old.state = NodeState::Active;
            }
            return Ok(Touched::nodes(stays.into_iter().chain([id])));
        }
        if matches!(node.state, NodeState::Leaving | NodeState::Removed) {
            return Err(MembershipRefusal::Already);
        }
        if is_last {
            return Err(MembershipRefusal::LastNode { id });
        }
        node.state = NodeState::Leaving;
        Ok(Touched::nodes([id]))
    }

    fn forget(&mut self, id: u32) -> Result<Touched, MembershipRefusal> {
        let node = self.known(id)?;
        match node.state {
            NodeState::Leaving => node.state = NodeState::Removed,
            NodeState::Removed => return Err(MembershipRefusal::Already),
            _ => return Err(MembershipRefusal::wrong_state(node)),
        }
        Ok(Touched::nodes([id]))
    }

    fn assign(
        &mut self,
        planned: u64,
        places: BTreeMap<u32, ReplicaAssignment>,
    ) -> Result<Touched, MembershipRefusal> {
        let version = self.head.version;
        if planned != version {
            return Err(MembershipRefusal::PlanOutdated { planned, version });
        }
        if places.is_empty() {
            return Err(MembershipRefusal::Already);
        }
        let touched = places.keys().copied().collect();
        self.assignments.extend(places);
        Ok(Touched { nodes: Vec::new(), places: touched })
    }

    fn known(&mut self, id: u32) -> Result<&mut NodeRecord, MembershipRefusal> {
        self.nodes.get_mut(&id).ok_or(MembershipRefusal::UnknownNode { id })
    }
}

impl MembershipRefusal {
    fn wrong_state(node: &NodeRecord) -> Self {
        Self::WrongState { id: node.id, state: node.state.as_str().to_owned() }
    }
}
