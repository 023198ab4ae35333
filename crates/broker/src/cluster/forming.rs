//! The conversation of nodes that do not belong to a cluster yet, with each other and with those
//! that do: it ends when this node is a founder, or is admitted ([`super::formation`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flintmq_consensus::NodeId;
use flintmq_peer_message::{Addressee, PeerMessage};
use flintmq_transport::{Event, Inbound};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::PeerLinks;
use super::formation::{Formation, FormationError, save};
use super::founding::{Founders, Founding, Showing};

/// How often a node asks again.
const ASK: Duration = Duration::from_millis(100);

/// After how many questions the log says what the node waits for.
const PATIENCE: u32 = 50;

/// What nodes say to each other about it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct FormationMessage {
    /// The sender's number.
    pub(super) number: u64,
    /// The number that the sender knows the receiver by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) formed_with: Option<u64>,
    /// Whether an answer is wanted.
    #[serde(default)]
    pub(super) asks: bool,
    /// The sender formed long ago and finds no leader of the controller: which nodes are there?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) looks: bool,
    /// The receiver comes to a cluster that is there already and has so many partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) joins: Option<u32>,
    /// With `joins`, or as the answer to `looks`: all nodes and where they are reached.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) nodes: BTreeMap<u32, String>,
    /// With whom the cluster began, when the sender knows it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) founders: Founders,
    /// How far the sender is in agreeing on that, while it does not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) showing: Option<Showing>,
    /// The receiver comes to a cluster that does not expect it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) unexpected: bool,
    /// The receiver is no node of the cluster any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) removed: bool,
}

/// Waits until this node is a founder or is admitted. Returns at once for a directory with which it
/// was before. `reason` says meanwhile what it waits for.
pub(super) async fn form(
    links: &PeerLinks,
    inbound: &mut Inbound,
    own: NodeId,
    peers: &[NodeId],
    formation: Formation,
    reason: &watch::Sender<String>,
) -> Result<Formation, FormationError> {
    if formation.is_formed(own) {
        return Ok(formation);
    }
    let nodes: BTreeSet<u32> = peers.iter().chain([&own]).map(|node| node.0).collect();
    let founding =
        Founding::new(own.0, formation.number, nodes.clone(), formation.position.clone());
    let mut waiting = Waiting { links, own, peers, formation, founding, unexpected: false };
    let began = Instant::now();
    let now = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut asked: u32 = 0;
    let mut ask = tokio::time::interval(ASK);
    tracing::info!(nodes = nodes.len(), "waiting for the other nodes to form the cluster");
    loop {
        tokio::select! {
            _ = ask.tick() => {
                asked = asked.wrapping_add(1);
                if waiting.tick(now())? {
                    break;
                }
                let text = waiting.reason(now());
                if asked.is_multiple_of(PATIENCE) {
                    tracing::warn!("still waiting for nodes: {text}");
                }
                reason.send_replace(text);
            }
            event = inbound.events.recv() => match event {
                Some(Event::PeerUp { .. } | Event::PeerDown { .. }) => {}
                None => return Err(FormationError::Stopping),
            },
            batch = inbound.gateway.recv() => {
                let Some(batch) = batch else { return Err(FormationError::Stopping) };
                let mut is_over = false;
                for message in batch.frames.iter().filter_map(formation_message) {
                    is_over |= waiting.hear(batch.from, message, now())?;
                }
                if is_over {
                    break;
                }
            }
        }
    }
    // Those who have not heard yet hear it now rather than with their next question.
    waiting.tell_all(false);
    reason.send_replace("the node is starting".to_owned());
    Ok(waiting.formation)
}

/// A node that does not belong to a cluster yet.
struct Waiting<'a> {
    links: &'a PeerLinks,
    own: NodeId,
    peers: &'a [NodeId],
    formation: Formation,
    founding: Founding,
    /// The cluster does not expect this node.
    unexpected: bool,
}

impl Waiting<'_> {
    /// Asks again. True when the waiting is over, as for the others here.
    fn tick(&mut self, now: u64) -> Result<bool, FormationError> {
        if self.formation.founders.is_empty() && self.founding.tick(now) {
            self.keep_position()?;
        }
        let is_over = self.look_for_founders()?;
        self.tell_all(true);
        Ok(is_over)
    }

    fn hear(
        &mut self,
        from: NodeId,
        message: FormationMessage,
        now: u64,
    ) -> Result<bool, FormationError> {
        if message.removed {
            let file = self.formation.file.clone();
            self.formation.clone().part();
            return Err(FormationError::Removed(file));
        }
        if message.formed_with.is_some_and(|number| number != self.formation.number) {
            return Err(FormationError::Forgotten(from));
        }
        self.unexpected = message.unexpected;
        if let Some(partitions) = message.joins {
            self.formation.joined = Some(partitions);
            self.formation.nodes = message.nodes;
            self.formation.founders = message.founders;
            save(&self.formation)?;
            tracing::info!(by = from.0, partitions, "the cluster admits this node");
            return Ok(true);
        }
        if !message.founders.is_empty() {
            return self.learn(from, message.founders);
        }
        if let Some(showing) = message.showing.filter(|_| self.formation.founders.is_empty()) {
            let changed = self.founding.hear(from.0, message.number, showing, now);
            if changed {
                self.keep_position()?;
            }
            let is_over = self.look_for_founders()?;
            if changed && !is_over {
                self.tell_all(false);
            }
            return Ok(is_over);
        }
        if message.asks {
            self.tell(from, false);
        }
        Ok(false)
    }

    fn look_for_founders(&mut self) -> Result<bool, FormationError> {
        match self.founding.chosen().cloned() {
            Some(founders) => self.learn(self.own, founders),
            None => Ok(false),
        }
    }

    /// The founders are known; also a node that is none of them remembers and tells them.
    fn learn(&mut self, from: NodeId, founders: Founders) -> Result<bool, FormationError> {
        if founders.get(&self.own.0).is_some_and(|number| *number != self.formation.number) {
            return Err(FormationError::Forgotten(from));
        }
        if self.formation.founders.is_empty() {
            let nodes: Vec<u32> = founders.keys().copied().collect();
            self.formation.founders = founders;
            save(&self.formation)?;
            if self.formation.is_formed(self.own) {
                tracing::info!(?nodes, "the cluster is formed");
            } else {
                tracing::info!(?nodes, "the cluster was formed without this node, which joins it");
            }
        } else if self.formation.founders != founders {
            tracing::error!(
                from = from.0, known = ?self.formation.founders.keys(), told = ?founders.keys(),
                "the cluster was formed twice, because nodes had lost their data directories: \
                 keep the nodes that have the messages, and give the others new ids and empty \
                 directories"
            );
        }
        Ok(self.formation.is_formed(self.own))
    }

    fn keep_position(&mut self) -> Result<(), FormationError> {
        self.founding.position().clone_into(&mut self.formation.position);
        save(&self.formation)
    }

    fn tell_all(&self, asks: bool) {
        self.peers.iter().for_each(|peer| self.tell(*peer, asks));
    }

    fn tell(&self, to: NodeId, asks: bool) {
        let founders = self.formation.founders.clone();
        let showing = founders.is_empty().then(|| self.founding.showing());
        let number = self.formation.number;
        let message =
            FormationMessage { number, asks, founders, showing, ..FormationMessage::default() };
        send(self.links, to, &message);
    }

    /// What this node waits for, for an operator.
    fn reason(&self, now: u64) -> String {
        if self.unexpected {
            "the cluster does not expect this node: add it with `flintmq admin node add`".into()
        } else if !self.formation.founders.is_empty() {
            let founders: Vec<_> = self.formation.founders.keys().collect();
            format!(
                "the cluster is formed, and admits this node when a majority serves, nodes={founders:?}"
            )
        } else {
            let missing = self.founding.missing(now);
            format!(
                "the cluster is not formed: it needs a majority of [[cluster_nodes]], missing={missing:?}"
            )
        }
    }
}

pub(super) fn send(links: &PeerLinks, to: NodeId, message: &FormationMessage) {
    if let Ok(body) = serde_json::to_vec(message) {
        // Not connected yet: it is asked again.
        let message = PeerMessage::new(Addressee::Formation, Bytes::from(body));
        let _not_sent = links.send_message(to, message);
    }
}

/// None for a message about something else, which comes from a node that has formed, and for one
/// that this version cannot read: the sender repeats it, and waits.
fn formation_message(frame: &Bytes) -> Option<FormationMessage> {
    let message = PeerMessage::decode(frame.clone()).ok()?;
    if message.to != Addressee::Formation {
        return None;
    }
    serde_json::from_slice(&message.body).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_of_another_node_panic_the_decoder(noise: Vec<u8>, at: usize, byte: u8) {
            let _ = formation_message(&Bytes::from(noise));
            let message = FormationMessage { number: 7, asks: true, ..Default::default() };
            let body = Bytes::from(serde_json::to_vec(&message).unwrap());
            let message = PeerMessage::new(Addressee::Formation, body);
            let mut frame = [message.head(), message.body].concat();
            let whole = formation_message(&Bytes::from(frame.clone())).unwrap();
            prop_assert!(whole.number == 7 && whole.asks && !whole.removed);
            let at = at % frame.len();
            frame[at] = byte;
            let _ = formation_message(&Bytes::from(frame));
        }
    }
}
