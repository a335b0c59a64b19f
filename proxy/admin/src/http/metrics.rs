//! Figures as Prometheus reads them.

use std::fmt::Write as _;

/// The type of the text.
pub(super) const CONTENT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How a figure moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only up, from the start of the process.
    Counter,
    /// Up and down.
    Gauge,
}

/// A figure, with one value for each set of labels.
#[derive(Debug, Clone)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub help: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// Labels, and the value.
    pub samples: Vec<(Vec<(&'static str, String)>, f64)>,
}

impl Metric {
    /// One without labels.
    #[must_use]
    pub fn single(name: &'static str, help: &'static str, kind: Kind, value: f64) -> Self {
        Self {
            name,
            help,
            kind,
            samples: vec![(Vec::new(), value)],
        }
    }
}

pub(super) fn render(metrics: &[Metric], namespace: &str) -> String {
    let mut text = String::new();
    for Metric {
        name,
        help,
        kind,
        samples,
    } in metrics
    {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Strings take everything.
        let _ = write!(
            text,
            "# HELP {namespace}{name} {help}\n# TYPE {namespace}{name} {kind}\n"
        );
        for (labels, value) in samples {
            let _ = write!(text, "{namespace}{name}");
            for (index, (label, of)) in labels.iter().enumerate() {
                let before = if index == 0 { '{' } else { ',' };
                let _ = write!(text, "{before}{label}=\"{}\"", escaped(of));
            }
            if !labels.is_empty() {
                text.push('}');
            }
            let _ = writeln!(text, " {value}");
        }
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
    use super::*;

    #[test]
    fn figures_have_names_labels_and_values_and_nothing_breaks_out_of_a_label() {
        let labels = vec![
            ("user", "a\"b\\c\nd".to_owned()),
            ("database", "x".to_owned()),
        ];
        let pools = Metric {
            name: "pools",
            help: "Pools.",
            kind: Kind::Gauge,
            samples: vec![(labels, 1.5)],
        };
        let up = Metric::single("starts_total", "Starts.", Kind::Counter, 2.0);
        assert_eq!(
            render(&[pools, up], "pgdog_"),
            "# HELP pgdog_pools Pools.\n# TYPE pgdog_pools gauge\npgdog_pools{user=\"a\\\"b\\\\c\\nd\",database=\"x\"} 1.5\n\
             # HELP pgdog_starts_total Starts.\n# TYPE pgdog_starts_total counter\npgdog_starts_total 2\n"
        );
    }
}
