//! Whole sessions of real clients, one of them with the real broker, read as a byte stream and
//! written again.

use bytes::{Bytes, BytesMut};
use flintmq_protocol::control::{
    AuthenticationMessage, ControlMessage, Encoding, NegotiationMessage,
};
use flintmq_protocol::event::{Event, EventType, Frame};
use flintmq_protocol::frame::FrameDecoder;

use crate::checks;
use crate::vectors::{bytes_of_hex, rewrite_data_event};

/// Every captured event with its origin.
#[allow(clippy::disallowed_methods)]
pub(crate) fn captured_events() -> Vec<(String, Vec<u8>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/captures");
    let mut events = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        for (line, text) in std::fs::read_to_string(&path).unwrap().lines().enumerate() {
            let record: serde_json::Value = serde_json::from_str(text).unwrap();
            let hex = record["hex"].as_str().unwrap();
            let direction = record["direction"].as_str().unwrap();
            events.push((format!("{name}:{} {direction}", line + 1), bytes_of_hex(hex)));
        }
    }
    assert!(events.len() > 300, "captures are missing: {}", events.len());
    events.sort();
    events
}

fn parsed(bytes: &[u8]) -> Event {
    Frame::new(Bytes::copy_from_slice(bytes)).unwrap().parse().unwrap()
}

#[test]
fn every_captured_event_is_read() {
    for (origin, bytes) in captured_events() {
        let event = parsed(&bytes);
        match event.event_type() {
            EventType::Control => {
                let negotiation = NegotiationMessage::from_event(&event).is_ok();
                let control = ControlMessage::from_event(&event).is_ok();
                assert!(negotiation != control, "{origin}");
            }
            EventType::Authentication => {
                AuthenticationMessage::from_event(&event).unwrap();
            }
            EventType::HeartbeatRequest | EventType::HeartbeatResponse => {
                assert!(event.body.is_empty(), "{origin}");
            }
            _ => assert_eq!(rewrite_data_event(&event), bytes, "{origin}"),
        }
        checks::whole_event(Frame::new(Bytes::from(bytes)).unwrap());
    }
}

/// Everything that brokers send, in both encodings, and what the C++ client sends. (An identity
/// from before the user agent, and the Java client's escapes, have other bytes than ours.)
#[test]
fn control_messages_are_written_as_they_were_captured() {
    let mut compared = [0, 0];
    for (origin, bytes) in captured_events() {
        let event = parsed(&bytes);
        if event.event_type() != EventType::Control {
            continue;
        }
        let encoding = Encoding::of_event(&event).unwrap();
        let from_broker = origin.contains("broker->client");
        let mut out = BytesMut::new();
        if let Ok(message) = ControlMessage::from_event(&event) {
            message.append_event(encoding, &mut out).unwrap();
        } else {
            NegotiationMessage::from_event(&event)
                .unwrap()
                .append_event(encoding, &mut out)
                .unwrap();
        }
        let is_identity = origin.contains("client->broker") && event.body[2] == 0xa0;
        if from_broker || (encoding == Encoding::Ber && !is_identity) {
            assert_eq!(out, bytes, "{origin}");
            compared[usize::from(encoding == Encoding::Json)] += 1;
        }
    }
    assert!(compared[0] > 190 && compared[1] > 40, "{compared:?}");
}

#[test]
fn a_session_is_cut_into_its_events_whatever_the_segments() {
    let events = captured_events();
    let stream: Vec<u8> = events.iter().flat_map(|(_, bytes)| bytes).copied().collect();
    for segment in [1, 3, 7, 64, 1500, 65_536, stream.len()] {
        let mut decoder = FrameDecoder::new(1 << 20);
        let mut received = BytesMut::new();
        let mut frames = Vec::new();
        for piece in stream.chunks(segment) {
            received.extend_from_slice(piece);
            while let Some(frame) = decoder.decode(&mut received).unwrap() {
                frames.push(frame.bytes().clone());
            }
        }
        assert!(received.is_empty());
        assert!(frames.iter().eq(events.iter().map(|(_, bytes)| bytes)), "{segment}");
    }
}
