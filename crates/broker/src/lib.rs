//! FlintMQ broker.
