//! TLS: trust, names, client certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flintmq_client::{BrokerAddress, ConnectError, Session, SessionOptions, TlsError, TlsOptions};
use flintmq_protocol::control::{Encoding, NegotiationMessage};
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::broker::{failed, response};

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// An authority, a certificate for `broker.test`, and one for a client.
fn files() -> Files {
    let files = Files { dir: tempfile::tempdir().unwrap() };
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(files.path("ca.pem"), authority.pem()).unwrap();
    for name in ["broker.test", "client"] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        std::fs::write(files.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(files.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    files
}

fn certificates(file: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(file).unwrap().map(|one| one.unwrap()).collect()
}

/// A broker that asks for a client certificate and accepts every session.
async fn listen(files: &Files) -> u16 {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(&files.path("ca.pem")) {
        roots.add(certificate).unwrap();
    }
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::clone(&provider),
    )
    .build()
    .unwrap();
    let key = PrivateKeyDer::from_pem_file(files.path("broker.test.key")).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&files.path("broker.test.pem")), key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut out = bytes::BytesMut::new();
                let answer = NegotiationMessage::BrokerResponse(response());
                answer.append_event(Encoding::Ber, &mut out).unwrap();
                if stream.read(&mut [0; 1024]).await.is_err() {
                    return;
                }
                stream.write_all(&out).await.unwrap();
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    port
}

fn options(port: u16, tls: TlsOptions) -> SessionOptions {
    SessionOptions {
        connect_timeout: Duration::from_secs(2),
        disconnect_timeout: Duration::from_millis(1),
        reconnect_delay: Duration::from_millis(10),
        tls,
        ..SessionOptions::new([BrokerAddress::tls("127.0.0.1", port)])
    }
}

#[tokio::test]
async fn the_brokers_name_and_the_clients_certificate_are_checked() {
    let files = files();
    let port = listen(&files).await;
    let good = TlsOptions {
        ca_file: Some(files.path("ca.pem")),
        client_certificate: Some((files.path("client.pem"), files.path("client.key"))),
        server_name: Some("broker.test".to_owned()),
    };
    let patient =
        SessionOptions { connect_timeout: Duration::from_secs(60), ..options(port, good.clone()) };
    Session::connect(patient).await.unwrap();

    let wrong_name = TlsOptions { server_name: None, ..good.clone() };
    let error = failed(Session::connect(options(port, wrong_name)).await).to_string();
    assert!(error.contains("certificate"), "{error}");
    let nobody = TlsOptions { client_certificate: None, ..good };
    let error = failed(Session::connect(options(port, nobody)).await);
    assert!(matches!(error, ConnectError::TimedOut { .. }));
}

#[tokio::test]
async fn unusable_files_are_told_apart() {
    let files = files();
    let tls_error = async |tls: TlsOptions| match Session::connect(options(1, tls)).await {
        Err(ConnectError::Tls(error)) => error,
        other => panic!("expected a TLS error: {other:?}"),
    };
    assert!(matches!(tls_error(TlsOptions::default()).await, TlsError::NoAuthority));
    let missing = TlsOptions { ca_file: Some(files.path("none.pem")), ..TlsOptions::default() };
    assert!(matches!(tls_error(missing).await, TlsError::BadFile { .. }));
    let no_certificate =
        TlsOptions { ca_file: Some(files.path("client.key")), ..TlsOptions::default() };
    assert!(matches!(tls_error(no_certificate).await, TlsError::BadFile { .. }));
    let mixed_up = TlsOptions {
        ca_file: Some(files.path("ca.pem")),
        client_certificate: Some((files.path("client.pem"), files.path("broker.test.key"))),
        server_name: None,
    };
    assert!(matches!(tls_error(mixed_up).await, TlsError::Unusable(_)));
}
