//! The one way in which a part of the node says that the whole node must stop.

use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// Set once, by whoever meets a failure that the node must not outlive, such as a failed write of
/// the log. A broker that went on would acknowledge what it may have lost.
#[derive(Clone, Default)]
pub(crate) struct FatalSignal {
    reason: Arc<OnceLock<String>>,
    raised: CancellationToken,
}

impl FatalSignal {
    /// Stops the node for this reason. Only the first reason counts.
    pub(crate) fn raise(&self, reason: impl fmt::Display) {
        let reason = reason.to_string();
        if self.reason.set(reason.clone()).is_ok() {
            tracing::error!(%reason, "this node cannot go on");
        }
        self.raised.cancel();
    }

    /// Runs a task that the node must not outlive: if it panics, the node stops and says so.
    pub(crate) async fn guard<T>(self, what: &'static str, task: impl Future<Output = T>) {
        let mut guard = Guard { fatal: &self, what, ended: false };
        task.await;
        guard.ended = true;
    }

    /// Waits for a failure and tells it.
    pub(crate) async fn raised(&self) -> String {
        self.raised.cancelled().await;
        self.reason.get().cloned().unwrap_or_default()
    }

    /// The failure, if there was one.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }
}

/// Notices that a task ends by a panic.
struct Guard<'a> {
    fatal: &'a FatalSignal,
    what: &'static str,
    ended: bool,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if !self.ended && std::thread::panicking() {
            let what = self.what;
            self.fatal.raise(format!("{what} ended by a panic: see the lines before this one"));
        }
    }
}
