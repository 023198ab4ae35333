//! The simulated network keeps what the real one promises, and does what it is told.

use super::*;
use crate::{Event, Inbound, Lane, SendError};
use bytes::Bytes;

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

fn settings(node: NodeId, incarnation: u64) -> Settings {
    let peer = if node == ONE { TWO } else { ONE };
    Settings::new("test", node, incarnation).with_peer(peer, "in memory")
}

fn join(network: &SimulatedNetwork, node: NodeId, incarnation: u64) -> (Transport, Inbound) {
    let (routes, inbound) = Routes::by_class(64);
    (network.join(settings(node, incarnation), routes).unwrap(), inbound)
}

async fn up(inbound: &mut Inbound) -> u64 {
    match inbound.events.recv().await {
        Some(Event::PeerUp { incarnation, .. }) => incarnation,
        other => panic!("{other:?}"),
    }
}

async fn down(inbound: &mut Inbound) -> String {
    match inbound.events.recv().await {
        Some(Event::PeerDown { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

fn numbered(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}

async fn receive(inbound: &mut Inbound, count: usize) -> Vec<u32> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        for frame in inbound.append.recv().await.unwrap().frames {
            numbers.push(u32::from_le_bytes(frame[..].try_into().unwrap()));
        }
    }
    numbers
}

#[tokio::test(start_paused = true)]
async fn frames_of_a_lane_keep_their_order_whatever_the_delays() {
    let network = SimulatedNetwork::new(1);
    let (one, mut of_one) = join(&network, ONE, 5);
    let (_two, mut of_two) = join(&network, TWO, 6);
    assert_eq!((up(&mut of_one).await, up(&mut of_two).await), (6, 5));
    network.set_faults(Faults {
        delay_max: Duration::from_millis(50),
        late: 0.2,
        ..Faults::default()
    });
    for number in 0..500 {
        one.send_when_room(TWO, Lane::append(0), numbered(number)).await.unwrap();
        if number % 7 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(receive(&mut of_two, 500).await, (0..500).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn losses_repeat_from_the_seed() {
    let mut runs = Vec::new();
    for seed in [3, 3, 4] {
        let network = SimulatedNetwork::new(seed);
        let (one, mut of_one) = join(&network, ONE, 1);
        let (_two, mut of_two) = join(&network, TWO, 1);
        up(&mut of_one).await;
        up(&mut of_two).await;
        network.set_faults(Faults { lost: 0.5, ..Faults::default() });
        for number in 0..200 {
            one.send(TWO, Lane::append(0), numbered(number)).unwrap();
        }
        one.close(Duration::from_secs(1)).await;
        let mut arrived = Vec::new();
        while let Ok(batch) = of_two.append.try_recv() {
            arrived.extend(batch.frames);
        }
        assert!((50..150).contains(&arrived.len()), "{} of 200", arrived.len());
        runs.push(arrived);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test(start_paused = true)]
async fn a_short_cut_holds_frames_and_a_long_one_ends_the_connection() {
    let network = SimulatedNetwork::new(1);
    let (one, mut of_one) = join(&network, ONE, 1);
    let (_two, mut of_two) = join(&network, TWO, 1);
    up(&mut of_one).await;
    up(&mut of_two).await;

    network.cut(ONE, TWO);
    one.send(TWO, Lane::append(0), numbered(1)).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(of_two.append.try_recv().is_err());
    network.heal();
    assert_eq!(receive(&mut of_two, 1).await, [1]);

    network.part(&[ONE], &[TWO]);
    one.send(TWO, Lane::append(0), numbered(2)).unwrap();
    assert_eq!(down(&mut of_one).await, "the peer was not heard any more");
    down(&mut of_two).await;
    let refused = one.send(TWO, Lane::append(0), numbered(3));
    assert_eq!(refused, Err(SendError::Disconnected { peer: TWO }));
    network.heal();
    up(&mut of_one).await;
    one.send(TWO, Lane::append(0), numbered(4)).unwrap();
    assert_eq!(receive(&mut of_two, 1).await, [4], "what was under way is lost");
}

#[tokio::test(start_paused = true)]
async fn a_severed_connection_and_a_restarted_node_come_back() {
    let network = SimulatedNetwork::new(1);
    let (_one, mut of_one) = join(&network, ONE, 1);
    let (two, mut of_two) = join(&network, TWO, 1);
    up(&mut of_one).await;
    up(&mut of_two).await;
    network.sever(TWO, ONE);
    assert_eq!(down(&mut of_one).await, "the connection was severed");
    assert_eq!(up(&mut of_one).await, 1);

    drop(two);
    down(&mut of_one).await;
    let (_two, mut of_two) = join(&network, TWO, 2);
    assert_eq!(up(&mut of_one).await, 2);
    assert_eq!(up(&mut of_two).await, 1);
}

#[tokio::test(start_paused = true)]
async fn last_words_arrive_when_a_node_stops_with_care() {
    for (leaver, other) in [(ONE, TWO), (TWO, ONE)] {
        let network = SimulatedNetwork::new(1);
        let (leaving, mut of_leaver) = join(&network, leaver, 1);
        let (_staying, mut of_other) = join(&network, other, 1);
        up(&mut of_leaver).await;
        up(&mut of_other).await;
        for number in 0..100 {
            leaving.send(other, Lane::append(0), numbered(number)).unwrap();
        }
        leaving.close(Duration::from_secs(1)).await;
        assert_eq!(receive(&mut of_other, 100).await.len(), 100);
        down(&mut of_other).await;
    }
}

#[tokio::test(start_paused = true)]
async fn peers_are_added_and_removed_while_running() {
    let network = SimulatedNetwork::new(1);
    let (routes, mut of_one) = Routes::by_class(64);
    let one = network.join(Settings::new("test", ONE, 1), routes).unwrap();
    let (_two, mut of_two) = join(&network, TWO, 1);
    let unknown = one.send(TWO, Lane::URGENT, numbered(1));
    assert_eq!(unknown, Err(SendError::UnknownPeer { peer: TWO }));
    assert!(one.add_peer(TWO, "in memory"));
    assert!(!one.add_peer(TWO, "in memory"));
    up(&mut of_one).await;
    up(&mut of_two).await;
    assert!(one.remove_peer(TWO));
    down(&mut of_two).await;
    assert!(one.peers().is_empty());
}
