//! The order of steps for one cluster, and nothing else.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use pgdog_operator_api::{Distribution, HalfStatus, PgDogCluster, PgDogClusterStatus};
use serde_json::{Map, Value};

use crate::apply::{self, ApplyError, Obstacle};
use crate::atomic::{Kind, Progress, Target};
use crate::context::{Context, Memory};
use crate::decide::{
    Decision, Proxies, comes_further, databases_of, decide, renumber, until_attempt,
};
use crate::discover::{self, Found};
use crate::events;
use crate::fleet::{Document, Hold, Report, Want};
use crate::observe::{self, Seen};
use crate::observed::{self, OBSERVERS};
use crate::orders;
use crate::pausing::{self, Step};
use crate::pods;
use crate::render::children::{self, Children};
use crate::render::config::Unrenderable;
use crate::render::snapshot::{self, Start};
use crate::resharding;
use crate::shares::{self, Ledger, Standing};
use crate::sidecars;
use crate::status;
use crate::world::World;

/// How often shares are brought in line with the demand.
const DEMAND: Duration = Duration::from_secs(10);

/// How often it is told how many proxies have answered, while nothing else changes.
const COUNTS: Duration = Duration::from_secs(1);

/// Everything is looked at again after this time, whatever the watches say.
const AGAIN: Duration = Duration::from_secs(60);

/// The same while the watches are behind.
const UNSEEN: Duration = Duration::from_secs(1);

/// The same where something is in the way.
const SOON: Duration = Duration::from_secs(10);

/// Brings what is there in line with what is wanted.
///
/// # Errors
///
/// What the API server refused; it is tried again.
pub async fn reconcile(cluster: Arc<PgDogCluster>, cx: Arc<Context>) -> Result<Action, ApplyError> {
    let begun = Instant::now();
    if cluster.meta().deletion_timestamp.is_some() {
        cx.forget(&cluster.uid().unwrap_or_default());
        return Ok(Action::await_change());
    }
    let world = cx.stores.world(&cluster.namespace().unwrap_or_default());
    let is_first = !cx.known().contains(&cluster.uid().unwrap_or_default());
    if is_first && !apply::is_seen(&cluster, &world, &cx).await? {
        // What a former leader did last may not have come by the watches yet.
        return Ok(Action::requeue(UNSEEN));
    }
    let mut memory = recall(&cluster, &world, &cx);
    let mut status = memory.status.clone().unwrap_or_default();
    status.epoch = i64::try_from(cx.epoch).ok();
    if let Some(later) = written_in(&cluster).filter(|epoch| *epoch > cx.epoch) {
        cx.fenced.send_replace(Some(later));
        return Ok(Action::await_change());
    }

    let plan = plan(&cluster, &world, &mut memory, &mut status, &cx);
    if plan.decision.is_ok() {
        // Written down before it is pushed: a crash skips numbers and never repeats them.
        write_status(&cluster, &cx, &mut memory, &status).await?;
    }
    let done = carry_out(&cluster, &plan, &mut status, &world, &mut memory, &cx).await;
    let (trouble, failure) = done;
    tell(
        &cluster,
        &plan,
        trouble.as_ref(),
        &world,
        &memory,
        &mut status,
        &cx,
    )
    .await;
    let mut again = match trouble {
        // It may be on its way out, as the children of a cluster of this name that was deleted are.
        Some(_) => SOON,
        None => next(&cluster, &memory, &plan),
    };
    // The proxies of a large fleet answer one by one; their answers are counted together.
    let before = memory.status.as_ref();
    let counts = before.is_some_and(|before| status::differ_in_counts(before, &status));
    match memory.counted.map(|at| at.elapsed()) {
        Some(since) if counts && since < COUNTS => again = again.min(COUNTS.saturating_sub(since)),
        _ => {
            if before != Some(&status) {
                memory.counted = Some(Instant::now());
            }
            write_status(&cluster, &cx, &mut memory, &status).await?;
        }
    }
    cx.remember(&cluster, memory);
    cx.metrics.reconciled(begun.elapsed());
    cx.metrics.stand(&cx.fleet.states());
    cx.metrics.stand(&[("missing", cx.missing_sidecars())]);
    match failure {
        Some(error) => Err(error),
        None => Ok(Action::requeue(again)),
    }
}

/// What was seen of a cluster, and what follows from it.
struct Plan<'a> {
    found: Found,
    pods: Vec<&'a Pod>,
    /// Those that let their last clients finish.
    leaving: Vec<&'a Pod>,
    reports: Vec<Report>,
    decision: Result<Decision, Unrenderable>,
    /// How the budget is divided.
    standing: Option<Standing>,
    /// What is to be done about a pause.
    step: Step,
    /// What is to be done about other shards.
    resharding: resharding::Step,
    image: String,
}

impl Plan<'_> {
    /// Whether all change their shards now: who starts meanwhile has the former ones, and waits for the word that it may go on.
    const fn holds_newcomers(&self) -> bool {
        matches!(
            self.resharding,
            resharding::Step::Begin | resharding::Step::Running
        )
    }
}

fn plan<'a>(
    cluster: &PgDogCluster,
    world: &'a World,
    memory: &mut Memory,
    status: &mut PgDogClusterStatus,
    cx: &Context,
) -> Plan<'a> {
    let found = discover::discover(&cluster.spec, world);
    let pods = pods::proxies(cluster, world);
    let reports = pods::reports(cluster, &pods, cx);
    let leaving = pods::leaving(cluster, world);
    let there = pods::peers(cluster, pods.iter().chain(&leaving));
    let peers = memory.peers.tell(there, Instant::now()).to_vec();
    let changing = orders::changing(cluster, memory, cx);
    let standing = divide(cluster, (&pods, &reports, &leaving), memory, status, cx);
    let fits = standing.as_ref().is_none_or(|standing| standing.fits);
    let known = Proxies {
        reports: &reports,
        crowded: !fits && comes_further(cluster, memory),
        peers: &peers,
        leaving: !leaving.is_empty(),
        changing: changing == Some(Progress::Running),
    };
    let decision = decide(cluster, &found, world, known, memory, status);
    let wanted = decision
        .as_ref()
        .is_ok_and(|decided| decided.other.is_some());
    if wanted {
        // Who starts while all change holds its clients until it is told that it may go on.
        memory.paused.get_or_insert(false);
    }
    let step = orders::pausing(
        cluster,
        (&pods, leaving.len()),
        changing.as_ref(),
        memory,
        cx,
    );
    let obstacle = orders::obstacle(&step, &pods, leaving.len());
    let resharding = resharding::step(wanted, changing.as_ref(), obstacle);
    let kept = status.image.as_deref();
    let default = observe::default_image(cluster, kept, &cx.default_image, cx.upgrade_proxies);
    Plan {
        image: observe::image(cluster, default),
        found,
        pods,
        leaving,
        reports,
        decision,
        standing,
        step,
        resharding,
    }
}

/// What could not be done: why for programs, and for people.
type Trouble = (&'static str, String);

/// Pushes, applies, begins a pause or a change of shards. Says what could not be done, and what is worth another attempt.
async fn carry_out(
    cluster: &PgDogCluster,
    plan: &Plan<'_>,
    status: &mut PgDogClusterStatus,
    world: &World,
    memory: &mut Memory,
    cx: &Context,
) -> (Option<Trouble>, Option<ApplyError>) {
    let Ok(decision) = &plan.decision else {
        return (None, None);
    };
    let changes = plan.resharding == resharding::Step::Running;
    if is_paused(cluster) && !changes {
        return (None, None);
    }
    // First of all: a failover waits for nothing.
    push(cluster, &plan.pods, decision, (status, memory, plan), cx);
    let start = Start {
        share: plan.standing.as_ref().map(|standing| standing.terms.start),
        paused: cluster.spec.paused || memory.paused == Some(true) || plan.holds_newcomers(),
    };
    let standing = plan.standing.as_ref();
    let hold = standing.and_then(|standing| shares::hold(plan.pods.len(), standing));
    let pods = (plan.image.as_str(), start, hold);
    let children = render(cluster, (decision, changes), pods, status, memory, cx);
    // What those read that start from now on.
    let told = apply::config(cluster, &children, world, memory, cx).await;
    let begun = match &told {
        Ok(None) => begin_what_is_due(cluster, plan, status, memory, cx).await,
        Ok(Some(obstacle)) => {
            put_off(cluster, plan, &obstacle.to_string(), memory, cx);
            Ok(())
        }
        Err(error) => {
            put_off(cluster, plan, &error.to_string(), memory, cx);
            Ok(())
        }
    };
    if let Err(error) = &begun {
        put_off(cluster, plan, &error.to_string(), memory, cx);
    }
    let applied = match (told, begun) {
        (Ok(None), Ok(())) => apply_rest(cluster, &children, world, memory, cx).await,
        (Ok(Some(obstacle)), _) => Ok(vec![obstacle]),
        (Err(error), _) | (_, Err(error)) => Err(error),
    };
    match applied {
        Ok(obstacles) => {
            let told: Vec<_> = obstacles.iter().map(ToString::to_string).collect();
            let trouble = obstacles.first().map(|one| (one.reason(), told.join("; ")));
            (trouble, None)
        }
        Err(error) => (Some(("ApplyFailed", error.to_string())), Some(error)),
    }
}

/// What was to begin and could not counts as failed: nobody is held for it for long. Only the end of a pause waits for nothing.
fn put_off(cluster: &PgDogCluster, plan: &Plan<'_>, why: &str, memory: &mut Memory, cx: &Context) {
    let kind = match (&plan.step, &plan.resharding) {
        (Step::Begin, _) if !cluster.spec.paused => {
            begin_resume(cluster, plan, memory, cx);
            return;
        }
        (Step::Begin, _) => Kind::Pause,
        (_, resharding::Step::Begin) => Kind::Sharding,
        _ => return,
    };
    let uid = cluster.uid().unwrap_or_default();
    let generation = cluster.meta().generation.unwrap_or_default();
    cx.changes.fail(&uid, kind, generation, why.to_owned());
}

/// Also those that let their last clients finish hear that these may go on.
fn begin_resume(cluster: &PgDogCluster, plan: &Plan<'_>, memory: &mut Memory, cx: &Context) {
    let all: Vec<_> = plan.pods.iter().chain(&plan.leaving).copied().collect();
    orders::begin(cluster, &all, Target::Paused(false), memory, cx);
}

/// Begins a pause, or a change of shards.
async fn begin_what_is_due(
    cluster: &PgDogCluster,
    plan: &Plan<'_>,
    status: &mut PgDogClusterStatus,
    memory: &mut Memory,
    cx: &Context,
) -> Result<(), ApplyError> {
    if plan.step == Step::Begin {
        match cluster.spec.paused {
            true => orders::begin(cluster, &plan.pods, Target::Paused(true), memory, cx),
            false => begin_resume(cluster, plan, memory, cx),
        }
        return Ok(());
    }
    let (
        resharding::Step::Begin,
        Ok(Decision {
            other: Some(other), ..
        }),
    ) = (&plan.resharding, &plan.decision)
    else {
        return Ok(());
    };
    // Pods that have come while the file was written may have read the one before.
    let world = cx.stores.world(&cluster.namespace().unwrap_or_default());
    let pods = pods::proxies(cluster, &world);
    if orders::obstacle(&plan.step, &pods, pods::leaving(cluster, &world).len()).is_some() {
        return Ok(());
    }
    // Its number is its own, whatever becomes of it.
    renumber(&mut status.config.topology, other);
    write_status(cluster, cx, memory, status).await?;
    let target = Target::Topology(document(&status.config.topology, other, cx));
    orders::begin(cluster, &pods, target, memory, cx);
    Ok(())
}

/// Writes what was seen into the status, and tells what has changed.
async fn tell(
    cluster: &PgDogCluster,
    plan: &Plan<'_>,
    trouble: Option<&Trouble>,
    world: &World,
    memory: &Memory,
    status: &mut PgDogClusterStatus,
    cx: &Context,
) {
    let decision = plan.decision.as_ref();
    let hint = resharding::hint(&plan.resharding).or_else(|| pods::zoneless(cluster, &plan.pods));
    let view = observed::view(&plan.found, &plan.reports);
    let seen = Seen {
        found: &plan.found,
        view: view.as_ref(),
        proxies: &pods::seen(
            cluster,
            &plan.pods,
            &plan.reports,
            decision.ok(),
            &plan.image,
        ),
        rolled: pods::rolled(cluster, world),
        missing: &sidecars::missing(cluster, world),
        decision,
        trouble: trouble.map(|(reason, message)| (*reason, message.as_str())),
        hint: hint
            .as_ref()
            .map(|(reason, message)| (*reason, message.as_str())),
        tls: status::certificates(cluster, world, Timestamp::now()),
        refused: memory.refused.as_ref(),
        image: &plan.image,
        unreadable: cx.unreadable(cluster),
        more: &[
            plan.standing.as_ref().map(shares::finding),
            pausing::finding(&plan.step, cluster.spec.paused, memory.paused),
        ],
    };
    let before = status.conditions.clone();
    observe::observe(cluster, status, &seen, Timestamp::now());
    events::tell(cluster, &before, &status.conditions, cx).await;
}

/// What the cluster is made of.
fn render(
    cluster: &PgDogCluster,
    (decision, changes): (&Decision, bool),
    (image, start, hold): (&str, Start, Option<children::Hold>),
    status: &PgDogClusterStatus,
    memory: &Memory,
    cx: &Context,
) -> Children {
    let mut versions = versions(status, cx.epoch);
    if decision.snapshot != decision.settings {
        // The file holds what was good before: what is pushed now is later.
        versions.settings = versions.settings.saturating_sub(1);
    }
    if changes {
        // The last number is that of the shards that all are coming to.
        versions.topology = versions.topology.saturating_sub(1);
    }
    let config = snapshot::render(
        &decision.process,
        &decision.snapshot,
        &decision.topology,
        &memory.replaced,
        memory.refused.as_ref(),
        versions,
        start,
    );
    let mut children = children::render(cluster, image, &decision.process, config);
    if let Some(hold) = hold {
        children.hold_back(hold);
    }
    if decision.keeps_pods() && !children.is_stopped() {
        children.deployment = None;
    }
    children
}

/// Brings certificates and all other children in line.
async fn apply_rest(
    cluster: &PgDogCluster,
    children: &Children,
    world: &World,
    memory: &mut Memory,
    cx: &Context,
) -> Result<Vec<Obstacle>, ApplyError> {
    let obstacles = apply::certificates(cluster, world, memory, cx).await?;
    if !obstacles.is_empty() {
        return Ok(obstacles);
    }
    apply::children(cluster, children, memory, cx).await
}

fn is_paused(cluster: &PgDogCluster) -> bool {
    cluster
        .spec
        .operation
        .is_some_and(|operation| operation.reconciliation_paused)
}

/// When to look again: at the latest when a former password is over, a pause is tried again, shares follow the demand,
/// refused settings are tried again, or proxies that have come are told to the others.
fn next(cluster: &PgDogCluster, memory: &Memory, plan: &Plan<'_>) -> Duration {
    let budget = cluster
        .spec
        .pooling
        .as_ref()
        .and_then(|p| p.budget.as_ref());
    let waits =
        matches!(plan.step, Step::Wait { .. }) || plan.resharding != resharding::Step::Nothing;
    let most = match (waits, budget) {
        (true, _) => Duration::from_secs(5),
        (_, Some(budget)) if budget.distribution == Distribution::Demand => DEMAND,
        _ => AGAIN,
    };
    let most = most.min(memory.peers.left(Instant::now()).unwrap_or(most));
    let now = Timestamp::now();
    let most = most.min(until_attempt(memory, now).unwrap_or(most));
    let ends = memory
        .replaced
        .iter()
        .filter_map(|replaced| Duration::try_from(replaced.until.duration_since(now)).ok());
    ends.map(|left| left + Duration::from_secs(1))
        .fold(most, Duration::min)
}

/// What is remembered, or what can be found again after a restart.
fn recall(cluster: &PgDogCluster, world: &World, cx: &Context) -> Memory {
    let uid = cluster.uid().unwrap_or_default();
    let all = cx.memory.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(memory) = all.get(&uid) {
        return memory.clone();
    }
    let mut memory = Memory {
        status: cluster.status.clone(),
        ..Memory::default()
    };
    apply::recall(cluster, world, &mut memory);
    let status = cluster.status.clone().unwrap_or_default();
    let mut pods = pods::proxies(cluster, world);
    pods.extend(pods::leaving(cluster, world));
    memory.ledger = Ledger::recall(&status.shares, &pods);
    memory.paused = pausing::recall(&status).or(memory.paused);
    memory
}

/// Divides the budget, and writes into the status what each may have from now on.
fn divide(
    cluster: &PgDogCluster,
    (pods, reports, leaving): (&[&Pod], &[Report], &[&Pod]),
    memory: &mut Memory,
    status: &mut PgDogClusterStatus,
    cx: &Context,
) -> Option<Standing> {
    let gone = Report::default();
    let of_leaving = leaving.iter().map(|pod| (pod, &gone));
    let seen: Vec<_> = pods
        .iter()
        .zip(reports)
        .chain(of_leaving)
        .map(|(pod, report)| shares::Seen {
            pod,
            share: report.share,
            demand: cx.fleet.demand(&pods::id(cluster, pod)),
            starts: pods::restarts(pod) < 0,
        })
        .collect();
    let databases = databases_of(cluster, memory);
    let terms = shares::terms(cluster, pods.len(), databases);
    let standing = memory.ledger.settle(terms.as_ref(), &seen, Instant::now());
    status.shares = memory.ledger.written(&seen);
    standing
}

fn versions(status: &PgDogClusterStatus, epoch: u64) -> snapshot::Versions {
    let number = |revision: i64| u64::try_from(revision).unwrap_or_default();
    snapshot::Versions {
        epoch,
        settings: number(status.config.settings.revision),
        topology: number(status.config.topology.revision),
    }
}

/// Gives every proxy what it is to have.
fn push(
    cluster: &PgDogCluster,
    pods: &[&Pod],
    decision: &Decision,
    (status, memory, plan): (&PgDogClusterStatus, &Memory, &Plan<'_>),
    cx: &Context,
) {
    let uid = cluster.uid().unwrap_or_default();
    let half = &status.config.settings;
    let settings = document(half, &decision.settings, cx);
    // Never nothing instead of something, and nothing while other shards come to all at one moment.
    let changes = plan.resharding == resharding::Step::Running;
    let half = &status.config.topology;
    let topology =
        (decision.has_hosts() && !changes).then(|| document(half, &decision.topology, cx));
    let paused = match plan.step {
        Step::Keep(paused) => Some(paused),
        // What not all could come to is taken back from those that have.
        Step::Wait { .. } => Some(memory.paused.unwrap_or(false)),
        Step::Nothing | Step::Begin | Step::Running => None,
    };
    let paused = paused
        .filter(|_| !plan.holds_newcomers())
        .map(|paused| Hold {
            paused,
            epoch: cx.epoch,
            attempt: memory.attempts,
        });
    let patience = cluster
        .spec
        .config_rollout
        .as_ref()
        .and_then(|rollout| rollout.ack_timeout);
    for (index, (pod, given)) in pods.iter().zip(&decision.given).enumerate() {
        let Some(place) = pods::place(cluster, pod) else {
            continue;
        };
        let want = Want {
            cluster_uid: uid.clone(),
            settings: (*given && !observe::lacks_files(cluster, pod)).then(|| settings.clone()),
            topology: topology.clone(),
            budget: memory
                .ledger
                .document(&pod.uid().unwrap_or_default(), cx.epoch),
            paused,
            observes: index < OBSERVERS,
            patience: patience.map_or(Duration::from_secs(30), Duration::from),
        };
        cx.fleet.bring(
            &pods::id(cluster, pod),
            place,
            want,
            &ObjectRef::from_obj(cluster),
        );
    }
    let alive = pods.iter().filter_map(|pod| pod.uid()).collect();
    cx.fleet.retain(&uid, &alive);
}

/// A half as all proxies are sent it.
fn document(half: &HalfStatus, config: &Map<String, Value>, cx: &Context) -> Arc<Document> {
    let revision = u64::try_from(half.revision).unwrap_or_default();
    let (sha256, config) = (half.hash.clone(), config.clone());
    Arc::new(Document::new(cx.epoch, revision, sha256, config))
}

/// The epoch of the leader that wrote the status. What no Lease can count is a lie.
fn written_in(cluster: &PgDogCluster) -> Option<u64> {
    let epoch = i32::try_from(cluster.status.as_ref()?.epoch?).ok()?;
    u64::try_from(epoch).ok().filter(|_| epoch < i32::MAX)
}

async fn write_status(
    cluster: &PgDogCluster,
    cx: &Context,
    memory: &mut Memory,
    status: &PgDogClusterStatus,
) -> Result<(), ApplyError> {
    // What a former leader wrote too late is written over.
    let is_ours = written_in(cluster) == Some(cx.epoch);
    if memory.status.as_ref() != Some(status) || !is_ours {
        apply::status(cluster, status, cx).await?;
        memory.status = Some(status.clone());
        cx.remember(cluster, memory.clone());
    }
    Ok(())
}
