//! Fear: `produce` and `consume` cannot be stopped while the broker is away: a script hangs, or the
//! service manager kills them.

use std::process::{Child, Command, Stdio};

use flintmq_system_tests::broker_process::Broker;
use flintmq_system_tests::programs;
use flintmq_system_tests::wait::until;
use rustix::process::{Pid, Signal, kill_process};

const URI: &str = "bmq://bmq.test/stopped";
const QUEUE: &str = "bmq.test/stopped";

fn flintmq(broker: &Broker, arguments: &[&str]) -> Child {
    Command::new(programs::flintmq())
        .args(arguments)
        .args(["--broker", &broker.url(), URI])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("flintmq runs")
}

/// Sends one signal, and gives the exit code and what was said.
#[track_caller]
fn ends_on(mut program: Child, signal: Signal) -> (Option<i32>, String) {
    kill_process(Pid::from_child(&program), signal).expect("the signal is sent");
    until("the program to end on its first signal", || program.try_wait().expect("a child"));
    let output = program.wait_with_output().expect("the program is gone");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Whether a client has sent what the broker has not read: nothing of it can be acknowledged.
fn has_unread(broker: &Broker) -> bool {
    let port = broker.port();
    let sockets = std::fs::read_to_string("/proc/net/tcp").expect("sockets are listed");
    sockets.lines().skip(1).any(|line| {
        // Number, local address, remote address, state, bytes not sent and not read.
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, queues) = (fields[1], fields[3], fields[4]);
        let is_connection = local.ends_with(&format!(":{port:04X}")) && state == "01";
        is_connection && !queues.ends_with(":00000000")
    })
}

#[test]
fn a_producer_ends_and_tells_what_is_not_known_to_be_stored() {
    for (signal, dead) in [(Signal::TERM, false), (Signal::INT, false), (Signal::TERM, true)] {
        let mut broker = Broker::start();
        // More than may wait for their acknowledgement: it waits for the broker when it is asked.
        let producer = flintmq(&broker, &["produce", "--count", "1000000", "--in-flight", "50"]);
        let admin = broker.admin();
        until("messages to flow", || (admin.backlog(QUEUE) > 100).then_some(()));
        broker.pause();
        until("messages that the broker does not read", || has_unread(&broker).then_some(()));
        if dead {
            broker.kill();
        }
        let (code, said) = ends_on(producer, signal);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("not known to be stored"), "{said}");
        if !dead {
            broker.resume();
        }
    }
}

#[test]
fn a_consumer_does_not_wait_for_the_answer_to_its_goodbye() {
    for signal in [Signal::TERM, Signal::INT] {
        let broker = Broker::start();
        let consumer = flintmq(&broker, &["consume", "--follow"]);
        let admin = broker.admin();
        let consumers = || admin.queue(QUEUE).map(|queue| queue["apps"][0]["consumers"] == 1);
        until("the consumer to be there", || (consumers() == Some(true)).then_some(()));
        broker.pause();
        let (code, said) = ends_on(consumer, signal);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("left without a goodbye"), "{said}");
        broker.resume();
    }
}
