//! Fear: `tls://` is not TLS, or does not carry what `tcp://` does.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use flintmq_system_tests::broker_process::{Broker, run_flintmq};
use flintmq_system_tests::history::{Expectations, History};
use flintmq_system_tests::json_session;
use flintmq_system_tests::python::PythonClient;
use flintmq_system_tests::wait::LIMIT;

const URI: &str = "bmq://bmq.test/secure";

fn tunnel(broker: &Broker, arguments: &[&str]) -> (PythonClient, String) {
    let ca = broker.certificates().join("ca.pem").display().to_string();
    let port = broker.tls_port().to_string();
    let mut all = vec!["--port", &port, "--ca", &ca];
    all.extend(arguments);
    let tunnel = PythonClient::run("tls_tunnel.py", &broker.url(), "tunnel", &all);
    let port = tunnel.wait_until("the tunnel to listen", |report| {
        report.named("listening").next().and_then(|event| event.facts["port"].as_u64())
    });
    (tunnel, format!("tcp://127.0.0.1:{port}"))
}

#[test]
fn the_official_client_through_tls() {
    let broker = Broker::builder().tls().start();
    let mut history = History::default();
    let (tunnel, url) = tunnel(&broker, &[]);
    let arguments = ["--uri", URI, "--count", "2000", "--size", "5000", "--properties"];
    let produced = PythonClient::run("produce.py", &url, "p", &arguments).finish();
    assert_eq!(produced.acknowledged_with("SUCCESS").len(), 2000);
    let arguments = ["--uri", URI, "--count", "2000", "--properties"];
    let consumed = PythonClient::run("consume.py", &url, "c", &arguments).finish();
    assert_eq!(consumed.ids("delivered"), produced.ids("sent"));
    history.add_report("p", &produced);
    history.add_report("c", &consumed);
    history.assert_kept(Expectations::ONE_BROKER);
    let report = tunnel.stop();
    assert!(report.named("carrying").all(|event| event.text("version") == "TLSv1.3"));
}

#[test]
fn the_certificate_is_for_its_names_only() {
    let broker = Broker::builder().tls().start();
    let (tunnel, url) = tunnel(&broker, &["--host", "another.example"]);
    drop(TcpStream::connect(url.trim_start_matches("tcp://")).expect("the tunnel listens"));
    tunnel.wait_for("refused", 1);
}

#[test]
fn plain_bytes_at_the_tls_port() {
    let mut broker = Broker::builder().tls().start();
    let mut stream = TcpStream::connect(("127.0.0.1", broker.tls_port())).expect("connected");
    stream.set_read_timeout(Some(LIMIT)).expect("a time limit");
    stream.write_all(&json_session::control(&json_session::identity())).expect("sent");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    assert!(!text.contains("brokerResponse"), "served without TLS: {text}");
    broker.assert_running();
}

#[test]
fn the_command_line_checks_the_certificate() {
    let broker = Broker::builder().tls().start();
    let url = broker.tls_url();
    let ca = broker.certificates().join("ca.pem").display().to_string();
    let good = ["produce", URI, "--broker", &url, "--ca", &ca, "--count", "10", "--size", "100"];
    let (code, _, said) = run_flintmq(broker.folder(), &good, b"");
    assert_eq!(code, 0, "{said}");
    assert_eq!(broker.admin().backlog("bmq.test/secure"), 10);
    let stranger = Broker::builder().tls().prepare();
    let ca = stranger.certificates().join("ca.pem").display().to_string();
    let bad = ["produce", URI, "--broker", &url, "--ca", &ca, "--count", "1", "--size", "100"];
    let (code, _, said) = run_flintmq(broker.folder(), &bad, b"");
    assert_eq!(code, 1, "{said}");
    assert!(said.to_lowercase().contains("certificate"), "{said}");
    assert_eq!(broker.admin().backlog("bmq.test/secure"), 10);
}

#[test]
fn a_handshake_that_never_ends() {
    let broker = Broker::builder().tls().setting("limits.negotiation_timeout = \"1s\"").start();
    let mut stream = TcpStream::connect(("127.0.0.1", broker.tls_port())).expect("connected");
    stream.set_read_timeout(Some(LIMIT)).expect("a time limit");
    // The first bytes of a TLS record, and no more.
    stream.write_all(&[22, 3, 1, 2, 0, 1]).expect("sent");
    let mut answer = Vec::new();
    let closed = stream.read_to_end(&mut answer);
    let reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
    assert!(closed.as_ref().map_or_else(reset, |_| true), "the broker waits for ever: {closed:?}");
}
