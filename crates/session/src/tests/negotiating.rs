//! From the first byte to the negotiation.

use bytes::BytesMut;
use flintmq_protocol::control::{
    AuthenticationMessage, AuthenticationRequest, ClientIdentity, Encoding, NegotiationMessage,
};
use flintmq_protocol::event::{HEARTBEAT_REQUEST, HEARTBEAT_RESPONSE};

use super::client::{Client, cpp, event, hello};
use crate::{Effect, End, Input};

fn credentials(mechanism: &str) -> BytesMut {
    let mut bytes = BytesMut::new();
    let request = AuthenticationRequest { mechanism: mechanism.into(), data: None };
    let message = AuthenticationMessage::AuthenticationRequest(request);
    message.append_event(Encoding::Ber, &mut bytes).unwrap();
    bytes
}

#[test]
fn what_comes_along_with_the_hello_is_taken_too() {
    let mut client = Client::connect();
    let mut bytes = BytesMut::from(&hello(&cpp())[..]);
    bytes.extend_from_slice(&HEARTBEAT_REQUEST);
    let effects = client.send(&bytes);
    let [Effect::Established(_), Effect::Send(_), Effect::Send(answer)] = &effects[..] else {
        panic!("not established: {effects:?}");
    };
    assert_eq!(answer[..], HEARTBEAT_RESPONSE);
}

#[test]
fn credentials_come_first_where_a_client_has_some() {
    let mut client = Client::connect();
    let effects = client.send(&credentials("ANONYMOUS"));
    assert!(matches!(&effects[..], [Effect::Send(answer)] if !answer.is_empty()), "{effects:?}");
    let effects = client.send(&hello(&cpp()));
    assert!(matches!(effects[..], [Effect::Established(_), Effect::Send(_)]), "{effects:?}");
    // They may be renewed at any time.
    let effects = client.send(&credentials("anonymous"));
    assert!(matches!(effects[..], [Effect::Send(_)]), "{effects:?}");
    let effects = client.send(&credentials("BASIC"));
    assert!(
        matches!(effects[..], [Effect::Send(_), Effect::EndInPartitions { lost: true }]),
        "{effects:?}"
    );
}

#[test]
fn a_client_that_is_not_served_is_answered_and_closed() {
    let mut client = Client::connect();
    let effects = client.send(&hello(&ClientIdentity::default()));
    let [Effect::Close { last: answer, end: End::NotNegotiated(_) }] = &effects[..] else {
        panic!("not refused: {effects:?}");
    };
    let NegotiationMessage::BrokerResponse(response) =
        NegotiationMessage::from_event(&event(answer)).unwrap()
    else {
        panic!("not a broker's answer");
    };
    assert!(!response.result.is_success());
    assert!(!client.session.reads() && client.session.deadline().is_none());
    assert!(client.send(&hello(&cpp())).is_empty(), "it is over");
}

#[test]
fn a_stream_that_is_none_of_events_ends_the_connection() {
    let mut client = Client::connect();
    let effects = client.send(b"GET / HTTP/1.1\r\n\r\n");
    assert!(
        matches!(effects[..], [Effect::Close { end: End::NotNegotiated(_), .. }]),
        "{effects:?}"
    );
}

#[test]
fn a_client_that_takes_too_long_is_closed_and_none_sooner() {
    let mut client = Client::connect();
    let hello = hello(&cpp());
    assert!(client.send(&hello[..hello.len() - 1]).is_empty());
    assert!(client.step(Input::Tick { output_full: false }).is_empty(), "too early");
    let effects = client.tick();
    assert!(
        matches!(effects[..], [Effect::Close { end: End::NegotiatedTooLate, .. }]),
        "{effects:?}"
    );
}

#[test]
fn before_the_negotiation_no_partition_has_to_be_asked_for_an_end() {
    let mut client = Client::connect();
    let effects = client.step(Input::Lost("gone".into()));
    let [Effect::Close { end, .. }] = &effects[..] else { panic!("not closed: {effects:?}") };
    assert_eq!(*end, End::NotNegotiated("gone".into()));
    let mut client = Client::connect();
    let effects = client.step(Input::Closing);
    assert!(matches!(effects[..], [Effect::Close { end: End::NodeStops, .. }]), "{effects:?}");
}
