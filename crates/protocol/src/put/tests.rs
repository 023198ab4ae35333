//! What is read, refused and written in PUT events.

use bytes::{Bytes, BytesMut};

use super::*;
use crate::malformed::BuildError;

const GUID: MessageGuid = MessageGuid([7; 16]);

/// A body with the given messages, each with queue id 1, 2, …
fn body(payloads: &[&[u8]]) -> Vec<u8> {
    let mut out = BytesMut::new();
    let mut builder = PutBuilder::new(&mut out, usize::MAX);
    for (queue_id, payload) in (1..).zip(payloads) {
        builder.append(&PutHead::new(queue_id, GUID), &[], &[payload]).unwrap();
    }
    out[8..].to_vec()
}

/// The queue ids of good messages, the faults of bad ones.
fn walk(body: Vec<u8>) -> Vec<Result<u32, (bool, usize, MessageFault)>> {
    let body = Bytes::from(body);
    PutMessages::new(&body)
        .map(|message| match message {
            Ok(message) => Ok(message.queue_id),
            Err(PutError::Message(bad)) => {
                assert_eq!((bad.queue_id, bad.guid), (1, GUID));
                Err((true, bad.offset, bad.fault))
            }
            Err(PutError::Event(bad)) => Err((false, bad.offset, bad.fault)),
        })
        .collect()
}

/// Two messages, the first with these header bytes replaced.
fn damaged(at: usize, bytes: &[u8]) -> Vec<Result<u32, (bool, usize, MessageFault)>> {
    let mut body = body(&[b"one", b"two"]);
    body[at..at + bytes.len()].copy_from_slice(bytes);
    walk(body)
}

#[test]
fn one_bad_message_is_passed_over() {
    let one_bad = |fault| vec![Err((true, 0, fault)), Ok(2)];
    assert_eq!(damaged(7, &[2 << 5 | 9]), one_bad(MessageFault::UnknownCompression));
    assert_eq!(damaged(32, &[0, 1]), one_bad(MessageFault::SchemaWithoutProperties));
    assert_eq!(damaged(39, &[5]), one_bad(MessageFault::Padding));
    assert_eq!(damaged(39, &[4]), one_bad(MessageFault::Empty));
    let options = damaged(4, &[0, 0, 1]);
    assert!(matches!(options[0], Err((true, 0, MessageFault::Padding))), "{options:?}");
    assert_eq!(options[1], Ok(2));
}

#[test]
fn a_bad_option_is_the_messages_fault() {
    let mut out = BytesMut::new();
    let mut builder = PutBuilder::new(&mut out, usize::MAX);
    builder.append(&PutHead::new(1, GUID), &[0; 4], &[b"x"]).unwrap();
    builder.append(&PutHead::new(2, GUID), &[0x0e, 0, 0, 0x80], &[b"x"]).unwrap();
    let read = walk(out[8..].to_vec());
    assert!(matches!(read[0], Err((true, 0, MessageFault::Options(_)))), "{read:?}");
    assert_eq!(read[1], Ok(2));
}

#[test]
fn an_unreadable_header_ends_the_event() {
    let ends = |fault| vec![Err((false, 0, fault))];
    assert_eq!(damaged(0, &[0x10, 0, 0, 0]), ends(MessageFault::ZeroLength));
    assert_eq!(damaged(0, &[0x10, 0, 0, 21]), ends(MessageFault::Overrun));
    assert_eq!(damaged(0, &[0x1f, 255, 255, 255]), ends(MessageFault::Overrun));
    assert_eq!(damaged(4, &[0, 0, 2, 9]), ends(MessageFault::PartsOverrun));
    assert_eq!(damaged(4, &[255, 255, 255, 9]), ends(MessageFault::PartsOverrun));
    assert_eq!(damaged(7, &[7]), ends(MessageFault::HeaderTooShort));
    assert_eq!(damaged(7, &[0]), ends(MessageFault::HeaderTooShort));
    assert_eq!(walk(Vec::new()), ends(MessageFault::NoMessages));
    let mut cut = body(&[b"one"]);
    cut.extend_from_slice(&[0; 7]);
    assert_eq!(walk(cut), [Ok(1), Err((false, 40, MessageFault::Truncated))]);
}

#[test]
fn shorter_and_longer_headers_are_read() {
    // Eight words: a sender that knows no schema ids.
    let mut short = body(&[b"one"]);
    short.drain(32..36);
    short[3] -= 1;
    short[7] = 8;
    let short = Bytes::from(short);
    let message = PutMessages::new(&short).next().unwrap().unwrap();
    assert_eq!((message.schema_wire_id, &message.app_data[..]), (0, &b"one"[..]));
    let mut long = body(&[b"one"]);
    long.splice(36..36, [9; 8]);
    long[3] += 2;
    long[7] = 11;
    let long = Bytes::from(long);
    let message = PutMessages::new(&long).next().unwrap().unwrap();
    assert_eq!(&message.app_data[..], b"one");
    assert!(message.options.is_empty());
}

#[test]
fn the_correlation_id_decides_about_the_ack_where_there_is_one() {
    let body = Bytes::from(body(&[b"one"]));
    let mut message = PutMessages::new(&body).next().unwrap().unwrap();
    assert!(message.wants_ack(true) && message.wants_ack(false));
    message.guid = MessageGuid::from_correlation_id(0);
    assert!(message.wants_ack(true) && !message.wants_ack(false));
    message.flags = PutFlags::NONE;
    message.guid = MessageGuid::from_correlation_id(9);
    assert!(!message.wants_ack(true) && message.wants_ack(false));
}

#[test]
fn payloads_are_slices_of_the_received_buffer() {
    let body = Bytes::from(body(&[b"payload"]));
    let message = PutMessages::new(&body).next().unwrap().unwrap();
    assert!(body.as_ptr_range().contains(&message.app_data.as_ptr()));
}

#[test]
fn what_no_reader_takes_is_not_written() {
    let mut out = BytesMut::from(&b"before"[..]);
    let mut builder = PutBuilder::new(&mut out, usize::MAX);
    let head = PutHead::new(1, GUID);
    assert_eq!(builder.append(&head, &[], &[b"", b""]), Err(BuildError::Empty));
    assert_eq!(builder.append(&head, &[1, 2, 3], &[b"x"]), Err(BuildError::Options { bytes: 3 }));
    let large = vec![0; crate::malformed::MAX_APP_DATA_SIZE];
    let too_large = builder.append(&head, &[], &[&large, b"x"]);
    assert!(matches!(too_large, Err(BuildError::TooLarge { .. })));
    assert_eq!(builder.buffered(), 6);
    builder.append(&head, &[], &[&large]).unwrap();
    assert_eq!(out.len(), 6 + 8 + 36 + large.len() + 4);
}
