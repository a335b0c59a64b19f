//! From what was decided and seen in one reconciliation to the status. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::{Resource, ResourceExt};
use pgdog_operator_api::{
    Condition, ConditionStatus, ConditionType, Mode, PgDogCluster, PgDogClusterStatus, TlsStatus,
    annotations, labels,
};

use crate::context::Refused;
use crate::decide::Decision;
use crate::discover::Found;
use crate::observed::View;
use crate::render::config::{Missing, Unrenderable};
use crate::render::pod::CONTAINER;
use crate::render::{self, children};
use crate::rollout::Stage;
use crate::sidecars;
use crate::status::{self, Finding, Proxy, Wanted};

/// What one reconciliation has seen.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The hosts.
    pub found: &'a Found,
    /// What the proxies have found out about them, where they have looked.
    pub view: Option<&'a View>,
    /// The proxies.
    pub proxies: &'a [Proxy],
    /// How many of them are of the Deployment's template of now, as far as that is known.
    pub rolled: Option<i32>,
    /// Pods that asked for a sidecar and have none.
    pub missing: &'a [String],
    /// What they are to have, or why that cannot be said.
    pub decision: Result<&'a Decision, &'a Unrenderable>,
    /// What could not be written: why for programs, and for people.
    pub trouble: Option<(&'static str, &'a str)>,
    /// What somebody should look at where nothing worse is wrong: why for programs, and for people.
    pub hint: Option<(&'static str, &'a str)>,
    /// Until when certificates are valid, and what is to be said of it.
    pub tls: (TlsStatus, Finding),
    /// Settings that a proxy refused.
    pub refused: Option<&'a Refused>,
    /// The image of the proxies.
    pub image: &'a str,
    /// The generation that cannot be read and why, where what is known of the cluster is a former one.
    pub unreadable: Option<(i64, String)>,
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
    let generation = match &seen.unreadable {
        Some((generation, _)) => *generation,
        None => cluster.meta().generation.unwrap_or_default(),
    };
    now.observed_generation = Some(generation);
    now.selector = Some(selector(cluster));
    now.replicas = count(seen.proxies.len());
    now.ready_replicas = count(seen.proxies.iter().filter(|p| p.ready).count());
    let updated = count(seen.proxies.iter().filter(|p| p.updated).count());
    now.updated_replicas = seen.rolled.map_or(updated, |rolled| rolled.min(updated));
    now.image = Some(seen.image.to_owned());
    now.endpoints = status::endpoints(seen.found, seen.view, &now.endpoints, time);
    let wanted = wanted(now);
    now.config = status::config(&wanted, seen.proxies, &now.config);

    let mut findings = vec![status::resolved(seen.found, seen.view)];
    findings.extend(validity(seen));
    now.tls = seen.tls.0.clone();
    findings.push(seen.tls.1.clone());
    findings.extend(service(cluster, now, seen, generation));
    findings.push(progressing(cluster, now, seen));
    if cluster.spec.mode == Mode::Sidecar {
        now.sidecars = Some(sidecars::counted(seen.proxies, seen.missing));
        findings.push(injected(seen.missing));
    }
    let mut degraded = status::degraded(&findings, seen.trouble);
    if let Some(message) = status::standing_still(seen.proxies, true)
        && degraded.status == ConditionStatus::False
    {
        degraded = Finding::new(ConditionType::Degraded, true, "ProxiesFailing", message);
    }
    if let Some((reason, message)) = seen.hint
        && degraded.status == ConditionStatus::False
    {
        degraded = Finding::new(ConditionType::Degraded, true, reason, message);
    }
    findings.push(degraded);
    findings.push(frozen(cluster));
    findings.extend(seen.more.iter().flatten().cloned());
    forget(&mut now.conditions, &findings);
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

/// The labels of the proxies' pods.
fn selector(cluster: &PgDogCluster) -> String {
    if cluster.spec.mode == Mode::Sidecar {
        return format!("{}={}", labels::INJECT, cluster.name_any());
    }
    let labels: Vec<_> = children::selector(cluster)
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.join(",")
}

/// Whether the proxies have what they are to have, and clients are served.
fn service(
    cluster: &PgDogCluster,
    now: &PgDogClusterStatus,
    seen: &Seen<'_>,
    generation: i64,
) -> [Finding; 2] {
    if cluster.spec.mode == Mode::Sidecar && seen.proxies.is_empty() {
        // Nobody runs who could be served: that is neither good nor bad.
        return [ConditionType::ConfigSynced, ConditionType::Available].map(|kind| {
            Finding::new(
                kind,
                ConditionStatus::Unknown,
                "NoSidecars",
                "no pod has a sidecar now",
            )
        });
    }
    let synced = match not_rendered(now, seen, generation) {
        Some(finding) => finding,
        None => synced(now, seen),
    };
    [synced, status::available(cluster, seen.proxies, seen.view)]
}

/// The proxies may have all that is in force, and this is of a former generation: what is written now has made no configuration.
fn not_rendered(now: &PgDogClusterStatus, seen: &Seen<'_>, generation: i64) -> Option<Finding> {
    const REASON: &str = "NotRendered";
    let kind = ConditionType::ConfigSynced;
    // Settings that were taken back are told of, and so is a cluster that never had a configuration.
    let error = match (&seen.unreadable, &seen.decision.ok()?.invalid) {
        _ if seen.refused.is_some() => return None,
        (Some((_, error)), _) => error.clone(),
        (None, error) => words(error.as_ref()?),
    };
    let before = now.conditions.iter().find(|c| c.kind == kind);
    let is_new = before.is_none_or(|c| c.reason == REASON || c.observed_generation < generation);
    let message = format!("a former generation is in force: {error}");
    is_new.then(|| Finding::new(kind, false, REASON, message))
}

/// Why there is no configuration, for people.
fn words(error: &Unrenderable) -> String {
    match error {
        Unrenderable::Secrets(missing) => told(missing),
        Unrenderable::Invalid(problems) => {
            let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
            told.join("; ")
        }
    }
}

/// Whether every pod that asked for a sidecar has one.
fn injected(missing: &[String]) -> Finding {
    let kind = ConditionType::SidecarsInjected;
    let Some(first) = missing.first() else {
        return Finding::new(
            kind,
            true,
            "Injected",
            "no pod that asked for a sidecar is without one",
        );
    };
    let others = match missing.len() {
        1 => String::new(),
        count => format!(" and {} others", count - 1),
    };
    Finding::new(
        kind,
        false,
        "MissingSidecar",
        format!(
            "{first}{others} asked for a sidecar and were made without one: switch the webhook on and delete them, or put it into \
             their manifest with `pgdog-operator inject`"
        ),
    )
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
    if let Some((_, error)) = &seen.unreadable {
        return [status::unreadable(error), there];
    }
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
            Finding::new(
                secrets,
                false,
                missing
                    .first()
                    .map_or("SecretNotFound", |one| one.what.reason()),
                told(missing),
            ),
        ],
        Some(error @ Unrenderable::Invalid(_)) => [
            Finding::new(valid, false, "ParseError", words(error)),
            there,
        ],
    }
}

fn told(missing: &[Missing]) -> String {
    let told: Vec<_> = missing.iter().map(|one| one.message.as_str()).collect();
    told.join("; ")
}

/// Good settings that came back are not those that are wanted, nor are former shards.
fn synced(now: &PgDogClusterStatus, seen: &Seen<'_>) -> Finding {
    if seen.decision.is_ok_and(|decided| decided.other.is_some()) && seen.refused.is_none() {
        let message = "the former shards are in force until all proxies change at one moment";
        return Finding::new(ConditionType::ConfigSynced, false, "Sharding", message);
    }
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

/// How far pods and settings have come, and which proxies do not get on.
fn progressing(cluster: &PgDogCluster, now: &PgDogClusterStatus, seen: &Seen<'_>) -> Finding {
    let finding = progress(cluster, now, seen);
    match status::standing_still(seen.proxies, false) {
        Some(still) if finding.reason == "Complete" => {
            Finding::new(finding.kind, true, "WaitingForProxies", still)
        }
        Some(still) => Finding {
            message: format!("{}; {still}", finding.message),
            ..finding
        },
        None => finding,
    }
}

fn progress(cluster: &PgDogCluster, now: &PgDogClusterStatus, seen: &Seen<'_>) -> Finding {
    let kind = ConditionType::Progressing;
    // Nobody replaces sidecars of a former time but the application's own next rollout: they are counted.
    let rolls = cluster.spec.mode == Mode::Deployment;
    if let Some(old) = seen.proxies.iter().find(|proxy| rolls && !proxy.updated) {
        let message = format!("{} is of a former template", old.pod);
        return Finding::new(kind, true, "RollingOut", message);
    }
    if rolls && now.updated_replicas < now.replicas {
        let message = format!(
            "{} of {} pods are of the template of now",
            now.updated_replicas, now.replicas
        );
        return Finding::new(kind, true, "RollingOut", message);
    }
    match seen.decision.map(|decision| decision.stage) {
        Ok(Stage::Complete) => {
            Finding::new(kind, false, "Complete", "all proxies are as they are to be")
        }
        Ok(Stage::Canary) => Finding::new(
            kind,
            true,
            "Canary",
            "the first proxies have not acknowledged yet",
        ),
        Ok(Stage::Rolling) => Finding::new(kind, true, "Rolling", "settings go to all proxies"),
        Ok(Stage::Waiting) => Finding::new(
            kind,
            true,
            "WaitingForBudget",
            "settings with further databases wait until the shares of the budget leave room for looking after them",
        ),
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

/// The image of proxies that name none: the one that they were made with, for an upgrade of the operator restarts no proxy. A
/// fleet without one, or one that is to be upgraded, gets the operator's.
#[must_use]
pub fn default_image<'a>(
    cluster: &PgDogCluster,
    kept: Option<&'a str>,
    latest: &'a str,
    upgrade: bool,
) -> &'a str {
    let own = cluster.spec.image.as_ref();
    let names_one = own.is_some_and(|own| own.tag.is_some() || own.digest.is_some());
    let moves = |kept: &str| {
        let repository = own.and_then(|own| own.repository.as_deref());
        repository.is_some_and(|repository| repository != split(kept).0)
    };
    match kept {
        Some(kept) if !upgrade && !names_one && !kept.is_empty() && !moves(kept) => kept,
        _ => latest,
    }
}

/// The image of the proxies.
#[must_use]
pub fn image(cluster: &PgDogCluster, default: &str) -> String {
    let own = cluster.spec.image.clone().unwrap_or_default();
    let (repository, version) = split(default);
    let repository = own.repository.as_deref().unwrap_or(repository);
    match (&own.digest, &own.tag) {
        (Some(digest), _) => format!("{repository}@{digest}"),
        (None, Some(tag)) => format!("{repository}:{tag}"),
        (None, None) if version.is_empty() => format!("{repository}:latest"),
        (None, None) => format!("{repository}{version}"),
    }
}

/// An image's repository, and its tag or digest with what stands before it.
fn split(image: &str) -> (&str, &str) {
    let at = image.find('@').or_else(|| {
        let colon = image.rfind(':')?;
        // That of a registry's port stands before a slash.
        (!image[colon..].contains('/')).then_some(colon)
    });
    image.split_at(at.unwrap_or(image.len()))
}

/// Whether a pod is as its template says now.
#[must_use]
pub fn is_updated(pod: &Pod, hash: Option<&str>, image: &str) -> bool {
    let spec = pod.spec.as_ref();
    let container = spec.and_then(|spec| {
        let init = spec.init_containers.iter().flatten();
        init.chain(&spec.containers).find(|c| c.name == CONTAINER)
    });
    let own = pod.annotations().get(annotations::IMAGE);
    container.and_then(|c| c.image.as_deref()) == Some(own.map_or(image, String::as_str))
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_new_operator_restarts_no_proxy_unless_it_is_asked_to() {
        let of = |image: serde_json::Value, kept: Option<&str>, upgrade: bool| {
            let cluster: PgDogCluster = serde_json::from_value(json!({
                "apiVersion": "pgdog.dev/v1alpha1",
                "kind": "PgDogCluster",
                "metadata": {"name": "shop"},
                "spec": {"databases": [], "image": image},
            }))
            .unwrap();
            let latest = "registry:5000/pgdog:2";
            super::image(&cluster, default_image(&cluster, kept, latest, upgrade))
        };
        let old = Some("registry:5000/pgdog:1");
        assert_eq!(of(json!({}), None, false), "registry:5000/pgdog:2");
        assert_eq!(of(json!({}), old, false), "registry:5000/pgdog:1");
        assert_eq!(of(json!({}), old, true), "registry:5000/pgdog:2");
        assert_eq!(
            of(json!({"pullPolicy": "Always"}), old, false),
            "registry:5000/pgdog:1"
        );
        assert_eq!(of(json!({"tag": "3"}), old, false), "registry:5000/pgdog:3");
        assert_eq!(of(json!({"repository": "mine"}), old, false), "mine:2");
        assert_eq!(
            of(json!({"repository": "mine"}), Some("mine:1"), false),
            "mine:1"
        );
        assert_eq!(
            of(json!({}), Some("pgdog@sha256:ab"), false),
            "pgdog@sha256:ab"
        );
        assert_eq!(
            of(
                json!({"digest": "sha256:cd"}),
                Some("pgdog@sha256:ab"),
                true
            ),
            "registry:5000/pgdog@sha256:cd"
        );
    }

    #[test]
    fn a_pod_of_before_has_not_the_certificates_that_were_asked_for_later() {
        let cluster = |tls: serde_json::Value| -> PgDogCluster {
            serde_json::from_value(json!({
                "apiVersion": "pgdog.dev/v1alpha1",
                "kind": "PgDogCluster",
                "metadata": {"name": "shop"},
                "spec": {"databases": [], "tls": tls},
            }))
            .unwrap()
        };
        let before = cluster(json!({}));
        let after = cluster(json!({"client": {"mode": "VerifyClient", "caSecretRef": "ca"}}));
        let pod = |cluster: &PgDogCluster| Pod {
            spec: Some(k8s_openapi::api::core::v1::PodSpec {
                containers: vec![render::pod::container(cluster, "pgdog:1")],
                ..Default::default()
            }),
            ..Pod::default()
        };
        assert!(lacks_files(&after, &pod(&before)));
        assert!(!lacks_files(&after, &pod(&after)));
        assert!(!lacks_files(&before, &pod(&after)));
    }
}
