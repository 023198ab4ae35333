//! Encoding and decoding are each other's inverse for every kind of message, and no bytes do harm.

use std::sync::Arc;

use bytes::Bytes;
use flintmq_consensus::{
    Answer, Body, Cession, Clocks, ConfigRegister, ConfigStamp, CreationId, Entry, EntryKind,
    FetchOutcome, GroupId, LogPosition, Message, NodeId, Packet, ProducerSequence, RejoinTarget,
    SnapshotId, UnfitReasons,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::{WireError, decode, decode_from, encode, limits};

/// Small numbers and numbers of any size.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..200_u64, any::<u64>(), Just(u64::MAX)]
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![0..200_u32, any::<u32>()]
}

fn node() -> impl Strategy<Value = NodeId> {
    prop_oneof![(1..4_u32), any::<u32>()].prop_map(NodeId)
}

fn payload() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

prop_compose! {
    fn position()(term in number(), index in number()) -> LogPosition {
        LogPosition { term, index }
    }
}

prop_compose! {
    fn stamp()(term in number(), version in number()) -> ConfigStamp {
        ConfigStamp { term, version }
    }
}

prop_compose! {
    fn cession()(leader in node(), term in number()) -> Cession {
        Cession { leader, term }
    }
}

prop_compose! {
    fn rejoin()(epoch in number(), target in position()) -> RejoinTarget {
        RejoinTarget { epoch, target }
    }
}

prop_compose! {
    fn snapshot()(source in node(), number in number(), position in position()) -> SnapshotId {
        SnapshotId { source, number, position }
    }
}

prop_compose! {
    fn config_parts()(
        stamp in stamp(),
        voters in vec(node(), 0..6),
        outgoing in vec(node(), 0..6),
        learners in vec(node(), 0..6),
    ) -> Arc<ConfigRegister> {
        Arc::new(ConfigRegister { stamp, voters, outgoing, learners })
    }
}

fn config() -> BoxedStrategy<Arc<ConfigRegister>> {
    config_parts().boxed()
}

fn kind() -> impl Strategy<Value = EntryKind> {
    prop_oneof![
        Just(EntryKind::Barrier),
        Just(EntryKind::Commands),
        (number(), number()).prop_map(|(producer, sequence)| {
            EntryKind::Sequenced(ProducerSequence { producer, sequence })
        }),
    ]
}

prop_compose! {
    fn any_entry()(
        index in number(), term in number(), history in small(), kind in kind(),
        payload in payload(),
    ) -> Entry {
        Entry { index, term, history, kind, payload }
    }
}

/// Entries as they stand in a log, and entries in no order at all.
fn entries() -> BoxedStrategy<Vec<Entry>> {
    let consecutive = (number(), number(), small(), vec((kind(), payload()), 0..8)).prop_map(
        |(index, term, history, contents)| {
            let numbered = (0..).zip(contents);
            numbered
                .map(|(step, (kind, payload))| {
                    let index = index.wrapping_add(step);
                    Entry { index, term, history, kind, payload }
                })
                .collect()
        },
    );
    prop_oneof![consecutive, vec(any_entry(), 0..6)].boxed()
}

fn outcome() -> impl Strategy<Value = FetchOutcome> {
    prop_oneof![
        entries().prop_map(FetchOutcome::Entries),
        position().prop_map(FetchOutcome::Conflict),
        Just(FetchOutcome::Compacted),
        Just(FetchOutcome::Gone),
    ]
}

/// One strategy for each kind; `every_kind_is_generated` fails when one is missing.
fn body() -> BoxedStrategy<Body> {
    let elections = prop_oneof![
        (number(), stamp(), position(), of(cession()))
            .prop_map(|(next, config, last, cession)| Body::Scout { next, config, last, cession }),
        (
            number(),
            any::<bool>(),
            position(),
            any::<bool>(),
            of(cession()),
            of(cession()),
            of(config())
        )
            .prop_map(|(next, granted, last, recovering, leader, ceded, newer)| {
                Body::ScoutReply { next, granted, last, recovering, leader, ceded, newer }
            }),
        (stamp(), of(cession())).prop_map(|(config, cession)| Body::Propose { config, cession }),
        stamp().prop_map(|config| Body::SyncRequest { config }),
        (any::<bool>(), number(), position(), number(), of(number()), small()).prop_map(
            |(vote, first, last, commit, recovering, history)| {
                Body::Reply(Answer { vote, first, last, commit, recovering, history })
            }
        ),
        of(config()).prop_map(|newer| Body::Refused { newer }),
        of(node()).prop_map(|successor| Body::Cede { successor }),
    ];
    let replication = prop_oneof![
        (position(), position(), small()).prop_map(|(prev, upto, max_bytes)| Body::Fetch {
            prev,
            upto,
            max_bytes
        }),
        (position(), outcome()).prop_map(|(prev, outcome)| Body::FetchReply { prev, outcome }),
        (position(), entries(), number(), small(), stamp(), of(config()), of(rejoin())).prop_map(
            |(prev, entries, commit, history, config, newer, rejoin)| {
                Body::Append { prev, entries, commit, history, config, newer, rejoin }
            }
        ),
        (prop_oneof![number().prop_map(Ok), position().prop_map(Err)], number(), stamp())
            .prop_flat_map(|(outcome, synced, config)| {
                of(number()).prop_map(move |recovering| Body::Ack {
                    outcome,
                    synced,
                    config,
                    recovering,
                })
            }),
        rejoin().prop_map(Body::RejoinGrant),
        number().prop_map(|round| Body::Confirm { round }),
        number().prop_map(|round| Body::Confirmed { round }),
    ];
    let rest = prop_oneof![
        (position(), vec(node(), 0..5)).prop_map(|(last, lagging)| Body::Quiesce { last, lagging }),
        position().prop_map(|last| Body::Quiesced { last }),
        Just(Body::Wake),
        (snapshot(), small(), of(stamp()), of(config())).prop_map(
            |(id, history, config, newer)| { Body::SnapshotOffer { id, history, config, newer } }
        ),
        (snapshot(), payload()).prop_map(|(id, cursor)| Body::SnapshotWanted { id, cursor }),
        (snapshot(), payload(), payload(), any::<u32>(), of(payload())).prop_map(
            |(id, cursor, data, crc, next)| Body::SnapshotChunk { id, cursor, data, crc, next }
        ),
    ];
    // Boxed, because strategies of strategies of this size overflow a test's stack.
    prop_oneof![elections.boxed(), replication.boxed(), rest.boxed()].boxed()
}

prop_compose! {
    fn message_parts()(
        group in any::<u32>(), creation in any::<u64>(), from in node(), to in node(),
        term in number(), body in body(),
    ) -> Message {
        Message { group: GroupId(group), creation: CreationId(creation), from, to, term, body }
    }
}

fn message() -> BoxedStrategy<Message> {
    message_parts().boxed()
}

prop_compose! {
    fn packet()(
        from in node(), to in node(), from_incarnation in number(), to_incarnation in number(),
        number in number(), contact in number(), heard_contact in number(),
        hears_you in any::<bool>(), clocks in of((number(), of(number()))),
        unfit in any::<u8>(),
        messages in vec(message(), 0..8),
    ) -> Packet {
        let clocks = clocks.map(|(wall_ms, cluster_ms)| Clocks { wall_ms, cluster_ms });
        Packet {
            from, to, from_incarnation, to_incarnation, number, contact, heard_contact, hears_you,
            clocks, unfit: UnfitReasons(unfit), messages,
        }
    }
}

fn carrying(messages: Vec<Message>) -> Packet {
    Packet {
        from: NodeId(1),
        to: NodeId(2),
        from_incarnation: 1,
        to_incarnation: 1,
        number: 1,
        contact: 1,
        heard_contact: 1,
        hears_you: true,
        clocks: None,
        unfit: UnfitReasons::NONE,
        messages,
    }
}

fn saying(body: Body) -> Message {
    let (from, to) = (NodeId(1), NodeId(2));
    Message { group: GroupId(3), creation: CreationId(4), from, to, term: 5, body }
}

proptest! {
    #[test]
    fn decoding_undoes_encoding(packet in packet()) {
        let bytes = encode(&packet).unwrap().to_bytes();
        prop_assert_eq!(decode(&bytes), Ok(packet));
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_mean_something(bytes in vec(any::<u8>(), 0..400)) {
        let bytes = Bytes::from(bytes);
        if let Ok(packet) = decode(&bytes) {
            prop_assert_eq!(decode(&encode(&packet).unwrap().to_bytes()), Ok(packet));
        }
    }

    #[test]
    fn damaged_packets_are_refused_or_mean_something(
        packet in packet(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = encode(&packet).unwrap().to_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(packet) = decode(&Bytes::from(bytes)) {
            prop_assert_eq!(decode(&encode(&packet).unwrap().to_bytes()), Ok(packet));
        }
    }

    #[test]
    fn shortened_packets_are_refused(packet in packet(), keep in any::<prop::sample::Index>()) {
        let bytes = encode(&packet).unwrap().to_bytes();
        let keep = keep.index(bytes.len());
        prop_assert!(decode(&bytes.slice(..keep)).is_err());
    }
}

#[test]
fn every_kind_is_generated() {
    // The compiler asks for a new kind here; the number of kinds is then the number to reach.
    let number_of = |body: &Body| match body {
        Body::Scout { .. } => 0,
        Body::ScoutReply { .. } => 1,
        Body::Propose { .. } => 2,
        Body::SyncRequest { .. } => 3,
        Body::Reply(_) => 4,
        Body::Refused { .. } => 5,
        Body::Fetch { .. } => 6,
        Body::FetchReply { .. } => 7,
        Body::Append { .. } => 8,
        Body::Ack { .. } => 9,
        Body::RejoinGrant(_) => 10,
        Body::Confirm { .. } => 11,
        Body::Confirmed { .. } => 12,
        Body::Cede { .. } => 13,
        Body::Quiesce { .. } => 14,
        Body::Quiesced { .. } => 15,
        Body::Wake => 16,
        Body::SnapshotOffer { .. } => 17,
        Body::SnapshotWanted { .. } => 18,
        Body::SnapshotChunk { .. } => 19,
    };
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = [false; 20];
    for _ in 0..2000 {
        let body = body().new_tree(&mut runner).unwrap().current();
        seen[number_of(&body)] = true;
    }
    assert_eq!(seen, [true; 20]);
}

#[test]
fn payloads_are_not_copied_in_either_direction() {
    let payload = Bytes::from(vec![7; 10_000]);
    let entry = Entry {
        index: 2,
        term: 5,
        history: 0,
        kind: EntryKind::Commands,
        payload: payload.clone(),
    };
    let append = Body::Append {
        prev: LogPosition { term: 5, index: 1 },
        entries: vec![entry],
        commit: 1,
        history: 0,
        config: ConfigStamp::default(),
        newer: None,
        rejoin: None,
    };
    let frame = encode(&carrying(vec![saying(append)])).unwrap();
    assert!(frame.pieces().any(|piece| piece.as_ptr() == payload.as_ptr()));
    assert!(frame.len() < payload.len() + 64, "{} bytes", frame.len());

    let arrived = frame.to_bytes();
    let packet = decode(&arrived).unwrap();
    let Body::Append { entries, .. } = &packet.messages[0].body else { panic!("{packet:?}") };
    let place = entries[0].payload.as_ptr() as usize;
    let range = arrived.as_ptr() as usize..arrived.as_ptr() as usize + arrived.len();
    assert!(range.contains(&place));
}

/// The bytes of a beat and of an acknowledgement, for ever: nodes of two releases speak to each
/// other during an upgrade.
#[test]
fn the_format_does_not_change_by_accident() {
    let beat = encode(&carrying(Vec::new())).unwrap().to_bytes();
    assert_eq!(&beat[..], [1, 9, 1, 2, 1, 1, 1, 1, 1, 1, 0]);
    let stamp = ConfigStamp { term: 4, version: 1 };
    let ack = Body::Ack { outcome: Ok(300), synced: 7, config: stamp, recovering: None };
    let ack = encode(&carrying(vec![saying(ack)])).unwrap().to_bytes();
    assert_eq!(
        &ack[..],
        [
            1, 28, 1, 2, 1, 1, 1, 1, 1, 1, 1, // the packet, with one message
            0, 3, 4, 0, 0, 0, 0, 0, 0, 0,
            5, // between the packet's nodes, group, creation, term
            10, 1, 0xAC, 2, 7, 4, 1, 0, // an acknowledgement
        ]
    );
}

#[test]
fn lists_that_are_too_long_are_refused_on_both_sides() {
    let long = carrying(vec![saying(Body::Wake); limits::MAX_MESSAGES + 1]);
    let refused = |result| match result {
        Err(WireError::TooMany { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(encode(&long).map(|_| ())), "messages");
    let lagging = vec![NodeId(1); limits::MAX_NODES + 1];
    let long = Body::Quiesce { last: LogPosition::default(), lagging };
    assert_eq!(refused(encode(&carrying(vec![saying(long)])).map(|_| ())), "nodes");

    // A head of a beat that claims two million messages, and one that claims some that are missing.
    let claims = |length: &[u8]| {
        let mut bytes = vec![1, (8 + length.len()) as u8, 1, 2, 1, 1, 1, 1, 1, 1];
        bytes.extend_from_slice(length);
        decode(&Bytes::from(bytes)).map(|_| ())
    };
    assert_eq!(refused(claims(&[0xFF, 0xFF, 0x7F])), "messages");
    assert_eq!(claims(&[0xFF, 0x7F]), Err(WireError::Truncated { what: "messages" }));
}

#[test]
fn entries_are_counted_over_all_messages() {
    let entry = |index| Entry {
        index,
        term: 1,
        history: 0,
        kind: EntryKind::Barrier,
        payload: Bytes::new(),
    };
    let append = Body::Append {
        prev: LogPosition::default(),
        entries: (1..=limits::MAX_ENTRIES as u64 / 2 + 1).map(entry).collect(),
        commit: 0,
        history: 0,
        config: ConfigStamp::default(),
        newer: None,
        rejoin: None,
    };
    let one = carrying(vec![saying(append.clone())]);
    let bytes = encode(&one).unwrap().to_bytes();
    assert_eq!(decode(&bytes), Ok(one));
    let two = encode(&carrying(vec![saying(append.clone()), saying(append)]));
    assert!(matches!(two, Err(WireError::TooMany { what: "entries of a packet", .. })));

    // The same by a node that does not count: the message of the one packet, twice.
    let head = |claimed: &[u8]| {
        u64::from(claimed[0] & 0x7F)
            | u64::from(claimed[1] & 0x7F) << 7
            | u64::from(claimed[2]) << 14
    };
    assert_eq!(head(&bytes[1..4]) as usize + 4, bytes.len());
    let (fields, message) = bytes[4..].split_at(9);
    let length = fields.len() + 2 * message.len();
    let mut twice = vec![1, length as u8 | 0x80, (length >> 7) as u8 | 0x80, (length >> 14) as u8];
    twice.extend_from_slice(fields);
    let count = twice.last_mut().unwrap();
    assert_eq!(*count, 1);
    *count = 2;
    twice.extend_from_slice(message);
    twice.extend_from_slice(message);
    let refused = decode(&Bytes::from(twice));
    assert!(matches!(refused, Err(WireError::TooMany { what: "entries of a packet", .. })));
}

#[test]
fn packets_that_claim_to_be_from_somebody_else_are_refused() {
    let (one, two, three) = (NodeId(1), NodeId(2), NodeId(3));
    let packet = carrying(vec![saying(Body::Wake)]);
    let bytes = encode(&packet).unwrap().to_bytes();
    assert_eq!(decode_from(one, two, &bytes), Ok(packet));
    for (sender, receiver) in [(three, two), (one, three)] {
        let refused = decode_from(sender, receiver, &bytes);
        assert_eq!(refused, Err(WireError::OtherNodes { sender, from: one, to: two }));
    }
    let foreign = Message { from: three, ..saying(Body::Wake) };
    let bytes = encode(&carrying(vec![saying(Body::Wake), foreign])).unwrap().to_bytes();
    let refused = decode_from(one, two, &bytes);
    assert_eq!(refused, Err(WireError::OtherNodes { sender: one, from: three, to: two }));
}

#[test]
fn packets_of_another_format_are_named_as_such() {
    let mut bytes = encode(&carrying(Vec::new())).unwrap().to_bytes().to_vec();
    bytes[0] = 9;
    let error = decode(&Bytes::from(bytes)).unwrap_err();
    assert_eq!(error, WireError::Format { format: 9, known: 1 });
    assert!(error.to_string().ends_with("format=9 known=1"), "{error}");
}
