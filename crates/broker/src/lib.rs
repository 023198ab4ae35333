//! FlintMQ broker.

pub mod config;
