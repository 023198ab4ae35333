//! How a cluster is born, once: nodes with new data directories find each other and agree that all
//! of them are new. Whoever comes with a new directory later is told so, for it has forgotten what
//! it voted for.
//!
//! Each node draws a number when its directory is new, and keeps it there, synced, before it tells
//! it to anybody. It forms its groups once it has heard from all others: of each either that it is
//! new too, or that it has formed with exactly this node's number. A node that formed remembers the
//! numbers of all. So one that lost its directory comes with another number, and is refused.
//!
//! Later nodes are expected by an operator's word (`admission`): the controller notes the number of
//! the first directory that comes under theirs. Such a node makes its groups without members, and
//! so votes nowhere until the groups' leaders have made it a member.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use flintmq_consensus::{GroupId, NodeId};
use flintmq_transport::{Event, Inbound};
use serde::{Deserialize, Serialize};

use super::{PeerLinks, arrivals};

/// The number under which nodes talk about their formation; no group has it.
pub(super) const FORMATION: GroupId = GroupId(u32::MAX);

/// File in the data directory.
const FILE: &str = "formation.json";

/// How often a node asks again.
const ASK: Duration = Duration::from_millis(100);

/// After how much asking an operator is told whom the node waits for.
const PATIENCE: u32 = 50;

/// What a node knows of the birth of its cluster; kept in its data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Formation {
    /// This directory's own number.
    pub(super) number: u64,
    /// The numbers of all other directories, once they are formed together; of a later node only
    /// that of the node that let it in.
    #[serde(default)]
    pub(super) members: BTreeMap<u32, u64>,
    /// How many partitions there were when this node came to a cluster that was there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    joined: Option<u32>,
    /// The nodes that were there then, and where they are reached: for as long as the roster does
    /// not tell.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) nodes: BTreeMap<u32, String>,
    /// The cluster has parted with this node.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    removed: bool,
    /// Where it is kept.
    #[serde(skip)]
    file: PathBuf,
}

impl Formation {
    fn new(file: &Path) -> Self {
        Self {
            number: draw(),
            members: BTreeMap::new(),
            joined: None,
            nodes: BTreeMap::new(),
            removed: false,
            file: file.to_owned(),
        }
    }

    /// Remembers that the cluster has parted with this node, so that it never starts again.
    pub(super) fn part(mut self) {
        self.removed = true;
        if let Err(error) = save(&self) {
            tracing::warn!(%error, "the next start of this node will have to ask again");
        }
    }

    /// The number of a node's directory, as far as it was there at the cluster's birth.
    pub(crate) fn directory(&self, own: NodeId, node: NodeId) -> Option<u64> {
        match self.joined {
            Some(_) => None,
            None if node == own => Some(self.number),
            None => self.members.get(&node.0).copied(),
        }
    }

    /// How many partitions the cluster had that this node came to; none of one that was there from
    /// the beginning.
    pub(crate) fn joined(&self) -> Option<u32> {
        self.joined
    }
}

/// Why a node must not take part.
#[derive(Debug, thiserror::Error)]
pub enum FormationError {
    /// The cluster knows this node by another directory.
    #[error(
        "the data directory is new, but the cluster was formed with another one of this node: restore that one, or give this node another id and let it in with `flintmq admin node replace`, asked_node={0}"
    )]
    Forgotten(NodeId),
    /// The cluster has parted with this node.
    #[error(
        "this node was removed from the cluster: its data directory may be deleted, and its number is never used again, file={}",
        .0.display()
    )]
    Removed(PathBuf),
    /// The directory was used without a cluster before.
    #[error(
        "the data directory belongs to a cluster of one node: start this node without [[cluster_nodes]], or with an empty directory, file={}",
        .0.display()
    )]
    NotFormed(PathBuf),
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

/// What nodes say to each other about it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Word {
    /// The sender's number.
    pub(super) number: u64,
    /// The number that the sender knows the receiver by; none when it is new itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) formed_with: Option<u64>,
    /// Whether an answer is wanted.
    pub(super) asks: bool,
    /// The receiver comes to a cluster that is there already and has so many partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) joins: Option<u32>,
    /// With `joins`: all nodes and where they are reached.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) nodes: BTreeMap<u32, String>,
    /// The receiver comes to a cluster that does not expect it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) unexpected: bool,
    /// The receiver is no node of the cluster any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) removed: bool,
}

/// Finds out whether to form, and waits until all are there. Returns at once for a directory that
/// was formed before.
pub(super) async fn form(
    links: &PeerLinks,
    inbound: &mut Inbound,
    peers: &[NodeId],
    store_is_new: bool,
    data_dir: &Path,
) -> Result<Formation, FormationError> {
    let file = data_dir.join(FILE);
    let mut formation = match load(&file)? {
        Some(formation) if formation.removed => return Err(FormationError::Removed(file)),
        Some(formation) if !formation.members.is_empty() => return Ok(formation),
        Some(formation) if store_is_new => formation,
        None if store_is_new => {
            let formation = Formation::new(&file);
            save(&formation)?;
            formation
        }
        _ => return Err(FormationError::NotFormed(file)),
    };
    let mut heard: BTreeMap<u32, u64> = BTreeMap::new();
    let mut asked = 0;
    let mut unexpected = false;
    let mut ask = tokio::time::interval(ASK);
    tracing::info!(nodes = peers.len() + 1, "waiting for the other nodes to form the cluster");
    while heard.len() < peers.len() {
        tokio::select! {
            _ = ask.tick() => {
                asked += 1;
                for peer in peers {
                    let number = formation.number;
                    tell(links, *peer, &Word { number, asks: true, ..Word::default() });
                }
                if asked % PATIENCE == 0 && unexpected {
                    tracing::warn!("the cluster does not expect this node: let it in with `flintmq admin node add`");
                } else if asked % PATIENCE == 0 {
                    let missing: Vec<u32> =
                        peers.iter().map(|p| p.0).filter(|p| !heard.contains_key(p)).collect();
                    tracing::warn!(?missing, "still waiting for nodes to form the cluster");
                }
            }
            event = inbound.events.recv() => match event {
                Some(Event::PeerUp { .. } | Event::PeerDown { .. }) => {}
                None => return Err(FormationError::Stopping),
            },
            batch = inbound.gateway.recv() => {
                let Some(batch) = batch else { return Err(FormationError::Stopping) };
                for frame in &batch.frames {
                    let Some(word) = word_of(frame) else { continue };
                    if word.removed {
                        formation.part();
                        return Err(FormationError::Removed(file));
                    }
                    if word.formed_with.is_some_and(|number| number != formation.number) {
                        return Err(FormationError::Forgotten(batch.from));
                    }
                    if word.unexpected {
                        unexpected = true;
                        continue;
                    }
                    if let Some(partitions) = word.joins {
                        formation.joined = Some(partitions);
                        formation.nodes = word.nodes;
                        formation.members.insert(batch.from.0, word.number);
                        save(&formation)?;
                        tracing::info!(by = batch.from.0, partitions, "the cluster lets this node in");
                        return Ok(formation);
                    }
                    heard.insert(batch.from.0, word.number);
                    if word.asks {
                        let number = formation.number;
                        tell(links, batch.from, &Word { number, ..Word::default() });
                    }
                }
            }
        }
    }
    formation.members = heard;
    save(&formation)?;
    tracing::info!(nodes = peers.len() + 1, "the cluster is formed");
    // Those who have not heard yet hear it now rather than with their next question.
    for peer in peers {
        let (number, formed_with) = (formation.number, formation.members.get(&peer.0).copied());
        tell(links, *peer, &Word { number, formed_with, ..Word::default() });
    }
    Ok(formation)
}

pub(super) fn tell(links: &PeerLinks, to: NodeId, word: &Word) {
    if let Ok(word) = serde_json::to_vec(word) {
        // Nobody there yet: it is asked again.
        let _not_sent = links.send_gateway(to, FORMATION, Bytes::from(word));
    }
}

fn word_of(frame: &Bytes) -> Option<Word> {
    let (group, frame) = arrivals::split(frame.clone())?;
    if group != FORMATION {
        return None;
    }
    serde_json::from_slice(&frame).ok()
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
fn save(formation: &Formation) -> Result<(), FormationError> {
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
