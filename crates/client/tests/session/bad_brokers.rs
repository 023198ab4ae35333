//! Brokers that refuse, break off, talk nonsense or say nothing: every call ends, with a reason.

use std::time::Duration;

use flintmq_client::{
    CloseError, ConfigureError, ConnectError, ConsumerOptions, OpenError, ProducerOptions, Session,
    SessionEvent, SessionOptions,
};
use flintmq_protocol::control::{ControlChoice, Status, StatusCategory};

use crate::broker::{Broker, Peer, failed, response, until_event};

const URI: &str = "bmq://domain/queue";

/// The time of calls that are never answered.
const SHORT: Duration = Duration::from_millis(100);
/// The same where another call is answered first, which takes a busy machine its time.
const FAIR: Duration = Duration::from_secs(2);
/// Longer than any attempt takes that ends by itself.
const LONG: Duration = Duration::from_secs(60);

/// Connects to a broker that does the same with every connection; gives why it failed.
async fn last_problem(attempt: Duration, behave: impl AsyncFn(&mut Peer)) -> String {
    let broker = Broker::listen().await;
    let options =
        SessionOptions { connect_timeout: FAIR, attempt_timeout: attempt, ..broker.options() };
    let connecting = tokio::spawn(Session::connect(options));
    let misbehaving = async {
        let mut peers = Vec::new();
        loop {
            let mut peer = broker.accept().await;
            behave(&mut peer).await;
            // Kept, so that it is the behaviour that fails and not a closed connection.
            peers.push(peer);
        }
    };
    let result = tokio::select! {
        result = connecting => result.unwrap(),
        () = misbehaving => unreachable!("it never ends"),
    };
    match result {
        Err(ConnectError::TimedOut { last_problem, .. }) => last_problem,
        other => panic!("expected a timeout: {other:?}"),
    }
}

#[tokio::test]
async fn a_refused_session_says_why() {
    let problem = last_problem(LONG, async |peer| {
        let result = Status::new(StatusCategory::Refused, -1, "no strangers");
        let answer = flintmq_protocol::control::BrokerResponse { result, ..response() };
        peer.offer(answer).await;
    })
    .await;
    assert!(problem.contains("no strangers"), "{problem}");
}

#[tokio::test]
async fn nonsense_in_negotiation_is_no_broker() {
    let problem = last_problem(LONG, async |peer| {
        peer.write_if_open(b"HTTP/1.1 400 Bad Request\r\n\r\n").await
    })
    .await;
    assert!(problem.contains("does not speak the protocol"), "{problem}");
    // A frame that claims 2 GiB.
    let problem = last_problem(LONG, async |peer| {
        peer.write_if_open(&[0x7f, 0xff, 0xff, 0xff, 0x41, 2, 0, 0]).await
    })
    .await;
    assert!(problem.contains("does not speak the protocol"), "{problem}");
}

#[tokio::test]
async fn a_broker_that_says_nothing_is_left_in_time() {
    let problem = last_problem(SHORT, async |_| {}).await;
    assert!(problem.contains("in time"), "{problem}");
}

#[tokio::test]
async fn no_address_at_all_is_an_error() {
    let result = Session::connect(SessionOptions::new([])).await;
    assert!(matches!(failed(result), ConnectError::NoBroker));
}

#[tokio::test]
async fn an_unanswered_open_ends_and_a_late_answer_is_taken_back() {
    let broker = Broker::listen().await;
    let options = SessionOptions { open_timeout: SHORT, ..broker.options() };
    let (session, mut peer) = broker.session_with(options).await;
    let open = session.producer(URI, ProducerOptions::default()).await;
    assert!(matches!(failed(open), OpenError::TimedOut { .. }));
    let (r_id, open) = peer.expect_open().await;
    peer.grant_open(r_id, &open, 1000).await;
    let close = peer.closed().await;
    assert_eq!(close.handle_parameters, open.handle_parameters);
    assert!(close.is_final);
}

#[tokio::test]
async fn unanswered_requests_end_at_their_timeouts() {
    let broker = Broker::listen().await;
    let options = SessionOptions {
        configure_timeout: FAIR,
        close_timeout: SHORT,
        disconnect_timeout: SHORT,
        ..broker.options()
    };
    let (session, mut peer) = broker.session_with(options).await;
    let (consumer, _) = tokio::join!(session.consumer(URI, ConsumerOptions::default()), async {
        peer.opened().await;
        peer.configured().await
    });
    let consumer = consumer.unwrap();
    let configure = consumer.reconfigure(ConsumerOptions::default()).await;
    assert!(matches!(failed(configure), ConfigureError::TimedOut { .. }));
    assert!(matches!(failed(consumer.close().await), CloseError::TimedOut { .. }));
    assert!(matches!(failed(session.disconnect().await), CloseError::TimedOut { .. }));
}

#[tokio::test]
async fn garbage_on_a_session_makes_it_reconnect() {
    let not_an_event = [0_u8, 0, 0, 4, 0x41, 2, 0, 0].as_slice();
    let fragment = [0x80_u8, 0, 0, 8, 0x41, 2, 0, 0].as_slice();
    let broken_push =
        [0_u8, 0, 0, 16, 0x44, 2, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0].as_slice();
    let broken_ack = [0_u8, 0, 0, 12, 0x45, 2, 0, 0, 0, 0, 0, 0].as_slice();
    let broker = Broker::listen().await;
    let (session, mut peer) = broker.session().await;
    let mut events = session.events();
    for garbage in [not_an_event, fragment, broken_push, broken_ack] {
        peer.write(garbage).await;
        until_event(&mut events, |event| matches!(event, SessionEvent::ConnectionLost { .. }))
            .await;
        peer = broker.accept_session().await;
        until_event(&mut events, |event| matches!(event, SessionEvent::StateRestored { .. })).await;
    }
    let (producer, _) =
        tokio::join!(session.producer(URI, ProducerOptions::default()), peer.opened());
    producer.unwrap();
}

#[tokio::test]
async fn events_of_no_concern_are_skipped() {
    let broker = Broker::listen().await;
    let (session, mut peer) = broker.session().await;
    let mut events = session.events();
    // An unknown type, an undecodable control event, a reply to nobody, a message to nobody, a
    // REJECT.
    peer.write(&[0, 0, 0, 8, 0x7f, 2, 0, 0]).await;
    peer.write(&[0, 0, 0, 12, 0x41, 2, 0, 0, 1, 2, 3, 4]).await;
    peer.reply(4711, ControlChoice::CloseQueueResponse).await;
    peer.push(9, 9, &[1]).await;
    peer.write(&[0, 0, 0, 8, 0x4d, 2, 0, 0]).await;
    let (producer, _) =
        tokio::join!(session.producer(URI, ProducerOptions::default()), peer.opened());
    let _producer = producer.unwrap();
    let (result, ()) = tokio::join!(session.disconnect(), peer.disconnected());
    result.unwrap();
    let event = until_event(&mut events, |_| true).await;
    assert_eq!(event, SessionEvent::Disconnected, "the connection was never lost");
}
