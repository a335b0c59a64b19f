//! Watches, and what they keep of what they see: no more than is read.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource, ResourceExt};
use pgdog_operator_api::{PgDogCluster, labels};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::apply::MANAGER;
use crate::metrics::Metrics;
use crate::render::pod::CONTAINER;

/// How often the API server is asked whether it is there, and clusters are looked through for those that are gone.
pub const LOOK: Duration = Duration::from_secs(60);

/// How long a watch lives, seconds. One whose connection is dead without a word is told from one of a quiet kind by this, and
/// begun again 5 s later.
const WATCH: u32 = 60;

/// Secrets that are nobody's login, and large or many.
const OTHER_SECRETS: &str = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,\
    type!=kubernetes.io/dockerconfigjson,type!=kubernetes.io/dockercfg,type!=bootstrap.kubernetes.io/token";

/// What stands in a Secret and is longer is nobody's password.
const LONGEST: usize = 64 * 1024;

/// Namespaces in which something changed. A replica that does not lead collects them, each once.
#[derive(Debug, Default)]
pub struct Changed {
    namespaces: Mutex<BTreeSet<String>>,
    more: Notify,
}

impl Changed {
    /// Something changed in a namespace.
    pub fn tell(&self, namespace: String) {
        let mut namespaces = self
            .namespaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        namespaces.insert(namespace);
        self.more.notify_one();
    }

    /// The namespaces, each when something has changed in it. Never ends.
    pub fn stream(self: Arc<Self>) -> impl Stream<Item = String> + Send + 'static {
        futures::stream::unfold(self, |changed| async {
            loop {
                let next = {
                    let mut namespaces = changed
                        .namespaces
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    namespaces.pop_first()
                };
                match next {
                    Some(namespace) => return Some((namespace, changed)),
                    None => changed.more.notified().await,
                }
            }
        })
    }
}

/// The namespace and the name of a resource.
type Key = (String, String);

/// Resources that cannot be read, as another version of the operator stored them, by namespace and name.
#[derive(Debug, Default)]
pub struct Unreadable(Mutex<BTreeMap<Key, (ObjectMeta, String)>>);

impl Unreadable {
    /// What they are and why.
    #[must_use]
    pub fn all(&self) -> Vec<(ObjectMeta, String)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().cloned().collect()
    }

    /// Those of a namespace, or of all.
    fn within(&self, namespace: Option<&str>) -> BTreeSet<Key> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = all.keys();
        keys.filter(|key| namespace.is_none_or(|namespace| key.0 == namespace))
            .cloned()
            .collect()
    }

    fn remove(&self, gone: &BTreeSet<Key>, metrics: &Metrics) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|key, _| !gone.contains(key));
        metrics.unreadable(all.len());
    }

    fn set(&self, of: &ObjectMeta, error: Option<String>, metrics: &Metrics) {
        let key = key(of);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match error {
            Some(error) => {
                if all
                    .insert(key.clone(), (of.clone(), error.clone()))
                    .is_none()
                {
                    let (namespace, name) = key;
                    tracing::warn!(
                        namespace,
                        name,
                        "a PgDogCluster that cannot be read: {error}"
                    );
                }
            }
            None => {
                all.remove(&key);
            }
        }
        metrics.unreadable(all.len());
    }
}

fn key(of: &ObjectMeta) -> Key {
    (
        of.namespace.clone().unwrap_or_default(),
        of.name.clone().unwrap_or_default(),
    )
}

/// What watches need.
#[derive(Clone)]
pub struct Around {
    /// The API server.
    pub client: Client,
    /// The namespaces that are watched; all of them where none is named.
    pub namespaces: Vec<String>,
    /// Told what changes.
    pub changed: Arc<Changed>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Around {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Around({:?})", self.namespaces)
    }
}

impl Around {
    /// The objects of one kind, in each of the namespaces or everywhere.
    fn apis<K>(&self) -> Vec<Api<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        let client = || self.client.clone();
        if self.namespaces.is_empty() {
            return vec![Api::all(client())];
        }
        let namespaces = self.namespaces.iter();
        namespaces
            .map(|namespace| Api::namespaced(client(), namespace))
            .collect()
    }

    /// Watches one kind of objects, and keeps what `shrink` leaves of them.
    pub fn keep<K>(&self, shrink: fn(&mut K)) -> Store<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let mut config = watcher::Config::default().timeout(WATCH);
        match &*K::kind(&()) {
            "Secret" => config = config.fields(OTHER_SECRETS),
            "Deployment" => config = config.labels(&format!("{}={MANAGER}", labels::MANAGED_BY)),
            _ => {}
        }
        let streams = self.apis::<K>().into_iter().map(|api| {
            tokio::spawn(look(api.clone(), self.metrics.clone()));
            let events = watch(api, config.clone()).default_backoff();
            events
                .modify(move |object| {
                    object.managed_fields_mut().clear();
                    shrink(object);
                })
                .boxed()
        });
        self.reflect(streams.collect())
    }

    /// Watches the clusters. One that cannot be read blinds nobody for the others: the last that could be read of it counts.
    pub fn keep_clusters(&self, unreadable: &Arc<Unreadable>) -> Store<PgDogCluster> {
        let streams = self.apis::<DeserializeGuard<PgDogCluster>>().into_iter();
        let streams = streams.map(|api| {
            tokio::spawn(look(api.clone(), self.metrics.clone()));
            let mut reading = Reading {
                namespace: api.namespace().map(ToOwned::to_owned),
                unseen: BTreeSet::new(),
                unreadable: unreadable.clone(),
                metrics: self.metrics.clone(),
            };
            let events = watch(api, watcher::Config::default().timeout(WATCH)).default_backoff();
            events
                .modify(|object| object.managed_fields_mut().clear())
                .filter_map(move |event| {
                    let readable = match event {
                        Ok(event) => reading.next(event).map(Ok),
                        Err(error) => Some(Err(error)),
                    };
                    std::future::ready(readable)
                })
                .boxed()
        });
        self.reflect(streams.collect())
    }

    fn reflect<K>(&self, streams: Vec<Events<K>>) -> Store<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + Send
            + Sync
            + 'static,
    {
        let (store, writer) = reflector::store();
        let events = merged(streams, self.namespaces.clone(), store.clone())
            .reflect(writer)
            .touched_objects();
        let (changed, metrics) = (self.changed.clone(), self.metrics.clone());
        let watching = async move {
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                match event {
                    Ok(object) => {
                        metrics.heard(&K::kind(&()));
                        changed.tell(object.namespace().unwrap_or_default());
                    }
                    Err(error) => tracing::warn!("watch of {}: {error}", K::plural(&())),
                }
            }
        };
        tokio::spawn(async move {
            // It never ends. Without it the operator would go on with what it saw last.
            let ended = AssertUnwindSafe(watching).catch_unwind().await;
            tracing::error!(
                panicked = ended.is_err(),
                "the watch of {} has ended: so does the operator",
                K::plural(&())
            );
            std::process::exit(1);
        });
        store
    }
}

type Events<K> = BoxStream<'static, Result<Event<K>, watcher::Error>>;

/// One watch of resources of which some cannot be read.
struct Reading {
    /// Its namespace, where it is not all.
    namespace: Option<String>,
    /// What could not be read before the watch began anew, and was not seen since: it was deleted meanwhile.
    unseen: BTreeSet<Key>,
    unreadable: Arc<Unreadable>,
    metrics: Arc<Metrics>,
}

impl Reading {
    /// The event without its guard; none of an object that cannot be read.
    fn next<K: Resource>(&mut self, event: Event<DeserializeGuard<K>>) -> Option<Event<K>> {
        match event {
            Event::Init => {
                self.unseen = self.unreadable.within(self.namespace.as_deref());
                Some(Event::Init)
            }
            Event::InitDone => {
                let gone = std::mem::take(&mut self.unseen);
                self.unreadable.remove(&gone, &self.metrics);
                Some(Event::InitDone)
            }
            Event::Apply(guard) => self.open(guard).map(Event::Apply),
            Event::InitApply(guard) => self.open(guard).map(Event::InitApply),
            Event::Delete(guard) => {
                self.tell(guard.meta(), None);
                guard.0.ok().map(Event::Delete)
            }
        }
    }

    fn open<K: Resource>(&mut self, guard: DeserializeGuard<K>) -> Option<K> {
        match guard.0 {
            Ok(object) => {
                self.tell(object.meta(), None);
                Some(object)
            }
            Err(invalid) => {
                self.tell(&invalid.metadata, Some(invalid.error));
                None
            }
        }
    }

    fn tell(&mut self, of: &ObjectMeta, error: Option<String>) {
        self.unseen.remove(&key(of));
        self.unreadable.set(of, error, &self.metrics);
    }
}

/// Several watches of one kind, each of a namespace of its own, as one.
fn merged<K>(mut streams: Vec<Events<K>>, namespaces: Vec<String>, store: Store<K>) -> Events<K>
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    if streams.len() == 1
        && let Some(only) = streams.pop()
    {
        return only;
    }
    let mut merging = Merging::new(namespaces);
    let numbered = streams
        .into_iter()
        .enumerate()
        .map(|(number, events)| events.map(move |event| (number, event)).boxed());
    futures::stream::select_all(numbered)
        .flat_map(move |(number, event)| {
            let events = match event {
                Ok(event) => merging.next(number, event, || store.state()),
                Err(error) => return futures::stream::iter(vec![Err(error)]),
            };
            futures::stream::iter(events.into_iter().map(Ok).collect::<Vec<_>>())
        })
        .boxed()
}

/// How several watches become one: what is there at the beginning is told when all have seen it, for a store is replaced as a
/// whole. When one of them begins anew, the others' objects stay.
struct Merging<K> {
    /// The namespace of each.
    namespaces: Vec<String>,
    /// What each has seen of what is there, until it has seen everything.
    seen: Vec<Vec<K>>,
    /// Which have seen everything at least once.
    complete: Vec<bool>,
}

impl<K: Resource + Clone> Merging<K> {
    fn new(namespaces: Vec<String>) -> Self {
        Self {
            seen: namespaces.iter().map(|_| Vec::new()).collect(),
            complete: vec![false; namespaces.len()],
            namespaces,
        }
    }

    fn next(
        &mut self,
        number: usize,
        event: Event<K>,
        there: impl FnOnce() -> Vec<Arc<K>>,
    ) -> Vec<Event<K>> {
        let begun = self.complete.iter().all(|complete| *complete);
        let seen = &mut self.seen[number];
        match event {
            Event::Init => seen.clear(),
            Event::InitApply(object) => seen.push(object),
            Event::Apply(_) | Event::Delete(_) if begun => return vec![event],
            Event::Apply(object) => {
                seen.retain(|one| one.meta().name != object.meta().name);
                seen.push(object);
            }
            Event::Delete(object) => seen.retain(|one| one.meta().name != object.meta().name),
            Event::InitDone => {
                self.complete[number] = true;
                if !self.complete.iter().all(|complete| *complete) {
                    return Vec::new();
                }
                let own = Some(&self.namespaces[number]);
                let others = match begun {
                    true => there(),
                    false => Vec::new(),
                };
                let others = others
                    .into_iter()
                    .filter(|one| one.meta().namespace.as_ref() != own)
                    .map(Arc::unwrap_or_clone);
                let latest = self.seen.iter_mut().flat_map(std::mem::take);
                let all = others.chain(latest).map(Event::InitApply);
                return [Event::Init]
                    .into_iter()
                    .chain(all)
                    .chain([Event::InitDone])
                    .collect();
            }
        }
        Vec::new()
    }
}

/// Asks now and then whether the API server still answers: where nothing changes, a watch says nothing either.
async fn look<K>(api: Api<K>, metrics: Arc<Metrics>)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
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

/// Annotations that are not ours say nothing to us, and may be long.
fn without_annotations(object: &mut ObjectMeta) {
    if let Some(annotations) = &mut object.annotations {
        annotations.retain(|key, _| key.starts_with("pgdog.dev/"));
    }
}

/// What is read of any object.
pub fn slim<K: Resource>(object: &mut K) {
    without_annotations(object.meta_mut());
}

/// What is read of a pod: where it is and how it is, and which images it runs. What stands in its environment is none of our
/// business.
pub fn slim_pod(pod: &mut Pod) {
    slim(pod);
    let slim = |container: Container| {
        // Of a proxy it is known by these which files it has.
        let mounts = container
            .volume_mounts
            .filter(|_| container.name == CONTAINER);
        Container {
            name: container.name,
            image: container.image,
            restart_policy: container.restart_policy,
            volume_mounts: mounts,
            ..Container::default()
        }
    };
    if let Some(spec) = pod.spec.take() {
        let init = spec.init_containers;
        pod.spec = Some(PodSpec {
            containers: spec.containers.into_iter().map(slim).collect(),
            init_containers: init.map(|init| init.into_iter().map(slim).collect()),
            node_name: spec.node_name,
            ..PodSpec::default()
        });
    }
    if let Some(status) = pod.status.take() {
        let conditions = status.conditions.map(|all| {
            let kept = ["Ready", "PodScheduled"];
            let kept = all.into_iter().filter(|c| kept.contains(&&*c.type_));
            kept.collect()
        });
        pod.status = Some(PodStatus {
            phase: status.phase,
            pod_ip: status.pod_ip,
            pod_ips: status.pod_ips,
            conditions,
            container_statuses: status.container_statuses,
            init_container_statuses: status.init_container_statuses,
            ..PodStatus::default()
        });
    }
}

/// What is read of a Deployment: that it is there, whether somebody has changed it, and how far its rollout is.
pub fn slim_deployment(deployment: &mut Deployment) {
    slim(deployment);
    deployment.spec = None;
    deployment.status = deployment.status.take().map(|status| DeploymentStatus {
        observed_generation: status.observed_generation,
        updated_replicas: status.updated_replicas,
        ..DeploymentStatus::default()
    });
}

/// What is read of a Secret: no keys of certificates, which nobody but their owners should have, and nothing that is too long to
/// be a login. Of many certificates the first are enough. Our own we keep whole: they are what a former leader knew.
pub fn slim_secret(secret: &mut Secret) {
    slim(secret);
    let ours = secret.labels().get(labels::MANAGED_BY).map(String::as_str) == Some(MANAGER);
    if let Some(data) = &mut secret.data {
        data.retain(|key, value| {
            if ["tls.crt", "ca.crt"].contains(&key.as_str()) && !ours {
                value.0.truncate(LONGEST);
            }
            !["tls.key", "ca.key"].contains(&key.as_str()) && (ours || value.0.len() <= LONGEST)
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn secret(namespace: &str, name: &str) -> Secret {
        serde_json::from_value(json!({"metadata": {"namespace": namespace, "name": name}})).unwrap()
    }

    #[tokio::test]
    async fn several_namespaces_are_one_store_that_is_ready_when_all_have_been_seen() {
        let (store, mut writer) = reflector::store::<Secret>();
        let mut merging = Merging::new(vec!["a".to_owned(), "b".to_owned()]);
        let mut next = |number, event| {
            for event in merging.next(number, event, || store.state()) {
                writer.apply_watcher_event(&event);
            }
            let mut names: Vec<_> = store.state().iter().map(|one| one.name_any()).collect();
            names.sort();
            names
        };
        assert!(next(0, Event::Init).is_empty());
        assert!(next(0, Event::InitApply(secret("a", "one"))).is_empty());
        assert!(next(0, Event::InitDone).is_empty());
        // The first changes while the second is still looking.
        assert!(next(0, Event::Apply(secret("a", "two"))).is_empty());
        assert!(next(0, Event::Delete(secret("a", "one"))).is_empty());
        assert!(next(1, Event::Init).is_empty());
        assert!(next(1, Event::InitApply(secret("b", "three"))).is_empty());
        assert_eq!(next(1, Event::InitDone), ["three", "two"]);
        assert_eq!(next(1, Event::Delete(secret("b", "three"))), ["two"]);
        assert_eq!(next(1, Event::Apply(secret("b", "four"))), ["four", "two"]);
        // The watch of the first breaks off: meanwhile `two` went and `five` came.
        assert_eq!(next(0, Event::Init), ["four", "two"]);
        next(0, Event::InitApply(secret("a", "five")));
        assert_eq!(next(0, Event::InitDone), ["five", "four"]);
    }

    fn reading(namespace: Option<&str>, unreadable: &Arc<Unreadable>) -> Reading {
        Reading {
            namespace: namespace.map(ToOwned::to_owned),
            unseen: BTreeSet::new(),
            unreadable: unreadable.clone(),
            metrics: Arc::new(Metrics::new().unwrap()),
        }
    }

    fn guarded(namespace: &str, name: &str, spec: &Value) -> DeserializeGuard<PgDogCluster> {
        let metadata = json!({"namespace": namespace, "name": name});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn odd(namespace: &str, name: &str) -> DeserializeGuard<PgDogCluster> {
        guarded(namespace, name, &json!({"mode": "Aquarium"}))
    }

    #[test]
    fn a_cluster_that_cannot_be_read_hides_no_other() {
        let good = |name| guarded("demo", name, &json!({"databases": []}));
        let unreadable = Arc::<Unreadable>::default();
        let mut reading = reading(None, &unreadable);
        assert!(reading.next(Event::Apply(odd("demo", "odd"))).is_none());
        assert!(reading.next(Event::Apply(good("good"))).is_some());
        let (object, error) = unreadable.all().remove(0);
        assert_eq!(object.name.as_deref(), Some("odd"));
        assert!(error.contains("Aquarium"), "{error}");
        assert!(reading.next(Event::Apply(good("odd"))).is_some());
        assert!(unreadable.all().is_empty());
    }

    #[test]
    fn a_cluster_that_goes_while_its_watch_is_down_is_not_told_any_more() {
        let unreadable = Arc::<Unreadable>::default();
        let names = || -> Vec<_> {
            let all = unreadable.all().into_iter();
            all.map(|(object, _)| object.name.unwrap()).collect()
        };
        let (mut a, mut b) = (
            reading(Some("a"), &unreadable),
            reading(Some("b"), &unreadable),
        );
        a.next::<PgDogCluster>(Event::Init);
        a.next(Event::InitApply(odd("a", "gone")));
        a.next(Event::InitApply(odd("a", "stays")));
        a.next::<PgDogCluster>(Event::InitDone);
        b.next(Event::Apply(odd("b", "other")));
        // It begins anew, and breaks off.
        a.next::<PgDogCluster>(Event::Init);
        a.next(Event::InitApply(odd("a", "gone")));
        a.next::<PgDogCluster>(Event::Init);
        a.next(Event::InitApply(odd("a", "stays")));
        assert_eq!(names(), ["gone", "stays", "other"]);
        a.next::<PgDogCluster>(Event::InitDone);
        assert_eq!(names(), ["stays", "other"]);
    }

    #[tokio::test]
    async fn a_replica_that_only_waits_collects_each_namespace_once() {
        let changed = Arc::new(Changed::default());
        for namespace in ["a", "b", "a", "a"] {
            changed.tell(namespace.to_owned());
        }
        let told: Vec<_> = changed.stream().take(2).collect().await;
        assert_eq!(told, ["a", "b"]);
    }

    #[test]
    fn of_pods_and_secrets_only_what_is_read_is_kept() {
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "labels": {"a": "b"}, "annotations": {"pgdog.dev/pod-hash": "1", "x": "y"}},
            "spec": {"containers": [
                {"name": "pgdog", "image": "i", "env": [{"name": "PASSWORD", "value": "secret"}], "volumeMounts": [{"name": "v", "mountPath": "/v"}]},
                {"name": "other", "image": "j", "volumeMounts": [{"name": "w", "mountPath": "/w"}]},
            ]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [
                {"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"},
                {"type": "PodScheduled", "status": "True"},
            ]},
        }))
        .unwrap();
        slim_pod(&mut pod);
        assert_eq!(
            serde_json::to_value(&pod).unwrap(),
            json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "p", "labels": {"a": "b"}, "annotations": {"pgdog.dev/pod-hash": "1"}},
                "spec": {"containers": [
                    {"name": "pgdog", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]},
                    {"name": "other", "image": "j"},
                ]},
                "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [
                    {"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"},
                ]},
            })
        );
        let mut secret = secret("a", "login");
        let text = |length: usize| k8s_openapi::ByteString(vec![b'x'; length]);
        secret.data = Some(BTreeMap::from([
            ("password".to_owned(), text(20)),
            ("tls.key".to_owned(), text(20)),
            ("dump.sql".to_owned(), text(LONGEST + 1)),
            ("ca.crt".to_owned(), text(LONGEST + 1)),
        ]));
        slim_secret(&mut secret);
        let kept = secret.data.unwrap().into_iter();
        assert_eq!(
            kept.map(|(key, value)| (key, value.0.len()))
                .collect::<Vec<_>>(),
            [("ca.crt".to_owned(), LONGEST), ("password".to_owned(), 20)]
        );
    }

    #[test]
    fn a_proxy_is_known_by_what_is_kept_of_its_pod() {
        let cluster: PgDogCluster = serde_json::from_value(json!({
            "apiVersion": "pgdog.dev/v1alpha1",
            "kind": "PgDogCluster",
            "metadata": {"name": "shop", "uid": "u"},
            "spec": {"databases": []},
        }))
        .unwrap();
        let container = crate::render::pod::container(&cluster, "image");
        let mut pod = Pod {
            spec: Some(PodSpec {
                containers: vec![container],
                ..PodSpec::default()
            }),
            ..Pod::default()
        };
        slim_pod(&mut pod);
        assert!(!crate::observe::lacks_files(&cluster, &pod));
        assert!(crate::observe::is_updated(&pod, None, "image"));
    }
}
