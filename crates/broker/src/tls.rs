//! Certificates and keys of `tls://` listeners: loaded from PEM files, checked, and replaced while
//! running.
//!
//! [`TlsIdentity::load`] reads the files named in `node.toml` and says exactly what is wrong with
//! them. [`TlsIdentity::current`] is what a listener takes for each new connection;
//! [`TlsIdentity::reload`] reads the same files again and keeps the old certificate if the new one
//! cannot be used.

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// The files that a server's identity comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the node's certificate first, then the authorities between it and the root.
    pub certificate: PathBuf,
    /// PEM: the private key of the first certificate.
    pub key: PathBuf,
    /// PEM: authorities that clients must have a certificate from; absent where clients need none.
    pub client_ca: Option<PathBuf>,
}

/// Why the files give no usable identity.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file is missing, may not be read, or is no PEM.
    #[error("cannot read a PEM file; check the path, its permissions and its contents file={}: \
        {source}", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The file has no certificate in it.
    #[error("no certificate in this file; it must hold -----BEGIN CERTIFICATE----- blocks \
        file={}", file.display())]
    NoCertificate {
        /// Which file.
        file: PathBuf,
    },
    /// The file has no private key in it.
    #[error("no private key in this file; it must hold a -----BEGIN PRIVATE KEY----- block that is \
        not encrypted file={}", file.display())]
    NoKey {
        /// Which file.
        file: PathBuf,
    },
    /// The key belongs to another certificate.
    #[error("the key does not belong to the certificate; name the two files that were made \
        together certificate={} key={}", certificate.display(), key.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate or the key has a form that is not supported.
    #[error("this certificate and key cannot be used certificate={} key={}: {reason}",
        certificate.display(), key.display())]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What the TLS library said.
        reason: String,
    },
    /// An authority for clients cannot be used.
    #[error("this authority for client certificates cannot be used file={}: {reason}",
        file.display())]
    ClientAuthority {
        /// Which file.
        file: PathBuf,
        /// What the TLS library said.
        reason: String,
    },
}

/// A server's certificate and key, replaceable while connections are accepted.
#[derive(Debug)]
pub struct TlsIdentity {
    files: TlsFiles,
    current: ArcSwap<ServerConfig>,
}

impl TlsIdentity {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] names the file and what is wrong with it.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let config = server_config(&files)?;
        Ok(Self { files, current: ArcSwap::from_pointee(config) })
    }

    /// The configuration for the next connection
    /// (`tokio_rustls::TlsAcceptor::from(identity.current())`).
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Reads the same files again. Connections that are open keep what they began with.
    ///
    /// # Errors
    /// [`TlsError`]; the identity stays as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        let config = server_config(&self.files)?;
        self.current.store(Arc::new(config));
        Ok(())
    }

    /// The files it comes from.
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }
}

fn server_config(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey { file: files.key.clone() },
        source => TlsError::Unreadable { file: files.key.clone(), source },
    })?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let unusable = |error: rustls::Error| {
        let (certificate, key) = (files.certificate.clone(), files.key.clone());
        match error {
            rustls::Error::InconsistentKeys(_) => TlsError::Mismatch { certificate, key },
            error => TlsError::Unusable { certificate, key, reason: error.to_string() },
        }
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let unusable =
                |reason: String| TlsError::ClientAuthority { file: file.clone(), reason };
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| unusable(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    builder.with_single_cert(chain, key).map_err(unusable)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |source| match source {
        pem::Error::NoItemsFound => TlsError::NoCertificate { file: file.to_owned() },
        source => TlsError::Unreadable { file: file.to_owned(), source },
    };
    let certificates = CertificateDer::pem_file_iter(file)
        .map_err(unreadable)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { file: file.to_owned() });
    }
    Ok(certificates)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "tls_tests.rs"]
mod tests;
