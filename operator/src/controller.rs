//! Watches, and calls [`reconcile`](crate::reconcile) for what changed.

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use kube::runtime::Controller;
use kube::runtime::controller::{Action, Config};
use kube::runtime::events::Reporter;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, ResourceExt};
use pgdog_operator_api::PgDogCluster;
use tokio::sync::{mpsc, watch as channel};

use crate::apply::{self, ApplyError, MANAGER};
use crate::args::Run;
use crate::atomic::Changes;
use crate::authority::Authority;
use crate::context::{Context, Stores};
use crate::events::{self, Events};
use crate::fleet::Fleet;
use crate::http::Identity;
use crate::leader::Term;
use crate::metrics::Metrics;
use crate::reconcile::reconcile;
use crate::watch::{self, Around, Changed, LOOK, Unreadable};

/// How often it is looked whether a cluster cannot be read.
const ODD: Duration = Duration::from_secs(1);

/// Changes that come within this time are one.
const DEBOUNCE: Duration = Duration::from_millis(10);

/// The watches: every replica keeps them warm, so that a new leader knows at once what there is.
#[derive(Debug)]
pub struct Watches {
    /// What they have seen.
    pub stores: Stores,
    /// The clusters.
    pub clusters: Store<PgDogCluster>,
    /// Those of them that cannot be read.
    unreadable: Arc<Unreadable>,
    /// Namespaces in which something changed.
    changed: Arc<Changed>,
}

impl Watches {
    /// Starts them.
    #[must_use]
    pub fn start(client: &Client, run: &Run, metrics: &Arc<Metrics>) -> Self {
        let around = Around {
            client: client.clone(),
            namespaces: run.watched(),
            changed: Arc::default(),
            metrics: metrics.clone(),
        };
        let unreadable = Arc::default();
        Self {
            stores: Stores {
                pods: around.keep(watch::slim_pod),
                slices: around.keep(watch::slim),
                services: around.keep(watch::slim),
                deployments: around.keep(watch::slim_deployment),
                secrets: around.keep(watch::slim_secret),
                ipv6: run.pod_ip.is_some_and(|address| address.is_ipv6()),
            },
            clusters: around.keep_clusters(&unreadable),
            unreadable,
            changed: around.changed,
        }
    }

    /// Waits until each of them has seen what there is.
    ///
    /// # Errors
    ///
    /// When one has ended.
    pub async fn ready(&self) -> anyhow::Result<()> {
        self.stores.pods.wait_until_ready().await?;
        self.stores.slices.wait_until_ready().await?;
        self.stores.services.wait_until_ready().await?;
        self.stores.deployments.wait_until_ready().await?;
        self.stores.secrets.wait_until_ready().await?;
        self.clusters.wait_until_ready().await?;
        Ok(())
    }
}

/// Tells of the clusters that cannot be read, and of those that nobody has been told of.
async fn tell_unreadable(told: &mut BTreeSet<(String, i64)>, changed: &Changed, cx: &Context) {
    for (cluster, error) in cx.unreadable.all() {
        let uid = cluster.uid.clone().unwrap_or_default();
        if !told.insert((uid.clone(), cluster.generation.unwrap_or_default())) {
            continue;
        }
        events::unreadable(&cluster, &error, cx).await;
        if cx.known().contains(&uid) {
            // Its status is written with what else is known of it.
            changed.tell(cluster.namespace.unwrap_or_default());
        } else if let Err(error) = apply::unreadable(&cluster, &error, cx).await {
            tracing::warn!("failed to tell of a PgDogCluster that cannot be read: {error}");
        }
    }
}

/// Tells of clusters that cannot be read, and forgets those that are gone: of a deleted resource nothing else tells.
async fn sweep(clusters: Store<PgDogCluster>, changed: Arc<Changed>, cx: Arc<Context>) {
    let mut missing = BTreeSet::new();
    loop {
        let end = Instant::now() + LOOK;
        let mut told = BTreeSet::new();
        while Instant::now() < end {
            tell_unreadable(&mut told, &changed, &cx).await;
            tokio::time::sleep(ODD).await;
        }
        let odd = cx.unreadable.all();
        let known = clusters.state();
        let known = known.iter().filter_map(|cluster| cluster.uid());
        // Its proxies stay as they are.
        let odd = odd.into_iter().filter_map(|(cluster, _)| cluster.uid);
        let live: BTreeSet<_> = known.chain(odd).collect();
        let gone: BTreeSet<_> = cx.known().difference(&live).cloned().collect();
        // Twice, for what is remembered may be of a moment ago.
        for uid in gone.intersection(&missing) {
            cx.forget(uid);
        }
        missing = gone;
    }
}

/// What a leader has.
#[derive(Debug)]
pub struct Leader {
    /// Signs certificates.
    pub authority: Arc<Authority>,
    /// What it proves itself to proxies with.
    pub identity: Identity,
    /// Its epoch.
    pub epoch: u64,
    /// Until when it leads.
    pub term: Term,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Leads until the process shall end, or another leader has taken over, whose epoch it returns.
///
/// # Errors
///
/// When the watches have ended.
pub async fn lead(
    client: Client,
    run: &Run,
    watches: Watches,
    leader: Leader,
    mut stop: channel::Receiver<bool>,
) -> anyhow::Result<Option<u64>> {
    let Leader {
        authority,
        identity,
        epoch,
        term,
        metrics,
    } = leader;
    let (tell, told) = mpsc::unbounded_channel();
    let (fenced, mut is_fenced) = channel::channel(None::<u64>);
    let later = is_fenced.clone();
    let reporter = Reporter {
        controller: MANAGER.to_owned(),
        instance: Some(run.identity()),
    };
    let context = Arc::new(Context {
        client: client.clone(),
        stores: watches.stores,
        changes: Changes::new(identity.clone(), tell.clone()),
        fleet: Arc::new(Fleet::new(identity, tell, metrics.clone())),
        authority,
        epoch,
        term,
        default_image: run.proxy_image.clone(),
        upgrade_proxies: run.upgrade_proxies,
        memory: Mutex::new(HashMap::new()),
        unreadable: watches.unreadable,
        events: Events::new(client.clone(), reporter),
        metrics,
        fenced,
    });
    let clusters = watches.clusters;
    let sweeping = sweep(clusters.clone(), watches.changed.clone(), context.clone());
    let sweeping = tokio::spawn(sweeping);
    let store = clusters.clone();
    let around = watches
        .changed
        .stream()
        .map(move |namespace| {
            let of = clusters.state_filter(|c| c.namespace().as_deref() == Some(&namespace));
            futures::stream::iter(of.into_iter().map(|c| ObjectRef::from_obj(&*c)))
        })
        .flatten();
    let reports = tokio_stream::wrappers::UnboundedReceiverStream::new(told);
    // A change of a cluster is one of its namespace too: there is no watch besides ours.
    let controller = Controller::for_stream(futures::stream::pending(), store)
    .with_config(Config::default().debounce(DEBOUNCE))
    .reconcile_on(around)
    .reconcile_on(reports)
    .graceful_shutdown_on(async move {
        let stopping = async {
            // The sender lives as long as the process.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        tokio::select! {
            () = stopping => {}
            _ = is_fenced.wait_for(Option::is_some) => {
                tracing::error!("a proxy has a configuration of a later leader: this one is over");
            }
        }
    })
    .run(guarded, failed, context);
    controller
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!("{error}");
            }
        })
        .await;
    sweeping.abort();
    let later = *later.borrow();
    Ok(later)
}

/// A defect that one cluster brings to light is that cluster's trouble, and stops nobody else's.
async fn guarded(cluster: Arc<PgDogCluster>, cx: Arc<Context>) -> Result<Action, ApplyError> {
    let what = format!("PgDogCluster/{}", cluster.name_any());
    let reconciled = AssertUnwindSafe(reconcile(cluster, cx))
        .catch_unwind()
        .await;
    reconciled.unwrap_or(Err(ApplyError::Defect { what }))
}

#[expect(clippy::needless_pass_by_value, reason = "what the controller calls")]
fn failed(cluster: Arc<PgDogCluster>, error: &ApplyError, cx: Arc<Context>) -> Action {
    cx.metrics.errors.inc();
    tracing::warn!(
        namespace = cluster.namespace(),
        cluster = cluster.name_any(),
        "failed to reconcile: {error}"
    );
    Action::requeue(Duration::from_secs(5))
}
