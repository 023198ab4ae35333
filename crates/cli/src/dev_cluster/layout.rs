//! Where the nodes of a cluster for development live: ports, directories, certificates and
//! `node.toml` files.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use flintmq_transport::{Authority, NodeId};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

/// Name of the cluster; also in its nodes' certificates.
const CLUSTER: &str = "dev";
/// Ports of one node: clients, administration, other nodes.
const PORTS: u32 = 3;

/// One node: everything is on 127.0.0.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) id: u32,
    pub(super) folder: PathBuf,
    clients: u16,
    admin: u16,
    peers: u16,
}

impl Node {
    pub(super) fn config_file(&self) -> PathBuf {
        self.folder.join("node.toml")
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.folder.join("log")
    }

    pub(super) fn clients_url(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.clients)
    }

    pub(super) fn admin_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.admin)
    }

    /// How it is shown, and told to scripts.
    pub(super) fn describe(&self, pid: u32) -> Value {
        json!({
            "id": self.id,
            "pid": pid,
            "clients": self.clients_url(),
            "admin": self.admin_url(),
            "folder": self.folder,
        })
    }

    /// Whether nobody else has its ports.
    fn check_ports(&self, alone: bool) -> Result<()> {
        let tcp = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(drop);
        let udp = |port: u16| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).map(drop);
        let mut tried = vec![(self.clients, tcp(self.clients)), (self.admin, tcp(self.admin))];
        if !alone {
            tried.push((self.peers, udp(self.peers)));
        }
        for (port, bound) in tried {
            bound.with_context(|| {
                format!(
                    "cannot have a port of node {}; stop who uses it, or choose others with \
                     --base-port port={port}",
                    self.id
                )
            })?;
        }
        Ok(())
    }
}

/// The nodes, on a directory that nobody else uses as long as this lives.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) folder: PathBuf,
    pub(super) nodes: Vec<Node>,
    _lock: File,
}

impl Layout {
    /// Lays out `count` nodes in `folder`, which is made if missing. Data of an earlier cluster of
    /// as many nodes stays, everything else is written anew.
    pub(super) fn prepare(folder: &Path, count: u32, base_port: u16) -> Result<Self> {
        let folder = std::path::absolute(folder).context("cannot tell the working directory")?;
        make_folder(&folder)?;
        let lock = lock(&folder)?;
        same_count(&folder, count)?;
        let nodes = nodes(&folder, count, base_port)?;
        for node in &nodes {
            node.check_ports(count == 1)?;
        }
        for node in &nodes {
            make_folder(&node.folder)?;
        }
        if count > 1 {
            write_certificates(&folder, &nodes)?;
        }
        for node in &nodes {
            let file = node.config_file();
            fs::write(&file, configuration(node, &nodes))
                .with_context(|| format!("cannot write file={}", file.display()))?;
        }
        Ok(Self { folder, nodes, _lock: lock })
    }
}

fn nodes(folder: &Path, count: u32, base_port: u16) -> Result<Vec<Node>> {
    let port = |offset: u32| u16::try_from(u32::from(base_port) + offset);
    (0..count)
        .map(|index| {
            let [clients, admin, peers] = [0, 1, 2].map(|which| port(index * PORTS + which));
            Ok(Node {
                id: index + 1,
                folder: folder.join(format!("node-{}", index + 1)),
                clients: clients?,
                admin: admin?,
                peers: peers?,
            })
        })
        .collect::<Result<_, std::num::TryFromIntError>>()
        .with_context(|| {
            let most = u32::from(u16::MAX) + 1 - count * PORTS;
            format!("each node takes {PORTS} ports; use --base-port {most} or less base_port={base_port}")
        })
}

fn make_folder(folder: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot make the directory dir={}", folder.display()))
}

fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let file =
        File::create(&path).with_context(|| format!("cannot write file={}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(error) if io::Error::from(error).kind() == io::ErrorKind::WouldBlock => bail!(
            "another dev-cluster runs here; stop it, or choose another --data-dir dir={}",
            folder.display()
        ),
        Err(error) => Err(error).with_context(|| format!("cannot lock file={}", path.display())),
    }
}

/// A cluster's data is of no use to another number of nodes: its members are recorded in it.
fn same_count(folder: &Path, count: u32) -> Result<()> {
    let there = fs::read_dir(folder)
        .with_context(|| format!("cannot read the directory dir={}", folder.display()))?
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with("node-")))
        .count();
    if there != 0 && u32::try_from(there) != Ok(count) {
        bail!(
            "this directory has a cluster of {there} nodes; use --nodes {there}, or choose another \
             --data-dir dir={}",
            folder.display()
        );
    }
    Ok(())
}

/// New ones at each start, when no node runs: so no authority's key is kept, and none expires.
fn write_certificates(folder: &Path, nodes: &[Node]) -> Result<()> {
    let folder = folder.join("certificates");
    make_folder(&folder)?;
    let authority = Authority::throw_away()?;
    for node in nodes {
        authority.write_node(&folder, CLUSTER, NodeId(node.id))?;
    }
    Ok(())
}

/// Its paths are relative to it, so that none needs to be quoted.
fn configuration(node: &Node, nodes: &[Node]) -> String {
    let Node { id, clients, admin, peers, .. } = node;
    let mut text = format!(
        "# Written by `flintmq dev-cluster` at each start.\n\
         cluster = \"{CLUSTER}\"\n\
         [node]\n\
         id = {id}\n\
         data_dir = \"data\"\n\
         disk_reserve = \"64MiB\"\n\
         [clients]\n\
         listen = [\"tcp://127.0.0.1:{clients}\"]\n\
         [admin]\n\
         listen = \"127.0.0.1:{admin}\"\n"
    );
    if nodes.len() > 1 {
        text += &format!(
            "[peers]\n\
             listen = \"127.0.0.1:{peers}\"\n\
             certificate = \"../certificates/node-{id}.pem\"\n\
             key = \"../certificates/node-{id}.key\"\n\
             ca = \"../certificates/authority.pem\"\n"
        );
        for Node { id, peers, .. } in nodes {
            text += &format!("[[cluster_nodes]]\nid = {id}\npeers = \"127.0.0.1:{peers}\"\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use flintmq_broker::config::{NodeConfig, Overrides};

    /// Ports that the tests of this file have for themselves; each takes the next ones.
    const BASE: u16 = 9_400;

    #[test]
    fn a_single_node_is_a_valid_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(&dir.path().join("new"), 1, BASE).unwrap();
        let [node] = &layout.nodes[..] else { panic!("{layout:?}") };
        let config = NodeConfig::load(&node.config_file(), &Overrides::default()).unwrap();
        assert_eq!(config.clients.listen[0].to_string(), node.clients_url());
        assert_eq!(format!("http://{}", config.admin.listen), node.admin_url());
        assert_eq!(config.node.data_dir, node.folder.join("data"));
        assert!(!config.cluster().has_peers());
    }

    #[test]
    fn three_nodes_know_each_other_and_have_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(dir.path(), 3, BASE + 10).unwrap();
        let mut addresses = Vec::new();
        for node in &layout.nodes {
            let text = fs::read_to_string(node.config_file()).unwrap();
            match NodeConfig::load(&node.config_file(), &Overrides::default()) {
                Ok(config) => {
                    let cluster = config.cluster();
                    assert_eq!((cluster.node, cluster.nodes.len()), (node.id, 3));
                    assert_eq!(config.advice(), []);
                }
                Err(error) => {
                    let told = error.to_string();
                    assert!(told.lines().all(|line| line.contains("not served yet")), "{told}");
                }
            }
            addresses.push(text.lines().filter(|line| line.starts_with("peers = ")).count());
            for suffix in ["pem", "key"] {
                let file = dir.path().join(format!("certificates/node-{}.{suffix}", node.id));
                assert!(file.is_file(), "{}", file.display());
            }
        }
        assert_eq!(addresses, [3, 3, 3]);
    }

    #[test]
    fn a_directory_belongs_to_one_cluster_of_one_size() {
        let dir = tempfile::tempdir().unwrap();
        let first = Layout::prepare(dir.path(), 3, BASE + 20).unwrap();
        let again = Layout::prepare(dir.path(), 3, BASE + 20).unwrap_err().to_string();
        assert!(again.starts_with("another dev-cluster runs here"), "{again}");
        drop(first);
        let fewer = Layout::prepare(dir.path(), 1, BASE + 20).unwrap_err().to_string();
        assert!(fewer.contains("use --nodes 3"), "{fewer}");
        Layout::prepare(dir.path(), 3, BASE + 30).unwrap();
    }

    #[test]
    fn ports_are_looked_at_before_anything_starts() {
        let dir = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let refusal = Layout::prepare(dir.path(), 1, port).unwrap_err();
        assert!(format!("{refusal:#}").contains("--base-port"), "{refusal:#}");
        let beyond = Layout::prepare(dir.path(), 3, 65_530).unwrap_err().to_string();
        assert!(beyond.contains("use --base-port 65527 or less"), "{beyond}");
        nodes(dir.path(), 3, 65_527).unwrap();
    }
}
