//! Somebody with a good certificate who does not keep to the protocol: refused, or cut off, and the
//! node goes on.

#![allow(clippy::unwrap_used)]

mod nodes;

use std::sync::Arc;

use flintmq_transport::{CertificateFiles, NodeId, certificate_name};
use nodes::{Cluster, PATIENCE, Running, introduce, speak, until, up};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::timeout;

/// A raw connection to the first node, with these files and nothing said yet.
async fn dial(node: &Running, files: &CertificateFiles) -> (Endpoint, Connection) {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.authority).unwrap()).unwrap();
    let mut tls =
        rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(&files.certificate).unwrap()],
                PrivateKeyDer::from_pem_file(&files.key).unwrap(),
            )
            .unwrap();
    tls.alpn_protocols = vec![b"flintmq-node".to_vec()];
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let name = certificate_name("test", NodeId(1));
    let connection = endpoint.connect_with(config, node.address, &name).unwrap().await.unwrap();
    (endpoint, connection)
}

/// A greeting to the first node, and the code of its answer: 0 for a welcome.
async fn greet(connection: &Connection, from: u32, incarnation: u64) -> u8 {
    let mut body = b"FMQN\x01\x00\x01\x00".to_vec();
    body.extend_from_slice(&incarnation.to_le_bytes());
    body.extend_from_slice(&from.to_le_bytes());
    body.extend_from_slice(&1_u32.to_le_bytes());
    body.extend_from_slice(b"\x04test");
    let (mut stream, mut answer) = connection.open_bi().await.unwrap();
    stream.write_all(&(body.len() as u16).to_le_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    let mut head = [0; 7];
    answer.read_exact(&mut head).await.unwrap();
    head[6]
}

/// A node, its cluster, and files of the second node, which the first one knows as a peer.
async fn victim() -> (Cluster, Running, CertificateFiles) {
    let cluster = Cluster::new();
    let one = cluster.start(1, 1).await;
    let files = cluster.quic(2).certificates;
    assert!(one.transport.add_peer(NodeId(2), "127.0.0.1:9"));
    assert!(one.transport.add_peer(NodeId(3), "127.0.0.1:9"));
    (cluster, one, files)
}

async fn closed(connection: &Connection) -> ConnectionError {
    timeout(PATIENCE, connection.closed()).await.expect("the connection lives")
}

#[tokio::test]
async fn a_certificate_is_of_no_use_for_another_nodes_number() {
    let (_cluster, one, files) = victim().await;
    let (_endpoint, connection) = dial(&one, &files).await;
    const IDENTITY: u8 = 4;
    assert_eq!(greet(&connection, 3, 1).await, IDENTITY);
    let reason = closed(&connection).await.to_string();
    assert!(reason.contains("node-3.test.flintmq"), "{reason}");
    assert!(one.transport.peers().iter().all(|peer| peer.connection.is_none()));
}

#[tokio::test]
async fn streams_that_cannot_be_understood_end_the_connection_and_nothing_else() {
    let (cluster, mut one, files) = victim().await;
    let unknown_class = vec![9, 0, 0, 0, 0];
    let unknown_shard = vec![2, 0, 0, 1, 0];
    let endless_frame = [vec![2, 0, 0, 0, 0], vec![0xFF; 4]].concat();
    let short_frame = [vec![2, 0, 0, 0, 0], vec![10, 0, 0, 0, 1]].concat();
    let bad = [unknown_class, unknown_shard, endless_frame, short_frame];
    for (round, bytes) in bad.iter().enumerate() {
        // While the node dials by itself, it wants to go first.
        let (_endpoint, connection) = loop {
            let dialed = dial(&one, &files).await;
            if greet(&dialed.1, 2, round as u64 + 1).await == 0 {
                break dialed;
            }
        };
        up(&mut one).await;
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.finish().unwrap();
        let ConnectionError::ApplicationClosed(close) = closed(&connection).await else {
            panic!("round {round}")
        };
        assert_eq!(u64::from(close.error_code), 32, "round {round}");
    }
    // Somebody who behaves is let in afterwards.
    let mut two = cluster.start(2, 99).await;
    introduce(&two, &one, 1);
    up(&mut two).await;
    speak(&mut one, &mut two, 5).await;
}

#[tokio::test]
async fn whoever_says_nothing_is_cut_off() {
    let (_cluster, one, files) = victim().await;
    let (_endpoint, connection) = dial(&one, &files).await;
    closed(&connection).await;
    until("the node goes on", || one.transport.peers().len() == 2).await;
}
