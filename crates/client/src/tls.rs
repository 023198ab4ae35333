//! Setting up TLS towards a broker: trust in a private authority, an optional client certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use thiserror::Error;

use crate::options::TlsOptions;

/// A certificate, key or name for TLS cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// No authority to trust.
    #[error(
        "a tls:// address needs the file with the authority's certificate (the broker's ca.pem)"
    )]
    NoAuthority,
    /// A file cannot be read, or is no PEM file of the right kind.
    #[error("cannot use the PEM file: check path and content file={file:?} reason={reason:?}")]
    BadFile {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The client certificate does not fit its key, or the authority's certificate is unusable.
    #[error(
        "the certificates do not fit together: check certificate, key and authority reason={0:?}"
    )]
    Unusable(String),
    /// The name is neither a host name nor an IP address.
    #[error("the server name is neither a host name nor an address name={0:?}")]
    BadServerName(String),
}

/// The configuration for all `tls://` connections of a session.
pub(crate) fn client_config(options: &TlsOptions) -> Result<Arc<ClientConfig>, TlsError> {
    let authority = options.ca_file.as_deref().ok_or(TlsError::NoAuthority)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authority)? {
        roots.add(certificate).map_err(|error| bad_file(authority, error))?;
    }
    let unusable = |error: &dyn std::fmt::Display| TlsError::Unusable(error.to_string());
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| unusable(&error))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .with_webpki_verifier(verifier);
    let config = match &options.client_certificate {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let private =
                PrivateKeyDer::from_pem_file(key).map_err(|error| bad_file(key, error))?;
            builder
                .with_client_auth_cert(certificates(chain)?, private)
                .map_err(|error| unusable(&error))?
        }
    };
    Ok(Arc::new(config))
}

/// The name to check the broker's certificate against.
pub(crate) fn server_name(
    options: &TlsOptions,
    host: &str,
) -> Result<ServerName<'static>, TlsError> {
    let name = options.server_name.as_deref().unwrap_or(host).to_owned();
    ServerName::try_from(name.clone()).map_err(|_| TlsError::BadServerName(name))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(file).map_err(|error| bad_file(file, error))?;
    let list: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| bad_file(file, error))?;
    if list.is_empty() {
        return Err(bad_file(file, "there is no certificate in it"));
    }
    Ok(list)
}

fn bad_file(file: &Path, reason: impl std::fmt::Display) -> TlsError {
    TlsError::BadFile { file: file.to_owned(), reason: reason.to_string() }
}
