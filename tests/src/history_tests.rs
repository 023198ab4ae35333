//! The checker against histories that are broken on purpose, and against ones that are not.

use proptest::prelude::*;

use super::*;

const DRAINED: Expectations = Expectations::ONE_BROKER;

/// Builds a history from lines such as `c delivered p:1`.
fn history(text: &str) -> History {
    let mut history = History::default();
    for (at, line) in text.lines().map(str::trim).filter(|line| !line.is_empty()).enumerate() {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (client, what, id, guid) = (word(), word(), word(), word());
        let what = match what.as_str() {
            "sent" => What::Sent(id),
            "acknowledged" => What::Acknowledged(id),
            "refused" => What::Refused(id),
            "delivered" => {
                let guid = if guid.is_empty() { format!("guid of {id}") } else { guid };
                What::Delivered { id, guid, intact: true }
            }
            "damaged" => What::Delivered { guid: format!("guid of {id}"), id, intact: false },
            "confirmed" => What::Confirmed(id),
            "not-confirmed" => What::NotConfirmed(id),
            "interrupted" => What::Interrupted,
            "ended" => What::Ended,
            "died" => What::Died,
            other => panic!("no such record: {other}"),
        };
        history.add(at as u64, &client, what);
    }
    history
}

#[track_caller]
fn finds(text: &str, expected: &[Violation]) {
    assert_eq!(history(text).check(DRAINED), expected);
}

#[test]
fn a_proper_history_passes() {
    finds(
        "p sent p:1
         p sent p:2
         p acknowledged p:1
         p acknowledged p:2
         c delivered p:1
         c confirmed p:1
         c delivered p:2
         c ended
         d delivered p:2
         d confirmed p:2
         d ended
         p ended",
        &[],
    );
}

#[test]
fn a_lost_message_is_found_once_the_queue_is_drained() {
    let text = "p sent p:1
                p acknowledged p:1";
    finds(text, &[Violation::Lost("p:1".to_owned())]);
    let not_drained = Expectations { drained: false, ..DRAINED };
    assert!(history(text).check(not_drained).is_empty());
}

#[test]
fn a_message_without_acknowledgement_may_be_lost() {
    finds("p sent p:1", &[]);
}

#[test]
fn an_invented_message_is_found() {
    finds("c delivered p:1", &[Violation::Invented("p:1".to_owned())]);
}

#[test]
fn a_damaged_message_is_found() {
    finds("p sent p:1\n c damaged p:1", &[Violation::Damaged("p:1".to_owned())]);
}

#[test]
fn a_refused_message_must_not_be_delivered() {
    finds(
        "p sent p:1\n p refused p:1\n c delivered p:1",
        &[Violation::RefusedButDelivered("p:1".to_owned())],
    );
}

#[test]
fn a_message_under_two_guids_was_stored_twice() {
    finds(
        "p sent p:1\n c delivered p:1 a\n d delivered p:1 b",
        &[Violation::StoredTwice("p:1".to_owned())],
    );
}

#[test]
fn a_wrong_order_of_first_deliveries_is_found() {
    let text = "p sent p:1
                p sent p:2
                c delivered p:2
                c delivered p:1";
    let late = Violation::OutOfOrder { id: "p:1".to_owned(), after: "p:2".to_owned() };
    finds(text, &[late]);
    let unordered = Expectations { ordered: false, ..DRAINED };
    assert!(history(text).check(unordered).is_empty());
}

#[test]
fn redelivery_is_not_held_against_the_order() {
    finds(
        "p sent p:1
         p sent p:2
         c delivered p:1
         c delivered p:2
         c interrupted
         c delivered p:1
         c delivered p:2",
        &[],
    );
}

#[test]
fn order_is_asked_of_each_consumer_alone() {
    finds(
        "p sent p:1
         p sent p:2
         c delivered p:2
         d delivered p:1",
        &[],
    );
}

#[test]
fn a_settled_confirm_is_final() {
    finds(
        "p sent p:1
         c delivered p:1
         c confirmed p:1
         c ended
         d delivered p:1",
        &[Violation::CameBack("p:1".to_owned())],
    );
}

#[test]
fn a_confirm_that_was_on_its_way_may_be_lost() {
    for lost in ["c died", "c interrupted\n c ended"] {
        finds(
            &format!(
                "p sent p:1
                 c delivered p:1
                 c confirmed p:1
                 {lost}
                 d delivered p:1"
            ),
            &[],
        );
    }
}

#[test]
fn a_confirm_that_was_not_sent_counts_for_nothing() {
    let text = "p sent p:1
                c delivered p:1
                c confirmed p:1
                c not-confirmed p:1
                c ended";
    finds(&format!("{text}\n d delivered p:1"), &[]);
    finds(text, &[Violation::Abandoned("p:1".to_owned())]);
}

#[test]
fn a_repetition_over_one_connection_is_found() {
    let text = "p sent p:1
                c delivered p:1
                c confirmed p:1
                c delivered p:1";
    finds(text, &[Violation::Repeated("p:1".to_owned())]);
}

#[test]
fn an_abandoned_message_is_found() {
    for gone in ["c ended", "c died"] {
        finds(
            &format!("p sent p:1\n c delivered p:1\n {gone}"),
            &[Violation::Abandoned("p:1".to_owned())],
        );
    }
}

#[test]
fn records_are_looked_at_by_time() {
    let mut history = History::default();
    history.add(30, "d", What::Delivered { id: "p:1".into(), guid: "g".into(), intact: true });
    history.add(10, "c", What::Delivered { id: "p:1".into(), guid: "g".into(), intact: true });
    history.add(0, "p", What::Sent("p:1".into()));
    history.add(11, "c", What::Confirmed("p:1".into()));
    history.add(12, "c", What::Ended);
    assert_eq!(history.check(DRAINED), [Violation::CameBack("p:1".to_owned())]);
}

/// Adds records of one client each, at times in nanoseconds.
fn timed(records: Vec<(u64, &str, What)>) -> History {
    let mut history = History::default();
    for (at, client, what) in records {
        history.add(at, client, what);
    }
    history
}

fn delivered() -> What {
    What::Delivered { id: "p:1".into(), guid: "g".into(), intact: true }
}

fn confirmed() -> What {
    What::Confirmed("p:1".into())
}

#[test]
fn what_is_unconfirmed_comes_again_when_the_leader_changes() {
    let text = "p sent p:1
                c delivered p:1
                c delivered p:1
                c confirmed p:1
                c ended";
    assert_eq!(history(text).check(Expectations::CLUSTER), []);
    finds(text, &[Violation::Repeated("p:1".to_owned())]);
}

#[test]
fn a_cluster_is_held_to_the_other_promises_as_well() {
    let one = |text: &str| history(text).check(Expectations::CLUSTER);
    let id = || "p:1".to_owned();
    let stored = "p sent p:1\n p acknowledged p:1";
    assert_eq!(one(stored), [Violation::Lost(id())]);
    assert_eq!(one("c delivered p:1"), [Violation::Invented(id())]);
    assert_eq!(one("p sent p:1\n c damaged p:1"), [Violation::Damaged(id())]);
    let twice = format!("{stored}\n c delivered p:1 a\n c delivered p:1 b");
    assert_eq!(one(&twice), [Violation::StoredTwice(id())]);
    let back = format!("{stored}\n c delivered p:1\n c confirmed p:1\n c ended\n d delivered p:1");
    assert_eq!(one(&back), [Violation::CameBack(id())]);
    let left = format!("{stored}\n c delivered p:1\n c died");
    assert_eq!(one(&left), [Violation::Abandoned(id())]);
    let late = Violation::OutOfOrder { id: id(), after: "p:2".to_owned() };
    assert_eq!(one("p sent p:1\n p sent p:2\n c delivered p:2\n c delivered p:1"), [late]);
}

#[test]
fn a_confirm_of_long_ago_is_final_while_the_connection_stands() {
    let sent = (0, "p", What::Sent("p:1".into()));
    let begun = vec![sent, (10, "c", delivered()), (20, "c", confirmed())];
    let retaken = [Violation::Retaken("p:1".to_owned())];
    for again in ["c", "d"] {
        let after = |late: u64, between: Option<What>| {
            let mut records = begun.clone();
            records.extend(between.map(|what| (30, "c", what)));
            records.push((20 + CONFIRM_TRAVEL + late, again, delivered()));
            timed(records).check(Expectations { drained: false, ..Expectations::CLUSTER })
        };
        assert_eq!(after(1, None), retaken, "to {again}");
        assert_eq!(after(0, None), [], "it may have been on its way");
        assert_eq!(after(1, Some(What::Interrupted)), [], "it may have been lost on its way");
        assert_eq!(after(1, Some(What::Died)), [], "the same");
        assert_eq!(after(1, Some(What::NotConfirmed("p:1".into()))), [], "it was never sent");
    }
}

/// A history of a queue that keeps every promise: `count` messages, and after each delivery a coin
/// decides whether it is confirmed, or the consumer goes and another one gets what it held.
fn kept(count: u64, coins: &[bool]) -> History {
    let mut history = History::default();
    let mut at = 0;
    let mut add = |client: &str, what: What| {
        history.add(at, client, what);
        at += 1;
    };
    for sequence in 0..count {
        add("p", What::Sent(format!("p:{sequence}")));
        add("p", What::Acknowledged(format!("p:{sequence}")));
    }
    let mut consumer = 0;
    let mut coins = coins.iter();
    for sequence in 0..count {
        loop {
            let id = format!("p:{sequence}");
            let name = format!("c{consumer}");
            let guid = format!("guid {sequence}");
            add(&name, What::Delivered { id: id.clone(), guid, intact: true });
            if coins.next().is_none_or(|confirm| *confirm) {
                add(&name, What::Confirmed(id));
                break;
            }
            add(&name, What::Ended);
            consumer += 1;
        }
    }
    add(&format!("c{consumer}"), What::Ended);
    history
}

proptest! {
    /// No history of a queue that keeps its promises is held against it.
    #[test]
    fn kept_promises_pass(count in 1u64..30, coins in prop::collection::vec(any::<bool>(), 0..60)) {
        prop_assert_eq!(kept(count, &coins).check(DRAINED), []);
    }

    /// Taking all deliveries of one message away is found as the loss of that message alone.
    #[test]
    fn a_removed_message_is_found(
        count in 1u64..30,
        coins in prop::collection::vec(any::<bool>(), 0..60),
        pick in any::<prop::sample::Index>(),
    ) {
        let mut history = kept(count, &coins);
        let lost = format!("p:{}", pick.index(usize::try_from(count).expect("small")));
        history.records.retain(|record| match &record.what {
            What::Delivered { id, .. } | What::Confirmed(id) => *id != lost,
            _ => true,
        });
        prop_assert_eq!(history.check(DRAINED), [Violation::Lost(lost)]);
    }

    /// Delivering one message once more after the end is found as that message coming back.
    #[test]
    fn an_added_delivery_is_found(
        count in 1u64..30,
        coins in prop::collection::vec(any::<bool>(), 0..60),
        pick in any::<prop::sample::Index>(),
    ) {
        let mut history = kept(count, &coins);
        let number = pick.index(usize::try_from(count).expect("small"));
        let (id, guid) = (format!("p:{number}"), format!("guid {number}"));
        history.add(u64::MAX, "late", What::Delivered { id: id.clone(), guid, intact: true });
        prop_assert_eq!(history.check(DRAINED), [Violation::CameBack(id)]);
    }
}
