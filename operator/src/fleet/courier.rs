//! Brings one proxy what it is to have, again and again until it has it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use kube::runtime::reflector::ObjectRef;
use pgdog_config::api::{Half, HostBudget, RefusedBecause, Version};
use pgdog_operator_api::{PgDogCluster, Rejection};
use tokio::sync::{mpsc, watch};

use super::{Ahead, Document, Hold, Report, Share, Taken, Want, is_unreachable};
use crate::atomic;
use crate::http::{Client, Failure};
use crate::metrics::Metrics;

/// Time that a proxy has to take a topology.
const TOPOLOGY: Duration = Duration::from_secs(5);
/// First and longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// How often a proxy is asked whether it still has what it was given.
const RESYNC: Duration = Duration::from_secs(300);
/// The same for one that is asked what it knows of Postgres, or has a share of a budget: its demand is asked for.
const DEMAND: Duration = Duration::from_secs(3);
/// The same for one that has to give connections back.
const GIVES_BACK: Duration = Duration::from_millis(100);

/// Brings one proxy what it is to have.
pub(super) struct Courier {
    pub(super) client: Client,
    pub(super) want: watch::Receiver<Want>,
    pub(super) report: Arc<Mutex<Report>>,
    pub(super) demand: Arc<AtomicU32>,
    pub(super) pod: String,
    pub(super) owner: ObjectRef<PgDogCluster>,
    pub(super) changed: mpsc::UnboundedSender<ObjectRef<PgDogCluster>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) fenced: Option<u64>,
    pub(super) ahead: Ahead,
}

impl Courier {
    pub(super) async fn run(mut self) {
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
            report.hosts.clear();
            return report;
        }
        report.share = self.share(want, report.share).await;
        report.paused = match &topology {
            // It has other hosts, or other shards, than it is to have.
            Taken::Failed { .. } => None,
            _ => self.paused(want, report.paused).await,
        };
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
            // That it could not be asked before says nothing of now.
            return match is_unreachable(&before) {
                true => Taken::Pending,
                false => before,
            };
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

    /// One that starts, or was away when all others were paused, comes to be like them; so does one that was paused when not
    /// all could be.
    async fn paused(&mut self, want: &Want, before: Option<Hold>) -> Option<Hold> {
        // Nothing: a change of all proxies is under way, or there never was one.
        let hold = want.paused?;
        if before == Some(hold) {
            return before;
        }
        let is = self.client.status(TOPOLOGY).await.ok()?.paused;
        if is != hold.paused {
            let told = atomic::tell(&mut self.client, &want.cluster_uid, &self.pod, hold).await;
            tracing::info!(
                pod = self.pod,
                paused = hold.paused,
                ok = told.is_ok(),
                "told to be like the others"
            );
            told.ok()?;
        }
        Some(hold)
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
            for problem in refused.problems.iter().map(ToString::to_string) {
                if !message.contains(&problem) {
                    message = format!("{message}; {problem}");
                }
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
            // What it knew is not what it knows.
            let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
            if !report.hosts.is_empty() {
                report.hosts.clear();
                let _ = self.changed.send(self.owner.clone());
            }
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
        if report.paused.is_some_and(|hold| hold.paused) && !status.paused {
            // Somebody has resumed it alone.
            report.paused = None;
        }
        if self.want.borrow().observes && report.hosts != status.hosts {
            report.hosts = status.hosts;
            let _ = self.changed.send(self.owner.clone());
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
        (None, _) if want.observes => DEMAND,
        (None, _) => RESYNC,
    }
}

/// Give or take a fifth: what failed together does not come back together.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(rand::random_range(0.8..1.2))
}
