//! Identities from files made on the fly: what is served, what is refused and how, and replacement.

use super::*;
use rcgen::{CertificateParams, CertifiedKey, Issuer, KeyPair, generate_simple_self_signed};
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConnection};
use std::fs;
use tempfile::TempDir;

struct Made {
    certificate: String,
    key: String,
}

fn made() -> Made {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["node.test".to_owned()]).unwrap();
    Made { certificate: cert.pem(), key: signing_key.serialize_pem() }
}

struct Files {
    dir: TempDir,
}

impl Files {
    fn new(certificate: &str, key: &str) -> Self {
        let files = Self { dir: TempDir::new().unwrap() };
        files.write("node.pem", certificate);
        files.write("node.key", key);
        files
    }

    fn write(&self, name: &str, contents: &str) {
        fs::write(self.dir.path().join(name), contents).unwrap();
    }

    fn named(&self) -> TlsFiles {
        let path = |name| self.dir.path().join(name);
        TlsFiles { certificate: path("node.pem"), key: path("node.key"), client_ca: None }
    }

    /// The error of loading, with the directory's name taken out.
    fn refused(&self) -> String {
        self.refused_for(self.named())
    }

    fn refused_for(&self, files: TlsFiles) -> String {
        let error = TlsIdentity::load(files).unwrap_err().to_string();
        error.replace(&format!("{}/", self.dir.path().display()), "")
    }
}

fn client(trusted: &str, own: Option<(&str, &str)>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_webpki_verifier(verifier.build().unwrap());
    match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    }
}

/// A whole handshake in memory.
fn handshake(server: Arc<ServerConfig>, client: ClientConfig) -> Result<(), String> {
    let name = ServerName::try_from("node.test").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    // A handshake takes two round trips at most; ten are a bound, not a wait.
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().map_err(|error| format!("server: {error}"))?;
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets().map_err(|error| format!("client: {error}"))?;
        if !client.is_handshaking() && !server.is_handshaking() {
            return Ok(());
        }
    }
    Err("the handshake does not end".to_owned())
}

#[test]
fn a_client_that_trusts_the_certificate_connects_and_another_does_not() {
    let (node, other) = (made(), made());
    let identity = TlsIdentity::load(Files::new(&node.certificate, &node.key).named()).unwrap();
    handshake(identity.current(), client(&node.certificate, None)).unwrap();
    handshake(identity.current(), client(&other.certificate, None)).unwrap_err();
}

#[test]
fn a_reload_serves_the_new_certificate_and_a_failed_one_keeps_the_old() {
    let (first, second) = (made(), made());
    let files = Files::new(&first.certificate, &first.key);
    let identity = TlsIdentity::load(files.named()).unwrap();

    files.write("node.pem", &second.certificate);
    let error = identity.reload().unwrap_err();
    assert!(matches!(error, TlsError::Mismatch { .. }), "{error}");
    handshake(identity.current(), client(&first.certificate, None)).unwrap();

    files.write("node.key", &second.key);
    identity.reload().unwrap();
    handshake(identity.current(), client(&second.certificate, None)).unwrap();
    handshake(identity.current(), client(&first.certificate, None)).unwrap_err();
}

#[test]
fn with_an_authority_for_clients_only_its_certificates_are_let_in() {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let client_key = KeyPair::generate().unwrap();
    let mut client_params = CertificateParams::new(vec!["client.test".to_owned()]).unwrap();
    client_params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let client_certificate = client_params.signed_by(&client_key, &issuer).unwrap();

    let node = made();
    let files = Files::new(&node.certificate, &node.key);
    files.write("clients.pem", &ca.pem());
    let named = TlsFiles { client_ca: Some(files.dir.path().join("clients.pem")), ..files.named() };
    let identity = TlsIdentity::load(named).unwrap();

    let (certificate, key) = (client_certificate.pem(), client_key.serialize_pem());
    let known = client(&node.certificate, Some((&certificate, &key)));
    handshake(identity.current(), known).unwrap();
    let error = handshake(identity.current(), client(&node.certificate, None)).unwrap_err();
    assert!(error.contains("no certificates"), "{error}");
    let stranger = made();
    let unknown = client(&node.certificate, Some((&stranger.certificate, &stranger.key)));
    handshake(identity.current(), unknown).unwrap_err();
}

#[test]
fn a_wrong_file_is_named_with_what_is_wrong() {
    let (node, other) = (made(), made());
    assert_eq!(
        Files::new(&node.certificate, &other.key).refused(),
        "the key does not belong to the certificate; name the two files that were made together \
         certificate=node.pem key=node.key"
    );
    assert_eq!(
        Files::new(&node.key, &node.key).refused(),
        "no certificate in this file; it must hold -----BEGIN CERTIFICATE----- blocks file=node.pem"
    );
    assert_eq!(
        Files::new(&node.certificate, &node.certificate).refused(),
        "no private key in this file; it must hold a -----BEGIN PRIVATE KEY----- block that is not \
         encrypted file=node.key"
    );
    let torn = node.certificate.replace("-----END CERTIFICATE-----", "");
    let refused = Files::new(&torn, &node.key).refused();
    assert!(refused.starts_with("cannot read a PEM file;"), "{refused}");

    let files = Files::new(&node.certificate, &node.key);
    fs::remove_file(files.named().key).unwrap();
    let refused = files.refused();
    let expected =
        "cannot read a PEM file; check the path, its permissions and its contents file=node.key";
    assert!(refused.starts_with(expected), "{refused}");

    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let refused = Files::new(garbage, &node.key).refused();
    assert!(refused.starts_with("this certificate and key cannot be used"), "{refused}");

    let files = Files::new(&node.certificate, &node.key);
    files.write("clients.pem", garbage);
    let named = TlsFiles { client_ca: Some(files.dir.path().join("clients.pem")), ..files.named() };
    let refused = files.refused_for(named);
    let expected = "this authority for client certificates cannot be used file=clients.pem";
    assert!(refused.starts_with(expected), "{refused}");
}
