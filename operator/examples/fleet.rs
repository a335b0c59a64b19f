//! A benchmark: a thousand proxies that are none, a real API server and a real operator. Each change is one write of an
//! EndpointSlice, as at a failover; it is measured until the last proxy has acknowledged the topology.
//!
//! `make bench-operator` builds the operator and runs this.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a table for people is what it makes")]

#[path = "../../tests/harness/guardian.rs"]
#[allow(unreachable_pub, dead_code, reason = "it is a library's elsewhere")]
mod guardian;
#[path = "../tests/harness/mod.rs"]
mod harness;
#[path = "../../tests/harness/scratch.rs"]
#[allow(unreachable_pub, dead_code, reason = "it is a library's elsewhere")]
mod scratch;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, ensure};
use clap::Parser;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::runtime::watcher;
use pgdog_config::api::Half;
use serde_json::json;

use harness::operator::Operator;
use harness::proxies::{Proxies, Proxy};
use harness::stage::Stage;

/// Longer than anything takes that is worth a benchmark.
const LIMIT: Duration = Duration::from_secs(180);

/// Measures how an operator gets along with many proxies.
#[derive(Debug, Parser)]
struct Args {
    /// The operator. Default: that of the same profile.
    #[arg(long)]
    operator: Option<PathBuf>,
    /// Proxies.
    #[arg(long, default_value_t = 1000)]
    proxies: usize,
    /// Changes.
    #[arg(long, default_value_t = 10)]
    changes: usize,
    /// Whether a figure that is worse than its goal is an error.
    #[arg(long)]
    strict: bool,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let program = match args.operator.clone() {
        Some(program) => program,
        // target/<profile>/examples/fleet
        None => env::current_exe()?
            .ancestors()
            .nth(2)
            .context("where am I?")?
            .join("pgdog-operator"),
    };
    ensure!(
        program.is_file(),
        "{} is missing: cargo build -p pgdog-operator",
        program.display()
    );
    let Some(stage) = Stage::open("fleet").await else {
        return Ok(());
    };
    let bench = Bench::start(stage, program, &args).await?;
    let goals = bench.measure(args.changes).await?;
    ensure!(goals || !args.strict, "a goal is missed");
    Ok(())
}

struct Bench {
    stage: Stage,
    operator: Operator,
    fleet: Vec<Arc<Proxy>>,
    writes: Arc<Writes>,
    _proxies: Proxies,
}

/// Writes of the resource, as everybody who watches it sees them.
#[derive(Debug, Default)]
struct Writes {
    all: AtomicUsize,
}

impl Bench {
    async fn start(stage: Stage, program: PathBuf, args: &Args) -> anyhow::Result<Self> {
        stage.login("login", "secret").await;
        for service in ["db-rw", "db-ro"] {
            stage
                .create::<Service>(json!({
                    "apiVersion": "v1", "kind": "Service", "metadata": {"name": service},
                    "spec": {"clusterIP": "None", "ports": [{"port": 5432}]},
                }))
                .await;
            point(&stage, service, 0).await;
        }
        let operator = Operator::start(&program, &stage, "one").await;
        let mut proxies = Proxies::of("shop").await;
        stage
            .make(
                "shop",
                json!({
                    "admin": {"port": proxies.port()},
                    "replicas": args.proxies,
                    "source": {"provider": "Service", "roleDetection": "Labels", "services": [
                        {"name": "db-rw", "role": "primary"}, {"name": "db-ro", "role": "replica"},
                    ]},
                }),
            )
            .await;
        let begun = Instant::now();
        let fleet = proxies.add(&stage, args.proxies).await;
        println!(
            "{} pods made in {:.1} s",
            fleet.len(),
            begun.elapsed().as_secs_f64()
        );
        let bench = Self {
            stage,
            operator,
            fleet,
            writes: Arc::default(),
            _proxies: proxies,
        };
        bench.settled().await?;
        println!(
            "all of them have everything after {:.1} s",
            begun.elapsed().as_secs_f64()
        );
        Ok(bench)
    }

    /// Waits until the status says that all have acknowledged.
    async fn settled(&self) -> anyhow::Result<()> {
        let end = Instant::now() + LIMIT;
        let all = format!("{0}/{0}", self.fleet.len());
        loop {
            let status = self.stage.status("shop").await;
            if status.config.summary == all {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "not within {LIMIT:?}: {all}; it is {}",
                status.config.summary
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn measure(&self, changes: usize) -> anyhow::Result<bool> {
        let counting = tokio::spawn(count(self.stage.raw(), self.writes.clone()));
        // What came with the start is over.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let pid = self.operator.pid();
        let (cpu, writes, begun) = (
            cpu(pid)?,
            self.writes.all.load(Ordering::Relaxed),
            Instant::now(),
        );
        let (mut acks, mut last, mut told) = (Vec::new(), Vec::new(), Vec::new());
        for change in 1..=changes {
            let before = self.stage.status("shop").await.config.topology.revision;
            let changed = Instant::now();
            point(&self.stage, "db-rw", change).await;
            let took = self.acknowledged(before, changed).await?;
            last.extend(took.last().copied());
            acks.extend(took);
            self.settled().await?;
            told.push(changed.elapsed());
        }
        let lasted = begun.elapsed();
        let writes = self.writes.all.load(Ordering::Relaxed) - writes;
        let used = self::cpu(pid)? - cpu;
        counting.abort();
        for times in [&mut acks, &mut last, &mut told] {
            times.sort();
        }
        let rate = precise(writes) / lasted.as_secs_f64();
        let (now, most) = memory(pid)?;
        let mut good = true;
        let mut row = |name: &str, figure: String, goal: Option<(bool, &str)>| {
            let verdict = goal.map_or(String::new(), |(met, goal)| {
                good &= met;
                format!("{} {goal}", if met { "ok," } else { "MISSED:" })
            });
            println!("{name:<52} {figure:>22}  {verdict}");
        };
        println!();
        let two = Duration::from_secs(2);
        row(
            "proxies, changes of the topology",
            format!("{}, {changes}", self.fleet.len()),
            None,
        );
        row(
            "change to acknowledgement of a proxy, p50",
            ms(at(&acks, 50)),
            None,
        );
        row(
            "change to acknowledgement of a proxy, p99",
            ms(at(&acks, 99)),
            Some((at(&acks, 99) < two, "under 2 s")),
        );
        row(
            "change to acknowledgement of the last proxy, worst",
            ms(at(&last, 100)),
            None,
        );
        row(
            "change to a status that says so, p50, worst",
            format!("{}, {}", ms(at(&told, 50)), ms(at(&told, 100))),
            None,
        );
        row(
            "writes of the resource",
            format!("{writes} in {:.1} s", lasted.as_secs_f64()),
            None,
        );
        let per_change = precise(writes) / precise(changes);
        row(
            "a second; a change",
            format!("{rate:.2}; {per_change:.1}"),
            Some((
                rate <= 1.0 || per_change <= 3.0,
                "one a second, or three a change",
            )),
        );
        row(
            "operator: CPU of a change",
            format!("{:.0} ms", used.as_secs_f64() * 1000.0 / precise(changes)),
            None,
        );
        row(
            "operator: resident memory, now and at most",
            format!("{now} MiB, {most} MiB"),
            Some((most < 256, "under 256 MiB")),
        );
        Ok(good)
    }

    /// How long each proxy took to have the next topology, in order.
    async fn acknowledged(&self, before: i64, since: Instant) -> anyhow::Result<Vec<Duration>> {
        let before = u64::try_from(before)?;
        loop {
            let took: Vec<_> = self
                .fleet
                .iter()
                .filter_map(|proxy| {
                    let history = proxy.history();
                    let mut later = history.iter().filter(|taken| {
                        taken.half == Half::Topology
                            && taken.version.revision > before
                            && taken.at > since
                    });
                    later.next().map(|taken| taken.at - since)
                })
                .collect();
            if took.len() == self.fleet.len() {
                let mut took = took;
                took.sort();
                return Ok(took);
            }
            ensure!(
                since.elapsed() < LIMIT,
                "{} of {} have acknowledged",
                took.len(),
                self.fleet.len()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Has the EndpointSlice of a Service name this host, in one write.
async fn point(stage: &Stage, service: &str, host: usize) {
    let network = if service == "db-rw" { 8 } else { 9 };
    let address = format!("10.{network}.{}.{}", host / 250, host % 250 + 1);
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": service, "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"port": 5432}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
    });
    stage
        .api::<EndpointSlice>()
        .patch(
            service,
            &PatchParams::apply("bench").force(),
            &Patch::Apply(&slice),
        )
        .await
        .expect("the API server takes an EndpointSlice");
}

async fn count(api: kube::Api<DynamicObject>, writes: Arc<Writes>) {
    let events = watcher(api, watcher::Config::default());
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        if let Ok(watcher::Event::Apply(_)) = event {
            writes.all.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Time that a process has computed.
fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("read its times")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    // Linux counts in hundredths wherever it runs.
    Ok(Duration::from_millis(ticks * 10))
}

/// Resident memory of a process in MiB: now, and the most there was.
fn memory(pid: u32) -> anyhow::Result<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let figure = |key: &str| -> anyhow::Result<u64> {
        let line = status
            .lines()
            .find(|line| line.starts_with(key))
            .context("read its memory")?;
        Ok(line
            .split_whitespace()
            .nth(1)
            .unwrap_or_default()
            .parse::<u64>()?
            / 1024)
    };
    Ok((figure("VmRSS:")?, figure("VmHWM:")?))
}

fn at(sorted: &[Duration], percentile: usize) -> Duration {
    let index = (sorted.len() * percentile).div_ceil(100).max(1) - 1;
    sorted.get(index).copied().unwrap_or_default()
}

fn ms(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

fn precise(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
