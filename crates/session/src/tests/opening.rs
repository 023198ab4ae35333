//! Opens, beside everything else.

use std::time::Duration;

use bytes::BytesMut;
use flintmq_controller::Metadata;
use flintmq_partition::{HandleRole, OpenRefusal, Request, Ticket};
use flintmq_protocol::control::{
    CloseQueue, ConfigureQueueStream, ControlChoice, OpenQueue, StatusCategory, SubQueueIdInfo,
};
use flintmq_protocol::event::HEARTBEAT_REQUEST;
use flintmq_protocol::flags::QueueFlags;
use flintmq_queue::HandleId;

use super::client::{
    Client, ID, assert_refused, control, cpp, handle, java, open_queue, to_partition,
};
use crate::control::MAX_OPENS_UNDER_WAY;
use crate::opens::{DELETED_PAUSE, DELETED_RETRIES};
use crate::{Effect, Input, OpenId, Refusal};

fn both() -> QueueFlags {
    QueueFlags::READ | QueueFlags::WRITE
}

fn place_of(effects: &[Effect]) -> OpenId {
    let [Effect::Place(place)] = effects else { panic!("no place wanted: {effects:?}") };
    place.open
}

fn role_of(effects: &[Effect]) -> (OpenId, HandleRole) {
    let Some(Effect::Open(open)) = effects.last() else { panic!("no open: {effects:?}") };
    (open.open, open.role)
}

#[test]
fn a_queue_is_opened_for_each_role_and_answered_once() {
    let mut client = Client::start(&java());
    let open = place_of(&client.ask(open_queue(4, both())));
    let effects = client.place(open);
    let [Effect::Open(wanted)] = &effects[..] else { panic!("no open: {effects:?}") };
    assert_eq!(wanted.role, HandleRole::Reader { queue_id: 4 });
    let Request::Open(request) = wanted.request(Ticket(8), HandleId(20)) else {
        panic!("not an open");
    };
    assert_eq!((request.ticket, request.session), (Ticket(8), ID));
    assert_eq!((request.handle, request.uri.as_str()), (HandleId(20), "bmq://shop/orders4"));
    assert!(request.old_properties, "the client knows no others");
    let effects = client.step(Input::Opened { open, result: Ok(HandleId(20)) });
    assert_eq!(role_of(&effects), (open, HandleRole::Writer { queue_id: 4 }));
    let effects = client.step(Input::Opened { open, result: Ok(HandleId(21)) });
    let [Effect::HandlesChanged(2), Effect::Send(answer)] = &effects[..] else {
        panic!("not answered: {effects:?}");
    };
    let ControlChoice::OpenQueueResponse(response) = control(answer).choice else {
        panic!("not opened: {answer:?}");
    };
    assert_eq!(response.original_request.handle_parameters, handle(4, both()));
    assert!(client.step(Input::Opened { open, result: Ok(HandleId(22)) }).is_empty(), "finished");
}

#[test]
fn a_reader_whose_writer_is_refused_is_closed_again() {
    let mut client = Client::start(&cpp());
    let open = place_of(&client.ask(open_queue(4, both())));
    client.place(open);
    client.step(Input::Opened { open, result: Ok(HandleId(20)) });
    let refused = Err(OpenRefusal::Refused("too many producers".into()));
    let effects = client.step(Input::Opened { open, result: refused });
    let (Request::Close(close), 0) = to_partition(&effects[0]) else { panic!("{effects:?}") };
    assert_eq!((&close.handles[..], close.response.len()), (&[HandleId(20)][..], 0));
    assert_refused(&effects[1..], 1, StatusCategory::Unknown);
}

#[test]
fn a_queue_that_is_being_deleted_is_looked_for_again_for_a_second() {
    let mut client = Client::start(&java());
    let open = place_of(&client.ask(open_queue(4, QueueFlags::READ)));
    let began = client.now;
    for _ in 1..DELETED_RETRIES {
        client.place(open);
        assert!(client.step(Input::Opened { open, result: Err(OpenRefusal::Deleted) }).is_empty());
        assert!(client.step(Input::Tick { output_full: false }).is_empty(), "too early");
        assert_eq!(place_of(&client.tick()), open);
    }
    assert_eq!(client.now.since(began), DELETED_PAUSE * (DELETED_RETRIES - 1));
    client.place(open);
    let effects = client.step(Input::Opened { open, result: Err(OpenRefusal::Deleted) });
    assert_refused(&effects, 1, StatusCategory::NotReady);
    assert_eq!(client.session.deadline(), None);
}

#[test]
fn the_controller_s_refusal_is_the_client_s() {
    let mut client = Client::start(&cpp());
    let open = place_of(&client.ask(open_queue(4, QueueFlags::READ)));
    let refusal = Refusal::new(StatusCategory::Refused, "the domain's limit of queues is reached");
    let effects = client.step(Input::Placed { open, result: Err(refusal) });
    assert_refused(&effects, 1, StatusCategory::Refused);
    // The queue id is free again.
    let effects = client.ask(open_queue(4, QueueFlags::READ));
    assert_ne!(place_of(&effects), open);
}

#[test]
fn an_app_of_a_domain_without_apps_is_refused_before_the_queue_is_made() {
    let mut client = Client::start(&cpp());
    let mut parameters = handle(4, QueueFlags::READ);
    parameters.sub_id_info = Some(SubQueueIdInfo { sub_id: 1, app_id: "billing".into() });
    let effects = client.ask(ControlChoice::OpenQueue(OpenQueue { handle_parameters: parameters }));
    let [Effect::Place(place)] = &effects[..] else { panic!("no place wanted: {effects:?}") };
    let refusal = place.check(&Metadata::default()).unwrap_err();
    assert_eq!(refusal.category, StatusCategory::Refused);
}

#[test]
fn only_so_many_opens_are_under_way_and_the_next_request_waits() {
    let mut client = Client::start(&java());
    let mut opens = Vec::new();
    for queue_id in 0..MAX_OPENS_UNDER_WAY as u32 {
        opens.push(place_of(&client.ask(open_queue(queue_id, QueueFlags::READ))));
    }
    let mut bytes = BytesMut::from(&client.request(open_queue(1000, QueueFlags::READ))[..]);
    bytes.extend_from_slice(&HEARTBEAT_REQUEST);
    assert!(client.send(&bytes).is_empty());
    assert!(!client.session.reads() && client.session.partial_bytes() == 0);
    let refusal = Refusal::new(StatusCategory::Refused, "no");
    let effects = client.step(Input::Placed { open: opens[7], result: Err(refusal) });
    let [Effect::Send(_), Effect::Place(place), Effect::Send(_)] = &effects[..] else {
        panic!("the next open begins, and what is behind it: {effects:?}");
    };
    assert_eq!(place.uri, "bmq://shop/orders1000");
    assert!(client.session.reads());
}

#[test]
fn roles_are_closed_one_by_one_and_unknown_queues_refused() {
    let mut client = Client::start(&cpp());
    client.open(4, both());
    let close = |flags| {
        let handle_parameters = handle(4, flags);
        ControlChoice::CloseQueue(CloseQueue { handle_parameters, is_final: true })
    };
    let effects = client.ask(close(QueueFlags::READ));
    let [Effect::HandlesChanged(1), effect] = &effects[..] else { panic!("open: {effects:?}") };
    let (Request::Close(closed), 0) = to_partition(effect) else { panic!("open: {effect:?}") };
    assert_eq!((closed.session, &closed.handles[..]), (ID, &[HandleId(40)][..]));
    let gone =
        ControlChoice::ConfigureQueueStream(ConfigureQueueStream { q_id: 4, ..Default::default() });
    let effects = client.ask(gone);
    assert_refused(&effects, 3, StatusCategory::Unknown);
    let effects = client.ask(close(QueueFlags::WRITE));
    assert!(matches!(effects[0], Effect::HandlesChanged(0)), "{effects:?}");
    let effects = client.ask(close(QueueFlags::WRITE));
    assert_refused(&effects, 5, StatusCategory::Unknown);
}

#[test]
fn answers_to_opens_of_a_session_that_ends_are_dropped() {
    let mut client = Client::start(&java());
    let open = place_of(&client.ask(open_queue(4, QueueFlags::READ)));
    client.now = client.now + Duration::from_secs(1);
    let effects = client.step(Input::Closing);
    assert!(matches!(effects[..], [Effect::EndInPartitions { lost: false }]), "{effects:?}");
    assert!(client.place(open).is_empty());
}
