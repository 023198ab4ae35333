//! FlintMQ broker.

pub mod config;
pub mod domain;
