//! Random data messages, their properties and their events, written and read back.

use bytes::{Bytes, BytesMut};
use flintmq_protocol::ack::{AckBuilder, AckMessage, AckMessages, AckStatus};
use flintmq_protocol::app_data::{compose, inflate_old_style, rewrite_for_old_consumer, split};
use flintmq_protocol::compression::{Compression, Deflater, Inflater};
use flintmq_protocol::confirm::{ConfirmBuilder, ConfirmMessage, ConfirmMessages};
use flintmq_protocol::crc::app_data_crc;
use flintmq_protocol::event::{Event, EventType};
use flintmq_protocol::flags::{PushFlags, PutFlags};
use flintmq_protocol::frame::FrameDecoder;
use flintmq_protocol::guid::{ClientId, GuidGenerator, MessageGuid};
use flintmq_protocol::options::{append_sub_queue_ids, sub_queue_id_option};
use flintmq_protocol::properties::{Properties, PropertiesView, PropertyStyle, PropertyValue};
use flintmq_protocol::push::{PushBuilder, PushHead, PushMessages};
use flintmq_protocol::put::{PutBuilder, PutHead, PutMessages};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::control_round_trips::text;

fn guid() -> impl Strategy<Value = MessageGuid> {
    any::<[u8; 16]>().prop_map(MessageGuid)
}

fn data(max: usize) -> impl Strategy<Value = Bytes> {
    prop_oneof![
        vec(any::<u8>(), 1..max).prop_map(Bytes::from),
        (any::<u8>(), 1..max).prop_map(|(byte, len)| Bytes::from(vec![byte; len])),
    ]
}

fn value() -> impl Strategy<Value = PropertyValue> {
    prop_oneof![
        any::<bool>().prop_map(PropertyValue::Bool),
        any::<u8>().prop_map(PropertyValue::Char),
        any::<i16>().prop_map(PropertyValue::Short),
        any::<i32>().prop_map(PropertyValue::Int32),
        any::<i64>().prop_map(PropertyValue::Int64),
        text().prop_map(PropertyValue::String),
        vec(any::<u8>(), 0..50).prop_map(|bytes| PropertyValue::Binary(bytes.into())),
    ]
}

fn properties(most: usize) -> impl Strategy<Value = Properties> {
    vec((".{1,20}", value()), 0..=most).prop_map(|list| {
        let mut properties = Properties::new();
        for (name, value) in list {
            properties.insert(name, value).unwrap();
        }
        properties
    })
}

fn style() -> impl Strategy<Value = PropertyStyle> {
    prop::sample::select(vec![PropertyStyle::Old, PropertyStyle::Extended])
}

/// The events in a buffer, all of the expected type.
fn events(out: BytesMut, event_type: EventType) -> Vec<Event> {
    let mut received = out;
    let mut decoder = FrameDecoder::new(usize::MAX);
    let mut events = Vec::new();
    while let Some(frame) = decoder.decode(&mut received).unwrap() {
        let event = frame.parse().unwrap();
        assert_eq!(event.event_type(), event_type);
        events.push(event);
    }
    assert!(received.is_empty());
    events
}

/// Messages of one event are together unless it would grow beyond the limit.
fn assert_packed(events: &[Event], limit: usize, count_of: impl Fn(&Event) -> usize) {
    for event in events {
        let fits = event.header.length as usize <= limit;
        assert!(fits || count_of(event) == 1, "{}", event.header.length);
    }
}

proptest! {
    #[test]
    fn put_messages(
        puts in vec((any::<bool>(), any::<u32>(), guid(), data(3000), any::<u16>()), 1..20),
        limit in 0..20_000usize,
    ) {
        let mut out = BytesMut::new();
        let mut builder = PutBuilder::new(&mut out, limit);
        for (with_properties, queue_id, guid, app_data, schema) in &puts {
            let mut head = PutHead::new(*queue_id, *guid);
            if *with_properties {
                head.flags = PutFlags::MESSAGE_PROPERTIES;
                head.schema_wire_id = *schema;
                head.compression = Compression::Zlib;
            }
            let (left, right) = app_data.split_at(app_data.len() / 2);
            builder.append(&head, &[], &[left, right]).unwrap();
        }
        let events = events(out, EventType::Put);
        assert_packed(&events, limit, |event| PutMessages::new(&event.body).count());
        let read = events.iter().flat_map(|event| PutMessages::new(&event.body));
        let read: Vec<_> = read.map(Result::unwrap).collect();
        prop_assert_eq!(read.len(), puts.len());
        for (message, put) in read.iter().zip(&puts) {
            let (with_properties, queue_id, guid, app_data, schema) = put;
            prop_assert_eq!(message.queue_id, *queue_id);
            prop_assert_eq!(message.guid, *guid);
            prop_assert_eq!(&message.app_data, app_data);
            prop_assert_eq!(message.crc32c, app_data_crc(app_data));
            prop_assert_eq!(message.schema_wire_id, if *with_properties { *schema } else { 0 });
            prop_assert_eq!(message.property_style().is_some(), *with_properties);
        }
    }

    #[test]
    fn push_messages(
        pushes in vec((any::<u32>(), guid(), data(3000), vec(any::<u32>(), 1..4)), 1..20),
        limit in 0..20_000usize,
    ) {
        let mut out = BytesMut::new();
        let mut builder = PushBuilder::new(&mut out, limit);
        for (queue_id, guid, app_data, ids) in &pushes {
            let head = PushHead {
                flags: PushFlags::OUT_OF_ORDER,
                queue_id: *queue_id,
                guid: *guid,
                compression: Compression::None,
                schema_wire_id: 0,
            };
            if let [id] = ids[..] {
                builder.append(&head, &sub_queue_id_option(id), app_data).unwrap();
            } else {
                let mut option = BytesMut::new();
                append_sub_queue_ids(&mut option, ids);
                builder.append(&head, &option, app_data).unwrap();
            }
        }
        let events = events(out, EventType::Push);
        assert_packed(&events, limit, |event| PushMessages::new(&event.body).count());
        let read = events.iter().flat_map(|event| PushMessages::new(&event.body));
        let read: Vec<_> = read.map(Result::unwrap).collect();
        prop_assert_eq!(read.len(), pushes.len());
        for (message, (queue_id, guid, app_data, ids)) in read.iter().zip(&pushes) {
            prop_assert_eq!(message.queue_id, *queue_id);
            prop_assert_eq!(message.guid, *guid);
            prop_assert_eq!(&message.app_data, app_data);
            prop_assert!(message.subscription_ids().eq(ids.iter().copied()));
        }
    }

    #[test]
    fn ack_messages(
        acks in vec((0..16u8, 0..1u32 << 24, guid(), any::<u32>()), 1..60),
        limit in 0..800usize,
    ) {
        let acks: Vec<_> = acks
            .into_iter()
            .map(|(status, correlation_id, guid, queue_id)| AckMessage {
                status: AckStatus::from_wire(status),
                correlation_id,
                guid,
                queue_id,
            })
            .collect();
        let mut out = BytesMut::new();
        let mut builder = AckBuilder::new(&mut out, limit);
        acks.iter().for_each(|ack| builder.append(ack));
        let events = events(out, EventType::Ack);
        assert_packed(&events, limit, |event| AckMessages::parse(&event.body).unwrap().len());
        let read: Vec<_> =
            events.iter().flat_map(|event| AckMessages::parse(&event.body).unwrap()).collect();
        prop_assert_eq!(read, acks);
    }

    #[test]
    fn confirm_and_reject_messages(
        confirms in vec((any::<u32>(), guid(), any::<u32>()), 1..60),
        limit in 0..800usize,
        reject in any::<bool>(),
    ) {
        let confirms: Vec<_> = confirms
            .into_iter()
            .map(|(queue_id, guid, sub_queue_id)| ConfirmMessage { queue_id, guid, sub_queue_id })
            .collect();
        let mut out = BytesMut::new();
        let (mut builder, event_type) = if reject {
            (ConfirmBuilder::reject(&mut out, limit), EventType::Reject)
        } else {
            (ConfirmBuilder::new(&mut out, limit), EventType::Confirm)
        };
        confirms.iter().for_each(|confirm| builder.append(confirm));
        let events = events(out, event_type);
        let parse =
            |event: &Event| ConfirmMessages::parse(&event.body).unwrap().collect::<Vec<_>>();
        assert_packed(&events, limit, |event| parse(event).len());
        let read: Vec<_> = events.iter().flat_map(parse).collect();
        prop_assert_eq!(read, confirms);
    }

    #[test]
    fn message_properties(properties in properties(12), style in style()) {
        let mut area = BytesMut::new();
        properties.append_area(style, &mut area).unwrap();
        prop_assert_eq!(area.is_empty(), properties.is_empty());
        if !properties.is_empty() {
            let view = PropertiesView::parse(&area, style).unwrap();
            prop_assert_eq!(view.len(), properties.len());
            for (name, value) in properties.iter() {
                let found = view.get(name.as_bytes()).map(PropertyValue::from);
                prop_assert_eq!(found.as_ref(), Some(value));
            }
            prop_assert_eq!(view.get(b""), None);
            prop_assert_eq!(Properties::from(view), properties);
        }
    }

    /// What a producer puts together reaches any consumer: as it is, stored by the broker, and
    /// rewritten for one that does not know extended properties.
    #[test]
    fn application_data(
        properties in properties(4),
        style in style(),
        payload in data(5000),
        compress in any::<bool>(),
    ) {
        let mut deflater = Deflater::default();
        let mut inflater = Inflater::default();
        let limit = 100_000;
        let deflater = compress.then_some(&mut deflater);
        let composed = compose(&properties, style, payload.clone(), deflater).unwrap();
        let mut out = BytesMut::new();
        let head = PutHead {
            flags: composed.flags | PutFlags::ACK_REQUESTED,
            compression: composed.compression,
            schema_wire_id: composed.schema_wire_id,
            ..PutHead::new(1, MessageGuid([7; 16]))
        };
        let parts = [&composed.properties[..], &composed.payload];
        PutBuilder::new(&mut out, 0).append(&head, &[], &parts).unwrap();
        let event = events(out, EventType::Put).remove(0);
        let put = PutMessages::new(&event.body).next().unwrap().unwrap();
        prop_assert_eq!(put.property_style(), (!properties.is_empty()).then_some(style));

        let check = |app_data: &Bytes, style, compression, inflater: &mut Inflater| {
            let parts = split(app_data, style, compression, inflater, limit).unwrap();
            assert_eq!(parts.payload, payload);
            let read = parts.properties().unwrap().map(Properties::from);
            assert_eq!(read.unwrap_or_default(), properties);
        };
        let put_style = put.property_style();
        check(&put.app_data, put_style, put.compression, &mut inflater);
        let stored = inflate_old_style(put, &mut inflater, limit).unwrap();
        prop_assert_eq!(stored.crc32c, app_data_crc(&stored.app_data));
        check(&stored.app_data, stored.property_style(), stored.compression, &mut inflater);
        if put_style == Some(PropertyStyle::Extended) {
            let old = rewrite_for_old_consumer(
                &stored.app_data, stored.compression, &mut inflater, limit,
            );
            let old = old.unwrap();
            check(&old, Some(PropertyStyle::Old), Compression::None, &mut inflater);
        }
    }

    #[test]
    fn events_survive_any_segmentation(
        bodies in vec(vec(any::<u8>(), 0..300), 1..20),
        segments in vec(1..50usize, 1..50),
    ) {
        let mut stream = Vec::new();
        for body in &bodies {
            stream.extend_from_slice(&(8 + body.len() as u32).to_be_bytes());
            stream.extend_from_slice(&[0x41, 2, 0, 0]);
            stream.extend_from_slice(body);
        }
        let mut decoder = FrameDecoder::new(308);
        let mut received = BytesMut::new();
        let mut read = Vec::new();
        let mut rest = &stream[..];
        for size in segments.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, behind) = rest.split_at((*size).min(rest.len()));
            received.extend_from_slice(piece);
            rest = behind;
            while let Some(frame) = decoder.decode(&mut received).unwrap() {
                read.push(frame.parse().unwrap().body);
            }
        }
        prop_assert!(received.is_empty());
        prop_assert!(read.iter().eq(&bodies));
    }

    #[test]
    fn guids(client in any::<[u8; 6]>(), times in vec(0..1u64 << 56, 1..20)) {
        let mut generator = GuidGenerator::new(ClientId(client));
        for (count, time) in times.into_iter().enumerate() {
            let guid = generator.next_guid(time);
            prop_assert_eq!(guid.version(), 1);
            prop_assert_eq!(guid.counter() as usize, count);
            prop_assert_eq!(guid.timer_ns(), time);
            prop_assert_eq!(guid.client_id(), ClientId(client));
            prop_assert_eq!(guid.to_string().parse(), Ok(guid));
        }
    }
}
