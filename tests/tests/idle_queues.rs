//! Fear: queues with names that clients made up pile up for ever, or one that is needed is removed.

use std::time::{Duration, Instant};

use flintmq_system_tests::broker_process::Broker;
use flintmq_system_tests::json_session::JsonSession;
use flintmq_system_tests::wait::until;

const UNUSED: &str = "bmq://bmq.test/unused";
const HOLDING: &str = "bmq://bmq.test/holding";
const OPEN: &str = "bmq://bmq.test/open";

#[test]
fn only_an_empty_queue_that_nobody_has_open_goes() {
    let broker = Broker::builder().setting("domains.idle_queue_timeout = \"1s\"").start();
    let admin = broker.admin();
    let mut session = JsonSession::start(&broker);
    for (id, uri) in [(0, UNUSED), (1, HOLDING), (2, OPEN)] {
        session.open(uri, id, true, true);
    }
    session.put(1, 1, b"still here");
    assert_eq!(session.acknowledgements()[0].status, 0);
    session.close(UNUSED, 0, true, true);
    session.close(HOLDING, 1, true, true);
    until("the unused queue to go", || admin.queue("bmq.test/unused").is_none().then_some(()));
    assert_eq!(admin.backlog("bmq.test/holding"), 1);
    assert!(admin.queue("bmq.test/open").is_some());

    // It comes back as a new queue, and works.
    session.open(UNUSED, 3, true, true);
    session.put(3, 2, b"again");
    assert_eq!(session.acknowledgements()[0].status, 0);
    session.configure(3, 7, 10);
    assert_eq!(session.deliveries()[0].data, b"again");
    session.disconnect();
}

#[test]
fn a_queue_that_is_opened_while_it_is_deleted_is_one_queue() {
    let broker = Broker::start();
    let admin = broker.admin();
    let mut writer = JsonSession::start(&broker);
    let mut reader = JsonSession::start(&broker);
    for round in 0..30 {
        let deletion = std::thread::scope(|scope| {
            let deleting = scope.spawn(|| admin.send("DELETE", "/api/v1/queues/bmq.test/open", ""));
            let opened = writer.open(OPEN, round, false, true);
            assert!(opened.get("openQueueResponse").is_some(), "{opened}");
            deleting.join().expect("an answer")
        });
        assert!([200, 404, 409].contains(&deletion.status), "{}", deletion.body);
        let opened = reader.open(OPEN, round, true, false);
        assert!(opened.get("openQueueResponse").is_some(), "{opened}");
        writer.put(round, round + 1, b"x");
        assert_eq!(writer.acknowledgements()[0].status, 0);
        // Were there two queues of one name, the reader would wait at the other for ever.
        reader.configure(round, round + 1, 10);
        let delivered = reader.deliveries();
        reader.confirm(round, delivered[0].guid);
        reader.close(OPEN, round, true, false);
        writer.close(OPEN, round, false, true);
        until("the confirm", || (admin.backlog("bmq.test/open") == 0).then_some(()));
    }
}

#[test]
fn a_use_just_before_the_removal_is_noticed() {
    let broker = Broker::builder().setting("domains.idle_queue_timeout = \"3s\"").start();
    let mut session = JsonSession::start(&broker);
    let uri = |number: u32| format!("bmq://bmq.test/late{number}");
    for number in 0..60 {
        session.open(&uri(number), number, false, true);
        session.close(&uri(number), number, false, true);
    }
    // One after the other is used for a moment, around the time at which all are due to go: some
    // between the broker's last look at its queues and their removal.
    let closed = Instant::now();
    for number in 0..60 {
        let due = Duration::from_millis(2500 + 30 * u64::from(number));
        until("the next use to be due", || (closed.elapsed() >= due).then_some(()));
        session.open(&uri(number), number, false, true);
        session.put(number, number + 1, b"acknowledged");
        assert_eq!(session.acknowledgements()[0].status, 0);
        session.close(&uri(number), number, false, true);
    }
    // The removal has looked at all of them at least twice more.
    until("more than another timeout", || (closed.elapsed().as_secs() >= 8).then_some(()));
    let kept = |number: &u32| broker.admin().backlog(&format!("bmq.test/late{number}")) == 1;
    let lost: Vec<u32> = (0..60).filter(|number| !kept(number)).collect();
    assert_eq!(lost, [] as [u32; 0], "acknowledged and removed");
}
