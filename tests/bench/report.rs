//! The figures: medians, ratios to pgbouncer within a round, goals, JSON.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::peer::Peer;
use crate::rows::Row;

mod goals;

/// The peer that ratios are taken to.
const YARDSTICK: &str = "pgbouncer";

/// What one measurement gives.
pub(crate) type Figures = Vec<(Metric, f64)>;

/// A quantity; the order is that of the table.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Metric {
    Tps,
    P50,
    P99,
    Cpu,
    User,
    Sys,
    Switches,
    MegabytesPerSecond,
    CpuPerGb,
    UserPerGb,
    SysPerGb,
    BulkSwitches,
    BytesPerFewClients,
    BytesPerManyClients,
    Resident,
    IdleCpu,
    Instructions,
    Sends,
}

impl Metric {
    /// Name in the table and in JSON.
    fn name(self) -> &'static str {
        match self {
            Self::Tps => "tps",
            Self::P50 => "p50 µs",
            Self::P99 => "p99 µs",
            Self::Cpu => "proxy CPU µs/tx",
            Self::User => "  user µs/tx",
            Self::Sys => "  system µs/tx",
            Self::Switches => "context switches/tx",
            Self::MegabytesPerSecond => "MB/s",
            Self::CpuPerGb => "proxy CPU s/GB",
            Self::UserPerGb => "  user s/GB",
            Self::SysPerGb => "  system s/GB",
            Self::BulkSwitches => "context switches",
            Self::BytesPerFewClients => "bytes/client, fewer",
            Self::BytesPerManyClients => "bytes/client, all",
            Self::Resident => "resident MiB, all",
            Self::IdleCpu => "CPU % while idle",
            Self::Instructions => "instructions/tx",
            Self::Sends => "sends/pipeline",
        }
    }

    fn decimals(self) -> usize {
        match self {
            Self::Tps
            | Self::P50
            | Self::P99
            | Self::BulkSwitches
            | Self::BytesPerFewClients
            | Self::BytesPerManyClients
            | Self::Instructions
            | Self::MegabytesPerSecond => 0,
            Self::Switches | Self::CpuPerGb | Self::UserPerGb | Self::SysPerGb => 2,
            Self::Cpu | Self::User | Self::Sys | Self::Resident | Self::IdleCpu | Self::Sends => 1,
        }
    }
}

/// Row, metric and peer of a series of figures, by round.
type Key = (String, Metric, &'static str);

/// All that was measured.
#[derive(Debug)]
pub(crate) struct Report {
    facts: Vec<(&'static str, String)>,
    figures: BTreeMap<Key, BTreeMap<usize, f64>>,
    peers: Vec<&'static str>,
    failures: Vec<String>,
}

impl Report {
    pub(crate) fn new(facts: Vec<(&'static str, String)>) -> Self {
        Self {
            facts,
            figures: BTreeMap::new(),
            peers: Vec::new(),
            failures: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, row: &Row, peer: &Peer, round: usize, figures: Figures) {
        if !self.peers.contains(&peer.name) {
            self.peers.push(peer.name);
        }
        for (metric, value) in figures {
            self.figures
                .entry((row.name(), metric, peer.name))
                .or_default()
                .insert(round, value);
        }
    }

    pub(crate) fn fail(&mut self, row: &Row, peer: &Peer, round: usize, why: &anyhow::Error) {
        self.failures.push(format!(
            "{} on {}, round {}: {why:#}",
            row.name(),
            peer.name,
            round + 1
        ));
    }

    /// Whether all that was asked for was measured.
    pub(crate) fn is_complete(&self) -> bool {
        self.failures.is_empty()
    }

    fn median(&self, row: &str, metric: Metric, peer: &'static str) -> Option<f64> {
        median(
            self.figures
                .get(&(row.to_owned(), metric, peer))?
                .values()
                .copied()
                .collect(),
        )
    }

    /// The median over rounds of `combine(peer, other)`, both of the same round.
    fn paired(
        &self,
        row: &str,
        metric: Metric,
        peer: &'static str,
        other: &'static str,
        combine: fn(f64, f64) -> f64,
    ) -> Option<f64> {
        let of = |name| self.figures.get(&(row.to_owned(), metric, name));
        let (mine, theirs) = (of(peer)?, of(other)?);
        median(
            mine.iter()
                .filter_map(|(round, value)| Some(combine(*value, *theirs.get(round)?)))
                .collect(),
        )
    }

    fn ratio(&self, row: &str, metric: Metric, peer: &'static str) -> Option<f64> {
        self.paired(row, metric, peer, YARDSTICK, |mine, theirs| mine / theirs)
            .filter(|ratio| ratio.is_finite())
    }

    /// The block of one row: a line per metric, a column per peer.
    pub(crate) fn row(&self, row: &Row) -> String {
        let name = row.name();
        let mut metrics: Vec<Metric> = self
            .figures
            .keys()
            .filter(|(of, ..)| *of == name)
            .map(|(_, metric, _)| *metric)
            .collect();
        metrics.dedup();
        metrics.sort_unstable();
        metrics.dedup();
        if metrics.is_empty() {
            return format!("\n{name}: nothing was measured\n");
        }
        let peers: Vec<&'static str> = self
            .peers
            .iter()
            .copied()
            .filter(|peer| {
                metrics
                    .iter()
                    .any(|metric| self.median(&name, *metric, peer).is_some())
            })
            .collect();
        let mut text = format!("\n{name:<22}");
        peers
            .iter()
            .for_each(|peer| text.push_str(&format!("{peer:>20}")));
        for metric in metrics {
            text.push_str(&format!("\n  {:<20}", metric.name()));
            for peer in &peers {
                let decimals = metric.decimals();
                let cell = match (
                    self.median(&name, metric, peer),
                    self.ratio(&name, metric, peer),
                ) {
                    (None, _) => "–".to_owned(),
                    (Some(value), Some(ratio)) if *peer != YARDSTICK => {
                        format!("{value:.decimals$} ×{ratio:.2}")
                    }
                    (Some(value), _) => format!("{value:.decimals$}"),
                };
                text.push_str(&format!("{cell:>20}"));
            }
        }
        text.push('\n');
        text
    }

    /// What could not be measured.
    pub(crate) fn failures(&self) -> String {
        if self.failures.is_empty() {
            return String::new();
        }
        self.failures
            .iter()
            .fold("\nNOT MEASURED\n".to_owned(), |mut text, failure| {
                text.push_str(&format!("  {failure}\n"));
                text
            })
    }

    /// Writes everything down; gives the file.
    pub(crate) fn write(&self, folder: &Path) -> Result<PathBuf> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs());
        let path = folder.join(format!("bench-{seconds}.json"));
        let text =
            serde_json::to_string_pretty(&self.to_json(seconds)).context("write the figures")?;
        fs::write(&path, text + "\n").with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    fn to_json(&self, seconds: u64) -> Value {
        let facts: Map<String, Value> = self
            .facts
            .iter()
            .map(|(name, text)| ((*name).to_owned(), json!(text)))
            .collect();
        let figures: Vec<Value> = self
            .figures
            .iter()
            .map(|((row, metric, peer), rounds)| {
                json!({
                    "row": row,
                    "metric": metric.name().trim(),
                    "peer": peer,
                    "rounds": rounds.values().collect::<Vec<_>>(),
                    "median": self.median(row, *metric, peer),
                    "ratio": self.ratio(row, *metric, peer),
                })
            })
            .collect();
        let goals: Vec<Value> = goals::judged(self)
            .iter()
            .map(goals::Judged::to_json)
            .collect();
        json!({"time": seconds, "facts": facts, "figures": figures, "goals": goals, "failures": self.failures})
    }

    /// The goals beside the figures, and what the figures were taken on.
    pub(crate) fn goals(&self) -> String {
        let mut text = String::new();
        let judged = goals::judged(self);
        if !judged.is_empty() {
            text.push_str("\nGOALS\n");
            judged
                .iter()
                .for_each(|goal| text.push_str(&format!("  {goal}\n")));
        }
        text.push_str("\nTAKEN ON\n");
        self.facts
            .iter()
            .for_each(|(name, fact)| text.push_str(&format!("  {name:<12}{fact}\n")));
        text.push_str("  ×N is the median of the ratios to pgbouncer in the same round\n");
        text
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(Vec::new()), None);
    }
}
