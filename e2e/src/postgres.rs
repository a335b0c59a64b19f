//! Postgres with streaming replication, in pods that carry the labels of CloudNativePG.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::cluster::{Stage, until};

/// The superuser's password.
pub(crate) const PASSWORD: &str = "secret";

/// A primary `db-0` and its replicas.
pub(crate) async fn start(stage: &Stage, replicas: usize) -> anyhow::Result<()> {
    stage.login("login", "postgres", PASSWORD).await?;
    for index in 0..=replicas {
        let name = format!("db-{index}");
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"selector": {"pod": name}, "publishNotReadyAddresses": true, "ports": [{"port": 5432}]},
        }))?;
        stage.api().create(&PostParams::default(), &service).await?;
        stage
            .api::<Pod>()
            .create(&PostParams::default(), &pod(stage, &name, index == 0)?)
            .await?;
    }
    for index in 0..=replicas {
        let name = format!("db-{index}");
        until(
            Duration::from_secs(90),
            &format!("{name} is ready"),
            || async {
                let pod = stage.api::<Pod>().get(&name).await?;
                let conditions = pod.status.and_then(|s| s.conditions).unwrap_or_default();
                Ok(conditions
                    .iter()
                    .any(|c| c.type_ == "Ready" && c.status == "True")
                    .then_some(()))
            },
        )
        .await?;
    }
    Ok(())
}

/// The source that finds them.
pub(crate) fn source() -> Value {
    json!({"provider": "CloudNativePG", "clusterRef": {"name": "main"}})
}

fn pod(stage: &Stage, name: &str, primary: bool) -> anyhow::Result<Pod> {
    let mut env = vec![json!({"name": "POSTGRES_PASSWORD", "value": PASSWORD})];
    if !primary {
        env.push(json!({"name": "PRIMARY_HOST", "value": "db-0"}));
    }
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {
            "pod": name,
            "cnpg.io/cluster": "main",
            "cnpg.io/podRole": "instance",
            "cnpg.io/instanceRole": if primary { "primary" } else { "replica" },
        }},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "postgres",
                "image": stage.postgres_image,
                "env": env,
                "readinessProbe": {"exec": {"command": ["pg_isready", "-h", "localhost"]}, "periodSeconds": 1},
            }],
        },
    }))?)
}

/// Runs SQL in a pod, past all proxies.
pub(crate) async fn sql(stage: &Stage, pod: &str, sql: &str) -> anyhow::Result<String> {
    let args = [
        "exec",
        pod,
        "--",
        "psql",
        "-U",
        "postgres",
        "-h",
        "/run/postgresql",
        "-Atc",
        sql,
    ];
    Ok(stage.kubectl(&args).await?.trim().to_owned())
}
