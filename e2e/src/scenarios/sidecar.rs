//! Proxies in the pods of applications.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use pgdog_operator_api::{ConditionStatus, ConditionType};
use serde_json::{Value, json};

use crate::cluster::{Stage, until};
use crate::postgres;

const MINUTE: Duration = Duration::from_secs(60);

/// A labelled Deployment and Jobs get their proxy, by webhook and by hand, and the operator configures it.
pub(crate) async fn sidecar(stage: Stage) -> anyhow::Result<String> {
    start(&stage).await?;
    let begun = Instant::now();
    let web = application(&stage).await?;
    let came = begun.elapsed();

    // The init container behind the proxy has used the database, and the application finds it by its environment.
    let rows = postgres::sql(&stage, "db-0", "select count(*) from migrated").await?;
    ensure!(rows == "1", "{rows} rows of the migration");
    let (ask, host) = (
        ["exec", &web, "-c", "web", "--"],
        ["printenv", "PGHOST", "PGPORT"],
    );
    let told = stage.kubectl(&[&ask[..], &host].concat()).await?;
    ensure!(told == "127.0.0.1\n6432\n", "{told}");
    let psql = ["psql", "-Atc", "select 40 + 2"];
    let answer = stage.kubectl(&[&ask[..], &psql].concat()).await?;
    ensure!(answer == "42\n", "{answer}");
    let token = "/var/run/secrets/kubernetes.io/serviceaccount";
    let seen = stage
        .kubectl(&["exec", &web, "-c", "pgdog", "--", "ls", token])
        .await?;
    ensure!(seen.is_empty(), "the proxy has a token: {seen}");

    synced(&stage, 1).await?;
    let took = changed(&stage, &web).await?;

    // By the webhook, and by hand with what the API server says of the cluster.
    let by_webhook = finished(&stage, job(&stage, "by-webhook")).await?;
    let by_hand = finished(&stage, injected(&stage, &job(&stage, "by-hand")).await?).await?;
    // Who has ended is no proxy any more.
    synced(&stage, 1).await?;
    missing(&stage, &web).await?;
    refused(&stage).await?;
    let api = stage.api::<Deployment>();
    api.delete("web", &DeleteParams::background()).await?;
    synced(&stage, 0).await?;
    Ok(format!(
        "ready in {:.1} s; change acknowledged in {} ms; jobs of {:.1} s by webhook, {:.1} s by hand",
        came.as_secs_f64(),
        took.as_millis(),
        by_webhook.as_secs_f64(),
        by_hand.as_secs_f64()
    ))
}

/// While no operator answers, labelled pods are refused, others are not, and sidecars serve.
pub(crate) async fn webhook_down(stage: Stage) -> anyhow::Result<String> {
    start(&stage).await?;
    let web = application(&stage).await?;
    let operator: Api<Deployment> = Api::namespaced(stage.client.clone(), "pgdog-system");
    let spec = operator.get("pgdog-operator").await?.spec;
    let before = spec.and_then(|spec| spec.replicas).unwrap_or(1);
    let scale = |replicas: i32| Patch::Merge(json!({"spec": {"replicas": replicas}}));
    let how = PatchParams::default();
    operator.patch("pgdog-operator", &how, &scale(0)).await?;
    let without = without_webhook(&stage, &web).await;
    operator
        .patch("pgdog-operator", &how, &scale(before))
        .await?;
    let message = without?;
    let begun = Instant::now();
    until(2 * MINUTE, "labelled pods are taken again", || async {
        Ok(
            dry(&stage.client, &stage.namespace, &labelled("again", "shop"))
                .await
                .ok(),
        )
    })
    .await?;
    let back = begun.elapsed();
    let pod = dry(&stage.client, &stage.namespace, &labelled("again", "shop")).await?;
    ensure!(has_proxy(&pod), "no sidecar: {pod:?}");
    Ok(format!(
        "{message}; taken again after {:.1} s",
        back.as_secs_f64()
    ))
}

async fn without_webhook(stage: &Stage, web: &str) -> anyhow::Result<String> {
    let system: Api<Pod> = Api::namespaced(stage.client.clone(), "pgdog-system");
    let of = ListParams::default().labels("app.kubernetes.io/name=pgdog-operator");
    until(MINUTE, "the operator is gone", || async {
        Ok(system.list(&of).await?.items.is_empty().then_some(()))
    })
    .await?;
    let refusal = dry(&stage.client, &stage.namespace, &labelled("asks", "shop")).await;
    let told = refusal
        .err()
        .context("a labelled pod was taken")?
        .to_string();
    ensure!(told.contains("inject.pgdog.dev"), "{told}");
    let other = json!({"metadata": {"name": "other"}, "spec": {"containers": [{"name": "x", "image": "x:1"}]}});
    dry(&stage.client, &stage.namespace, &other)
        .await
        .context("an unlabelled pod")?;
    dry(&stage.client, "kube-system", &labelled("asks", "shop"))
        .await
        .context("a labelled pod in kube-system")?;
    let ask = [
        "exec",
        web,
        "-c",
        "web",
        "--",
        "psql",
        "-Atc",
        "select 40 + 2",
    ];
    let answer = stage.kubectl(&ask).await?;
    ensure!(answer == "42\n", "{answer}");
    // The API server's own words, without the address.
    let words = told.split(": Post").next().unwrap_or_default();
    Ok(words.trim_start_matches("ApiError: ").to_owned())
}

/// Postgres, and a cluster of mode Sidecar in front of it.
async fn start(stage: &Stage) -> anyhow::Result<()> {
    postgres::start(stage, 0).await?;
    stage
        .make(
            "shop",
            json!({"mode": "Sidecar", "source": postgres::source()}),
        )
        .await?;
    stage
        .make(
            "plain",
            json!({"replicas": 0, "source": postgres::source()}),
        )
        .await
}

/// A Deployment `web` whose pod asks for the sidecar; returns the name of the pod.
async fn application(stage: &Stage) -> anyhow::Result<String> {
    let mut template = template(stage, "sleep infinity");
    template["metadata"]["labels"]["app"] = "web".into();
    let mut migrate = template["spec"]["containers"][0].clone();
    migrate["name"] = "migrate".into();
    migrate["command"] = json!(["psql", "-c", "create table migrated as select 1"]);
    template["spec"]["initContainers"] = json!([migrate]);
    template["spec"]["containers"][0]["name"] = "web".into();
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template},
    }))?;
    stage
        .api()
        .create(&PostParams::default(), &deployment)
        .await?;
    let of = ListParams::default().labels("app=web");
    until(2 * MINUTE, "the application is ready", || async {
        let pods = stage.api::<Pod>().list(&of).await?;
        Ok(pods
            .iter()
            .find(|pod| is_ready(pod))
            .map(ResourceExt::name_any))
    })
    .await
}

/// A pod's template that asks for the sidecar, under the strictest standard.
fn template(stage: &Stage, command: &str) -> Value {
    json!({
        "metadata": {"labels": {"pgdog.dev/inject": "shop"}},
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "main",
                "image": stage.postgres_image,
                "command": ["sh", "-c", command],
                "env": [
                    {"name": "PGUSER", "value": "postgres"},
                    {"name": "PGPASSWORD", "value": postgres::PASSWORD},
                    {"name": "PGDATABASE", "value": "app"},
                ],
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    })
}

fn job(stage: &Stage, name: &str) -> Value {
    let mut template = template(stage, "psql -c 'insert into migrated values (2)'");
    template["spec"]["restartPolicy"] = "Never".into();
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": template},
    })
}

/// What `pgdog-operator inject` makes of a workload.
async fn injected(stage: &Stage, workload: &Value) -> anyhow::Result<Value> {
    let program = std::env::var("E2E_OPERATOR");
    let program = program.unwrap_or_else(|_| "target/debug/pgdog-operator".to_owned());
    let file = std::env::temp_dir().join(format!("{}.json", stage.namespace));
    std::fs::write(&file, workload.to_string())?;
    let output = tokio::process::Command::new(&program)
        .args(["inject", "--namespace", &stage.namespace, "--file"])
        .arg(&file)
        .output()
        .await
        .with_context(|| format!("run {program} (E2E_OPERATOR)"))?;
    std::fs::remove_file(&file)?;
    let (out, err) = (
        String::from_utf8(output.stdout)?,
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(output.status.success(), "{program} inject: {err}");
    let args = ["create", "--dry-run=client", "-o", "json", "-f"];
    let yaml = std::env::temp_dir().join(format!("{}.yaml", stage.namespace));
    std::fs::write(&yaml, &out)?;
    let path = yaml.to_string_lossy().into_owned();
    let read = stage.kubectl(&[&args[..], &[path.as_str()]].concat()).await;
    std::fs::remove_file(&yaml)?;
    Ok(serde_json::from_str(&read?)?)
}

/// Runs a Job to its end; returns how long it took.
async fn finished(stage: &Stage, job: Value) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let job: Job = serde_json::from_value(job)?;
    let name = job.name_any();
    stage.api().create(&PostParams::default(), &job).await?;
    let proxied = ListParams::default().labels(&format!("job-name={name}"));
    until(MINUTE, &format!("job {name} is complete"), || async {
        let status = stage.api::<Job>().get(&name).await?.status;
        let conditions = status.and_then(|s| s.conditions).unwrap_or_default();
        let so = |kind: &str| {
            conditions
                .iter()
                .any(|c| c.type_ == kind && c.status == "True")
        };
        ensure!(!so("Failed"), "job {name} failed");
        Ok(so("Complete").then_some(()))
    })
    .await?;
    let pods = stage.api::<Pod>().list(&proxied).await?;
    ensure!(
        pods.items.len() == 1 && has_proxy(&pods.items[0]),
        "no sidecar: {pods:?}"
    );
    Ok(begun.elapsed())
}

/// Waits until so many sidecars are there and have acknowledged.
async fn synced(stage: &Stage, count: i32) -> anyhow::Result<()> {
    until(MINUTE, &format!("{count} sidecars are synced"), || async {
        let status = stage.status("shop").await?;
        let sidecars = status.sidecars.unwrap_or_default();
        let all = [status.replicas, status.ready_replicas, sidecars.injected];
        Ok((all == [count; 3]
            && sidecars.missing + sidecars.outdated == 0
            && status.config.summary == format!("{count}/{count}"))
        .then_some(()))
    })
    .await
}

/// A change reaches the sidecar without a restart; returns how long it took.
async fn changed(stage: &Stage, web: &str) -> anyhow::Result<Duration> {
    let hash = stage.status("shop").await?.config.settings.hash;
    let begun = Instant::now();
    stage
        .change("shop", json!({"pooling": {"defaultPoolSize": 3}}))
        .await?;
    until(
        Duration::from_secs(20),
        "the sidecar has new settings",
        || async {
            let config = stage.status("shop").await?.config;
            Ok((config.settings.hash != hash && config.summary == "1/1").then_some(()))
        },
    )
    .await?;
    let took = begun.elapsed();
    let pod = stage.api::<Pod>().get(web).await?;
    let status = pod.status.and_then(|status| status.init_container_statuses);
    let restarts: i32 = status.iter().flatten().map(|c| c.restart_count).sum();
    ensure!(restarts == 0, "{restarts} restarts");
    Ok(took)
}

/// A pod that asked and has none is counted and told.
async fn missing(stage: &Stage, web: &str) -> anyhow::Result<()> {
    stage
        .kubectl(&["label", "pod", "db-0", "pgdog.dev/inject=shop"])
        .await?;
    let wanted = Duration::from_secs(20);
    let kind = ConditionType::SidecarsInjected;
    let (reason, message) = stage
        .condition("shop", kind, ConditionStatus::False, wanted)
        .await?;
    ensure!(
        reason == "MissingSidecar" && message.contains("db-0"),
        "{reason} {message}"
    );
    ensure!(!message.contains(web), "{message}");
    until(wanted, "an event tells it", || async {
        let events = stage.kubectl(&[
            "get",
            "events.v1.events.k8s.io",
            "-o",
            "jsonpath={.items[*].reason}",
        ]);
        Ok(events
            .await?
            .contains("SidecarsInjectedMissingSidecar")
            .then_some(()))
    })
    .await?;
    stage
        .kubectl(&["label", "pod", "db-0", "pgdog.dev/inject-"])
        .await?;
    stage
        .condition("shop", kind, ConditionStatus::True, wanted)
        .await?;
    Ok(())
}

/// Who asks for what cannot be had is told why.
async fn refused(stage: &Stage) -> anyhow::Result<()> {
    let mut taken = labelled("x", "shop");
    taken["spec"]["containers"][0]["ports"] = json!([{"containerPort": 9090}]);
    for (pod, words) in [
        (labelled("x", "nobody"), "there is no PgDogCluster"),
        (labelled("x", "plain"), "is of mode Deployment"),
        (taken, "spec.monitoring.port"),
    ] {
        let told = dry(&stage.client, &stage.namespace, &pod).await;
        let told = told.err().context("a pod was taken")?.to_string();
        ensure!(
            told.contains("denied the request") && told.contains(words),
            "{told}"
        );
    }
    Ok(())
}

fn labelled(name: &str, cluster: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"pgdog.dev/inject": cluster}},
        "spec": {"containers": [{"name": "x", "image": "x:1"}]},
    })
}

/// What would become of a pod.
async fn dry(client: &Client, namespace: &str, pod: &Value) -> anyhow::Result<Pod> {
    let how = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    Ok(api
        .create(&how, &serde_json::from_value(pod.clone())?)
        .await?)
}

fn has_proxy(pod: &Pod) -> bool {
    let first = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.init_containers.as_ref()?.first());
    first.is_some_and(|c| c.name == "pgdog" && c.restart_policy.as_deref() == Some("Always"))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}
