//! What the proxy sets out to reach, and whether it did.

use std::fmt;

use serde_json::{Value, json};

use super::{Metric, Report, YARDSTICK};

const OURS: &str = "pgdog";
const TWO_WORKERS: &str = "pgdog-2w";
const TWO_HOSTS: &str = "pgdog-split";
const KIB: f64 = 1024.0;

/// A goal with the figure that decides it.
#[derive(Debug)]
pub(super) struct Judged {
    text: String,
    bound: Bound,
    figure: f64,
}

#[derive(Clone, Copy, Debug)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Judged {
    fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtMost(most) => self.figure <= most,
            Bound::AtLeast(least) => self.figure >= least,
        }
    }

    pub(super) fn to_json(&self) -> Value {
        let (kind, bound) = match self.bound {
            Bound::AtMost(most) => ("at most", most),
            Bound::AtLeast(least) => ("at least", least),
        };
        json!({"goal": self.text, "bound": kind, "value": bound, "figure": self.figure, "met": self.is_met()})
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, bound) = match self.bound {
            Bound::AtMost(most) => ("<=", most),
            Bound::AtLeast(least) => (">=", least),
        };
        let verdict = if self.is_met() { "met" } else { "NOT MET" };
        let decimals = if bound < 100.0 { 2 } else { 0 };
        write!(
            f,
            "{:<58} {word} {bound:<9.decimals$} {:>10.decimals$}  {verdict}",
            self.text, self.figure
        )
    }
}

/// The goals whose figures were measured.
pub(super) fn judged(report: &Report) -> Vec<Judged> {
    let mut goals = Vec::new();
    let mut judge = |text: String, bound: Bound, figure: Option<f64>| {
        goals.extend(figure.map(|figure| Judged {
            text,
            bound,
            figure,
        }))
    };
    for clients in [16, 64] {
        for (protocol, most) in [("simple", 1.0), ("extended", 1.0), ("prepared", 0.85)] {
            let row = format!("S-{protocol}-{clients}");
            judge(
                format!("{row}: CPU per transaction, of pgbouncer's"),
                Bound::AtMost(most),
                report.ratio(&row, Metric::Cpu, OURS),
            );
        }
    }
    for (protocol, most) in [("simple", 1.3), ("extended", 1.15), ("prepared", 1.15)] {
        let row = format!("split-{protocol}-16");
        let times = report.paired(&row, Metric::Cpu, TWO_HOSTS, OURS, |two, one| two / one);
        judge(
            format!("{row}: CPU per transaction, of that with one host"),
            Bound::AtMost(most),
            times.filter(|times| times.is_finite()),
        );
    }
    for protocol in ["simple", "extended", "prepared"] {
        let row = format!("S-{protocol}-1");
        let added = |peer| {
            report.paired(&row, Metric::P50, peer, "direct", |through, direct| {
                through - direct
            })
        };
        if let Some(most) = added(YARDSTICK) {
            judge(
                format!("{row}: µs added to the median latency"),
                Bound::AtMost(most),
                added(OURS),
            );
        }
    }
    judge(
        "S-simple-16: tps of two workers, of pgbouncer's".to_owned(),
        Bound::AtLeast(1.2),
        report.ratio("S-simple-16", Metric::Tps, TWO_WORKERS),
    );
    for (row, most) in [
        ("instructions-simple", 6_000.0),
        ("instructions-prepared", 7_000.0),
    ] {
        judge(
            format!("{row}: instructions per transaction"),
            Bound::AtMost(most),
            report.median(row, Metric::Instructions, OURS),
        );
    }
    for (row, kib) in [("idle-plain", 1.6), ("idle-tls", 10.0)] {
        judge(
            format!("{row}: bytes per idle client"),
            Bound::AtMost(kib * KIB),
            report.median(row, Metric::BytesPerManyClients, OURS),
        );
    }
    goals
}
