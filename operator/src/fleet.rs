//! Brings configurations to proxies and knows which have acknowledged them. Each proxy has a task of its own, so that one that
//! does not answer holds up nobody else.
//!
//! Guarantees: of two documents of the same half the later one wins; a topology never waits for settings; what a proxy
//! refused is not sent again before there is another one. Assumption: revisions were written down before they are given here.

mod courier;
mod report;
mod want;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kube::runtime::reflector::ObjectRef;
use pgdog_operator_api::PgDogCluster;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use self::courier::Courier;
pub(crate) use self::report::is_unreachable;
pub use self::report::{Ahead, Report, Share, Taken};
pub use self::want::{Document, Hold, Want};
use crate::http::{Client, Identity};
use crate::metrics::Metrics;

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
