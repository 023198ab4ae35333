//! What a session has done for it.

use std::sync::Arc;

use bytes::Bytes;
use flintmq_controller::Metadata;
use flintmq_controller::domain::Mode;
use flintmq_partition::{HandleRole, Open, Request, SessionId, Ticket};
use flintmq_protocol::control::{ClientIdentity, Encoding, StatusCategory};
use flintmq_queue::{Domain, HandleId, QueueId};

use crate::input::OpenId;
use crate::refusal::Refusal;

/// One thing to be done. Effects are carried out in their order, each before the next one.
#[derive(Debug)]
pub enum Effect {
    /// The client has negotiated, and is answered next: from now on partitions may have something
    /// for it.
    Established(Box<Client>),
    /// Hand whole events to the client, behind all that was handed to it before. May be empty.
    Send(Bytes),
    /// Hand a request to a partition. The host waits while the partition is busy, and reads nothing
    /// from the client meanwhile.
    ToPartition {
        /// The partition, numbered from 1.
        partition: u32,
        /// The request.
        request: Request,
        /// Bytes of PUTs in it, which count as unanswered from now on until the partition's
        /// `Effect::Send` gives them back.
        unanswered: usize,
    },
    /// Find the queue's place, or give it one. Answered by [`Input::Placed`](crate::Input::Placed);
    /// the session goes on meanwhile.
    Place(Box<PlaceQueue>),
    /// Open the queue in its partition. Answered by [`Input::Opened`](crate::Input::Opened); the
    /// session goes on meanwhile.
    Open(Box<OpenInPartition>),
    /// The client has this many handles open now.
    HandlesChanged(usize),
    /// End the session in all partitions; opens under way need no answer any more. Answered by
    /// [`Input::Ended`](crate::Input::Ended) when all partitions have answered.
    EndInPartitions {
        /// True when the client vanished: what it held counts as a failed delivery.
        lost: bool,
    },
    /// It is over, and no other effect follows. What was sent before still reaches the client, then
    /// these last events; nothing may be sent after them.
    Close {
        /// Whole events; may be empty.
        last: Bytes,
        /// Why.
        end: End,
    },
}

/// What a client said of itself in the negotiation.
#[derive(Clone, Debug)]
pub struct Client {
    /// Who it is, in its own words.
    pub identity: ClientIdentity,
    /// How its control messages are written.
    pub encoding: Encoding,
}

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// There was no agreement, for this reason.
    NotNegotiated(String),
    /// The client did not negotiate in time.
    NegotiatedTooLate,
    /// The client asked for it, and has its answer. It closes the connection: some clients take a
    /// node that closes first for one that failed.
    Disconnected,
    /// The client vanished or sent what cannot be served, for this reason.
    Lost(String),
    /// The node is stopping.
    NodeStops,
}

/// A queue whose place is wanted.
#[derive(Clone, Debug)]
pub struct PlaceQueue {
    /// To be given back with the answer.
    pub open: OpenId,
    /// Canonical URI.
    pub uri: String,
    /// The domain in it.
    pub domain: String,
    /// The app that the client named, unless it is the default one.
    pub app: Option<String>,
    /// Whether the client wants to read.
    pub reads: bool,
}

impl PlaceQueue {
    /// Only queues of fanout domains have apps, and their readers must name one. To be asked before
    /// the queue is given a place.
    ///
    /// # Errors
    /// What the client is answered.
    pub fn check(&self, metadata: &Metadata) -> Result<(), Refusal> {
        let domain = metadata.domain(&self.domain);
        let fanout = domain.is_some_and(|d| matches!(d.definition.mode, Mode::Fanout { .. }));
        match (fanout, &self.app) {
            (false, Some(app)) => Err(Refusal::new(
                StatusCategory::Refused,
                format!("only queues of fanout domains have apps: open it without ?id=, app={app}"),
            )),
            (true, None) if self.reads => Err(Refusal::new(
                StatusCategory::Refused,
                "a reader of a fanout queue must name its app: open it with ?id=APP",
            )),
            _ => Ok(()),
        }
    }
}

/// A queue that is to be opened in its partition, for one role.
#[derive(Clone, Debug)]
pub struct OpenInPartition {
    /// To be given back with the answer.
    pub open: OpenId,
    /// The partition, numbered from 1.
    pub partition: u32,
    /// The session.
    pub session: SessionId,
    /// Whether its client knows only the older layout of message properties.
    pub old_properties: bool,
    /// The queue's number.
    pub queue: QueueId,
    /// Canonical URI.
    pub uri: String,
    /// Its domain, should it have to be created.
    pub domain: Arc<Domain>,
    /// Reader or writer.
    pub role: HandleRole,
}

impl OpenInPartition {
    /// The request, with the two numbers that are the host's to give: a ticket for the answer, and
    /// a handle that is unique in the cluster.
    pub fn request(&self, ticket: Ticket, handle: HandleId) -> Request {
        Request::Open(Box::new(Open {
            ticket,
            session: self.session,
            old_properties: self.old_properties,
            handle,
            queue: self.queue,
            uri: self.uri.clone(),
            domain: Arc::clone(&self.domain),
            role: self.role,
        }))
    }
}
