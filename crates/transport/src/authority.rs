//! Certificates for tests and for clusters that are thrown away: an authority that exists in memory
//! only.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use flintmq_consensus::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use thiserror::Error;

use crate::{CertificateFiles, certificate_name};

/// How long the certificates are valid.
const VALID: Duration = Duration::from_secs(30 * 86_400);

/// Makes certificates for nodes, valid for thirty days. Its key is never written down, so a cluster
/// that is to live longer than this value needs certificates from elsewhere.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

/// A node's certificate and key.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeCertificate {
    /// The certificate, PEM.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: String,
}

impl std::fmt::Debug for NodeCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key is nobody's business.
        f.debug_struct("NodeCertificate").field("certificate", &self.certificate).finish()
    }
}

/// Why no certificate was made or written.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// It could not be made.
    #[error("cannot make a certificate; check that the cluster's name fits a DNS name: {0}")]
    Make(#[from] rcgen::Error),
    /// It could not be written.
    #[error("cannot write certificates; check the directory and its permissions: {0}")]
    Write(#[from] io::Error),
}

impl Authority {
    /// A new authority, which no other one vouches for.
    ///
    /// # Errors
    /// [`AuthorityError::Make`].
    pub fn throw_away() -> Result<Self, AuthorityError> {
        let mut params = CertificateParams::default();
        name(&mut params, "FlintMQ throw-away authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// The authority's own certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for this node of this cluster, good for `localhost` and the loopback addresses
    /// too, so that it also serves clients on the same machine.
    ///
    /// # Errors
    /// [`AuthorityError::Make`] when the cluster's name does not fit a DNS name.
    pub fn issue(&self, cluster: &str, node: NodeId) -> Result<NodeCertificate, AuthorityError> {
        let own = certificate_name(cluster, node);
        let names = [own.as_str(), "localhost", "127.0.0.1", "::1"];
        let mut params = CertificateParams::new(names.map(str::to_owned))?;
        name(&mut params, &own);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Nodes are both sides to each other.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(NodeCertificate { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Issues a certificate and writes it to `node-N.pem` and `node-N.key`, and the authority to
    /// `authority.pem`, in a directory that exists. Files that are there are replaced.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn write_node(
        &self,
        dir: &Path,
        cluster: &str,
        node: NodeId,
    ) -> Result<CertificateFiles, AuthorityError> {
        let issued = self.issue(cluster, node)?;
        let files = CertificateFiles {
            certificate: dir.join(format!("node-{node}.pem")),
            key: dir.join(format!("node-{node}.key")),
            authority: dir.join("authority.pem"),
        };
        // The key is new with every call, so an old file must not lend it its permissions.
        match fs::remove_file(&files.key) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&files.key)?
            .write_all(issued.key.as_bytes())?;
        fs::write(&files.certificate, issued.certificate)?;
        fs::write(&files.authority, self.certificate())?;
        Ok(files)
    }
}

fn name(params: &mut CertificateParams, common: &str) {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, common);
    params.distinguished_name = distinguished;
    // A day of grace for machines whose clocks are behind.
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(86_400)).into();
    params.not_after = (now + VALID).into();
}
