use super::*;
use crate::ids::Guid;
use crate::message::Attributes;
use crate::settings::tests::any_domain;
use crate::settings::{DomainSettings, DomainVersion};
use proptest::prelude::*;

fn message(guid: u8, data: &[u8]) -> Message {
    Message {
        guid: Guid([guid; 16]),
        attributes: Attributes { flags: 2, compression: 1, schema_wire_id: 0x0103 },
        app_data: Bytes::copy_from_slice(data),
    }
}

/// An entry in a form that is easy to compare.
fn describe(payload: &Bytes) -> Vec<String> {
    let (_, commands) = decode(payload).unwrap();
    commands
        .iter()
        .map(|command| match command {
            Command::Publish(batch) => {
                let messages: Vec<String> = batch
                    .iter()
                    .map(|h| {
                        let data = &payload[h.start..h.start + h.size as usize];
                        format!("{:02x}:{}", h.guid.0[0], String::from_utf8_lossy(data))
                    })
                    .collect();
                format!("publish {} {}", batch.queue.0, messages.join(" "))
            }
            other => format!("{other:?}"),
        })
        .collect()
}

#[test]
fn golden_bytes_of_every_command() {
    let mut builder = EntryBuilder::default();
    let queue = QueueId(300);
    let version = DomainVersion { term: 3, index: 300 };
    let domain = Domain { id: DomainId(1), version, settings: DomainSettings::priority() };
    builder.create_queue(queue, "bmq://d/q", QueueDomain::Carried(&domain));
    builder.create_queue(queue, "bmq://d/q", QueueDomain::Known(DomainId(2)));
    builder.publish(queue, message(0xaa, b"hello")).unwrap();
    builder.publish(queue, message(0xbb, b"!")).unwrap();
    for position in [7, 5, 6, 9] {
        builder.confirm(ConfirmItem { queue, app: AppKey(0), position });
    }
    builder.attempt(&AttemptItem { queue, app: AppKey(1), positions: vec![4, 3] });
    builder.expire(ExpireItem { queue, up_to: 300 });
    builder.purge(queue, None);
    builder.purge(queue, Some(AppKey(2)));
    builder.set_domain(&domain);
    builder.delete_queue(queue);
    let payload = builder.finish(1000).payload;

    let unlimited = "ffffffffffffffffff01";
    let domain = format!("0103ac020000e0a71200{}0000{:02x}", unlimited.repeat(4), 1);
    let guid = |byte: &str| byte.repeat(16);
    let expected = [
        "02e807".to_owned(),
        format!("0aac0209{}01{domain}", hex(b"bmq://d/q")),
        format!("0aac0209{}0002", hex(b"bmq://d/q")),
        format!("01ac0202{}0000000502010103", guid("aa")),
        format!("{}0000000602010103{}", guid("bb"), hex(b"hello!")),
        "02ac02000205020100".to_owned(),
        "03ac0201020801".to_owned(),
        "04ac02ac02".to_owned(),
        "05ac0200".to_owned(),
        "05ac0203".to_owned(),
        format!("09{domain}"),
        "08ac02".to_owned(),
    ]
    .concat();
    assert_eq!(hex(&payload), expected);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn messages_are_grouped_by_queue_and_the_order_says_how() {
    let mut builder = EntryBuilder::default();
    for (queue, guid) in [(1, 1), (2, 2), (1, 3), (2, 4)] {
        builder.publish(QueueId(queue), message(guid, b"x")).unwrap();
    }
    let built = builder.finish(5);
    assert_eq!(built.publish_order, [0, 2, 1, 3]);
    assert_eq!(describe(&built.payload), ["publish 1 01:x 03:x", "publish 2 02:x 04:x"]);
}

#[test]
fn nothing_overtakes_a_purge_of_its_queue() {
    let mut builder = EntryBuilder::default();
    builder.publish(QueueId(1), message(1, b"")).unwrap();
    builder.confirm(ConfirmItem { queue: QueueId(1), app: AppKey(0), position: 0 });
    builder.purge(QueueId(1), None);
    builder.publish(QueueId(1), message(2, b"")).unwrap();
    builder.confirm(ConfirmItem { queue: QueueId(1), app: AppKey(0), position: 1 });
    let lines = describe(&builder.finish(5).payload);
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert_eq!(lines[0], "publish 1 01:");
    assert_eq!(lines[3], "publish 1 02:");
}

#[test]
fn an_empty_entry_and_an_empty_builder_have_no_commands() {
    assert!(decode(&[]).unwrap().1.is_empty());
    let built = EntryBuilder::default().finish(9);
    let (time, commands) = decode(&built.payload).unwrap();
    assert_eq!((time, commands.len()), (Some(9), 0));
}

#[test]
fn a_newer_version_is_refused_by_name() {
    assert_eq!(decode(&[3, 0]).unwrap_err(), Malformed { what: "entry version" });
}

#[test]
fn a_message_over_the_limit_is_refused() {
    let mut big = message(1, b"");
    big.app_data = Bytes::from(vec![0; MAX_APP_DATA_BYTES + 1]);
    let error = EntryBuilder::default().publish(QueueId(1), big).unwrap_err();
    assert_eq!(error.bytes, MAX_APP_DATA_BYTES + 1);
}

proptest! {
    #[test]
    fn confirms_round_trip(mut positions in prop::collection::vec(0u64..200, 1..60)) {
        let mut builder = EntryBuilder::default();
        for &position in &positions {
            builder.confirm(ConfirmItem { queue: QueueId(3), app: AppKey(1), position });
        }
        let payload = builder.finish(1).payload;
        let (_, commands) = decode(&payload).unwrap();
        let [Command::Confirm { runs, .. }] = &commands[..] else { panic!("{commands:?}") };
        let read: Vec<u64> = runs.iter().flat_map(|&(first, last)| first..=last).collect();
        positions.sort_unstable();
        positions.dedup();
        prop_assert_eq!(read, positions);
    }

    #[test]
    fn attempts_keep_their_order(positions: Vec<u64>) {
        let mut builder = EntryBuilder::default();
        let item = AttemptItem { queue: QueueId(3), app: AppKey(1), positions };
        builder.attempt(&item);
        let payload = builder.finish(1).payload;
        let (_, commands) = decode(&payload).unwrap();
        let [Command::Attempt { positions, .. }] = &commands[..] else { panic!("{commands:?}") };
        prop_assert_eq!(positions, &item.positions);
    }

    #[test]
    fn publishes_and_domains_round_trip(
        data in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
        domain in any_domain(),
    ) {
        let mut builder = EntryBuilder::default();
        builder.create_queue(QueueId(9), "bmq://d/q", QueueDomain::Carried(&domain));
        for (number, data) in data.iter().enumerate() {
            builder.publish(QueueId(9), message(number as u8, data)).unwrap();
        }
        let payload = builder.finish(u64::MAX).payload;
        let (time, commands) = decode(&payload).unwrap();
        prop_assert_eq!(time, Some(u64::MAX));
        let Command::CreateQueue { carried, .. } = &commands[0] else { panic!() };
        prop_assert_eq!(carried.as_deref(), Some(&domain));
        if let Some(Command::Publish(batch)) = commands.get(1) {
            for (number, header) in batch.iter().enumerate() {
                prop_assert_eq!(header.guid, Guid([number as u8; 16]));
                let read = &payload[header.start..header.start + header.size as usize];
                prop_assert_eq!(read, &data[number][..]);
            }
            prop_assert_eq!(batch.count() as usize, data.len());
        } else {
            prop_assert!(data.is_empty());
        }
    }

    #[test]
    fn no_bytes_panic_the_decoder(mut bytes: Vec<u8>, version in 0..=VERSION) {
        if version > 0 {
            bytes.insert(0, version);
        }
        let _ = decode(&bytes);
    }
}
