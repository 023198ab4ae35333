//! FlintMQ transport.
