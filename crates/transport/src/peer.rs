//! What a node keeps for each peer, whichever network connects them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flintmq_consensus::NodeId;
use tokio_util::sync::CancellationToken;

use crate::class::Lanes;
use crate::metrics::{LaneMeter, PeerMeter};
use crate::send_queue::SendQueue;
use crate::{Class, Lane, Settings};

/// How things stand with a peer, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The peer.
    pub node: NodeId,
    /// Where it is dialled.
    pub address: String,
    /// Which process of it was heard last; 0 for none.
    pub incarnation: u64,
    /// The connection in use, as in [`crate::Event::PeerUp`].
    pub connection: Option<u64>,
    /// Smoothed round-trip time of that connection, about a second old.
    pub round_trip: Option<Duration>,
    /// Bytes that wait to be sent, of all lanes.
    pub waiting_bytes: usize,
    /// Why there is no connection, or why the last one ended, with what to do about it.
    pub last_error: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    pub(crate) address: String,
    pub(crate) meter: PeerMeter,
    /// The peer was removed, or this node stops.
    pub(crate) gone: CancellationToken,
    lanes: Lanes,
    queues: Vec<Arc<SendQueue>>,
    incarnation: AtomicU64,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    connection: Option<u64>,
    round_trip: Option<Duration>,
    last_error: Option<String>,
}

impl Peer {
    pub(crate) fn new(
        settings: &Settings,
        node: NodeId,
        address: String,
        gone: CancellationToken,
    ) -> Self {
        let lanes = Lanes::of(settings);
        let meters = Class::ALL.map(|class| (class, LaneMeter::new(node, class)));
        let queue = |lane: Lane| {
            let meter = meters.iter().find(|(class, _)| *class == lane.class);
            let meter = meter.map_or_else(|| LaneMeter::new(node, lane.class), |(_, m)| m.clone());
            Arc::new(SendQueue::new(node, lane.class, settings.limits(lane.class), meter))
        };
        Self {
            node,
            address,
            meter: PeerMeter::new(node),
            gone,
            queues: lanes.all().map(queue).collect(),
            lanes,
            incarnation: AtomicU64::new(0),
            known: Mutex::default(),
        }
    }

    /// The lane's queue. There is one for every lane.
    pub(crate) fn queue(&self, lane: Lane) -> Option<&Arc<SendQueue>> {
        self.queues.get(self.lanes.place(lane))
    }

    pub(crate) fn queues(&self) -> impl Iterator<Item = (Lane, &Arc<SendQueue>)> {
        self.lanes.all().zip(&self.queues)
    }

    /// The latest process of the peer that was heard of.
    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Relaxed)
    }

    /// A connection comes into use: frames are accepted.
    pub(crate) fn connected(&self, connection: u64, incarnation: u64) {
        self.incarnation.fetch_max(incarnation, Ordering::Relaxed);
        for queue in &self.queues {
            queue.open();
        }
        self.with_known(|known| {
            known.connection = Some(connection);
            known.last_error = None;
        });
        self.meter.connected.set(1.0);
        self.meter.connections.increment(1);
    }

    /// The connection in use is lost, and with it what waits.
    pub(crate) fn disconnected(&self, reason: &str) {
        for queue in &self.queues {
            queue.close();
        }
        self.with_known(|known| {
            *known = Known { last_error: Some(reason.to_owned()), ..Known::default() };
        });
        self.meter.connected.set(0.0);
    }

    /// The peer is no peer any more: that there is no connection is nothing to tell.
    pub(crate) fn removed(&self) {
        self.meter.connected.set(f64::NAN);
    }

    /// Remembers why there is no connection. True when it is another reason than before.
    pub(crate) fn failed(&self, reason: &str) -> bool {
        self.meter.dial_failures.increment(1);
        self.with_known(|known| {
            let is_news = known.last_error.as_deref() != Some(reason);
            known.last_error = Some(reason.to_owned());
            is_news
        })
    }

    pub(crate) fn measured(&self, round_trip: Duration) {
        self.meter.round_trip.set(round_trip.as_secs_f64());
        self.with_known(|known| known.round_trip = Some(round_trip));
    }

    pub(crate) fn status(&self) -> PeerStatus {
        self.with_known(|known| PeerStatus {
            node: self.node,
            address: self.address.clone(),
            incarnation: self.incarnation(),
            connection: known.connection,
            round_trip: known.round_trip,
            waiting_bytes: self.queues.iter().map(|queue| queue.waiting_bytes()).sum(),
            last_error: known.last_error.clone(),
        })
    }

    fn with_known<T>(&self, act: impl FnOnce(&mut Known) -> T) -> T {
        act(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
