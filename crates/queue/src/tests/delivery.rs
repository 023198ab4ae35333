//! Who gets which message, and when.

use super::setup::*;
use crate::*;

#[test]
fn equals_take_turns_and_a_full_one_is_passed_over() {
    let mut host = Host::with(settings());
    host.reader(1, 0, 2);
    host.reader(2, 0, 1);
    host.publish_all(0..4);
    assert_eq!(host.sent(), ["1:m0", "2:m1", "1:m2"]);
    host.confirm(1, 0);
    assert_eq!(host.sent(), ["1:m3"]);
}

#[test]
fn count_is_how_many_in_a_row() {
    let mut host = Host::with(settings());
    host.reader(1, 0, 10);
    host.reader(2, 0, 10);
    let two = Subscription { count: 2, ..subscription(2, 0, 10) };
    host.partition.configure(HandleId(2), vec![two]).unwrap();
    host.publish_all(0..6);
    assert_eq!(host.sent(), ["1:m0", "2:m1", "2:m2", "1:m3", "2:m4", "2:m5"]);
}

#[test]
fn lower_priorities_get_nothing_while_a_higher_one_is_there() {
    let mut host = Host::with(settings());
    host.reader(1, 5, 1);
    host.reader(2, 0, 10);
    host.publish_all(0..3);
    assert_eq!(host.sent(), ["1:m0"], "no spilling over");
    host.partition.pause(HandleId(1));
    host.confirm(1, 0);
    assert!(host.sent().is_empty(), "a paused consumer is a full one");
    host.partition.resume(HandleId(1));
    assert_eq!(host.sent(), ["1:m1"]);
    host.configure(1, i32::MIN, 1);
    assert_eq!(host.sent(), ["2:m2"], "the lowest priority takes no part");
}

#[test]
fn bytes_stop_delivery_after_the_message_that_passes_the_limit() {
    let mut host = Host::with(settings());
    host.reader(1, 0, 10);
    let small = Subscription { max_bytes: 3, ..subscription(1, 0, 10) };
    host.partition.configure(HandleId(1), vec![small]).unwrap();
    host.publish_all(0..4);
    assert_eq!(host.sent(), ["1:m0", "1:m1"]);
    host.confirm(1, 0);
    assert_eq!(host.sent(), ["1:m2"]);
    let zero = Subscription { max_bytes: 0, ..subscription(1, 0, 10) };
    host.partition.configure(HandleId(1), vec![zero]).unwrap();
    host.confirm(1, 1);
    host.confirm(1, 2);
    assert!(host.sent().is_empty(), "zero is never");
}

#[test]
fn what_a_closed_consumer_held_comes_first_and_in_its_order() {
    let mut host = Host::with(settings());
    host.publish_all(0..40);
    host.reader(1, 0, 40);
    assert_eq!(host.sent().len(), 40);
    (0..40).step_by(3).for_each(|n| assert!(host.confirm(1, n)));
    host.publish_all(40..41);
    host.partition.close(HandleId(1)).unwrap();
    assert_eq!(host.view().apps[0].redelivery, 26);
    host.reader(2, 0, 100);
    let sent = host.deliver();
    let shown: Vec<_> = sent.iter().map(|d| (d.position, d.redelivered)).collect();
    let again = (0..40).filter(|n| n % 3 != 0).map(|n| (n, true));
    assert_eq!(shown, again.chain([(40, false)]).collect::<Vec<_>>());
}

#[test]
fn reconfiguring_keeps_what_is_outstanding_and_none_stops_delivery() {
    let mut host = Host::with(settings());
    host.reader(1, 0, 2);
    host.publish_all(0..4);
    assert_eq!(host.sent(), ["1:m0", "1:m1"]);
    host.configure(1, 0, 2);
    assert!(host.sent().is_empty(), "the same set changes nothing");
    host.configure(1, 0, 3);
    assert_eq!(host.sent(), ["1:m2"]);
    host.partition.configure(HandleId(1), vec![]).unwrap();
    assert!(host.sent().is_empty());
    assert_eq!(host.view().apps[0].unconfirmed, 3);
    assert!(host.confirm(1, 0));
}

#[test]
fn a_new_leader_offers_everything_again_and_late_confirms_count() {
    let mut host = Host::with(settings());
    host.reader(1, 0, 10);
    host.publish_all(0..3);
    assert_eq!(host.sent().len(), 3);
    host.partition.follow();
    host.partition.lead();
    host.reader(2, 0, 10);
    // The consumer came back under another handle and confirms what it got before.
    let item = host.partition.confirm(HandleId(2), guid(1)).unwrap();
    assert_eq!(item.position, 1);
    assert_eq!(host.partition.confirm(HandleId(2), guid(1)), None, "asked for once");
    assert_eq!(host.sent(), ["2:m0", "2:m2"], "not offered while its confirm is on the way");
    host.builder.confirm(item);
    host.commit();
    assert_eq!(host.view().messages, 2);
    assert_eq!(host.partition.confirm(HandleId(2), guid(77)), None);
}

#[test]
fn what_follows_many_late_confirms_is_read_and_offered() {
    let mut host = Host::with(settings());
    for n in 0..60 {
        host.publish_all(n..n + 1);
    }
    host.partition.follow();
    host.partition.lead();
    host.reader(1, 0, 1);
    assert_eq!(host.sent(), ["1:m0"]);
    // Of what another leader gave it: more entries than are read ahead, all on their way.
    let late: Vec<ConfirmItem> =
        (0..50).map(|n| host.partition.confirm(HandleId(1), guid(n)).unwrap()).collect();
    assert_eq!(host.sent(), ["1:m50"]);
    late.into_iter().for_each(|item| host.builder.confirm(item));
    host.commit();
    assert_eq!(host.view().messages, 10);
}

#[test]
fn two_messages_with_one_guid_are_not_out_together() {
    let mut host = Host::with(DomainSettings { dedup_window_ms: 0, ..settings() });
    host.reader(1, 0, 10);
    host.publish_all(0..1);
    host.now_ms += 20_000;
    host.commit();
    assert_eq!(host.publish_all(0..1), [Outcome::Stored { position: 1 }]);
    assert_eq!(host.sent(), ["1:m0"]);
    assert!(host.confirm(1, 0));
    assert_eq!(host.sent(), ["1:m0"]);
    assert!(host.confirm(1, 0));
    assert_eq!(host.view().messages, 0);
}

#[test]
fn a_backlog_is_read_a_few_entries_at_a_time() {
    let mut host = Host::with(settings());
    for n in 0..100 {
        host.publish_all(n..n + 1);
    }
    host.reader(1, 0, 1000);
    let mut out = Deliveries::default();
    host.partition.deliver(usize::MAX, &mut out);
    assert!(out.messages.is_empty());
    assert_eq!(out.loads, (2..10).collect::<Vec<_>>(), "eight entries, oldest first");
    host.partition.deliver(usize::MAX, &mut out);
    assert_eq!(out.loads.len(), 8, "asked for once");
    for index in std::mem::take(&mut out.loads) {
        host.partition.load_failed(index);
    }
    assert!(host.deliver().is_empty(), "not before somebody says so");
    host.partition.retry_loads();
    assert_eq!(host.deliver().len(), 100);
}

#[test]
fn a_consumer_that_keeps_up_never_waits_for_a_read() {
    let mut host = Host::with(settings());
    host.reader(1, 0, 1000);
    let mut out = Deliveries::default();
    for n in 0..100 {
        host.publish_all(n..n + 1);
        host.partition.deliver(usize::MAX, &mut out);
    }
    assert_eq!((out.messages.len(), out.loads.len()), (100, 0));
}

#[test]
fn an_entry_that_is_not_the_one_applied_is_refused() {
    let mut host = Host::with(settings());
    host.publish_all(0..1);
    host.publish_all(1..3);
    host.reader(1, 0, 10);
    host.partition.deliver(usize::MAX, &mut Deliveries::default());
    let wrong = host.log[&3].clone();
    assert_eq!(host.partition.loaded(2, &wrong), Err(EntryMismatch { index: 2 }));
    assert_eq!(host.partition.loaded(77, &wrong), Ok(()), "nobody asked");
}

#[test]
fn a_budget_bounds_a_round() {
    let mut host = Host::with(settings());
    host.reader(1, 0, 100);
    host.publish_all(0..10);
    let mut out = Deliveries::default();
    assert!(host.partition.deliver(100, &mut out));
    assert_eq!(out.messages.len(), 2);
    assert!(!host.partition.deliver(10_000, &mut out));
    assert_eq!(out.messages.len(), 10);
}
