//! FlintMQ protocol.
