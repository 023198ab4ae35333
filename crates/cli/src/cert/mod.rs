//! `flintmq cert init`: a private certificate authority with one certificate per node and client.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use serde_json::json;

use crate::show::Show;

/// Arguments of `flintmq cert`.
#[derive(Args, Debug)]
pub(crate) struct CertArgs {
    #[command(flatten)]
    show: Show,
    #[command(subcommand)]
    verb: CertVerb,
}

#[derive(Subcommand, Debug)]
enum CertVerb {
    /// Make a private authority and one certificate per node and client
    ///
    /// Writes ca.pem and ca.key, and NAME.pem and NAME.key for each node and client. Existing files
    /// are never overwritten. Keep ca.key away from the nodes: whoever has it can make more
    /// certificates.
    #[command(after_help = EXAMPLES)]
    Init(InitArgs),
}

const EXAMPLES: &str = "Examples:
  flintmq cert init --dir certs --node broker-1=broker-1.example,10.0.0.1 --client billing
  flintmq produce --broker tls://broker-1.example:30115 --ca certs/ca.pem bmq://orders/new";

#[derive(Args, Debug)]
struct InitArgs {
    /// Where to write; made if missing
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// A node: NAME, or NAME=HOST,ADDRESS… with the names its clients connect to (repeatable).
    /// NAME, localhost, 127.0.0.1 and ::1 are always included
    #[arg(long = "node", num_args = 1.., value_name = "NAME", value_parser = parse_subject)]
    nodes: Vec<Subject>,
    /// A client that identifies itself with a certificate (repeatable)
    #[arg(long = "client", num_args = 1.., value_name = "NAME", value_parser = parse_subject)]
    clients: Vec<Subject>,
    /// How long the certificates are valid
    #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36500), value_name = "DAYS")]
    days: u32,
}

/// A file's name and the names that the certificate is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subject {
    name: String,
    hosts: Vec<String>,
}

/// Runs `flintmq cert`.
pub(crate) fn run(args: &CertArgs) -> Result<()> {
    let CertVerb::Init(init) = &args.verb;
    let written = initialise(init)?;
    if args.show.json {
        crate::show::print(&serde_json::to_string_pretty(&json!({ "files": written }))?)
    } else {
        for file in &written {
            eprintln!("written {}", file.display());
        }
        Ok(())
    }
}

fn initialise(args: &InitArgs) -> Result<Vec<PathBuf>> {
    let mut names = vec!["ca"];
    for subject in args.nodes.iter().chain(&args.clients) {
        if names.contains(&subject.name.as_str()) {
            bail!("the name is given twice, or is \"ca\": choose another name={:?}", subject.name);
        }
        names.push(&subject.name);
    }
    // Looked for before anything is written, so that a refusal leaves the directory as it was.
    for name in &names {
        for suffix in ["pem", "key"] {
            let file = args.dir.join(format!("{name}.{suffix}"));
            if file.exists() {
                bail!(
                    "not overwriting certificates: choose another directory or remove the file \
                     file={}",
                    file.display()
                );
            }
        }
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&args.dir)
        .with_context(|| format!("cannot make the directory dir={}", args.dir.display()))?;

    let mut written = Vec::new();
    let authority = authority(args.days)?;
    write(&args.dir, "ca", &authority.pem(), authority.key(), &mut written)?;
    for node in &args.nodes {
        let params = node_params(node, args.days)?;
        issue(&args.dir, &node.name, params, &authority, &mut written)?;
    }
    for client in &args.clients {
        let params = client_params(client, args.days)?;
        issue(&args.dir, &client.name, params, &authority, &mut written)?;
    }
    Ok(written)
}

fn authority(days: u32) -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = valid_for(CertificateParams::default(), days);
    params.distinguished_name = common_name("FlintMQ private authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().context("cannot make a key")?;
    CertifiedIssuer::self_signed(params, key).context("cannot make the authority's certificate")
}

fn node_params(node: &Subject, days: u32) -> Result<CertificateParams> {
    let mut hosts = vec![node.name.clone()];
    hosts.extend(node.hosts.iter().cloned());
    for always in ["localhost", "127.0.0.1", "::1"] {
        if !hosts.iter().any(|host| host == always) {
            hosts.push(always.to_owned());
        }
    }
    let params = CertificateParams::new(hosts)
        .with_context(|| format!("not a host name or address node={:?}", node.name))?;
    let mut params = valid_for(params, days);
    params.distinguished_name = common_name(&node.name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Nodes are servers to clients and both sides to each other.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn client_params(client: &Subject, days: u32) -> Result<CertificateParams> {
    if !client.hosts.is_empty() {
        bail!("a client's certificate carries its name only client={:?}", client.name);
    }
    let mut params = valid_for(CertificateParams::default(), days);
    params.distinguished_name = common_name(&client.name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
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

fn issue(
    dir: &Path,
    name: &str,
    params: CertificateParams,
    authority: &CertifiedIssuer<'_, KeyPair>,
    written: &mut Vec<PathBuf>,
) -> Result<()> {
    let key = KeyPair::generate().context("cannot make a key")?;
    let certificate = params
        .signed_by(&key, authority)
        .with_context(|| format!("cannot make the certificate name={name:?}"))?;
    write(dir, name, &certificate.pem(), &key, written)
}

fn write(
    dir: &Path,
    name: &str,
    certificate: &str,
    key: &KeyPair,
    written: &mut Vec<PathBuf>,
) -> Result<()> {
    for (suffix, mode, text) in
        [("key", 0o600, key.serialize_pem()), ("pem", 0o644, certificate.to_owned())]
    {
        let file = dir.join(format!("{name}.{suffix}"));
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&file)
            .and_then(|mut open| open.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write file={}", file.display()))?;
        written.push(file);
    }
    Ok(())
}

fn parse_subject(text: &str) -> Result<Subject, String> {
    let (name, hosts) = match text.split_once('=') {
        Some((name, hosts)) => (name, hosts.split(',').map(str::to_owned).collect()),
        None => (text, Vec::new()),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err("a name has letters, digits, '-', '_' and '.' only, e.g. broker-1".to_owned());
    }
    let is_host = |host: &String| {
        host.parse::<IpAddr>().is_ok() || (!host.is_empty() && host.chars().all(plain))
    };
    if !hosts.iter().all(is_host) {
        return Err("after = come host names and addresses, separated by commas".to_owned());
    }
    Ok(Subject { name: name.to_owned(), hosts })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn arguments(dir: &Path) -> InitArgs {
        InitArgs {
            dir: dir.to_owned(),
            nodes: vec![parse_subject("n1=broker.example,10.0.0.1").unwrap()],
            clients: vec![parse_subject("app").unwrap()],
            days: 10,
        }
    }

    #[test]
    fn keys_are_private_and_nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("certs");
        let written = initialise(&arguments(&dir)).unwrap();
        assert_eq!(written.len(), 6);
        for file in &written {
            let mode = fs::metadata(file).unwrap().permissions().mode() & 0o777;
            let private = file.extension().is_some_and(|suffix| suffix == "key");
            assert_eq!(mode & 0o077 == 0, private, "{} {mode:o}", file.display());
        }
        let before = fs::read(dir.join("ca.pem")).unwrap();
        let again = initialise(&arguments(&dir)).unwrap_err().to_string();
        assert!(again.contains("not overwriting"), "{again}");
        assert_eq!(fs::read(dir.join("ca.pem")).unwrap(), before);
    }

    #[test]
    fn names_that_clash_or_escape_the_directory_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut twice = arguments(dir.path());
        twice.clients.push(parse_subject("n1").unwrap());
        assert!(initialise(&twice).is_err());
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
        for bad in ["", "../x", ".hidden", "a/b", "n=a b", "n=,"] {
            assert!(parse_subject(bad).is_err(), "{bad}");
        }
    }
}
