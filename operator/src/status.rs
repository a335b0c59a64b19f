//! From what was seen to the status. Pure.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use pgdog_operator_api::{
    ClientTlsMode, Condition, ConditionStatus, ConditionType, ConfigStatus, EndpointsStatus,
    ExcludedHost, HalfStatus, Mode, OutOfSync, PgDogCluster, PgDogClusterStatus, PrimaryStatus,
    Rejection, TlsStatus,
};

use crate::authority;
use crate::discover::{Found, Trouble};
use crate::fleet::{Report, Taken};
use crate::observed::{self, View};
use crate::render::pod::{admin_secret, client_tls_secret};
use crate::render::tls;
use crate::standstill::Standstill;
use crate::world::World;

/// A proxy as it was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Proxy {
    /// Name of its pod.
    pub pod: String,
    /// Whether its kubelet says that it is ready.
    pub ready: bool,
    /// Whether it is of the latest template.
    pub updated: bool,
    /// Why it does not run.
    pub standstill: Option<Standstill>,
    /// How it stands to its configuration.
    pub report: Report,
}

/// Which documents the proxies are to have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Revision of the settings.
    pub settings: u64,
    /// SHA-256 of the settings.
    pub settings_sha256: String,
    /// Revision of the topology.
    pub topology: u64,
    /// SHA-256 of the topology.
    pub topology_sha256: String,
}

/// A condition without its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub kind: ConditionType,
    /// Whether it is so.
    pub status: ConditionStatus,
    /// Why, for programs.
    pub reason: &'static str,
    /// Why, for people.
    pub message: String,
}

impl Finding {
    /// A finding.
    pub fn new(
        kind: ConditionType,
        status: impl Into<ConditionStatus>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            status: status.into(),
            reason,
            message: message.into(),
        }
    }
}

/// How far the proxies have come.
#[must_use]
pub fn config(wanted: &Wanted, proxies: &[Proxy], before: &ConfigStatus) -> ConfigStatus {
    let settings = half(wanted.settings, &wanted.settings_sha256, proxies, |r| {
        &r.settings
    });
    let topology = half(wanted.topology, &wanted.topology_sha256, proxies, |r| {
        &r.topology
    });
    let both = proxies
        .iter()
        .filter(|p| {
            p.report.settings.has(&wanted.settings_sha256)
                && p.report.topology.has(&wanted.topology_sha256)
        })
        .count();
    let mut out_of_sync: Vec<_> = proxies
        .iter()
        .flat_map(|proxy| {
            [
                ("settings", &proxy.report.settings),
                ("topology", &proxy.report.topology),
            ]
            .into_iter()
            .filter_map(|(half, taken)| out_of_sync(&proxy.pod, half, taken))
        })
        .collect();
    out_of_sync.truncate(20);
    let last_good = if !proxies.is_empty() && settings.acked == settings.total {
        Some(wanted.settings_sha256.clone())
    } else {
        before.last_good.clone()
    };
    ConfigStatus {
        summary: format!("{both}/{}", proxies.len()),
        settings,
        topology,
        out_of_sync,
        last_good,
    }
}

fn half(
    revision: u64,
    sha256: &str,
    proxies: &[Proxy],
    of: impl Fn(&Report) -> &Taken,
) -> HalfStatus {
    let count = |is: &dyn Fn(&Taken) -> bool| {
        let count = proxies.iter().filter(|p| is(of(&p.report))).count();
        i32::try_from(count).unwrap_or(i32::MAX)
    };
    let acked = count(&|taken| taken.has(sha256));
    let nacked = count(
        &|taken| matches!(taken, Taken::Failed { reason: Rejection::Nack, revision: r, .. } if *r == revision),
    );
    let total = i32::try_from(proxies.len()).unwrap_or(i32::MAX);
    HalfStatus {
        revision: i64::try_from(revision).unwrap_or(i64::MAX),
        hash: sha256.to_owned(),
        hash_short: sha256.chars().take(8).collect(),
        acked,
        nacked,
        pending: total - acked - nacked,
        total,
    }
}

fn out_of_sync(pod: &str, half: &str, taken: &Taken) -> Option<OutOfSync> {
    let Taken::Failed {
        revision,
        reason,
        message,
    } = taken
    else {
        return None;
    };
    Some(OutOfSync {
        pod: pod.to_owned(),
        revision: format!("{half} {revision}"),
        reason: *reason,
        message: shortened(message, 256),
    })
}

/// The hosts that were found, with what the proxies have found out about them.
#[must_use]
pub fn endpoints(
    found: &Found,
    view: Option<&View>,
    before: &EndpointsStatus,
    now: Timestamp,
) -> EndpointsStatus {
    let View {
        primaries,
        replicas,
        ..
    } = view.cloned().unwrap_or_else(|| observed::hinted(found));
    let (moved, former_primaries) = moves(&primaries, before);
    EndpointsStatus {
        primary_summary: match primaries.as_slice() {
            [] if found.hosts.is_empty() || view.is_some() => String::new(),
            [] => "asked by the proxies".to_owned(),
            [one] => one.name.clone(),
            several => format!("{} primaries", several.len()),
        },
        replicas: i32::try_from(replicas).unwrap_or(i32::MAX),
        excluded: found
            .excluded
            .iter()
            .take(16)
            .map(|host| ExcludedHost {
                name: host.name.clone(),
                reason: host.reason.clone(),
            })
            .collect(),
        last_failover_time: if moved {
            Some(Time(now))
        } else {
            before.last_failover_time.clone()
        },
        primaries,
        former_primaries,
    }
}

/// Whether a shard has another primary than the last that was known of it, and those that were last known of shards that have none
/// now: between two primaries there is often a moment without.
fn moves(now: &[PrimaryStatus], before: &EndpointsStatus) -> (bool, Vec<PrimaryStatus>) {
    let of = |primaries: &[PrimaryStatus], shard: i32| -> Vec<PrimaryStatus> {
        let of = primaries.iter().filter(|one| one.shard == shard);
        of.cloned().collect()
    };
    let known = before.primaries.iter().chain(&before.former_primaries);
    let shards: BTreeSet<i32> = known.map(|primary| primary.shard).collect();
    let (mut moved, mut former) = (false, Vec::new());
    for shard in shards {
        let last = match of(&before.primaries, shard) {
            none if none.is_empty() => of(&before.former_primaries, shard),
            last => last,
        };
        match of(now, shard) {
            none if none.is_empty() => former.extend(last),
            latest => moved |= latest != last,
        }
    }
    (moved, former)
}

/// Whether each shard has its primary: where proxies have looked, what they say and not what labels say. Only that two say
/// of themselves that they are it is told in any case.
#[must_use]
pub fn resolved(found: &Found, view: Option<&View>) -> Finding {
    let kind = ConditionType::EndpointsResolved;
    let hinted = found
        .troubles
        .iter()
        .filter(|trouble| view.is_none() || !matches!(trouble, Trouble::NoPrimary(_)));
    let mut troubles = hinted.chain(view.iter().flat_map(|view| &view.troubles));
    match troubles.next() {
        None => {
            let down = view.map(|view| view.down.as_slice()).unwrap_or_default();
            let down: String = down.iter().map(|one| format!("; {one}")).collect();
            let message = format!("{} hosts{down}", found.hosts.len());
            Finding::new(kind, true, "Resolved", message)
        }
        Some(Trouble::NotFound(message)) => Finding::new(kind, false, "SourceNotFound", message),
        Some(Trouble::NoPrimary(message)) => Finding::new(kind, false, "NoPrimary", message),
        Some(Trouble::SplitBrain(message)) => Finding::new(kind, false, "SplitBrain", message),
    }
}

/// Whether the proxies have what they are to have.
#[must_use]
pub fn synced(config: &ConfigStatus) -> Finding {
    let kind = ConditionType::ConfigSynced;
    let (settings, topology) = (&config.settings, &config.topology);
    let total = settings.total;
    if total == 0 {
        return Finding::new(kind, false, "Pending", "there is no proxy yet");
    }
    if settings.nacked + topology.nacked > 0 {
        let message = config
            .out_of_sync
            .iter()
            .find(|o| o.reason == Rejection::Nack);
        let message = message.map_or_else(String::new, |o| {
            format!("{} refused {}: {}", o.pod, o.revision, o.message)
        });
        return Finding::new(kind, false, "Nacked", message);
    }
    if settings.acked == total && topology.acked == total {
        let message = format!(
            "{total} of {total} have settings {} and topology {}",
            settings.revision, topology.revision
        );
        return Finding::new(kind, true, "Synced", message);
    }
    match config.out_of_sync.first() {
        Some(one) => Finding::new(
            kind,
            false,
            "PartiallySynced",
            format!(
                "{} of {total}; {}: {}",
                config.summary, one.pod, one.message
            ),
        ),
        None => Finding::new(
            kind,
            false,
            "Pending",
            format!("{} have answered", config.summary),
        ),
    }
}

/// Whether two statuses differ, and in nothing but how many proxies have come how far.
#[must_use]
pub fn differ_in_counts(before: &PgDogClusterStatus, after: &PgDogClusterStatus) -> bool {
    fn uncounted(status: &PgDogClusterStatus) -> PgDogClusterStatus {
        let mut status = status.clone();
        (
            status.replicas,
            status.ready_replicas,
            status.updated_replicas,
        ) = (0, 0, 0);
        let config = &mut status.config;
        for half in [&mut config.settings, &mut config.topology] {
            (half.acked, half.nacked, half.pending, half.total) = (0, 0, 0, 0);
        }
        config.summary.clear();
        config.out_of_sync.clear();
        for condition in &mut status.conditions {
            condition.message.clear();
        }
        status
    }
    before != after && uncounted(before) == uncounted(after)
}

/// Writes findings into conditions: the time of those that stay as they were stays.
pub fn merge(
    conditions: &mut Vec<Condition>,
    findings: Vec<Finding>,
    generation: i64,
    now: Timestamp,
) {
    for finding in findings {
        let before = conditions.iter().find(|c| c.kind == finding.kind);
        let since = before
            .filter(|before| before.status == finding.status)
            .map_or(Time(now), |before| before.last_transition_time.clone());
        let condition = Condition {
            kind: finding.kind,
            status: finding.status,
            reason: finding.reason.to_owned(),
            message: shortened(&finding.message, 1024),
            observed_generation: generation,
            last_transition_time: since,
        };
        conditions.retain(|c| c.kind != finding.kind);
        conditions.push(condition);
    }
    conditions.sort_by_key(|c| c.kind);
}

pub(crate) fn shortened(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    // An event takes bytes, and no more than this.
    let end = '…';
    let cut = text.floor_char_boundary(most - end.len_utf8());
    format!("{}{end}", &text[..cut])
}

/// Whether clients are served.
#[must_use]
pub fn available(cluster: &PgDogCluster, proxies: &[Proxy], view: Option<&View>) -> Finding {
    let kind = ConditionType::Available;
    let serving = |p: &&Proxy| p.ready;
    let ready = proxies.iter().filter(serving).count();
    let stopped =
        cluster.spec.operation.is_some_and(|o| o.stopped) || cluster.spec.replicas == Some(0);
    match ready {
        0 if stopped => Finding::new(kind, false, "Stopped", "there shall be no proxy"),
        0 => Finding::new(
            kind,
            false,
            "NoReadyReplicas",
            format!("none of {} proxies is ready", proxies.len()),
        ),
        ready => {
            let message = format!("{ready} of {} proxies are ready", proxies.len());
            // Nothing can be asked of anybody: a shard without a primary still has its reads.
            match view.filter(|view| view.primaries.is_empty() && view.replicas == 0) {
                Some(_) => {
                    let message = format!("{message}, and no host of Postgres can be used");
                    Finding::new(kind, false, "WaitingForPrimary", message)
                }
                None => Finding::new(kind, true, "Ready", message),
            }
        }
    }
}

/// A certificate that ends sooner than this should have been renewed.
const EXPIRING: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Until when the certificates are valid, and whether somebody has to look after them: our own are renewed when a third of their
/// time is left.
#[must_use]
pub fn certificates(cluster: &PgDogCluster, world: &World, now: Timestamp) -> (TlsStatus, Finding) {
    let kind = ConditionType::TLSReady;
    let client = cluster.spec.tls.clone().unwrap_or_default().client;
    let client = client.unwrap_or_default();
    let shown = cluster.spec.mode == Mode::Deployment && client.mode != ClientTlsMode::Disabled;
    let name = cluster.name_any();
    let own = client.secret_ref.is_none();
    let of_client = client
        .secret_ref
        .unwrap_or_else(|| client_tls_secret(&name));
    let end = |secret: &str| {
        let certificate = world.secret_text(secret, "tls.crt")?;
        authority::not_after(&certificate)
    };
    let admin = admin_secret(&name);
    let ends = [(&admin, true, true), (&of_client, own, shown)]
        .into_iter()
        .filter(|(.., shown)| *shown)
        .map(|(secret, own, _)| (secret, own, end(secret)));
    let status = TlsStatus {
        admin_not_after: end(&admin).map(Time),
        client_not_after: end(&of_client).filter(|_| shown).map(Time),
    };
    let missing = tls::missing(cluster, world);
    let mut finding = match missing.first() {
        Some(one) => Finding::new(kind, false, one.what.reason(), one.message.clone()),
        None => Finding::new(kind, true, "Valid", "all certificates are valid"),
    };
    for (secret, own, end) in ends {
        finding = match end {
            None if own => Finding::new(
                kind,
                ConditionStatus::Unknown,
                "Pending",
                format!("Secret {secret} is being made"),
            ),
            // It is told of already.
            None => continue,
            Some(end) if end <= now => {
                Finding::new(kind, false, "Expired", format!("Secret {secret}: on {end}"))
            }
            Some(end) if end.duration_since(now) < EXPIRING => Finding::new(
                kind,
                false,
                "Expiring",
                format!("Secret {secret}: on {end}, and nobody has renewed it"),
            ),
            Some(_) => continue,
        };
        break;
    }
    (status, finding)
}

/// Why proxies do not run; of several the first is told.
#[must_use]
pub fn standing_still(proxies: &[Proxy], failing: bool) -> Option<String> {
    let mut still = proxies.iter().filter_map(|proxy| {
        let why = proxy.standstill.as_ref()?;
        let told = !failing || matches!(why, Standstill::Failing(_));
        told.then(|| format!("{}: {}", proxy.pod, why.message()))
    });
    let first = still.next()?;
    Some(match still.count() {
        0 => first,
        others => format!("{first} (and {others} more)"),
    })
}

/// What is said of a resource that cannot be read.
#[must_use]
pub fn unreadable(error: &str) -> Finding {
    Finding::new(
        ConditionType::ConfigValid,
        false,
        "Unreadable",
        format!(
            "this version of the operator cannot read it, and leaves its proxies as they are: {error}"
        ),
    )
}

/// Whether somebody has to do something: what is wrong with what was written.
#[must_use]
pub fn degraded(findings: &[Finding], trouble: Option<(&'static str, &str)>) -> Finding {
    let kind = ConditionType::Degraded;
    if let Some((reason, message)) = trouble {
        return Finding::new(kind, true, reason, message);
    }
    let wrong = |of: ConditionType, reason: Option<&str>| {
        findings.iter().find(|f| {
            f.kind == of
                && f.status == ConditionStatus::False
                && reason.is_none_or(|reason| f.reason == reason)
        })
    };
    let causes = [
        (
            wrong(ConditionType::ConfigValid, Some("Unreadable")),
            "Unreadable",
        ),
        (wrong(ConditionType::ConfigValid, None), "ConfigRejected"),
        (
            wrong(ConditionType::ConfigSynced, Some("Nacked")),
            "ConfigRejected",
        ),
        (
            wrong(ConditionType::ConfigSynced, Some("RolledBack")),
            "ConfigRejected",
        ),
        (wrong(ConditionType::SecretsResolved, None), "SecretMissing"),
        (
            wrong(ConditionType::Progressing, Some("InvalidOwnership")),
            "InvalidOwnership",
        ),
    ];
    for (finding, reason) in causes {
        if let Some(finding) = finding {
            return Finding::new(kind, true, reason, finding.message.clone());
        }
    }
    if let Some(finding) = wrong(ConditionType::EndpointsResolved, None) {
        return Finding::new(kind, true, finding.reason, finding.message.clone());
    }
    Finding::new(kind, false, "AsExpected", "nothing is wrong")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use k8s_openapi::ByteString;
    use k8s_openapi::api::core::v1::Secret;
    use serde_json::json;

    use super::*;
    use crate::authority::Authority;

    #[test]
    fn a_certificate_that_nobody_renewed_is_told_of() {
        let authority = Authority::of(&Authority::generate().unwrap()).unwrap();
        let issued = authority
            .issue("x", &["x".to_owned()], authority::Purpose::Server)
            .unwrap();
        let secret = Secret {
            data: Some(BTreeMap::from([(
                "tls.crt".to_owned(),
                ByteString(issued.certificate.into_bytes()),
            )])),
            ..Secret::default()
        };
        let cluster: PgDogCluster = serde_json::from_value(json!({
            "apiVersion": "pgdog.dev/v1alpha1",
            "kind": "PgDogCluster",
            "metadata": {"name": "shop"},
            "spec": {"databases": [], "tls": {"client": {"secretRef": "mine"}}},
        }))
        .unwrap();
        let mut world = World::default();
        let now = Timestamp::now();
        let reason = |world: &World, days: i64| {
            let time = now + SignedDuration::from_hours(24 * days);
            certificates(&cluster, world, time).1.reason
        };
        assert_eq!(reason(&world, 0), "Pending");
        let secret = Arc::new(secret);
        world
            .secrets
            .insert("shop-admin-tls".to_owned(), secret.clone());
        assert_eq!(reason(&world, 0), "SecretNotFound");
        let rubbish = Secret {
            data: Some(BTreeMap::from([(
                "tls.crt".to_owned(),
                ByteString(b"rubbish".to_vec()),
            )])),
            ..Secret::default()
        };
        world.secrets.insert("mine".to_owned(), Arc::new(rubbish));
        assert_eq!(reason(&world, 0), "NoCertificate");
        world.secrets.insert("mine".to_owned(), secret);
        assert_eq!(reason(&world, 0), "Valid");
        assert_eq!(reason(&world, 84), "Expiring");
        assert_eq!(reason(&world, 91), "Expired");
        let (status, _) = certificates(&cluster, &world, now);
        assert_eq!(status.admin_not_after, status.client_not_after);
        assert!(status.admin_not_after.unwrap().0 > now);
    }

    fn primary(shard: i32, name: &str) -> PrimaryStatus {
        PrimaryStatus {
            shard,
            name: name.to_owned(),
            address: format!("{name}:5432"),
        }
    }

    #[test]
    fn a_failover_counts_also_when_there_was_nobody_in_between() {
        let mut status = EndpointsStatus::default();
        let mut pass = |now: &[PrimaryStatus]| {
            let (moved, former) = moves(now, &status);
            status.primaries = now.to_vec();
            status.former_primaries = former;
            moved
        };
        assert!(!pass(&[primary(0, "a"), primary(1, "x")]), "the first ones");
        assert!(!pass(&[primary(1, "x")]));
        assert!(!pass(&[primary(1, "x")]));
        assert!(!pass(&[primary(0, "a"), primary(1, "x")]), "it came back");
        assert!(!pass(&[]));
        assert!(pass(&[primary(0, "b")]));
        assert!(!pass(&[primary(0, "b")]));
        assert!(!pass(&[primary(0, "b"), primary(1, "x")]));
        assert!(pass(&[primary(0, "b"), primary(1, "y")]));
    }

    #[test]
    fn what_cannot_be_read_needs_somebody() {
        let told = degraded(&[unreadable("spec.pod.env: a number")], None);
        assert_eq!(
            (told.status, told.reason),
            (ConditionStatus::True, "Unreadable")
        );
        assert!(told.message.ends_with("a number"), "{}", told.message);
    }

    #[test]
    fn settings_that_were_taken_back_need_somebody() {
        let synced = Finding::new(ConditionType::ConfigSynced, false, "RolledBack", "why");
        let told = degraded(&[synced], None);
        assert_eq!(told.status, ConditionStatus::True);
        assert_eq!(
            (told.reason, told.message.as_str()),
            ("ConfigRejected", "why")
        );
    }

    #[test]
    fn how_many_have_answered_is_a_count_and_that_all_have_is_not() {
        let mut before = PgDogClusterStatus::default();
        before.config.summary = "1/3".to_owned();
        merge(
            &mut before.conditions,
            vec![synced(&before.config)],
            1,
            Timestamp::UNIX_EPOCH,
        );
        let mut after = before.clone();
        assert!(!differ_in_counts(&before, &after), "they do not differ");
        after.config.summary = "2/3".to_owned();
        after.config.settings.acked = 2;
        assert!(differ_in_counts(&before, &after));
        let mut later = after.clone();
        later.config.settings.revision += 1;
        assert!(!differ_in_counts(&before, &later), "another revision");
        let mut other = after;
        for condition in &mut other.conditions {
            condition.reason = "Nacked".to_owned();
        }
        assert!(!differ_in_counts(&before, &other), "another reason");
    }
}
