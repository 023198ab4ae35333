//! Silence, and the ways in which a session ends.

use std::time::Duration;

use flintmq_partition::Request;
use flintmq_protocol::control::{ControlChoice, StatusCategory};
use flintmq_protocol::event::{HEARTBEAT_REQUEST, HEARTBEAT_RESPONSE, PACKED_EVENT_SIZE};
use flintmq_protocol::flags::QueueFlags;
use flintmq_protocol::guid::MessageGuid;
use flintmq_protocol::put::{PutBuilder, PutHead};

use bytes::BytesMut;

use super::client::{Client, assert_refused, control, cpp, java, open_queue, to_partition};
use crate::{Effect, End, Input};

fn asks(effects: &[Effect]) -> bool {
    match effects {
        [] => false,
        [Effect::Send(event)] if event[..] == HEARTBEAT_REQUEST => true,
        other => panic!("neither silence nor a question: {other:?}"),
    }
}

#[test]
fn a_silent_client_is_asked_once_and_lost_when_it_does_not_answer() {
    let mut client = Client::start(&cpp());
    let began = client.now;
    assert!(asks(&client.tick()));
    assert_eq!(client.now.since(began), Duration::from_secs(3));
    for _ in 2..10 {
        assert!(!asks(&client.tick()), "it was asked before");
    }
    let effects = client.tick();
    assert!(matches!(effects[..], [Effect::EndInPartitions { lost: true }]), "{effects:?}");
    assert_eq!(client.now.since(began), Duration::from_secs(30));
    let effects = client.step(Input::Ended);
    let [Effect::Close { last: nothing, end: End::Lost(reason) }] = &effects[..] else {
        panic!("not lost: {effects:?}");
    };
    assert!(nothing.is_empty() && reason == "no sign of life for 30 s", "{reason}");
}

#[test]
fn a_client_that_answers_stays() {
    let mut client = Client::start(&cpp());
    for _ in 0..30 {
        assert!(asks(&client.tick()));
        assert!(client.send(&HEARTBEAT_RESPONSE).is_empty());
    }
}

#[test]
fn a_client_that_takes_nothing_is_not_taken_for_silent() {
    let mut client = Client::start(&cpp());
    for _ in 0..30 {
        client.now = client.session.deadline().unwrap();
        assert!(client.step(Input::Tick { output_full: true }).is_empty());
    }
    let effects = client.tick();
    assert!(matches!(effects[..], [Effect::EndInPartitions { lost: true }]), "{effects:?}");
}

#[test]
fn a_client_that_knows_no_heartbeats_is_never_asked() {
    let client = Client::start(&java());
    assert_eq!(client.session.deadline(), None);
}

#[test]
fn what_was_published_before_a_fault_is_handed_over() {
    let mut client = Client::start(&cpp());
    client.open(4, QueueFlags::WRITE);
    let mut bytes = BytesMut::new();
    let head = PutHead::new(4, MessageGuid([1; 16]));
    PutBuilder::new(&mut bytes, PACKED_EVENT_SIZE).append(&head, &[], &[b"good"]).unwrap();
    // A PUSH, which no client sends.
    bytes.extend_from_slice(&[0, 0, 0, 8, 0x44, 2, 0, 0]);
    let effects = client.send(&bytes);
    let [effect, Effect::EndInPartitions { lost: true }] = &effects[..] else {
        panic!("not ended: {effects:?}");
    };
    assert!(matches!(to_partition(effect), (Request::Publish(_), 4)));
    assert!(client.send(&bytes).is_empty() && !client.session.reads());
    let effects = client.step(Input::Ended);
    assert!(matches!(&effects[..], [Effect::Close { end: End::Lost(_), .. }]), "{effects:?}");
    assert!(client.step(Input::Ended).is_empty(), "it is over");
}

#[test]
fn the_answer_to_a_disconnect_is_the_last_word() {
    let mut client = Client::start(&cpp());
    let mut bytes = BytesMut::from(&client.request(ControlChoice::Disconnect)[..]);
    bytes.extend_from_slice(&HEARTBEAT_REQUEST);
    let effects = client.send(&bytes);
    assert!(matches!(effects[..], [Effect::EndInPartitions { lost: false }]), "{effects:?}");
    assert!(client.step(Input::Lost("gone".into())).is_empty(), "it ends already");
    assert!(client.step(Input::Closing).is_empty(), "it ends already");
    let effects = client.step(Input::Ended);
    let [Effect::Close { last: answer, end: End::Disconnected }] = &effects[..] else {
        panic!("no farewell: {effects:?}");
    };
    let answer = control(answer);
    assert_eq!((answer.r_id, answer.choice), (Some(1), ControlChoice::DisconnectResponse));
}

#[test]
fn a_request_that_is_not_served_is_refused_and_one_that_cannot_be_read_ends_it() {
    let mut client = Client::start(&cpp());
    let effects = client.ask(ControlChoice::DisconnectResponse);
    assert_refused(&effects, 1, StatusCategory::NotSupported);
    let effects = client.ask(open_queue(u32::MAX, QueueFlags::READ));
    assert_refused(&effects, 2, StatusCategory::InvalidArgument);
    let effects = client.send(&[0, 0, 0, 12, 0x41, 2, 0, 0, 0xff, 0xff, 0xff, 1]);
    assert!(matches!(effects[..], [Effect::EndInPartitions { lost: true }]), "{effects:?}");
}

#[test]
fn a_stopping_node_closes_without_a_word() {
    let mut client = Client::start(&cpp());
    client.step(Input::Closing);
    let effects = client.step(Input::Ended);
    let [Effect::Close { last: nothing, end: End::NodeStops }] = &effects[..] else {
        panic!("not closed: {effects:?}");
    };
    assert!(nothing.is_empty());
}
