//! Who lives, once for all groups: one beat per pair of nodes stands for all of them.

use flintmq_consensus::{NodeCore, NodeEffect, NodeInput, NodeSettings, Packet};
use flintmq_transport::{Event, Lane};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{FromPeer, Mailboxes, PeerLinks};
use crate::replica::{Alarm, CoreClock};

/// Greets the others and tells all groups who can be reached.
pub(super) struct Liveness {
    /// Without groups: they have tasks of their own.
    core: NodeCore,
    links: PeerLinks,
    clock: CoreClock,
    mailboxes: Mailboxes,
}

impl Liveness {
    pub(super) fn new(
        settings: NodeSettings,
        links: PeerLinks,
        clock: CoreClock,
        mailboxes: Mailboxes,
    ) -> Self {
        Self { core: NodeCore::new(settings), links, clock, mailboxes }
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
            self.flush().await;
            let input = tokio::select! {
                Some(packet) = heard.recv() => NodeInput::Packet(packet),
                Some(event) = events.recv() => match event {
                    Event::PeerUp { peer, .. } => NodeInput::Connected { peer },
                    Event::PeerDown { peer, .. } => NodeInput::Disconnected { peer },
                },
                Some(change) = changes.recv() => change,
                () = alarm.ring(self.core.next_deadline()) => NodeInput::Tick,
                () = stop.cancelled() => return,
            };
            self.core.step(self.clock.now(), input);
        }
    }

    async fn flush(&mut self) {
        let mut effects = Vec::new();
        self.core.flush(self.clock.now(), &mut effects);
        for effect in effects {
            match effect {
                NodeEffect::Send { packet, .. } => self.links.send_packet(&packet, Lane::URGENT),
                NodeEffect::PeerSuspected { peer } => {
                    tracing::warn!(peer = peer.0, "node cannot be reached");
                    self.tell(|| FromPeer::Down { peer }).await;
                }
                NodeEffect::PeerTrusted { peer, restarted, .. } => {
                    tracing::info!(peer = peer.0, restarted, "node can be reached");
                    self.tell(|| FromPeer::Up { peer, restarted }).await;
                }
                NodeEffect::PeerUnfit { .. } => {}
                // It has no groups.
                NodeEffect::SaveHardStates { .. } | NodeEffect::Group { .. } => {}
            }
        }
    }

    /// Waits for groups that are busy: none may miss it.
    async fn tell(&self, what: impl Fn() -> FromPeer) {
        for mailbox in self.mailboxes.values() {
            let _task_gone = mailbox.send(what()).await;
        }
    }
}
