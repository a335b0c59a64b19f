//! From what was decided and seen in one reconciliation to the status. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::{Resource, ResourceExt};
use pgdog_operator_api::{
    Condition, ConditionStatus, ConditionType, PgDogCluster, PgDogClusterStatus, annotations,
};

use crate::context::Refused;
use crate::decide::Decision;
use crate::discover::Found;
use crate::render::config::Unrenderable;
use crate::render::pod::CONTAINER;
use crate::render::{self, children};
use crate::rollout::Stage;
use crate::status::{self, Finding, Proxy, Wanted};

/// What one reconciliation has seen.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The hosts.
    pub found: &'a Found,
    /// The proxies.
    pub proxies: &'a [Proxy],
    /// What they are to have, or why that cannot be said.
    pub decision: Result<&'a Decision, &'a Unrenderable>,
    /// What could not be written: why for programs, and for people.
    pub trouble: Option<(&'static str, &'a str)>,
    /// Settings that a proxy refused.
    pub refused: Option<&'a Refused>,
    /// The image of the proxies.
    pub image: &'a str,
    /// What else there is to say.
    pub more: &'a [Option<Finding>],
}

/// Writes what was seen into the status.
pub fn observe(
    cluster: &PgDogCluster,
    now: &mut PgDogClusterStatus,
    seen: &Seen<'_>,
    time: Timestamp,
) {
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    now.observed_generation = cluster.meta().generation;
    let selector: Vec<_> = children::selector(cluster)
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    now.selector = Some(selector.join(","));
    now.replicas = count(seen.proxies.len());
    now.ready_replicas = count(seen.proxies.iter().filter(|p| p.ready).count());
    now.updated_replicas = count(seen.proxies.iter().filter(|p| p.updated).count());
    now.image = Some(seen.image.to_owned());
    now.endpoints = status::endpoints(seen.found, &now.endpoints, time);
    let wanted = wanted(now);
    now.config = status::config(&wanted, seen.proxies, &now.config);

    let mut findings = vec![status::resolved(seen.found)];
    findings.extend(validity(seen));
    findings.push(synced(now, seen));
    findings.push(status::available(cluster, seen.proxies));
    findings.push(progressing(seen));
    let degraded = status::degraded(&findings, seen.trouble);
    findings.push(degraded);
    findings.push(frozen(cluster));
    findings.extend(seen.more.iter().flatten().cloned());
    forget(&mut now.conditions, &findings);
    let generation = cluster.meta().generation.unwrap_or_default();
    status::merge(&mut now.conditions, findings, generation, time);
}

/// What is asked for no more is not told any more.
fn forget(conditions: &mut Vec<Condition>, findings: &[Finding]) {
    let at_times = [ConditionType::BudgetHeld, ConditionType::Paused];
    conditions.retain(|condition| {
        !at_times.contains(&condition.kind)
            || findings
                .iter()
                .any(|finding| finding.kind == condition.kind)
    });
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

/// Whether what is written makes a configuration.
fn validity(seen: &Seen<'_>) -> [Finding; 2] {
    let (valid, secrets) = (ConditionType::ConfigValid, ConditionType::SecretsResolved);
    let there = Finding::new(secrets, true, "Resolved", "all Secrets are there");
    let error = match seen.decision {
        Ok(decision) => decision.invalid.as_ref(),
        Err(error) => Some(error),
    };
    match error {
        None => [
            Finding::new(valid, true, "Valid", "the proxy's own parser takes it"),
            there,
        ],
        Some(Unrenderable::Secrets(missing)) => [
            Finding::new(
                valid,
                ConditionStatus::Unknown,
                "SecretsMissing",
                "it cannot be told before all Secrets are there",
            ),
            Finding::new(secrets, false, "SecretNotFound", missing.join("; ")),
        ],
        Some(Unrenderable::Invalid(problems)) => {
            let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
            [
                Finding::new(valid, false, "ParseError", told.join("; ")),
                there,
            ]
        }
    }
}

/// Good settings that came back are not those that are wanted.
fn synced(now: &PgDogClusterStatus, seen: &Seen<'_>) -> Finding {
    match seen.refused {
        Some(refused) => Finding::new(
            ConditionType::ConfigSynced,
            false,
            "RolledBack",
            format!(
                "the last good settings are in force; refused: {}",
                refused.message
            ),
        ),
        None => status::synced(&now.config),
    }
}

fn progressing(seen: &Seen<'_>) -> Finding {
    let kind = ConditionType::Progressing;
    if let Some(old) = seen.proxies.iter().find(|proxy| !proxy.updated) {
        let message = format!("{} is of a former template", old.pod);
        return Finding::new(kind, true, "RollingOut", message);
    }
    match seen.decision.map(|decision| decision.stage) {
        Ok(Stage::Complete) => Finding::new(kind, false, "Complete", ""),
        Ok(Stage::Canary) => Finding::new(
            kind,
            true,
            "Canary",
            "the first proxies have not acknowledged yet",
        ),
        Ok(Stage::Rolling) => Finding::new(kind, true, "Rolling", "settings go to all proxies"),
        Ok(Stage::Halted) => {
            Finding::new(kind, false, "CanaryHalted", "a proxy refused the settings")
        }
        Err(_) => Finding::new(
            kind,
            false,
            "Waiting",
            "there is no configuration to roll out",
        ),
    }
}

fn frozen(cluster: &PgDogCluster) -> Finding {
    let kind = ConditionType::ReconciliationPaused;
    match cluster.spec.operation {
        Some(operation) if operation.reconciliation_paused => Finding::new(
            kind,
            true,
            "Asked",
            "spec.operation.reconciliationPaused: nothing but this status is written",
        ),
        _ => Finding::new(kind, false, "NotAsked", ""),
    }
}

/// The image of the proxies.
#[must_use]
pub fn image(cluster: &PgDogCluster, default: &str) -> String {
    let own = cluster.spec.image.clone().unwrap_or_default();
    let (repository, tag) = match default.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (default, "latest"),
    };
    let repository = own.repository.as_deref().unwrap_or(repository);
    match (&own.digest, &own.tag) {
        (Some(digest), _) => format!("{repository}@{digest}"),
        (None, of) => format!("{repository}:{}", of.as_deref().unwrap_or(tag)),
    }
}

/// Whether a pod is as its template says now.
#[must_use]
pub fn is_updated(pod: &Pod, hash: Option<&str>, image: &str) -> bool {
    let spec = pod.spec.as_ref();
    let container = spec.and_then(|spec| {
        let init = spec.init_containers.iter().flatten();
        init.chain(&spec.containers).find(|c| c.name == CONTAINER)
    });
    container.and_then(|c| c.image.as_deref()) == Some(image)
        && hash.is_none_or(|hash| {
            pod.annotations()
                .get(annotations::POD_HASH)
                .is_none_or(|own| own == hash)
        })
}

/// Whether a pod was made before the cluster's certificates were asked for that its settings name now: its proxy has no such files.
#[must_use]
pub fn lacks_files(cluster: &PgDogCluster, pod: &Pod) -> bool {
    let mounts = |container: &Container| -> BTreeSet<String> {
        let mounts = container.volume_mounts.iter().flatten();
        mounts.map(|mount| mount.mount_path.clone()).collect()
    };
    let spec = pod.spec.as_ref();
    let own = spec.and_then(|spec| {
        let init = spec.init_containers.iter().flatten();
        init.chain(&spec.containers).find(|c| c.name == CONTAINER)
    });
    own.is_some_and(|own| !mounts(&render::pod::container(cluster, "")).is_subset(&mounts(own)))
}
