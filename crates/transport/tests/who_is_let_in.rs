//! Only nodes of this cluster, under their own numbers, are connected; everybody else is told what
//! to do.

#![allow(clippy::unwrap_used)]

mod nodes;

use std::fs;

use flintmq_transport::{
    Authority, BindError, CertificateError, NodeId, QuicSettings, Routes, Settings, Transport,
};
use nodes::{Cluster, Running, introduce, start, until, up};

/// What the first node says about why it is not connected to its only peer.
async fn complaint(node: &Running) -> String {
    let error = || node.transport.peers()[0].last_error.clone();
    until("a complaint", || error().is_some()).await;
    error().unwrap()
}

#[tokio::test]
async fn a_node_with_a_certificate_of_another_authority_is_refused_by_both_sides() {
    let cluster = Cluster::new();
    let other = Cluster::new();
    let one = cluster.start(1, 1).await;
    let two = other.start(2, 1).await;
    introduce(&one, &two, 2);
    let said = complaint(&one).await;
    assert!(said.contains("do not accept each other's certificates"), "{said}");
    assert!(said.contains("node-2.test.flintmq"), "{said}");
    introduce(&two, &one, 1);
    let said = complaint(&two).await;
    assert!(said.contains("do not accept each other's certificates"), "{said}");
    assert!(two.transport.peers()[0].connection.is_none());
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused_under_a_shared_authority() {
    let cluster = Cluster::new();
    let one = cluster.start(1, 1).await;
    let dir = cluster.dir.path().join("other");
    fs::create_dir(&dir).unwrap();
    let files = cluster.authority.write_node(&dir, "other", NodeId(2)).unwrap();
    let quic = QuicSettings::new("127.0.0.1:0".parse().unwrap(), files);
    let two = start(Settings::new("other", NodeId(2), 1), quic).await;
    introduce(&one, &two, 2);
    let said = complaint(&one).await;
    assert!(said.contains("node-2.test.flintmq"), "{said}");
}

#[tokio::test]
async fn a_node_that_answers_at_the_wrong_address_is_not_taken_for_the_peer() {
    let cluster = Cluster::new();
    let one = cluster.start(1, 1).await;
    let three = cluster.start(3, 1).await;
    introduce(&one, &three, 2);
    let said = complaint(&one).await;
    assert!(said.contains("node-2.test.flintmq"), "{said}");
    assert!(one.transport.peers()[0].connection.is_none());
}

#[tokio::test]
async fn a_node_that_is_not_known_is_told_so() {
    let cluster = Cluster::new();
    let one = cluster.start(1, 1).await;
    let two = cluster.start(2, 1).await;
    introduce(&two, &one, 1);
    let said = complaint(&two).await;
    assert!(said.contains("does not know this node"), "{said}");
    // Once it is known, it is let in.
    introduce(&one, &two, 2);
    let mut one = one;
    assert_eq!(up(&mut one).await, (NodeId(2), 1));
}

#[tokio::test]
async fn an_earlier_process_of_a_node_is_refused() {
    let cluster = Cluster::new();
    let mut one = cluster.start(1, 1).await;
    let later = cluster.start(2, 9).await;
    introduce(&one, &later, 2);
    introduce(&later, &one, 1);
    assert_eq!(up(&mut one).await, (NodeId(2), 9));
    let earlier = cluster.start(2, 8).await;
    introduce(&earlier, &one, 1);
    let said = complaint(&earlier).await;
    assert!(said.contains("a later process of this node"), "{said}");
    assert!(one.transport.peers()[0].connection.is_some());
}

#[tokio::test]
async fn the_certificate_of_another_node_does_not_even_start() {
    let cluster = Cluster::new();
    let (routes, _inbound) = Routes::by_class(1);
    let settings = Settings::new("test", NodeId(1), 1);
    let error = Transport::bind(settings, cluster.quic(2), routes).await.unwrap_err();
    assert!(
        matches!(error, BindError::Certificates(CertificateError::OtherNode { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn certificates_are_replaced_without_a_restart() {
    let mut cluster = Cluster::new();
    let mut one = cluster.start(1, 1).await;
    // The cluster moves on to another authority; node 1 does not know yet.
    cluster.authority = Authority::throw_away().unwrap();
    let two_dir = tempfile::TempDir::new().unwrap();
    let files = cluster.authority.write_node(two_dir.path(), "test", NodeId(2)).unwrap();
    let quic = QuicSettings::new("127.0.0.1:0".parse().unwrap(), files);
    let two = start(Settings::new("test", NodeId(2), 1), quic).await;
    introduce(&one, &two, 2);
    introduce(&two, &one, 1);
    let said = complaint(&one).await;
    assert!(said.contains("certificates"), "{said}");

    cluster.authority.write_node(cluster.dir.path(), "test", NodeId(1)).unwrap();
    one.transport.reload_certificates().unwrap();
    assert_eq!(up(&mut one).await, (NodeId(2), 1));

    // Files that are of no use change nothing.
    fs::write(cluster.dir.path().join("node-1.pem"), "nothing").unwrap();
    one.transport.reload_certificates().unwrap_err();
    assert!(one.transport.peers()[0].connection.is_some());
}
