//! Who a node is: its certificate, and the authority that all nodes of the cluster have theirs
//! from.
//!
//! Both sides of a connection show a certificate of the cluster's authority, which must be good for
//! the DNS name [`certificate_name`] of the node that they say they are. So a node cannot take
//! another's place, and a certificate of another cluster is of no use even under a shared
//! authority.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use flintmq_consensus::NodeId;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::{Resumption, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use thiserror::Error;

/// Tells nodes' connections from others on the same port.
const ALPN: &[u8] = b"flintmq-node";

/// The files of a node's identity, all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The node's certificate first, then the authorities between it and the cluster's.
    pub certificate: PathBuf,
    /// The private key of the first certificate.
    pub key: PathBuf,
    /// The authority, or authorities, that certificates of nodes come from. While an authority is
    /// replaced, the old one and the new one.
    pub authority: PathBuf,
}

/// The DNS name that a node's certificate must be good for, among any others.
///
/// ```
/// use flintmq_transport::{NodeId, certificate_name};
///
/// assert_eq!(certificate_name("orders_eu", NodeId(3)), "node-3.orders_eu.flintmq");
/// ```
#[must_use]
pub fn certificate_name(cluster: &str, node: NodeId) -> String {
    format!("node-{node}.{cluster}.flintmq")
}

/// Why the files give no usable identity.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// A file is missing, may not be read, or is no PEM.
    #[error(
        "cannot read a PEM file; check the path, its permissions and its contents file={}: {source}",
        file.display()
    )]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The file holds nothing of the kind that is looked for in it.
    #[error("nothing usable in this file; it must hold {wanted} file={}", file.display())]
    Empty {
        /// Which file.
        file: PathBuf,
        /// What is looked for.
        wanted: &'static str,
    },
    /// The authority cannot be used.
    #[error("this authority of nodes' certificates cannot be used file={}: {reason}", file.display())]
    Authority {
        /// Which file.
        file: PathBuf,
        /// What the TLS library said.
        reason: String,
    },
    /// Certificate and key cannot be used, or do not belong together.
    #[error(
        "this certificate and key cannot be used; name the two files that were made together \
         certificate={} key={}: {reason}",
        certificate.display(), key.display()
    )]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What the TLS library said.
        reason: String,
    },
    /// The certificate is another node's, or nobody's.
    #[error(
        "this certificate is not for this node; make one with the DNS name {name} certificate={}",
        certificate.display()
    )]
    OtherNode {
        /// The certificate's file.
        certificate: PathBuf,
        /// The name that it must be good for.
        name: String,
    },
}

/// The identity in use, replaceable while connections are made.
#[derive(Debug)]
pub(crate) struct Credentials {
    files: CertificateFiles,
    own_name: String,
    current: ArcSwap<Tls>,
}

/// Both sides' configurations, from one reading of the files.
pub(crate) struct Tls {
    pub(crate) server: Arc<QuicServerConfig>,
    pub(crate) client: Arc<QuicClientConfig>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // There is a private key in it.
        f.write_str("Tls")
    }
}

impl Credentials {
    pub(crate) fn load(
        files: CertificateFiles,
        own_name: String,
    ) -> Result<Self, CertificateError> {
        let tls = read(&files, &own_name)?;
        Ok(Self { files, own_name, current: ArcSwap::from_pointee(tls) })
    }

    /// What the next connection begins with.
    pub(crate) fn current(&self) -> Arc<Tls> {
        self.current.load_full()
    }

    /// Reads the files again; keeps what there was if they are of no use.
    pub(crate) fn reload(&self) -> Result<(), CertificateError> {
        self.current.store(Arc::new(read(&self.files, &self.own_name)?));
        Ok(())
    }
}

/// True when this certificate, whose authority was checked, is good for the name.
pub(crate) fn is_for(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(name) = ServerName::try_from(name) else { return false };
    ParsedCertificate::try_from(certificate)
        .is_ok_and(|certificate| verify_server_name(&certificate, &name).is_ok())
}

fn read(files: &CertificateFiles, own_name: &str) -> Result<Tls, CertificateError> {
    let chain = certificates(&files.certificate)?;
    if !chain.first().is_some_and(|own| is_for(own, own_name)) {
        let (certificate, name) = (files.certificate.clone(), own_name.to_owned());
        return Err(CertificateError::OtherNode { certificate, name });
    }
    let key = key(&files.key)?;
    let roots = Arc::new(authorities(&files.authority)?);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let unusable = |reason: String| {
        let (certificate, key) = (files.certificate.clone(), files.key.clone());
        CertificateError::Unusable { certificate, key, reason }
    };

    let mut client = client_config(&provider, &roots, chain.clone(), key.clone_key())
        .map_err(|error| unusable(error.to_string()))?;
    // Every connection shows its certificate: a resumed one would outlive a reload.
    client.resumption = Resumption::disabled();
    client.alpn_protocols = vec![ALPN.to_vec()];
    let client = QuicClientConfig::try_from(client).map_err(|error| unusable(error.to_string()))?;

    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .build()
        .map_err(|error| CertificateError::Authority {
            file: files.authority.clone(),
            reason: error.to_string(),
        })?;
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| {
            builder.with_client_cert_verifier(verifier).with_single_cert(chain, key)
        })
        .map_err(|error| unusable(error.to_string()))?;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    server.alpn_protocols = vec![ALPN.to_vec()];
    let server = QuicServerConfig::try_from(server).map_err(|error| unusable(error.to_string()))?;
    Ok(Tls { server: Arc::new(server), client: Arc::new(client) })
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, rustls::Error> {
    ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(Arc::clone(roots))
        .with_client_auth_cert(chain, key)
}

fn authorities(file: &Path) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| CertificateError::Authority {
            file: file.to_owned(),
            reason: error.to_string(),
        })?;
    }
    Ok(roots)
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| match error {
        pem::Error::NoItemsFound => CertificateError::Empty {
            file: file.to_owned(),
            wanted: "a -----BEGIN PRIVATE KEY----- block that is not encrypted",
        },
        source => CertificateError::Unreadable { file: file.to_owned(), source },
    })
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let unreadable = |source| CertificateError::Unreadable { file: file.to_owned(), source };
    let found = CertificateDer::pem_file_iter(file)
        .map_err(unreadable)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable)?;
    if found.is_empty() {
        let wanted = "-----BEGIN CERTIFICATE----- blocks";
        return Err(CertificateError::Empty { file: file.to_owned(), wanted });
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "certificates_tests.rs"]
mod tests;
