//! FlintMQ storage.
