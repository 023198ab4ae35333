//! The FlintMQ server: sessions, partitions, the controller and the administration, joined into one
//! node.
//!
//! A message passes through the modules in this order: `session` reads it from a client and hands
//! it to `host`, whose task runs the node's shard (`flintmq_shard`): the partition's engine
//! (`flintmq_partition`) proposes it to its group's log, applies the committed entry, acknowledges
//! it to the producer, and gives the message to a consumer's session. `controller` knows which
//! queue lives in which partition, `admin` answers operators, `server` starts and stops all of it.
//! `cluster` is the way to the other nodes.
//!
//! A program embeds a node like this; the binary `flintmq serve` does no more than read flags and
//! signals around it:
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use flintmq_broker::Broker;
//! use flintmq_broker::config::{NodeConfig, Overrides};
//! use flintmq_broker::metrics::Metrics;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let config = NodeConfig::without_file(&Overrides::default())?;
//! let metrics = Arc::new(Metrics::install(config.metrics.max_queues)?);
//! let broker = Broker::start(config, metrics).await?;
//! println!("clients connect to {:?}", broker.client_urls());
//! let reason = broker.failed().await;
//! eprintln!("stopping: {reason}");
//! broker.stop().await?;
//! # Ok(())
//! # }
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod admin;
mod cluster;
pub mod config;
mod controller;
mod domain_settings;
mod entry_reader;
mod fatal;
mod first_domains;
mod group_telemetry;
mod groups;
mod host;
mod link;
pub mod logging;
pub mod metrics;
mod operations;
mod queue_removal;
mod server;
mod session;
mod starting;
mod telemetry;
mod thread;
pub mod tls;

pub use admin::AdminError;
pub use flintmq_controller::domain;
pub use groups::GroupsError;
pub use server::{Broker, ReloadError, StartError, StopError};
pub use session::listener::ListenError;
