//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// Measures the proxy beside its peers.
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub(crate) struct Args {
    /// Only the rows whose names begin so, separated by commas (S-simple,idle)
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// How often each row is measured
    #[arg(long)]
    rounds: Option<usize>,
    /// How long one measurement of a row lasts
    #[arg(long)]
    seconds: Option<u64>,
    /// One short round with less data: shows that everything runs, not what it costs
    #[arg(long)]
    pub(crate) quick: bool,
    /// The proxy [default: target/release/pgdog]
    #[arg(long, value_name = "PATH")]
    pgdog: Option<PathBuf>,
    /// pgbouncer, else the one in PATH
    #[arg(long, value_name = "PATH", env = "PGBOUNCER")]
    pub(crate) pgbouncer: Option<String>,
    /// Odyssey; without it there is no such column
    #[arg(long, value_name = "PATH", env = "ODYSSEY")]
    pub(crate) odyssey: Option<String>,
    /// Names the rows
    #[arg(long)]
    pub(crate) list: bool,
}

impl Args {
    pub(crate) fn wants(&self, row: &str) -> bool {
        self.rows.is_empty()
            || self
                .rows
                .iter()
                .any(|prefix| row.starts_with(prefix.as_str()))
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(if self.quick { 1 } else { 5 }))
    }

    /// The proxy to measure: a release build unless told otherwise.
    pub(crate) fn pgdog(&self) -> PathBuf {
        self.pgdog
            .clone()
            .unwrap_or_else(|| target_dir().join("release/pgdog"))
    }

    pub(crate) fn json_dir(&self) -> PathBuf {
        target_dir().join("bench")
    }
}

fn target_dir() -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let checkout = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    checkout.canonicalize().unwrap_or(checkout).join(target)
}
