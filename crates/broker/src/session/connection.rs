//! The life of one connection: negotiate, read events and sort them, notice silence, take leave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flintmq_partition::{Publish, Request};
use flintmq_protocol::control::ControlChoice;
use flintmq_protocol::event::{Event, EventType, Frame, HEARTBEAT_REQUEST, HEARTBEAT_RESPONSE};
use flintmq_protocol::frame::{FrameDecoder, FrameError};
use metrics::Counter;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::confirm::Confirmer;
use super::context::SessionContext;
use super::control::Next;
use super::directory::{ClientInfo, Listed};
use super::handles::Handles;
use super::negotiation::{self, BrokerIdentity, Negotiated, Step};
use super::opening::Opened;
use super::publish::{GuidSource, Publisher};
use super::read_room::ReadRoom;
use super::socket::SplitSocket;
use super::{SessionMetrics, farewell, writer};
use crate::link::{Ending, InFlight, Outbox, Partial, SessionId, SessionLink};

/// PUTs collected before they are handed on although more of the same read are left.
const FLUSH_BYTES: usize = 1 << 20;

/// One negotiated session, as its reader sees it.
pub(crate) struct Session {
    pub(crate) context: Arc<SessionContext>,
    pub(crate) link: Arc<SessionLink>,
    pub(crate) handles: Handles,
    pub(crate) opening: JoinSet<Opened>,
    publisher: Publisher,
    confirmer: Confirmer,
    answers_heartbeats: bool,
    pub(crate) listed: Listed,
}

/// Why a session ended.
enum End {
    /// The client said so.
    Disconnect { request_id: Option<i32> },
    /// The client vanished or sent what cannot be read.
    Lost(String),
    /// The node is stopping.
    BrokerStops,
}

struct Inbound<R> {
    socket: R,
    buffer: BytesMut,
    decoder: FrameDecoder,
    room: ReadRoom,
}

impl<R: AsyncRead + Unpin> Inbound<R> {
    /// Reads what is there; how many bytes, 0 at the end.
    async fn read(&mut self) -> std::io::Result<usize> {
        self.room.prepare(&mut self.buffer);
        let read = self.socket.read_buf(&mut self.buffer).await?;
        self.room.learn(read);
        Ok(read)
    }

    /// The next whole event among what was read.
    fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.buffer.is_empty() {
            return Ok(None);
        }
        self.decoder.decode(&mut self.buffer)
    }
}

/// Serves a connection until it ends.
pub(crate) async fn run<S>(socket: S, peer: SocketAddr, context: Arc<SessionContext>)
where
    S: SplitSocket,
{
    let (socket, mut writer) = socket.split_socket();
    let mut inbound = Inbound {
        socket,
        buffer: BytesMut::new(),
        decoder: FrameDecoder::before_negotiation(),
        room: ReadRoom::default(),
    };
    let limit = context.limits().negotiation_timeout;
    let negotiating = negotiate(&mut inbound, &mut writer, &context.broker);
    let negotiated = tokio::select! {
        result = tokio::time::timeout(limit, negotiating) => match result {
            Ok(Ok(negotiated)) => negotiated,
            Ok(Err(reason)) => {
                SessionMetrics::refused("negotiation");
                return tracing::info!(%peer, reason, "connection closed");
            }
            Err(_) => {
                SessionMetrics::refused("timeout");
                return tracing::info!(%peer, "connection closed: no negotiation in time");
            }
        },
        () = context.closing.cancelled() => return,
    };
    inbound.decoder.set_max_event_size(usize_of(context.limits().max_event_bytes.as_u64()));
    serve(inbound, writer, peer, negotiated, context).await;
}

async fn serve<R, W>(
    mut inbound: Inbound<R>,
    writer: W,
    peer: SocketAddr,
    negotiated: Negotiated,
    context: Arc<SessionContext>,
) where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let id = context.next_session();
    let link = Arc::new(SessionLink {
        id,
        outbox: Outbox::new(usize_of(context.limits().session_outbox_bytes.as_u64())),
        in_flight: InFlight::new(
            usize_of(context.limits().session_in_flight_bytes.as_u64()),
            Arc::clone(context.in_flight()),
        ),
        encoding: negotiated.encoding,
        reads_extended_properties: negotiated.reads_extended_properties,
        ending: Ending::default(),
    });
    context.sessions.insert(&link);
    let client = ClientInfo::new(&negotiated.identity);
    tracing::info!(
        session = id.0, %peer,
        process = client.process,
        pid = client.pid,
        host = client.host,
        language = client.language,
        version = client.version,
        user_agent = client.user_agent,
        "session up"
    );
    let metrics = context.metrics.session_up();
    let listed = context.directory().enter(id, peer, client);
    let broken = CancellationToken::new();
    let sent = context.metrics.sent_bytes.clone();
    let writing =
        tokio::spawn(write(writer, Arc::clone(&link), broken.clone(), stall(&context), sent));
    let partitions = context.partition_count();
    let guids = GuidSource::new(negotiated.makes_guids, unique_client_id(context.boot, id));
    let closing = context.closing.clone();
    let mut session = Session {
        link,
        handles: Handles::default(),
        opening: JoinSet::new(),
        publisher: Publisher::new(partitions, guids),
        confirmer: Confirmer::new(partitions),
        answers_heartbeats: negotiated.answers_heartbeats,
        context,
        listed,
    };
    let end = session.read(&mut inbound, &broken).await;
    let client_closes = matches!(end, End::Disconnect { .. });
    session.finish(end, peer).await;
    // None of a client that cannot be written to.
    let writer = writing.await.ok().flatten();
    drop((session, metrics));
    let Some(mut writer) = writer else { return };
    let Inbound { socket, .. } = inbound;
    if client_closes {
        farewell::client_closes(socket, &closing).await;
    }
    // A client that reads nothing has no room for TLS's own goodbye.
    let _late = tokio::time::timeout(farewell::PATIENCE, writer.shutdown()).await;
}

impl Session {
    async fn read<R>(&mut self, inbound: &mut Inbound<R>, broken: &CancellationToken) -> End
    where
        R: AsyncRead + Unpin,
    {
        let mut partial = Partial::new(Arc::clone(self.context.in_flight()));
        let mut heard = Instant::now();
        let mut asked = false;
        let interval = self.context.limits().heartbeat_interval.max(Duration::from_millis(10));
        let mut silence = tokio::time::interval(interval);
        let closing = self.context.closing.clone();
        // What came along with the negotiation.
        if let Some(end) = self.take_events(inbound).await {
            return end;
        }
        loop {
            let link = &self.link;
            let reading = async {
                // A client that does not take answers, or publishes faster than the log is written,
                // is not read from.
                link.outbox.room().await;
                link.in_flight.room().await;
                inbound.read().await
            };
            tokio::select! {
                biased;
                () = broken.cancelled() => return End::Lost("the connection cannot be written to".into()),
                () = closing.cancelled() => return End::BrokerStops,
                reason = link.ended() => return End::Lost(reason.to_owned()),
                Some(opened) = self.opening.join_next(), if !self.opening.is_empty() => {
                    if let Ok(opened) = opened {
                        self.finish_open(opened);
                    }
                }
                read = reading => {
                    match read {
                        Ok(0) => return End::Lost("the client closed the connection".into()),
                        Ok(bytes) => self.context.metrics.received_bytes.increment(bytes as u64),
                        Err(error) => return End::Lost(error.to_string()),
                    }
                    heard = Instant::now();
                    asked = false;
                    if let Some(end) = self.take_events(inbound).await {
                        return end;
                    }
                    if !partial.set(inbound.buffer.len()) {
                        return End::Lost("the node has no memory for the rest of its event".into());
                    }
                }
                _ = silence.tick() => {
                    if let Some(end) = self.on_silence(heard.elapsed(), interval, &mut asked) {
                        return end;
                    }
                }
            }
        }
    }

    /// Asks a silent client whether it is there, and gives up on one that does not answer. A client
    /// that is not being read from because it does not read itself is not silent: its writer's time
    /// limit decides.
    fn on_silence(&self, silence: Duration, interval: Duration, asked: &mut bool) -> Option<End> {
        if !self.answers_heartbeats || self.link.outbox.is_full() {
            return None;
        }
        let limit = self.context.limits().idle_timeout;
        if !limit.is_zero() && silence >= limit {
            return Some(End::Lost(format!("no sign of life for {} s", silence.as_secs())));
        }
        if silence >= interval && !std::mem::replace(asked, true) {
            self.link.outbox.push(Bytes::from_static(&HEARTBEAT_REQUEST));
        }
        None
    }

    async fn take_events<R>(&mut self, inbound: &mut Inbound<R>) -> Option<End>
    where
        R: AsyncRead + Unpin,
    {
        loop {
            let frame = match inbound.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => return Some(End::Lost(error.to_string())),
            };
            let event = match frame.parse() {
                Ok(event) => event,
                Err(error) => return Some(End::Lost(error.to_string())),
            };
            if let Some(end) = self.take_event(&event).await {
                self.flush().await;
                return Some(end);
            }
        }
        self.flush().await;
        None
    }

    async fn take_event(&mut self, event: &Event) -> Option<End> {
        let lost = |error: &dyn std::fmt::Display| Some(End::Lost(error.to_string()));
        match event.event_type() {
            EventType::Put => {
                if let Err(error) = self.publisher.take(event, &self.handles) {
                    return lost(&error);
                }
                if self.publisher.waiting_bytes() >= FLUSH_BYTES {
                    self.flush().await;
                }
            }
            EventType::Confirm => {
                if let Err(error) = self.confirmer.take(event, &self.handles) {
                    return lost(&error);
                }
            }
            EventType::Control => match self.on_control(event).await {
                Next::Continue => {}
                Next::Close { reason } => return Some(End::Lost(reason)),
                Next::Disconnect { request_id } => return Some(End::Disconnect { request_id }),
            },
            EventType::HeartbeatRequest => {
                self.link.outbox.push(Bytes::from_static(&HEARTBEAT_RESPONSE));
            }
            EventType::HeartbeatResponse => {}
            EventType::Authentication => match negotiation::reauthenticate(event) {
                Ok(answer) => {
                    self.link.outbox.push(answer);
                }
                Err((answer, reason)) => {
                    self.link.outbox.push(answer);
                    return Some(End::Lost(reason));
                }
            },
            other => {
                return Some(End::Lost(format!(
                    "a client must not send this event, event={other}"
                )));
            }
        }
        None
    }

    /// Hands everything collected to the partitions.
    pub(crate) async fn flush(&mut self) {
        self.link.outbox.push(self.publisher.take_refusals());
        let (bytes, batches) = self.publisher.drain();
        self.link.in_flight.add(bytes);
        for (partition, puts) in batches {
            let publish = Publish { session: self.link.id, puts };
            self.context.send(partition, Request::Publish(publish)).await;
        }
        for (partition, confirms) in self.confirmer.drain() {
            self.context.send(partition, Request::Confirm(confirms)).await;
        }
    }

    async fn finish(&mut self, end: End, peer: SocketAddr) {
        // An open under way ends with the session: its handles are closed with all others.
        self.opening.shutdown().await;
        let session = self.link.id.0;
        SessionMetrics::closed(match &end {
            End::Disconnect { .. } => "disconnect",
            End::Lost(_) => "lost",
            End::BrokerStops => "stopping",
        });
        match end {
            End::Disconnect { request_id } => {
                self.end_in_partitions(false).await;
                let response = self.link.encode(request_id, ControlChoice::DisconnectResponse);
                self.link.outbox.push_last(response);
                tracing::info!(session, %peer, "session ended by the client");
            }
            End::Lost(reason) => {
                self.end_in_partitions(true).await;
                self.link.outbox.close();
                tracing::info!(session, %peer, reason, "session lost");
            }
            End::BrokerStops => {
                self.end_in_partitions(false).await;
                self.link.outbox.close();
                tracing::debug!(session, %peer, "session closed: the node is stopping");
            }
        }
    }

    /// Closes everything that the session has open, and waits until what it published before is
    /// answered.
    async fn end_in_partitions(&self, lost: bool) {
        let mut endings = Vec::new();
        for number in 1..=self.context.partition_count() {
            if let Some(partition) = self.context.partition(number) {
                endings.push(partition.end_session(self.link.id, lost).await);
            }
        }
        for ended in endings {
            // An error means that the partition is gone, and with it the handles.
            let _ = ended.await;
        }
        self.context.sessions.remove(self.link.id);
    }
}

async fn negotiate<R, W>(
    inbound: &mut Inbound<R>,
    writer: &mut W,
    broker: &BrokerIdentity,
) -> Result<Negotiated, String>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    loop {
        let decoded = inbound.next_frame().map_err(|e| e.to_string())?;
        let Some(frame) = decoded else {
            match inbound.read().await {
                Ok(0) => return Err("the client closed the connection before it negotiated".into()),
                Ok(_) => continue,
                Err(error) => return Err(error.to_string()),
            }
        };
        let event = frame.parse().map_err(|e| e.to_string())?;
        let (answer, outcome) = match negotiation::step(&event, broker) {
            Step::Reply(answer) => (answer, None),
            Step::Done(answer, negotiated) => (answer, Some(Ok(*negotiated))),
            Step::Refuse(answer, reason) => (answer, Some(Err(reason))),
        };
        writer.write_all(&answer).await.map_err(|e| e.to_string())?;
        writer.flush().await.map_err(|e| e.to_string())?;
        match outcome {
            None => {}
            Some(Ok(negotiated)) => return Ok(negotiated),
            Some(Err(reason)) => {
                let _already_gone = writer.shutdown().await;
                return Err(reason);
            }
        }
    }
}

/// Writes until the outbox is closed, and gives the socket back if everything was written.
async fn write<W>(
    mut socket: W,
    link: Arc<SessionLink>,
    broken: CancellationToken,
    stall: Duration,
    sent: Counter,
) -> Option<W>
where
    W: AsyncWrite + Unpin,
{
    let written = writer::run(&mut socket, &link.outbox, stall, &sent).await;
    if let Err(error) = &written {
        tracing::info!(session = link.id.0, %error, "connection closed: writing failed");
        link.outbox.close();
    }
    broken.cancel();
    written.is_ok().then_some(socket)
}

/// How long a client may leave bytes untaken: twice what it may be silent, and never for ever.
fn stall(context: &SessionContext) -> Duration {
    let idle = context.limits().idle_timeout;
    if idle.is_zero() { Duration::from_secs(300) } else { idle * 2 }
}

/// Six bytes that no other session has, for clients whose GUIDs the broker makes.
fn unique_client_id(boot: u32, id: SessionId) -> [u8; 6] {
    let [a, b, c, d] = boot.to_be_bytes();
    let [.., e, f] = id.0.to_be_bytes();
    let mixed = (id.0 >> 16) as u32;
    let [m, n, ..] = mixed.to_be_bytes();
    [a ^ m, b ^ n, c, d, e, f]
}

fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
