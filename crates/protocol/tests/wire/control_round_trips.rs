//! Random control messages, written and read back in both encodings.

use bytes::{Bytes, BytesMut};
use flintmq_protocol::control::*;
use flintmq_protocol::event::Frame;
use flintmq_protocol::flags::{QueueFlags, RoutingFlags};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof![".{0,40}", "[a-z/\\\\\"<>]{0,300}"]
}

fn status() -> impl Strategy<Value = Status> {
    use StatusCategory::*;
    let category = prop::sample::select(vec![
        Success,
        Unknown,
        Timeout,
        NotConnected,
        Canceled,
        NotSupported,
        Refused,
        InvalidArgument,
        NotReady,
    ]);
    (category, any::<i32>(), text()).prop_map(|(category, code, message)| Status {
        category,
        code,
        message,
    })
}

fn identity() -> impl Strategy<Value = ClientIdentity> {
    let client_type = prop::sample::select(vec![
        ClientType::Unknown,
        ClientType::TcpClient,
        ClientType::TcpBroker,
        ClientType::TcpAdmin,
    ]);
    let language = prop::sample::select(vec![
        ClientLanguage::Unknown,
        ClientLanguage::Cpp,
        ClientLanguage::Java,
    ]);
    let numbers = any::<[i32; 5]>();
    let texts = [text(), text(), text(), text(), text(), text()];
    (client_type, language, numbers, texts, any::<i64>()).prop_map(
        |(client_type, sdk_language, numbers, texts, nano_seconds_from_epoch)| {
            let [process_name, host_name, features, cluster_name, client_id, user_agent] = texts;
            ClientIdentity {
                protocol_version: numbers[0],
                sdk_version: numbers[1],
                client_type,
                process_name,
                pid: numbers[2],
                session_id: numbers[3],
                host_name,
                features,
                cluster_name,
                cluster_node_id: numbers[4],
                sdk_language,
                guid_info: GuidInfo { client_id, nano_seconds_from_epoch },
                user_agent,
            }
        },
    )
}

fn negotiation() -> impl Strategy<Value = NegotiationMessage> {
    let response = (status(), any::<[i32; 4]>(), any::<bool>(), identity()).prop_map(
        |(result, numbers, is_deprecated_sdk, broker_identity)| BrokerResponse {
            result,
            protocol_version: numbers[0],
            broker_version: numbers[1],
            is_deprecated_sdk,
            broker_identity,
            heartbeat_interval_ms: numbers[2],
            max_missed_heartbeats: numbers[3],
        },
    );
    prop_oneof![
        identity().prop_map(NegotiationMessage::ClientIdentity),
        response.prop_map(NegotiationMessage::BrokerResponse),
        Just(NegotiationMessage::PlaceHolder),
    ]
}

fn authentication() -> impl Strategy<Value = AuthenticationMessage> {
    let octets = option::of(vec(any::<u8>(), 0..200).prop_map(Bytes::from));
    prop_oneof![
        (text(), octets).prop_map(|(mechanism, data)| {
            AuthenticationMessage::AuthenticationRequest(AuthenticationRequest { mechanism, data })
        }),
        (status(), option::of(any::<u64>())).prop_map(|(status, lifetime_ms)| {
            let response = AuthenticationResponse { status, lifetime_ms };
            AuthenticationMessage::AuthenticationResponse(response)
        }),
    ]
}

fn sub_id_info() -> impl Strategy<Value = Option<SubQueueIdInfo>> {
    option::of(
        (any::<u32>(), text()).prop_map(|(sub_id, app_id)| SubQueueIdInfo { sub_id, app_id }),
    )
}

fn handle() -> impl Strategy<Value = QueueHandleParameters> {
    (text(), any::<u32>(), sub_id_info(), any::<u64>(), any::<[i32; 3]>()).prop_map(
        |(uri, q_id, sub_id_info, flags, counts)| QueueHandleParameters {
            uri,
            q_id,
            sub_id_info,
            flags: QueueFlags(flags),
            read_count: counts[0],
            write_count: counts[1],
            admin_count: counts[2],
        },
    )
}

fn configure_stream() -> impl Strategy<Value = ConfigureStream> {
    let consumer =
        (any::<[i64; 2]>(), any::<[i32; 2]>()).prop_map(|(limits, priorities)| ConsumerInfo {
            max_unconfirmed_messages: limits[0],
            max_unconfirmed_bytes: limits[1],
            consumer_priority: priorities[0],
            consumer_priority_count: priorities[1],
        });
    let version =
        prop::sample::select(vec![ExpressionVersion::Undefined, ExpressionVersion::Version1]);
    let subscription = (any::<u32>(), version, text(), vec(consumer, 0..3)).prop_map(
        |(s_id, version, text, consumers)| Subscription {
            s_id,
            expression: Expression { version, text },
            consumers,
        },
    );
    (any::<u32>(), text(), vec(subscription, 0..4)).prop_map(|(q_id, app_id, subscriptions)| {
        ConfigureStream { q_id, stream_parameters: StreamParameters { app_id, subscriptions } }
    })
}

fn configure_queue_stream() -> impl Strategy<Value = ConfigureQueueStream> {
    (any::<u32>(), sub_id_info(), any::<[i64; 2]>(), any::<[i32; 2]>()).prop_map(
        |(q_id, sub_id_info, limits, priorities)| ConfigureQueueStream {
            q_id,
            stream_parameters: QueueStreamParameters {
                sub_id_info,
                max_unconfirmed_messages: limits[0],
                max_unconfirmed_bytes: limits[1],
                consumer_priority: priorities[0],
                consumer_priority_count: priorities[1],
            },
        },
    )
}

fn control() -> impl Strategy<Value = ControlMessage> {
    let open = || handle().prop_map(|handle_parameters| OpenQueue { handle_parameters });
    let opened = (open(), any::<u64>(), any::<i32>()).prop_map(
        |(original_request, flags, deduplication_time_ms)| OpenQueueResponse {
            original_request,
            routing_configuration: RoutingConfiguration { flags: RoutingFlags(flags) },
            deduplication_time_ms,
        },
    );
    let close = (handle(), any::<bool>())
        .prop_map(|(handle_parameters, is_final)| CloseQueue { handle_parameters, is_final });
    let choice = prop_oneof![
        status().prop_map(ControlChoice::Status),
        Just(ControlChoice::Disconnect),
        Just(ControlChoice::DisconnectResponse),
        text().prop_map(|command| ControlChoice::AdminCommand(AdminCommand { command })),
        text().prop_map(|text| ControlChoice::AdminCommandResponse(AdminCommandResponse { text })),
        open().prop_map(ControlChoice::OpenQueue),
        opened.prop_map(ControlChoice::OpenQueueResponse),
        close.prop_map(ControlChoice::CloseQueue),
        Just(ControlChoice::CloseQueueResponse),
        configure_queue_stream().prop_map(ControlChoice::ConfigureQueueStream),
        configure_queue_stream().prop_map(|request| {
            ControlChoice::ConfigureQueueStreamResponse(ConfigureQueueStreamResponse { request })
        }),
        configure_stream().prop_map(ControlChoice::ConfigureStream),
        configure_stream().prop_map(|request| {
            ControlChoice::ConfigureStreamResponse(ConfigureStreamResponse { request })
        }),
    ];
    (option::of(any::<i32>()), choice).prop_map(|(r_id, choice)| ControlMessage { r_id, choice })
}

proptest! {
    #[test]
    fn control_messages(message in control(), json in any::<bool>()) {
        let encoding = if json { Encoding::Json } else { Encoding::Ber };
        let mut out = BytesMut::new();
        message.append_event(encoding, &mut out).unwrap();
        let event = Frame::new(out.freeze()).unwrap().parse().unwrap();
        prop_assert_eq!(ControlMessage::from_event(&event).unwrap(), message);
    }

    #[test]
    fn negotiation_messages(message in negotiation(), json in any::<bool>()) {
        let encoding = if json { Encoding::Json } else { Encoding::Ber };
        let mut out = BytesMut::from(&b"before"[..]);
        message.append_event(encoding, &mut out).unwrap();
        let event = Frame::new(out.freeze().slice(6..)).unwrap().parse().unwrap();
        prop_assert_eq!(NegotiationMessage::from_event(&event).unwrap(), message);
    }

    #[test]
    fn authentication_messages(message in authentication(), json in any::<bool>()) {
        let encoding = if json { Encoding::Json } else { Encoding::Ber };
        let mut out = BytesMut::new();
        message.append_event(encoding, &mut out).unwrap();
        let event = Frame::new(out.freeze()).unwrap().parse().unwrap();
        prop_assert_eq!(AuthenticationMessage::from_event(&event).unwrap(), message);
    }
}
