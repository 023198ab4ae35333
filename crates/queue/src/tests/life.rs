//! What happens to messages and queues: duplicates, limits, TTL, purge, poison, apps.

use super::setup::*;
use crate::*;

#[test]
fn a_guid_is_stored_once_within_the_window_even_after_its_confirm() {
    let mut host = Host::with(DomainSettings { dedup_window_ms: 1000, ..settings() });
    host.reader(1, 0, 10);
    assert_eq!(host.publish_all(5..6), [Outcome::Stored { position: 0 }]);
    host.deliver();
    assert!(host.confirm(1, 5));
    assert_eq!(host.partition.admit(QUEUE, guid(5), 1), Admission::Duplicate);
    assert_eq!(host.publish_all(5..6), [Outcome::Duplicate]);
    host.now_ms += 20_000;
    host.commit();
    assert_eq!(host.publish_all(5..6), [Outcome::Stored { position: 1 }]);
}

#[test]
fn a_purge_keeps_the_history() {
    let mut host = Host::with(settings());
    host.publish_all(0..3);
    host.builder.purge(QUEUE, None);
    host.commit();
    let effect = Effect::Purged { queue: QUEUE, app: None, messages: 3, bytes: 6 };
    assert_eq!(host.applied.effects, [effect]);
    assert_eq!(host.publish_all(1..2), [Outcome::Duplicate]);
}

#[test]
fn a_limit_of_two_admits_three_and_a_refused_message_may_come_again() {
    let limits = Limits { messages: 2, bytes: u64::MAX };
    let mut host = Host::with(DomainSettings { queue_limits: limits, ..settings() });
    let outcomes = host.publish_all(0..4);
    assert_eq!(outcomes[2..], [Outcome::Stored { position: 2 }, Outcome::RefusedMessages]);
    assert_eq!(host.partition.admit(QUEUE, guid(3), 1), Admission::RefusedMessages);
    host.reader(1, 0, 10);
    host.deliver();
    host.confirm(1, 0);
    assert_eq!(host.publish_all(3..4), [Outcome::Stored { position: 4 }]);
}

#[test]
fn the_byte_limit_counts_what_waits_and_the_domain_counts_all_its_queues() {
    let domain_limits = Limits { messages: u64::MAX, bytes: 3 };
    let mut host = Host::with(DomainSettings { domain_limits, ..settings() });
    host.builder.create_queue(QueueId(2), "bmq://d/other", QueueDomain::Known(DOMAIN));
    host.publish_all(0..2);
    assert_eq!(host.partition.admit(QueueId(2), guid(9), 1), Admission::RefusedBytes);
    host.builder.delete_queue(QUEUE);
    host.commit();
    assert_eq!(host.partition.admit(QueueId(2), guid(9), 1), Admission::Admit);
    assert_eq!(host.partition.admit(QUEUE, guid(9), 1), Admission::UnknownQueue);
}

#[test]
fn messages_expire_strictly_after_their_ttl_oldest_first_in_flight_or_not() {
    let mut host = Host::with(DomainSettings { message_ttl_ms: 100, ..settings() });
    host.reader(1, 0, 1);
    let start = host.now_ms;
    host.publish_all(0..2);
    host.now_ms += 10;
    host.publish_all(2..3);
    assert_eq!(host.sent(), ["1:m0"]);
    assert_eq!(host.partition.next_expiry(), Some(start + 101));
    assert_eq!(host.partition.expire(start + 100, 100), []);
    let items = host.partition.expire(start + 101, 100);
    assert_eq!(items, [ExpireItem { queue: QUEUE, up_to: 1 }]);
    assert_eq!(host.partition.expire(start + 101, 100), [], "found once");
    assert_eq!(host.partition.next_expiry(), Some(start + 111));
    items.into_iter().for_each(|item| host.builder.expire(item));
    host.commit();
    assert_eq!(host.applied.effects, [Effect::Expired { queue: QUEUE, messages: 2, bytes: 4 }]);
    assert_eq!((host.view().messages, host.view().bytes), (1, 2));
    assert!(!host.sent().contains(&"1:m1".to_owned()));
}

#[test]
fn a_message_that_kills_its_consumers_is_removed_at_the_limit() {
    let mut host = Host::with(DomainSettings { max_delivery_attempts: 2, ..settings() });
    host.publish_all(0..2);
    host.reader(1, 0, 10);
    let sent = host.deliver();
    assert_eq!(sent[0].attempts_left, Some(2));
    host.confirm(1, 1);
    let item = host.partition.lost(HandleId(1)).unwrap().unwrap();
    assert_eq!(item.positions, [0]);
    host.reader(2, 0, 10);
    assert!(host.deliver().is_empty(), "not before the failed delivery was counted");
    host.builder.attempt(&item);
    host.commit();
    let sent = host.deliver();
    assert_eq!((sent[0].attempts_left, sent[0].redelivered), (Some(1), true));
    let item = host.partition.lost(HandleId(2)).unwrap().unwrap();
    host.builder.attempt(&item);
    host.commit();
    assert!(matches!(host.applied.effects[..], [Effect::Poisoned { position: 0, .. }]));
    assert_eq!(host.view().messages, 0);
}

#[test]
fn a_new_app_sees_new_messages_only_and_a_removed_one_holds_nothing() {
    let fanout = |apps: &[&str]| DomainSettings {
        mode: Mode::Fanout { apps: apps.iter().map(|&app| app.to_owned()).collect() },
        ..settings()
    };
    let mut host = Host::with(fanout(&["a"]));
    let roles = Roles { reader: true, writer: false };
    let open = |host: &mut Host, handle, app| {
        host.partition.open(HandleId(handle), QUEUE, roles, Some(app)).unwrap();
        host.configure(handle, 0, 10);
    };
    open(&mut host, 1, "a");
    open(&mut host, 2, "b");
    host.publish_all(0..1);
    assert_eq!(host.sent(), ["1:m0"], "an unregistered app gets nothing");
    host.set(2, fanout(&["a", "b"]));
    host.publish_all(1..2);
    assert_eq!(host.sent(), ["1:m1", "2:m1"]);
    assert!(host.confirm(1, 0));
    assert_eq!(host.view().messages, 1, "both still need the second");
    host.set(3, fanout(&["b"]));
    assert_eq!(host.view().messages, 1);
    assert!(!host.confirm(1, 1), "the removed app's confirms are ignored");
    assert!(host.confirm(2, 1));
    assert_eq!(host.view().messages, 0);
    host.set(4, fanout(&["a", "b"]));
    assert_eq!(host.view().apps[1].key, AppKey(2), "a returned app is a new one");
}

#[test]
fn a_broadcast_queue_and_a_second_creation_are_refused_by_name() {
    let mut host = Host::with(settings());
    let settings = DomainSettings { mode: Mode::Broadcast, ..settings() };
    let broadcast = Domain { id: DomainId(2), ..domain(1, settings) };
    host.create(QueueId(2), &broadcast);
    host.builder.create_queue(QUEUE, "bmq://d/q", QueueDomain::Known(DOMAIN));
    host.builder.create_queue(QueueId(3), "bmq://e/q", QueueDomain::Known(DomainId(3)));
    host.commit();
    let refused = |queue, reason| Effect::CreateRefused { queue, reason };
    let expected = [
        refused(QueueId(2), CreateRefusal::UnsupportedMode),
        refused(QUEUE, CreateRefusal::Exists),
        refused(QueueId(3), CreateRefusal::UnknownDomain),
    ];
    assert_eq!(host.applied.effects, expected);
    assert!(host.partition.domain(DomainId(2)).is_none(), "it has no queue");
}

#[test]
fn opening_checks_limits_apps_and_leadership() {
    let limited = DomainSettings { max_consumers: 1, max_producers: 1, ..settings() };
    let mut host = Host::with(limited);
    let (reader, writer) =
        (Roles { reader: true, writer: false }, Roles { reader: false, writer: true });
    let mut open =
        |handle, queue, roles, app| host.partition.open(HandleId(handle), queue, roles, app).err();
    assert_eq!(open(1, QUEUE, reader, None), None);
    assert_eq!(open(1, QUEUE, writer, None), None);
    assert_eq!(open(2, QUEUE, reader, None), Some(OpenError::TooManyConsumers { limit: 1 }));
    assert_eq!(open(2, QUEUE, writer, None), Some(OpenError::TooManyProducers { limit: 1 }));
    assert_eq!(open(2, QUEUE, reader, Some("a")), Some(OpenError::AppNotAllowed));
    let unknown = OpenError::UnknownQueue { queue: QueueId(9) };
    assert_eq!(open(2, QueueId(9), reader, None), Some(unknown));
    assert_eq!(host.view().producers, 1);
    host.partition.release(HandleId(1), reader).unwrap();
    assert_eq!(host.partition.open(HandleId(2), QUEUE, reader, None), Ok(()));
    host.partition.follow();
    let refused = host.partition.open(HandleId(3), QUEUE, reader, None);
    assert_eq!(refused, Err(OpenError::NotLeading));
}

#[test]
fn a_damaged_entry_changes_nothing() {
    let mut host = Host::with(settings());
    host.publish(guid(1), b"one");
    let payload = host.builder.finish(5).payload;
    let cut = payload.slice(..payload.len() - 1);
    let before = host.partition.records();
    let error = host.partition.apply(2, &cut, &mut Applied::default()).unwrap_err();
    assert!(matches!(error, ApplyError::Malformed { index: 2, .. }));
    assert_eq!(host.partition.records(), before);
    let error = host.partition.apply(1, &payload, &mut Applied::default()).unwrap_err();
    assert_eq!(error, ApplyError::OutOfOrder { index: 1, applied: 1 });
}
