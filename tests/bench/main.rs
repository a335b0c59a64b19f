//! The proxy beside pgbouncer, Odyssey and no proxy at all, in front of one throwaway Postgres.
//!
//! Rounds are interleaved (A B C A B C), because a shared machine drifts: ratios are taken between figures of the same round, and
//! what is printed is their median. Tps and latency on a machine that also runs the load and the database are weak witnesses; CPU
//! per transaction, instructions and bytes per idle client are the ones to trust.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    reason = "the table on standard output is what this program is for"
)]

mod args;
mod bulk;
mod client;
mod host;
mod idle;
mod load;
mod peer;
mod postgres;
mod process;
mod report;
mod rows;
mod tls;
mod tools;

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use args::Args;
use report::Report;
use rows::{Bench, Row};

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the chosen rows; false when something could not be measured.
fn run(args: &Args) -> Result<bool> {
    if args.list {
        Row::all().iter().for_each(|row| println!("{}", row.name()));
        return Ok(true);
    }
    let rows: Vec<Row> = Row::all()
        .into_iter()
        .filter(|row| args.wants(&row.name()))
        .collect();
    anyhow::ensure!(!rows.is_empty(), "no row is called so; --list names them");
    host::raise_descriptor_limit();
    let bench = Bench::start(args)?;
    let mut report = Report::new(bench.facts());
    for row in &rows {
        for round in 0..row.rounds(args.rounds()) {
            for peer in bench.peers.iter().filter(|peer| row.runs_on(peer.kind)) {
                progress(&format!("{} round {} {}", row.name(), round + 1, peer.name));
                match bench.measure(row, peer) {
                    Ok(figures) => report.add(row, peer, round, figures),
                    Err(error) => report.fail(row, peer, round, &error),
                }
            }
        }
        progress("");
        print!("{}", report.row(row));
    }
    print!("{}", report.goals());
    print!("{}", report.failures());
    let path = report.write(&args.json_dir())?;
    println!("\n{}", path.display());
    Ok(report.is_complete())
}

/// One line that is written over again and again, where somebody watches.
fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    }
}
