//! Certificates, of clients' connections and of the admin API.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::ensure;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use pgdog_config::api::{Half, Push};
use pgdog_operator::authority::{Authority, Pair, Purpose};
use pgdog_operator::http::Failure;
use pgdog_operator_api::{ConditionStatus, ConditionType, PgDogCluster};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::MINUTE;
use crate::certificates;
use crate::cluster::{Stage, until};
use crate::load::{ask, ask_over, config};
use crate::{operator, postgres};

async fn keep(stage: &Stage, name: &str, pair: &Pair, authority: &str) -> anyhow::Result<()> {
    let secret: Secret = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": authority},
    }))?;
    stage
        .api::<Secret>()
        .patch(
            name,
            &PatchParams::apply("e2e").force(),
            &Patch::Apply(&secret),
        )
        .await?;
    Ok(())
}

/// The certificate that clients see is replaced: who connects sees the new one, who is connected stays, no pod is replaced.
pub(crate) async fn renewed(stage: Stage) -> anyhow::Result<String> {
    postgres::start(&stage, 0).await?;
    let (old, authority) = certificates::server("shop")?;
    keep(&stage, "own-tls", &old, &authority).await?;
    let tls = json!({"client": {"mode": "Require", "secretRef": "own-tls"}});
    stage
        .make("shop", json!({"source": postgres::source(), "tls": tls}))
        .await?;
    stage.settled("shop", 2 * MINUTE).await?;
    let before = stage.proxies("shop").await?;
    let doors = stage.doors("shop").await?;
    let mut open = Vec::new();
    for door in &doors {
        let config = config(&door.clients, postgres::PASSWORD);
        let (client, serial) = certificates::connect(&door.clients, &config).await?;
        ensure!(
            serial == certificates::serial(&old.certificate)?,
            "{serial}"
        );
        open.push(client);
        ensure!(
            ask(&config, "select 1").await.is_err(),
            "without TLS as well"
        );
    }
    let (new, authority) = certificates::server("shop")?;
    let wanted = certificates::serial(&new.certificate)?;
    keep(&stage, "own-tls", &new, &authority).await?;
    let begun = Instant::now();
    for door in &doors {
        let config = config(&door.clients, postgres::PASSWORD);
        // Kubelets look at Secrets each minute or so.
        until(3 * MINUTE, "the new certificate is shown", || async {
            let (_, serial) = certificates::connect(&door.clients, &config).await?;
            Ok((serial == wanted).then_some(()))
        })
        .await?;
    }
    let took = begun.elapsed();
    for client in &open {
        ensure!(ask_over(client, "select 1").await? == ["1"], "no answer");
    }
    ensure!(stage.proxies("shop").await? == before, "pods were replaced");
    Ok(format!(
        "all show it after {:.1} s, connections that were open go on",
        took.as_secs_f64()
    ))
}

/// TLS that needs another file in the proxies' pods is asked for later: new pods have it, and none of the old ones refuses.
pub(crate) async fn added(stage: Stage) -> anyhow::Result<String> {
    postgres::start(&stage, 0).await?;
    stage
        .make(
            "shop",
            json!({"source": postgres::source(), "drain": {"preStopSleep": "1s", "timeout": "5s"}}),
        )
        .await?;
    stage.settled("shop", 2 * MINUTE).await?;
    let before = stage.proxies("shop").await?;
    let (pair, authority) = certificates::server("shop")?;
    keep(&stage, "own-ca", &pair, &authority).await?;
    let begun = Instant::now();
    let tls = json!({"tls": {"client": {"mode": "VerifyClient", "caSecretRef": "own-ca"}}});
    stage.change("shop", tls).await?;
    until(2 * MINUTE, "all pods are new ones", || async {
        let now = stage.proxies("shop").await?;
        Ok((now.len() == 2 && now.iter().all(|pod| !before.contains(pod))).then_some(()))
    })
    .await?;
    stage.settled("shop", MINUTE).await?;
    let took = begun.elapsed();
    let cluster = stage.api::<PgDogCluster>().get("shop").await?;
    let conditions = cluster.status.unwrap_or_default().conditions;
    let degraded = conditions
        .iter()
        .any(|c| c.kind == ConditionType::Degraded && c.status == ConditionStatus::True);
    ensure!(!degraded, "{conditions:?}");
    let doors = stage.doors("shop").await?;
    for door in &doors {
        let config = config(&door.clients, postgres::PASSWORD);
        ensure!(
            ask(&config, "select 1").await.is_err(),
            "{} lets anybody in",
            door.pod
        );
    }
    Ok(format!("in force after {:.1} s", took.as_secs_f64()))
}

/// The admin API lets nobody in but the operator, and does not take back what was before.
pub(crate) async fn admin(stage: Stage) -> anyhow::Result<String> {
    postgres::served(&stage, 0).await?;
    let door = stage.doors("shop").await?.remove(0);
    let pair = operator::authority(&stage).await?;
    let ours = Authority::of(&pair)?;
    let status = operator::status(&stage, "shop", &door).await?;
    let in_force = status.settings.version;
    let counted = refused(&stage, &door.pod).await?;

    let mut told = Vec::new();
    let foreign = Authority::of(&Authority::generate()?)?;
    let cases = [
        (
            "a foreign authority",
            foreign.issue(operator::IDENTITY, &[], Purpose::Client)?,
        ),
        (
            "an expired one",
            certificates::expired(&pair, operator::IDENTITY)?,
        ),
        (
            "another name",
            ours.issue("somebody", &[], Purpose::Client)?,
        ),
        (
            "a server's",
            ours.issue(operator::IDENTITY, &[], Purpose::Server)?,
        ),
    ];
    for (what, own) in &cases {
        let mut client = operator::client_as(&stage, "shop", &door, own, ours.certificate())?;
        let failure = client.status(operator::PATIENCE).await;
        let answer = match failure {
            Ok(_) => anyhow::bail!("{what}: let in"),
            Err(Failure::Refused(refused)) => refused.error.status().to_string(),
            Err(Failure::Unreachable(_)) => "TLS alert".to_owned(),
            Err(other) => anyhow::bail!("{what}: {other}"),
        };
        let wanted = if *what == "another name" {
            "403"
        } else {
            "TLS alert"
        };
        ensure!(answer == wanted, "{what}: {answer}");
        told.push(format!("{what}: {answer}"));
    }
    ensure!(
        without_certificate(&door.admin).await?,
        "without a certificate: let in"
    );
    told.push("none: TLS alert".to_owned());

    let mut client = operator::client(&stage, "shop", &door).await?;
    for (what, epoch, revision) in [
        (
            "an old revision",
            in_force.epoch,
            in_force.revision.saturating_sub(1),
        ),
        (
            "an old epoch",
            in_force.epoch.saturating_sub(1),
            in_force.revision + 100,
        ),
    ] {
        let push = Push {
            cluster_uid: status.cluster_uid.clone(),
            pod_uid: status.pod_uid.clone(),
            epoch,
            revision,
            sha256: None,
            config: serde_json::Map::new(),
        };
        let body = serde_json::to_vec(&push)?;
        match client
            .push(Half::Settings, body.into(), operator::PATIENCE)
            .await
        {
            Err(Failure::Refused(refused)) if refused.error.status() == 409 => {}
            Err(other) => anyhow::bail!("{what}: {other}"),
            Ok(_) => anyhow::bail!("{what}: taken"),
        }
        told.push(format!("{what}: 409"));
    }
    let after = operator::status(&stage, "shop", &door).await?;
    ensure!(after.settings == status.settings, "the settings are others");
    let now = refused(&stage, &door.pod).await?;
    for (reason, times) in [("handshake", 4.0), ("forbidden", 1.0), ("stale", 2.0)] {
        let more = now.get(reason).unwrap_or(&0.0) - counted.get(reason).unwrap_or(&0.0);
        ensure!(more >= times, "{reason}: counted {more} times");
    }
    Ok(told.join(", "))
}

/// How often the admin API of a proxy has refused, by reason.
async fn refused(stage: &Stage, pod: &str) -> anyhow::Result<BTreeMap<String, f64>> {
    let path = format!(
        "/api/v1/namespaces/{}/pods/{pod}:9090/proxy/metrics",
        stage.namespace
    );
    let figures = stage.kubectl(&["get", "--raw", &path]).await?;
    let of = figures.lines().filter_map(|line| {
        let line = line.strip_prefix("pgdog_admin_requests_refused_total{reason=\"")?;
        let (reason, count) = line.split_once("\"} ")?;
        Some((reason.to_owned(), count.parse().ok()?))
    });
    Ok(of.collect())
}

/// Whether somebody without a certificate gets no answer.
async fn without_certificate(address: &(String, u16)) -> anyhow::Result<bool> {
    let mut stream = certificates::plain_tls(address).await?;
    let asked = async {
        stream
            .write_all(b"GET /v1/status HTTP/1.1\r\nhost: pgdog\r\n\r\n")
            .await?;
        let mut answer = vec![0; 64];
        let read = stream.read(&mut answer).await?;
        answer.truncate(read);
        anyhow::Ok(answer)
    };
    // With TLS 1.3 a client learns of its refusal at the first read.
    Ok(
        match tokio::time::timeout(Duration::from_secs(5), asked).await? {
            Err(_) => true,
            Ok(answer) => answer.is_empty() || answer.starts_with(b"HTTP/1.1 401"),
        },
    )
}
