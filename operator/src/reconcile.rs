//! The order of steps for one cluster, and nothing else.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use pgdog_config::documents;
use pgdog_operator_api::{ConditionStatus, ConditionType, PgDogCluster, PgDogClusterStatus};
use serde_json::Value;

use crate::apply::{self, ApplyError};
use crate::context::{Context, Memory};
use crate::discover::{self, Found};
use crate::fleet::{Document, Place, ProxyId, Want};
use crate::render::config::{Rendered, Unrenderable};
use crate::render::process::Ports;
use crate::render::{children, config, snapshot};
use crate::status::{self, Finding, Proxy, Wanted};
use crate::world::{World, address, is_leaving, is_ready};

/// Everything is looked at again after this time, whatever the watches say.
const AGAIN: Duration = Duration::from_secs(300);

/// Brings what is there in line with what is wanted.
///
/// # Errors
///
/// What the API server refused; it is tried again.
pub async fn reconcile(cluster: Arc<PgDogCluster>, cx: Arc<Context>) -> Result<Action, ApplyError> {
    if cluster.meta().deletion_timestamp.is_some() {
        forget(&cluster, &cx);
        return Ok(Action::await_change());
    }
    let namespace = cluster.namespace().unwrap_or_default();
    let world = cx.stores.world(&namespace);
    let mut memory = recall(&cluster, &world, &cx);
    let mut now = memory.status.clone().unwrap_or_default();
    let mut findings = Vec::new();

    let found = discover::discover(&cluster.spec, &world);
    findings.push(status::resolved(&found));
    let rendered = decide(&cluster, &found, &world, &memory, &mut findings);
    if let Ok(rendered) = &rendered {
        number(&mut now, rendered);
        // Written down before it is pushed: a crash skips numbers and never repeats them.
        write_status(&cluster, &cx, &mut memory, now.clone()).await?;
        memory.topology = Some(rendered.topology.clone());
    }
    let wanted = wanted(&now);
    let image = image(&cluster, &cx.default_image);
    let reconciles = !cluster
        .spec
        .operation
        .is_some_and(|operation| operation.reconciliation_paused);
    if reconciles {
        apply::certificates(&cluster, &world, &cx).await?;
        if let Ok(rendered) = &rendered {
            let text = snapshot::render(
                rendered,
                snapshot::Versions {
                    epoch: cx.epoch,
                    settings: wanted.settings,
                    topology: wanted.topology,
                },
            );
            let children = children::render(&cluster, &image, &rendered.process, text);
            findings.extend(apply::children(&cluster, &children, &world, &mut memory, &cx).await?);
        }
    }
    let proxies = push(
        &cluster,
        &world,
        rendered.as_ref().ok(),
        &wanted,
        reconciles,
        &cx,
    );
    observe(
        &cluster, &mut now, &found, &proxies, &wanted, &image, findings,
    );
    write_status(&cluster, &cx, &mut memory, now).await?;
    remember(&cluster, memory, &cx);
    Ok(Action::requeue(AGAIN))
}

/// What is remembered, or what can be found again after a restart.
fn recall(cluster: &PgDogCluster, world: &World, cx: &Context) -> Memory {
    let uid = cluster.uid().unwrap_or_default();
    let memory = cx.memory.lock().unwrap_or_else(PoisonError::into_inner);
    let mut memory = memory.get(&uid).cloned().unwrap_or_default();
    if memory.status.is_none() {
        memory.status.clone_from(&cluster.status);
    }
    if memory.topology.is_none() {
        memory.topology = apply::former_topology(cluster, world);
    }
    memory
}

fn remember(cluster: &PgDogCluster, memory: Memory, cx: &Context) {
    let uid = cluster.uid().unwrap_or_default();
    let mut all = cx.memory.lock().unwrap_or_else(PoisonError::into_inner);
    all.insert(uid, memory);
}

/// A cluster that is gone: the garbage collector takes its children, which it owns.
pub fn forget(cluster: &PgDogCluster, cx: &Context) {
    let uid = cluster.uid().unwrap_or_default();
    cx.fleet.retain(&uid, &BTreeSet::new());
    let mut all = cx.memory.lock().unwrap_or_else(PoisonError::into_inner);
    all.remove(&uid);
}

/// The configuration that is wanted now. Hosts that have gone do not take a topology away: proxies that know none could serve
/// nobody, also not when the hosts are back and the operator is not.
fn decide(
    cluster: &PgDogCluster,
    found: &Found,
    world: &World,
    memory: &Memory,
    findings: &mut Vec<Finding>,
) -> Result<Rendered, Unrenderable> {
    let shards = discover::shards(&cluster.spec).len();
    let mut rendered = config::render(cluster, found, world, &Default::default());
    if found.has_gap(shards)
        && let (Ok(rendered), Some(topology)) = (&mut rendered, &memory.topology)
    {
        rendered.topology = topology.clone();
    }
    let valid = ConditionType::ConfigValid;
    let secrets = ConditionType::SecretsResolved;
    match &rendered {
        Ok(_) => {
            findings.push(Finding::new(
                valid,
                true,
                "Valid",
                "the proxy's parser takes it",
            ));
            findings.push(Finding::new(
                secrets,
                true,
                "Resolved",
                "all Secrets are there",
            ));
        }
        Err(Unrenderable::Secrets(missing)) => {
            findings.push(Finding::new(
                valid,
                ConditionStatus::Unknown,
                "SecretsMissing",
                "it cannot be told before all Secrets are there",
            ));
            findings.push(Finding::new(
                secrets,
                false,
                "SecretNotFound",
                missing.join("; "),
            ));
        }
        Err(Unrenderable::Invalid(problems)) => {
            let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
            findings.push(Finding::new(valid, false, "ParseError", told.join("; ")));
            findings.push(Finding::new(
                secrets,
                true,
                "Resolved",
                "all Secrets are there",
            ));
        }
    }
    rendered
}

/// Another content has another number.
fn number(status: &mut PgDogClusterStatus, rendered: &Rendered) {
    let halves = [
        (&mut status.config.settings, &rendered.settings),
        (&mut status.config.topology, &rendered.topology),
    ];
    for (half, document) in halves {
        let sha256 = documents::sha256(&Value::Object(document.clone()));
        if half.hash != sha256 {
            half.revision += 1;
            half.hash_short = sha256.chars().take(8).collect();
            half.hash = sha256;
        }
    }
    status.secrets.clone_from(&rendered.secrets);
}

fn wanted(status: &PgDogClusterStatus) -> Wanted {
    let config = &status.config;
    Wanted {
        settings: u64::try_from(config.settings.revision).unwrap_or_default(),
        settings_sha256: config.settings.hash.clone(),
        topology: u64::try_from(config.topology.revision).unwrap_or_default(),
        topology_sha256: config.topology.hash.clone(),
    }
}

/// The image of the proxies.
fn image(cluster: &PgDogCluster, default: &str) -> String {
    let own = cluster.spec.image.clone().unwrap_or_default();
    let (repository, tag) = match default.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (default, "latest"),
    };
    let repository = own.repository.as_deref().unwrap_or(repository);
    match (&own.digest, &own.tag) {
        (Some(digest), _) => format!("{repository}@{digest}"),
        (None, tag_of) => format!("{repository}:{}", tag_of.as_deref().unwrap_or(tag)),
    }
}

/// Gives every proxy what it is to have; says how each stands to it.
fn push(
    cluster: &PgDogCluster,
    world: &World,
    rendered: Option<&Rendered>,
    wanted: &Wanted,
    reconciles: bool,
    cx: &Context,
) -> Vec<Proxy> {
    let uid = cluster.uid().unwrap_or_default();
    let labels: Vec<_> = children::selector(cluster).into_iter().collect();
    let pods: Vec<_> = world
        .pods_with(&labels)
        .filter(|pod| !is_leaving(pod))
        .collect();
    let want = rendered.filter(|_| reconciles).map(|rendered| {
        let document = |revision, sha256: &str, config: &serde_json::Map<String, Value>| {
            Some(Arc::new(Document {
                epoch: cx.epoch,
                revision,
                sha256: sha256.to_owned(),
                config: config.clone(),
            }))
        };
        let has_hosts = rendered.topology.get("databases").and_then(Value::as_array);
        Want {
            cluster_uid: uid.clone(),
            settings: document(wanted.settings, &wanted.settings_sha256, &rendered.settings),
            // Never nothing instead of something.
            topology: has_hosts.filter(|hosts| !hosts.is_empty()).and_then(|_| {
                document(wanted.topology, &wanted.topology_sha256, &rendered.topology)
            }),
            patience: cluster
                .spec
                .config_rollout
                .as_ref()
                .and_then(|rollout| rollout.ack_timeout)
                .map_or(Duration::from_secs(30), Duration::from),
        }
    });
    let name = format!(
        "{}-proxy.{}.pgdog",
        cluster.name_any(),
        cluster.namespace().unwrap_or_default()
    );
    let owner = ObjectRef::from_obj(cluster);
    let mut seen = Vec::new();
    for pod in &pods {
        let id = ProxyId {
            cluster: uid.clone(),
            pod: pod.uid().unwrap_or_default(),
        };
        if let (Some(want), Some(ip)) = (&want, address(pod)) {
            let ip = if ip.contains(':') {
                format!("[{ip}]")
            } else {
                ip.to_owned()
            };
            let place = Place {
                address: format!("{ip}:{}", Ports::of(cluster).admin),
                name: name.clone(),
                restarts: restarts(pod),
            };
            cx.fleet.bring(&id, place, want.clone(), &owner);
        }
        let report = cx.fleet.report(&id);
        if report.fenced {
            cx.fenced.send_replace(true);
        }
        seen.push(Proxy {
            pod: pod.name_any(),
            ready: is_ready(pod),
            updated: true,
            report,
        });
    }
    let alive = pods.iter().filter_map(|pod| pod.uid()).collect();
    cx.fleet.retain(&uid, &alive);
    seen
}

/// How often the proxy of a pod was started; before its first start there is nobody to talk to.
fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.as_ref();
    let main = status.and_then(|s| s.container_statuses.as_ref());
    let init = status.and_then(|s| s.init_container_statuses.as_ref());
    main.into_iter()
        .chain(init)
        .flatten()
        .find(|container| container.name == crate::render::pod::CONTAINER)
        .map_or(-1, |container| {
            let runs = container
                .state
                .as_ref()
                .is_some_and(|s| s.running.is_some());
            if runs { container.restart_count } else { -1 }
        })
}

/// Writes what was seen into the status.
fn observe(
    cluster: &PgDogCluster,
    now: &mut PgDogClusterStatus,
    found: &Found,
    proxies: &[Proxy],
    wanted: &Wanted,
    image: &str,
    mut findings: Vec<Finding>,
) {
    let time = Timestamp::now();
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    now.observed_generation = cluster.meta().generation;
    let selector: Vec<_> = children::selector(cluster)
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    now.selector = Some(selector.join(","));
    now.replicas = count(proxies.len());
    now.ready_replicas = count(proxies.iter().filter(|p| p.ready).count());
    now.updated_replicas = count(proxies.iter().filter(|p| p.updated).count());
    now.image = Some(image.to_owned());
    now.endpoints = status::endpoints(found, &now.endpoints, time);
    now.config = status::config(wanted, proxies, &now.config);
    findings.push(status::synced(&now.config));
    findings.push(status::available(cluster, proxies));
    let degraded = status::degraded(&findings);
    findings.push(degraded);
    let paused = cluster
        .spec
        .operation
        .is_some_and(|operation| operation.reconciliation_paused);
    findings.push(Finding::new(
        ConditionType::ReconciliationPaused,
        paused,
        if paused { "Asked" } else { "NotAsked" },
        "",
    ));
    let generation = cluster.meta().generation.unwrap_or_default();
    status::merge(&mut now.conditions, findings, generation, time);
}

async fn write_status(
    cluster: &PgDogCluster,
    cx: &Context,
    memory: &mut Memory,
    status: PgDogClusterStatus,
) -> Result<(), ApplyError> {
    if memory.status.as_ref() != Some(&status) {
        apply::status(cluster, &status, cx).await?;
        memory.status = Some(status);
        remember(cluster, memory.clone(), cx);
    }
    Ok(())
}
