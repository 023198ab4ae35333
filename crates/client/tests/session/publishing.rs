//! Publishing: acknowledgements, refusals, limits, packing, closing.

use flintmq_client::{
    AckStatus, Compression, OpenError, OutgoingMessage, ProducerOptions, PublishError,
    SessionEvent, TryPublishError,
};
use flintmq_protocol::crc::app_data_crc;
use flintmq_protocol::flags::{PutFlags, QueueFlags};

use crate::broker::{Broker, failed, response, soon, until_event};

const URI: &str = "bmq://domain/queue";

#[tokio::test]
async fn the_client_says_who_it_is_and_opens_as_the_protocol_asks() {
    let broker = Broker::listen().await;
    let (session, identity) =
        tokio::join!(flintmq_client::Session::connect(broker.options()), async {
            let mut peer = broker.accept().await;
            let identity = peer.negotiate(response()).await;
            (peer, identity)
        });
    let (session, (mut peer, identity)) = (session.unwrap(), identity);
    assert_eq!(identity.protocol_version, 1);
    assert_eq!(identity.guid_info.client_id.len(), 12);

    let (producer, open) =
        tokio::join!(session.producer(URI, ProducerOptions::default()), peer.opened());
    let handle = &open.handle_parameters;
    assert_eq!((handle.uri.as_str(), handle.q_id), (URI, 0));
    assert_eq!((handle.flags, handle.read_count, handle.write_count), (QueueFlags::WRITE, 0, 1));
    let producer = producer.unwrap();
    let (acked, put) = tokio::join!(producer.publish("hello"), async {
        let puts = peer.puts(1).await;
        peer.ack(&puts, AckStatus::Success).await;
        puts[0].clone()
    });
    assert_eq!(acked.unwrap().guid, put.guid);
    assert_eq!(put.guid.client_id().to_string(), identity.guid_info.client_id);
    assert_eq!((put.flags, &put.app_data[..]), (PutFlags::ACK_REQUESTED, &b"hello"[..]));
    assert_eq!(put.crc32c, app_data_crc(b"hello"));
}

#[tokio::test]
async fn acknowledgements_reach_their_message_in_any_order() {
    let broker = Broker::listen().await;
    let (session, mut peer) = broker.session().await;
    let (producer, _) =
        tokio::join!(session.producer(URI, ProducerOptions::default()), peer.opened());
    let producer = producer.unwrap();
    let mut acks = Vec::new();
    for number in 0..5_u8 {
        acks.push(producer.enqueue(vec![number]).await.unwrap());
    }
    let mut puts = peer.puts(5).await;
    let order: Vec<u8> = puts.iter().map(|put| put.app_data[0]).collect();
    assert_eq!(order, [0, 1, 2, 3, 4]);
    let expected: Vec<_> = puts.iter().map(|put| put.guid).collect();
    puts.reverse();
    peer.ack(&puts[..1], AckStatus::LimitMessages).await;
    peer.ack(&puts[1..], AckStatus::Success).await;
    // A second answer, and one for a message that never was, change nothing.
    peer.ack(&puts[1..2], AckStatus::Unknown).await;
    for (number, ack) in acks.into_iter().enumerate() {
        let outcome = soon("an acknowledgement", ack).await;
        if number == 4 {
            let status = AckStatus::LimitMessages;
            assert_eq!(failed(outcome), PublishError::Rejected { guid: expected[4], status });
        } else {
            assert_eq!(outcome.unwrap().guid, expected[number]);
        }
    }
}

#[tokio::test]
async fn limits_in_flight_hold_publishing_back_until_answers_come() {
    let broker = Broker::listen().await;
    let (session, mut peer) = broker.session().await;
    let options = ProducerOptions {
        max_in_flight_messages: 2,
        max_in_flight_bytes: 100,
        ..ProducerOptions::default()
    };
    let (producer, _) = tokio::join!(session.producer(URI, options), peer.opened());
    let producer = producer.unwrap();
    let first = producer.try_enqueue(vec![1; 10]).unwrap();
    let second = producer.try_enqueue(vec![2; 10]).unwrap();
    let TryPublishError::Full(returned) = failed(producer.try_enqueue(vec![3; 10])) else {
        panic!("expected the message back");
    };
    assert_eq!(&returned.payload()[..], [3; 10]);
    let puts = peer.puts(2).await;
    let waiting = tokio::spawn({
        let producer = producer.clone();
        async move { producer.enqueue(returned).await.unwrap().await }
    });
    peer.ack(&puts, AckStatus::Success).await;
    first.await.unwrap();
    second.await.unwrap();
    let puts = peer.puts(1).await;
    assert_eq!(puts[0].app_data[0], 3);
    // The bytes are used up now: 10 of 100 are left of the limit.
    assert!(matches!(producer.try_enqueue(vec![4; 91]), Err(TryPublishError::Full(_))));
    peer.ack(&puts, AckStatus::Success).await;
    soon("the third acknowledgement", waiting).await.unwrap().unwrap();
    // A message larger than the whole limit goes out alone.
    let huge = producer.enqueue(vec![5; 1000]).await.unwrap();
    assert!(matches!(producer.try_enqueue("x"), Err(TryPublishError::Full(_))));
    let puts = peer.puts(1).await;
    peer.ack(&puts, AckStatus::Success).await;
    huge.await.unwrap();
}

#[tokio::test]
async fn properties_and_compression_take_the_style_that_the_broker_reads() {
    for extended in [true, false] {
        let broker = Broker::listen().await;
        let mut answer = response();
        if !extended {
            answer.broker_identity.features = "PROTOCOL_ENCODING:BER".to_owned();
        }
        let (session, mut peer) =
            tokio::join!(flintmq_client::Session::connect(broker.options()), async {
                let mut peer = broker.accept().await;
                peer.negotiate(answer).await;
                peer
            });
        let session = session.unwrap();
        let options = ProducerOptions { compression: Compression::Zlib, ..Default::default() };
        let (producer, _) = tokio::join!(session.producer(URI, options), peer.opened());
        let message = OutgoingMessage::new(vec![b'a'; 4000]).with_property("region", "eu").unwrap();
        let ack = producer.unwrap().enqueue(message).await.unwrap();
        let puts = peer.puts(1).await;
        assert_eq!(puts[0].schema_wire_id, u16::from(extended));
        assert_eq!(puts[0].compression, Compression::Zlib);
        assert!(puts[0].app_data.len() < 200);
        assert_eq!(puts[0].crc32c, app_data_crc(&puts[0].app_data));
        peer.ack(&puts, AckStatus::Success).await;
        ack.await.unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_published_is_refused_at_once() {
    let broker = Broker::listen().await;
    let (session, mut peer) = broker.session().await;
    let (producer, _) =
        tokio::join!(session.producer(URI, ProducerOptions::default()), peer.opened());
    let producer = producer.unwrap();
    assert_eq!(failed(producer.publish("").await), PublishError::EmptyPayload);
    let too_large = vec![0; (64 << 20) + 1];
    assert!(matches!(failed(producer.publish(too_large).await), PublishError::TooLarge { .. }));

    let again = session.producer(URI, ProducerOptions::default()).await;
    assert!(matches!(failed(again), OpenError::AlreadyOpen { .. }));
    let app = session.producer("bmq://d/q?id=app", ProducerOptions::default()).await;
    assert!(matches!(failed(app), OpenError::AppIdOnProducer { .. }));
    let wrong = session.producer("bmq://d", ProducerOptions::default()).await;
    assert!(matches!(failed(wrong), OpenError::InvalidUri { .. }));
    let (refused, ()) =
        tokio::join!(session.producer("bmq://no/queue", ProducerOptions::default()), async {
            let (r_id, _) = peer.expect_open().await;
            peer.refuse(r_id, "no such domain").await;
        });
    let OpenError::Refused { message, .. } = failed(refused) else { panic!("expected a refusal") };
    assert_eq!(message, "no such domain");
}

#[tokio::test]
async fn closing_waits_for_answers_and_then_the_queue_can_be_opened_again() {
    let broker = Broker::listen().await;
    let (session, mut peer) = broker.session().await;
    let (producer, _) =
        tokio::join!(session.producer(URI, ProducerOptions::default()), peer.opened());
    let producer = producer.unwrap();
    let ack = producer.enqueue("last").await.unwrap();
    let ((), close) = tokio::join!(async { producer.close().await.unwrap() }, async {
        let puts = peer.puts(1).await;
        peer.ack(&puts, AckStatus::Success).await;
        peer.closed().await
    });
    ack.await.unwrap();
    assert!(close.is_final);
    assert_eq!(close.handle_parameters.write_count, 1);
    assert!(matches!(failed(producer.publish("late").await), PublishError::Closed { .. }));
    producer.close().await.unwrap();

    let (producer, open) =
        tokio::join!(session.producer(URI, ProducerOptions::default()), peer.opened());
    assert_eq!(open.handle_parameters.q_id, 1, "the old id is retired");
    // Dropping closes in the background; an open meanwhile waits for that.
    drop(producer.unwrap());
    let (again, open) = tokio::join!(session.producer(URI, ProducerOptions::default()), async {
        peer.closed().await;
        peer.opened().await
    });
    again.unwrap();
    assert_eq!(open.handle_parameters.q_id, 2);
}

#[tokio::test]
async fn disconnecting_ends_every_handle() {
    let broker = Broker::listen().await;
    let (session, mut peer) = broker.session().await;
    let (producer, _) =
        tokio::join!(session.producer(URI, ProducerOptions::default()), peer.opened());
    let producer = producer.unwrap();
    let ack = producer.enqueue("unanswered").await.unwrap();
    let mut events = session.events();
    // The broker closes the connection right behind its answer, as some do.
    let (result, ()) = tokio::join!(session.clone().disconnect(), async {
        peer.puts(1).await;
        peer.disconnected().await;
        drop(peer);
    });
    result.unwrap();
    let event = until_event(&mut events, |_| true).await;
    assert_eq!(event, SessionEvent::Disconnected, "and not that a connection was lost");
    assert!(matches!(failed(ack.await), PublishError::Closed { .. }));
    assert!(matches!(failed(producer.publish("x").await), PublishError::Closed { .. }));
    let open = session.producer("bmq://d/q2", ProducerOptions::default()).await;
    assert!(matches!(failed(open), OpenError::SessionClosed));
}
