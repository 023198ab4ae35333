//! What real clients sent, taken from captures (`crates/protocol/vectors`).

use flintmq_partition::{HandleRole, Request};
use flintmq_protocol::compression::Compression;
use flintmq_protocol::control::{ClientLanguage, ControlChoice};
use flintmq_queue::HandleId;

use super::client::{Client, QUEUE, control, to_partition};
use crate::{Effect, End, Input};

macro_rules! vector {
    ($name:literal) => {
        bytes(include_str!(concat!("../../../protocol/vectors/", $name, ".json")))
    };
}

fn bytes(description: &str) -> Vec<u8> {
    let (_, hex) = description.split_once("\"hex\": \"").expect("bytes in hex");
    let (hex, _) = hex.split_once('"').expect("their end");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn the_java_client_from_its_hello_to_its_goodbye_in_pieces_of_any_size() {
    for piece in [1, 7, 4096] {
        let mut client = Client::connect();
        let effects = client.send_in_pieces(&vector!("java_client_identity"), piece);
        let [Effect::Established(established), Effect::Send(_)] = &effects[..] else {
            panic!("not established: {effects:?}");
        };
        assert_eq!(established.identity.sdk_language, ClientLanguage::Java);

        let effects = client.send_in_pieces(&vector!("java_open_queue_write"), piece);
        let [Effect::Place(place)] = &effects[..] else { panic!("no open: {effects:?}") };
        assert_eq!(place.uri, "bmq://bmq.test.mem.priority/jq");
        let effects = client.place(place.open);
        let [Effect::Open(open)] = &effects[..] else { panic!("no open: {effects:?}") };
        assert_eq!(open.role, HandleRole::Writer { queue_id: 0 });
        let effects = client.step(Input::Opened { open: open.open, result: Ok(HandleId(77)) });
        assert!(matches!(effects[..], [Effect::HandlesChanged(1), Effect::Send(_)]));

        let effects = client.send_in_pieces(&vector!("java_put_props_zlib"), piece);
        let [effect] = &effects[..] else { panic!("not published: {effects:?}") };
        let (Request::Publish(publish), unanswered) = to_partition(effect) else {
            panic!("not published: {effect:?}");
        };
        let [put] = &publish.puts[..] else { panic!("not one message: {publish:?}") };
        assert_eq!((put.handle, put.queue), (HandleId(77), QUEUE));
        assert_eq!((put.correlation_id, put.ack_requested), (4, true));
        assert_eq!(put.attributes.compression, Compression::Zlib.to_wire());
        assert_eq!(put.app_data.len(), unanswered);

        let effects = client.send_in_pieces(&vector!("java_disconnect"), piece);
        assert!(matches!(effects[..], [Effect::EndInPartitions { lost: false }]), "{effects:?}");
        let effects = client.step(Input::Ended);
        let [Effect::Close { last: answer, end: End::Disconnected }] = &effects[..] else {
            panic!("no farewell: {effects:?}");
        };
        let answer = control(answer);
        assert_eq!((answer.r_id, answer.choice), (Some(2), ControlChoice::DisconnectResponse));
    }
}

#[test]
fn the_python_client_reads_confirms_and_closes() {
    let mut client = Client::connect();
    client.send(&vector!("py_client_identity"));
    let effects = client.send(&vector!("py_open_queue_read"));
    let [Effect::Place(place)] = &effects[..] else { panic!("no open: {effects:?}") };
    let effects = client.place(place.open);
    let [Effect::Open(open)] = &effects[..] else { panic!("no open: {effects:?}") };
    assert!(open.role.reads() && !open.old_properties);
    client.step(Input::Opened { open: open.open, result: Ok(HandleId(77)) });

    let effects = client.send(&vector!("py_configure_stream"));
    let [effect] = &effects[..] else { panic!("not configured: {effects:?}") };
    let (Request::Configure(configure), 0) = to_partition(effect) else {
        panic!("not configured: {effect:?}");
    };
    assert_eq!((configure.handle, configure.subscriptions.len()), (HandleId(77), 1));
    let answer = control(&configure.response);
    assert_eq!(answer.r_id, configure.request_id);

    let effects = client.send(&vector!("py_confirm"));
    let [effect] = &effects[..] else { panic!("not confirmed: {effects:?}") };
    let (Request::Confirm(confirms), 0) = to_partition(effect) else {
        panic!("not confirmed: {effect:?}");
    };
    assert!(!confirms.is_empty() && confirms.iter().all(|c| c.handle == HandleId(77)));

    let effects = client.send(&vector!("py_close_queue_read"));
    let [Effect::HandlesChanged(0), effect] = &effects[..] else { panic!("open: {effects:?}") };
    let (Request::Close(close), 0) = to_partition(effect) else { panic!("open: {effect:?}") };
    assert_eq!(close.handles, [HandleId(77)]);
    assert_eq!(control(&close.response).choice, ControlChoice::CloseQueueResponse);
}
