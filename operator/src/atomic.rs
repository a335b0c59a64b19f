//! A pause, its end, or another sharding, on all proxies of a cluster or on none: prepared on each, then committed on each or
//! aborted.
//!
//! Guarantees: nobody changes unless all could; who asks may vanish at any moment, as what is not committed is undone at its
//! deadline. When a proxy falls silent between the two steps, it is taken back from those that were told, and tried again. Only
//! the end of a pause waits for nobody.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use pgdog_config::api::{Change, Decide, Pools, Prepare, Push, RefusedBecause, Status};
use pgdog_operator_api::PgDogCluster;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::fleet::{Document, Hold, Place};
use crate::http::{Client, Failure, Identity};

/// Time that running transactions have to end.
const PREPARE: Duration = Duration::from_secs(10);
/// Time after which what is not committed is undone: commits have what is left of it.
const DEADLINE: Duration = Duration::from_secs(13);
/// The same where one proxy comes to be like all others.
const ALONE: Duration = Duration::from_secs(5);
/// Time that a proxy has to answer anything else.
const ANSWER: Duration = Duration::from_secs(2);
/// Pause between two attempts to commit.
const AGAIN: Duration = Duration::from_millis(100);

/// A proxy that takes part.
#[derive(Debug, Clone)]
pub struct Party {
    /// Name of its pod.
    pub name: String,
    /// Uid of its pod.
    pub pod: String,
    /// Where it is reached.
    pub place: Place,
}

/// What all proxies are to come to.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// To hold their clients' next transactions, or not to.
    Paused(bool),
    /// To have this topology, which shards otherwise than the one before.
    Topology(Arc<Document>),
}

impl Target {
    /// Which change it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Paused(_) => Kind::Pause,
            Self::Topology(_) => Kind::Sharding,
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Paused(true) => "pause",
            Self::Paused(false) => "resume",
            Self::Topology(_) => "sharding",
        }
    }

    /// Whether a proxy has come to it already.
    fn is_in(&self, status: &Status) -> bool {
        match self {
            Self::Paused(paused) => status.paused == *paused,
            Self::Topology(document) => {
                status.topology.sha256.as_deref() == Some(document.sha256.as_str())
            }
        }
    }

    fn change(&self, cluster: &str, pod: &str) -> Change {
        match self {
            Self::Paused(true) => Change::Pause(Pools::default()),
            Self::Paused(false) => Change::Resume(Pools::default()),
            Self::Topology(document) => Change::Topology(Push {
                cluster_uid: Some(cluster.to_owned()),
                pod_uid: Some(pod.to_owned()),
                epoch: document.epoch,
                revision: document.revision,
                sha256: Some(document.sha256.clone()),
                config: document.config.clone(),
            }),
        }
    }
}

/// Which change of all proxies it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A pause, or its end.
    Pause,
    /// A topology that shards otherwise.
    Sharding,
}

/// An order to all proxies of a cluster.
#[derive(Debug, Clone)]
pub struct Order {
    /// The cluster.
    pub owner: ObjectRef<PgDogCluster>,
    /// Uid of the cluster.
    pub cluster: String,
    /// Generation of the spec that says so.
    pub generation: i64,
    /// The epoch of this leader.
    pub epoch: u64,
    /// What they are to come to.
    pub target: Target,
    /// All of them.
    pub parties: Vec<Party>,
}

/// How far it has come.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// It is under way.
    Running,
    /// All have come to it.
    Done(Target),
    /// None was changed, or not all.
    Failed {
        /// Who is in the way.
        message: String,
        /// Since when.
        at: Instant,
        /// How often it has failed, one time after the other.
        times: u32,
    },
}

struct Entry {
    kind: Kind,
    generation: i64,
    progress: Arc<Mutex<Progress>>,
    task: JoinHandle<()>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The changes of all clusters.
pub struct Changes {
    identity: Identity,
    changed: mpsc::UnboundedSender<ObjectRef<PgDogCluster>>,
    entries: Mutex<HashMap<String, Entry>>,
}

impl Changes {
    /// None yet. Clusters whose change has come to an end are sent to `changed`.
    #[must_use]
    pub fn new(
        identity: Identity,
        changed: mpsc::UnboundedSender<ObjectRef<PgDogCluster>>,
    ) -> Self {
        Self {
            identity,
            changed,
            entries: Mutex::default(),
        }
    }

    /// How far a change of this kind has come in a cluster; a failure counts for the generation of the spec that asked for it.
    #[must_use]
    pub fn progress(&self, cluster: &str, kind: Kind, generation: i64) -> Option<Progress> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(cluster).filter(|entry| entry.kind == kind)?;
        let progress = entry.progress.lock();
        let progress = progress.unwrap_or_else(PoisonError::into_inner).clone();
        match progress {
            Progress::Failed { .. } if entry.generation != generation => None,
            progress => Some(progress),
        }
    }

    /// Begins a change. There is one at a time in a cluster: whoever asks has seen that none is running.
    pub fn begin(&self, order: Order) {
        let progress = Arc::new(Mutex::new(Progress::Running));
        let (cluster, generation) = (order.cluster.clone(), order.generation);
        let (kind, target) = (order.target.kind(), order.target.clone());
        let (told, changed, identity) = (
            progress.clone(),
            self.changed.clone(),
            self.identity.clone(),
        );
        let failed = self.failures(&cluster, kind, generation);
        let task = tokio::spawn(async move {
            let owner = order.owner.clone();
            let end = match run(order, &identity).await {
                Ok(()) => Progress::Done(target),
                Err(message) => Progress::Failed {
                    message,
                    at: Instant::now(),
                    times: failed + 1,
                },
            };
            *told.lock().unwrap_or_else(PoisonError::into_inner) = end;
            // Nobody listens any more: the process is ending.
            let _ = changed.send(owner);
        });
        let entry = Entry {
            kind,
            generation,
            progress,
            task,
        };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.insert(cluster, entry);
    }

    /// A change that could not begin counts as one that failed.
    pub fn fail(&self, cluster: &str, kind: Kind, generation: i64, message: String) {
        let failed = Progress::Failed {
            message,
            at: Instant::now(),
            times: self.failures(cluster, kind, generation) + 1,
        };
        let entry = Entry {
            kind,
            generation,
            progress: Arc::new(Mutex::new(failed)),
            task: tokio::spawn(async {}),
        };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.insert(cluster.to_owned(), entry);
    }

    /// How often a change has failed so far, one time after the other.
    fn failures(&self, cluster: &str, kind: Kind, generation: i64) -> u32 {
        match self.progress(cluster, kind, generation) {
            Some(Progress::Failed { times, .. }) => times,
            _ => 0,
        }
    }

    /// Forgets the change of a cluster.
    pub fn forget(&self, cluster: &str) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.remove(cluster);
    }
}

/// One proxy, and the connection to it.
struct Asked {
    name: String,
    pod: String,
    client: Client,
}

impl Asked {
    async fn prepare(&mut self, order: &Terms) -> Result<(), String> {
        let answer = prepare(&mut self.client, &self.pod, order, PREPARE).await;
        answer.map_err(|failure| match failure {
            Failure::Timeout(_) => format!(
                "{}: transactions that run did not end within {PREPARE:?}",
                self.name
            ),
            failure => format!("{}: {failure}", self.name),
        })
    }

    async fn commit(&mut self, order: &Terms, end: Instant) -> Result<(), String> {
        let answer = commit(&mut self.client, order, end).await;
        answer.map_err(|failure| format!("{}: {failure}", self.name))
    }
}

async fn prepare(
    client: &mut Client,
    pod: &str,
    order: &Terms,
    left: Duration,
) -> Result<(), Failure> {
    let asked = Prepare {
        cluster_uid: Some(order.cluster.clone()),
        pod_uid: Some(pod.to_owned()),
        epoch: order.epoch,
        id: order.id.clone(),
        deadline_ms: u64::try_from(DEADLINE.as_millis()).unwrap_or(u64::MAX),
        change: order.target.change(&order.cluster, pod),
    };
    client.prepare(&asked, left).await
}

/// Tries until it has answered, or it is too late.
async fn commit(client: &mut Client, order: &Terms, end: Instant) -> Result<(), Failure> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let failure = match client.decide("commit", &order.decide(), ANSWER).await {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        let again = match &failure {
            Failure::Unreachable(_) | Failure::Timeout(_) => true,
            // It is doing so.
            Failure::Refused(refused) => refused.error == RefusedBecause::Busy,
            Failure::Odd(_) => false,
        };
        if !again || left.is_zero() {
            return Err(failure);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Pauses one proxy, or ends that, as all others are already.
///
/// # Errors
///
/// [`Failure`]: it is as before, or will be at the deadline.
pub async fn tell(
    client: &mut Client,
    cluster: &str,
    pod: &str,
    hold: Hold,
) -> Result<(), Failure> {
    let target = Target::Paused(hold.paused);
    let terms = Terms::new(cluster.to_owned(), hold.epoch, "alone", target);
    let end = Instant::now() + DEADLINE;
    prepare(client, pod, &terms, ALONE).await?;
    commit(client, &terms, end).await
}

/// What is ordered, without whom.
struct Terms {
    cluster: String,
    epoch: u64,
    id: String,
    target: Target,
}

impl Terms {
    fn new(cluster: String, epoch: u64, of: impl std::fmt::Display, target: Target) -> Self {
        Self {
            // Never used again: no proxy takes it for a former one.
            id: format!(
                "{}-{of}-{}",
                target.name(),
                Timestamp::now().as_millisecond()
            ),
            cluster,
            epoch,
            target,
        }
    }

    fn decide(&self) -> Decide {
        Decide {
            epoch: self.epoch,
            id: self.id.clone(),
        }
    }
}

async fn run(order: Order, identity: &Identity) -> Result<(), String> {
    let (generation, target) = (order.generation, order.target);
    let terms = Terms::new(order.cluster, order.epoch, generation, target);
    let mut parties = Vec::new();
    for party in order.parties {
        let client = Client::new(party.place.address, &party.place.name, identity.clone());
        parties.push(Asked {
            client: client.map_err(|error| format!("{}: {error:#}", party.name))?,
            name: party.name,
            pod: party.pod,
        });
    }
    // Those that are so already are left alone.
    let states = join_all(parties.iter_mut().map(|party| async {
        let status = party.client.status(ANSWER).await;
        status.map_err(|failure| format!("{}: {failure}", party.name))
    }))
    .await;
    let states: Vec<_> = parties.into_iter().zip(states).collect();
    if terms.target == Target::Paused(false) {
        return resume(states, &terms).await;
    }
    let mut rest = Vec::new();
    for (party, status) in states {
        if !terms.target.is_in(&status?) {
            rest.push(party);
        }
    }
    let end = Instant::now() + DEADLINE;
    // The first refusal ends it: the others need not hold their clients any longer.
    let prepared = try_join_all(rest.iter_mut().map(|party| party.prepare(&terms))).await;
    if let Err(message) = prepared {
        let undo = terms.decide();
        // Who does not hear it undoes it at the deadline.
        join_all(
            rest.iter_mut()
                .map(|p| p.client.decide("abort", &undo, ANSWER)),
        )
        .await;
        return Err(message);
    }
    let committed = join_all(rest.iter_mut().map(|party| party.commit(&terms, end))).await;
    match committed.into_iter().find_map(Result::err) {
        Some(message) => Err(message),
        None => Ok(()),
    }
}

/// The end of a pause waits for nobody who does not answer: the others' clients have waited long enough. Who is missing comes to
/// be like them as soon as he is there.
async fn resume(states: Vec<(Asked, Result<Status, String>)>, terms: &Terms) -> Result<(), String> {
    let end = Instant::now() + DEADLINE;
    let all = states.into_iter().map(|(mut party, status)| async move {
        if terms.target.is_in(&status?) {
            return Ok(());
        }
        party.prepare(terms).await?;
        party.commit(terms, end).await
    });
    let ends = join_all(all).await;
    let someone = ends.is_empty() || ends.iter().any(Result::is_ok);
    match ends.into_iter().find_map(Result::err) {
        Some(message) if !someone => Err(message),
        _ => Ok(()),
    }
}
