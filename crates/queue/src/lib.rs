//! FlintMQ queue.
