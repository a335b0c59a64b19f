//! Figures as Prometheus reads them.

use std::collections::HashSet;
use std::fmt::Write as _;

use pgdog_backend::stats::Durations;

use super::{Kind, Metric, Point, Sample};

/// The type of the text.
pub(crate) const CONTENT: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Untyped => "untyped",
        }
    }
}

/// The text of some figures. One without a value is left out.
pub(super) fn render(metrics: &[Metric], namespace: &str) -> String {
    let mut text = String::new();
    for metric in metrics.iter().filter(|m| !m.samples.is_empty()) {
        let name = format!("{namespace}{}", metric.name);
        let help = metric.help.replace('\\', "\\\\").replace('\n', "\\n");
        // Strings take everything.
        let _ = write!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {}\n",
            metric.kind.as_str()
        );
        // Prometheus refuses the whole text when a series comes twice: as for two databases of one server that serve as one.
        let mut seen = HashSet::new();
        for sample in &metric.samples {
            let labels = labels(sample);
            if !seen.insert(labels.clone()) {
                continue;
            }
            match &sample.point {
                Point::Number(value) => line(&mut text, &name, "", &labels, *value),
                Point::Durations(durations) => histogram(&mut text, &name, &labels, durations),
            }
        }
    }
    text
}

fn histogram(text: &mut String, name: &str, labels: &str, durations: &Durations) {
    let comma = if labels.is_empty() { "" } else { "," };
    let mut below = 0;
    for (bound, count) in Durations::bounds().zip(durations.counts) {
        below += count;
        let labels = format!("{labels}{comma}le=\"{bound}\"");
        line(text, name, "_bucket", &labels, below as f64);
    }
    let all = durations.count() as f64;
    let labels_of_all = format!("{labels}{comma}le=\"+Inf\"");
    line(text, name, "_bucket", &labels_of_all, all);
    line(text, name, "_sum", labels, durations.sum as f64 / 1e9);
    line(text, name, "_count", labels, all);
}

fn line(text: &mut String, name: &str, suffix: &str, labels: &str, value: f64) {
    // The sum of nothing is -0.
    let value = value + 0.0;
    let _ = match labels {
        "" => writeln!(text, "{name}{suffix} {value}"),
        labels => writeln!(text, "{name}{suffix}{{{labels}}} {value}"),
    };
}

/// Labels as they stand between the braces.
fn labels(sample: &Sample) -> String {
    let mut text = String::new();
    for (label, of) in sample.labels.iter().chain(&sample.label) {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{label}=\"{}\"", escaped(of));
    }
    text
}

fn escaped(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pgdog_backend::stats::PoolCounters;

    use super::*;

    #[test]
    fn figures_have_names_labels_and_values_and_nothing_breaks_out_of_a_label() {
        let labels: Arc<[_]> = [("user", "a\"b\\c\nd".to_owned())].into();
        let state = Some(("state", "idle".to_owned()));
        let pools = Metric {
            name: "pools".into(),
            help: "Pools.".into(),
            kind: Kind::Gauge,
            samples: vec![Sample::new(&labels, state, 1.5)],
        };
        let up = Metric::single("starts_total", "Starts.", Kind::Counter, -0.0);
        let none = Metric::by("none_total", "None.", Kind::Counter, "of", []);
        assert_eq!(
            render(&[pools, none, up], "pgdog_"),
            "# HELP pgdog_pools Pools.\n# TYPE pgdog_pools gauge\npgdog_pools{user=\"a\\\"b\\\\c\\nd\",state=\"idle\"} 1.5\n\
             # HELP pgdog_starts_total Starts.\n# TYPE pgdog_starts_total counter\npgdog_starts_total 0\n"
        );
    }

    #[test]
    fn a_series_comes_once() {
        let twice = [("a", 1.0), ("a", 2.0), ("b", 3.0)];
        let metric = Metric::by("up", "Up.", Kind::Gauge, "host", twice);
        let text = render(&[metric], "");
        let series: Vec<_> = text.lines().filter(|l| !l.starts_with('#')).collect();
        assert_eq!(series, ["up{host=\"a\"} 1", "up{host=\"b\"} 3"]);
    }

    #[test]
    fn a_histogram_counts_what_is_below_each_bound() {
        let counters = PoolCounters::new(1);
        for ns in [1_000, 64_000, 65_000, 100_000_000_000] {
            counters.of(0).query_time.record(ns);
        }
        let point = Point::Durations(Box::new(counters.totals().query_time));
        let metric = Metric {
            name: "query_duration_seconds".into(),
            help: "Time.".into(),
            kind: Kind::Histogram,
            samples: vec![Sample {
                labels: [("user", "u".to_owned())].into(),
                label: None,
                point,
            }],
        };
        let text = render(&[metric], "");
        let has = |line: &str| assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        has("query_duration_seconds_bucket{user=\"u\",le=\"0.000064\"} 2");
        has("query_duration_seconds_bucket{user=\"u\",le=\"0.000128\"} 3");
        has("query_duration_seconds_bucket{user=\"u\",le=\"67.108864\"} 3");
        has("query_duration_seconds_bucket{user=\"u\",le=\"+Inf\"} 4");
        has("query_duration_seconds_sum{user=\"u\"} 100.00013");
        has("query_duration_seconds_count{user=\"u\"} 4");
    }
}
