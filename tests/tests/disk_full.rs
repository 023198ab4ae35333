//! Fear: a full disk damages the log, or leaves a node on which nothing can be freed.

use flintmq_system_tests::broker_process::Broker;
use flintmq_system_tests::json_session::JsonSession;

const URI: &str = "bmq://bmq.test/full";
const QUEUE: &str = "bmq.test/full";
const STORAGE_FAILURE: u8 = 6;

#[test]
fn below_the_reserve_messages_go_out_and_none_come_in() {
    let mut broker = Broker::start();
    let mut session = JsonSession::start(&broker);
    session.open(URI, 0, true, true);
    for number in 1..=5 {
        session.put(0, number, b"from better times");
        assert_eq!(session.acknowledgements()[0].status, 0);
    }
    session.disconnect();
    broker.stop();

    // A reserve that no disk has: the node is below it from the start.
    broker.change_setting("node.disk_reserve = \"1 PiB\"");
    broker.restart();
    let admin = broker.admin();
    let mut session = JsonSession::start(&broker);
    session.open(URI, 0, true, true);
    session.put(0, 9, b"too late");
    let refused = session.acknowledgements();
    assert_eq!((refused[0].correlation, refused[0].status), (9, STORAGE_FAILURE));
    session.configure(0, 1, 3);
    let delivered = session.deliveries();
    assert!(delivered.iter().all(|message| message.data == b"from better times"));
    session.confirm(0, delivered[0].guid);
    flintmq_system_tests::wait::until("the confirm", || (admin.backlog(QUEUE) == 4).then_some(()));
    assert!(admin.get_json("/api/v1/status")["disk"]["state"].to_string().contains("low"));
    session.disconnect();
    admin.must("POST", &format!("/api/v1/queues/{QUEUE}/purge"), "");
    assert_eq!(admin.backlog(QUEUE), 0);
    broker.stop();

    broker.change_setting("node.disk_reserve = \"64 MiB\"");
    broker.restart();
    let mut session = JsonSession::start(&broker);
    session.open(URI, 0, false, true);
    session.put(0, 10, b"again");
    assert_eq!(session.acknowledgements()[0].status, 0, "writes resume");
}
