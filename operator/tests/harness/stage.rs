//! A namespace of one test, and what is done in it.

use pgdog_operator::render::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::discovery::ApiResource;
use kube::{Client, Resource};
use pgdog_operator_api::{
    Condition, ConditionStatus, ConditionType, PgDogCluster, PgDogClusterStatus,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::server::{Server, client};

/// Far more than anything takes, for machines that do other things too.
const LIMIT: Duration = Duration::from_secs(40);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(25);

/// The namespace of one test.
pub(crate) struct Stage {
    pub(crate) server: &'static Server,
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

impl Stage {
    /// A new namespace; `None` where there is no API server.
    pub(crate) async fn open(name: &str) -> Option<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let server = Server::shared()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let client =
            client(&server.kubeconfig(&format!("admin-{number}"), &["system:masters"])).await;
        let namespace = format!("{name}-{number}");
        let api: Api<Namespace> = Api::all(client.clone());
        let object = serde_json::from_value(json!({"metadata": {"name": namespace}}));
        api.create(&PostParams::default(), &object.expect("it is a Namespace"))
            .await
            .expect("a namespace can be made");
        Some(Self {
            server,
            client,
            namespace,
        })
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// PgDogClusters as they are written: our types would put defaults in.
    pub(crate) fn raw(&self) -> Api<DynamicObject> {
        let kind = ApiResource::erase::<PgDogCluster>(&());
        Api::namespaced_with(self.client.clone(), &self.namespace, &kind)
    }

    /// Makes an object of what is written.
    pub(crate) async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + Serialize
            + Clone
            + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object).expect("it is such an object");
        let made = self.api().create(&PostParams::default(), &object).await;
        made.unwrap_or_else(|error| panic!("{}: {error}", K::kind(&())))
    }

    /// Tries to make a PgDogCluster with exactly this spec.
    pub(crate) async fn try_make(&self, name: &str, spec: &Value) -> kube::Result<DynamicObject> {
        let object = serde_json::from_value(json!({
            "apiVersion": "pgdog.dev/v1alpha1", "kind": "PgDogCluster",
            "metadata": {"name": name}, "spec": spec,
        }));
        self.raw()
            .create(&PostParams::default(), &object.expect("it is an object"))
            .await
    }

    /// A PgDogCluster with what every one needs, where the spec does not say otherwise; its user's Secret is `login`.
    pub(crate) async fn make(&self, name: &str, spec: Value) {
        self.try_make(name, &complete(spec))
            .await
            .expect("the API server takes it");
    }

    /// A Secret with a login.
    pub(crate) async fn login(&self, name: &str, password: &str) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "stringData": {"username": "app", "password": password},
        });
        self.api::<Secret>()
            .patch(
                name,
                &PatchParams::apply("tests").force(),
                &Patch::Apply(&secret),
            )
            .await
            .expect("the API server takes a Secret");
    }

    /// Changes the spec of a PgDogCluster.
    pub(crate) async fn change(&self, name: &str, spec: Value) -> kube::Result<DynamicObject> {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.raw()
            .patch(name, &PatchParams::default(), &patch)
            .await
    }

    /// What the operator says of a PgDogCluster.
    pub(crate) async fn status(&self, name: &str) -> PgDogClusterStatus {
        let cluster = self
            .api::<PgDogCluster>()
            .get(name)
            .await
            .expect("it is there");
        cluster.status.unwrap_or_default()
    }

    /// Waits for a condition in the generation of now.
    pub(crate) async fn condition(
        &self,
        name: &str,
        kind: ConditionType,
        wanted: ConditionStatus,
    ) -> Condition {
        until(&format!("{kind:?} is {wanted:?}"), || async {
            let cluster = self.api::<PgDogCluster>().get(name).await.ok()?;
            let generation = cluster.metadata.generation?;
            let mut conditions = cluster.status?.conditions.into_iter();
            conditions.find(|c| {
                c.kind == kind && c.status == wanted && c.observed_generation == generation
            })
        })
        .await
    }

    /// Waits until the status is so.
    pub(crate) async fn status_when(
        &self,
        name: &str,
        what: &str,
        so: impl Fn(&PgDogClusterStatus) -> bool,
    ) -> PgDogClusterStatus {
        until(what, || async {
            let status = self.status(name).await;
            so(&status).then_some(status)
        })
        .await
    }

    /// Waits until an object is there.
    pub(crate) async fn there<K>(&self, name: &str) -> K
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let api = self.api::<K>();
        until(&format!("{} {name} is there", K::kind(&())), || async {
            api.get_opt(name).await.expect("the API server answers")
        })
        .await
    }

    /// A pod with these labels that runs and is ready at this address, as its kubelet would say.
    pub(crate) async fn pod(&self, name: &str, labels: &Value, address: &str) -> Pod {
        let pods = self.api::<Pod>();
        // As those of a Deployment have them: what a proxy cannot read it is not told to use.
        let mounts: Vec<_> = [
            process::SNAPSHOT_DIR,
            process::ADMIN_DIR,
            process::STATE_DIR,
            process::CLIENT_TLS_DIR,
        ]
        .into_iter()
        .map(|path| json!({"name": "files", "mountPath": path}))
        .collect();
        self.create::<Pod>(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "containers": [{"name": "pgdog", "image": super::operator::IMAGE, "volumeMounts": mounts}],
                "volumes": [{"name": "files", "emptyDir": {}}],
            },
        }))
        .await;
        let status = json!({"status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{
                "name": "pgdog", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
            }],
        }});
        let patched = pods
            .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await;
        patched.expect("the API server takes the status of a pod")
    }
}

/// The spec with what every PgDogCluster needs.
pub(crate) fn complete(mut spec: Value) -> Value {
    let defaults = json!({
        "source": {"provider": "Static", "hosts": [{"host": "db.example", "role": "primary"}]},
        "databases": [{"name": "app"}],
        "users": [{"secretRef": {"name": "login"}}],
    });
    for (key, value) in defaults.as_object().into_iter().flatten() {
        let sharded = key == "source" && spec.get("shards").is_some();
        if spec.get(key).is_none() && !sharded {
            spec[key] = value.clone();
        }
    }
    spec
}

/// Waits until something can be had; says what it waited for when that takes too long.
pub(crate) async fn until<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let end = tokio::time::Instant::now() + LIMIT;
    loop {
        if let Some(had) = look().await {
            return had;
        }
        assert!(
            tokio::time::Instant::now() < end,
            "not within {LIMIT:?}: {what}"
        );
        tokio::time::sleep(LOOK).await;
    }
}
