//! FlintMQ client.
