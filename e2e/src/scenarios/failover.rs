//! Another primary.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::cluster::{Stage, until};
use crate::load::{Ledger, Load, ask, config};
use crate::postgres;

const MINUTE: Duration = Duration::from_secs(60);

/// The primary is killed under load and a replica promoted: writes wait, none that was acknowledged is lost.
pub(crate) async fn promotion(stage: Stage) -> anyhow::Result<String> {
    postgres::start(&stage, 2).await?;
    stage
        .make("shop", json!({"source": postgres::source()}))
        .await?;
    stage.settled("shop", 2 * MINUTE).await?;
    let ledger = fail_over(&stage, true).await?;
    until(
        Duration::from_secs(20),
        "the status names the new primary",
        || async {
            let status = stage.status("shop").await?;
            Ok((status.endpoints.primary_summary == "db-1").then_some(()))
        },
    )
    .await?;
    Ok(ledger.told())
}

/// The same without an operator: the proxies know all hosts, and ask them.
pub(crate) async fn without_operator(stage: Stage) -> anyhow::Result<String> {
    postgres::start(&stage, 2).await?;
    stage
        .make("shop", json!({"source": postgres::source()}))
        .await?;
    stage.settled("shop", 2 * MINUTE).await?;
    let operator: Api<Deployment> = Api::namespaced(stage.client.clone(), "pgdog-system");
    let before = operator
        .get("pgdog-operator")
        .await?
        .spec
        .and_then(|s| s.replicas);
    let scale = |replicas: i32| Patch::Merge(json!({"spec": {"replicas": replicas}}));
    operator
        .patch("pgdog-operator", &PatchParams::default(), &scale(0))
        .await?;
    let failed_over = fail_over(&stage, false).await;
    operator
        .patch(
            "pgdog-operator",
            &PatchParams::default(),
            &scale(before.unwrap_or(1)),
        )
        .await?;
    let ledger = failed_over?;
    let before = stage.proxies("shop").await?;
    stage
        .kubectl(&[
            "label",
            "pod",
            "db-1",
            "cnpg.io/instanceRole=primary",
            "--overwrite",
        ])
        .await?;
    until(MINUTE, "the operator is back and knows", || async {
        let status = stage.status("shop").await?;
        Ok(
            (status.endpoints.primary_summary == "db-1" && status.config.summary == "2/2")
                .then_some(()),
        )
    })
    .await?;
    ensure!(stage.proxies("shop").await? == before, "pods were replaced");
    Ok(ledger.told())
}

async fn fail_over(stage: &Stage, label: bool) -> anyhow::Result<Ledger> {
    let clients = config(&stage.address("shop").await?, postgres::PASSWORD);
    // What is acknowledged is on both replicas: whichever is promoted has it.
    postgres::sql(
        stage,
        "db-0",
        "alter system set synchronous_standby_names = 'FIRST 2 (*)'",
    )
    .await?;
    postgres::sql(stage, "db-0", "select pg_reload_conf()").await?;
    let load = Load::start(&clients, 6).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    stage
        .kubectl(&[
            "delete",
            "pod",
            "db-0",
            "--grace-period=0",
            "--force",
            "--wait=false",
        ])
        .await?;
    postgres::sql(stage, "db-1", "select pg_promote()").await?;
    if label {
        stage
            .kubectl(&[
                "label",
                "pod",
                "db-1",
                "cnpg.io/instanceRole=primary",
                "--overwrite",
            ])
            .await?;
    }
    until(MINUTE, "writes flow again", || async {
        ask(&clients, "insert into ledger (client) values (-1)").await?;
        Ok(Some(()))
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ledger = load.end().await?;
    // Of the primary itself: nobody tells the other replica whom to follow now.
    let rows: u64 = postgres::sql(
        stage,
        "db-1",
        "select count(*) from ledger where client >= 0",
    )
    .await?
    .parse()?;
    ensure!(
        rows >= ledger.written,
        "{rows} rows of {} acknowledged writes",
        ledger.written
    );
    // A write that was under way when its server was killed may be an error: nobody knows whether it took place.
    let wrong = ledger
        .errors
        .keys()
        .find(|code| !["08006", "57P01", "connection", "57P03"].contains(&code.as_str()));
    ensure!(wrong.is_none(), "{}", ledger.told());
    Ok(ledger)
}
