//! Another primary.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;
use pgdog_operator_api::{ConditionStatus, ConditionType};

use super::MINUTE;
use crate::cluster::{Stage, until};
use crate::load::{Ledger, Load, ask, config};
use crate::{operator, postgres};

/// What a write may end with that was under way when its server was killed: nobody knows whether it took place.
const UNDER_WAY: [&str; 4] = ["08006", "57P01", "connection", "57P03"];
/// Longest time without writes when a primary is killed and another one promoted at once.
const STALL: Duration = Duration::from_secs(10);

/// The primary is killed under load and a replica promoted: writes wait, none that was acknowledged is lost.
pub(crate) async fn promotion(stage: Stage) -> anyhow::Result<String> {
    postgres::served(&stage, 2).await?;
    let ledger = fail_over(&stage, true).await?;
    primary_is(&stage, "db-1", Duration::from_secs(20)).await?;
    Ok(ledger.told())
}

/// The same without an operator: the proxies know all hosts, and ask them. The operator that comes back takes them as they are.
pub(crate) async fn without_operator(stage: Stage) -> anyhow::Result<String> {
    postgres::served(&stage, 2).await?;
    let before = stage.proxies("shop").await?;
    let replicas = operator::stop(&stage).await?;
    let failed_over = fail_over(&stage, false).await;
    operator::start(&stage, replicas).await?;
    let ledger = failed_over?;
    let pods: Api<Pod> = stage.api();
    postgres::label(&pods, "db-1", "cnpg.io/instanceRole", "primary").await?;
    primary_is(&stage, "db-1", MINUTE).await?;
    stage.settled("shop", MINUTE).await?;
    ensure!(stage.proxies("shop").await? == before, "pods were replaced");
    Ok(ledger.told())
}

async fn primary_is(stage: &Stage, name: &str, limit: Duration) -> anyhow::Result<()> {
    until(
        limit,
        &format!("the status names {name} as primary"),
        || async {
            let status = stage.status("shop").await?;
            Ok((status.endpoints.primary_summary == name).then_some(()))
        },
    )
    .await
}

async fn fail_over(stage: &Stage, label: bool) -> anyhow::Result<Ledger> {
    let clients = config(&stage.address("shop").await?, postgres::PASSWORD);
    let promote = postgres::direct(stage, "db-1").await?;
    // What is acknowledged is on both replicas: whichever is promoted has it.
    let synchronous = "alter system set synchronous_standby_names = 'FIRST 2 (*)'";
    postgres::sql(stage, "db-0", synchronous).await?;
    postgres::sql(stage, "db-0", "select pg_reload_conf()").await?;
    let load = Load::start(&clients, 6).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let pods: Api<Pod> = stage.api();
    pods.delete("db-0", &DeleteParams::default().grace_period(0))
        .await?;
    ask(&promote, "select pg_promote()").await?;
    if label {
        postgres::label(&pods, "db-1", "cnpg.io/instanceRole", "primary").await?;
    }
    until(MINUTE, "writes flow again", || async {
        ask(&clients, "insert into ledger (client) values (-1)").await?;
        Ok(Some(()))
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ledger = load.end().await?;
    // Of the primary itself: nobody tells the other replica whom to follow now.
    kept(stage, "db-1", &ledger).await?;
    ensure!(ledger.errors_but(&UNDER_WAY) == 0, "{}", ledger.told());
    ensure!(ledger.wrong_host() == 0, "{}", ledger.told());
    ensure!(ledger.longest_stall < STALL, "{}", ledger.told());
    Ok(ledger)
}

/// Whether a server has every write that was acknowledged.
pub(super) async fn kept(stage: &Stage, pod: &str, ledger: &Ledger) -> anyhow::Result<()> {
    let count = "select count(*) from ledger where client >= 0";
    let rows: u64 = postgres::sql(stage, pod, count).await?.parse()?;
    ensure!(
        rows >= ledger.written,
        "{rows} rows of {} acknowledged writes",
        ledger.written
    );
    Ok(())
}

/// Primary and replica change places under write load: writes wait, and none fails or goes to the old primary.
pub(crate) async fn switchover(stage: Stage) -> anyhow::Result<String> {
    postgres::served(&stage, 1).await?;
    let clients = config(&stage.address("shop").await?, postgres::PASSWORD);
    let promote = postgres::direct(&stage, "db-1").await?;
    let load = Load::start(&clients, 6).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    postgres::switch(&stage, "db-0", "db-1", &promote).await?;
    primary_is(&stage, "db-1", Duration::from_secs(20)).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let ledger = load.end().await?;
    kept(&stage, "db-1", &ledger).await?;
    // Only what was under way on the primary when it was stopped.
    ensure!(ledger.errors_but(&UNDER_WAY) == 0, "{}", ledger.told());
    ensure!(
        ledger.errors.values().sum::<u64>() <= 12,
        "{}",
        ledger.told()
    );
    ensure!(ledger.wrong_host() == 0, "{}", ledger.told());
    ensure!(ledger.longest_stall < STALL, "{}", ledger.told());
    Ok(ledger.told())
}

/// Promotions, each measured through each proxy: from the moment at which the new primary takes writes and is labelled to the
/// first write that it acknowledged.
pub(crate) async fn promotions(stage: Stage) -> anyhow::Result<String> {
    const TIMES: u32 = 12;
    postgres::served(&stage, 1).await?;
    let doors = stage.doors("shop").await?;
    let ways: Vec<_> = doors
        .iter()
        .map(|door| config(&door.clients, postgres::PASSWORD))
        .collect();
    let direct = [
        postgres::direct(&stage, "db-0").await?,
        postgres::direct(&stage, "db-1").await?,
    ];
    let load = Load::over(&ways, 3).await?;
    let mut moments = Vec::new();
    for time in 0..TIMES {
        let (from, to) = if time % 2 == 0 { (0, 1) } else { (1, 0) };
        let names = ["db-0", "db-1"];
        let (ordered, done) = postgres::switch(&stage, names[from], names[to], &direct[to]).await?;
        until(
            Duration::from_secs(30),
            "writes flow through every proxy",
            || async { Ok((load.served_since(done) == ways.len()).then_some(())) },
        )
        .await?;
        until(
            Duration::from_secs(30),
            "the former primary follows",
            || async {
                let count = "select count(*) from pg_stat_replication where state = 'streaming'";
                Ok((ask(&direct[to], count).await? == "1").then_some(()))
            },
        )
        .await?;
        // Timelines count from 1.
        moments.push((time + 2, ordered, done));
    }
    let ledger = load.end().await?;
    let mut after = Vec::new();
    let mut whole = Vec::new();
    for (timeline, ordered, done) in moments {
        let first = ledger.first_on(timeline);
        ensure!(
            first.len() == ways.len(),
            "timeline {timeline}: writes through {} proxies of {}",
            first.len(),
            ways.len()
        );
        after.extend(first.values().map(|at| at.saturating_duration_since(done)));
        whole.extend(
            first
                .values()
                .map(|at| at.saturating_duration_since(ordered)),
        );
    }
    let told = format!(
        "{TIMES} promotions, {} proxies: to the first write after it {}; after the order to promote {}; {}",
        ways.len(),
        quantiles(&mut after),
        quantiles(&mut whole),
        ledger.told()
    );
    ensure!(ledger.wrong_host() == 0, "{told}");
    ensure!(ledger.errors_but(&UNDER_WAY) == 0, "{told}");
    let p99 = after.last().context("nothing was measured")?;
    ensure!(*p99 < Duration::from_secs(1), "{told}");
    Ok(told)
}

/// In words; sorts them. Of so few the 99th percentile is the longest.
fn quantiles(times: &mut [Duration]) -> String {
    times.sort();
    let at = |per_cent: usize| {
        let index = (times.len() * per_cent).div_ceil(100).max(1) - 1;
        times.get(index).copied().unwrap_or_default().as_millis()
    };
    format!("p50 {} p99 {} max {} ms", at(50), at(99), at(100))
}

/// Two servers take writes and are labelled as primaries: the one on the higher timeline gets them, and people are told.
pub(crate) async fn split_brain(stage: Stage) -> anyhow::Result<String> {
    postgres::served(&stage, 1).await?;
    let doors = stage.doors("shop").await?;
    let ways: Vec<_> = doors
        .iter()
        .map(|door| config(&door.clients, postgres::PASSWORD))
        .collect();
    let promote = postgres::direct(&stage, "db-1").await?;
    let load = Load::over(&ways, 3).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    ask(&promote, "select pg_promote()").await?;
    let done = Instant::now();
    let pods: Api<Pod> = stage.api();
    postgres::label(&pods, "db-1", "cnpg.io/instanceRole", "primary").await?;
    let limit = Duration::from_secs(15);
    let (reason, message) = stage
        .condition(
            "shop",
            ConditionType::EndpointsResolved,
            ConditionStatus::False,
            limit,
        )
        .await?;
    ensure!(reason == "SplitBrain", "{reason}: {message}");
    let (reason, _) = stage
        .condition(
            "shop",
            ConditionType::Degraded,
            ConditionStatus::True,
            limit,
        )
        .await?;
    ensure!(reason == "SplitBrain", "Degraded is {reason}");
    until(limit, "there is an Event", || async {
        let events = stage.events("EndpointsResolvedSplitBrain").await?;
        Ok((events > 0).then_some(()))
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let ledger = load.end().await?;
    let first = ledger.first_on(2);
    ensure!(first.len() == ways.len(), "{}", ledger.told());
    // What went to the lower timeline after the other had been promoted, until each proxy knew.
    let late = ledger
        .acked
        .iter()
        .filter(|a| a.timeline == 1 && a.at > done);
    let window = late.map(|a| a.at - done).max().unwrap_or_default();
    let told = format!(
        "the lower timeline is left after {} ms; {}",
        window.as_millis(),
        ledger.told()
    );
    ensure!(ledger.wrong_host() == 0, "{told}");
    ensure!(window < Duration::from_secs(3), "{told}");
    Ok(told)
}
