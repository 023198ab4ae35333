//! The first exchange of a connection: optional authentication, then who the client is and what
//! both understand.

use bytes::{Bytes, BytesMut};
use flintmq_protocol::control::{
    AuthenticationMessage, AuthenticationResponse, BrokerResponse, ClientIdentity, ClientLanguage,
    ClientType, Encoding, NegotiationMessage, Status, StatusCategory,
};
use flintmq_protocol::event::{Event, EventType, HEARTBEAT_RESPONSE};
use flintmq_protocol::features::Features;

use crate::settings::BrokerIdentity;

/// What this broker offers. The order inside a field matters to one client, which looks for a
/// substring (docs/protocol/control.md#features).
const FEATURES: &str =
    "PROTOCOL_ENCODING:BER,JSON;MPS:MESSAGE_PROPERTIES_EX;SUBSCRIPTIONS:CONFIGURE_STREAM";

/// What a client is asked to expect of this broker's heartbeats, in milliseconds and silent
/// intervals.
const HEARTBEAT_INTERVAL_MS: i32 = 3000;
const MAX_MISSED_HEARTBEATS: i32 = 10;

/// What both sides agreed on.
#[derive(Debug)]
pub(crate) struct Negotiated {
    pub(crate) identity: ClientIdentity,
    pub(crate) encoding: Encoding,
    pub(crate) reads_extended_properties: bool,
    /// The client gives its messages their GUIDs; else it counts, and the broker makes them.
    pub(crate) makes_guids: bool,
    /// Heartbeat requests are understood; one client's reader breaks on them.
    pub(crate) answers_heartbeats: bool,
}

/// What comes of one event during negotiation.
#[derive(Debug)]
pub(crate) enum Step {
    /// Send this and wait for the next event.
    Reply(Bytes),
    /// Send this; the session is up.
    Done(Bytes, Box<Negotiated>),
    /// Send this, where there is anything to say, and close for this reason.
    Refuse(Bytes, String),
}

/// Takes one event of a client that has not negotiated yet.
pub(crate) fn step(event: &Event, broker: &BrokerIdentity) -> Step {
    match event.event_type() {
        EventType::HeartbeatRequest => Step::Reply(Bytes::from_static(&HEARTBEAT_RESPONSE)),
        EventType::HeartbeatResponse => Step::Reply(Bytes::new()),
        EventType::Authentication => authenticate(event),
        EventType::Control => negotiate(event, broker),
        other => Step::Refuse(
            Bytes::new(),
            format!("the first event must be a negotiation, event={other}"),
        ),
    }
}

/// Answers an authentication in the middle of a session: as at its start
/// (docs/protocol/control.md#authentication). `Err` carries the reason to close with.
pub(crate) fn reauthenticate(event: &Event) -> Result<Bytes, (Bytes, String)> {
    match authenticate(event) {
        Step::Reply(answer) | Step::Done(answer, _) => Ok(answer),
        Step::Refuse(answer, reason) => Err((answer, reason)),
    }
}

fn negotiate(event: &Event, broker: &BrokerIdentity) -> Step {
    let identity = match NegotiationMessage::from_event(event) {
        Ok(NegotiationMessage::ClientIdentity(identity)) => identity,
        Ok(_) => {
            return Step::Refuse(
                Bytes::new(),
                "the client sent a broker's part of the negotiation".into(),
            );
        }
        Err(error) => {
            return Step::Refuse(Bytes::new(), format!("the negotiation cannot be read: {error}"));
        }
    };
    let features = Features::new(&identity.features);
    let encoding = features.encoding();
    if let Some(status) = refusal(&identity) {
        let reason = status.message.clone();
        return Step::Refuse(respond(status, encoding, broker), reason);
    }
    let negotiated = Negotiated {
        encoding,
        reads_extended_properties: features.extended_properties(),
        makes_guids: !identity.guid_info.client_id.is_empty(),
        answers_heartbeats: identity.sdk_language == ClientLanguage::Cpp,
        identity,
    };
    let success = Status { category: StatusCategory::Success, ..Status::default() };
    Step::Done(respond(success, encoding, broker), Box::new(negotiated))
}

fn refusal(identity: &ClientIdentity) -> Option<Status> {
    let refuse = |category, message: &str| Some(Status::new(category, -1, message));
    match identity.client_type {
        ClientType::TcpClient | ClientType::TcpAdmin => None,
        ClientType::TcpBroker => refuse(
            StatusCategory::NotSupported,
            "proxies and brokers of other clusters are not served: connect as a client",
        ),
        ClientType::Unknown => {
            refuse(StatusCategory::Refused, "the client does not say what it is")
        }
    }
}

fn respond(result: Status, encoding: Encoding, broker: &BrokerIdentity) -> Bytes {
    let version = version();
    let response = BrokerResponse {
        result,
        protocol_version: 1,
        broker_version: version,
        is_deprecated_sdk: false,
        broker_identity: ClientIdentity {
            protocol_version: 1,
            sdk_version: version,
            client_type: ClientType::TcpBroker,
            process_name: "flintmq".to_owned(),
            pid: i32::try_from(broker.process).unwrap_or(0),
            session_id: 1,
            host_name: broker.host.clone(),
            features: FEATURES.to_owned(),
            cluster_name: broker.cluster.clone(),
            cluster_node_id: i32::try_from(broker.node).unwrap_or(-1),
            sdk_language: ClientLanguage::Cpp,
            user_agent: concat!("flintmq/", env!("CARGO_PKG_VERSION")).to_owned(),
            ..ClientIdentity::default()
        },
        heartbeat_interval_ms: HEARTBEAT_INTERVAL_MS,
        max_missed_heartbeats: MAX_MISSED_HEARTBEATS,
    };
    let mut out = BytesMut::new();
    match NegotiationMessage::BrokerResponse(response).append_event(encoding, &mut out) {
        Ok(()) => out.freeze(),
        Err(error) => {
            tracing::warn!(%error, "the negotiation's answer cannot be encoded");
            Bytes::new()
        }
    }
}

/// Clients compare versions as 10000 * major + 100 * minor + patch.
fn version() -> i32 {
    let part = |text: &str| text.parse::<i32>().unwrap_or(0);
    10_000 * part(env!("CARGO_PKG_VERSION_MAJOR"))
        + 100 * part(env!("CARGO_PKG_VERSION_MINOR"))
        + part(env!("CARGO_PKG_VERSION_PATCH"))
}

/// No mechanism but ANONYMOUS is configured: the others are refused, as a broker without
/// authenticators does.
fn authenticate(event: &Event) -> Step {
    let request = match AuthenticationMessage::from_event(event) {
        Ok(AuthenticationMessage::AuthenticationRequest(request)) => request,
        Ok(AuthenticationMessage::AuthenticationResponse(_)) => {
            return Step::Refuse(
                Bytes::new(),
                "the client sent a broker's authentication answer".into(),
            );
        }
        Err(error) => {
            return Step::Refuse(
                Bytes::new(),
                format!("the authentication cannot be read: {error}"),
            );
        }
    };
    let known = request.mechanism.eq_ignore_ascii_case("ANONYMOUS");
    let status = if known {
        Status { category: StatusCategory::Success, ..Status::default() }
    } else {
        Status::new(
            StatusCategory::Refused,
            -1,
            "no authenticator for this mechanism: connect without credentials",
        )
    };
    let answer = AuthenticationMessage::AuthenticationResponse(AuthenticationResponse {
        status,
        lifetime_ms: None,
    });
    let encoding =
        Encoding::from_type_specific(event.header.type_specific).unwrap_or(Encoding::Ber);
    let mut out = BytesMut::new();
    if let Err(error) = answer.append_event(encoding, &mut out) {
        return Step::Refuse(
            Bytes::new(),
            format!("the authentication cannot be answered: {error}"),
        );
    }
    if known {
        Step::Reply(out.freeze())
    } else {
        Step::Refuse(
            out.freeze(),
            format!("unknown authentication mechanism {:?}", request.mechanism),
        )
    }
}

#[cfg(test)]
mod tests {
    use flintmq_protocol::event::Frame;

    use super::*;

    fn broker() -> BrokerIdentity {
        BrokerIdentity { cluster: "dev".into(), node: 1, host: "here".into(), process: 7 }
    }

    fn event(message: &NegotiationMessage, encoding: Encoding) -> Event {
        let mut out = BytesMut::new();
        message.append_event(encoding, &mut out).unwrap();
        Frame::new(out.freeze()).unwrap().parse().unwrap()
    }

    fn identity(client_type: ClientType, features: &str) -> NegotiationMessage {
        NegotiationMessage::ClientIdentity(ClientIdentity {
            client_type,
            features: features.into(),
            ..ClientIdentity::default()
        })
    }

    fn response(bytes: Bytes) -> BrokerResponse {
        let event = Frame::new(bytes).unwrap().parse().unwrap();
        match NegotiationMessage::from_event(&event).unwrap() {
            NegotiationMessage::BrokerResponse(response) => response,
            other => panic!("not a broker's response: {other:?}"),
        }
    }

    #[test]
    fn the_client_chooses_the_encoding_of_the_answer() {
        let json =
            identity(ClientType::TcpClient, "PROTOCOL_ENCODING:JSON;MPS:MESSAGE_PROPERTIES_EX");
        let Step::Done(answer, negotiated) = step(&event(&json, Encoding::Json), &broker()) else {
            panic!("a plain client is welcome");
        };
        assert_eq!(negotiated.encoding, Encoding::Json);
        assert!(negotiated.reads_extended_properties);
        assert!(!negotiated.makes_guids);
        let response = response(answer);
        assert_eq!(response.result.category, StatusCategory::Success);
        assert!(response.broker_identity.features.contains("MPS:MESSAGE_PROPERTIES_EX"));
    }

    #[test]
    fn who_does_not_belong_here_is_told_why() {
        for client_type in [ClientType::Unknown, ClientType::TcpBroker] {
            let message = identity(client_type, "");
            let Step::Refuse(answer, reason) = step(&event(&message, Encoding::Ber), &broker())
            else {
                panic!("{client_type:?} must be refused");
            };
            let response = response(answer);
            assert_ne!(response.result.category, StatusCategory::Success);
            assert_eq!(response.result.message, reason);
        }
    }

    #[test]
    fn anything_else_first_ends_the_connection() {
        let put = Frame::new(Bytes::from_static(&[0, 0, 0, 8, 0x42, 2, 0, 0])).unwrap();
        assert!(matches!(step(&put.parse().unwrap(), &broker()), Step::Refuse(..)));
    }
}
