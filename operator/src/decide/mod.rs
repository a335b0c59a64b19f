//! What the proxies are to have now: from what was found and remembered, and from how far the settings have come. Pure but for
//! what it remembers.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pgdog_config::api::Half;
use pgdog_config::documents;
use pgdog_operator_api::{ConfigStatus, HalfStatus, PgDogCluster, PgDogClusterStatus, Rejection};
use serde_json::{Map, Value};

use crate::context::{Files, Memory, Refused};
use crate::discover::Found;
use crate::fleet::{Report, Taken, is_unreachable};
use crate::render::config::{Rendered, Unrenderable, render};
use crate::render::tls;
use crate::render::topology::{self, Peer};
use crate::resharding;
use crate::rollout::{self, Stage};
use crate::rotation;
use crate::world::World;

/// Other files have come to all pods after this time: kubelets look at mounted Secrets each minute or so.
const ARRIVAL: SignedDuration = SignedDuration::from_mins(3);

/// How often refused settings are tried again meanwhile.
const ATTEMPTS: SignedDuration = SignedDuration::from_mins(1);

/// What the proxies are to have.
#[derive(Clone, PartialEq)]
pub struct Decision {
    /// What they are started with.
    pub process: Map<String, Value>,
    /// The settings that are rolled out.
    pub settings: Map<String, Value>,
    /// The settings that new ones start with: the last good ones while others are tried.
    pub snapshot: Map<String, Value>,
    /// The topology.
    pub topology: Map<String, Value>,
    /// The wanted one, where that has other shards: all proxies come to it at one moment.
    pub other: Option<Map<String, Value>>,
    /// Which proxies get the settings now, in the order of the reports.
    pub given: Vec<bool>,
    /// How far the settings have come.
    pub stage: Stage,
    /// Why the settings are those of before and not what is written.
    pub invalid: Option<Unrenderable>,
}

impl std::fmt::Debug for Decision {
    // Passwords stand in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decision")
            .field("topology", &self.topology)
            .field("given", &self.given)
            .field("stage", &self.stage)
            .field("invalid", &self.invalid)
            .finish_non_exhaustive()
    }
}

impl Decision {
    /// Whether there is a host at all.
    #[must_use]
    pub fn has_hosts(&self) -> bool {
        databases(&self.topology).next().is_some()
    }

    /// Whether the pods that there are stay as they are, for want of a Secret that new ones would mount.
    #[must_use]
    pub fn keeps_pods(&self) -> bool {
        self.invalid.as_ref().is_some_and(Unrenderable::keeps_pods)
    }
}

/// The proxies there are, in one order.
#[derive(Debug, Clone, Copy)]
pub struct Proxies<'a> {
    /// How each stands to its configuration.
    pub reports: &'a [Report],
    /// Those that others reach.
    pub peers: &'a [Peer],
    /// Whether others are on their way out and still serve clients.
    pub leaving: bool,
    /// Whether the budget has no room yet for looking after further databases: they wait, with the settings that name them.
    pub crowded: bool,
    /// Whether all of them are changing their shards: the topology and its number stay as they are meanwhile.
    pub changing: bool,
}

/// Decides, and writes the numbers of what is decided into the status.
///
/// # Errors
///
/// When what is written makes no configuration: what is in force stays.
pub fn decide(
    cluster: &PgDogCluster,
    found: &Found,
    world: &World,
    proxies: Proxies<'_>,
    memory: &mut Memory,
    status: &mut PgDogClusterStatus,
) -> Result<Decision, Unrenderable> {
    let reports = proxies.reports;
    let now = Timestamp::now();
    look_at_files(cluster, world, now, &mut memory.files);
    let rendered = match rendered(cluster, found, world, memory) {
        Ok(rendered) => rendered,
        Err(error) => return hosts_only(cluster, found, proxies, memory, status, error),
    };
    let wanted = sha256(&rotation::without_secrets(&rendered.settings));
    if memory
        .refused
        .as_ref()
        .is_some_and(|refused| is_over(refused, &wanted, reports, (&memory.files, now)))
    {
        memory.refused = None;
    }
    let settings = match (&memory.refused, &memory.good) {
        (Some(_), Some(good)) => rotation::renewed(good, &rendered.settings),
        _ => rendered.settings.clone(),
    };
    let rolled = roll_out(
        cluster,
        (settings, &rendered.settings, wanted),
        (reports, proxies.crowded),
        memory,
        &mut status.config,
    );
    memory.settings = Some(rendered.settings);
    memory.process = Some(rendered.process.clone());
    status.secrets = rendered.secrets;
    let topology = with_kept(rendered.topology, &rolled.settings, memory);
    Ok(decided(
        rendered.process,
        rolled,
        topology,
        proxies,
        memory,
        status,
    ))
}

/// What is written makes no configuration, or a Secret is gone: the settings stay as far as they have come, and hosts go on
/// coming and going.
fn hosts_only(
    cluster: &PgDogCluster,
    found: &Found,
    proxies: Proxies<'_>,
    memory: &mut Memory,
    status: &mut PgDogClusterStatus,
    error: Unrenderable,
) -> Result<Decision, Unrenderable> {
    let topology = topology::render(&cluster.spec, found);
    let topology = or_former(cluster, found, topology, memory);
    let Some(latest) = memory.settings.clone().or_else(|| memory.good.clone()) else {
        return Err(error);
    };
    let settings = match (&memory.refused, &memory.good) {
        (Some(_), Some(good)) => rotation::renewed(good, &latest),
        _ => latest,
    };
    // The time of former passwords runs out all the same.
    let latest = rotation::with_former(&settings, &rotation::former(&memory.replaced));
    let topology = with_kept(topology, &latest, memory);
    let wrong = documents::check(Half::Topology, &Value::Object(topology.clone())).is_err();
    let Some(process) = memory.process.clone().filter(|_| !wrong) else {
        return Err(error);
    };
    let wanted = sha256(&rotation::without_secrets(&latest));
    let rolled = roll_out(
        cluster,
        (latest.clone(), &latest, wanted),
        (proxies.reports, proxies.crowded),
        memory,
        &mut status.config,
    );
    let mut decision = decided(process, rolled, topology, proxies, memory, status);
    decision.invalid = Some(error);
    Ok(decision)
}

/// How far settings have come, and what new proxies start with meanwhile.
struct Rolled {
    settings: Map<String, Value>,
    snapshot: Map<String, Value>,
    given: Vec<bool>,
    stage: Stage,
}

/// Goes on with these settings, or back to the last good ones where a proxy has refused them. `latest` holds what Secrets hold
/// now; `wanted` is the SHA-256 by which settings are known that were refused.
fn roll_out(
    cluster: &PgDogCluster,
    (mut settings, latest, wanted): (Map<String, Value>, &Map<String, Value>, String),
    (reports, crowded): (&[Report], bool),
    memory: &mut Memory,
    config: &mut ConfigStatus,
) -> Rolled {
    rise(config, reports);
    renumber(&mut config.settings, &settings);
    let policy = cluster.spec.config_rollout.clone().unwrap_or_default();
    let (mut stage, mut given) = stage(cluster, config, reports, memory);
    if crowded && stage != Stage::Complete {
        let hash = &config.settings.hash;
        given = reports
            .iter()
            .map(|report| report.settings.has(hash))
            .collect();
        stage = Stage::Waiting;
    }
    if stage == Stage::Halted
        && policy.auto_rollback
        && memory.refused.is_none()
        && let Some(good) = memory.good.clone().filter(|good| *good != settings)
    {
        memory.refused = Some(refusal(wanted, reports, config, &memory.files));
        settings = rotation::renewed(&good, latest);
        renumber(&mut config.settings, &settings);
        given = vec![true; reports.len()];
        stage = Stage::Halted;
    }
    if stage == Stage::Complete && !reports.is_empty() || is_everywhere(&stage, config, reports) {
        memory.good = Some(settings.clone());
    }
    let snapshot = match (&memory.good, stage) {
        (Some(good), stage) if stage != Stage::Complete => rotation::renewed(good, latest),
        _ => settings.clone(),
    };
    Rolled {
        settings,
        snapshot,
        given,
        stage,
    }
}

/// What follows, with the topology in its number.
fn decided(
    process: Map<String, Value>,
    rolled: Rolled,
    mut topology: Map<String, Value>,
    proxies: Proxies<'_>,
    memory: &mut Memory,
    status: &mut PgDogClusterStatus,
) -> Decision {
    if let (true, Some(before)) = (proxies.crowded, &memory.topology) {
        let before: BTreeSet<&str> = names(before).collect();
        retain(&mut topology, |name| before.contains(name));
    }
    if !proxies.peers.is_empty() {
        let peers = topology::peers(memory.topology.as_ref(), proxies.peers);
        topology.insert("peers".to_owned(), peers);
    }
    let (topology, other) = in_force(topology, memory, proxies);
    // One that is being put in force by all has its number already.
    if !proxies.changing {
        renumber(&mut status.config.topology, &topology);
    }
    memory.topology = Some(topology.clone());
    let Rolled {
        settings,
        snapshot,
        given,
        stage,
    } = rolled;
    Decision {
        process,
        settings,
        snapshot,
        topology,
        other,
        given,
        stage,
        invalid: None,
    }
}

/// The topology, with the databases that were taken out and that settings still name which a proxy has or starts with: it would
/// refuse hosts without them. They go when all have the settings without them.
fn with_kept(
    mut topology: Map<String, Value>,
    settings: &Map<String, Value>,
    memory: &Memory,
) -> Map<String, Value> {
    let named = names(settings).chain(memory.good.iter().flat_map(names));
    let present: BTreeSet<&str> = names(&topology).collect();
    let former = memory.topology.iter().flat_map(databases);
    let mut kept: BTreeMap<&str, &Value> = BTreeMap::new();
    let named: BTreeSet<&str> = named.filter(|name| !present.contains(name)).collect();
    for database in former {
        if let Some(name) = database["name"]
            .as_str()
            .filter(|name| named.contains(name))
        {
            kept.entry(name).or_insert(database);
        }
    }
    // All databases are on the same hosts: those of now.
    let first = names(&topology).next().map(str::to_owned);
    let hosts =
        databases(&topology).filter(|database| database["name"].as_str() == first.as_deref());
    let mut more = Vec::new();
    for host in hosts {
        for (name, former) in &kept {
            let mut database = host.clone();
            database["name"] = (*name).into();
            if let Some(keys) = database.as_object_mut() {
                keys.remove("database_name");
                if let Some(of_server) = former.get("database_name") {
                    keys.insert("database_name".to_owned(), of_server.clone());
                }
            }
            more.push(database);
        }
    }
    if let Some(all) = topology.get_mut("databases").and_then(Value::as_array_mut) {
        all.extend(more);
    }
    topology
}

fn retain(topology: &mut Map<String, Value>, keeps: impl Fn(&str) -> bool) {
    if let Some(all) = topology.get_mut("databases").and_then(Value::as_array_mut) {
        all.retain(|database| keeps(database["name"].as_str().unwrap_or_default()));
    }
}

/// How many databases a proxy may have from now on, or still has.
#[must_use]
pub fn databases_of(cluster: &PgDogCluster, memory: &Memory) -> usize {
    let wanted = cluster
        .spec
        .databases
        .iter()
        .map(|database| database.name.as_str());
    let former = memory.good.iter().chain(&memory.topology).flat_map(names);
    wanted.chain(former).collect::<BTreeSet<_>>().len()
}

/// Whether there is a database that no proxy has yet.
#[must_use]
pub fn comes_further(cluster: &PgDogCluster, memory: &Memory) -> bool {
    let Some(before) = &memory.topology else {
        return false;
    };
    let before: BTreeSet<&str> = names(before).collect();
    let mut wanted = cluster.spec.databases.iter();
    wanted.any(|database| !before.contains(database.name.as_str()))
}

/// The entries of `databases` of either half.
fn databases(half: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let databases = half.get("databases").and_then(Value::as_array);
    databases.into_iter().flatten()
}

fn names(half: &Map<String, Value>) -> impl Iterator<Item = &str> {
    databases(half).filter_map(|database| database["name"].as_str())
}

/// What is in force from now on where this is wanted, and this itself where it has other shards than those in force: proxies that
/// run must not come to it one by one.
fn in_force(
    wanted: Map<String, Value>,
    memory: &Memory,
    proxies: Proxies<'_>,
) -> (Map<String, Value>, Option<Map<String, Value>>) {
    let Some(before) = &memory.topology else {
        return (wanted, None);
    };
    if proxies.changing {
        return (before.clone(), Some(wanted));
    }
    let serves = !proxies.reports.is_empty() || proxies.leaving;
    if serves && resharding::differ(before, &wanted) {
        (resharding::within(before, &wanted), Some(wanted))
    } else {
        (wanted, None)
    }
}

/// Hosts that have gone do not take a topology away: proxies that know none could serve nobody, also not when the hosts are
/// back and the operator is not.
fn or_former(
    cluster: &PgDogCluster,
    found: &Found,
    topology: Map<String, Value>,
    memory: &Memory,
) -> Map<String, Value> {
    match &memory.topology {
        Some(former) if found.has_gap(&cluster.spec) => former.clone(),
        _ => topology,
    }
}

/// What the resource, its Secrets and the hosts make, with the passwords that are still accepted.
fn rendered(
    cluster: &PgDogCluster,
    found: &Found,
    world: &World,
    memory: &mut Memory,
) -> Result<Rendered, Unrenderable> {
    let now = Timestamp::now();
    memory.replaced.retain(|replaced| replaced.until > now);
    let mut rendered = render(cluster, found, world, &rotation::former(&memory.replaced))?;
    let users = &cluster.spec.users;
    let before = memory.settings.as_ref();
    let replaced = rotation::replaced(&memory.replaced, before, &rendered.settings, users, now);
    if replaced != memory.replaced {
        rendered = render(cluster, found, world, &rotation::former(&replaced))?;
        memory.replaced = replaced;
    }
    rendered.topology = or_former(cluster, found, rendered.topology, memory);
    Ok(rendered)
}

fn stage(
    cluster: &PgDogCluster,
    config: &ConfigStatus,
    reports: &[Report],
    memory: &Memory,
) -> (Stage, Vec<bool>) {
    let mut policy = cluster.spec.config_rollout.clone().unwrap_or_default();
    if memory.good.is_none() || memory.refused.is_some() {
        // The first settings, and good ones that come back: there is nothing to try out.
        policy.strategy = pgdog_operator_api::RolloutStrategy::AllAtOnce;
    }
    let revision = u64::try_from(config.settings.revision).unwrap_or_default();
    // Who does not even take a topology says nothing about settings: it is not waited for.
    let hash = &config.settings.hash;
    let silent = |report: &Report| is_unreachable(&report.topology) && !report.settings.has(hash);
    let taken: Vec<_> = reports
        .iter()
        .map(|report| match silent(report) {
            true => &report.topology,
            false => &report.settings,
        })
        .collect();
    rollout::next(&policy, revision, &config.settings.hash, &taken)
}

/// Whether all that can be reached have the settings: one that is not there yet, or no more, does not keep them from being
/// good.
fn is_everywhere(stage: &Stage, config: &ConfigStatus, reports: &[Report]) -> bool {
    let hash = &config.settings.hash;
    let is_reached = |r: &&Report| !is_unreachable(&r.settings) && !is_unreachable(&r.topology);
    let mut reached = reports.iter().filter(is_reached);
    *stage == Stage::Rolling
        && reports.iter().any(|report| report.settings.has(hash))
        && reached.all(|report| report.settings.has(hash))
}

/// Which proxy refused the settings of this number, and why.
fn refusal(sha256: String, reports: &[Report], config: &ConfigStatus, files: &Files) -> Refused {
    let number = u64::try_from(config.settings.revision).unwrap_or_default();
    let refused = reports.iter().find_map(|report| match &report.settings {
        Taken::Failed {
            revision,
            reason: Rejection::Nack,
            message,
        } if *revision == number => Some((message.clone(), report.pod.clone())),
        _ => None,
    });
    let (message, pod) = refused.unwrap_or_default();
    Refused {
        sha256,
        message,
        pod,
        at: Timestamp::now(),
        files: files.clone(),
    }
}

/// Whether refused settings may be tried: they are others, or who refused them has gone, or files that they name may have
/// become others. A proxy of an older image, or one without a volume that they name, says nothing of those that took its place.
fn is_over(
    refused: &Refused,
    wanted: &str,
    reports: &[Report],
    (files, now): (&Files, Timestamp),
) -> bool {
    let has_gone = || reports.iter().all(|report| report.pod != refused.pod);
    refused.sha256 != wanted
        || (!reports.is_empty() && has_gone())
        || refused.files.sha256 != files.sha256
        || attempt(refused, files).is_some_and(|at| at <= now)
}

/// When refused settings are tried again because of files that were still on their way.
fn attempt(refused: &Refused, files: &Files) -> Option<Timestamp> {
    let at = refused.at + ATTEMPTS;
    // The last time they have come for certain.
    let end = files.since? + ARRIVAL + ATTEMPTS;
    (at <= end).then_some(at)
}

/// The time until refused settings are tried again though nothing else happens.
pub(crate) fn until_attempt(memory: &Memory, now: Timestamp) -> Option<Duration> {
    let at = attempt(memory.refused.as_ref()?, &memory.files)?;
    let left = Duration::try_from(at.duration_since(now)).ok()?;
    Some(left + Duration::from_secs(1))
}

/// Takes notice of other versions of the Secrets with certificates.
fn look_at_files(cluster: &PgDogCluster, world: &World, now: Timestamp, files: &mut Files) {
    let sha256 = tls::sha256(cluster, world);
    if files.sha256 != sha256 {
        let since = sha256.is_some().then_some(now);
        *files = Files { sha256, since };
    }
}

/// What a proxy counts as its revision at most: more than this is no number that anybody counted to.
const COUNTABLE: u64 = 1 << 53;

/// A proxy has a higher revision of this epoch than the status: the status came back from a backup. What comes next is above
/// it; refused for ever it would be otherwise.
fn rise(config: &mut ConfigStatus, reports: &[Report]) {
    let highest = |of: fn(&Report) -> u64| {
        let seen = reports.iter().map(of).filter(|seen| *seen < COUNTABLE);
        i64::try_from(seen.max().unwrap_or_default()).unwrap_or_default()
    };
    for (half, seen) in [
        (
            &mut config.settings,
            highest(|report| report.ahead.settings),
        ),
        (
            &mut config.topology,
            highest(|report| report.ahead.topology),
        ),
    ] {
        // Zero: nobody has said anything.
        if seen > 0 && half.revision <= seen {
            tracing::warn!(
                "a proxy has revision {seen}, the status {}: going on above",
                half.revision
            );
            half.revision = seen + 1;
        }
    }
}

/// Gives this content the next number, unless it has the one of now.
pub(crate) fn renumber(half: &mut HalfStatus, document: &Map<String, Value>) {
    let sha256 = sha256(document);
    if half.hash != sha256 {
        half.revision += 1;
        half.hash_short = sha256.chars().take(8).collect();
        half.hash = sha256;
    }
}

fn sha256(document: &Map<String, Value>) -> String {
    documents::sha256(&Value::Object(document.clone()))
}
