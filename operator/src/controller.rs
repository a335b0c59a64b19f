//! Watches, and calls [`reconcile`](crate::reconcile) for what changed.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::runtime::controller::{Action, Config};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{Controller, WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use pgdog_operator_api::PgDogCluster;
use tokio::sync::{mpsc, watch};

use crate::apply::{ApplyError, MANAGER};
use crate::args::Run;
use crate::authority::Authority;
use crate::context::{Context, Stores};
use crate::fleet::Fleet;
use crate::http::Identity;
use crate::leader::Term;
use crate::metrics::Metrics;
use crate::reconcile::reconcile;

/// Changes that come within this time are one.
const DEBOUNCE: Duration = Duration::from_millis(10);

/// How often the API server is asked whether it is there, and clusters are looked through for those that are gone.
const LOOK: Duration = Duration::from_secs(60);

/// The watches: every replica keeps them warm, so that a new leader knows at once what there is.
#[derive(Debug)]
pub struct Watches {
    /// What they have seen.
    pub stores: Stores,
    /// The clusters.
    pub clusters: Store<PgDogCluster>,
    /// Namespaces in which something changed.
    changed: mpsc::UnboundedReceiver<String>,
}

impl Watches {
    /// Starts them.
    #[must_use]
    pub fn start(client: &Client, namespace: Option<&str>, metrics: &Arc<Metrics>) -> Self {
        let (tell, changed) = mpsc::unbounded_channel();
        Self {
            stores: Stores {
                pods: keep::<Pod>(client, namespace, &tell, metrics),
                slices: keep::<EndpointSlice>(client, namespace, &tell, metrics),
                services: keep::<Service>(client, namespace, &tell, metrics),
                secrets: keep::<Secret>(client, namespace, &tell, metrics),
            },
            clusters: keep::<PgDogCluster>(client, namespace, &tell, metrics),
            changed,
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
        self.stores.secrets.wait_until_ready().await?;
        self.clusters.wait_until_ready().await?;
        Ok(())
    }
}

/// The objects of one kind, everywhere or in one namespace.
pub fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn keep<K>(
    client: &Client,
    namespace: Option<&str>,
    tell: &mpsc::UnboundedSender<String>,
    metrics: &Arc<Metrics>,
) -> Store<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = reflector::store();
    let mut config = watcher::Config::default();
    if K::kind(&()) == "Secret" {
        // They are large and many, and none of them is anybody's login.
        config = config.fields("type!=helm.sh/release.v1");
    }
    let events = watcher(api::<K>(client, namespace), config)
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .touched_objects();
    tokio::spawn(look(api::<K>(client, namespace), metrics.clone()));
    let (tell, metrics) = (tell.clone(), metrics.clone());
    tokio::spawn(async move {
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(object) => {
                    metrics.heard(&K::kind(&()));
                    // Nobody listens any more: the process is ending.
                    let _ = tell.send(object.namespace().unwrap_or_default());
                }
                Err(error) => tracing::warn!("watch of {}: {error}", K::plural(&())),
            }
        }
    });
    store
}

/// Asks now and then whether the API server still answers: where nothing changes, a watch says nothing either.
async fn look<K>(api: Api<K>, metrics: Arc<Metrics>)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let one = ListParams::default().limit(1);
    loop {
        if matches!(
            tokio::time::timeout(LOOK, api.list_metadata(&one)).await,
            Ok(Ok(_))
        ) {
            metrics.heard(&K::kind(&()));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Forgets clusters that are gone: of a deleted resource nothing else tells.
async fn sweep(clusters: Store<PgDogCluster>, cx: Arc<Context>) {
    let mut missing = BTreeSet::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let live: BTreeSet<_> = clusters.state().iter().filter_map(|c| c.uid()).collect();
        let gone: BTreeSet<_> = cx.known().difference(&live).cloned().collect();
        // Twice, for this watch may be behind the controller's.
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
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<Option<u64>> {
    let Leader {
        authority,
        identity,
        epoch,
        term,
        metrics,
    } = leader;
    let (tell, told) = mpsc::unbounded_channel();
    let (fenced, mut is_fenced) = watch::channel(None::<u64>);
    let later = is_fenced.clone();
    let reporter = Reporter {
        controller: MANAGER.to_owned(),
        instance: Some(run.identity()),
    };
    let context = Arc::new(Context {
        client: client.clone(),
        stores: watches.stores,
        fleet: Arc::new(Fleet::new(identity, tell, metrics.clone())),
        authority,
        epoch,
        term,
        default_image: run.proxy_image.clone(),
        memory: Mutex::new(HashMap::new()),
        recorder: Recorder::new(client.clone(), reporter),
        metrics,
        fenced,
    });
    let clusters = watches.clusters;
    let sweeping = tokio::spawn(sweep(clusters.clone(), context.clone()));
    let around = tokio_stream::wrappers::UnboundedReceiverStream::new(watches.changed)
        .map(move |namespace| {
            let of = clusters.state_filter(|c| c.namespace().as_deref() == Some(&namespace));
            futures::stream::iter(of.into_iter().map(|c| ObjectRef::from_obj(&*c)))
        })
        .flatten();
    let reports = tokio_stream::wrappers::UnboundedReceiverStream::new(told);
    let controller = Controller::new(
        api::<PgDogCluster>(&client, run.namespace.as_deref()),
        watcher::Config::default(),
    )
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
    .run(reconcile, failed, context);
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
