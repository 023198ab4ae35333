//! The certificates themselves: an authority, and what it vouches for.

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

/// A certificate and its private key, both PEM.
pub(super) struct Issued {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// A private authority.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// How long what it issues is valid.
    days: u32,
}

impl Authority {
    /// Makes one, with its certificate and key; it is valid as long as what it issues.
    pub(super) fn new(days: u32) -> Result<(Self, Issued)> {
        let key = KeyPair::generate().context("cannot make a key")?;
        let params = authority_params(days);
        let certificate =
            params.self_signed(&key).context("cannot make the authority's certificate")?;
        let own = Issued { certificate: certificate.pem(), key: key.serialize_pem() };
        Ok((Self { issuer: Issuer::new(params, key), days }, own))
    }

    /// One that was made by [`Self::new`] before, from its key.
    pub(super) fn of_key(key: &str, days: u32) -> Result<Self> {
        let key = KeyPair::from_pem(key).context("not a private key of `flintmq cert init`")?;
        Ok(Self { issuer: Issuer::new(authority_params(days), key), days })
    }

    /// For a node that is reached at any of `hosts`, DNS names and IP addresses, beside its own
    /// name and this machine's.
    pub(super) fn node(&self, name: &str, hosts: &[String]) -> Result<Issued> {
        let mut hosts = hosts.to_vec();
        for always in [name, "localhost", "127.0.0.1", "::1"] {
            if !hosts.iter().any(|host| host == always) {
                hosts.push(always.to_owned());
            }
        }
        let mut params = CertificateParams::new(hosts)
            .with_context(|| format!("not a host name or address node={name:?}"))?;
        // Nodes are servers to clients and both sides to each other.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(name, params)
    }

    /// For a client, which is known by its name only.
    pub(super) fn client(&self, name: &str) -> Result<Issued> {
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(name, params)
    }

    fn issue(&self, name: &str, params: CertificateParams) -> Result<Issued> {
        let mut params = valid_for(params, self.days);
        params.distinguished_name = common_name(name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().context("cannot make a key")?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .with_context(|| format!("cannot make the certificate name={name:?}"))?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// Whoever checks a certificate finds its authority by this name.
fn authority_params(days: u32) -> CertificateParams {
    let mut params = valid_for(CertificateParams::default(), days);
    params.distinguished_name = common_name("FlintMQ private authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn valid_for(mut params: CertificateParams, days: u32) -> CertificateParams {
    // A day of grace for machines whose clocks are behind.
    let now = std::time::SystemTime::now();
    let day = std::time::Duration::from_secs(86_400);
    params.not_before = (now - day).into();
    params.not_after = (now + day * days).into();
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
