//! Fear: after a power loss the end of the log is gone, and the node serves what is left as if
//! nothing had happened, or does not serve at all.

use std::fs;
use std::path::PathBuf;

use flintmq_system_tests::broker_process::Broker;
use flintmq_system_tests::json_session::JsonSession;

const URI: &str = "bmq://bmq.test/power";
const QUEUE: &str = "bmq.test/power";

/// The write-ahead log file that was written last.
fn newest_log(broker: &Broker) -> PathBuf {
    let files = fs::read_dir(broker.data_dir().join("db")).expect("the database's folder");
    let logs = files.filter_map(|file| {
        let path = file.expect("a file").path();
        (path.extension().is_some_and(|kind| kind == "log")).then_some(path)
    });
    logs.max().expect("a write-ahead log")
}

#[test]
fn a_lost_tail_is_told_and_what_is_left_is_served() {
    let mut broker = Broker::start();
    let mut session = JsonSession::start(&broker);
    session.open(URI, 0, true, true);
    for number in 1..=50 {
        session.put(0, number, format!("message {number}").as_bytes());
        assert_eq!(session.acknowledgements()[0].status, 0);
    }
    broker.kill();
    // What a power loss does to writes that were not synced: the file ends earlier.
    let log = newest_log(&broker);
    let length = fs::metadata(&log).expect("the file").len();
    let file = fs::OpenOptions::new().write(true).open(&log).expect("the file");
    file.set_len(length - length / 4).expect("cut");
    drop(file);

    broker.restart();
    broker.wait_for_log(&["acknowledged messages may be missing"]);
    broker.wait_for_log(&["the end of the log may be lost", "history=1"]);
    let left = broker.admin().backlog(QUEUE);
    assert!((1..50).contains(&left), "some are left, in order: {left}");
    let mut session = JsonSession::start(&broker);
    session.open(URI, 0, true, true);
    session.configure(0, 1, 100);
    let mut delivered = Vec::new();
    while (delivered.len() as u64) < left {
        let messages = session.deliveries();
        delivered.extend(messages.into_iter().map(|message| message.data));
    }
    let expected: Vec<Vec<u8>> =
        (1..=left).map(|number| format!("message {number}").into_bytes()).collect();
    assert_eq!(delivered, expected, "the first ones, none missing between them");
    session.put(0, 99, b"life goes on");
    assert_eq!(session.acknowledgements()[0].status, 0);

    // A crash of the process alone loses nothing, and says so.
    broker.kill();
    broker.restart();
    let said = broker.wait_for_log(&["the last stop was not clean", "nothing acknowledged"]);
    assert!(said.contains("WARN"), "{said}");
    assert_eq!(broker.admin().backlog(QUEUE), left + 1);
}
