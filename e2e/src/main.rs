//! End-to-end scenarios on a real Kubernetes: the one that `KUBECONFIG` names. The operator is installed already and has its
//! images; `e2e/run` sees to that.
//!
//! Each scenario has a namespace of its own and waits for conditions with deadlines. What fails is collected: objects, events,
//! logs.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a table for people is what it makes")]

mod cluster;
mod load;
mod postgres;
mod scenarios;

use std::time::Instant;

use clap::Parser;
use kube::Client;

use cluster::Stage;

/// Runs scenarios and prints a table of them.
#[derive(Debug, Parser)]
struct Args {
    /// Only scenarios whose names contain this.
    filter: Option<String>,
    /// The image of Postgres with streaming replication.
    #[arg(long, env = "E2E_POSTGRES_IMAGE", default_value = "local/postgres:15")]
    postgres_image: String,
    /// Namespaces of scenarios that failed are left as they are.
    #[arg(long)]
    keep: bool,
    /// Only the few that show that everything hangs together.
    #[arg(long)]
    smoke: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let client = Client::try_default().await?;
    let (mut passed, mut failed) = (0, 0);
    let mut table = Vec::new();
    for scenario in scenarios::ALL {
        let wanted = args
            .filter
            .as_ref()
            .is_none_or(|filter| scenario.name.contains(filter.as_str()));
        if !wanted || (args.smoke && !scenario.smoke) {
            continue;
        }
        let stage = Stage::open(&client, scenario.name, &args.postgres_image).await?;
        let begun = Instant::now();
        let result = (scenario.run)(stage.clone()).await;
        let took = begun.elapsed().as_secs_f64();
        let (verdict, told) = match result {
            Ok(figures) => {
                passed += 1;
                ("ok", figures)
            }
            Err(error) => {
                failed += 1;
                println!("--- {} failed: {error:#}", scenario.name);
                stage.collect().await;
                ("FAILED", format!("{error:#}"))
            }
        };
        println!("{:<28} {verdict:<6} {took:>6.1} s  {told}", scenario.name);
        table.push((scenario.name, verdict, took, told));
        if verdict == "ok" || !args.keep {
            stage.close().await;
        }
    }
    println!("\n{:<28} {:<6} {:>8}  figures", "scenario", "", "time");
    for (name, verdict, took, told) in &table {
        println!("{name:<28} {verdict:<6} {took:>6.1} s  {told}");
    }
    println!("\n{passed} passed, {failed} failed");
    anyhow::ensure!(failed == 0 && passed > 0, "{failed} scenarios failed");
    Ok(())
}
