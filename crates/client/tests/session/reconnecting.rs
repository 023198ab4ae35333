//! What a lost connection means for queues, messages on their way, and confirmations.

use std::time::Duration;

use flintmq_client::{
    AckStatus, ConfirmError, ConsumeError, ConsumerOptions, Heartbeat, ProducerOptions,
    PublishError, SessionEvent, SessionOptions,
};
use flintmq_protocol::control::ControlChoice;
use flintmq_protocol::event::{EventType, HEARTBEAT_RESPONSE};

use crate::broker::{Broker, failed, guid, soon, until_event};

const URI: &str = "bmq://domain/queue";
const OTHER: &str = "bmq://domain/other";

#[tokio::test]
async fn unanswered_messages_go_out_again_in_order_after_all_queues_are_open() {
    let broker = Broker::listen().await;
    let (session, mut peer) = broker.session().await;
    let mut events = session.events();
    let mut producers = Vec::new();
    for uri in [URI, OTHER] {
        let (producer, _) =
            tokio::join!(session.producer(uri, ProducerOptions::default()), peer.opened());
        producers.push(producer.unwrap());
    }
    let mut acks = Vec::new();
    for number in 0..6_u8 {
        acks.push(producers[usize::from(number % 2)].enqueue(vec![number]).await.unwrap());
    }
    let before = peer.puts(6).await;
    // The broker answers the third one only, and breaks off.
    peer.ack(&before[2..3], AckStatus::Success).await;
    acks.remove(2).await.unwrap();
    drop(peer);
    until_event(&mut events, |event| matches!(event, SessionEvent::ConnectionLost { .. })).await;
    // Published while there is no connection: comes behind the others.
    acks.push(producers[0].enqueue(vec![6]).await.unwrap());

    let mut peer = broker.accept_session().await;
    let (first_id, first) = peer.expect_open().await;
    let (second_id, second) = peer.expect_open().await;
    let mut ids = [first.handle_parameters.q_id, second.handle_parameters.q_id];
    ids.sort_unstable();
    assert_eq!(ids, [0, 1], "the same ids as before");
    assert!(first_id > 2 && second_id > 2, "request ids go on counting");
    peer.grant_open(first_id, &first, 300_000).await;
    // One queue is not open yet: nothing may be sent. The client answers a heartbeat meanwhile.
    peer.write(&flintmq_protocol::event::HEARTBEAT_REQUEST).await;
    peer.expect(EventType::HeartbeatResponse).await;
    peer.grant_open(second_id, &second, 300_000).await;

    let again = peer.puts(6).await;
    let sent: Vec<u8> = again.iter().map(|put| put.app_data[0]).collect();
    assert_eq!(sent, [0, 1, 3, 4, 5, 6]);
    for put in &again[..5] {
        let original = before.iter().find(|one| one.app_data == put.app_data).unwrap();
        assert_eq!(put, original, "identity, flags, checksum and bytes are the same");
    }
    let restored = |event: &SessionEvent| matches!(event, SessionEvent::StateRestored { .. });
    let event = until_event(&mut events, restored).await;
    assert_eq!(event, SessionEvent::StateRestored { retransmitted: 6 });
    peer.ack(&again, AckStatus::Success).await;
    for ack in acks {
        soon("an acknowledgement", ack).await.unwrap();
    }
}

#[tokio::test]
async fn consumers_are_configured_again_and_unread_messages_forgotten() {
    let broker = Broker::listen().await;
    let (session, mut peer) = broker.session().await;
    let options = ConsumerOptions { priority: 5, ..ConsumerOptions::default() };
    let (consumer, old_id) = tokio::join!(session.consumer(URI, options), async {
        peer.opened().await;
        peer.configured().await.stream_parameters.subscriptions[0].s_id
    });
    let mut consumer = consumer.unwrap();
    peer.push(0, old_id, &[1]).await;
    let first = soon("a message", consumer.recv()).await.unwrap().unwrap();
    drop(peer);

    let mut peer = broker.accept_session().await;
    let open = peer.opened().await;
    assert_eq!(open.handle_parameters.q_id, 0);
    let configure = peer.configured().await;
    let subscription = &configure.stream_parameters.subscriptions[0];
    assert!(subscription.s_id > old_id, "subscription ids are never used again");
    assert_eq!(subscription.consumers[0].consumer_priority, 5);
    peer.push(0, subscription.s_id, &[1, 2]).await;
    let redelivered = soon("a message", consumer.recv()).await.unwrap().unwrap();
    assert_eq!(redelivered.guid(), guid(1));
    assert_eq!(failed(first.confirm()), ConfirmError::ConnectionLost { guid: guid(1) });
    redelivered.confirm().unwrap();
    assert_eq!(peer.confirms(1).await[0].guid, guid(1));
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_is_dead() {
    let dead = Broker::listen().await;
    let broker = Broker::listen().await;
    let addresses = [dead.address.clone(), broker.address.clone()];
    drop(dead);
    let options = SessionOptions { brokers: addresses.to_vec(), ..broker.options() };
    let (session, mut peer) = broker.session_with(options).await;
    let (result, ()) = tokio::join!(session.disconnect(), peer.disconnected());
    result.unwrap();
}

#[tokio::test]
async fn a_queue_that_is_not_opened_again_ends_its_handles_only() {
    let broker = Broker::listen().await;
    let (session, mut peer) = broker.session().await;
    let mut events = session.events();
    let (producer, _) =
        tokio::join!(session.producer(URI, ProducerOptions::default()), peer.opened());
    let producer = producer.unwrap();
    let (consumer, _) = tokio::join!(session.consumer(OTHER, ConsumerOptions::default()), async {
        peer.opened().await;
        peer.configured().await
    });
    let mut consumer = consumer.unwrap();
    let ack = producer.enqueue("on its way").await.unwrap();
    peer.puts(1).await;
    drop(peer);
    let mut peer = broker.accept_session().await;
    for _ in 0..2 {
        let (r_id, _) = peer.expect_open().await;
        peer.refuse(r_id, "the domain is gone").await;
    }
    for _ in 0..2 {
        let lost = |event: &SessionEvent| matches!(event, SessionEvent::QueueLost { .. });
        until_event(&mut events, lost).await;
    }
    let PublishError::Closed { reason, .. } = failed(soon("an outcome", ack).await) else {
        panic!("expected that the producer is closed");
    };
    assert!(reason.contains("the domain is gone"), "{reason}");
    let end = failed(soon("the consumer's end", consumer.recv()).await);
    assert!(matches!(end, ConsumeError::QueueLost { .. }));
    assert!(consumer.recv().await.unwrap().is_none());
    // The session goes on.
    let again = session.producer("bmq://domain/third", ProducerOptions::default());
    let (producer, _) = tokio::join!(again, peer.opened());
    producer.unwrap();
}

#[tokio::test]
async fn messages_that_the_broker_may_have_forgotten_are_given_up() {
    let broker = Broker::listen().await;
    let (session, mut peer) = broker.session().await;
    let (producer, ()) = tokio::join!(session.producer(URI, ProducerOptions::default()), async {
        let (r_id, open) = peer.expect_open().await;
        peer.grant_open(r_id, &open, 30).await;
    });
    let ack = producer.unwrap().enqueue("old").await.unwrap();
    let puts = peer.puts(1).await;
    // No broker from here on.
    drop(broker);
    drop(peer);
    let expired = PublishError::Expired { guid: puts[0].guid };
    assert_eq!(failed(soon("the message is given up", ack).await), expired);
}

#[tokio::test]
async fn an_open_goes_on_over_a_lost_connection() {
    let broker = Broker::listen().await;
    let (session, mut peer) = broker.session().await;
    let (producer, _peer) =
        tokio::join!(session.producer(URI, ProducerOptions::default()), async {
            let (_, open) = peer.expect_open().await;
            drop(peer);
            let mut peer = broker.accept_session().await;
            assert_eq!(peer.opened().await, open, "the same ids as before");
            peer
        });
    producer.unwrap();
}

#[tokio::test]
async fn a_silent_broker_is_asked_and_then_left() {
    let broker = Broker::listen().await;
    // Two seconds of silence, so that a busy machine's pauses are none.
    let heartbeat = Heartbeat::Every { interval: Duration::from_millis(50), max_missed: 40 };
    let options = SessionOptions { heartbeat, ..broker.options() };
    let (session, mut peer) = broker.session_with(options).await;
    let mut events = session.events();
    // Answers keep the connection, for more intervals than may be missed.
    for _ in 0..45 {
        peer.expect(EventType::HeartbeatRequest).await;
        peer.write(&HEARTBEAT_RESPONSE).await;
    }
    // Silence ends it.
    let lost = |event: &SessionEvent| matches!(event, SessionEvent::ConnectionLost { .. });
    let SessionEvent::ConnectionLost { reason } = until_event(&mut events, lost).await else {
        unreachable!("the event was chosen");
    };
    assert!(reason.contains("no sign of life"), "{reason}");
    while let Some(event) = peer.next().await {
        assert_eq!(event.event_type(), EventType::HeartbeatRequest);
    }
    broker.accept_session().await;
}

#[tokio::test]
async fn dropping_everything_says_goodbye() {
    let broker = Broker::listen().await;
    let (session, mut peer) = broker.session().await;
    drop(session);
    let (r_id, choice) = peer.request().await;
    assert_eq!(choice, ControlChoice::Disconnect);
    peer.reply(r_id, ControlChoice::DisconnectResponse).await;
    assert!(peer.next().await.is_none());
}
