//! The text format of Prometheus: families with help and type, samples with labels, histograms.
//!
//! Written by hand, as it is three kinds of lines. Does without time stamps, exemplars and OpenMetrics.

use std::fmt::{Display, Write};

use evocache_proto::text::plain;

use crate::engine::Buckets;

/// A text that grows by one family of samples at a time.
#[derive(Debug, Default)]
pub(super) struct Exposition(String);

impl Exposition {
    /// Begins a family; its samples must follow.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    /// A family with one sample.
    pub(super) fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// A sample.
    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels = show(labels);
        self.line(format_args!("{name}{labels} {value}"));
    }

    /// A histogram's buckets, sum and count.
    pub(super) fn histogram(&mut self, name: &str, labels: &[(&str, &str)], buckets: &Buckets) {
        let bucket = format!("{name}_bucket");
        for (limit, below) in &buckets.limits {
            let limit = limit.to_string();
            self.sample(&bucket, &[labels, &[("le", limit.as_str())]].concat(), below);
        }
        self.sample(&bucket, &[labels, &[("le", "+Inf")]].concat(), buckets.count);
        self.sample(&format!("{name}_sum"), labels, buckets.sum);
        self.sample(&format!("{name}_count"), labels, buckets.count);
    }

    /// The complete text.
    pub(super) fn finish(self) -> String {
        self.0
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "{line}");
    }
}

fn show(labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let escape = |text: &str| plain(text).replace('\\', "\\\\").replace('"', "\\\"");
    let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
    format!("{{{}}}", labels.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let mut text = Exposition::default();
        text.single("up", "gauge", "Is it.", 1);
        text.family("took_seconds", "histogram", "How long.");
        let buckets = Buckets { limits: vec![(0.5, 1), (1.0, 2)], count: 3, sum: 9.25 };
        text.histogram("took_seconds", &[("of", "a\"b\\\u{1b}")], &buckets);
        let meant = r#"# HELP up Is it.
# TYPE up gauge
up 1
# HELP took_seconds How long.
# TYPE took_seconds histogram
took_seconds_bucket{of="a\"b\\\\u{1b}",le="0.5"} 1
took_seconds_bucket{of="a\"b\\\\u{1b}",le="1"} 2
took_seconds_bucket{of="a\"b\\\\u{1b}",le="+Inf"} 3
took_seconds_sum{of="a\"b\\\\u{1b}"} 9.25
took_seconds_count{of="a\"b\\\\u{1b}"} 3
"#;
        assert_eq!(text.finish(), meant);
    }
}
