//! Pods and manifests with sidecars.

use kube::ResourceExt;
use pgdog_operator_api::{PgDogCluster, PgDogClusterStatus};
use serde_json::{Value, json};

use super::manifest::{Ask, asks, clusters, render};
use super::{DefaultImage, Refusal, inject, unknown};

fn cluster(spec: &Value) -> PgDogCluster {
    let mut all = json!({
        "mode": "Sidecar",
        "source": {"provider": "Static", "hosts": [{"host": "db.example"}]},
        "databases": [{"name": "app"}],
        "users": [{"secretRef": {"name": "login"}}],
    });
    if let (Some(all), Some(spec)) = (all.as_object_mut(), spec.as_object()) {
        all.extend(spec.clone());
    }
    serde_json::from_value(json!({
        "apiVersion": "pgdog.dev/v1alpha1",
        "kind": "PgDogCluster",
        "metadata": {"name": "shop", "namespace": "demo"},
        "spec": all,
    }))
    .unwrap()
}

fn default(image: &str) -> DefaultImage {
    DefaultImage {
        name: image.to_owned(),
        upgrade: false,
    }
}

fn pod() -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "initContainers": [{"name": "migrate", "image": "web:1"}],
            "containers": [{"name": "web", "image": "web:1"}],
            "x-unknown": {"stays": true},
        },
    })
}

fn injected(cluster: &PgDogCluster, mut pod: Value) -> Value {
    inject(cluster, &default("pgdog:1"), &mut pod).unwrap();
    pod
}

fn names(pod: &Value, kind: &str) -> Vec<String> {
    let all = pod["spec"][kind].as_array().unwrap().iter();
    all.map(|one| one["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_proxy_comes_first_and_everybody_is_told_where_it_is() {
    let pod = injected(&cluster(&json!({})), pod());
    assert_eq!(names(&pod, "initContainers"), ["pgdog", "migrate"]);
    let proxy = &pod["spec"]["initContainers"][0];
    assert_eq!(proxy["restartPolicy"], "Always");
    assert_eq!(proxy["image"], "pgdog:1");
    // It drains when the application has gone, and not before.
    assert_eq!(proxy["lifecycle"], Value::Null);
    let env =
        json!([{"name": "PGHOST", "value": "127.0.0.1"}, {"name": "PGPORT", "value": "6432"}]);
    assert_eq!(pod["spec"]["initContainers"][1]["env"], env);
    assert_eq!(pod["spec"]["containers"][0]["env"], env);
    assert_eq!(pod["metadata"]["labels"]["pgdog.dev/inject"], "shop");
    assert_eq!(pod["metadata"]["labels"]["app"], "web");
    assert_eq!(pod["metadata"]["annotations"]["pgdog.dev/injected"], "shop");
    assert_eq!(pod["spec"]["x-unknown"], json!({"stays": true}));
    assert_eq!(
        names(&pod, "volumes"),
        [
            "pgdog-snapshot",
            "pgdog-admin-tls",
            "pgdog-state",
            "pgdog-no-token"
        ]
    );
    // The pod has no group by which the proxy's user could read.
    assert_eq!(pod["spec"]["volumes"][0]["secret"]["defaultMode"], 0o444);
}

#[test]
fn twice_is_once() {
    let once = injected(&cluster(&json!({})), pod());
    assert_eq!(injected(&cluster(&json!({})), once.clone()), once);
}

#[test]
fn an_older_sidecar_is_renewed_in_its_place() {
    let before = json!({"sidecar": {"port": 7000}, "tls": {"server": {"caSecretRef": "ca"}}, "image": {"pullSecrets": ["registry"]}});
    let mut old = injected(&cluster(&before), pod());
    assert_eq!(old["spec"]["containers"][0]["env"][1]["value"], "7000");
    assert!(names(&old, "volumes").contains(&"pgdog-server-ca".to_owned()));
    assert_eq!(names(&old, "imagePullSecrets"), ["registry"]);
    // Somebody has put another one before it.
    old["spec"]["initContainers"]
        .as_array_mut()
        .unwrap()
        .rotate_left(1);
    inject(&cluster(&json!({})), &default("pgdog:2"), &mut old).unwrap();
    assert_eq!(names(&old, "initContainers"), ["pgdog", "migrate"]);
    assert_eq!(old["spec"]["initContainers"][0]["image"], "pgdog:2");
    assert_eq!(old["spec"]["containers"][0]["env"][1]["value"], "6432");
    assert!(!names(&old, "volumes").contains(&"pgdog-server-ca".to_owned()));
}

#[test]
fn what_an_application_says_itself_stays() {
    for env in [
        json!([{"name": "PGHOST", "value": "elsewhere"}]),
        json!([{"name": "PGPORT", "value": "5433"}]),
        json!([{"name": "PGHOST", "valueFrom": {"secretKeyRef": {"name": "x", "key": "host"}}}]),
    ] {
        let mut pod = pod();
        pod["spec"]["containers"][0]["env"] = env.clone();
        let pod = injected(&cluster(&json!({})), pod);
        assert_eq!(pod["spec"]["containers"][0]["env"], env);
    }
    let mut before = pod();
    before["spec"]["containers"][0]["env"] =
        json!([{"name": "URL", "value": "postgres://$(PGHOST)"}]);
    let with = injected(&cluster(&json!({})), before);
    // Kubernetes knows in `$(…)` what comes before it.
    assert_eq!(with["spec"]["containers"][0]["env"][0]["name"], "PGHOST");
    let none = injected(&cluster(&json!({"sidecar": {"injectEnv": false}})), pod());
    assert_eq!(none["spec"]["containers"][0].get("env"), None);
}

#[test]
fn annotations_of_a_pod_choose_its_image_and_resources() {
    let mut with = pod();
    with["metadata"]["annotations"] = json!({
        "pgdog.dev/image": "pgdog:own",
        "pgdog.dev/config-resources-cpu": "500m",
        "pgdog.dev/config-resources-memory": "1Gi",
        "pgdog.dev/prot": "1",
        "example.com/other": "1",
    });
    assert_eq!(
        unknown(&with),
        ["metadata.annotations.pgdog.dev/prot means nothing to this version of PgDog"]
    );
    let with = injected(&cluster(&json!({})), with);
    let proxy = &with["spec"]["initContainers"][0];
    assert_eq!(proxy["image"], "pgdog:own");
    assert_eq!(
        proxy["resources"],
        json!({"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}})
    );
    assert!(unknown(&injected(&cluster(&json!({})), pod())).is_empty());
}

#[test]
fn the_image_is_the_one_that_the_cluster_names_or_that_its_proxies_have() {
    let of = |image: Value, kept: Option<&str>, upgrade: bool| {
        let mut cluster = cluster(&json!({"image": image}));
        cluster.status = kept.map(|kept| PgDogClusterStatus {
            image: Some(kept.to_owned()),
            ..PgDogClusterStatus::default()
        });
        let mut pod = pod();
        let image = DefaultImage {
            upgrade,
            ..default("registry:5000/pgdog:2")
        };
        inject(&cluster, &image, &mut pod).unwrap();
        pod["spec"]["initContainers"][0]["image"].clone()
    };
    let old = Some("registry:5000/pgdog:1");
    assert_eq!(of(json!({}), None, false), "registry:5000/pgdog:2");
    assert_eq!(of(json!({}), old, false), "registry:5000/pgdog:1");
    assert_eq!(of(json!({}), old, true), "registry:5000/pgdog:2");
    let own = json!({"repository": "mine", "tag": "3"});
    assert_eq!(of(own, old, true), "mine:3");
    let digest = json!({"digest": "sha256:cd"});
    assert_eq!(of(digest, None, false), "registry:5000/pgdog@sha256:cd");
}

#[test]
fn pods_that_can_have_none_are_refused_with_the_way_out() {
    let mut cases = vec![];
    let mut case = |change: &dyn Fn(&mut Value), words: &'static str| {
        let mut pod = pod();
        change(&mut pod["spec"]);
        cases.push((pod, words));
    };
    case(
        &|spec| spec["hostNetwork"] = true.into(),
        "spec.hostNetwork",
    );
    case(
        &|spec| {
            spec["containers"][0]["ports"] = json!([{"containerPort": 80}, {"containerPort": 9090}])
        },
        "spec.containers[0].ports: port 9090 is the sidecar's: choose another one, or set spec.monitoring.port",
    );
    case(
        &|spec| spec["initContainers"][0]["ports"] = json!([{"containerPort": 6432}]),
        "set spec.sidecar.port of PgDogCluster shop",
    );
    case(
        &|spec| spec["containers"][0]["name"] = "pgdog".into(),
        "spec.containers[0].name pgdog",
    );
    case(
        &|spec| spec["initContainers"][0]["name"] = "pgdog".into(),
        "spec.initContainers[0].name pgdog",
    );
    case(
        &|spec| spec["volumes"] = json!([{"name": "pgdog-state"}]),
        "spec.volumes: pgdog-state",
    );
    case(&|spec| spec["volumes"] = json!(7), "volumes: is no list");
    for (before, words) in cases {
        let mut pod = before.clone();
        let told = inject(&cluster(&json!({})), &default("pgdog:1"), &mut pod)
            .unwrap_err()
            .to_string();
        assert!(told.contains(words), "{told}");
        assert_eq!(pod, before, "it was touched");
    }
    let mut udp = pod();
    udp["spec"]["containers"][0]["ports"] = json!([{"containerPort": 6432, "protocol": "UDP"}]);
    inject(&cluster(&json!({})), &default("pgdog:1"), &mut udp).unwrap();
    let deployment = cluster(&json!({"mode": "Deployment"}));
    assert_eq!(
        inject(&deployment, &default("pgdog:1"), &mut pod()),
        Err(Refusal::Mode("shop".to_owned()))
    );
}

fn rendered(text: &str, by_default: Option<&str>) -> Result<String, String> {
    let shop = cluster(&json!({}));
    let find = |ask: &Ask| match ask.cluster.as_str() {
        "shop" => Ok(&shop),
        other => Err(format!("PgDogCluster {other} is not known")),
    };
    render(text, by_default, &default("pgdog:1"), &find).map_err(|wrong| wrong.to_string())
}

#[test]
fn every_kind_of_workload_gets_it_where_its_pods_are() {
    let template = "{metadata: {labels: {a: b}}, spec: {containers: [{name: web, image: web:1}]}}";
    let kinds = [
        (
            "apps/v1",
            "Deployment",
            format!("spec: {{template: {template}}}"),
            "/spec/template",
        ),
        (
            "apps/v1",
            "StatefulSet",
            format!("spec: {{template: {template}}}"),
            "/spec/template",
        ),
        (
            "apps/v1",
            "DaemonSet",
            format!("spec: {{template: {template}}}"),
            "/spec/template",
        ),
        (
            "apps/v1",
            "ReplicaSet",
            format!("spec: {{template: {template}}}"),
            "/spec/template",
        ),
        (
            "batch/v1",
            "Job",
            format!("spec: {{template: {template}}}"),
            "/spec/template",
        ),
        (
            "batch/v1",
            "CronJob",
            format!("spec: {{jobTemplate: {{spec: {{template: {template}}}}}}}"),
            "/spec/jobTemplate/spec/template",
        ),
        (
            "v1",
            "Pod",
            "spec: {containers: [{name: web, image: web:1}]}".to_owned(),
            "",
        ),
    ];
    for (version, kind, rest, path) in &kinds {
        let text = format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\n{rest}\n");
        let list = format!(
            "apiVersion: v1\nkind: List\nitems:\n- {{apiVersion: v1, kind: Secret, metadata: {{name: s}}}}\n- {{apiVersion: {version}, kind: {kind}, metadata: {{name: x}}, {rest}}}\n"
        );
        for (text, path) in [
            (text, (*path).to_owned()),
            (list, format!("/items/1{path}")),
        ] {
            let once = rendered(&text, Some("shop")).unwrap();
            let document: Value = serde_yaml::from_str(&once).unwrap();
            let pod = document.pointer(&path).unwrap();
            assert_eq!(names(pod, "initContainers"), ["pgdog"], "{once}");
            assert_eq!(pod["metadata"]["labels"]["pgdog.dev/inject"], "shop");
            assert_eq!(rendered(&once, Some("shop")).unwrap(), once, "twice");
            assert_eq!(
                rendered(&text, None).unwrap(),
                text,
                "who is not labelled asks for none"
            );
        }
    }
}

const MANY: &str = "# what it is
apiVersion: v1
kind: ConfigMap # kept
metadata: {name: x}
data: {a: 'yes', mode: 0440}
--- # web
apiVersion: batch/v1
kind: Job
metadata: {name: seed, namespace: demo}
spec:
  template:
    metadata: {labels: {pgdog.dev/inject: shop}, annotations: {mode: '0640'}}
    spec:
      restartPolicy: Never
      containers:
      - name: seed
        image: seed:1
        env: [{name: A, value: 'yes'}]
        resources: {limits: {cpu: 2}}
      volumes: [{name: s, secret: {secretName: s, defaultMode: 0440}}]
---
apiVersion: example.com/v1
kind: Other
spec: {template: {spec: {containers: []}}}
";

#[test]
fn other_documents_stay_byte_by_byte_and_values_what_they_were() {
    let out = rendered(MANY, None).unwrap();
    let at = |text: &str| text.find("--- # web").unwrap();
    assert_eq!(out[..at(&out)], MANY[..at(MANY)]);
    let other = MANY.rfind("---\n").unwrap();
    assert!(out.ends_with(&MANY[other..]), "{out}");
    let job = &out[at(&out)..];
    assert!(
        job.contains("value: \"yes\"") && job.contains("defaultMode: 288") && job.contains("0640"),
        "{job}"
    );
    assert!(
        job.find("restartPolicy: Never") < job.find("initContainers"),
        "new keys come last"
    );
    assert_eq!(rendered(&out, None).unwrap(), out);
    let ask = Ask {
        namespace: Some("demo".to_owned()),
        cluster: "shop".to_owned(),
    };
    assert_eq!(asks(MANY, None).unwrap(), [ask]);
}

#[test]
fn errors_name_document_and_path() {
    let unknown = MANY.replace("inject: shop", "inject: other");
    let told = rendered(&unknown, None).unwrap_err();
    assert_eq!(
        told,
        "document 2 (Job seed): spec.template: PgDogCluster other is not known"
    );
    let host = MANY.replace("restartPolicy: Never", "hostNetwork: true");
    let told = rendered(&host, None).unwrap_err();
    assert!(
        told.starts_with("document 2 (Job seed): spec.template: spec.hostNetwork"),
        "{told}"
    );
    let text = MANY.replace("restartPolicy: Never", "hostPID: yes");
    let told = rendered(&text, None).unwrap_err();
    assert!(
        told.contains("spec.template") && told.contains("expected a boolean"),
        "{told}"
    );
    let none = rendered(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n",
        Some("shop"),
    );
    assert_eq!(
        none.unwrap_err(),
        "document 1 (Deployment x): spec.template: is missing"
    );
    let told = rendered("a: b\n---\nc: [\n", None).unwrap_err();
    assert!(told.starts_with("document 2: "), "{told}");
}

#[test]
fn clusters_are_found_among_other_documents() {
    let text = "kind: Other\n---\napiVersion: pgdog.dev/v1alpha1\nkind: PgDogCluster\nmetadata: {name: a}\nspec: {databases: [{name: x}]}\n---\n{}\n";
    let found = clusters(text).unwrap();
    assert_eq!(
        found.iter().map(ResourceExt::name_any).collect::<Vec<_>>(),
        ["a"]
    );
    let wrong = text.replace("databases: [{name: x}]", "databases: 7");
    assert!(
        clusters(&wrong)
            .unwrap_err()
            .to_string()
            .starts_with("document 2 (PgDogCluster a): ")
    );
}
