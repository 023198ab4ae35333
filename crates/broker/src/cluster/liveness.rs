//! Who lives, once for all groups: one beat per pair of nodes stands for all of them.

use std::collections::BTreeSet;

use flintmq_consensus::{NodeCore, NodeEffect, NodeId, NodeInput, NodeSettings, Packet};
use flintmq_transport::{Event, Lane};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::PeerLinks;
use crate::host::{Alarm, CoreClock, ShardSender, Signal};

/// Greets the others and tells all groups who can be reached.
pub(super) struct Liveness {
    /// Without groups: they have tasks of their own.
    core: NodeCore,
    links: PeerLinks,
    clock: CoreClock,
    shard: ShardSender,
    /// The nodes that can be reached, for those who ask.
    reachable: watch::Sender<BTreeSet<NodeId>>,
}

impl Liveness {
    pub(super) fn new(
        settings: NodeSettings,
        links: PeerLinks,
        clock: CoreClock,
        shard: ShardSender,
        reachable: watch::Sender<BTreeSet<NodeId>>,
    ) -> Self {
        Self { core: NodeCore::new(settings), links, clock, shard, reachable }
    }

    /// Runs until stopped. `changes` tell of nodes that come and go.
    pub(super) async fn run(
        mut self,
        mut heard: mpsc::Receiver<Packet>,
        mut events: mpsc::Receiver<Event>,
        mut changes: mpsc::Receiver<NodeInput>,
        stop: CancellationToken,
    ) {
        let mut alarm = Alarm::new(self.clock);
        loop {
            self.flush();
            let input = tokio::select! {
                Some(packet) = heard.recv() => NodeInput::Packet(packet),
                Some(event) = events.recv() => match event {
                    Event::PeerUp { peer, .. } => NodeInput::Connected { peer },
                    Event::PeerDown { peer, .. } => NodeInput::Disconnected { peer },
                },
                Some(change) = changes.recv() => {
                    if let NodeInput::RemovePeer { peer } = &change {
                        self.shard.signal(Signal::PeerRemoved { peer: *peer });
                    }
                    change
                }
                () = alarm.ring(self.core.next_deadline()) => NodeInput::Tick,
                () = stop.cancelled() => return,
            };
            self.core.step(self.clock.now(), input);
        }
    }

    fn flush(&mut self) {
        let mut effects = Vec::new();
        self.core.flush(self.clock.now(), &mut effects);
        for effect in effects {
            match effect {
                NodeEffect::Send { packet, .. } => self.links.send_packet(&packet, Lane::URGENT),
                NodeEffect::PeerSuspected { peer } => {
                    tracing::warn!(peer = peer.0, "node cannot be reached");
                    self.tell(peer, false, false);
                }
                NodeEffect::PeerTrusted { peer, restarted, .. } => {
                    tracing::info!(peer = peer.0, restarted, "node can be reached");
                    self.tell(peer, true, restarted);
                }
                // It has no groups.
                NodeEffect::SaveHardStates { .. } | NodeEffect::Group { .. } => {}
            }
        }
    }

    fn tell(&self, peer: NodeId, up: bool, restarted: bool) {
        let process = self.core.peer(peer).map_or(0, |state| state.incarnation);
        self.shard.signal(Signal::Peer { peer, up, process, restarted });
        self.reachable.send_modify(|reachable| {
            if up {
                reachable.insert(peer);
            } else {
                reachable.remove(&peer);
            }
        });
    }
}
