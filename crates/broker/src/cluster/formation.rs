//! How a cluster is formed, once: a majority of the configured nodes, all with new data
//! directories, agrees on the founders ([`super::founding`]). The rest joins later. A node that
//! comes with a new directory in place of a known one is refused, for it has forgotten what it
//! voted for.
//!
//! Each node draws a number when its directory is new, and keeps it there, synced, before it sends
//! it. The founders are nodes with the numbers of their directories. They alone are the first
//! members of all groups. Why no node votes twice under one id:
//!
//! - **One set.** Any two majorities share a node, and its position is on its disk before it is
//!   shown. So at most one set is chosen, and two disjoint ones never are.
//! - **A founder that lost its directory** comes with another number. It needs a majority to form
//!   a cluster, or an answer to join one. Every node that knows the founders, also one that is no
//!   founder, answers with them instead of taking part: the node finds itself forgotten and stops.
//! - **A configured node that is no founder** is a member of no group. The controller's roster
//!   expects it, as a node that an operator added: on its first contact the number of its directory
//!   is committed there (`admission`), once, by members of which it is none. Only then it makes its
//!   groups, without members, and the groups' leaders make it one. With a second directory it meets
//!   the number of the first, and is refused.
//! - **What no protocol can see** is a founder that lost its directory while all nodes that know of
//!   it are away, when enough nodes that never heard of a formation make up a majority with it.
//!   They form a second cluster. Both have names of their own ([`Formation::name`]), and the
//!   transport connects no nodes of different ones: nothing mixes, and both logs say so.
//!
//! The file belongs to the store beside it and names it. A store that was lost or is older than the
//! file is refused.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use flintmq_consensus::NodeId;
use serde::{Deserialize, Serialize};

use super::founding::{Founders, Position};

/// File in the data directory.
const FILE: &str = "formation.json";

/// A data directory, as the store in it was opened.
pub(crate) struct Directory<'a> {
    /// Where it is.
    pub(crate) path: &'a Path,
    /// Names the store.
    pub(crate) store: &'a str,
    /// Numbers of the store's last run and of this one.
    pub(crate) runs: (u64, u64),
    /// The store has no groups.
    pub(crate) is_new: bool,
}

/// What a node knows of the formation of its cluster; kept in its data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Formation {
    /// This directory's own number.
    pub(super) number: u64,
    /// Names the store in the directory; empty in files of earlier versions.
    #[serde(default)]
    store: String,
    /// Number of the store's last run that this file knows of.
    #[serde(default)]
    run: u64,
    /// What this node promised and accepted while the cluster was formed.
    #[serde(default)]
    pub(super) position: Position,
    /// With whom the cluster began, once that is known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) founders: Founders,
    /// The other founders, in files of earlier versions.
    #[serde(default, skip_serializing)]
    members: BTreeMap<u32, u64>,
    /// How many partitions there were when this node came to a cluster that was there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) joined: Option<u32>,
    /// The nodes that were there then, and where they are reached: for as long as the roster does
    /// not tell.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) nodes: BTreeMap<u32, String>,
    /// This node was removed from the cluster.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    removed: bool,
    /// Where it is kept.
    #[serde(skip)]
    pub(super) file: PathBuf,
}

impl Formation {
    /// What the directory of the node `own` says; a new record for a new directory.
    ///
    /// # Errors
    /// The directory is not whole, or the node must not take part with it.
    pub(crate) fn open(own: NodeId, directory: &Directory<'_>) -> Result<Self, FormationError> {
        let file = directory.path.join(FILE);
        let mut formation = match load(&file)? {
            Some(formation) if formation.removed => return Err(FormationError::Removed(file)),
            Some(formation) => formation,
            None if directory.is_new => Self::new(&file),
            None => return Err(FormationError::NotFormed(file)),
        };
        formation.take_over(own);
        formation.check(own, directory)?;
        directory.store.clone_into(&mut formation.store);
        formation.run = directory.runs.1;
        save(&formation)?;
        Ok(formation)
    }

    fn new(file: &Path) -> Self {
        Self {
            number: draw(),
            store: String::new(),
            run: 0,
            position: Position::default(),
            founders: BTreeMap::new(),
            members: BTreeMap::new(),
            joined: None,
            nodes: BTreeMap::new(),
            removed: false,
            file: file.to_owned(),
        }
    }

    /// Earlier versions formed with all nodes, and noted the others.
    fn take_over(&mut self, own: NodeId) {
        if self.joined.is_none() && self.founders.is_empty() && !self.members.is_empty() {
            self.founders = std::mem::take(&mut self.members);
            self.founders.insert(own.0, self.number);
        }
    }

    fn check(&self, own: NodeId, directory: &Directory<'_>) -> Result<(), FormationError> {
        let file = || self.file.clone();
        let is_formed = self.is_formed(own);
        let is_others = if self.store.is_empty() {
            is_formed && directory.is_new
        } else {
            self.store != directory.store
        };
        if is_others {
            Err(FormationError::OtherStore(file()))
        } else if self.run > directory.runs.0 && !self.store.is_empty() {
            Err(FormationError::OlderStore(file()))
        } else if !is_formed && !directory.is_new {
            Err(FormationError::NotFormed(file()))
        } else {
            Ok(())
        }
    }

    /// Whether this node makes its groups: it is a founder, or was admitted.
    pub(super) fn is_formed(&self, own: NodeId) -> bool {
        self.joined.is_some() || self.founders.contains_key(&own.0)
    }

    /// Names the set of founders; 0 while it is not known.
    pub(super) fn name(&self) -> u64 {
        name(&self.founders)
    }

    /// Remembers that this node was removed from the cluster, so that it never starts again.
    pub(super) fn part(mut self) {
        self.removed = true;
        if let Err(error) = save(&self) {
            tracing::warn!(%error, "the next start of this node will have to ask again");
        }
    }

    /// The number of a founder's directory, for a founder.
    pub(crate) fn directory(&self, node: NodeId) -> Option<u64> {
        self.founders.get(&node.0).copied().filter(|_| self.joined.is_none())
    }

    /// How many partitions the cluster had that this node came to; none of a founder.
    pub(crate) fn joined(&self) -> Option<u32> {
        self.joined
    }

    /// With whom this node makes its groups; empty when it joined a cluster.
    pub(crate) fn first_members(&self) -> Vec<NodeId> {
        let founders = self.founders.keys().map(|node| NodeId(*node));
        founders.filter(|_| self.joined.is_none()).collect()
    }
}

/// Why a node must not take part.
#[derive(Debug, thiserror::Error)]
pub enum FormationError {
    /// The cluster knows this node by another directory.
    #[error(
        "the data directory is new, but the cluster was formed with another one of this node: restore that one, or give this node another id and replace it with `flintmq admin node replace`, asked_node={0}"
    )]
    Forgotten(NodeId),
    /// The node was removed from the cluster.
    #[error(
        "this node was removed from the cluster: its data directory may be deleted, and its number is never used again, file={}",
        .0.display()
    )]
    Removed(PathBuf),
    /// There are groups, and no record with whom they were made.
    #[error(
        "the data directory belongs to a cluster of one node, or has lost the record of its cluster's formation: start a node of its own without [[cluster_nodes]], or with an empty directory; restore the file of a node that was in a cluster, or replace that node with `flintmq admin node replace`, file={}",
        .0.display()
    )]
    NotFormed(PathBuf),
    /// The file was kept, and the store beside it was lost or exchanged.
    #[error(
        "the record of the cluster's formation belongs to another store than the one beside it, so this node has lost its votes and messages: restore the whole data directory, or empty it, give this node another id and replace it with `flintmq admin node replace`; if the cluster never served, empty the directories of all nodes, file={}",
        .0.display()
    )]
    OtherStore(PathBuf),
    /// The store is a copy of before.
    #[error(
        "the store is older than the record of the cluster's formation beside it, so this node may have forgotten votes and messages: restore the whole data directory as it was last, or empty it, give this node another id and replace it with `flintmq admin node replace`, file={}",
        .0.display()
    )]
    OlderStore(PathBuf),
    /// The file cannot be used.
    #[error("the record of the cluster's formation cannot be used, file={}: {reason}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The connections were closed.
    #[error("the node is stopping")]
    Stopping,
}

/// Names a set of founders, the same on all nodes; 0 for none. FNV-1a.
pub(super) fn name(founders: &Founders) -> u64 {
    if founders.is_empty() {
        return 0;
    }
    let bytes = founders
        .iter()
        .flat_map(|(node, number)| node.to_le_bytes().into_iter().chain(number.to_le_bytes()));
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.fold(0xcbf2_9ce4_8422_2325, mix).max(1)
}

fn load(file: &Path) -> Result<Option<Formation>, FormationError> {
    let failed = |reason: String| FormationError::File { file: file.to_owned(), reason };
    match std::fs::read(file) {
        Ok(bytes) => match serde_json::from_slice::<Formation>(&bytes) {
            Ok(formation) => Ok(Some(Formation { file: file.to_owned(), ..formation })),
            Err(error) => Err(failed(error.to_string())),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Replaces the file; what is told afterwards survives.
pub(super) fn save(formation: &Formation) -> Result<(), FormationError> {
    let file = formation.file.as_path();
    let written = || -> std::io::Result<()> {
        let next = file.with_extension("next");
        let mut out = std::fs::File::create(&next)?;
        out.write_all(&serde_json::to_vec(formation)?)?;
        out.sync_all()?;
        std::fs::rename(&next, file)?;
        std::fs::File::open(file.parent().unwrap_or_else(|| Path::new(".")))?.sync_all()
    };
    written()
        .map_err(|error| FormationError::File { file: file.to_owned(), reason: error.to_string() })
}

/// A number that no other directory has; never 0.
fn draw() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() | 1
}

#[cfg(test)]
#[path = "formation_tests.rs"]
mod tests;
