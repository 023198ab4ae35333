//! Prometheus' text format for the metrics that are rendered here rather than by the exporter.

use super::definitions::Metric;
use std::fmt::{Display, Write as _};

/// Text that grows by one metric after the other.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

impl Exposition {
    /// Starts a metric: its `HELP` and `TYPE` lines.
    pub(super) fn metric(&mut self, metric: &Metric) {
        let kind = metric.kind.as_str();
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(self.text, "# HELP {} {}", metric.name, metric.help.replace('\n', " "));
        let _ = writeln!(self.text, "# TYPE {} {kind}", metric.name);
    }

    /// One series: `labels` as made by [`labels`], or empty.
    pub(super) fn value(&mut self, metric: &Metric, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.text, "{} {value}", metric.name),
            _ => writeln!(self.text, "{}{{{labels}}} {value}", metric.name),
        };
    }

    /// A metric with one series.
    pub(super) fn single(&mut self, metric: &Metric, labels: &str, value: impl Display) {
        self.metric(metric);
        self.value(metric, labels, value);
        self.text.push('\n');
    }

    pub(super) fn end(&mut self) {
        self.text.push('\n');
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

/// `a="x",b="y"`, with the values escaped.
pub(super) fn labels(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                c => text.push(c),
            }
        }
        text.push('"');
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn label_values_are_escaped() {
        let text = super::labels(&[("a", "x\"\\\n"), ("b", "(other)")]);
        assert_eq!(text, r#"a="x\"\\\n",b="(other)""#);
    }
}
