//! Measurements that need a release build and minutes: `cargo xtask measure`.
//!
//! Each prints what it measured, and fails where a bound is promised.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flintmq_system_tests::broker_process::{Broker, run_flintmq};
use flintmq_system_tests::json_session::JsonSession;
use flintmq_system_tests::programs;
use flintmq_system_tests::wait::{until, until_within};

const URI: &str = "bmq://bmq.test/measured";
const QUEUE: &str = "bmq.test/measured";
const MIB: u64 = 1 << 20;
const LONG: Duration = Duration::from_secs(1800);

fn start_flintmq(arguments: &[&str], output: Stdio) -> Child {
    Command::new(programs::flintmq())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(Stdio::inherit())
        .spawn()
        .expect("flintmq runs")
}

#[test]
#[ignore = "minutes; run by cargo xtask measure"]
fn million_backlog_restart() {
    let mut broker = Broker::start();
    let url = broker.url();
    let began = Instant::now();
    let arguments = ["produce", URI, "--broker", &url, "--count", "1000000", "--size", "1024"];
    let (code, _, said) = run_flintmq(broker.folder(), &arguments, b"");
    assert_eq!(code, 0, "{said}");
    println!("published 1,000,000 × 1 KiB in {:.1?}", began.elapsed());
    assert_eq!(broker.admin().backlog(QUEUE), 1_000_000);
    println!("disk: {} MiB", broker.disk_bytes() / MIB);

    for how in ["stop", "kill"] {
        if how == "stop" {
            broker.stop();
        } else {
            broker.kill();
        }
        let began = Instant::now();
        broker.restart();
        let took = began.elapsed();
        let memory = broker.resident_bytes();
        println!("after {how}: ready in {took:.2?}, resident memory {} MiB", memory / MIB);
        assert!(took < Duration::from_secs(3), "after {how}: {took:?}");
        assert!(memory < 400 * MIB, "after {how}: {memory} bytes");
        assert_eq!(broker.admin().backlog(QUEUE), 1_000_000);
    }

    // Everything once and in order: the broker's own numbering is the sequence of GUIDs, so the
    // payloads must be those that were sent, which `produce` numbers.
    let output = broker.folder().join("consumed");
    let file = File::create(&output).expect("created");
    let began = Instant::now();
    let arguments = ["consume", URI, "--broker", &url, "--count", "1000000"];
    let status = start_flintmq(&arguments, Stdio::from(file)).wait().expect("a child");
    assert!(status.success());
    println!("consumed in {:.1?}", began.elapsed());
    let peak = broker.peak_resident_bytes();
    println!("peak memory while consuming: {} MiB", peak / MIB);
    let admin = broker.admin();
    until("the confirms", || (admin.backlog(QUEUE) == 0).then_some(()));
    check_numbered(&output, 1_000_000);
}

#[test]
#[ignore = "minutes; run by cargo xtask measure"]
fn five_million_pass_with_one_left() {
    let mut broker = Broker::start();
    let url = broker.url();
    let mut holder = JsonSession::start(&broker);
    holder.open(URI, 0, true, true);
    holder.configure(0, 1, 1);
    holder.put(0, 1, b"the one that stays");
    assert_eq!(holder.acknowledgements()[0].status, 0);
    let kept = holder.deliveries().remove(0);

    let began = Instant::now();
    let mut consumer =
        start_flintmq(&["consume", URI, "--broker", &url, "--count", "5000000"], Stdio::null());
    let mut producer = start_flintmq(
        &["produce", URI, "--broker", &url, "--count", "5000000", "--size", "1024"],
        Stdio::null(),
    );
    let mut most = 0;
    let status = until_within(LONG, "five million messages to pass", || {
        most = most.max(broker.disk_bytes());
        consumer.try_wait().expect("a child")
    });
    assert!(status.success());
    assert!(producer.wait().expect("a child").success());
    let took = began.elapsed();
    println!("5,000,000 × 1 KiB passed in {took:.1?}; most disk on the way: {} MiB", most / MIB);
    let admin = broker.admin();
    until("one message left", || (admin.backlog(QUEUE) == 1).then_some(()));
    assert!(most < 1024 * MIB, "5 GB passed and the disk held {most} bytes at a time");
    println!("resident memory: {} MiB", broker.resident_bytes() / MIB);
    println!("disk when all is quiet: {} MiB", broker.disk_bytes() / MIB);

    broker.kill();
    broker.restart();
    drop(holder);
    let mut reader = JsonSession::start(&broker);
    reader.open(URI, 0, true, false);
    reader.configure(0, 1, 10);
    let again = reader.deliveries();
    assert_eq!((again.len(), &again[0].data, again[0].guid), (1, &kept.data, kept.guid));
}

#[test]
#[ignore = "minutes; run by cargo xtask measure"]
fn throughput_of_one_queue() {
    let broker = Broker::start();
    let pid = broker.process_id().as_raw_nonzero().to_string();
    for (in_flight, rate) in [("256", None), ("256", Some("20000"))] {
        let url = broker.url();
        let mut arguments = vec![
            "bench",
            "--broker",
            &url,
            "--queues",
            "1",
            "--producers",
            "1",
            "--consumers",
            "1",
            "--size",
            "1024",
            "--in-flight",
            in_flight,
            "--duration",
            "15",
            "--broker-pid",
            &pid,
        ];
        if let Some(rate) = rate {
            arguments.extend(["--rate", rate]);
        }
        let (code, out, said) = run_flintmq(broker.folder(), &arguments, b"");
        assert_eq!(code, 0, "{said}");
        println!("in flight {in_flight}, rate {rate:?}:\n{out}");
    }
}

/// `produce --count` fills its messages with a number that counts up; lines of `consume` begin
/// with it.
fn check_numbered(file: &std::path::Path, count: u64) {
    use std::io::{BufRead as _, BufReader};
    let mut expected = None;
    let mut lines = 0u64;
    for line in BufReader::new(File::open(file).expect("opened")).split(b'\n') {
        let line = line.expect("read");
        let text = String::from_utf8_lossy(&line);
        let digits: String = text
            .chars()
            .skip_while(|letter| !letter.is_ascii_digit())
            .take_while(char::is_ascii_digit)
            .collect();
        let number: u64 = digits.parse().unwrap_or_else(|_| panic!("no number in {text:.60?}"));
        assert!(expected.is_none_or(|wanted| wanted == number), "out of order at {number}");
        expected = Some(number + 1);
        lines += 1;
    }
    assert_eq!(lines, count);
}
