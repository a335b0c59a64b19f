//! Bulk data: COPY into a table, and a result of many rows.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::client::Client;
use crate::peer::Running;
use crate::postgres::{DATABASE, Postgres};
use crate::process::Usage;
use crate::report::{Figures, Metric};

const GB: f64 = 1e9;

/// Loads a file of about `megabytes` through the proxy.
pub(crate) fn copy_in(
    postgres: &Postgres,
    running: &Running,
    folder: &Path,
    megabytes: u64,
) -> Result<Figures> {
    let file = folder.join(format!("copy-{megabytes}.tsv"));
    if !file.exists() {
        write_rows(&file, megabytes).context("write the rows to copy")?;
    }
    postgres.sql(DATABASE, "TRUNCATE copy_target")?;
    let bytes = fs::metadata(&file).context("read the rows to copy")?.len();
    measured(running, || {
        let mut psql = postgres.program("psql", running.port);
        psql.args([
            "-qX",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            &format!("\\copy copy_target from '{}'", file.display()),
        ]);
        let status = psql.stdout(Stdio::null()).status().context("run psql")?;
        anyhow::ensure!(status.success(), "psql: copy failed");
        Ok(bytes)
    })
}

/// Reads a million rows or so of a hundred bytes and drops them.
pub(crate) fn wide_result(running: &Running, rows: u64) -> Result<Figures> {
    let mut client = Client::connect(running.port, None)?;
    client.query("SELECT 1")?;
    let half = "repeat('x', 30)";
    measured(running, || {
        client.query(&format!(
            "SELECT g, g * 2, md5(g::text), {half}, {half} FROM generate_series(1, {rows}) AS g"
        ))
    })
}

/// Runs `work`, which gives the number of bytes it moved.
fn measured(running: &Running, work: impl FnOnce() -> Result<u64>) -> Result<Figures> {
    let (before, start) = (Usage::of(running.pid())?, Instant::now());
    let bytes = work()? as f64;
    let seconds = start.elapsed().as_secs_f64();
    let used = Usage::of(running.pid())?.since(before);
    let mut figures = vec![(Metric::MegabytesPerSecond, bytes / 1e6 / seconds)];
    if running.pid().is_some() {
        let per_gb = |us: f64| us / 1e6 / (bytes / GB);
        figures.extend([
            (Metric::CpuPerGb, per_gb(used.cpu_us())),
            (Metric::UserPerGb, per_gb(used.user_us)),
            (Metric::SysPerGb, per_gb(used.sys_us)),
            (Metric::BulkSwitches, used.switches),
        ]);
    }
    Ok(figures)
}

fn write_rows(file: &Path, megabytes: u64) -> std::io::Result<()> {
    let note = "the quick brown fox jumps over the lazy dog ".repeat(2);
    let mut out = BufWriter::new(fs::File::create(file)?);
    let rows = megabytes * 1_000_000 / (note.len() as u64 + 30);
    for id in 0..rows {
        writeln!(out, "{id}\tname of row {id}\t{note}")?;
    }
    out.flush()
}
