//! Fear: what a client may send at once is more than the log takes at once, and the node falls over
//! it.

use flintmq_system_tests::broker_process::Broker;
use flintmq_system_tests::json_session::JsonSession;
use flintmq_system_tests::wire;

const URI: &str = "bmq://bmq.test/large";
const MIB: usize = 1 << 20;

/// A PUT event with `count` messages of `size` bytes.
fn publishes(count: u32, size: usize) -> Vec<u8> {
    let payload = vec![b'x'; size];
    let mut body = Vec::new();
    for correlation in 1..=count {
        let mut identity = [0; 16];
        identity[..4].copy_from_slice(&correlation.to_be_bytes());
        body.extend(wire::put_message(0, identity, &payload));
    }
    wire::event(wire::PUT, 0, &body)
}

#[test]
fn one_event_with_more_than_the_log_takes_at_once() {
    let mut broker = Broker::builder().setting("limits.max_event_bytes = \"300 MiB\"").start();
    let mut session = JsonSession::start(&broker);
    session.open(URI, 0, true, true);
    // More than the log writer's inbox in one event, in messages that each fit.
    for (count, size) in [(5, 50 * MIB), (3000, 60_000)] {
        session.send(&publishes(count, size));
        let mut acknowledged = Vec::new();
        while acknowledged.len() < count as usize {
            let acks = session.acknowledgements();
            assert!(acks.iter().all(|ack| ack.status == 0), "{acks:?}");
            acknowledged.extend(acks.iter().map(|ack| ack.correlation));
        }
        assert_eq!(acknowledged, (1..=count).collect::<Vec<_>>(), "in order, once each");
    }
    broker.assert_running();
    broker.kill();
    broker.restart();
    assert_eq!(broker.admin().backlog("bmq.test/large"), 3005);
}

#[test]
fn half_events_of_many_clients_do_not_fill_the_memory() {
    let limit = 40 * MIB as u64;
    let mut broker = Broker::builder()
        .setting("limits.max_event_bytes = \"32 MiB\"")
        .setting("limits.node_in_flight_bytes = \"40 MiB\"")
        .start();
    let mut good = JsonSession::start(&broker);
    good.open(URI, 0, true, true);
    let before = broker.resident_bytes();
    let event = publishes(1, 30 * MIB);
    // Each sends most of a large event and never the end of it.
    let mut clients = Vec::new();
    for _ in 0..12 {
        let mut session = JsonSession::start(&broker);
        session.open(URI, 0, false, true);
        let mut client = session.into_client();
        // The broker may close while we send: that is what it is to do.
        let _closed_meanwhile = client.send(&event[..event.len() - MIB]);
        clients.push(client);
    }
    broker.wait_for_log(&["session lost", "no memory"]);
    good.put(0, 1, b"others go on");
    assert_eq!(good.acknowledgements()[0].status, 0);
    let grown = broker.peak_resident_bytes().saturating_sub(before);
    println!("12 x 29 MiB of half events: {} MiB more memory", grown / MIB as u64);
    assert!(grown < 4 * limit, "grown={grown}");
    broker.assert_running();
}
