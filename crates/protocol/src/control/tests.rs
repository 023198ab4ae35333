//! What readers must accept and refuse, in both encodings.

use bytes::{Bytes, BytesMut};

use super::*;
use crate::event::{Event, EventHeader, EventType, Frame};

fn ber_event(hex: &str) -> Event {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let text = String::from_utf8(digits).unwrap();
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    let body: Bytes = (0..text.len()).step_by(2).map(byte).collect();
    Event { header: EventHeader::new(EventType::Control, 8 + body.len() as u32), body }
}

fn json_event(text: &str) -> Event {
    let mut body = BytesMut::from(text);
    crate::padding::append_padding(&mut body, text.len());
    let mut header = EventHeader::new(EventType::Control, 8 + body.len() as u32);
    header.type_specific = Encoding::Json.to_type_specific();
    Event { header, body: body.freeze() }
}

fn ber(hex: &str) -> ControlMessage {
    ControlMessage::from_event(&ber_event(hex)).unwrap()
}

fn ber_fault(hex: &str) -> BerFault {
    match ControlMessage::from_event(&ber_event(hex)) {
        Err(ControlError::Ber(error)) => error.fault,
        other => panic!("{hex}: {other:?}"),
    }
}

fn json(text: &str) -> ControlMessage {
    ControlMessage::from_event(&json_event(text)).unwrap()
}

fn json_error(text: &str) -> ControlError {
    ControlMessage::from_event(&json_event(text)).unwrap_err()
}

fn close_response(r_id: Option<i32>) -> ControlMessage {
    ControlMessage { r_id, choice: ControlChoice::CloseQueueResponse }
}

#[test]
fn ber_lengths_may_be_definite_indefinite_or_mixed() {
    let expected = close_response(Some(7));
    assert_eq!(ber("3080 800107 a180 ad80 0000 0000 0000"), expected);
    assert_eq!(ber("3007 800107 a102 ad00"), expected);
    assert_eq!(ber("308107 800107 a102 ad00"), expected);
    assert_eq!(ber("3080 800107 a104 ad80 0000 0000"), expected);
    assert_eq!(ber("3009 800107 a180 ad00 0000"), expected);
}

#[test]
fn ber_members_come_in_any_order_and_what_follows_the_root_is_ignored() {
    assert_eq!(ber("3080 a102 ad00 800107 0000 ff"), close_response(Some(7)));
    assert_eq!(ber("3080 a102 ad00 0000"), close_response(None));
}

#[test]
fn ber_skips_unknown_members_at_any_depth() {
    let expected = close_response(Some(7));
    // Context 9 with nested indefinite content; a multi-byte tag; a universal integer; content in
    // an empty sequence.
    assert_eq!(ber("3080 800107 a980 a080 8001ff 0000 0000 a102 ad00 0000"), expected);
    assert_eq!(ber("3080 800107 bf8201 80 810100 0000 a102 ad00 0000"), expected);
    assert_eq!(ber("3080 800107 020105 a102 ad00 0000"), expected);
    assert_eq!(ber("3080 800107 a180 ad80 800101 0000 0000 0000"), expected);
}

#[test]
fn ber_members_that_are_missing_take_their_default() {
    let expected = ConfigureStream {
        q_id: 0,
        stream_parameters: StreamParameters {
            app_id: "__default".into(),
            subscriptions: vec![Subscription {
                consumers: vec![ConsumerInfo {
                    consumer_priority: i32::MIN,
                    ..ConsumerInfo::default()
                }],
                ..Subscription::default()
            }],
        },
    };
    let message = ber("300e a10c b00a a108 a106 3004 a202 3000");
    assert_eq!(message.choice, ControlChoice::ConfigureStream(expected));
}

#[test]
fn every_default_is_the_schemas() {
    let identity = ClientIdentity {
        protocol_version: 0,
        sdk_version: 999_999,
        client_type: ClientType::Unknown,
        process_name: String::new(),
        pid: 0,
        session_id: 1,
        host_name: String::new(),
        features: String::new(),
        cluster_name: String::new(),
        cluster_node_id: -1,
        sdk_language: ClientLanguage::Cpp,
        guid_info: GuidInfo { client_id: String::new(), nano_seconds_from_epoch: 0 },
        user_agent: String::new(),
    };
    let response = BrokerResponse {
        result: Status { category: StatusCategory::Success, code: 0, message: String::new() },
        protocol_version: 0,
        broker_version: 0,
        is_deprecated_sdk: false,
        broker_identity: identity.clone(),
        heartbeat_interval_ms: 3000,
        max_missed_heartbeats: 10,
    };
    let negotiation = |event| NegotiationMessage::from_event(&event).unwrap();
    let identity = NegotiationMessage::ClientIdentity(identity);
    assert_eq!(negotiation(ber_event("3004 a002 a000")), identity);
    assert_eq!(negotiation(json_event(r#"{"clientIdentity":{}}"#)), identity);
    let response = NegotiationMessage::BrokerResponse(response);
    assert_eq!(negotiation(ber_event("3004 a002 a100")), response);
    assert_eq!(negotiation(json_event(r#"{"brokerResponse":{}}"#)), response);

    let opened = ControlChoice::OpenQueueResponse(OpenQueueResponse {
        original_request: OpenQueue {
            handle_parameters: QueueHandleParameters {
                sub_id_info: Some(SubQueueIdInfo { sub_id: 0, app_id: "__default".into() }),
                ..QueueHandleParameters::default()
            },
        },
        routing_configuration: RoutingConfiguration::default(),
        deduplication_time_ms: 300_000,
    });
    assert_eq!(ber("300a a108 ab06 a004 a002 a200").choice, opened);
    let text = r#"{"openQueueResponse":{"originalRequest":{"handleParameters":{"subIdInfo":{}}}}}"#;
    assert_eq!(json(text).choice, opened);
    let configure = ControlChoice::ConfigureQueueStream(ConfigureQueueStream {
        q_id: 0,
        stream_parameters: QueueStreamParameters {
            sub_id_info: None,
            max_unconfirmed_messages: 0,
            max_unconfirmed_bytes: 0,
            consumer_priority: i32::MIN,
            consumer_priority_count: 0,
        },
    });
    assert_eq!(ber("3004 a102 ae00").choice, configure);
    assert_eq!(json(r#"{"configureQueueStream":{}}"#).choice, configure);
}

#[test]
fn ber_refuses_what_cannot_be_right() {
    use BerFault::*;
    assert_eq!(ber_fault(""), Truncated);
    assert_eq!(ber_fault("3180 0000"), Root);
    assert_eq!(ber_fault("1000"), Root);
    assert_eq!(ber_fault("3080 800107 a180 ad80 0000 0000"), Truncated);
    assert_eq!(ber_fault("3080 8005 01"), Truncated);
    assert_eq!(ber_fault("3080 8080 0000"), IndefinitePrimitive);
    assert_eq!(ber_fault("3080 a003 020101 a102 ad00 0000"), Form);
    assert_eq!(ber_fault("3080 8100 0000"), Form);
    assert_eq!(ber_fault("3080 0001 ff"), EndOfContent);
    assert_eq!(ber_fault("3004 0000 0000"), EndOfContent);
    assert_eq!(ber_fault("3080 8000 a102 ad00 0000"), Width);
    assert_eq!(ber_fault("3080 80050000000001 a102 ad00 0000"), Width);
    assert_eq!(ber_fault("3080 80ffffffffffffffffff"), Absurd);
    assert_eq!(ber_fault("3080 8084ffffffff"), Truncated);
    assert_eq!(ber_fault("3080 8089010000000000000000"), Absurd);
    assert_eq!(ber_fault("3080 bfffffffffffff7f 00"), Absurd);
    assert_eq!(ber_fault("3080 800107 0000"), Choice);
    assert_eq!(ber_fault("3080 a100 0000"), Choice);
    assert_eq!(ber_fault("3080 a104 ad00 a100 0000"), Choice);
    assert_eq!(ber_fault("3080 a104 ad00 a900 0000"), Choice);
    let nested = format!("3080 {}", "a980".repeat(20));
    assert_eq!(ber_fault(&nested), Depth);
    let deepest = format!("3080 a102ad00 {} {} 0000", "a980".repeat(15), "0000".repeat(15));
    assert_eq!(ber(&deepest), close_response(None));
}

#[test]
fn ber_numbers_keep_their_width() {
    let open = |q_id: &str, flags: &str| {
        let (q, f) = (q_id.len() / 2, flags.len() / 2);
        let event = ber_event(&format!(
            "3080 a180 aa80 a080 81{q:02x}{q_id} 83{f:02x}{flags} 0000 0000 0000 0000"
        ));
        match ControlMessage::from_event(&event).map(|message| message.choice) {
            Ok(ControlChoice::OpenQueue(open)) => {
                let handle = open.handle_parameters;
                Some((handle.q_id, handle.flags.0))
            }
            _ => None,
        }
    };
    assert_eq!(open("00", "00"), Some((0, 0)));
    assert_eq!(open("0080", "0080"), Some((128, 128)));
    assert_eq!(open("00ffffffff", "00ffffffffffffffff"), Some((u32::MAX, u64::MAX)));
    assert_eq!(open("ffffffff", "ffffffffffffffff"), Some((u32::MAX, u64::MAX)));
    assert_eq!(open("ff", "ff"), Some((u32::MAX, u64::MAX)));
    assert_eq!(open("01ffffffff", "00"), None);
    assert_eq!(open("00", "010000000000000000"), None);
    assert_eq!(open("", "00"), None);
}

#[test]
fn unknown_selections_keep_the_request_id() {
    let unsupported = |event: Event| match ControlMessage::from_event(&event) {
        Err(ControlError::Unsupported { r_id, selection }) => (r_id, selection),
        other => panic!("{other:?}"),
    };
    // Selection 9 is what brokers send each other.
    let cluster = "3080 800105 a180 a980 a080 0000 0000 0000 0000";
    assert_eq!(unsupported(ber_event(cluster)), (Some(5), "9".into()));
    let id_last = "3080 a180 be00 0000 800105 0000";
    assert_eq!(unsupported(ber_event(id_last)), (Some(5), "30".into()));
    let json = r#"{"rId":5,"clusterMessage":{"choice":{}}}"#;
    assert_eq!(unsupported(json_event(json)), (Some(5), "clusterMessage".into()));
    let negotiation = NegotiationMessage::from_event(&ber_event("3004 a002 a500"));
    assert!(matches!(negotiation, Err(ControlError::Unsupported { r_id: None, .. })));
}

#[test]
fn unknown_enumerators_are_unknown_where_that_exists() {
    let message = ber("3080 a180 a080 800163 0000 0000 0000");
    let ControlChoice::Status(status) = message.choice else { panic!("{message:?}") };
    assert_eq!(status.category, StatusCategory::Unknown);
    let message = json(r#"{"status":{"category":"E_NEW"}}"#);
    let ControlChoice::Status(status) = message.choice else { panic!("{message:?}") };
    assert_eq!(status.category, StatusCategory::Unknown);
    let expression = "3080 a180 b080 a180 a180 3080 a180 800107";
    assert_eq!(ber_fault(expression), BerFault::Enumerator);
    let expression = r#"{"configureStream":{"streamParameters":{"subscriptions":
        [{"expression":{"version":"E_VERSION_7"}}]}}}"#;
    assert!(json_error(expression).to_string().contains("E_VERSION_7"));
}

#[test]
fn text_that_is_not_utf8_is_replaced() {
    let message = ber("3080 a180 a780 8003 61ff62 0000 0000 0000");
    let command = AdminCommand { command: "a\u{fffd}b".into() };
    assert_eq!(message.choice, ControlChoice::AdminCommand(command));
}

#[test]
fn lists_are_bounded() {
    let list = "3000".repeat(MAX_LIST_ELEMENTS + 1);
    let fault = ber_fault(&format!("3080 a180 b080 a180 a180 {list}"));
    assert_eq!(fault, BerFault::TooManyElements);
    let list = "{},".repeat(MAX_LIST_ELEMENTS);
    let text =
        format!(r#"{{"configureStream":{{"streamParameters":{{"subscriptions":[{list}{{}}]}}}}}}"#);
    assert!(json_error(&text).to_string().contains("too many"));
}

#[test]
fn json_missing_null_and_empty_are_the_same() {
    let expected = json(r#"{"rId":4,"configureStream":{"qId":3}}"#);
    for text in [
        r#"{"rId":4,"configureStream":{"qId":3,"streamParameters":{"subscriptions":[]}}}"#,
        r#"{"rId":4,"configureStream":{"qId":3,"streamParameters":{"subscriptions":null}}}"#,
        r#"{"rId":4,"configureStream":{"qId":3,"streamParameters":null,"later":{"a":[1.5]}}}"#,
        r#" { "configureStream" : {"streamParameters":{"appId":"__default"},"qId":3} , "rId":4 } "#,
    ] {
        assert_eq!(json(text), expected, "{text}");
    }
    assert_eq!(json(r#"{"closeQueueResponse":{},"rId":null}"#), close_response(None));
}

#[test]
fn json_escapes_are_read_in_any_form_and_the_solidus_is_written_escaped() {
    let command = |text: &str| match json(text).choice {
        ControlChoice::AdminCommand(command) => command.command,
        other => panic!("{other:?}"),
    };
    assert_eq!(command(r#"{"adminCommand":{"command":"a\/b/\u003c\n"}}"#), "a/b/<\n");
    let message = ControlMessage::new(
        1,
        ControlChoice::AdminCommand(AdminCommand { command: "/a/\"/\\é".into() }),
    );
    let mut out = BytesMut::new();
    message.append_event(Encoding::Json, &mut out).unwrap();
    let text = r#"{"rId":1,"adminCommand":{"command":"\/a\/\"\/\\é"}}"#;
    assert_eq!(&out[8..8 + text.len()], text.as_bytes());
}

#[test]
fn json_refuses_what_cannot_be_right() {
    for text in [
        "",
        "[]",
        "7",
        "{}",
        r#"{"rId":1}"#,
        r#"{"rId":1,"disconnect":{}"#,
        r#"{"rId":"1","disconnect":{}}"#,
        r#"{"rId":4294967296,"disconnect":{}}"#,
        r#"{"rId":1,"disconnect":{},"openQueue":{}}"#,
        r#"{"openQueue":{"handleParameters":{"qId":-1}}}"#,
        r#"{"openQueue":{"handleParameters":{"qId":1.0}}}"#,
        r#"{"openQueue":7}"#,
    ] {
        assert!(matches!(json_error(text), ControlError::Json { .. }), "{text}");
    }
    let nested = |n| format!("{{\"disconnect\":{}{}}}", "[".repeat(n), "]".repeat(n));
    assert_eq!(json(&nested(16)).choice, ControlChoice::Disconnect);
    assert!(json_error(&nested(17)).to_string().contains("nested"));
    let too_deep = "[".repeat(100_000);
    assert!(matches!(json_error(&too_deep), ControlError::Json { .. }));
}

#[test]
fn events_that_are_not_control_messages_are_refused() {
    let mut event = ber_event("3080 a102 ad00 0000");
    event.header.event_type = EventType::Put;
    let error = ControlMessage::from_event(&event).unwrap_err();
    assert!(matches!(error, ControlError::EventType { .. }));
    event.header.event_type = EventType::Control;
    assert!(AuthenticationMessage::from_event(&event).is_err());
    event.header.type_specific = 0x40;
    let error = ControlMessage::from_event(&event).unwrap_err();
    assert!(matches!(error, ControlError::Encoding { number: 2 }));
    event.header.type_specific = 0x20;
    event.body = Bytes::from_static(b"{\"disconnect\":{}}");
    let error = ControlMessage::from_event(&event).unwrap_err();
    assert!(matches!(error, ControlError::Padding));
    event.body = Bytes::from(vec![b' '; MAX_CONTROL_BODY_SIZE + 4]);
    let error = ControlMessage::from_event(&event).unwrap_err();
    assert!(matches!(error, ControlError::TooLarge { .. }));
}

#[test]
fn credentials_are_not_shown() {
    let request = AuthenticationRequest {
        mechanism: "BASIC".into(),
        data: Some(Bytes::from_static(b"user:password")),
    };
    let shown = format!("{request:?}");
    assert!(!shown.contains("password") && shown.contains("13"), "{shown}");
}

#[test]
fn choices_are_named_as_in_json() {
    assert_eq!(ControlChoice::Disconnect.name(), "disconnect");
    assert_eq!(ControlChoice::OpenQueue(OpenQueue::default()).name(), "openQueue");
    assert_eq!(NegotiationMessage::PlaceHolder.name(), "placeHolder");
}

#[test]
fn the_type_specific_byte_carries_the_encoding() {
    let mut out = BytesMut::new();
    for encoding in [Encoding::Ber, Encoding::Json] {
        out.clear();
        close_response(Some(1)).append_event(encoding, &mut out).unwrap();
        let event = Frame::new(out.clone().freeze()).unwrap().parse().unwrap();
        let found = Encoding::from_type_specific(event.header.type_specific);
        assert_eq!(found, Some(encoding));
    }
}
