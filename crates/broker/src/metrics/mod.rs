//! Metrics: their definitions, the series of queues, and the text that `GET /metrics` answers.
//!
//! Three kinds of series meet in one text. Those of queues live in a [`QueueRegistry`], so that
//! they vanish with their queue and their number is bounded. Those of the process are read when
//! asked for. All others are recorded through their [`Metric`] with the `metrics` facade, which
//! lets any crate of the broker record without knowing the exporter.
//!
//! ```
//! use flintmq_broker::metrics::{self, Metrics, RejectReason};
//!
//! let metrics = Metrics::install(1_000)?;
//! metrics::CONNECTIONS.counter(&["tcp"]).increment(1);
//! let queue = metrics.queues().open("shop", "new");
//! queue.published(2, 300);
//! queue.rejected(RejectReason::LimitBytes, 1);
//!
//! let text = metrics.render();
//! assert!(text.contains("flintmq_connections_total{scheme=\"tcp\"} 1"));
//! assert!(text.contains("flintmq_published_bytes_total{domain=\"shop\",queue=\"new\"} 300"));
//! # Ok::<(), metrics::MetricsError>(())
//! ```

mod definitions;
mod exposition;
mod process;
mod queues;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use definitions::*;
pub use process::ProcessFigures;
pub use queues::{DropReason, OTHER, QueueLevels, QueueRegistry, QueueSeries, RejectReason};

use exposition::{Exposition, labels};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use thiserror::Error;

/// How often [`Metrics::upkeep`] wants to be called. Between two calls every observation of a
/// histogram takes eight bytes.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Why metrics cannot be recorded.
#[derive(Debug, Error)]
pub enum MetricsError {
    /// Another recorder is installed in this process.
    #[error("this process records metrics already; install them once per process")]
    Installed,
    /// A histogram's buckets are not accepted; a mistake in the definitions.
    #[error("wrong buckets in a metric's definition: {0}")]
    Buckets(#[source] BuildError),
}

/// All metrics of the node.
#[derive(Debug)]
pub struct Metrics {
    recorded: PrometheusHandle,
    queues: QueueRegistry,
    started: SystemTime,
}

impl Metrics {
    /// Installs the recorder of this process and describes every metric. `max_queues` queues get
    /// series of their own (`metrics.max_queues` of `node.toml`).
    ///
    /// # Errors
    /// [`MetricsError::Installed`] at the second call in a process.
    pub fn install(max_queues: u32) -> Result<Self, MetricsError> {
        let recorder = recorder()?;
        let recorded = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|_| MetricsError::Installed)?;
        describe_all();
        Ok(Self::new(recorded, max_queues))
    }

    /// Metrics that nothing else in the process sees: what the facade records is not in them unless
    /// `recorder` is the local one. For tests that run several nodes in a process.
    ///
    /// # Errors
    /// [`MetricsError::Buckets`], never with the definitions as they are.
    pub fn detached(max_queues: u32) -> Result<(Self, PrometheusRecorder), MetricsError> {
        let recorder = recorder()?;
        metrics::with_local_recorder(&recorder, describe_all);
        Ok((Self::new(recorder.handle(), max_queues), recorder))
    }

    /// The series of queues.
    pub fn queues(&self) -> &QueueRegistry {
        &self.queues
    }

    /// The text for Prometheus, in its exposition format 0.0.4
    /// (`content-type: text/plain; version=0.0.4; charset=utf-8`).
    pub fn render(&self) -> String {
        self.render_at(SystemTime::now())
    }

    /// Moves observations into their buckets; to be called every [`UPKEEP_INTERVAL`].
    pub fn upkeep(&self) {
        self.recorded.run_upkeep();
    }

    fn new(recorded: PrometheusHandle, max_queues: u32) -> Self {
        Self { recorded, queues: QueueRegistry::new(max_queues), started: SystemTime::now() }
    }

    fn render_at(&self, now: SystemTime) -> String {
        let since_1970 = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut out = Exposition::default();
        out.single(&BUILD_INFO, &labels(&[("version", env!("CARGO_PKG_VERSION"))]), 1);
        ProcessFigures::read().render(&mut out);
        out.single(&PROCESS_START, "", since_1970(self.started).as_secs_f64());
        let (queues, folded) = self.queues.counts();
        out.single(&QUEUES, "", queues);
        out.single(&QUEUES_FOLDED, "", folded);
        let now_ms = u64::try_from(since_1970(now).as_millis()).unwrap_or(u64::MAX);
        self.queues.render(now_ms, &mut out);
        let mut text = self.recorded.render();
        text.push_str(&out.into_text());
        text
    }
}

/// Gives the recorder in force the unit and the help text of every metric that goes through the
/// facade.
pub fn describe_all() {
    for metric in recorded() {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.unit, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.unit, metric.help),
            Kind::Histogram(_) => {
                metrics::describe_histogram!(metric.name, metric.unit, metric.help)
            }
        }
    }
}

fn recorder() -> Result<PrometheusRecorder, MetricsError> {
    let mut builder = PrometheusBuilder::new();
    for metric in recorded() {
        if let Kind::Histogram(buckets) = metric.kind {
            let name = Matcher::Full(metric.name.to_owned());
            builder =
                builder.set_buckets_for_metric(name, buckets).map_err(MetricsError::Buckets)?;
        }
    }
    Ok(builder.build_recorder())
}
