//! Consuming: delivery, confirmations, reconfiguring, apps, closing.

use flintmq_client::{
    ConfigureError, ConfirmError, Consumer, ConsumerOptions, OpenError, Subscription,
};
use flintmq_protocol::control::{ControlChoice, ExpressionVersion};
use flintmq_protocol::event::EventType;
use flintmq_protocol::flags::QueueFlags;

use crate::broker::{Broker, Peer, failed, guid, soon};

const URI: &str = "bmq://domain/queue";

/// A consumer and the subscription id that messages come under.
async fn consumer(session: &flintmq_client::Session, peer: &mut Peer) -> (Consumer, u32) {
    let (consumer, id) = tokio::join!(session.consumer(URI, ConsumerOptions::default()), async {
        peer.opened().await;
        peer.configured().await.stream_parameters.subscriptions[0].s_id
    });
    (consumer.unwrap(), id)
}

async fn received(consumer: &mut Consumer, count: usize) -> Vec<flintmq_client::Message> {
    let mut messages = Vec::new();
    while messages.len() < count {
        messages.push(soon("a message", consumer.recv()).await.unwrap().unwrap());
    }
    messages
}

fn numbers(messages: &[flintmq_client::Message]) -> Vec<u8> {
    messages.iter().map(|message| message.guid().0[0]).collect()
}

#[tokio::test]
async fn messages_come_in_order_and_are_confirmed_in_batches() {
    let broker = Broker::listen().await;
    let (session, mut peer) = broker.session().await;
    let (mut consumer, id) = consumer(&session, &mut peer).await;
    let all: Vec<u8> = (1..=200).collect();
    peer.push(0, id, &all).await;
    let messages = received(&mut consumer, 200).await;
    assert_eq!(numbers(&messages), all);
    assert_eq!(&messages[6].payload().unwrap()[..], [7]);
    assert!(messages[6].properties().unwrap().is_empty());
    assert!(consumer.try_recv().is_none());
    for message in &messages {
        message.confirm().unwrap();
    }
    // Nothing was awaited in between, so that all of them must be in one event.
    let event = peer.expect(EventType::Confirm).await;
    let confirms: Vec<_> =
        flintmq_protocol::confirm::ConfirmMessages::parse(&event.body).unwrap().collect();
    assert_eq!(confirms.len(), 200);
    assert_eq!(confirms[199].guid, guid(200));
    assert_eq!((confirms[0].queue_id, confirms[0].sub_queue_id), (0, 0));
}

#[tokio::test]
async fn options_reach_the_broker_and_can_be_changed() {
    let broker = Broker::listen().await;
    let (session, mut peer) = broker.session().await;
    let options = ConsumerOptions {
        max_unconfirmed_messages: 7,
        max_unconfirmed_bytes: 70,
        priority: -3,
        ..ConsumerOptions::default()
    };
    let (consumer, (open, configure)) = tokio::join!(session.consumer(URI, options), async {
        (peer.opened().await, peer.configured().await)
    });
    let mut consumer = consumer.unwrap();
    let handle = open.handle_parameters;
    assert_eq!((handle.flags, handle.read_count, handle.write_count), (QueueFlags::READ, 1, 0));
    assert_eq!(handle.sub_id_info, None);
    let first = configure.stream_parameters.subscriptions[0].clone();
    assert_eq!(first.expression.version, ExpressionVersion::Undefined);
    let limits = &first.consumers[0];
    assert_eq!((limits.max_unconfirmed_messages, limits.max_unconfirmed_bytes), (7, 70));
    assert_eq!((limits.consumer_priority, limits.consumer_priority_count), (-3, 1));

    let changed = ConsumerOptions {
        subscriptions: vec![Subscription::new("a == 1"), Subscription::new("b == 2")],
        ..ConsumerOptions::default()
    };
    let (result, second) = tokio::join!(consumer.reconfigure(changed), async {
        let (r_id, configure) = peer.expect_configure().await;
        // Messages under the old id are good until the reply, and no longer.
        peer.push(0, first.s_id, &[1]).await;
        peer.grant_configure(r_id, &configure).await;
        peer.push(0, first.s_id, &[2]).await;
        let subscriptions = configure.stream_parameters.subscriptions;
        peer.push(0, subscriptions[0].s_id, &[3]).await;
        peer.push(0, subscriptions[1].s_id, &[4]).await;
        subscriptions
    });
    result.unwrap();
    assert!(second.iter().all(|one| one.s_id > first.s_id));
    assert_eq!(second[1].expression.text, "b == 2");
    assert_eq!(second[1].expression.version, ExpressionVersion::Version1);
    assert_eq!(numbers(&received(&mut consumer, 3).await), [1, 3, 4]);

    let (refused, ()) = tokio::join!(consumer.reconfigure(ConsumerOptions::default()), async {
        let (r_id, _) = peer.expect_configure().await;
        peer.refuse(r_id, "not now").await;
    });
    assert!(matches!(failed(refused), ConfigureError::Refused { .. }));
    let impossible = ConsumerOptions { priority: i32::MIN, ..ConsumerOptions::default() };
    let refused = consumer.reconfigure(impossible).await;
    assert!(matches!(failed(refused), ConfigureError::InvalidOptions { .. }));
    peer.push(0, second[0].s_id, &[5]).await;
    assert_eq!(numbers(&received(&mut consumer, 1).await), [5], "the old options go on");
}

#[tokio::test]
async fn apps_of_a_queue_share_its_id_and_are_told_apart() {
    let broker = Broker::listen().await;
    let (session, mut peer) = broker.session().await;
    let mut opened = Vec::new();
    for app in ["foo", "bar"] {
        let uri = format!("{URI}?id={app}");
        let (consumer, ids) =
            tokio::join!(session.consumer(&uri, ConsumerOptions::default()), async {
                let open = peer.opened().await.handle_parameters;
                let configure = peer.configured().await;
                assert_eq!(configure.stream_parameters.app_id, app);
                let info = open.sub_id_info.unwrap();
                assert_eq!((open.uri.as_str(), info.app_id.as_str()), (uri.as_str(), app));
                (open.q_id, info.sub_id, configure.stream_parameters.subscriptions[0].s_id)
            });
        opened.push((consumer.unwrap(), ids));
    }
    let (foo, bar) = (opened[0].1, opened[1].1);
    assert_eq!((foo.0, foo.1, bar.0, bar.1), (0, 1, 0, 2));
    peer.push(0, foo.2, &[1]).await;
    peer.push(0, bar.2, &[1, 2]).await;
    let (mut bar_consumer, _) = opened.pop().unwrap();
    let (mut foo_consumer, _) = opened.pop().unwrap();
    assert_eq!(numbers(&received(&mut foo_consumer, 1).await), [1]);
    let messages = received(&mut bar_consumer, 2).await;
    assert_eq!(numbers(&messages), [1, 2]);
    messages[1].confirm().unwrap();
    assert_eq!(peer.confirms(1).await[0].sub_queue_id, 2);

    let (closed, close) = tokio::join!(foo_consumer.close(), async {
        assert!(peer.configured().await.stream_parameters.subscriptions.is_empty());
        peer.closed().await
    });
    closed.unwrap();
    assert!(!close.is_final, "bar is open");
    let (closed, close) = tokio::join!(bar_consumer.close(), async {
        peer.configured().await;
        peer.closed().await
    });
    closed.unwrap();
    assert!(close.is_final);
}

#[tokio::test]
async fn closing_sends_confirmations_first_and_dropping_closes_too() {
    let broker = Broker::listen().await;
    let (session, mut peer) = broker.session().await;
    let (mut first, id) = consumer(&session, &mut peer).await;
    peer.push(0, id, &[1, 2]).await;
    let mut messages = received(&mut first, 2).await;
    drop(messages.remove(0));
    first.confirm(guid(1)).unwrap();
    let (closed, ()) = tokio::join!(first.close(), async {
        assert_eq!(peer.confirms(1).await[0].guid, guid(1));
        peer.configured().await;
        peer.closed().await;
    });
    closed.unwrap();
    assert_eq!(failed(messages[0].confirm()), ConfirmError::Closed { guid: guid(2) });

    let (second, _) = consumer(&session, &mut peer).await;
    drop(second);
    assert!(peer.configured().await.stream_parameters.subscriptions.is_empty());
    peer.closed().await;
}

#[tokio::test]
async fn a_refused_configure_closes_the_queue_again() {
    let broker = Broker::listen().await;
    let (session, mut peer) = broker.session().await;
    let (refused, close) = tokio::join!(session.consumer(URI, ConsumerOptions::default()), async {
        peer.opened().await;
        let (r_id, _) = peer.expect_configure().await;
        peer.refuse(r_id, "too many consumers").await;
        peer.closed().await
    });
    assert!(matches!(failed(refused), OpenError::Refused { .. }));
    assert!(close.is_final);
}

#[tokio::test]
async fn a_cancelled_open_is_taken_back() {
    let broker = Broker::listen().await;
    let (session, mut peer) = broker.session().await;
    let opening = tokio::spawn({
        let session = session.clone();
        async move { session.consumer(URI, ConsumerOptions::default()).await }
    });
    let (r_id, open) = peer.expect_open().await;
    opening.abort();
    assert!(opening.await.unwrap_err().is_cancelled());
    peer.grant_open(r_id, &open, 1000).await;
    let close = peer.closed().await;
    assert_eq!(close.handle_parameters, open.handle_parameters);
    consumer(&session, &mut peer).await;
}

#[tokio::test]
async fn a_broker_without_subscriptions_is_configured_the_old_way() {
    let broker = Broker::listen().await;
    let mut answer = crate::broker::response();
    answer.broker_identity.features = "PROTOCOL_ENCODING:BER".to_owned();
    let (session, mut peer) =
        tokio::join!(flintmq_client::Session::connect(broker.options()), async {
            let mut peer = broker.accept().await;
            peer.negotiate(answer).await;
            peer
        });
    let session = session.unwrap();
    let (consumer, parameters) =
        tokio::join!(session.consumer(URI, ConsumerOptions::default()), async {
            peer.opened().await;
            let (r_id, ControlChoice::ConfigureQueueStream(request)) = peer.request().await else {
                panic!("expected the older configure");
            };
            let response = flintmq_protocol::control::ConfigureQueueStreamResponse {
                request: request.clone(),
            };
            peer.reply(r_id, ControlChoice::ConfigureQueueStreamResponse(response)).await;
            request.stream_parameters
        });
    assert_eq!(parameters.max_unconfirmed_messages, 1000);
    peer.push(0, 0, &[9]).await;
    assert_eq!(numbers(&received(&mut consumer.unwrap(), 1).await), [9]);
}

#[tokio::test]
async fn more_than_was_asked_for_is_turned_away_and_costs_no_memory() {
    let broker = Broker::listen().await;
    let (session, mut peer) = broker.session().await;
    let options = ConsumerOptions { max_unconfirmed_messages: 10, ..ConsumerOptions::default() };
    let (consumer, id) = tokio::join!(session.consumer(URI, options.clone()), async {
        peer.opened().await;
        peer.configured().await.stream_parameters.subscriptions[0].s_id
    });
    let consumer = consumer.unwrap();
    for _ in 0..20 {
        peer.push(0, id, &[1; 100]).await;
    }
    // A reply after the flood shows that the client has read all of it and goes on.
    let (result, ()) = tokio::join!(consumer.reconfigure(options), async {
        peer.configured().await;
    });
    result.unwrap();
    assert!(consumer.turned_away() >= 900, "{}", consumer.turned_away());
}
