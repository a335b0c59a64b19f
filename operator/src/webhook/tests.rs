//! What the webhook says, and that it says it over TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use pgdog_operator_api::PgDogCluster;
use serde_json::{Value, json};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::certificate::Certificate;
use super::{Known, respond, start};
use crate::authority::{Authority, Purpose};
use crate::inject::DefaultImage;

fn cluster(mode: &str) -> PgDogCluster {
    serde_json::from_value(json!({
        "apiVersion": "pgdog.dev/v1alpha1",
        "kind": "PgDogCluster",
        "metadata": {"name": "shop", "namespace": "demo", "uid": "u-1"},
        "spec": {
            "mode": mode,
            "source": {"provider": "Static", "hosts": [{"host": "db.example"}]},
            "databases": [{"name": "app"}],
        },
    }))
    .unwrap()
}

fn default() -> DefaultImage {
    DefaultImage {
        name: "pgdog:1".to_owned(),
        upgrade: false,
    }
}

fn pod(labels: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "web-", "labels": labels},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
    })
}

fn asking() -> Value {
    pod(&json!({"pgdog.dev/inject": "shop"}))
}

/// A review as the API server sends it.
fn review(pod: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "r-1",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "demo",
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
            "object": pod,
            "oldObject": null,
            "dryRun": false,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
        },
    })
}

fn answer(pod: &Value, cluster: Result<Option<&PgDogCluster>, String>) -> AdmissionResponse {
    let review: AdmissionReview<DynamicObject> = serde_json::from_value(review(pod)).unwrap();
    let request: AdmissionRequest<DynamicObject> = review.try_into().unwrap();
    let read = serde_json::to_value(&request.object).unwrap();
    let answer = respond(&request, &read, cluster, &default());
    assert_eq!(answer.uid, "r-1");
    answer
}

fn patched(pod: &Value, answer: &AdmissionResponse) -> Value {
    let patch: json_patch::Patch = serde_json::from_slice(answer.patch.as_ref().unwrap()).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

#[test]
fn a_labelled_pod_gets_its_sidecar_and_nobody_else_one() {
    let sidecar = cluster("Sidecar");
    let answered = answer(&asking(), Ok(Some(&sidecar)));
    assert!(answered.allowed && answered.warnings.is_none());
    let with = patched(&asking(), &answered);
    assert_eq!(with["spec"]["initContainers"][0]["name"], "pgdog");
    assert_eq!(with["spec"]["initContainers"][0]["env"][0]["value"], "u-1");
    assert_eq!(with["spec"]["containers"][0]["env"][0]["name"], "PGHOST");
    assert_eq!(with["spec"]["initContainers"][0]["image"], "pgdog:1");
    let other = answer(&pod(&json!({"app": "web"})), Ok(None));
    assert!(other.allowed && other.patch.is_none());
    // The second question for the same pod, or a sidecar that stands in the manifest.
    let again = answer(&with, Ok(None));
    assert!(again.allowed && again.patch.is_none());
}

#[test]
fn a_cluster_that_has_no_sidecars_is_refused_with_the_way_out() {
    let deployment = cluster("Deployment");
    for (found, words) in [
        (
            Ok(None),
            "there is no PgDogCluster demo/shop: make it, with mode Sidecar",
        ),
        (
            Ok(Some(&deployment)),
            "PgDogCluster shop is of mode Deployment",
        ),
        (
            Err("no answer".to_owned()),
            "read PgDogCluster demo/shop: no answer",
        ),
    ] {
        let answer = answer(&asking(), found);
        assert!(!answer.allowed && answer.patch.is_none());
        assert!(
            answer.result.message.contains(words),
            "{}",
            answer.result.message
        );
    }
    let mut taken = asking();
    taken["spec"]["hostNetwork"] = true.into();
    let refused = answer(&taken, Ok(Some(&cluster("Sidecar"))));
    assert!(!refused.allowed && refused.result.message.contains("hostNetwork"));
}

#[test]
fn annotations_that_mean_nothing_are_told() {
    let mut pod = asking();
    pod["metadata"]["annotations"] = json!({"pgdog.dev/pool-size": "3"});
    let answer = answer(&pod, Ok(Some(&cluster("Sidecar"))));
    assert!(answer.allowed && answer.patch.is_some());
    let warnings = answer.warnings.unwrap();
    assert!(warnings[0].contains("pgdog.dev/pool-size"), "{warnings:?}");
}

const NAME: &str = "hook.pgdog-system.svc";

/// Asks over a new connection that believes one authority; returns what came back, and the certificate that was shown.
async fn ask(
    address: SocketAddr,
    authority: &Authority,
    body: &Value,
) -> std::io::Result<(String, Vec<u8>)> {
    let mut roots = rustls::RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap();
    roots.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector
        .connect(ServerName::try_from(NAME).unwrap(), stream)
        .await?;
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    let body = body.to_string();
    let head = format!(
        "POST /inject HTTP/1.1\r\nhost: {NAME}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok((answer, shown))
}

/// A webhook that knows one cluster.
async fn webhook() -> (SocketAddr, Certificate) {
    let (store, mut writer) = kube::runtime::reflector::store();
    writer.apply_watcher_event(&kube::runtime::watcher::Event::Apply(cluster("Sidecar")));
    // Nobody is asked: the cluster is known.
    let nobody = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let known = Known {
        client: nobody.try_into().unwrap(),
        clusters: store,
        image: default(),
    };
    let certificate = Certificate::default();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    (
        start(any, certificate.clone(), known).await.unwrap(),
        certificate,
    )
}

#[tokio::test]
async fn it_answers_over_tls_and_a_new_certificate_counts_from_the_next_connection_on() {
    let authority = Authority::of(&Authority::generate().unwrap()).unwrap();
    let (address, certificate) = webhook().await;
    // Before the first certificate nobody is answered.
    assert!(ask(address, &authority, &review(&asking())).await.is_err());
    let mut shown = Vec::new();
    for _ in 0..2 {
        let pair = authority
            .issue(NAME, &[NAME.to_owned()], Purpose::Server)
            .unwrap();
        certificate.renew(&pair).unwrap();
        let (answer, by) = ask(address, &authority, &review(&asking())).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let body: Value = serde_json::from_str(&answer[answer.find('{').unwrap()..]).unwrap();
        assert_eq!(body["kind"], "AdmissionReview");
        assert_eq!(body["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(body["response"]["uid"], "r-1");
        assert_eq!(body["response"]["allowed"], true);
        assert_eq!(body["response"]["patchType"], "JSONPatch");
        shown.push(by);
    }
    assert_ne!(shown[0], shown[1]);
    let other = Authority::of(&Authority::generate().unwrap()).unwrap();
    assert!(ask(address, &other, &review(&asking())).await.is_err());
    let (answer, _) = ask(address, &authority, &json!({"kind": "Pod"}))
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}
