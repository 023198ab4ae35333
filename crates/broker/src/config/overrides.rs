//! Flags of the command line that win over the file.

use super::NodeConfig;
use super::error::Places;
use super::listen::ListenUrl;
use super::sections::LogFormat;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Values given by flags; `None` (or an empty list) leaves what the file or the default says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--data-dir`, relative to the working directory.
    pub data_dir: Option<PathBuf>,
    /// `--listen`, repeatable; replaces the whole list.
    pub listen: Vec<ListenUrl>,
    /// `--admin`.
    pub admin: Option<SocketAddr>,
    /// `--node-id`.
    pub node_id: Option<u32>,
    /// `--log-format`.
    pub log_format: Option<LogFormat>,
    /// `--log-level`, or the environment's `FLINTMQ_LOG`.
    pub log_level: Option<String>,
}

impl Overrides {
    pub(super) fn apply(&self, config: &mut NodeConfig, places: &mut Places) {
        if let Some(data_dir) = &self.data_dir {
            config.node.data_dir.clone_from(data_dir);
            places.set_flag("node.data_dir", "--data-dir");
        }
        if !self.listen.is_empty() {
            config.clients.listen.clone_from(&self.listen);
            places.set_flag("clients.listen", "--listen");
        }
        if let Some(admin) = self.admin {
            config.admin.listen = admin;
            places.set_flag("admin.listen", "--admin");
        }
        if let Some(id) = self.node_id {
            config.node.id = id;
            places.set_flag("node.id", "--node-id");
        }
        if let Some(format) = self.log_format {
            config.log.format = format;
            places.set_flag("log.format", "--log-format");
        }
        if let Some(level) = &self.log_level {
            config.log.level.clone_from(level);
            places.set_flag("log.level", "--log-level");
        }
    }
}
