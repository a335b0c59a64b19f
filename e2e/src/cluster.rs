//! A namespace of one scenario, and what is done in it.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Secret, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use pgdog_operator_api::{ConditionStatus, ConditionType, PgDogCluster, PgDogClusterStatus};
use serde_json::{Value, json};

use crate::{Args, operator};

/// Time between two looks at a condition.
const LOOK: Duration = Duration::from_millis(200);
/// Time after which what is wrong is told, at most.
const DEGRADED: Duration = Duration::from_secs(60);
/// Longest time that one look may take.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// The namespace of one scenario.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) postgres_image: String,
    /// Another tag of the images.
    pub(crate) next_tag: String,
}

impl Stage {
    /// A new namespace; one of a former run goes first.
    pub(crate) async fn open(client: &Client, name: &str, args: &Args) -> anyhow::Result<Self> {
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
            postgres_image: args.postgres_image.clone(),
            next_tag: args.next_tag.clone(),
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

    /// Waits until it is degraded; what is told of it, for this reason and no other.
    pub(crate) async fn degraded(&self, name: &str, wanted: &str) -> anyhow::Result<String> {
        let (kind, so) = (ConditionType::Degraded, ConditionStatus::True);
        let (reason, message) = self.condition(name, kind, so, DEGRADED).await?;
        ensure!(reason == wanted, "Degraded is {reason}: {message}");
        Ok(message)
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

    /// Where the first port of a Service of type NodePort is reached from here.
    pub(crate) async fn address(&self, service: &str) -> anyhow::Result<(String, u16)> {
        let ports = self.node_ports(service).await?;
        let first = ports.into_iter().next();
        let address = first.context("the Service has no NodePort")?;
        // The nodes hear of a new Service a little later.
        until(
            Duration::from_secs(30),
            "the Service is reached",
            || async {
                let reached = tokio::net::TcpStream::connect((address.0.as_str(), address.1)).await;
                Ok(reached.ok().map(drop))
            },
        )
        .await?;
        Ok(address)
    }

    /// Where the ports of a Service of type NodePort are reached from here, in order.
    async fn node_ports(&self, service: &str) -> anyhow::Result<Vec<(String, u16)>> {
        let nodes = Api::<Node>::all(self.client.clone())
            .list(&ListParams::default())
            .await?;
        // The first is the control plane, which scenarios never take away.
        let host = nodes
            .iter()
            .filter_map(|node| node.status.as_ref()?.addresses.as_ref())
            .flatten()
            .find(|address| address.type_ == "InternalIP")
            .map(|address| address.address.clone())
            .context("no node has an address")?;
        let service = self.api::<Service>().get(service).await?;
        let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
        let ports = ports.iter().filter_map(|port| port.node_port);
        Ok(ports
            .filter_map(|port| Some((host.clone(), u16::try_from(port).ok()?)))
            .collect())
    }

    /// A way in to each proxy alone.
    pub(crate) async fn doors(&self, cluster: &str) -> anyhow::Result<Vec<Door>> {
        let mut doors = Vec::new();
        for (pod, _) in self.proxies(cluster).await? {
            doors.push(self.door(&pod).await?);
        }
        Ok(doors)
    }

    /// A way in to one pod of a proxy: a Service of its own.
    pub(crate) async fn door(&self, pod: &str) -> anyhow::Result<Door> {
        let name = format!("door-{}", pod.rsplit('-').next().unwrap_or_default());
        let label = json!({"metadata": {"labels": {"e2e/door": name}}});
        self.api::<Pod>()
            .patch(pod, &PatchParams::default(), &Patch::Merge(label))
            .await?;
        let port = |name: &str, port: u16| json!({"name": name, "port": port});
        let service: Service = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {
                "type": "NodePort", "selector": {"e2e/door": name}, "publishNotReadyAddresses": true,
                "ports": [port("postgres", 6432), port("admin", 6433)],
            },
        }))?;
        self.api::<Service>()
            .patch(
                &name,
                &PatchParams::apply("e2e").force(),
                &Patch::Apply(&service),
            )
            .await?;
        self.address(&name).await?;
        let [clients, admin] = self
            .node_ports(&name)
            .await?
            .try_into()
            .map_err(|_| anyhow::anyhow!("the Service {name} has not two ports"))?;
        Ok(Door {
            pod: pod.to_owned(),
            clients,
            admin,
        })
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
            .kill_on_drop(true)
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

    /// Events about a PgDogCluster with this reason.
    pub(crate) async fn events(&self, reason: &str) -> anyhow::Result<usize> {
        let told = self
            .kubectl(&[
                "get",
                "events.events.k8s.io",
                "-o",
                "jsonpath={.items[*].reason}",
            ])
            .await?;
        Ok(told.split_whitespace().filter(|one| *one == reason).count())
    }

    /// Prints everything worth reading about a failure.
    pub(crate) async fn collect(&self) {
        const OF_OPERATOR: &str = "app.kubernetes.io/name=pgdog-operator";
        let operator = |more: &'static [&'static str]| {
            let mut args = vec!["-n", operator::NAMESPACE];
            args.extend_from_slice(more);
            args
        };
        let asked = [
            vec![
                "get",
                "pgdogclusters,deployments,pods,services,endpointslices",
                "-o",
                "wide",
            ],
            vec!["get", "pgdogclusters", "-o", "yaml"],
            vec!["get", "events", "--sort-by=.lastTimestamp"],
            vec![
                "logs",
                "-l",
                "app.kubernetes.io/name=pgdog",
                "--tail=60",
                "--prefix",
            ],
            operator(&["get", "pods,leases", "-o", "wide"]),
            operator(&["logs", "-l", OF_OPERATOR, "--tail=80", "--prefix"]),
            operator(&[
                "logs",
                "-l",
                OF_OPERATOR,
                "--tail=20",
                "--prefix",
                "--previous",
            ]),
        ];
        for args in asked {
            match self.kubectl(&args).await {
                Ok(text) => println!("$ kubectl {}\n{text}", args.join(" ")),
                Err(error) => println!("$ kubectl {}\n{error:#}", args.join(" ")),
            }
        }
        let all = ListParams::default();
        let clusters = self.api::<PgDogCluster>().list(&all).await;
        for cluster in clusters.into_iter().flatten() {
            let name = cluster.name_any();
            let told = operator::statuses(self, &name);
            match tokio::time::timeout(Duration::from_secs(30), told).await {
                Ok(Ok(statuses)) => println!("/v1/status of each proxy:\n{statuses}"),
                Ok(Err(error)) => println!("/v1/status: {error:#}"),
                Err(_) => println!("/v1/status: no answer"),
            }
        }
    }
}

/// A way in to one proxy.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    /// Its pod.
    pub(crate) pod: String,
    /// Where clients connect to.
    pub(crate) clients: (String, u16),
    /// Its admin API.
    pub(crate) admin: (String, u16),
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
        let last = match tokio::time::timeout(LOOK_MAX, look()).await {
            Ok(Ok(Some(had))) => return Ok(had),
            Ok(Ok(None)) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(anyhow::anyhow!("a look took more than {LOOK_MAX:?}")),
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
