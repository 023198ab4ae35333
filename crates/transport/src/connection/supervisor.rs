//! Keeps one connection to one peer: dials, takes what the peer dials, decides which one stays, and
//! begins again when it is lost.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, ConnectionError};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout};

use super::Quic;
use super::accepting::{Offer, refuse};
use super::dialing::{DialError, Welcomed, dial};
use super::hello::{Refusal, Reply, formations_agree};
use super::preference::{Claim, takes_over};
use super::session::Session;
use crate::backoff::Backoff;
use crate::delivery::Event;
use crate::node::Node;
use crate::peer::Peer;

/// How often round-trip times and losses are looked at.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Supervisor {
    node: Arc<Node>,
    quic: Arc<Quic>,
    peer: Arc<Peer>,
    offers: mpsc::Receiver<Offer>,
    session: Option<Session>,
    dialing: Option<JoinHandle<Result<Welcomed, DialError>>>,
    dialed_at: Instant,
    next_dial: Instant,
    attempts: usize,
    backoff: Backoff,
    measuring: Interval,
    formation: watch::Receiver<u64>,
}

/// What a supervisor waits for.
enum Happening {
    Gone,
    Offered(Offer),
    Dialed(Result<Welcomed, DialError>),
    Lost(ConnectionError),
    MayDial,
    Measure,
    Formed,
}

impl Supervisor {
    pub(crate) fn new(
        node: Arc<Node>,
        quic: Arc<Quic>,
        peer: Arc<Peer>,
        offers: mpsc::Receiver<Offer>,
    ) -> Self {
        let settings = &node.settings;
        let seed =
            settings.incarnation ^ (u64::from(settings.node.0) << 32) ^ u64::from(peer.node.0);
        let backoff = Backoff::new(settings.backoff_min, settings.backoff_max, seed);
        let mut measuring = interval(MEASURE_EVERY);
        measuring.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut supervisor = Self {
            quic,
            offers,
            session: None,
            dialing: None,
            dialed_at: Instant::now(),
            next_dial: Instant::now(),
            attempts: 0,
            backoff,
            measuring,
            formation: node.watch_formation(),
            node,
            peer,
        };
        supervisor.dial_in(Duration::ZERO);
        supervisor
    }

    /// Runs until the peer is removed or the node stops.
    pub(crate) async fn run(mut self) {
        loop {
            match self.next().await {
                Happening::Gone => break,
                Happening::Offered(offer) => self.consider(offer).await,
                Happening::Dialed(Ok(welcomed)) => self.dialed(welcomed).await,
                Happening::Dialed(Err(error)) => self.failed(&error),
                Happening::Lost(error) => self.lost(&describe(&error)).await,
                Happening::MayDial => self.dial(),
                Happening::Formed => self.formed().await,
                Happening::Measure => {
                    if let Some(session) = &mut self.session {
                        session.measure(&self.peer);
                    }
                }
            }
        }
        self.leave().await;
    }

    async fn next(&mut self) -> Happening {
        let may_dial = self.session.is_none() && self.dialing.is_none();
        let dialed = async {
            match &mut self.dialing {
                Some(dialing) => dialing.await,
                None => pending().await,
            }
        };
        let lost = async {
            match &self.session {
                Some(session) => session.connection.closed().await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.peer.gone.cancelled() => Happening::Gone,
            Ok(()) = self.formation.changed() => Happening::Formed,
            Some(offer) = self.offers.recv() => Happening::Offered(offer),
            result = dialed => {
                self.dialing = None;
                // It is never cancelled while it is waited for, and does not panic.
                Happening::Dialed(result.unwrap_or(Err(DialError::NoAnswer)))
            }
            error = lost => Happening::Lost(error),
            () = sleep_until(self.next_dial), if may_dial => Happening::MayDial,
            _ = self.measuring.tick(), if self.session.is_some() => Happening::Measure,
        }
    }

    /// A connection that the peer dialled.
    async fn consider(&mut self, offer: Offer) {
        let Offer { connection, incarnation, version, formation, mut answer } = offer;
        let claim = Claim { incarnation, dialed_by: self.peer.node };
        let is_own_turn = self.session.is_none() && self.is_about_to_connect();
        let admitted = if is_own_turn { Err(Refusal::Busy) } else { self.admits(claim, formation) };
        if let Err(refusal) = admitted {
            if refusal == Refusal::OtherFormation {
                self.failed(&DialError::Refused(refusal.clone()));
            }
            if refusal == Refusal::Stale {
                tracing::error!(
                    peer = %self.peer.node,
                    "refused an earlier process of a peer; two processes run as the same node, \
                     stop one of them"
                );
            }
            self.node.spawn(async move { refuse(&connection, answer, refusal).await });
            return;
        }
        let own = self.node.settings.incarnation;
        let formation = self.node.formation();
        let welcome = Reply::Welcome { incarnation: own, version, formation };
        // Some bytes: it only takes time if the peer does not let them through.
        let limit = self.node.settings.dial_timeout;
        if let Ok(Ok(())) = timeout(limit, welcome.send(&mut answer)).await {
            self.adopt(connection, claim, version).await;
        }
    }

    /// This node's own attempt is the one that would stay, and is young enough to succeed. If it
    /// does not, because only the peer can dial, the peer's next attempt is taken.
    fn is_about_to_connect(&self) -> bool {
        let settings = &self.node.settings;
        settings.node < self.peer.node
            && self.dialing.is_some()
            && self.dialed_at.elapsed() < settings.dial_timeout / 2
    }

    /// A connection that this node dialled.
    async fn dialed(&mut self, welcomed: Welcomed) {
        let Welcomed { connection, incarnation, version, formation } = welcomed;
        let claim = Claim { incarnation, dialed_by: self.node.settings.node };
        match self.admits(claim, formation) {
            Ok(()) => self.adopt(connection, claim, version).await,
            Err(refusal @ Refusal::OtherFormation) => {
                connection.close(u32::from(refusal.code()).into(), b"");
                self.failed(&DialError::Refused(refusal));
            }
            Err(refusal) => {
                tracing::debug!(peer = %self.peer.node, %refusal, "gave up a connection");
                connection.close(u32::from(refusal.code()).into(), b"");
                let wait = self.backoff.after_failure();
                self.dial_in(wait);
            }
        }
    }

    fn admits(&self, claim: Claim, formation: u64) -> Result<(), Refusal> {
        if !formations_agree(self.node.formation(), formation) {
            return Err(Refusal::OtherFormation);
        }
        if claim.incarnation < self.peer.incarnation() {
            return Err(Refusal::Stale);
        }
        match &self.session {
            Some(present) if !self.takes_over(claim, present.claim) => Err(Refusal::Duplicate),
            _ => Ok(()),
        }
    }

    fn takes_over(&self, new: Claim, present: Claim) -> bool {
        takes_over(self.node.settings.node, self.peer.node, new, present)
    }

    /// Makes this the connection in use.
    async fn adopt(&mut self, connection: Connection, claim: Claim, version: u16) {
        self.end("replaced by another connection between the same nodes").await;
        let number = self.node.next_connection();
        let (peer, incarnation) = (self.peer.node, claim.incarnation);
        tracing::info!(
            %peer, incarnation, connection = number, dialed_by = %claim.dialed_by,
            address = %connection.remote_address(), "connected to a node"
        );
        // The user may send as soon as it hears of the connection, and hears of it before it
        // receives anything.
        self.peer.connected(number, incarnation);
        let up = Event::PeerUp { peer, incarnation, connection: number, version };
        self.node.tell(up).await;
        self.session = Some(Session::start(&self.node, &self.peer, connection, claim, number));
        self.measuring.reset();
    }

    /// Everything is greeted again: what was connected before was not checked.
    async fn formed(&mut self) {
        self.formation.mark_unchanged();
        if let Some(dialing) = self.dialing.take() {
            dialing.abort();
        }
        self.end("the cluster's formation is known now").await;
        self.dial_in(Duration::ZERO);
    }

    async fn lost(&mut self, reason: &str) {
        tracing::warn!(peer = %self.peer.node, reason, "lost the connection to a node");
        let was_of_use = self
            .session
            .as_ref()
            .is_some_and(|session| session.begun.elapsed() > 2 * self.node.settings.backoff_max);
        if was_of_use {
            self.backoff.reset();
        }
        self.end(reason).await;
        let wait = self.backoff.after_failure();
        self.dial_in(wait);
    }

    /// Ends the connection in use, if there is one.
    async fn end(&mut self, reason: &str) {
        let Some(session) = self.session.take() else { return };
        let connection = session.number;
        self.peer.disconnected(reason);
        session.end(reason).await;
        let (peer, reason) = (self.peer.node, reason.to_owned());
        self.node.tell(Event::PeerDown { peer, connection, reason }).await;
    }

    fn failed(&mut self, error: &DialError) {
        // The peer dials this node, and that is the connection which stays.
        let is_well = matches!(error, DialError::Refused(Refusal::Duplicate | Refusal::Busy));
        if self.session.is_none() && !is_well && self.peer.failed(&error.to_string()) {
            let address = &self.peer.address;
            tracing::warn!(peer = %self.peer.node, address, %error, "cannot connect to a node");
        }
        let wait = self.backoff.after_failure();
        self.dial_in(wait);
    }

    /// The node with the smaller number goes first, so that mostly only one of the two dials.
    fn dial_in(&mut self, wait: Duration) {
        let settings = &self.node.settings;
        let courtesy =
            if settings.node < self.peer.node { Duration::ZERO } else { settings.backoff_min };
        self.next_dial = Instant::now() + wait + courtesy;
    }

    fn dial(&mut self) {
        let (node, quic, peer) =
            (Arc::clone(&self.node), Arc::clone(&self.quic), Arc::clone(&self.peer));
        let attempt = self.attempts;
        self.dialed_at = Instant::now();
        self.attempts = self.attempts.wrapping_add(1);
        self.dialing = Some(tokio::spawn(async move { dial(&node, &quic, &peer, attempt).await }));
    }

    /// Last words, when the node stops; none when the peer was removed.
    async fn leave(&mut self) {
        if let Some(dialing) = self.dialing.take() {
            dialing.abort();
        }
        let grace = self.node.grace();
        if let Some(session) = &mut self.session
            && !grace.is_zero()
        {
            for (_, queue) in self.peer.queues() {
                queue.drain();
            }
            session.drain(grace).await;
        }
        self.end("the node stops, or the peer was removed").await;
        if !self.node.stop.is_cancelled() {
            self.peer.removed();
        }
    }
}

/// For the log and the user.
fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TimedOut => "the peer was not heard any more".to_owned(),
        ConnectionError::Reset => "the peer's process is another one now".to_owned(),
        ConnectionError::LocallyClosed => "this node closed the connection".to_owned(),
        ConnectionError::ApplicationClosed(close) => {
            format!("the peer closed the connection: {}", String::from_utf8_lossy(&close.reason))
        }
        other => other.to_string(),
    }
}
