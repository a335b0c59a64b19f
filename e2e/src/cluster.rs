//! A namespace of one scenario, and what is done in it.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Secret, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use pgdog_operator_api::{ConditionStatus, ConditionType, PgDogCluster, PgDogClusterStatus};
use serde_json::{Value, json};

/// Time between two looks at a condition.
const LOOK: Duration = Duration::from_millis(200);

/// The namespace of one scenario.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) postgres_image: String,
}

impl Stage {
    /// A new namespace; one of a former run goes first.
    pub(crate) async fn open(
        client: &Client,
        name: &str,
        postgres_image: &str,
    ) -> anyhow::Result<Self> {
        let namespace = format!("e2e-{name}");
        let api: Api<Namespace> = Api::all(client.clone());
        if api.get_opt(&namespace).await?.is_some() {
            api.delete(&namespace, &DeleteParams::default()).await?;
            until(
                Duration::from_secs(90),
                "the former namespace is gone",
                || async { Ok(api.get_opt(&namespace).await?.is_none().then_some(())) },
            )
            .await?;
        }
        let object = serde_json::from_value(json!({"metadata": {
            "name": namespace,
            // The proxies' pods have to be let in by the strictest standard; Postgres's are not meant.
            "labels": {"pod-security.kubernetes.io/warn": "restricted"},
        }}))?;
        api.create(&PostParams::default(), &object).await?;
        Ok(Self {
            client: client.clone(),
            namespace,
            postgres_image: postgres_image.to_owned(),
        })
    }

    /// Takes the namespace away, and waits for nothing.
    pub(crate) async fn close(&self) {
        let api: Api<Namespace> = Api::all(self.client.clone());
        // It is the end of the scenario either way.
        let _ = api.delete(&self.namespace, &DeleteParams::default()).await;
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A Secret with a login.
    pub(crate) async fn login(&self, name: &str, user: &str, password: &str) -> anyhow::Result<()> {
        let secret: Secret = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": name},
            "stringData": {"username": user, "password": password},
        }))?;
        self.api::<Secret>()
            .patch(
                name,
                &PatchParams::apply("e2e").force(),
                &Patch::Apply(&secret),
            )
            .await?;
        Ok(())
    }

    /// A PgDogCluster with this spec, reached from outside of Kubernetes.
    pub(crate) async fn make(&self, name: &str, mut spec: Value) -> anyhow::Result<()> {
        let defaults = json!({
            "replicas": 2,
            "databases": [{"name": "app", "databaseName": "postgres"}],
            "users": [{"secretRef": {"name": "login"}}],
            "service": {"type": "NodePort"},
        });
        // Sidecars have neither a number nor a Service.
        let sidecar = spec["mode"] == "Sidecar";
        for (key, value) in defaults.as_object().into_iter().flatten() {
            let alien = sidecar && ["replicas", "service"].contains(&key.as_str());
            if spec.get(key).is_none() && !alien {
                spec[key] = value.clone();
            }
        }
        let cluster: PgDogCluster = serde_json::from_value(json!({
            "apiVersion": "pgdog.dev/v1alpha1", "kind": "PgDogCluster",
            "metadata": {"name": name}, "spec": spec,
        }))?;
        self.api().create(&PostParams::default(), &cluster).await?;
        Ok(())
    }

    /// Changes a PgDogCluster.
    pub(crate) async fn change(&self, name: &str, patch: Value) -> anyhow::Result<()> {
        self.api::<PgDogCluster>()
            .patch(
                name,
                &PatchParams::default(),
                &Patch::Merge(json!({"spec": patch})),
            )
            .await?;
        Ok(())
    }

    /// The status of a PgDogCluster.
    pub(crate) async fn status(&self, name: &str) -> anyhow::Result<PgDogClusterStatus> {
        let cluster = self.api::<PgDogCluster>().get(name).await?;
        Ok(cluster.status.unwrap_or_default())
    }

    /// Waits until a condition is so in the generation of now; returns its reason and message.
    pub(crate) async fn condition(
        &self,
        name: &str,
        kind: ConditionType,
        wanted: ConditionStatus,
        limit: Duration,
    ) -> anyhow::Result<(String, String)> {
        until(limit, &format!("{kind:?} is {wanted:?}"), || async {
            let cluster = self.api::<PgDogCluster>().get(name).await?;
            let generation = cluster.metadata.generation.unwrap_or_default();
            let conditions = cluster.status.unwrap_or_default().conditions;
            Ok(conditions
                .into_iter()
                .find(|c| {
                    c.kind == kind && c.status == wanted && c.observed_generation == generation
                })
                .map(|c| (c.reason, c.message)))
        })
        .await
    }

    /// Waits until all proxies are ready and have acknowledged.
    pub(crate) async fn settled(&self, name: &str, limit: Duration) -> anyhow::Result<()> {
        until(limit, "all proxies are ready and synced", || async {
            let cluster = self.api::<PgDogCluster>().get(name).await?;
            let wanted = cluster.spec.replicas.unwrap_or(2);
            let generation = cluster.metadata.generation;
            let status = cluster.status.unwrap_or_default();
            let synced = status.conditions.iter().any(|c| {
                c.kind == ConditionType::ConfigSynced && c.status == ConditionStatus::True
            });
            let all = [
                status.replicas,
                status.ready_replicas,
                status.updated_replicas,
            ];
            Ok(
                (synced && status.observed_generation == generation && all == [wanted; 3])
                    .then_some(()),
            )
        })
        .await
    }

    /// Where a Service of type NodePort is reached from here.
    pub(crate) async fn address(&self, service: &str) -> anyhow::Result<(String, u16)> {
        let nodes = Api::<Node>::all(self.client.clone())
            .list(&ListParams::default())
            .await?;
        let host = nodes
            .iter()
            .filter_map(|node| node.status.as_ref()?.addresses.as_ref())
            .flatten()
            .find(|address| address.type_ == "InternalIP")
            .map(|address| address.address.clone())
            .context("no node has an address")?;
        let service = self.api::<Service>().get(service).await?;
        let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
        let port = ports
            .first()
            .and_then(|port| port.node_port)
            .context("the Service has no NodePort")?;
        let address = (host, u16::try_from(port)?);
        // The nodes hear of a new Service a little later.
        until(
            Duration::from_secs(20),
            "the Service is reached",
            || async {
                let reached = tokio::net::TcpStream::connect((address.0.as_str(), address.1)).await;
                Ok(reached.ok().map(drop))
            },
        )
        .await?;
        Ok(address)
    }

    /// The pods of the proxies: name and uid, in order.
    pub(crate) async fn proxies(&self, name: &str) -> anyhow::Result<Vec<(String, String)>> {
        let of = ListParams::default().labels(&format!("pgdog.dev/cluster={name}"));
        let pods = self.api::<Pod>().list(&of).await?;
        let mut pods: Vec<_> = pods
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .map(|pod| (pod.name_any(), pod.uid().unwrap_or_default()))
            .collect();
        pods.sort();
        Ok(pods)
    }

    /// Runs kubectl in the namespace; returns what it prints.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = tokio::process::Command::new("kubectl")
            .arg("--namespace")
            .arg(&self.namespace)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .await
            .context("run kubectl")?;
        anyhow::ensure!(
            output.status.success(),
            "kubectl {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Prints everything worth reading about a failure.
    pub(crate) async fn collect(&self) {
        for args in [
            &[
                "get",
                "pgdogclusters,deployments,pods,services,endpointslices",
                "-o",
                "wide",
            ][..],
            &["get", "pgdogclusters", "-o", "yaml"],
            &["get", "events", "--sort-by=.lastTimestamp"],
            &[
                "logs",
                "-l",
                "app.kubernetes.io/name=pgdog",
                "--tail=60",
                "--prefix",
            ],
        ] {
            match self.kubectl(args).await {
                Ok(text) => println!("$ kubectl {}\n{text}", args.join(" ")),
                Err(error) => println!("$ kubectl {}\n{error:#}", args.join(" ")),
            }
        }
    }
}

/// Waits until something can be had; says what it waited for when that takes too long.
pub(crate) async fn until<T, F>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let end = tokio::time::Instant::now() + limit;
    loop {
        let last = match look().await {
            Ok(Some(had)) => return Ok(had),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if tokio::time::Instant::now() > end {
            return match last {
                Some(error) => Err(error.context(format!("not within {limit:?}: {what}"))),
                None => Err(anyhow::anyhow!("not within {limit:?}: {what}")),
            };
        }
        tokio::time::sleep(LOOK).await;
    }
}
