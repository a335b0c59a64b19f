//! What all reconciliations share: the client, the watches' stores, the fleet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt};
use pgdog_operator_api::{PgDogCluster, PgDogClusterStatus};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::atomic::Changes;
use crate::authority::Authority;
use crate::events::Events;
use crate::fleet::Fleet;
use crate::leader::Term;
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::rotation::Replaced;
use crate::shares::Ledger;
use crate::watch::Unreadable;
use crate::world::World;

/// What the watches have seen.
#[derive(Clone)]
pub struct Stores {
    /// Pods.
    pub pods: Store<Pod>,
    /// EndpointSlices.
    pub slices: Store<EndpointSlice>,
    /// Services.
    pub services: Store<Service>,
    /// Deployments of proxies.
    pub deployments: Store<Deployment>,
    /// Secrets.
    pub secrets: Store<Secret>,
    /// Whether pods have addresses of IPv6, first of all or alone.
    pub ipv6: bool,
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stores(…)")
    }
}

impl Stores {
    /// What there is in a namespace.
    #[must_use]
    pub fn world(&self, namespace: &str) -> World {
        fn within<K>(store: &Store<K>, namespace: &str) -> Vec<Arc<K>>
        where
            K: kube::Resource + Clone + 'static,
            K::DynamicType: std::hash::Hash + Eq + Clone,
        {
            store.state_filter(|object| object.namespace().as_deref() == Some(namespace))
        }
        World {
            pods: within(&self.pods, namespace),
            slices: within(&self.slices, namespace),
            services: within(&self.services, namespace),
            deployments: within(&self.deployments, namespace),
            secrets: within(&self.secrets, namespace)
                .into_iter()
                .map(|secret| (secret.name_any(), secret))
                .collect(),
            ipv6: self.ipv6,
        }
    }
}

/// What is remembered of a cluster between two reconciliations. All of it can be found again: in the status, and in the Secret
/// with its configuration.
#[derive(Clone, Default)]
pub struct Memory {
    /// The status as it was written last: newer than what the watch has seen.
    pub status: Option<PgDogClusterStatus>,
    /// When the status was last written with what was seen of the proxies.
    pub counted: Option<Instant>,
    /// The topology in force: it stays when a source shows no hosts.
    pub topology: Option<Map<String, Value>>,
    /// The settings that were rendered last: by them it is known which passwords were replaced.
    pub settings: Option<Map<String, Value>>,
    /// What proxies are started with.
    pub process: Option<Map<String, Value>>,
    /// The last settings that all proxies acknowledged.
    pub good: Option<Map<String, Value>>,
    /// Settings that a proxy refused: not tried again before there are others, or other files that they name.
    pub refused: Option<Refused>,
    /// The files that settings name, as they were seen last.
    pub files: Files,
    /// Passwords that are still accepted.
    pub replaced: Vec<Replaced>,
    /// What each proxy may have of the budget.
    pub ledger: Ledger,
    /// Which proxies are told to each other.
    pub peers: Peers,
    /// Whether the proxies are paused; `None` when nobody ever asked for it.
    pub paused: Option<bool>,
    /// How often all of them were told to change together.
    pub attempts: u64,
    /// Children as they were applied last, by kind and name.
    pub applied: BTreeMap<String, Applied>,
}

impl std::fmt::Debug for Memory {
    // Passwords stand in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory")
            .field("status", &self.status)
            .field("refused", &self.refused)
            .field("replaced", &self.replaced)
            .field("applied", &self.applied)
            .finish_non_exhaustive()
    }
}

/// A child as it was applied last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// SHA-256 of it; `None` when it was taken away.
    pub sha256: Option<String>,
    /// Uid of the object, known to be this cluster's.
    pub uid: Option<String>,
    /// How often what is wanted of it had been changed then, by whomever.
    pub generation: Option<i64>,
    /// When.
    pub at: Instant,
}

/// Settings that a proxy refused. A later leader has to know them too: it stands beside the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// SHA-256 of them, without what comes from Secrets.
    pub sha256: String,
    /// Why.
    pub message: String,
    /// Uid of the pod that refused them: when it has gone, they are tried again.
    #[serde(default)]
    pub pod: String,
    /// When.
    #[serde(default)]
    pub at: Timestamp,
    /// The files that they name, as they were then.
    #[serde(default)]
    pub files: Files,
}

/// The versions of the Secrets with certificates that are mounted, and since when there are these.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Files {
    /// SHA-256 of the versions; `None` where there are none, or nobody has looked yet.
    pub sha256: Option<String>,
    /// When they became these, as far as is known.
    pub since: Option<Timestamp>,
}

/// What all reconciliations share.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// What the watches have seen.
    pub stores: Stores,
    /// The proxies.
    pub fleet: Arc<Fleet>,
    /// Changes of all proxies of a cluster at once.
    pub changes: Changes,
    /// Signs certificates.
    pub authority: Arc<Authority>,
    /// The epoch of this leader.
    pub epoch: u64,
    /// Until when it leads: afterwards nothing is written.
    pub term: Term,
    /// The image of proxies that name none.
    pub default_image: String,
    /// Whether those that were made with another one get it.
    pub upgrade_proxies: bool,
    /// What is remembered of each cluster, by uid.
    pub memory: Mutex<HashMap<String, Memory>>,
    /// Clusters that cannot be read.
    pub unreadable: Arc<Unreadable>,
    /// Writes Events.
    pub events: Events,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Told the epoch of another leader that has taken over.
    pub fenced: tokio::sync::watch::Sender<Option<u64>>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Context(epoch {})", self.epoch)
    }
}

impl Context {
    /// Uids of the clusters that something is remembered of.
    #[must_use]
    pub fn known(&self) -> BTreeSet<String> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.keys().cloned().collect()
    }

    /// Why the latest version of a cluster cannot be read, and which generation that is: what is known of it is older.
    #[must_use]
    pub fn unreadable(&self, cluster: &PgDogCluster) -> Option<(i64, String)> {
        let all = self.unreadable.all().into_iter();
        let mut of = all.filter(|(object, _)| object.uid == cluster.uid());
        of.next()
            .map(|(object, error)| (object.generation.unwrap_or_default(), error))
    }

    /// Pods that asked for a sidecar of any cluster and have none.
    #[must_use]
    pub fn missing_sidecars(&self) -> usize {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = memory.values().filter_map(|memory| {
            let sidecars = memory.status.as_ref()?.sidecars.as_ref()?;
            usize::try_from(sidecars.missing).ok()
        });
        counts.sum()
    }

    /// What the next reconciliation is to know.
    pub fn remember(&self, cluster: &PgDogCluster, memory: Memory) {
        let uid = cluster.uid().unwrap_or_default();
        let mut all = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(uid, memory);
    }

    /// A cluster that is gone: the garbage collector takes its children, which it owns.
    pub fn forget(&self, uid: &str) {
        self.fleet.retain(uid, &BTreeSet::new());
        self.changes.forget(uid);
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.remove(uid);
    }
}
