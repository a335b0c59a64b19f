//! Load from pgbench: what it did, and how long each transaction took.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::peer::Running;
use crate::postgres::Postgres;
use crate::process::Usage;
use crate::report::{Figures, Metric};

/// The protocol of pgbench's queries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Protocol {
    Simple,
    Extended,
    Prepared,
}

impl Protocol {
    pub(crate) const ALL: [Self; 3] = [Self::Simple, Self::Extended, Self::Prepared];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Prepared => "prepared",
        }
    }
}

/// How long a run is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Length {
    Time(Duration),
    /// So many transactions of each client.
    Transactions(u64),
}

/// One run of pgbench.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) protocol: Protocol,
    /// `select-only` or `tpcb-like`.
    pub(crate) script: &'static str,
    pub(crate) clients: u32,
    pub(crate) length: Length,
    /// A new connection for each transaction.
    pub(crate) reconnect: bool,
    pub(crate) tls: bool,
}

impl Load {
    /// Reads by primary key.
    pub(crate) fn select(protocol: Protocol, clients: u32, length: Length) -> Self {
        Self {
            protocol,
            script: "select-only",
            clients,
            length,
            reconnect: false,
            tls: false,
        }
    }

    /// Runs the load against the peer and gives throughput, latency and what the proxy spent.
    pub(crate) fn measure(
        &self,
        postgres: &Postgres,
        running: &Running,
        folder: &Path,
    ) -> Result<Figures> {
        // Server connections are opened, plans made and caches filled before the clock runs.
        Self {
            length: Length::Transactions(if self.reconnect { 2 } else { 50 }),
            ..*self
        }
        .run(postgres, running.port, None)?;
        let logs = folder.join("latency");
        drop(fs::remove_dir_all(&logs));
        fs::create_dir_all(&logs).context("create a folder for pgbench's logs")?;
        let before = Usage::of(running.pid())?;
        let (transactions, tps) = self.run(postgres, running.port, Some(&logs))?;
        let used = Usage::of(running.pid())?.since(before);
        let mut figures = vec![(Metric::Tps, tps)];
        let mut latencies = read_latencies(&logs)?;
        latencies.sort_unstable();
        if let (Some(p50), Some(p99)) = (percentile(&latencies, 0.50), percentile(&latencies, 0.99))
        {
            figures.extend([(Metric::P50, p50), (Metric::P99, p99)]);
        }
        if running.pid().is_some() {
            figures.extend([
                (Metric::Cpu, used.cpu_us() / transactions),
                (Metric::User, used.user_us / transactions),
                (Metric::Sys, used.sys_us / transactions),
                (Metric::Switches, used.switches / transactions),
            ]);
        }
        Ok(figures)
    }

    /// Runs pgbench; gives the number of transactions and their rate.
    pub(crate) fn run(
        &self,
        postgres: &Postgres,
        port: u16,
        logs: Option<&Path>,
    ) -> Result<(f64, f64)> {
        let mut command = postgres.program("pgbench", port);
        let threads = if self.clients == 1 { 1 } else { 2 };
        command.args(["-n", "-M", self.protocol.name(), "-b", self.script]);
        command.args(["-c", &self.clients.to_string(), "-j", &threads.to_string()]);
        match self.length {
            Length::Time(time) => command.args(["-T", &time.as_secs().max(1).to_string()]),
            Length::Transactions(count) => command.args(["-t", &count.to_string()]),
        };
        if self.reconnect {
            command.arg("-C");
        }
        if self.tls {
            command.env("PGSSLMODE", "require");
        }
        if let Some(logs) = logs {
            command.arg("-l").arg("--log-prefix").arg(logs.join("log"));
            // Writing every latency down would cost the machine more than the proxy does.
            if self.clients > 1 && !self.reconnect {
                command.arg("--sampling-rate=0.1");
            }
        }
        parse(&mut command)
    }
}

fn parse(command: &mut Command) -> Result<(f64, f64)> {
    let output = command.output().context("run pgbench")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("pgbench: {}", errors.lines().last().unwrap_or("failed"));
    }
    let after = |mark: &str| -> Result<f64> {
        let rest = text
            .lines()
            .find_map(|line| line.strip_prefix(mark))
            .with_context(|| format!("find '{mark}' in what pgbench says"))?;
        let number = rest
            .split([' ', '/'])
            .find(|word| !word.is_empty())
            .unwrap_or_default();
        number
            .parse()
            .with_context(|| format!("read '{mark}' of pgbench"))
    };
    // Transactions that failed are not counted as processed: then CPU per transaction would be wrong, so nothing is.
    let failed = after("number of failed transactions:").unwrap_or(0.0);
    anyhow::ensure!(failed == 0.0, "pgbench: {failed} transactions failed");
    let transactions = after("number of transactions actually processed:")?;
    anyhow::ensure!(transactions > 0.0, "pgbench: no transactions");
    Ok((transactions, after("tps =")?))
}

/// The third word of each line of pgbench's log is a latency in microseconds.
fn read_latencies(logs: &Path) -> Result<Vec<u32>> {
    let mut latencies = Vec::new();
    for entry in fs::read_dir(logs).context("read pgbench's logs")? {
        let text = fs::read_to_string(entry.context("read pgbench's logs")?.path())
            .context("read pgbench's logs")?;
        latencies.extend(
            text.lines()
                .filter_map(|line| line.split(' ').nth(2)?.parse::<u32>().ok()),
        );
    }
    Ok(latencies)
}

fn percentile(sorted: &[u32], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let index = (last as f64 * share).round() as usize;
    sorted.get(index).copied().map(f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_taken_from_the_sorted_values() {
        let values: Vec<u32> = (0..=100).collect();
        assert_eq!(percentile(&values, 0.5), Some(50.0));
        assert_eq!(percentile(&values, 0.99), Some(99.0));
        assert_eq!(percentile(&[], 0.5), None);
    }
}
