//! What must hold for any bytes whatever. The fuzz targets call these, and so do the tests that
//! replay seeds and damage captured messages.

use bytes::{Bytes, BytesMut};
use flintmq_protocol::ack::{AckBuilder, AckMessages};
use flintmq_protocol::app_data::{inflate_old_style, rewrite_for_old_consumer, split};
use flintmq_protocol::compression::{Compression, Deflater, Inflater};
use flintmq_protocol::confirm::{ConfirmBuilder, ConfirmMessages};
use flintmq_protocol::control::{
    AuthenticationMessage, ControlMessage, Encoding, NegotiationMessage,
};
use flintmq_protocol::event::{Event, EventHeader, EventType, Frame};
use flintmq_protocol::frame::FrameDecoder;
use flintmq_protocol::options::{MessageOption, Options};
use flintmq_protocol::properties::{
    Properties, PropertiesView, PropertyStyle, area_size, rewrite_as_old_style,
};
use flintmq_protocol::push::{PushBuilder, PushHead, PushMessage, PushMessages};
use flintmq_protocol::put::{PutBuilder, PutError, PutMessages};
use flintmq_protocol::uri::QueueUri;

const EVENT_LIMIT: usize = 1 << 20;
const INFLATE_LIMIT: usize = 256 << 10;

/// A byte stream in chunks whose size the first byte decides.
pub(crate) fn event_stream(data: &[u8]) {
    let Some((&chunk, stream)) = data.split_first() else { return };
    let mut decoder = FrameDecoder::new(EVENT_LIMIT);
    let mut received = BytesMut::new();
    let mut taken = 0;
    for piece in stream.chunks(usize::from(chunk).max(1)) {
        received.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut received) {
                Ok(Some(frame)) => {
                    let bytes = frame.bytes().clone();
                    assert_eq!(bytes[..], stream[taken..taken + bytes.len()]);
                    taken += bytes.len();
                    whole_event(frame);
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// One event of any type.
pub(crate) fn whole_event(frame: Frame) {
    let Ok(event) = frame.parse() else { return };
    match event.event_type() {
        EventType::Control => {
            negotiation(&event);
            control(&event);
        }
        EventType::Authentication => authentication(&event),
        EventType::Put => put(&event.body),
        EventType::Push => push(&event.body),
        EventType::Ack => ack(&event.body),
        EventType::Confirm | EventType::Reject => confirm(&event.body),
        _ => {}
    }
}

/// The bodies of control events in one encoding.
pub(crate) fn control_bodies(data: &[u8], encoding: Encoding) {
    let mut body = data.to_vec();
    if encoding == Encoding::Json {
        let padding = 4 - body.len() % 4;
        body.extend(std::iter::repeat_n(padding as u8, padding));
    }
    let event = |event_type| {
        let mut header = EventHeader::new(event_type, 8 + body.len() as u32);
        header.type_specific = encoding.to_type_specific();
        Event { header, body: Bytes::from(body.clone()) }
    };
    negotiation(&event(EventType::Control));
    control(&event(EventType::Control));
    authentication(&event(EventType::Authentication));
}

/// Whatever can be read can be written in both encodings and read again as the same.
macro_rules! rewritten_equal {
    ($name:ident, $root:ty) => {
        fn $name(event: &Event) {
            let Ok(message) = <$root>::from_event(event) else { return };
            for encoding in [Encoding::Ber, Encoding::Json] {
                let mut out = BytesMut::new();
                message.append_event(encoding, &mut out).unwrap();
                let again = Frame::new(out.freeze()).unwrap().parse().unwrap();
                assert_eq!(<$root>::from_event(&again).unwrap(), message, "{encoding:?}");
            }
        }
    };
}
rewritten_equal!(negotiation, NegotiationMessage);
rewritten_equal!(control, ControlMessage);
rewritten_equal!(authentication, AuthenticationMessage);

/// The body of a PUT event.
pub(crate) fn put(body: &Bytes) {
    let mut inflater = Inflater::default();
    let mut good = Vec::new();
    let mut last_offset = None;
    for message in PutMessages::new(body) {
        match message {
            Ok(message) => good.push(message),
            Err(PutError::Message(bad)) => {
                assert!(last_offset < Some(bad.offset), "the walk goes forward");
                last_offset = Some(bad.offset);
            }
            Err(PutError::Event(malformed)) => assert!(malformed.offset <= body.len()),
        }
    }
    let mut out = BytesMut::new();
    let mut builder = PutBuilder::new(&mut out, usize::MAX);
    for message in &good {
        builder.append_message(message).unwrap();
    }
    if !good.is_empty() {
        let again = Frame::new(out.freeze()).unwrap().parse().unwrap();
        let read: Result<Vec<_>, _> = PutMessages::new(&again.body).collect();
        assert_eq!(read.unwrap(), good);
    }
    for message in good {
        let style = message.property_style();
        message_parts(&message.app_data, style, message.compression);
        if let Ok(stored) = inflate_old_style(message, &mut inflater, INFLATE_LIMIT) {
            let compressed = stored.compression == Compression::Zlib;
            assert!(!(compressed && style == Some(PropertyStyle::Old)));
        }
    }
}

/// The body of a PUSH event.
pub(crate) fn push(body: &Bytes) {
    let good: Vec<PushMessage> = PushMessages::new(body).map_while(Result::ok).collect();
    let mut out = BytesMut::new();
    let mut builder = PushBuilder::new(&mut out, usize::MAX);
    let mut written = Vec::new();
    for message in good {
        let ids = message.subscription_ids().count();
        assert!(ids > 0, "a message is for some subscription");
        message_parts(&message.app_data, message.property_style(), message.compression);
        if builder.append(&push_head(&message), &message.options, &message.app_data).is_ok() {
            written.push(message);
        } else {
            assert!(message.app_data.is_empty(), "only an implicit payload cannot be sent on");
        }
    }
    if !written.is_empty() {
        let again = Frame::new(out.freeze()).unwrap().parse().unwrap();
        let read: Result<Vec<_>, _> = PushMessages::new(&again.body).collect();
        assert_eq!(read.unwrap(), written);
    }
}

/// What to hand to the builder to send a received PUSH again.
pub(crate) fn push_head(message: &PushMessage) -> PushHead {
    PushHead {
        flags: message.flags,
        queue_id: message.queue_id,
        guid: message.guid,
        compression: message.compression,
        schema_wire_id: message.schema_wire_id,
    }
}

/// The body of an ACK event.
pub(crate) fn ack(body: &[u8]) {
    let Ok(messages) = AckMessages::parse(body) else { return };
    let messages: Vec<_> = messages.collect();
    let mut out = BytesMut::new();
    let mut builder = AckBuilder::new(&mut out, usize::MAX);
    messages.iter().for_each(|message| builder.append(message));
    let again = Frame::new(out.freeze()).unwrap().parse().unwrap();
    assert!(AckMessages::parse(&again.body).unwrap().eq(messages));
}

/// The body of a CONFIRM or REJECT event.
pub(crate) fn confirm(body: &[u8]) {
    let Ok(messages) = ConfirmMessages::parse(body) else { return };
    let messages: Vec<_> = messages.collect();
    let mut out = BytesMut::new();
    let mut builder = ConfirmBuilder::new(&mut out, usize::MAX);
    messages.iter().for_each(|message| builder.append(message));
    let again = Frame::new(out.freeze()).unwrap().parse().unwrap();
    assert!(ConfirmMessages::parse(&again.body).unwrap().eq(messages));
}

/// An options area.
pub(crate) fn options(area: &[u8]) {
    let Ok(options) = Options::parse(area) else { return };
    for option in options {
        match option {
            MessageOption::SubQueueIds(ids) => assert!(ids.iter().count() <= area.len() / 4),
            MessageOption::SubQueueInfos(infos) => {
                assert!(infos.iter().count() <= area.len() / 8);
            }
            _ => {}
        }
    }
    assert_eq!(Options::parse(area).unwrap().count() == 0, area.is_empty());
}

/// A properties area, in both styles, perhaps with a payload behind it.
pub(crate) fn properties(app_data: &[u8]) {
    let Ok(size) = area_size(app_data) else { return };
    let area = &app_data[..size];
    for style in [PropertyStyle::Old, PropertyStyle::Extended] {
        let Ok(view) = PropertiesView::parse(area, style) else { continue };
        assert_eq!(view.iter().count(), view.len());
        for property in view.iter() {
            assert!(view.get(property.name).is_some());
        }
        if style == PropertyStyle::Extended {
            let old = rewrite_as_old_style(area).unwrap();
            assert_eq!(old.len(), area.len());
            let old = PropertiesView::parse(&old, PropertyStyle::Old).unwrap();
            assert!(old.iter().eq(view.iter()));
        }
        let map = Properties::from(view);
        for style in [PropertyStyle::Old, PropertyStyle::Extended] {
            let mut out = BytesMut::new();
            if map.append_area(style, &mut out).is_ok() {
                assert_eq!(Properties::parse(&out, style).unwrap(), map);
            }
        }
    }
}

/// Application data as a message carries it.
fn message_parts(app_data: &Bytes, style: Option<PropertyStyle>, compression: Compression) {
    let mut inflater = Inflater::default();
    if let Ok(parts) = split(app_data, style, compression, &mut inflater, INFLATE_LIMIT) {
        assert!(parts.payload.len() <= INFLATE_LIMIT.max(app_data.len()));
        let before = parts.properties().ok().flatten();
        if let (Some(PropertyStyle::Extended), Some(before)) = (style, before) {
            let old = rewrite_for_old_consumer(app_data, compression, &mut inflater, INFLATE_LIMIT);
            let old = split(
                &old.unwrap(),
                Some(PropertyStyle::Old),
                Compression::None,
                &mut inflater,
                INFLATE_LIMIT,
            );
            let old = old.unwrap();
            assert_eq!(old.payload, parts.payload);
            let after = old.properties().unwrap().unwrap();
            assert!(after.iter().eq(before.iter()));
        }
    }
    properties(app_data);
}

/// A queue URI.
pub(crate) fn uri(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(uri) = QueueUri::parse(text) else { return };
    assert_eq!(uri.to_string(), text);
    assert_eq!(uri.to_canonical(), QueueUri::parse(uri.canonical()).unwrap());
    let tier = uri.tier().map_or_else(String::new, |tier| format!(".~{tier}"));
    let app = uri.app_id().map_or_else(String::new, |app| format!("?id={app}"));
    assert_eq!(format!("bmq://{}{tier}/{}{app}", uri.domain(), uri.queue()), text);
    assert_eq!(uri.qualified_domain(), format!("{}{tier}", uri.domain()));
}

/// A zlib stream, and a payload to be compressed.
pub(crate) fn inflate(data: &[u8]) {
    let mut inflater = Inflater::default();
    for limit in [0, 100, INFLATE_LIMIT] {
        if let Ok(inflated) = inflater.inflate(data, limit) {
            assert!(inflated.len() <= limit);
        }
    }
    let (left, right) = data.split_at(data.len() / 2);
    if let Some(deflated) = Deflater::default().deflate_if_smaller(&[left, right]) {
        assert!(deflated.len() < data.len());
        assert_eq!(inflater.inflate(&deflated, data.len()).unwrap(), data);
    }
}
