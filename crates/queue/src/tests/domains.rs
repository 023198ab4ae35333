//! Settings of a domain: one table for all its queues, newer versions only, gone with the last
//! queue.

use super::setup::*;
use crate::*;

const OTHER: QueueId = QueueId(2);

fn limited(messages: u64) -> DomainSettings {
    DomainSettings { queue_limits: Limits { messages, bytes: u64::MAX }, ..settings() }
}

fn limit_of(host: &Host, queue: QueueId) -> u64 {
    host.partition.settings(queue).unwrap().queue_limits.messages
}

#[test]
fn one_command_changes_all_queues_of_the_domain_and_no_other() {
    let mut host = Host::with(limited(1));
    host.builder.create_queue(OTHER, "bmq://d/other", QueueDomain::Known(DOMAIN));
    let foreign = Domain { id: DomainId(2), ..domain(1, limited(1)) };
    host.create(QueueId(3), &foreign);
    host.commit();
    host.set(2, limited(7));
    let limits = [QUEUE, OTHER, QueueId(3)].map(|queue| limit_of(&host, queue));
    assert_eq!(limits, [7, 7, 1]);
}

#[test]
fn older_settings_are_ignored_in_whatever_order_they_come() {
    let mut host = Host::with(limited(5));
    host.set(9, limited(9));
    host.set(8, limited(8));
    host.create(OTHER, &domain(7, limited(7)));
    host.commit();
    assert_eq!((limit_of(&host, QUEUE), limit_of(&host, OTHER)), (9, 9));
    let newer_term = DomainVersion { term: 2, index: 1 };
    host.builder.set_domain(&Domain { version: newer_term, ..domain(1, limited(2)) });
    host.commit();
    assert_eq!(limit_of(&host, OTHER), 2, "the term counts first");
    assert_eq!(host.partition.domain(DOMAIN).unwrap().0, newer_term);
}

#[test]
fn a_creation_with_newer_settings_brings_them_to_all_queues() {
    let mut host = Host::with(limited(5));
    host.create(OTHER, &domain(2, limited(6)));
    host.commit();
    assert_eq!((limit_of(&host, QUEUE), limit_of(&host, OTHER)), (6, 6));
}

#[test]
fn messages_behind_a_change_in_the_same_entry_come_under_it() {
    let mut host = Host::with(limited(0));
    host.publish(guid(1), b"x");
    host.builder.set_domain(&domain(2, limited(1)));
    host.publish(guid(2), b"y");
    host.publish(guid(3), b"z");
    let stored = |position| Outcome::Stored { position };
    assert_eq!(host.commit(), [stored(0), stored(1), Outcome::RefusedMessages]);
}

#[test]
fn the_settings_go_with_the_last_queue_and_come_back_with_a_new_one() {
    let mut host = Host::with(limited(5));
    host.builder.create_queue(OTHER, "bmq://d/other", QueueDomain::Known(DOMAIN));
    host.commit();
    host.checkpoint();
    host.builder.delete_queue(QUEUE);
    host.commit();
    assert!(host.partition.domain(DOMAIN).is_some());
    host.builder.delete_queue(OTHER);
    host.set(2, limited(6));
    assert!(host.partition.domain(DOMAIN).is_none());
    assert_eq!(host.partition.domain_usage().count(), 0);
    host.checkpoint();
    assert_eq!(host.store.keys().collect::<Vec<_>>(), [&[1]]);
    // What a leader proposed that had not heard of the deletion.
    host.builder.create_queue(QueueId(3), "bmq://d/late", QueueDomain::Known(DOMAIN));
    host.commit();
    let reason = CreateRefusal::UnknownDomain;
    assert_eq!(host.applied.effects, [Effect::CreateRefused { queue: QueueId(3), reason }]);
    host.create(QueueId(3), &domain(3, limited(4)));
    host.commit();
    assert_eq!(limit_of(&host, QueueId(3)), 4);
}

#[test]
fn a_checkpoint_and_a_restart_keep_the_settings_and_write_them_once() {
    let mut host = Host::with(limited(5));
    for queue in 2..50 {
        host.builder.create_queue(QueueId(queue), "bmq://d/many", QueueDomain::Known(DOMAIN));
    }
    host.commit();
    host.checkpoint();
    host.set(2, limited(3));
    let checkpoint = host.checkpoint();
    let kinds: Vec<u8> = checkpoint.puts.iter().map(|(key, _)| key[0]).collect();
    assert_eq!(kinds, [0x01, 0x08], "one record, however many queues");
    host.restart();
    assert_eq!(limit_of(&host, QueueId(49)), 3);
    host.set(1, limited(1));
    assert_eq!(limit_of(&host, QueueId(49)), 3, "the version is kept, too");
}

#[test]
fn the_kind_of_mode_stays() {
    let mut host = Host::with(settings());
    let fanout = DomainSettings { mode: Mode::Fanout { apps: vec!["a".into()] }, ..limited(3) };
    host.set(2, fanout);
    let (_, known) = host.partition.domain(DOMAIN).unwrap();
    assert_eq!((&known.mode, known.queue_limits.messages), (&Mode::Priority, 3));
}

/// An entry and records as version 1 of the formats had them.
#[test]
fn entries_and_records_of_version_1_are_read_and_written_as_version_2() {
    let settings = |limit: &str| {
        let none = "ffffffffffffffffff01";
        format!("010000e0a71200{limit}{}000001", none.repeat(3))
    };
    let uri: String = b"bmq://d/q".iter().map(|byte| format!("{byte:02x}")).collect();
    let create = format!("01e8070601 09{uri}{}", settings("05"));
    let update = format!("01e8070701{}", settings("06"));
    let mut host = Host::new();
    for (index, entry) in [create, update].iter().enumerate() {
        let payload = bytes_of(entry);
        host.partition.apply(index as u64 + 1, &payload, &mut host.applied).unwrap();
    }
    assert_eq!(limit_of(&host, QUEUE), 6);
    assert_eq!(host.partition.domain(DOMAIN).unwrap().0, DomainVersion::UNKNOWN);

    let queue = bytes_of(&format!("0109{uri}0001010000{}", settings("05")));
    let partition = bytes_of("0103e80700");
    let key = |kind: u8| vec![kind, 0, 0, 0, 1];
    let records = [(vec![1], partition.to_vec()), (key(0x10), queue.to_vec())];
    let mut restored = Partition::restore(records).unwrap();
    assert_eq!(restored.settings(QUEUE).unwrap().queue_limits.messages, 5);
    let checkpoint = restored.take_checkpoint();
    assert_eq!(checkpoint.puts, restored.records());
    assert_eq!(checkpoint.puts[1].0, key(0x08));
    let mut builder = EntryBuilder::default();
    builder.set_domain(&domain(1, limited(8)));
    let payload = builder.finish(2000).payload;
    restored.apply(4, &payload, &mut Applied::default()).unwrap();
    assert_eq!(restored.settings(QUEUE).unwrap().queue_limits.messages, 8);
}

fn bytes_of(hex: &str) -> bytes::Bytes {
    let digits: Vec<u8> =
        hex.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect::<Vec<u8>>().into()
}
