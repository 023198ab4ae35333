//! `flintmq cert init`: a private certificate authority with one certificate per node and client.

mod issue;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use flintmq_transport::{NodeId, certificate_name};
use serde_json::json;

use self::issue::{Authority, Issued};
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
    /// Make more certificates with the authority that `cert init` made in this directory
    ///
    /// For nodes that come to a cluster later, and for more clients. Takes ca.key from there.
    Add(InitArgs),
}

const EXAMPLES: &str = "Examples:
  flintmq cert init --dir certs --cluster orders --node node-1=mq-1.example,10.0.0.1 node-2=mq-2.example node-3
  flintmq cert init --dir certs --node broker=broker.example --client billing
  flintmq produce --broker tls://broker.example:30115 --ca certs/ca.pem bmq://orders/new";

#[derive(Args, Debug)]
struct InitArgs {
    /// Where to write; made if missing
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The cluster whose nodes connect to each other with these certificates, as `cluster` in
    /// node.toml. Nodes' names must then end in their numbers: node-1, node-2
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
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

impl Subject {
    /// The number at the end of the name: 12 of `broker-12`.
    fn number(&self) -> Option<u32> {
        let start = self.name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        self.name.get(start..)?.parse().ok().filter(|number| *number > 0)
    }
}

/// Runs `flintmq cert`.
pub(crate) fn run(args: &CertArgs) -> Result<()> {
    let (init, written) = match &args.verb {
        CertVerb::Init(init) => (init, initialise(init)?),
        CertVerb::Add(init) => (init, add(init)?),
    };
    if args.show.json {
        crate::show::print(&serde_json::to_string_pretty(&json!({ "files": written }))?)
    } else {
        for file in &written {
            eprintln!("written {}", file.display());
        }
        for line in next_steps(init) {
            eprintln!("{line}");
        }
        Ok(())
    }
}

/// What to copy where.
fn next_steps(args: &InitArgs) -> Vec<String> {
    let mut lines = Vec::new();
    for node in &args.nodes {
        let name = &node.name;
        lines.push(match (args.cluster.as_ref(), node.number()) {
            (Some(cluster), Some(number)) => format!(
                "to node {number} of cluster {cluster}: ca.pem, {name}.pem and {name}.key, for \
                 [peers] and tls:// in its node.toml"
            ),
            _ => format!("to {name}: {name}.pem and {name}.key, for tls:// in its node.toml"),
        });
    }
    for client in &args.clients {
        let name = &client.name;
        lines.push(format!("to client {name}: ca.pem, {name}.pem and {name}.key"));
    }
    if args.cluster.is_none() && args.nodes.len() > 1 {
        lines.push(
            "these nodes cannot connect to each other with these certificates: that takes \
             --cluster NAME"
                .to_owned(),
        );
    }
    lines.push("nowhere: ca.key. Whoever has it can make more certificates".to_owned());
    lines
}

/// Makes the authority and what it is to issue.
fn initialise(args: &InitArgs) -> Result<Vec<PathBuf>> {
    make(args, true)
}

/// Makes more with the authority that is there.
fn add(args: &InitArgs) -> Result<Vec<PathBuf>> {
    make(args, false)
}

fn make(args: &InitArgs, new_authority: bool) -> Result<Vec<PathBuf>> {
    let peers = peer_names(args)?;
    let mut names = vec!["ca"];
    for subject in args.nodes.iter().chain(&args.clients) {
        if names.contains(&subject.name.as_str()) {
            bail!("the name is given twice, or is \"ca\": choose another name={:?}", subject.name);
        }
        names.push(&subject.name);
    }
    for client in &args.clients {
        if !client.hosts.is_empty() {
            bail!("a client's certificate carries its name only client={:?}", client.name);
        }
    }
    // Looked for before anything is written, so that a refusal leaves the directory as it was.
    for name in names.iter().filter(|name| new_authority || **name != "ca") {
        for suffix in ["pem", "key"] {
            let file = args.dir.join(format!("{name}.{suffix}"));
            if file.symlink_metadata().is_ok() {
                bail!(
                    "not overwriting certificates: choose another directory or remove the file \
                     file={}",
                    file.display()
                );
            }
        }
    }

    // All are made before the first is written, for the same reason.
    let (authority, mut issued) = if new_authority {
        let (authority, own) = Authority::new(args.days)?;
        (authority, vec![("ca", own)])
    } else {
        let file = args.dir.join("ca.key");
        let told = || {
            format!(
                "the authority's key cannot be used: `flintmq cert init` makes one file={}",
                file.display()
            )
        };
        let key = fs::read_to_string(&file).with_context(told)?;
        (Authority::of_key(&key, args.days).with_context(told)?, Vec::new())
    };
    for (node, peer) in args.nodes.iter().zip(peers) {
        let hosts: Vec<String> = node.hosts.iter().cloned().chain(peer).collect();
        issued.push((&node.name, authority.node(&node.name, &hosts)?));
    }
    for client in &args.clients {
        issued.push((&client.name, authority.client(&client.name)?));
    }

    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&args.dir)
        .with_context(|| format!("cannot make the directory dir={}", args.dir.display()))?;
    let mut written = Vec::new();
    for (name, issued) in &issued {
        write(&args.dir, name, issued, &mut written)?;
    }
    Ok(written)
}

/// The name by which each node is known to the others, in the order of `args.nodes`; none without
/// a cluster.
fn peer_names(args: &InitArgs) -> Result<Vec<Option<String>>> {
    let Some(cluster) = &args.cluster else { return Ok(vec![None; args.nodes.len()]) };
    let part = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        (1..=63).contains(&part.len())
            && part.chars().all(plain)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    if cluster.len() > 64 || !cluster.split('.').all(part) {
        bail!(
            "a cluster's name has 1 to 64 letters, digits, '-', '_' or '.', and no part between \
             dots is empty, longer than 63, or begins or ends with '-' cluster={cluster:?}"
        );
    }
    let mut numbers = BTreeMap::new();
    let mut names = Vec::new();
    for node in &args.nodes {
        let name = &node.name;
        let Some(number) = node.number() else {
            bail!(
                "end the name in the node's number, node.id in its node.toml: node-1 node={name:?}"
            );
        };
        if let Some(other) = numbers.insert(number, name) {
            bail!(
                "two nodes have the same number; rename one number={number} nodes={other},{name}"
            );
        }
        names.push(Some(certificate_name(cluster, NodeId(number))));
    }
    Ok(names)
}

fn write(dir: &Path, name: &str, issued: &Issued, written: &mut Vec<PathBuf>) -> Result<()> {
    for (suffix, mode, text) in [("key", 0o600, &issued.key), ("pem", 0o644, &issued.certificate)] {
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
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use flintmq_transport::{CertificateFiles, Event, QuicSettings, Routes, Settings, Transport};

    use super::*;

    fn arguments(dir: &Path) -> InitArgs {
        InitArgs {
            dir: dir.to_owned(),
            cluster: None,
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

    fn nodes(cluster: Option<&str>, names: &[&str], dir: &Path) -> InitArgs {
        InitArgs {
            dir: dir.to_owned(),
            cluster: cluster.map(str::to_owned),
            nodes: names.iter().map(|name| parse_subject(name).unwrap()).collect(),
            clients: Vec::new(),
            days: 10,
        }
    }

    #[test]
    fn nodes_of_a_cluster_accept_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let later = nodes(Some("orders"), &["mq2"], dir.path());
        let without = add(&later).unwrap_err().to_string();
        assert!(without.contains("`flintmq cert init` makes one"), "{without}");
        initialise(&nodes(Some("orders"), &["node-1=a.example"], dir.path())).unwrap();
        assert_eq!(add(&later).unwrap().len(), 2);
        assert!(add(&later).unwrap_err().to_string().contains("not overwriting"));
        let settings = |name: &str| {
            let file = |suffix: &str| dir.path().join(format!("{name}.{suffix}"));
            let files = CertificateFiles {
                certificate: file("pem"),
                key: file("key"),
                authority: dir.path().join("ca.pem"),
            };
            QuicSettings::new(([127, 0, 0, 1], 0).into(), files)
        };
        let node = |id| Settings::new("orders", NodeId(id), 1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (routes, mut inbound) = Routes::by_class(4);
            let one = Transport::bind(node(1), settings("node-1"), routes).await.unwrap();
            let address = one.local_address().unwrap().to_string();
            let (routes, _of_two) = Routes::by_class(4);
            let two = node(2).with_peer(NodeId(1), address);
            let two = Transport::bind(two, settings("mq2"), routes).await.unwrap();
            one.add_peer(NodeId(2), two.local_address().unwrap().to_string());
            let up = tokio::time::timeout(Duration::from_secs(60), inbound.events.recv()).await;
            assert!(matches!(up, Ok(Some(Event::PeerUp { peer: NodeId(2), .. }))), "{up:?}");
            let (routes, _of_three) = Routes::by_class(4);
            let other = Transport::bind(node(3), settings("mq2"), routes).await.unwrap_err();
            assert!(other.to_string().contains("node-3.orders.flintmq"), "{other}");
        });
    }

    #[test]
    fn a_node_of_a_cluster_has_a_number_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let refusal = |cluster, names: &[&str]| {
            initialise(&nodes(Some(cluster), names, dir.path())).unwrap_err().to_string()
        };
        assert!(refusal("orders", &["broker"]).starts_with("end the name in the node's number"));
        assert!(refusal("orders", &["node-0"]).starts_with("end the name in the node's number"));
        let twice = refusal("orders", &["eu-1", "us-01"]);
        assert!(twice.ends_with("number=1 nodes=eu-1,us-01"), "{twice}");
        for name in ["", "a b", "a..b", "-a", &"a".repeat(64)] {
            assert!(refusal(name, &["node-1"]).starts_with("a cluster's name"), "{name}");
        }
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
    }

    #[test]
    fn everybody_is_told_what_to_copy() {
        let lines = |cluster| next_steps(&nodes(cluster, &["n1", "n2"], Path::new("x"))).join("\n");
        let of_cluster = lines(Some("orders"));
        assert!(of_cluster.contains("to node 2 of cluster orders: ca.pem, n2.pem and n2.key"));
        assert!(!of_cluster.contains("cannot connect"), "{of_cluster}");
        let alone = lines(None);
        assert!(alone.contains("to n2: n2.pem and n2.key"), "{alone}");
        assert!(alone.contains("--cluster NAME"), "{alone}");
    }
}
