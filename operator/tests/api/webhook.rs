//! The webhook, asked by a real API server.

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use pgdog_operator::authority::{Authority, Purpose};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::harness::operator::Operator;
use crate::harness::stage::{Stage, complete, until};
use crate::operator;
use crate::scratch::free_port;

const SERVICE: &str = "hook";
const SECRET: &str = "pgdog-operator-webhook-tls";

/// A webhook of one namespace, and what the API server knows of it.
struct Hook {
    stage: Stage,
    port: u16,
}

impl Hook {
    async fn open(name: &str) -> Option<Self> {
        let hook = Self {
            stage: Stage::open(name).await?,
            port: free_port(),
        };
        hook.define().await;
        Some(hook)
    }

    /// The configuration and the right to write its authority carry the name of the namespace.
    fn name(&self) -> &str {
        &self.stage.namespace
    }

    async fn everywhere<K>(&self, object: Value)
    where
        K: kube::Resource<DynamicType = ()>
            + Serialize
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let api: Api<K> = Api::all(self.stage.client.clone());
        let object: K = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap();
    }

    async fn define(&self) {
        let (stage, name) = (&self.stage, self.name());
        // There are no addresses of Services here: its name is that of this machine.
        stage
            .create::<Service>(json!({
                "metadata": {"name": SERVICE}, "spec": {"type": "ExternalName", "externalName": "localhost"},
            }))
            .await;
        self.everywhere::<MutatingWebhookConfiguration>(json!({
            "metadata": {"name": name},
            "webhooks": [{
                "name": "inject.pgdog.dev",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "clientConfig": {"service": {"name": SERVICE, "namespace": stage.namespace, "path": "/inject", "port": self.port}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "objectSelector": {"matchExpressions": [{"key": "pgdog.dev/inject", "operator": "Exists"}]},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": stage.namespace}},
            }],
        }))
        .await;
        self.everywhere::<ClusterRole>(json!({
            "metadata": {"name": name},
            "rules": [{
                "apiGroups": ["admissionregistration.k8s.io"], "resources": ["mutatingwebhookconfigurations"],
                "resourceNames": [name], "verbs": ["get", "patch"],
            }],
        }))
        .await;
        self.everywhere::<ClusterRoleBinding>(json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "pgdog-operator", "namespace": stage.namespace}],
        }))
        .await;
    }

    /// An operator that answers; `more` says whose its certificate is.
    async fn operator(&self, more: &[&str]) -> Operator {
        let mut options = vec![
            format!("--webhook-port={}", self.port),
            format!("--webhook-configuration={}", self.name()),
        ];
        options.extend(more.iter().map(|&option| option.to_owned()));
        Operator::start_with(operator(), &self.stage, "only", &options).await
    }

    async fn pod(&self, name: &str, label: Option<&str>) -> kube::Result<Pod> {
        let labels = label.map(|cluster| json!({"pgdog.dev/inject": cluster}));
        let pod = json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"containers": [{"name": "app", "image": "app:1"}]},
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.stage.api().create(&PostParams::default(), &pod).await
    }

    /// Waits until a labelled pod is let in, and returns it.
    async fn injected(&self, name: &str) -> Pod {
        until("a labelled pod is let in", || async {
            self.pod(name, Some("shop")).await.ok()
        })
        .await
    }

    async fn authority(&self) -> Option<String> {
        let api: Api<MutatingWebhookConfiguration> = Api::all(self.stage.client.clone());
        let configuration = api.get(self.name()).await.unwrap();
        let bundle = configuration.webhooks?.pop()?.client_config.ca_bundle?;
        String::from_utf8(bundle.0).ok()
    }
}

fn proxy(pod: &Pod) -> Option<&str> {
    let first = pod.spec.as_ref()?.init_containers.as_ref()?.first()?;
    (first.name == "pgdog" && first.restart_policy.as_deref() == Some("Always"))
        .then_some(first.image.as_deref()?)
}

fn message(refused: kube::Result<Pod>) -> String {
    refused.expect_err("it is refused").to_string()
}

#[tokio::test]
async fn labelled_pods_get_their_proxy_by_the_operators_certificate_and_are_refused_without_an_operator()
 {
    let Some(hook) = Hook::open("webhook").await else {
        return;
    };
    assert!(
        message(hook.pod("early", Some("shop")).await).contains("failed calling webhook"),
        "nobody answers"
    );
    let mut operator = hook
        .operator(&[&format!("--webhook-service={SERVICE}")])
        .await;
    hook.stage.login("login", "secret").await;
    hook.stage
        .try_make("shop", &complete(json!({"mode": "Sidecar"})))
        .await
        .unwrap();
    hook.stage.make("fleet", json!({})).await;
    let pod = hook.injected("web").await;
    assert_eq!(proxy(&pod), Some(crate::harness::operator::IMAGE));
    let variables = pod.spec.as_ref().unwrap().containers[0].env.as_ref();
    let variables: Vec<_> = variables.unwrap().iter().map(|one| &*one.name).collect();
    assert!(variables.contains(&"PGHOST"), "{variables:?}");
    // Nobody is asked about pods without the label.
    let plain = hook.pod("plain", None).await.unwrap();
    assert_eq!(plain.spec.unwrap().init_containers, None);
    let told = message(hook.pod("lost", Some("nobody")).await);
    assert!(
        told.contains(&format!("there is no PgDogCluster {}/nobody", hook.name())),
        "{told}"
    );
    let told = message(hook.pod("other", Some("fleet")).await);
    assert!(told.contains("mode Deployment"), "{told}");

    // The image that the cluster names is what its sidecars get, and what the operator expects of them.
    let image = json!({"repository": "mine", "tag": "3"});
    hook.stage
        .try_make("own", &complete(json!({"mode": "Sidecar", "image": image})))
        .await
        .unwrap();
    let pod = hook.pod("own-web", Some("own")).await.unwrap();
    assert_eq!(proxy(&pod), Some("mine:3"));
    let counted = hook
        .stage
        .status_when("own", "its sidecar is counted", |status| {
            status
                .sidecars
                .as_ref()
                .is_some_and(|all| all.injected == 1)
        })
        .await;
    assert_eq!(counted.sidecars.unwrap().outdated, 0);

    // A certificate that goes is made again; the API server believes it as before.
    let secrets = hook.stage.api::<Secret>();
    secrets
        .delete(SECRET, &DeleteParams::default())
        .await
        .unwrap();
    hook.stage.there::<Secret>(SECRET).await;
    hook.injected("again").await;

    // So does its authority, with what it was: proxies trust no other.
    let before: Secret = hook.stage.there("pgdog-operator-ca").await;
    secrets
        .delete("pgdog-operator-ca", &DeleteParams::default())
        .await
        .unwrap();
    let after: Secret = hook.stage.there("pgdog-operator-ca").await;
    assert_ne!(after.metadata.uid, before.metadata.uid);
    assert!(after.data == before.data, "it is another authority");
    assert!(!operator.log().contains("there is another authority"));

    operator.kill();
    assert!(message(hook.pod("late", Some("shop")).await).contains("failed calling webhook"));
    hook.pod("free", None).await.unwrap();
}

#[tokio::test]
async fn somebody_elses_certificate_is_believed_by_the_authority_beside_it() {
    let Some(hook) = Hook::open("own-certificate").await else {
        return;
    };
    let name = format!("{SERVICE}.{}.svc", hook.name());
    let write = async |pair: &pgdog_operator::authority::Pair, authority: Option<&str>| {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": authority},
        });
        hook.stage
            .api::<Secret>()
            .patch(
                SECRET,
                &PatchParams::apply("tests").force(),
                &Patch::Apply(&secret),
            )
            .await
            .unwrap();
    };
    let first = Authority::generate().unwrap();
    let of_first = Authority::of(&first).unwrap();
    let pair = of_first
        .issue(&name, std::slice::from_ref(&name), Purpose::Server)
        .unwrap();
    write(&pair, None).await;
    let operator = hook.operator(&[]).await;
    hook.stage.login("login", "secret").await;
    hook.stage
        .try_make("shop", &complete(json!({"mode": "Sidecar"})))
        .await
        .unwrap();
    until("it says what is missing", || async {
        let log = operator.log();
        log.contains("has no certificate under ca.crt")
            .then_some(())
    })
    .await;
    assert_eq!(hook.authority().await, None);
    write(&pair, Some(&first.certificate)).await;
    hook.injected("web").await;
    assert_eq!(hook.authority().await, Some(first.certificate));

    // Another authority, without a word to anybody else.
    let second = Authority::generate().unwrap();
    let of_second = Authority::of(&second).unwrap();
    let pair = of_second
        .issue(&name, std::slice::from_ref(&name), Purpose::Server)
        .unwrap();
    write(&pair, Some(&second.certificate)).await;
    until("the other authority is written", || async {
        (hook.authority().await.as_ref() == Some(&second.certificate)).then_some(())
    })
    .await;
    hook.injected("again").await;
}
