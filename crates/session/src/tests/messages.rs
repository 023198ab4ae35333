//! PUTs and CONFIRMs: checked, collected by partition, in order with requests.

use bytes::{Bytes, BytesMut};
use flintmq_partition::{Put, Request};
use flintmq_protocol::ack::{AckMessages, AckStatus};
use flintmq_protocol::confirm::{ConfirmBuilder, ConfirmMessage};
use flintmq_protocol::control::{CloseQueue, ControlChoice};
use flintmq_protocol::event::PACKED_EVENT_SIZE;
use flintmq_protocol::flags::{PutFlags, QueueFlags};
use flintmq_protocol::frame::FrameDecoder;
use flintmq_protocol::guid::{ClientId, MessageGuid};
use flintmq_protocol::put::{PutBuilder, PutHead};
use flintmq_queue::HandleId;

use super::client::{Client, ID, cpp, handle, java, to_partition};
use crate::{Effect, Input};

fn puts<'a>(messages: impl IntoIterator<Item = (PutHead, &'a [u8])>) -> BytesMut {
    let mut bytes = BytesMut::new();
    let mut builder = PutBuilder::new(&mut bytes, PACKED_EVENT_SIZE);
    for (head, data) in messages {
        builder.append(&head, &[], &[data]).unwrap();
    }
    bytes
}

fn guid(number: u8) -> MessageGuid {
    MessageGuid([number; 16])
}

fn published(effect: &Effect) -> (&[Put], usize) {
    match to_partition(effect) {
        (Request::Publish(publish), unanswered) => {
            assert_eq!(publish.session, ID);
            (&publish.puts, unanswered)
        }
        other => panic!("not published: {other:?}"),
    }
}

fn refused(bytes: &Bytes) -> Vec<(u32, MessageGuid, u32, AckStatus)> {
    let (mut bytes, mut refused) = (BytesMut::from(&bytes[..]), Vec::new());
    while let Some(frame) = FrameDecoder::before_negotiation().decode(&mut bytes).unwrap() {
        let event = frame.parse().unwrap();
        let acks = AckMessages::parse(&event.body).unwrap();
        refused.extend(acks.map(|a| (a.queue_id, a.guid, a.correlation_id, a.status)));
    }
    refused
}

#[test]
fn one_read_makes_one_request_for_a_partition() {
    let mut client = Client::start(&cpp());
    client.open(4, QueueFlags::WRITE);
    client.open(6, QueueFlags::WRITE);
    let mut bytes = puts([(PutHead::new(4, guid(1)), &b"first"[..])]);
    bytes.extend(puts([(PutHead::new(6, guid(2)), &b"second"[..])]));
    let half = puts([(PutHead::new(4, guid(3)), &b"third"[..])]);
    bytes.extend_from_slice(&half[..half.len() - 1]);
    let effects = client.send(&bytes);
    let [effect] = &effects[..] else { panic!("not one request: {effects:?}") };
    let (taken, unanswered) = published(effect);
    let taken: Vec<_> = taken.iter().map(|put| (put.handle, put.guid, &put.app_data[..])).collect();
    let (first, second) = (HandleId(40), HandleId(60));
    assert_eq!(taken, [(first, guid(1), &b"first"[..]), (second, guid(2), &b"second"[..])]);
    assert_eq!((unanswered, client.session.partial_bytes()), (11, half.len() - 1));
    let effects = client.send(&half[half.len() - 1..]);
    assert_eq!(published(&effects[0]).0[0].guid, guid(3));
}

#[test]
fn a_message_is_a_slice_of_what_was_read() {
    let mut client = Client::start(&cpp());
    client.open(4, QueueFlags::WRITE);
    let data = [7; 5000];
    client.session.received().extend_from_slice(&puts([(PutHead::new(4, guid(1)), &data[..])]));
    let read = client.session.received().as_ptr_range();
    let effects = client.step(Input::Received);
    let (taken, _) = published(&effects[0]);
    assert!(read.contains(&taken[0].app_data.as_ptr()) && taken[0].app_data[..] == data);
}

#[test]
fn what_was_published_goes_ahead_of_a_close() {
    let mut client = Client::start(&cpp());
    client.open(4, QueueFlags::WRITE);
    let handle_parameters = handle(4, QueueFlags::WRITE);
    let close =
        client.request(ControlChoice::CloseQueue(CloseQueue { handle_parameters, is_final: true }));
    let mut bytes = puts([(PutHead::new(4, guid(1)), &b"before"[..])]);
    bytes.extend_from_slice(&close);
    bytes.extend(puts([(PutHead::new(4, guid(2)), &b"behind"[..])]));
    let effects = client.send(&bytes);
    let [before, Effect::HandlesChanged(0), closed] = &effects[..] else {
        panic!("what comes behind a close is dropped in silence: {effects:?}");
    };
    assert_eq!(published(before).0.len(), 1);
    assert!(matches!(to_partition(closed), (Request::Close(_), 0)));
}

#[test]
fn a_client_that_only_counts_gets_guids_that_never_repeat() {
    let mut client = Client::start(&java());
    client.open(4, QueueFlags::WRITE);
    let counted = |number| PutHead::new(4, MessageGuid::from_correlation_id(number));
    let bytes = puts([(counted(1), &b"a"[..]), (counted(0), &b"b"[..])]);
    let mut effects = client.send(&bytes);
    client.now.0 += 1;
    effects.extend(client.send(&bytes));
    let taken: Vec<&Put> = effects.iter().flat_map(|effect| published(effect).0).collect();
    let wanted: Vec<_> = taken.iter().map(|put| (put.correlation_id, put.ack_requested)).collect();
    assert_eq!(wanted, [(1, true), (0, false), (1, true), (0, false)]);
    let mut guids: Vec<MessageGuid> = taken.iter().map(|put| put.guid).collect();
    // The process's number, with the session's mixed in.
    let id = ClientId([0x0a, 0x0b, 0x0c, 0x0d, 0, 5]);
    assert!(guids.iter().all(|guid| guid.client_id() == id), "{guids:?}");
    guids.sort_unstable();
    guids.dedup();
    assert_eq!(guids.len(), 4);
}

#[test]
fn what_cannot_be_stored_is_refused_and_the_rest_goes_on() {
    let mut client = Client::start(&cpp());
    client.open(4, QueueFlags::WRITE);
    client.open(5, QueueFlags::READ);
    let mut bytes = puts([(PutHead::new(4, guid(1)), &b"damaged"[..])]);
    let last = bytes.len() - 4;
    bytes[last] ^= 1;
    bytes.extend(puts([
        (PutHead::new(5, guid(2)), &b"not open for writing"[..]),
        (PutHead::new(77, guid(3)), &b"not open at all: no ACK, which would crash it"[..]),
        (PutHead::new(4, MessageGuid::UNSET), &b"no GUID"[..]),
        (PutHead::new(4, guid(4)), &b"good"[..]),
    ]));
    let effects = client.send(&bytes);
    let [Effect::Send(nacks), effect] = &effects[..] else { panic!("{effects:?}") };
    let unknown = |queue, guid| (queue, guid, 0, AckStatus::Unknown);
    let expected = [unknown(4, guid(1)), unknown(5, guid(2)), unknown(4, MessageGuid::UNSET)];
    assert_eq!(refused(nacks), expected);
    assert_eq!(published(effect).0[0].guid, guid(4));
}

#[test]
fn much_is_handed_over_before_the_end_of_the_read() {
    let mut client = Client::start(&cpp());
    client.open(4, QueueFlags::WRITE);
    let data = vec![1; 400 << 10];
    let mut bytes = BytesMut::new();
    for number in 1..=7 {
        let mut head = PutHead::new(4, guid(number));
        head.flags = PutFlags::NONE;
        bytes.extend(puts([(head, &data[..])]));
    }
    let effects = client.send(&bytes);
    let counts: Vec<_> = effects.iter().map(|effect| published(effect).0.len()).collect();
    assert_eq!(counts, [3, 3, 1]);
    assert_eq!(published(&effects[0]).1, 3 * data.len());
}

#[test]
fn confirmations_go_to_their_readers_and_unknown_ones_nowhere() {
    let mut client = Client::start(&cpp());
    client.open(4, QueueFlags::READ);
    let mut bytes = BytesMut::new();
    let mut builder = ConfirmBuilder::new(&mut bytes, PACKED_EVENT_SIZE);
    for (queue_id, number) in [(4, 1), (77, 2), (4, 3)] {
        builder.append(&ConfirmMessage { queue_id, guid: guid(number), sub_queue_id: 0 });
    }
    let effects = client.send(&bytes);
    let [effect] = &effects[..] else { panic!("not one request: {effects:?}") };
    let (Request::Confirm(confirms), 0) = to_partition(effect) else { panic!("{effect:?}") };
    let confirms: Vec<_> = confirms.iter().map(|confirm| (confirm.handle, confirm.guid)).collect();
    assert_eq!(confirms, [(HandleId(40), guid(1)), (HandleId(40), guid(3))]);
}
