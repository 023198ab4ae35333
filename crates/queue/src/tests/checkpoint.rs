//! What reaches the store, what leaves the log, and what comes back.

use proptest::prelude::*;

use super::setup::*;
use crate::*;

#[test]
fn what_came_and_went_between_checkpoints_is_not_written() {
    let mut host = Host::with(&settings());
    host.checkpoint();
    host.reader(1, 0, 10);
    host.publish_all(0..3);
    host.deliver();
    (0..3).for_each(|n| assert!(host.confirm(1, n)));
    let checkpoint = host.checkpoint();
    let kinds: Vec<u8> = checkpoint.puts.iter().map(|(key, _)| key[0]).collect();
    assert_eq!(kinds, [0x01, 0x10, 0x40], "partition, queue and history; no page, no extent");
    assert_eq!(checkpoint.deletes, Vec::<Vec<u8>>::new());
    assert_eq!(checkpoint.dead_entries, [2, 3, 4, 5]);
    assert!(host.log.is_empty());
}

#[test]
fn entries_that_died_before_a_restart_are_found_in_the_log() {
    let mut host = Host::with(&settings());
    host.reader(1, 0, 10);
    (0..3).for_each(|n| drop(host.publish_all(n..n + 1)));
    host.deliver();
    assert!(host.confirm(1, 1));
    // What it says of dead entries gets lost with the process.
    let lost = host.partition.take_checkpoint();
    host.store.extend(lost.puts);
    let stored: Vec<Index> = host.log.keys().copied().collect();
    assert_eq!(host.partition.forgotten(&stored), lost.dead_entries);
    host.restart();
    assert_eq!(host.partition.forgotten(&stored), lost.dead_entries);
    assert_eq!(stored.len(), lost.dead_entries.len() + 2, "two messages wait");
    for index in host.partition.forgotten(&stored) {
        host.log.remove(&index);
    }
    host.reader(2, 0, 10);
    assert_eq!(host.deliver().len(), 2);
}

#[test]
fn golden_bytes_of_the_records_of_a_small_queue() {
    let mut host = Host::with(&QueueSettings { max_delivery_attempts: 3, ..settings() });
    host.publish_all(0..3);
    let item = AttemptItem { queue: QUEUE, app: AppKey::DEFAULT, positions: vec![1] };
    host.builder.attempt(&item);
    host.builder.confirm(ConfirmItem { queue: QUEUE, app: AppKey::DEFAULT, position: 0 });
    host.commit();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let records: Vec<String> = host
        .partition
        .records()
        .iter()
        .map(|(key, value)| format!("{} {}", hex(key), hex(value)))
        .collect();
    let none = "ffffffffffffffffff01".repeat(4);
    let expected = [
        "01 0103c0843d00".to_owned(),
        format!("1000000001 0109{}0301010000010000e0a71203{none}000001", hex(b"bmq://d/q")),
        format!("2000000001{}{} {}", "0".repeat(8), "0".repeat(16), "01".repeat(8)),
        format!("3000000001{} 0102c0843d07030002", "0".repeat(16)),
        format!("4000000001070707070707{} 010003e8078080800200", "0".repeat(16))
            + &"030002".repeat(2),
    ];
    assert_eq!(records, expected);
}

#[test]
fn an_old_message_pins_its_own_entry_only() {
    let mut host = Host::with(&settings());
    host.publish_all(0..1);
    host.checkpoint();
    host.reader(1, 0, 10);
    for n in 1..100 {
        host.publish_all(n..n + 1);
        host.deliver();
        host.confirm(1, n);
    }
    host.checkpoint();
    assert_eq!(host.log.keys().copied().collect::<Vec<_>>(), [2]);
    assert!(host.store.len() < 8, "{}", host.store.len());
    host.restart();
    host.reader(1, 0, 10);
    assert_eq!(host.sent(), ["1:m0"]);
    assert!(host.confirm(1, 0), "position known again");
    assert_eq!(host.publish_all(99..100), [Outcome::Duplicate], "history known again");
}

#[test]
fn a_deleted_queue_leaves_nothing_in_the_store() {
    let mut host = Host::with(&settings());
    host.publish_all(0..600);
    host.checkpoint();
    assert!(host.store.len() > 4);
    host.builder.delete_queue(QUEUE);
    host.commit();
    host.checkpoint();
    assert_eq!(host.store.keys().collect::<Vec<_>>(), [&[1]]);
    assert!(host.log.is_empty());
}

#[test]
fn records_that_do_not_fit_together_are_refused() {
    let mut host = Host::with(&settings());
    host.publish_all(0..3);
    host.checkpoint();
    for missing in host.store.keys().filter(|key| matches!(key[0], 0x10 | 0x20 | 0x30)) {
        let rest = host.store.iter().filter(|(key, _)| *key != missing);
        assert!(Partition::restore(rest).is_err(), "{missing:?}");
    }
}

#[test]
fn messages_of_different_sizes_are_counted_after_a_restart() {
    let mut host = Host::with(&settings());
    for n in 0..200 {
        host.publish(guid(n), &vec![b'x'; n as usize]);
    }
    host.commit();
    host.reader(1, 0, 100);
    host.deliver();
    (0..100).step_by(3).for_each(|n| assert!(host.confirm(1, n)));
    let before = (host.view().messages, host.view().bytes, host.view().apps[0].bytes);
    host.checkpoint();
    host.restart();
    let after = (host.view().messages, host.view().bytes, host.view().apps[0].bytes);
    assert_eq!(before, after);
}

proptest! {
    /// Damaged records are refused, or make a state that works; they never panic.
    #[test]
    fn damaged_records_do_no_harm(
        which: prop::sample::Index, at: prop::sample::Index, byte: u8, cut: bool, in_key: bool,
    ) {
        let mut host = Host::with(&QueueSettings { max_delivery_attempts: 3, ..settings() });
        host.publish_all(0..300);
        host.publish(guid(1000), b"of another size");
        host.publish_all(301..310);
        let positions = vec![7, 3, 305];
        host.builder.attempt(&AttemptItem { queue: QUEUE, app: AppKey::DEFAULT, positions });
        host.builder.confirm(ConfirmItem { queue: QUEUE, app: AppKey::DEFAULT, position: 9 });
        host.publish(guid(5), b"");
        host.commit();
        let mut records = host.partition.records();
        let (key, value) = &mut records[which.index(host.partition.records().len())];
        let bytes = if in_key { key } else { value };
        if cut {
            bytes.truncate(at.index(bytes.len()));
        } else {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        records.sort_unstable();
        let Ok(mut partition) = Partition::restore(records) else { return Ok(()) };
        partition.lead();
        let from = partition.applied();
        let mut builder = EntryBuilder::default();
        let message = Message {
            guid: guid(2000),
            attributes: Attributes::default(),
            app_data: bytes::Bytes::from_static(b"next"),
        };
        builder.publish(QUEUE, message).unwrap();
        builder.expire(ExpireItem { queue: QUEUE, up_to: 100 });
        builder.confirm(ConfirmItem { queue: QUEUE, app: AppKey::DEFAULT, position: 200 });
        let payload = builder.finish(2_000_000).payload;
        let index = from.saturating_add(1);
        if partition.apply(index, &payload, &mut Applied::default()).is_ok() {
            partition.take_checkpoint();
            partition.expire(u64::MAX, u64::MAX);
            let again = Partition::restore(partition.records()).unwrap();
            prop_assert_eq!(again.records(), partition.records());
        }
    }
}
