//! Hosts one client's session: negotiates, then brings it bytes, answers and time, and carries out
//! what it says, each effect before the next.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use flintmq_partition::SessionId;
use flintmq_session::{Client, Effect, End, Input, Session};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::context::SessionContext;
use super::directory::{ClientInfo, Listed};
use super::read_room::ReadRoom;
use super::socket::SplitSocket;
use super::{SessionMetrics, asking, farewell, writer};
use crate::host::Alarm;
use crate::link::{Ending, InFlight, Outbox, Partial, SessionLink};

/// The half of the connection that is read, and whose bytes they are.
struct Inbound<R> {
    session: Session,
    socket: R,
    room: ReadRoom,
}

impl<R: AsyncRead + Unpin> Inbound<R> {
    /// Reads what is there; how many bytes, 0 at the end.
    async fn read(&mut self) -> std::io::Result<usize> {
        let buffer = self.session.received();
        self.room.prepare(buffer);
        let read = self.socket.read_buf(buffer).await?;
        self.room.learn(read);
        Ok(read)
    }
}

/// Serves a connection until it ends.
pub(crate) async fn run<S>(socket: S, peer: SocketAddr, context: Arc<SessionContext>)
where
    S: SplitSocket,
{
    let (socket, mut writer) = socket.split_socket();
    let id = context.next_session();
    let settings = Arc::clone(context.settings());
    let session = Session::new(context.clock().now(), id, context.boot(), settings);
    let mut inbound = Inbound { session, socket, room: ReadRoom::default() };
    // One limit for the whole exchange: also for a client that does not read its answer.
    let limit = context.settings().negotiation_timeout;
    let negotiated = tokio::select! {
        result = tokio::time::timeout(limit, negotiate(&mut inbound, &mut writer, &context)) => {
            result.unwrap_or(Err(End::NegotiatedTooLate))
        }
        () = context.closing().cancelled() => return,
    };
    match negotiated {
        Ok(client) => serve(inbound, writer, (id, peer), *client, context).await,
        Err(End::NegotiatedTooLate) => {
            SessionMetrics::refused("timeout");
            tracing::info!(%peer, "connection closed: no negotiation in time");
        }
        Err(End::NotNegotiated(reason) | End::Lost(reason)) => {
            SessionMetrics::refused("negotiation");
            tracing::info!(%peer, reason, "connection closed");
        }
        Err(End::Disconnected | End::NodeStops) => {}
    }
}

/// Until the session is established, its answers go to the socket directly.
async fn negotiate<R, W>(
    inbound: &mut Inbound<R>,
    writer: &mut W,
    context: &SessionContext,
) -> Result<Box<Client>, End>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    loop {
        let input = match inbound.read().await {
            Ok(0) => Input::Lost("the client closed the connection before it negotiated".into()),
            Ok(_) => Input::Received,
            Err(error) => Input::Lost(error.to_string()),
        };
        inbound.session.step(context.clock().now(), input);
        while let Some(effect) = inbound.session.next_effect() {
            match effect {
                Effect::Send(answer) => answer_now(writer, &answer).await?,
                Effect::Established(client) => return Ok(client),
                Effect::Close { last, end } => {
                    if !last.is_empty() {
                        answer_now(writer, &last).await?;
                        let _already_gone = writer.shutdown().await;
                    }
                    return Err(end);
                }
                // Nothing else comes before it is established.
                _ => {}
            }
        }
    }
}

async fn answer_now<W: AsyncWrite + Unpin>(writer: &mut W, answer: &[u8]) -> Result<(), End> {
    let lost = |error: std::io::Error| End::NotNegotiated(error.to_string());
    writer.write_all(answer).await.map_err(lost)?;
    writer.flush().await.map_err(lost)
}

async fn serve<R, W>(
    inbound: Inbound<R>,
    writer: W,
    (id, peer): (SessionId, SocketAddr),
    client: Client,
    context: Arc<SessionContext>,
) where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let link = Arc::new(SessionLink {
        id,
        outbox: Outbox::new(usize_of(context.limits().session_outbox_bytes.as_u64())),
        in_flight: InFlight::new(
            usize_of(context.limits().session_in_flight_bytes.as_u64()),
            Arc::clone(context.in_flight()),
        ),
        encoding: client.encoding,
        ending: Ending::default(),
    });
    context.sessions().insert(&link);
    let client = ClientInfo::new(&client.identity);
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
    let metrics = context.metrics().session_up();
    let listed = context.directory().enter(id, peer, client);
    let broken = CancellationToken::new();
    let stall = writer::stall(context.limits().idle_timeout);
    let sent = context.metrics().sent_bytes.clone();
    let writing =
        tokio::spawn(writer::write(writer, Arc::clone(&link), broken.clone(), stall, sent));
    let closing = context.closing().clone();
    let answers = JoinSet::new();
    let mut connection = Connection { inbound, link, context, answers, listed };
    let (last, end) = connection.run(&broken).await;
    connection.link.outbox.push_last(last);
    report(&end, id, peer);
    // None of a client that cannot be written to.
    let writer = writing.await.ok().flatten();
    let socket = connection.into_socket();
    drop(metrics);
    let Some(mut writer) = writer else { return };
    if end == End::Disconnected {
        farewell::client_closes(socket, &closing).await;
    }
    // A client that reads nothing has no room for TLS's own goodbye.
    let _late = tokio::time::timeout(farewell::PATIENCE, writer.shutdown()).await;
}

/// One established session with what it needs of the node.
struct Connection<R> {
    inbound: Inbound<R>,
    link: Arc<SessionLink>,
    context: Arc<SessionContext>,
    /// Questions under way; what comes of each goes to the session.
    answers: JoinSet<Input>,
    listed: Listed,
}

impl<R: AsyncRead + Unpin> Connection<R> {
    /// What is left when all else is gone.
    fn into_socket(self) -> R {
        self.inbound.socket
    }

    /// Runs the session to its end: the last events for the client, and why it is over.
    async fn run(&mut self, broken: &CancellationToken) -> (Bytes, End) {
        let context = Arc::clone(&self.context);
        let mut partial = Partial::new(Arc::clone(context.in_flight()));
        let mut alarm = Alarm::new(context.clock());
        loop {
            if let Some(close) = self.carry_out().await {
                return close;
            }
            let input = self.next_input(broken, &mut alarm).await;
            let received = matches!(input, Input::Received);
            let session = &mut self.inbound.session;
            session.step(context.clock().now(), input);
            if received && !partial.set(session.partial_bytes()) {
                let reason = "the node has no memory for the rest of its event";
                session.step(context.clock().now(), Input::Lost(reason.into()));
            }
        }
    }

    async fn next_input(&mut self, broken: &CancellationToken, alarm: &mut Alarm) -> Input {
        let Self { inbound, link, context, answers, .. } = self;
        let (reads, deadline) = (inbound.session.reads(), inbound.session.deadline());
        let reading = async {
            // A client that does not take answers, or publishes faster than the log is written, is
            // not read from.
            link.outbox.room().await;
            link.in_flight.room().await;
            inbound.read().await
        };
        tokio::select! {
            biased;
            () = broken.cancelled() => Input::Lost("the connection cannot be written to".into()),
            () = context.closing().cancelled() => Input::Closing,
            reason = link.ended() => Input::Lost(reason.to_owned()),
            Some(Ok(answer)) = answers.join_next(), if !answers.is_empty() => answer,
            read = reading, if reads => match read {
                Ok(0) => Input::Lost("the client closed the connection".into()),
                Ok(bytes) => {
                    context.metrics().received_bytes.increment(bytes as u64);
                    Input::Received
                }
                Err(error) => Input::Lost(error.to_string()),
            },
            () = alarm.ring(deadline) => Input::Tick { output_full: link.outbox.is_full() },
        }
    }

    /// Carries out what the session says, until there is no more or it is over.
    async fn carry_out(&mut self) -> Option<(Bytes, End)> {
        let Self { inbound, link, context, answers, listed } = self;
        while let Some(effect) = inbound.session.next_effect() {
            match effect {
                // It was when this began.
                Effect::Established(_) => {}
                Effect::Send(events) => {
                    link.outbox.push(events);
                }
                Effect::ToPartition { partition, request, unanswered } => {
                    if unanswered > 0 {
                        link.in_flight.add(unanswered);
                    }
                    context.send(partition, request).await;
                }
                Effect::Place(wanted) => {
                    answers.spawn(asking::place(Arc::clone(context), *wanted));
                }
                Effect::Open(wanted) => {
                    answers.spawn(asking::open(Arc::clone(context), *wanted));
                }
                Effect::HandlesChanged(count) => listed.set_handles(count),
                Effect::EndInPartitions { lost } => {
                    // An open under way ends with the session: its handles are closed with all
                    // others.
                    answers.shutdown().await;
                    context.end_in_partitions(link.id, lost).await;
                    inbound.session.step(context.clock().now(), Input::Ended);
                }
                Effect::Close { last, end } => return Some((last, end)),
            }
        }
        None
    }
}

fn report(end: &End, session: SessionId, peer: SocketAddr) {
    let session = session.0;
    match end {
        End::Disconnected => {
            SessionMetrics::closed("disconnect");
            tracing::info!(session, %peer, "session ended by the client");
        }
        End::Lost(reason) | End::NotNegotiated(reason) => {
            SessionMetrics::closed("lost");
            tracing::info!(session, %peer, reason, "session lost");
        }
        End::NodeStops | End::NegotiatedTooLate => {
            SessionMetrics::closed("stopping");
            tracing::debug!(session, %peer, "session closed: the node is stopping");
        }
    }
}

fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
