//! What a run has shown, for people and as JSON.

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::BenchArgs;
use super::load::{Tally, latency_histogram};
use super::sequence::Seen;

/// Gathers what the tasks have seen.
#[derive(Debug)]
pub(crate) struct Report {
    consumers: u32,
    acked: Side,
    consumed: Side,
}

/// All producers, or all consumers.
#[derive(Debug)]
struct Side {
    seen: Seen,
    messages: u64,
    measured_messages: u64,
    seconds: f64,
    latency: Histogram<u64>,
    failed: u64,
    first_failure: Option<String>,
}

/// The result. These names are what scripts rely on.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    acked_per_second: f64,
    consumed_per_second: f64,
    acked: u64,
    consumed: u64,
    lost: u64,
    duplicated: u64,
    failed: u64,
    publish_ack_ms: Latency,
    end_to_end_ms: Latency,
    broker_cpu_seconds: Option<f64>,
    messages_per_broker_cpu_second: Option<f64>,
    measured_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_failure: Option<String>,
}

/// Milliseconds; `null` where nothing was measured.
#[derive(Debug, Serialize)]
struct Latency {
    p50: Option<f64>,
    p99: Option<f64>,
    p999: Option<f64>,
    max: Option<f64>,
}

impl Report {
    pub(crate) fn new(args: &BenchArgs) -> Self {
        Self { consumers: args.consumers, acked: Side::new(), consumed: Side::new() }
    }

    pub(crate) fn add_producer(&mut self, tally: Tally) {
        self.acked.add(tally);
    }

    pub(crate) fn add_consumer(&mut self, tally: Tally) {
        self.consumed.add(tally);
    }

    /// Works out the result; `broker_cpu_seconds` were used in the measured time.
    pub(crate) fn finish(self, broker_cpu_seconds: Option<f64>) -> Outcome {
        let (acked, consumed) = (self.acked, self.consumed);
        let measured = acked.measured_messages.max(consumed.measured_messages) as f64;
        Outcome {
            acked_per_second: acked.per_second(),
            consumed_per_second: consumed.per_second(),
            acked: acked.messages,
            consumed: consumed.messages,
            // Without consumers nobody has looked.
            lost: if self.consumers > 0 { acked.seen.missing_in(&consumed.seen) } else { 0 },
            duplicated: consumed.seen.repeated(),
            failed: acked.failed + consumed.failed,
            publish_ack_ms: Latency::of(&acked.latency),
            end_to_end_ms: Latency::of(&consumed.latency),
            broker_cpu_seconds,
            messages_per_broker_cpu_second: broker_cpu_seconds
                .filter(|seconds| *seconds > 0.0)
                .map(|seconds| measured / seconds),
            measured_seconds: acked.seconds.max(consumed.seconds),
            first_failure: acked.first_failure.or(consumed.first_failure),
        }
    }
}

impl Side {
    fn new() -> Self {
        Self {
            seen: Seen::default(),
            messages: 0,
            measured_messages: 0,
            seconds: 0.0,
            latency: latency_histogram(),
            failed: 0,
            first_failure: None,
        }
    }

    fn add(&mut self, tally: Tally) {
        self.seen.merge(tally.seen);
        self.messages += tally.messages;
        self.measured_messages += tally.measured_messages;
        self.seconds = self.seconds.max(tally.measured.as_secs_f64());
        if let Err(error) = self.latency.add(&tally.latency) {
            tracing::warn!(%error, "latencies were left out");
        }
        self.failed += tally.failed;
        if self.first_failure.is_none() {
            self.first_failure = tally.first_failure;
        }
    }

    fn per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.measured_messages as f64 / self.seconds } else { 0.0 }
    }
}

impl Latency {
    fn of(nanoseconds: &Histogram<u64>) -> Self {
        let milliseconds = |value: u64| (!nanoseconds.is_empty()).then_some(value as f64 / 1e6);
        let quantile = |q| milliseconds(nanoseconds.value_at_quantile(q));
        Self {
            p50: quantile(0.5),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: milliseconds(nanoseconds.max()),
        }
    }

    fn text(&self) -> String {
        let text = |value: Option<f64>| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
        };
        format!(
            "p50 {}  p99 {}  p99.9 {}  max {}",
            text(self.p50),
            text(self.p99),
            text(self.p999),
            text(self.max)
        )
    }
}

impl Outcome {
    /// Whether every message was acknowledged, and every acknowledged one consumed.
    pub(crate) const fn is_clean(&self) -> bool {
        self.lost == 0 && self.failed == 0
    }

    /// Prints to standard output.
    pub(crate) fn print(&self, json: bool) -> Result<()> {
        if json {
            return crate::show::print(&serde_json::to_string(self)?);
        }
        let mut text = format!(
            "acknowledged   {:>12.0} messages/s   {} in all\n\
             consumed       {:>12.0} messages/s   {} in all\n\
             publish to ack {} ms\n\
             end to end     {} ms\n\
             lost {}  duplicated {}  failed {}",
            self.acked_per_second,
            self.acked,
            self.consumed_per_second,
            self.consumed,
            self.publish_ack_ms.text(),
            self.end_to_end_ms.text(),
            self.lost,
            self.duplicated,
            self.failed,
        );
        if let (Some(seconds), Some(rate)) =
            (self.broker_cpu_seconds, self.messages_per_broker_cpu_second)
        {
            text.push_str(&format!(
                "\nbroker CPU     {seconds:.2} s of {:.2} s, {rate:.0} messages per CPU second",
                self.measured_seconds
            ));
        }
        if let Some(failure) = &self.first_failure {
            text.push_str(&format!("\nfirst failure: {failure}"));
        }
        crate::show::print(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_fields_that_scripts_rely_on() {
        let mut latency = latency_histogram();
        latency.saturating_record(2_000_000);
        let report = Report {
            consumers: 1,
            acked: Side { messages: 3, measured_messages: 2, seconds: 2.0, latency, ..Side::new() },
            consumed: Side::new(),
        };
        let json = serde_json::to_value(report.finish(Some(0.5))).unwrap();
        for field in ["acked_per_second", "consumed_per_second", "broker_cpu_seconds"] {
            assert!(json[field].is_number(), "{field}");
        }
        assert_eq!(json["acked"], 3);
        assert_eq!(json["acked_per_second"], 1.0);
        assert_eq!(json["messages_per_broker_cpu_second"], 4.0);
        assert!((json["publish_ack_ms"]["p50"].as_f64().unwrap() - 2.0).abs() < 0.01);
        assert!(json["end_to_end_ms"]["p999"].is_null());
        assert_eq!((&json["lost"], &json["duplicated"]), (&0.into(), &0.into()));
    }
}
