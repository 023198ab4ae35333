//! `node.toml`: what one node needs to know before it starts.
//!
//! [`NodeConfig::load`] reads a file, lets flags override it and refuses whatever is unknown, of
//! the wrong type, impossible, or not served by this version, each with file and line.
//! [`NodeConfig::without_file`] is the same for `flintmq serve` without a file. A value that came
//! through either can be run as it is.
//!
//! ```
//! use flintmq_broker::config::{NodeConfig, Overrides};
//!
//! let config = NodeConfig::without_file(&Overrides::default())?;
//! assert_eq!(config.clients.listen[0].to_string(), "tcp://127.0.0.1:30114");
//!
//! let error = NodeConfig::parse("[node]\nid = 0\n", "node.toml").unwrap_err();
//! assert_eq!(error.to_string(), "node.toml:2: node.id: node ids start at 1 value=0");
//! # Ok::<(), flintmq_broker::config::ConfigError>(())
//! ```

mod check;
mod cluster;
mod cluster_checks;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod cluster_tests;
mod error;
mod listen;
mod overrides;
mod sections;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use check::Problem;
pub use cluster::{BootstrapSection, ClusterConfig, ClusterNode, PeersSection, TimingSection};
pub(crate) use cluster_checks::is_peer_address;
pub use error::ConfigError;
pub use listen::{DEFAULT_PORT, ListenScheme, ListenUrl, ListenUrlError};
pub use overrides::Overrides;
pub use sections::{
    AdminSection, ClientsSection, DomainsSection, Durability, LimitsSection, LogFormat, LogSection,
    MetricsSection, NodeSection, UndefinedDomain,
};

use error::Places;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Largest `node.toml` that is read, in bytes: more is a mistaken path, not a configuration.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The configuration of one node: one field per section of `node.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// Name of the cluster; a data directory of another cluster is refused.
    pub cluster: String,
    /// Identity and data.
    pub node: NodeSection,
    /// Where clients connect.
    pub clients: ClientsSection,
    /// HTTP for administration.
    pub admin: AdminSection,
    /// Domains that nobody defined.
    pub domains: DomainsSection,
    /// Bounds on what clients can make the node hold.
    pub limits: LimitsSection,
    /// The process's log.
    pub log: LogSection,
    /// What `/metrics` shows.
    pub metrics: MetricsSection,
    /// First start of a data directory.
    pub bootstrap: BootstrapSection,
    /// Elections.
    pub timing: TimingSection,
    /// Traffic between nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<PeersSection>,
    /// First members of the cluster.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cluster_nodes: Vec<ClusterNode>,
}

impl Default for NodeConfig {
    /// What `flintmq serve` runs without a file.
    fn default() -> Self {
        Self {
            cluster: "dev".to_owned(),
            node: NodeSection::default(),
            clients: ClientsSection::default(),
            admin: AdminSection::default(),
            domains: DomainsSection::default(),
            limits: LimitsSection::default(),
            log: LogSection::default(),
            metrics: MetricsSection::default(),
            bootstrap: BootstrapSection::default(),
            timing: TimingSection::default(),
            peers: None,
            cluster_nodes: Vec::new(),
        }
    }
}

impl NodeConfig {
    /// Reads `file`, applies `overrides`, and checks everything that can be checked without
    /// touching the network or the data directory; the files of `[peers]` must be readable.
    /// Relative paths of the file are relative to the file's directory, those of flags to the
    /// working directory.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, the line and what is allowed there; all impossible values at
    /// once.
    pub fn load(file: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        let text = read(file)?;
        let name = file.display().to_string();
        let (mut config, mut places) = Self::parse_with_places(&text, &name)?;
        config.resolve_paths(file.parent().unwrap_or_else(|| Path::new("")));
        overrides.apply(&mut config, &mut places);
        let config = config.checked(&places)?;
        let found = cluster_checks::unreadable_files(&config);
        if found.is_empty() { Ok(config) } else { Err(ConfigError::problems(&found, &places)) }
    }

    /// The defaults with `overrides`, for a node without a file.
    ///
    /// # Errors
    /// [`ConfigError`] names the flag and what is allowed.
    pub fn without_file(overrides: &Overrides) -> Result<Self, ConfigError> {
        let mut places = Places::default();
        let mut config = Self::default();
        overrides.apply(&mut config, &mut places);
        config.checked(&places)
    }

    /// Parses and checks the text of a `node.toml`; `name` stands for the file in errors. Paths
    /// stay as written.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str, name: &str) -> Result<Self, ConfigError> {
        let (config, places) = Self::parse_with_places(text, name)?;
        config.checked(&places)
    }

    /// Everything impossible in this configuration, in the order of the sections; empty when there
    /// is nothing.
    pub fn problems(&self) -> Vec<Problem> {
        check::problems(self)
    }

    /// Everything in this configuration that is well-formed but not served by this version yet.
    pub fn not_served_yet(&self) -> Vec<Problem> {
        check::not_served_yet(self)
    }

    /// What would work and is most probably not meant, to be told at start: an even number of
    /// replicas, for example. Never a reason to refuse.
    pub fn advice(&self) -> Vec<Problem> {
        cluster_checks::advice(self)
    }

    fn parse_with_places(text: &str, name: &str) -> Result<(Self, Places), ConfigError> {
        let config = toml::from_str(text).map_err(|e| ConfigError::syntax(text, name, &e))?;
        Ok((config, Places::of(text, name)))
    }

    fn checked(self, places: &Places) -> Result<Self, ConfigError> {
        let mut found = self.problems();
        if found.is_empty() {
            found = self.not_served_yet();
        }
        if found.is_empty() { Ok(self) } else { Err(ConfigError::problems(&found, places)) }
    }

    fn resolve_paths(&mut self, directory: &Path) {
        let resolve = |path: &mut PathBuf| *path = directory.join(&*path);
        resolve(&mut self.node.data_dir);
        let optional = [
            &mut self.clients.certificate,
            &mut self.clients.key,
            &mut self.clients.client_ca,
            &mut self.admin.token_file,
            &mut self.bootstrap.domains_dir,
        ];
        optional.into_iter().flatten().for_each(resolve);
        if let Some(peers) = &mut self.peers {
            resolve(&mut peers.certificate);
            resolve(&mut peers.key);
            resolve(&mut peers.ca);
        }
    }
}

fn read(file: &Path) -> Result<String, ConfigError> {
    use std::io::Read;
    let unreadable = |source| ConfigError::Unreadable { file: file.to_owned(), source };
    let opened = std::fs::File::open(file).map_err(unreadable)?;
    let mut bytes = Vec::new();
    opened.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::TooLong { file: file.to_owned(), limit: MAX_FILE_BYTES });
    }
    String::from_utf8(bytes).map_err(|e| ConfigError::NotText {
        file: file.to_owned(),
        offset: e.utf8_error().valid_up_to(),
    })
}
