//! Bytes of another node that are none of ours, or nearly: nothing panics, and clients go on.

use bytes::Bytes;
use flintmq_shard::Machine as _;
use proptest::prelude::*;
use prost::Message as _;

use super::clients::{configure, domain, open, put};
use super::world::{World, id};
use crate::peer_message::{
    Ask, Attach, AttachmentId, Close, Configure, Deliver, Frame, Handles, LogReference, Open,
    Opened, PeerMessage, Publish, Seek, SetDomain, WireAck, WirePush, WirePut, WireSubscription,
};

/// One message of each kind, with numbers of things that are there, and of things that are not.
fn messages(n: u64) -> Vec<PeerMessage> {
    let guid = Bytes::from(vec![n as u8; 16]);
    let app_data = Bytes::from_static(b"data");
    let settings = flintmq_queue::DomainSettings::priority();
    let domain = Bytes::from(domain(n, settings).to_bytes());
    let subscription =
        WireSubscription { id: 1, priority: 0, count: 1, max_messages: n, max_bytes: n };
    let put = WirePut {
        number: n,
        queue: 1,
        guid: guid.clone(),
        attributes: 0,
        app_data: app_data.clone(),
    };
    let reference = LogReference { index: n, term: 1, offset: 3, size: n as u32 };
    let push = |reference| WirePush {
        handle: 100 + n,
        subscription: 1,
        guid: guid.clone(),
        attributes: 0,
        redelivered: false,
        app_data: app_data.clone(),
        reference,
    };
    vec![
        PeerMessage::Attach(Attach { term: 1, has_log: true }),
        PeerMessage::Open(Open {
            handle: 100 + n,
            queue: n as u32,
            uri: "bmq://domain/queue1".to_owned(),
            reads: true,
            domain: domain.clone(),
        }),
        PeerMessage::Configure(Configure {
            number: n,
            handle: 100 + n,
            subscriptions: vec![subscription],
        }),
        PeerMessage::Close(Close { number: n, handles: vec![100 + n], lost: true }),
        PeerMessage::Publish(Publish { puts: vec![put] }),
        PeerMessage::Pause(Handles { handles: vec![100 + n] }),
        PeerMessage::Ask(Ask { number: n, queue: 1, what: n as u32, unused_ms: 0 }),
        PeerMessage::SetDomain(SetDomain { number: n, domain }),
        PeerMessage::Seek(Seek {}),
        PeerMessage::Opened(Opened { handle: 100 + n, outcome: n as u32, reason: String::new() }),
        PeerMessage::Closed(n),
        PeerMessage::Confirmed(n),
        PeerMessage::Received(n),
        PeerMessage::Deliver(Deliver {
            acks: vec![WireAck { number: n, status: n as u32 }],
            pushes: vec![push(None), push(Some(reference))],
        }),
    ]
}

fn hear(world: &mut World, at: usize, from: usize, bytes: &[u8]) {
    let node = &mut world.nodes[at];
    node.engine.on_message(&mut node.group, id(from), Bytes::copy_from_slice(bytes));
    world.settle();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_bytes_of_another_node_panic_a_leader_or_a_forwarder(
        noise in prop::collection::vec(any::<u8>(), 0..40),
        damages in prop::collection::vec((0usize..14, 0u64..4, 0usize..80, any::<u8>()), 1..20),
    ) {
        let mut world = World::led(2);
        world.ask(1, open(1, 101, true));
        world.ask(1, configure(1, 101, 5, 10));
        world.ask(0, open(2, 102, false));
        for (at, from) in [(0, 1), (1, 0)] {
            hear(&mut world, at, from, &noise);
            for (kind, n, place, byte) in &damages {
                // Attachments of these processes are there, and frames with the next number.
                let attachment = AttachmentId { process: 2, number: 1 + n % 2 };
                let message = messages(*n)[*kind].clone();
                let mut bytes = message.frame(Some(attachment), 2 + n).to_vec();
                if let Some(damaged) = bytes.get_mut(*place) {
                    *damaged = *byte;
                }
                // Who claims to lead in a term to come is followed there: not damaged, but a lie.
                let frame = Frame::decode(&bytes[..]).ok().and_then(|frame| frame.message);
                if !matches!(frame, Some(PeerMessage::Announce(_))) {
                    hear(&mut world, at, from, &bytes);
                }
            }
        }
        world.ticks(10);
        world.ask(0, open(3, 103, false));
        world.ask(0, put(3, 103, 77));
        world.ticks(3);
        prop_assert_eq!(world.nodes[0].client.acked(3), [77]);
    }
}
