//! Who lives, once for all groups: one beat per pair of nodes stands for all of them.
//!
//! A node whose shard does not get on is silent, so that the others take its leaderships over:
//! whether the shard gets on it shows by answering a signal.

use std::collections::BTreeSet;
use std::time::Duration;

use flintmq_consensus::{NodeCore, NodeEffect, NodeId, NodeInput, NodeSettings, Packet};
use flintmq_transport::{Event, Lane};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::PeerLinks;
use crate::host::{Alarm, CoreClock, Fitness, ShardSender, Signal, names};

/// Greets the others and tells all groups who can be reached.
pub(super) struct Liveness {
    /// Without groups: they are in the shard, whose turns may wait for the disk.
    core: NodeCore,
    links: PeerLinks,
    clock: CoreClock,
    fitness: Fitness,
    /// The other nodes of the cluster.
    peers: BTreeSet<NodeId>,
    shard: ShardSender,
    /// The nodes that can be reached, for those who ask.
    reachable: watch::Sender<BTreeSet<NodeId>>,
    /// How long the shard may take to answer.
    watchdog: Duration,
    /// Since when it has been asked, and its answer.
    asked: Option<(Instant, oneshot::Receiver<()>)>,
    stalled: bool,
}

/// How often the shard is asked whether it gets on.
const WATCH: Duration = Duration::from_millis(100);

impl Liveness {
    pub(super) fn new(
        settings: NodeSettings,
        links: PeerLinks,
        clock: CoreClock,
        fitness: Fitness,
        shard: ShardSender,
        reachable: watch::Sender<BTreeSet<NodeId>>,
    ) -> Self {
        let watchdog = settings.watchdog;
        let peers: BTreeSet<NodeId> = settings.peers.iter().copied().collect();
        let core = NodeCore::new(settings);
        Self {
            core,
            links,
            clock,
            fitness,
            peers,
            shard,
            reachable,
            watchdog,
            asked: None,
            stalled: false,
        }
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
        let mut unfit = self.fitness.watch_unfit();
        unfit.mark_changed();
        let mut watch = tokio::time::interval(WATCH);
        watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.flush();
            let input = tokio::select! {
                Some(packet) = heard.recv() => {
                    self.compare_clocks(&packet);
                    NodeInput::Packet(packet)
                }
                Some(event) = events.recv() => match event {
                    Event::PeerUp { peer, .. } => NodeInput::Connected { peer },
                    Event::PeerDown { peer, .. } => NodeInput::Disconnected { peer },
                },
                Some(change) = changes.recv() => {
                    self.note_change(&change);
                    change
                }
                Ok(()) = unfit.changed() => NodeInput::Unfit { reasons: *unfit.borrow_and_update() },
                () = alarm.ring(self.core.next_deadline()) => NodeInput::Tick,
                _ = watch.tick() => match self.watch_shard() {
                    Some(news) => news,
                    None => continue,
                },
                () = stop.cancelled() => return,
            };
            self.core.step(self.clock.now(), input);
        }
    }

    fn note_change(&mut self, change: &NodeInput) {
        match *change {
            NodeInput::RemovePeer { peer } => {
                self.shard.signal(Signal::PeerRemoved { peer });
                self.peers.remove(&peer);
                self.fitness.nodes(self.peers.len() + 1, Some(peer));
            }
            NodeInput::AddPeer { peer } => {
                self.peers.insert(peer);
                self.fitness.nodes(self.peers.len() + 1, None);
            }
            _ => {}
        }
    }

    /// Takes what a beat of another node of the cluster says of the time.
    fn compare_clocks(&self, packet: &Packet) {
        let clocks = packet.clocks.filter(|_| self.peers.contains(&packet.from));
        if clocks.is_some_and(|clocks| self.fitness.heard(packet.from, clocks)) {
            self.shard.signal(Signal::Clock);
        }
    }

    /// Whether the shard got on since the last time, where that is news.
    fn watch_shard(&mut self) -> Option<NodeInput> {
        let answered = self.asked.as_mut().map(|(_, answer)| answer.try_recv().is_ok());
        match (answered, &self.asked) {
            (Some(false), Some((since, _))) => {
                let stalled = since.elapsed() >= self.watchdog && !self.stalled;
                self.stalled |= stalled;
                if stalled {
                    tracing::error!(
                        "this node's groups do not get on, is its disk stalled? Others are to lead them"
                    );
                }
                return stalled.then_some(NodeInput::Stalled);
            }
            _ => self.asked = None,
        }
        let (alive, answer) = oneshot::channel();
        self.shard.signal(Signal::Alive(alive));
        self.asked = Some((Instant::now(), answer));
        if std::mem::take(&mut self.stalled) {
            tracing::warn!("this node's groups get on again");
            return Some(NodeInput::Resumed);
        }
        None
    }

    fn flush(&mut self) {
        let mut effects = Vec::new();
        self.core.flush(self.clock.now(), &mut effects);
        for effect in effects {
            match effect {
                NodeEffect::Send { mut packet, .. } => {
                    packet.clocks = Some(self.fitness.says());
                    self.links.send_packet(&packet, Lane::URGENT);
                }
                NodeEffect::PeerSuspected { peer } => {
                    tracing::warn!(peer = peer.0, "node cannot be reached");
                    self.tell(peer, false, false);
                }
                NodeEffect::PeerTrusted { peer, restarted, .. } => {
                    tracing::info!(peer = peer.0, restarted, "node can be reached");
                    self.tell(peer, true, restarted);
                }
                NodeEffect::PeerUnfit { peer, reasons } => {
                    tracing::info!(peer = peer.0, reasons = ?names(reasons), "what keeps a node from leading changed");
                    self.shard.signal(Signal::PeerUnfit { peer, reasons });
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
