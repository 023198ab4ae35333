//! FlintMQ broker.

pub mod config;
pub mod domain;
pub mod logging;
pub mod metrics;
pub mod tls;
