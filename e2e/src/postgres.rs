//! Postgres with streaming replication, in pods that carry the labels of whoever is said to run them.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio_postgres::Config;

use crate::cluster::{Stage, until};
use crate::load::{ask, config};

/// The superuser's password.
pub(crate) const PASSWORD: &str = "secret";

/// How its pods look.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shape {
    /// Replicas beside the primary.
    pub(crate) replicas: usize,
    /// Labels of all pods; default: those of CloudNativePG.
    pub(crate) labels: Value,
    /// The label that tells the role, and its values for primary and replica.
    pub(crate) role: Option<(&'static str, [&'static str; 2])>,
    /// The node that they run on.
    pub(crate) node: Option<String>,
    /// What their names begin with; default: `db`.
    pub(crate) name: Option<&'static str>,
}

const CNPG_ROLE: (&str, [&str; 2]) = ("cnpg.io/instanceRole", ["primary", "replica"]);

impl Shape {
    /// As CloudNativePG labels it.
    pub(crate) fn cnpg(replicas: usize) -> Self {
        Self {
            replicas,
            labels: json!({"cnpg.io/cluster": "main", "cnpg.io/podRole": "instance"}),
            role: Some(CNPG_ROLE),
            ..Self::default()
        }
    }
}

/// A primary `db-0` and its replicas, labelled as by CloudNativePG.
pub(crate) async fn start(stage: &Stage, replicas: usize) -> anyhow::Result<()> {
    start_as(stage, &Shape::cnpg(replicas)).await
}

/// A primary and its replicas.
pub(crate) async fn start_as(stage: &Stage, shape: &Shape) -> anyhow::Result<()> {
    stage.login("login", "postgres", PASSWORD).await?;
    let names: Vec<_> = (0..=shape.replicas)
        .map(|index| format!("{}-{index}", shape.name.unwrap_or("db")))
        .collect();
    for (index, name) in names.iter().enumerate() {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "type": "NodePort", "selector": {"pod": name}, "publishNotReadyAddresses": true,
                "ports": [{"port": 5432}],
            },
        }))?;
        stage.api().create(&PostParams::default(), &service).await?;
        let pod = pod(stage, shape, name, (index > 0).then_some(&names[0]))?;
        stage
            .api::<Pod>()
            .create(&PostParams::default(), &pod)
            .await?;
    }
    for name in &names {
        ready(stage, name).await?;
    }
    Ok(())
}

/// Waits until a pod is ready.
pub(crate) async fn ready(stage: &Stage, name: &str) -> anyhow::Result<()> {
    until(
        Duration::from_secs(90),
        &format!("{name} is ready"),
        || async {
            let pod = stage.api::<Pod>().get(name).await?;
            let conditions = pod.status.and_then(|s| s.conditions).unwrap_or_default();
            Ok(conditions
                .iter()
                .any(|c| c.type_ == "Ready" && c.status == "True")
                .then_some(()))
        },
    )
    .await
}

/// The same, and the PgDogCluster `shop` before them, with its proxies ready.
pub(crate) async fn served(stage: &Stage, replicas: usize) -> anyhow::Result<()> {
    start(stage, replicas).await?;
    stage.make("shop", json!({"source": source()})).await?;
    stage.settled("shop", Duration::from_secs(120)).await
}

/// The source that finds them.
pub(crate) fn source() -> Value {
    json!({"provider": "CloudNativePG", "clusterRef": {"name": "main"}})
}

fn pod(stage: &Stage, shape: &Shape, name: &str, follows: Option<&String>) -> anyhow::Result<Pod> {
    let mut env = vec![json!({"name": "POSTGRES_PASSWORD", "value": PASSWORD})];
    if let Some(primary) = follows {
        env.push(json!({"name": "PRIMARY_HOST", "value": primary}));
    }
    let mut labels = shape.labels.clone();
    labels["pod"] = name.into();
    if let Some((key, [primary, replica])) = shape.role {
        labels[key] = if follows.is_none() { primary } else { replica }.into();
    }
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "nodeName": shape.node,
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

/// Runs a program in a pod, as Postgres's own user.
async fn shell(stage: &Stage, pod: &str, script: &str) -> anyhow::Result<String> {
    let args = [
        "exec",
        pod,
        "--",
        "setpriv",
        "--reuid=postgres",
        "--regid=postgres",
        "--init-groups",
        "sh",
        "-c",
        script,
    ];
    stage.kubectl(&args).await
}

/// How a Postgres is reached from here, past all proxies.
pub(crate) async fn direct(stage: &Stage, pod: &str) -> anyhow::Result<Config> {
    let mut config = config(&stage.address(pod).await?, PASSWORD);
    config.dbname("postgres");
    Ok(config)
}

/// The address of a pod.
pub(crate) async fn ip(stage: &Stage, pod: &str) -> anyhow::Result<String> {
    let status = stage.api::<Pod>().get(pod).await?.status;
    Ok(status.and_then(|s| s.pod_ip).unwrap_or_default())
}

/// A primary and a replica change places, as an operator of Postgres does it: the primary is stopped and comes back as the
/// replica of the other, which is promoted and labelled then. Returns when the promotion was ordered and when it was done.
pub(crate) async fn switch(
    stage: &Stage,
    from: &str,
    to: &str,
    promote: &Config,
) -> anyhow::Result<(Instant, Instant)> {
    let script = format!(
        "psql -qU postgres -h /run/postgresql -c \"alter system set primary_conninfo = 'host={to} user=postgres password={PASSWORD}'\" \
         && touch $PGDATA/standby.signal && pg_ctl stop -D $PGDATA -m fast -w"
    );
    // The other has everything: a primary that is stopped waits for it.
    shell(stage, from, &script).await?;
    let ordered = Instant::now();
    ask(promote, "select pg_promote()").await?;
    let done = Instant::now();
    let pods: Api<Pod> = stage.api();
    for (pod, role) in [(to, CNPG_ROLE.1[0]), (from, CNPG_ROLE.1[1])] {
        label(&pods, pod, CNPG_ROLE.0, role).await?;
    }
    Ok((ordered, done))
}

/// Sets a label of a pod.
pub(crate) async fn label(
    pods: &Api<Pod>,
    pod: &str,
    key: &str,
    value: &str,
) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({"metadata": {"labels": {key: value}}}));
    pods.patch(pod, &PatchParams::default(), &patch).await?;
    Ok(())
}
