//! End-to-end scenarios on a real Kubernetes: the one that `KUBECONFIG` names. The operator is installed already and has its
//! images; `e2e/run` sees to that.
//!
//! Each scenario has a namespace of its own and waits for conditions with deadlines. What fails is collected: objects, events,
//! logs.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a table for people is what it makes")]

mod certificates;
mod cluster;
mod load;
mod node;
mod operator;
mod postgres;
mod scenarios;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use kube::Client;

use cluster::Stage;

/// Runs scenarios and prints a table of them.
#[derive(Debug, Parser)]
struct Args {
    /// Only scenarios whose names contain one of these.
    filters: Vec<String>,
    /// The image of Postgres with streaming replication.
    #[arg(long, env = "E2E_POSTGRES_IMAGE", default_value = "local/postgres:15")]
    postgres_image: String,
    /// Another tag of the images of proxy and operator, with the same in it: what a rolling update changes to.
    #[arg(long, env = "E2E_NEXT_TAG", default_value = "next")]
    next_tag: String,
    /// Namespaces of scenarios that failed are left as they are.
    #[arg(long)]
    keep: bool,
    /// Only the few that show that everything hangs together.
    #[arg(long)]
    smoke: bool,
}

/// Why a scenario cannot be run here.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Skipped(&'static str);

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let client = Client::try_default().await?;
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let mut table = Vec::new();
    for scenario in scenarios::ALL {
        let mut filters = args.filters.iter();
        let wanted = args.filters.is_empty() || filters.any(|f| scenario.name.contains(f.as_str()));
        if !wanted || (args.smoke && !scenario.smoke) {
            continue;
        }
        let stage = Stage::open(&client, scenario.name, &args).await?;
        let begun = Instant::now();
        let result = (scenario.run)(stage.clone()).await;
        let took = begun.elapsed().as_secs_f64();
        let (verdict, told) = match result {
            Ok(figures) => {
                passed += 1;
                ("ok", figures)
            }
            Err(error) if error.is::<Skipped>() => {
                skipped += 1;
                ("SKIPPED", format!("{error:#}"))
            }
            Err(error) => {
                failed += 1;
                println!("--- {} failed: {error:#}", scenario.name);
                stage.collect().await;
                ("FAILED", format!("{error:#}"))
            }
        };
        println!("{:<28} {verdict:<7} {took:>6.1} s  {told}", scenario.name);
        table.push((scenario.name, verdict, took, told));
        if verdict != "FAILED" || !args.keep {
            stage.close().await;
        }
    }
    println!("\n{:<28} {:<7} {:>8}  figures", "scenario", "", "time");
    for (name, verdict, took, told) in &table {
        println!("{name:<28} {verdict:<7} {took:>6.1} s  {told}");
    }
    println!("\n{passed} passed, {failed} failed, {skipped} skipped");
    Ok(if failed == 0 && passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
