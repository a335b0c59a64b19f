//! Brings configurations to proxies and knows which have acknowledged them. Each proxy has a task of its own, so that one that
//! does not answer holds up nobody else.
//!
//! Guarantees: of two documents of the same half the later one wins; a topology never waits for settings; what a proxy
//! refused is not sent again before there is another one. Assumption: revisions were written down before they are given here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use kube::runtime::reflector::ObjectRef;
use pgdog_config::api::{Half, HostBudget, RefusedBecause, Version};
use pgdog_operator_api::{PgDogCluster, Rejection};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::http::{Client, Failure, Identity};
use crate::metrics::Metrics;

/// Time that a proxy has to take a topology.
const TOPOLOGY: Duration = Duration::from_secs(5);
/// First and longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// How often a proxy is asked whether it still has what it was given.
const RESYNC: Duration = Duration::from_secs(300);
/// The same for one that has a share of a budget: its demand is asked for.
const DEMAND: Duration = Duration::from_secs(3);
/// The same for one that has to give connections back.
const GIVES_BACK: Duration = Duration::from_millis(100);

/// A half of a configuration, ready to be pushed.
pub struct Document {
    /// The epoch of this leader.
    pub epoch: u64,
    /// Its revision.
    pub revision: u64,
    /// SHA-256 of it.
    pub sha256: String,
    /// The half itself.
    pub config: Map<String, Value>,
    /// The same as JSON, made when it is first sent: all proxies are sent one text.
    text: OnceLock<String>,
}

impl Document {
    /// This half in this version.
    #[must_use]
    pub fn new(epoch: u64, revision: u64, sha256: String, config: Map<String, Value>) -> Self {
        Self {
            epoch,
            revision,
            sha256,
            config,
            text: OnceLock::new(),
        }
    }

    /// As the body of a push to a proxy; it says whom it is for.
    fn body(&self, cluster: &str, pod: &str) -> Bytes {
        let config = self
            .text
            .get_or_init(|| serde_json::to_string(&self.config).unwrap_or_default());
        // The fields of a `Push`.
        let whom = serde_json::json!({
            "cluster_uid": cluster,
            "pod_uid": pod,
            "epoch": self.epoch,
            "revision": self.revision,
            "sha256": self.sha256,
        });
        let whom = whom.to_string();
        let open = whom.trim_end_matches('}');
        format!(r#"{open},"config":{config}}}"#).into()
    }
}

impl PartialEq for Document {
    // A large fleet is compared often: another content has another hash.
    fn eq(&self, other: &Self) -> bool {
        (self.epoch, self.revision, &self.sha256) == (other.epoch, other.revision, &other.sha256)
    }
}

impl std::fmt::Debug for Document {
    // Passwords stand in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            epoch, revision, ..
        } = self;
        write!(f, "Document(epoch {epoch}, revision {revision})")
    }
}

/// What a proxy is to have.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Want {
    /// Uid of the cluster.
    pub cluster_uid: String,
    /// The settings; `None` leaves those that it has.
    pub settings: Option<Arc<Document>>,
    /// The topology; `None` leaves the one that it has.
    pub topology: Option<Arc<Document>>,
    /// What it may open to each host; `None` leaves what it has.
    pub budget: Option<Arc<Document>>,
    /// Whether it is to be paused; `None` leaves it as it is.
    pub paused: Option<bool>,
    /// Time that it has to take settings.
    pub patience: Duration,
}

/// How a proxy stands to one half.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Taken {
    /// It has not been asked yet.
    #[default]
    Pending,
    /// It has this one.
    Acked {
        /// Which.
        revision: u64,
        /// SHA-256 of it.
        sha256: String,
    },
    /// It has refused this one, or could not be asked.
    Failed {
        /// Which.
        revision: u64,
        /// Why.
        reason: Rejection,
        /// What it said.
        message: String,
    },
}

impl Taken {
    /// In one word, for metrics.
    #[must_use]
    pub const fn state(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Acked { .. } => "acked",
            Self::Failed { reason, .. } => match reason {
                Rejection::Nack => "nacked",
                Rejection::Timeout => "timeout",
                Rejection::Unreachable => "unreachable",
            },
        }
    }

    /// Whether it has this one.
    #[must_use]
    pub fn has(&self, sha256: &str) -> bool {
        matches!(self, Self::Acked { sha256: taken, .. } if taken == sha256)
    }
}

/// How a proxy stands to its share of the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Share {
    /// It has not acknowledged it.
    #[default]
    Pending,
    /// It has acknowledged the one of this revision, and has more open from before.
    Over(u64),
    /// It has acknowledged the one of this revision, and has no more open.
    Held(u64),
}

impl Share {
    /// Of the revision that it has acknowledged, as it stands with its hosts.
    fn of(revision: u64, hosts: &BTreeMap<String, HostBudget>) -> Self {
        let over = |host: &HostBudget| host.limit.is_some_and(|limit| host.open > limit);
        match hosts.values().any(over) {
            true => Self::Over(revision),
            false => Self::Held(revision),
        }
    }

    const fn revision(self) -> Option<u64> {
        match self {
            Self::Pending => None,
            Self::Over(revision) | Self::Held(revision) => Some(revision),
        }
    }
}

/// How a proxy stands to its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Uid of its pod.
    pub pod: String,
    /// To the settings.
    pub settings: Taken,
    /// To the topology.
    pub topology: Taken,
    /// To its share of the budget.
    pub share: Share,
    /// Whether it is paused, where that was asked.
    pub paused: Option<bool>,
    /// A leader of this later epoch has been there: this one is over.
    pub fenced: Option<u64>,
    /// Revisions of this epoch that it has and that are not lower than what it was sent.
    pub ahead: Ahead,
}

/// The highest revision of each half that a proxy has, where this leader counts from further down: its numbers came from a
/// backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ahead {
    /// Of the settings.
    pub settings: u64,
    /// Of the topology.
    pub topology: u64,
}

impl Report {
    /// Of a proxy that cannot be asked yet.
    #[must_use]
    pub fn unreachable(why: &str) -> Self {
        let failed = Taken::Failed {
            revision: 0,
            reason: Rejection::Unreachable,
            message: why.to_owned(),
        };
        Self {
            settings: failed.clone(),
            topology: failed,
            ..Self::default()
        }
    }
}

/// A proxy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProxyId {
    /// Uid of its cluster.
    pub cluster: String,
    /// Uid of its pod.
    pub pod: String,
}

/// Where a proxy is reached, and which of its lives it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `address:port` of its admin API.
    pub address: String,
    /// The name in its certificate.
    pub name: String,
    /// How often its container was started: it is asked again after each.
    pub restarts: i32,
}

struct Proxy {
    place: Place,
    want: watch::Sender<Want>,
    report: Arc<Mutex<Report>>,
    demand: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All proxies of all clusters.
pub struct Fleet {
    identity: Identity,
    proxies: Mutex<BTreeMap<ProxyId, Proxy>>,
    changed: mpsc::UnboundedSender<ObjectRef<PgDogCluster>>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fleet(…)")
    }
}

impl Fleet {
    /// Of nobody yet. Clusters whose proxies have something to say are sent to `changed`.
    #[must_use]
    pub fn new(
        identity: Identity,
        changed: mpsc::UnboundedSender<ObjectRef<PgDogCluster>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            identity,
            proxies: Mutex::default(),
            changed,
            metrics,
        }
    }

    /// Brings what it is to have to a proxy.
    pub fn bring(&self, id: &ProxyId, place: Place, want: Want, owner: &ObjectRef<PgDogCluster>) {
        let mut proxies = self.proxies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(proxy) = proxies.get(id).filter(|proxy| proxy.place == place) {
            proxy.want.send_if_modified(|now| {
                let changes = *now != want;
                if changes {
                    *now = want;
                }
                changes
            });
            return;
        }
        let client = Client::new(place.address.clone(), &place.name, self.identity.clone());
        let Ok(client) = client else {
            return;
        };
        let (sender, receiver) = watch::channel(want);
        let (report, demand) = (Arc::default(), Arc::default());
        let courier = Courier {
            client,
            want: receiver,
            report: Arc::clone(&report),
            demand: Arc::clone(&demand),
            pod: id.pod.clone(),
            owner: owner.clone(),
            changed: self.changed.clone(),
            metrics: self.metrics.clone(),
            fenced: None,
            ahead: Ahead::default(),
        };
        let proxy = Proxy {
            place,
            want: sender,
            report,
            demand,
            task: tokio::spawn(courier.run()),
        };
        proxies.insert(id.clone(), proxy);
    }

    /// Forgets the proxies of a cluster that are not among these.
    pub fn retain(&self, cluster: &str, pods: &BTreeSet<String>) {
        let mut proxies = self.proxies.lock().unwrap_or_else(PoisonError::into_inner);
        proxies.retain(|id, _| id.cluster != cluster || pods.contains(&id.pod));
    }

    /// How a proxy stands to its configuration.
    #[must_use]
    pub fn report(&self, id: &ProxyId) -> Report {
        let proxies = self.proxies.lock().unwrap_or_else(PoisonError::into_inner);
        proxies.get(id).map_or_else(Report::default, |proxy| {
            proxy
                .report
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone()
        })
    }

    /// Server connections that a proxy has to the host it uses most, and clients that wait for one, when it was asked last.
    #[must_use]
    pub fn demand(&self, id: &ProxyId) -> u32 {
        let proxies = self.proxies.lock().unwrap_or_else(PoisonError::into_inner);
        let proxy = proxies.get(id);
        proxy.map_or(0, |proxy| proxy.demand.load(Ordering::Relaxed))
    }

    /// How many proxies of all clusters stand how to their configuration: the worse of the two halves counts.
    #[must_use]
    pub fn states(&self) -> [(&'static str, usize); 5] {
        let mut states = ["nacked", "unreachable", "timeout", "pending", "synced"].map(|s| (s, 0));
        let proxies = self.proxies.lock().unwrap_or_else(PoisonError::into_inner);
        for proxy in proxies.values() {
            let report = proxy.report.lock().unwrap_or_else(PoisonError::into_inner);
            let halves = [report.settings.state(), report.topology.state()];
            let worst = states.iter().position(|(state, _)| halves.contains(state));
            states[worst.unwrap_or(4)].1 += 1;
        }
        states
    }

    /// Proxies of all clusters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.proxies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Brings one proxy what it is to have.
struct Courier {
    client: Client,
    want: watch::Receiver<Want>,
    report: Arc<Mutex<Report>>,
    demand: Arc<AtomicU32>,
    pod: String,
    owner: ObjectRef<PgDogCluster>,
    changed: mpsc::UnboundedSender<ObjectRef<PgDogCluster>>,
    metrics: Arc<Metrics>,
    fenced: Option<u64>,
    ahead: Ahead,
}

impl Courier {
    async fn run(mut self) {
        let mut pause = PAUSES.0;
        loop {
            let want = self.want.borrow_and_update().clone();
            let before = self.reported();
            let mut after = self.visit(&want, before.clone()).await;
            after.fenced = self.fenced;
            after.ahead = self.ahead;
            let again = unreachable(&after) || !has_the_rest(&after, &want);
            let look = interval(&after, &want);
            if after != before {
                *self.report.lock().unwrap_or_else(PoisonError::into_inner) = after;
                // Nobody listens any more: the process is ending.
                let _ = self.changed.send(self.owner.clone());
            }
            let wait = if again {
                pause = (pause * 2).min(PAUSES.1);
                jittered(pause / 2)
            } else {
                pause = PAUSES.0;
                jittered(look)
            };
            tokio::select! {
                changed = self.want.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => if !again {
                    self.look().await;
                },
            }
        }
    }

    fn reported(&self) -> Report {
        self.report
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Gives it what it does not have. A database comes by the topology first and goes by the settings first: what is refused
    /// at the first attempt is tried again after the other half.
    async fn visit(&mut self, want: &Want, before: Report) -> Report {
        let mut report = before;
        let mut topology = self
            .half(
                Half::Topology,
                want,
                want.topology.as_ref(),
                report.topology.clone(),
            )
            .await;
        if is_unreachable(&topology) {
            report.topology = topology;
            return report;
        }
        report.share = self.share(want, report.share).await;
        report.paused = self.paused(want, report.paused).await;
        report.settings = self
            .half(
                Half::Settings,
                want,
                want.settings.as_ref(),
                report.settings,
            )
            .await;
        if matches!(
            topology,
            Taken::Failed {
                reason: Rejection::Nack,
                ..
            }
        ) && matches!(report.settings, Taken::Acked { .. })
        {
            topology = self
                .half(Half::Topology, want, want.topology.as_ref(), Taken::Pending)
                .await;
        }
        report.topology = topology;
        report
    }

    async fn half(
        &mut self,
        half: Half,
        want: &Want,
        document: Option<&Arc<Document>>,
        before: Taken,
    ) -> Taken {
        let Some(document) = document else {
            return before;
        };
        match &before {
            Taken::Acked { revision, sha256 }
                if *revision == document.revision && *sha256 == document.sha256 =>
            {
                return before;
            }
            // Another attempt would end the same way.
            Taken::Failed {
                revision,
                reason: Rejection::Nack,
                ..
            } if *revision == document.revision && half == Half::Settings => return before,
            _ => {}
        }
        let body = self.body(want, document);
        let patience = match half {
            Half::Topology => TOPOLOGY,
            Half::Settings => want.patience.max(Duration::from_secs(1)),
        };
        let begun = Instant::now();
        let taken = match self.client.push(half, body, patience).await {
            Ok(_) => Taken::Acked {
                revision: document.revision,
                sha256: document.sha256.clone(),
            },
            Err(failure) => self.failed(half, document, &failure),
        };
        self.metrics.pushed(half, taken.state(), begun.elapsed());
        taken
    }

    /// Tells it what it may open.
    async fn share(&mut self, want: &Want, before: Share) -> Share {
        let Some(document) = &want.budget else {
            return before;
        };
        if before.revision() == Some(document.revision) {
            return before;
        }
        let body = self.body(want, document);
        match self.client.budget(body, TOPOLOGY).await {
            Ok(pushed) => {
                self.demands(&pushed.hosts);
                Share::of(document.revision, &pushed.hosts)
            }
            Err(failure) => {
                tracing::debug!(pod = self.pod, "push of a budget: {failure}");
                if let Failure::Refused(refused) = &failure
                    && refused.error == RefusedBecause::Stale
                    && let Some(kept) = &refused.keeping
                {
                    self.overtaken(None, document, kept.version);
                }
                Share::Pending
            }
        }
    }

    fn demands(&self, hosts: &BTreeMap<String, HostBudget>) {
        let most = hosts.values().map(|host| host.open + host.waiting).max();
        self.demand.store(most.unwrap_or(0), Ordering::Relaxed);
    }

    /// One that starts, or was away when all others were paused, comes to be like them.
    async fn paused(&mut self, want: &Want, before: Option<bool>) -> Option<bool> {
        let Some(wanted) = want.paused else {
            // A change of all proxies is under way, or there never was one.
            return None;
        };
        if before == Some(wanted) {
            return before;
        }
        let is = self.client.status(TOPOLOGY).await.ok()?.paused;
        if is != wanted {
            let order = if wanted { "pause" } else { "resume" };
            let ordered = self.client.order(order, TOPOLOGY).await;
            tracing::info!(pod = self.pod, ok = ordered.is_ok(), "{order}");
            ordered.ok()?;
        }
        Some(wanted)
    }

    fn body(&self, want: &Want, document: &Document) -> Bytes {
        document.body(&want.cluster_uid, &self.pod)
    }

    fn failed(&mut self, half: Half, document: &Document, failure: &Failure) -> Taken {
        let reason = match failure {
            Failure::Unreachable(_) | Failure::Odd(_) => Rejection::Unreachable,
            Failure::Timeout(_) => Rejection::Timeout,
            Failure::Refused(refused) => match refused.error {
                RefusedBecause::Rejected
                | RefusedBecause::Malformed
                | RefusedBecause::TooLarge
                | RefusedBecause::NotJson => Rejection::Nack,
                because => {
                    if because == RefusedBecause::Stale
                        && let Some(kept) = &refused.keeping
                    {
                        self.overtaken(Some(half), document, kept.version);
                    }
                    // It is on its way out, or its disk is full: another attempt may go well.
                    Rejection::Unreachable
                }
            },
        };
        let mut message = failure.to_string();
        if let Failure::Refused(refused) = failure {
            for problem in &refused.problems {
                message = format!("{message}; {problem}");
            }
        }
        Taken::Failed {
            revision: document.revision,
            reason,
            message,
        }
    }

    /// It has a later version than the one that it was sent: a later leader's, or of a half this epoch's with a higher number.
    fn overtaken(&mut self, half: Option<Half>, document: &Document, kept: Version) {
        if kept.epoch > document.epoch {
            self.fenced = Some(kept.epoch);
        } else if kept.epoch == document.epoch && kept.revision >= document.revision {
            match half {
                Some(Half::Settings) => self.ahead.settings = kept.revision,
                Some(Half::Topology) => self.ahead.topology = kept.revision,
                None => {}
            }
        }
    }

    /// Whether it still has what it was given; what it does not have is given again.
    async fn look(&mut self) {
        let Ok(status) = self.client.status(TOPOLOGY).await else {
            return;
        };
        if let Some(budget) = &status.budget {
            self.demands(&budget.hosts);
        }
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Share::Over(revision), Some(budget)) = (report.share, &status.budget) {
            report.share = Share::of(revision, &budget.hosts);
            if report.share != Share::Over(revision) {
                // Others wait for what it has given back.
                let _ = self.changed.send(self.owner.clone());
            }
        }
        for (taken, has) in [(&status.settings, true), (&status.topology, false)] {
            let reported = if has {
                &mut report.settings
            } else {
                &mut report.topology
            };
            if let Taken::Acked { sha256, .. } = reported
                && taken.sha256.as_deref() != Some(sha256)
            {
                *reported = Taken::Pending;
            }
        }
    }
}

/// Whether nobody answered.
pub(crate) fn is_unreachable(taken: &Taken) -> bool {
    matches!(
        taken,
        Taken::Failed {
            reason: Rejection::Unreachable | Rejection::Timeout,
            ..
        }
    )
}

fn unreachable(report: &Report) -> bool {
    is_unreachable(&report.settings) || is_unreachable(&report.topology)
}

/// Whether it has what is neither settings nor topology.
fn has_the_rest(report: &Report, want: &Want) -> bool {
    let share = want.budget.as_ref().map(|budget| budget.revision);
    (share.is_none() || report.share.revision() == share)
        && (want.paused.is_none() || report.paused == want.paused)
}

/// When it is asked again how it stands.
fn interval(report: &Report, want: &Want) -> Duration {
    match (&want.budget, report.share) {
        (Some(_), Share::Over(_)) => GIVES_BACK,
        (Some(_), _) => DEMAND,
        (None, _) => RESYNC,
    }
}

/// Give or take a fifth: what failed together does not come back together.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(rand::random_range(0.8..1.2))
}

#[cfg(test)]
mod tests {
    use pgdog_config::api::Push;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_sent_is_a_push_and_another_version_is_another_document() {
        let config = Map::from_iter([("general".to_owned(), json!({"host": "}\"{"}))]);
        let document = Document::new(3, 7, "abc".to_owned(), config.clone());
        let push: Push = serde_json::from_slice(&document.body("cluster", "pod")).unwrap();
        let wanted = Push {
            cluster_uid: Some("cluster".to_owned()),
            pod_uid: Some("pod".to_owned()),
            epoch: 3,
            revision: 7,
            sha256: Some("abc".to_owned()),
            config: config.clone(),
        };
        assert_eq!(push, wanted);
        assert_eq!(document, Document::new(3, 7, "abc".to_owned(), Map::new()));
        assert_ne!(document, Document::new(3, 8, "abc".to_owned(), config));
    }
}
