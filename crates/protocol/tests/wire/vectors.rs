//! Every captured message against its description: decoded field by field, encoded to the same
//! bytes.

use bytes::{Bytes, BytesMut};
use flintmq_protocol::ack::{AckBuilder, AckMessages};
use flintmq_protocol::app_data::split;
use flintmq_protocol::compression::Inflater;
use flintmq_protocol::confirm::{ConfirmBuilder, ConfirmMessages};
use flintmq_protocol::control::{
    AuthenticationMessage, ControlMessage, Encoding, NegotiationMessage,
};
use flintmq_protocol::crc::app_data_crc;
use flintmq_protocol::event::{Event, EventType, Frame};
use flintmq_protocol::guid::MessageGuid;
use flintmq_protocol::options::{MessageOption, Options};
use flintmq_protocol::properties::{
    Properties, PropertiesView, PropertyStyle, PropertyType, PropertyValueRef,
};
use flintmq_protocol::push::{PushBuilder, PushMessages};
use flintmq_protocol::put::{PutBuilder, PutMessages};
use serde_json::{Map, Value, json};

use crate::checks::push_head;

pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    description: Value,
}

impl Vector {
    fn event(&self) -> Event {
        Frame::new(Bytes::from(self.bytes.clone())).unwrap().parse().unwrap()
    }
}

#[allow(clippy::disallowed_methods)]
pub(crate) fn vectors() -> Vec<Vector> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors");
    let mut vectors = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = std::fs::read_to_string(&path).unwrap();
            let description: Value = serde_json::from_str(&text).unwrap();
            let name = description["name"].as_str().unwrap().to_owned();
            let bytes = bytes_of_hex(description["hex"].as_str().unwrap());
            vectors.push(Vector { name, bytes, description });
        }
    }
    assert_eq!(vectors.len(), 95, "the vectors are complete");
    vectors
}

pub(crate) fn bytes_of_hex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2));
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The event written again by this crate's builders.
pub(crate) fn rewrite_data_event(event: &Event) -> BytesMut {
    let mut out = BytesMut::new();
    let limit = 1 << 20;
    match event.event_type() {
        EventType::Put => {
            let mut builder = PutBuilder::new(&mut out, limit);
            for message in PutMessages::new(&event.body) {
                builder.append_message(&message.unwrap()).unwrap();
            }
        }
        EventType::Push => {
            let mut builder = PushBuilder::new(&mut out, limit);
            for message in PushMessages::new(&event.body) {
                let message = message.unwrap();
                let head = push_head(&message);
                builder.append(&head, &message.options, &message.app_data).unwrap();
            }
        }
        EventType::Ack => {
            let mut builder = AckBuilder::new(&mut out, limit);
            AckMessages::parse(&event.body).unwrap().for_each(|ack| builder.append(&ack));
        }
        EventType::Confirm => {
            let mut builder = ConfirmBuilder::new(&mut out, limit);
            let confirms = ConfirmMessages::parse(&event.body).unwrap();
            confirms.for_each(|confirm| builder.append(&confirm));
        }
        other => panic!("not a data event: {other}"),
    }
    out
}

#[test]
fn every_vector_has_the_type_that_its_description_names() {
    for vector in vectors() {
        let expected = vector.description["eventType"].as_str().unwrap();
        assert_eq!(vector.event().event_type().to_string(), expected, "{}", vector.name);
    }
}

#[test]
fn control_vectors_decode_to_their_description_and_encode_to_their_bytes() {
    let mut identical = 0;
    for vector in vectors() {
        let event = vector.event();
        let name = &vector.name;
        let mut decoded = vector.description["decoded"].clone();
        let Some(root) = decoded["message"].as_str() else { continue };
        let encoding = Encoding::from_type_specific(event.header.type_specific).unwrap();
        let named = decoded["encoding"].as_str().unwrap();
        assert_eq!(format!("{encoding:?}").to_uppercase(), named, "{name}");
        let (again, as_json) = match root {
            "NegotiationMessage" => {
                let message = NegotiationMessage::from_event(&event).unwrap();
                written(|encoding, out| message.append_event(encoding, out).unwrap(), encoding)
            }
            "ControlMessage" => {
                let message = ControlMessage::from_event(&event).unwrap();
                written(|encoding, out| message.append_event(encoding, out).unwrap(), encoding)
            }
            "AuthenticationMessage" => {
                let message = AuthenticationMessage::from_event(&event).unwrap();
                written(|encoding, out| message.append_event(encoding, out).unwrap(), encoding)
            }
            other => panic!("{name}: {other}"),
        };
        let members = decoded.as_object_mut().unwrap();
        members.remove("message");
        members.remove("encoding");
        if let Some(Value::Object(choice)) = members.remove("choice") {
            members.extend(choice);
        }
        assert_eq!(as_json, without_absent(decoded), "{name}");
        if vector.description["reencodesIdentically"] == json!(true) {
            assert_eq!(again, vector.bytes, "{name}");
            identical += 1;
        }
    }
    assert_eq!(identical, 50);
}

/// The event in its own encoding, and the message as a JSON value.
fn written(append: impl Fn(Encoding, &mut BytesMut), encoding: Encoding) -> (BytesMut, Value) {
    let mut out = BytesMut::new();
    append(encoding, &mut out);
    let mut json = BytesMut::new();
    append(Encoding::Json, &mut json);
    let padding = usize::from(*json.last().unwrap());
    let value = serde_json::from_slice(&json[8..json.len() - padding]).unwrap();
    (out, value)
}

/// A description in the form of the wire's JSON: no null, no empty list, octets as base64.
fn without_absent(value: Value) -> Value {
    match value {
        Value::Object(members) if members.contains_key("base64OrHex") => {
            assert_eq!(members["base64OrHex"], "757365723a70617373776f7264");
            json!("dXNlcjpwYXNzd29yZA==")
        }
        Value::Object(members) => members
            .into_iter()
            .filter(|(_, member)| !member.is_null() && *member != json!([]))
            .map(|(name, member)| (name, without_absent(member)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(elements) => {
            elements.into_iter().map(without_absent).collect::<Vec<_>>().into()
        }
        other => other,
    }
}

#[test]
fn data_vectors_decode_to_their_description_and_encode_to_their_bytes() {
    let mut checked = 0;
    for vector in vectors() {
        let event = vector.event();
        let name = &vector.name;
        let decoded = &vector.description["decoded"]["messages"];
        let read: Vec<Value> = match event.event_type() {
            EventType::Put => described_puts(&event),
            EventType::Push => described_pushes(&event),
            EventType::Ack => AckMessages::parse(&event.body)
                .unwrap()
                .map(|ack| {
                    json!({
                        "status": ack.status.to_wire(),
                        "correlationId": ack.correlation_id,
                        "guid": hex(&ack.guid.0),
                        "queueId": ack.queue_id,
                    })
                })
                .collect(),
            EventType::Confirm => ConfirmMessages::parse(&event.body)
                .unwrap()
                .map(|confirm| {
                    json!({
                        "queueId": confirm.queue_id,
                        "guid": hex(&confirm.guid.0),
                        "subQueueId": confirm.sub_queue_id,
                    })
                })
                .collect(),
            EventType::HeartbeatRequest | EventType::HeartbeatResponse => {
                assert!(event.body.is_empty());
                continue;
            }
            _ => continue,
        };
        assert_eq!(&Value::Array(read), decoded, "{name}");
        assert_eq!(rewrite_data_event(&event), vector.bytes, "{name}");
        checked += 1;
    }
    assert_eq!(checked, 39);
}

fn described_puts(event: &Event) -> Vec<Value> {
    let mut described = Vec::new();
    for put in PutMessages::new(&event.body) {
        let put = put.unwrap();
        let parts = split(
            &put.app_data,
            put.property_style(),
            put.compression,
            &mut Inflater::default(),
            1 << 20,
        );
        let parts = parts.unwrap();
        let mut message = json!({
            "flags": put.flags.0,
            "queueId": put.queue_id,
            "guid": hex(&put.guid.0),
            "compression": put.compression.to_wire(),
            "schemaWireId": put.schema_wire_id,
            "options": described_options(&put.options),
            "crc32c": format!("{:08x}", put.crc32c),
            "crc32cMatches": app_data_crc(&put.app_data) == put.crc32c,
            "properties": described_properties(parts.properties.as_ref()),
            "payload": described_payload(&parts.payload),
        });
        if put.guid.version() == 1 {
            message["guidFields"] = described_guid(put.guid);
        } else {
            message["correlationId"] = put.correlation_id().into();
        }
        described.push(message);
    }
    described
}

fn described_pushes(event: &Event) -> Vec<Value> {
    let mut described = Vec::new();
    for push in PushMessages::new(&event.body) {
        let push = push.unwrap();
        let parts = split(
            &push.app_data,
            push.property_style(),
            push.compression,
            &mut Inflater::default(),
            1 << 20,
        );
        let parts = parts.unwrap();
        described.push(json!({
            "flags": push.flags.0,
            "queueId": push.queue_id,
            "guid": hex(&push.guid.0),
            "guidFields": described_guid(push.guid),
            "compression": push.compression.to_wire(),
            "schemaWireId": push.schema_wire_id,
            "options": described_options(&push.options),
            "properties": described_properties(parts.properties.as_ref()),
            "payload": described_payload(&parts.payload),
        }));
    }
    described
}

fn described_guid(guid: MessageGuid) -> Value {
    json!({
        "version": guid.version(),
        "counter": guid.counter(),
        "timerTick": guid.timer_ns(),
        "clientId": guid.client_id().to_string().to_lowercase(),
    })
}

fn described_options(area: &[u8]) -> Value {
    let describe = |option: MessageOption<'_>| match option {
        MessageOption::SubQueueIds(ids) => {
            let ids: Vec<u32> = ids.iter().collect();
            json!({"type": 1, "packed": 0, "typeSpecific": 0, "words": 1 + ids.len(), "ids": ids})
        }
        MessageOption::SubQueueInfos(infos) => {
            let infos: Vec<_> = infos.iter().map(|(id, attempts)| (id, attempts.0)).collect();
            let words = 1 + 2 * infos.len();
            json!({"type": 3, "packed": 0, "typeSpecific": 2, "words": words, "infos": infos})
        }
        MessageOption::DefaultSubQueueInfo(attempts) => {
            let rda = attempts.0;
            json!({"type": 3, "packed": 1, "typeSpecific": 0, "words": rda, "rda": rda})
        }
        other => panic!("no vector has this: {other:?}"),
    };
    Options::parse(area).unwrap().map(describe).collect()
}

fn described_properties(area: Option<&(Bytes, PropertyStyle)>) -> Value {
    let Some((area, style)) = area else { return json!([]) };
    let view = PropertiesView::parse(area, *style).unwrap();
    let names: Vec<_> = view.iter().map(|property| property.name).collect();
    if names.is_sorted() {
        let mut again = BytesMut::new();
        Properties::from(view).append_area(*style, &mut again).unwrap();
        assert_eq!(again, area[..], "sorted properties are written as they were");
    }
    let describe = |property: flintmq_protocol::properties::PropertyRef<'_>| {
        let (value, raw) = match property.value {
            PropertyValueRef::Bool(value) => (json!(value), vec![u8::from(value)]),
            PropertyValueRef::Char(value) => (json!(value), vec![value]),
            PropertyValueRef::Short(value) => (json!(value), value.to_be_bytes().to_vec()),
            PropertyValueRef::Int32(value) => (json!(value), value.to_be_bytes().to_vec()),
            PropertyValueRef::Int64(value) => (json!(value), value.to_be_bytes().to_vec()),
            PropertyValueRef::String(text) => {
                (json!(std::str::from_utf8(text).unwrap()), text.to_vec())
            }
            PropertyValueRef::Binary(bytes) => (json!(hex(bytes)), bytes.to_vec()),
        };
        let property_type = match property.value.property_type() {
            PropertyType::Bool => "BOOL",
            PropertyType::Char => "CHAR",
            PropertyType::Short => "SHORT",
            PropertyType::Int32 => "INT32",
            PropertyType::Int64 => "INT64",
            PropertyType::String => "STRING",
            PropertyType::Binary => "BINARY",
        };
        let name = std::str::from_utf8(property.name).unwrap();
        json!({"name": name, "type": property_type, "value": value, "raw": hex(&raw)})
    };
    view.iter().map(describe).collect()
}

fn described_payload(payload: &[u8]) -> Value {
    if payload.len() <= 64 {
        json!(hex(payload))
    } else {
        json!({
            "length": payload.len(),
            "first16": hex(&payload[..16]),
            "crc32c": format!("{:08x}", app_data_crc(payload)),
        })
    }
}
