//! What people apply: each manifest in the checkout, and each of the charts' values, as a dry run with strict validation.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams, ValidationDirective};
use kube::core::GroupVersionKind;
use kube::discovery::{self, Scope};
use serde::Deserialize;
use serde_json::json;

use crate::harness::server::program;
use crate::harness::stage::Stage;

/// Kinds that Kubernetes itself does not have, which the charts make only where somebody asks for them.
const FOREIGN: &[&str] = &[
    "monitoring.coreos.com/",
    "cert-manager.io/",
    "postgresql.cnpg.io/",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Files with this ending in a folder of the checkout.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    files.sort();
    files
}

/// What the API server says to each object of a file; how many there were.
async fn dry_run(stage: &Stage, what: &str, text: &str) -> usize {
    let mut count = 0;
    for document in serde_yaml::Deserializer::from_str(text) {
        // A comment alone is an empty document.
        let Some(mut object) = Option::<DynamicObject>::deserialize(document).unwrap() else {
            continue;
        };
        let types = object
            .types
            .clone()
            .unwrap_or_else(|| panic!("{what}: an object without a kind"));
        if FOREIGN
            .iter()
            .any(|group| types.api_version.starts_with(group))
        {
            continue;
        }
        let kind = GroupVersionKind::try_from(&types).unwrap();
        let (resource, capabilities) = discovery::pinned_kind(&stage.client, &kind)
            .await
            .unwrap_or_else(|error| panic!("{what}: {kind:?}: {error}"));
        let api: Api<DynamicObject> = if capabilities.scope == Scope::Namespaced {
            object.metadata.namespace = Some(stage.namespace.clone());
            Api::namespaced_with(stage.client.clone(), &stage.namespace, &resource)
        } else {
            Api::all_with(stage.client.clone(), &resource)
        };
        let params = PatchParams {
            dry_run: true,
            force: true,
            field_manager: Some("tests".to_owned()),
            field_validation: Some(ValidationDirective::Strict),
        };
        let name = object
            .metadata
            .name
            .clone()
            .unwrap_or_else(|| panic!("{what}: a {} without a name", kind.kind));
        let answer = api.patch(&name, &params, &Patch::Apply(&object)).await;
        answer.unwrap_or_else(|error| panic!("{what}: {} {name}: {error}", kind.kind));
        count += 1;
    }
    count
}

#[tokio::test]
async fn the_api_server_takes_every_manifest() {
    let Some(stage) = Stage::open("manifests").await else {
        return;
    };
    let mut count = 0;
    for file in files("manifests", ".yaml")
        .into_iter()
        .chain(files("manifests/samples", ".yaml"))
    {
        let text = fs::read_to_string(&file).unwrap();
        let objects = dry_run(&stage, &file.display().to_string(), &text).await;
        assert!(objects > 0, "{} is empty", file.display());
        count += objects;
    }
    assert!(count > 20, "{count} objects");
}

#[tokio::test]
async fn the_api_server_takes_what_helm_makes_of_every_values_file() {
    let Some(stage) = Stage::open("charts").await else {
        return;
    };
    let Some(helm) = program("helm") else {
        writeln!(
            std::io::stderr(),
            "SKIPPED: rendered charts against a Kubernetes API server: helm is not installed"
        )
        .ok();
        return;
    };
    let mut values = Vec::new();
    for (chart, folders) in [
        ("pgdog-operator", &["ci", ""][..]),
        ("pgdog-cluster", &["ci", "samples"]),
    ] {
        for folder in folders {
            let of = files(&format!("charts/{chart}/{folder}"), ".yaml");
            let of = of.into_iter().filter(|path| {
                let name = path.file_name().unwrap().to_string_lossy();
                !folder.is_empty() || name.starts_with("values-")
            });
            values.extend(of.map(|path| (chart, path)));
        }
    }
    assert!(values.len() > 5, "{values:?}");
    for (chart, file) in values {
        let output = Command::new(&helm)
            .args(["template", "check"])
            .arg(root().join("charts").join(chart))
            .args(["--namespace", &stage.namespace, "-f"])
            .arg(&file)
            .env("HELM_CACHE_HOME", env::temp_dir())
            .output()
            .unwrap();
        let what = format!("{chart} with {}", file.display());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{what}: {said}");
        let text = decimal(&String::from_utf8(output.stdout).unwrap());
        assert!(dry_run(&stage, &what, &text).await > 0, "{what}: nothing");
    }
}

/// Modes of files are octal where a number that begins with 0 is, as for kubectl and Helm.
fn decimal(text: &str) -> String {
    let line = |line: &str| {
        let (key, value) = line.split_once("efaultMode: 0")?;
        let mode = u32::from_str_radix(value.trim(), 8).ok()?;
        Some(format!("{key}efaultMode: {mode}"))
    };
    let lines: Vec<_> = text
        .lines()
        .map(|l| line(l).unwrap_or_else(|| l.to_owned()))
        .collect();
    lines.join("\n")
}

#[tokio::test]
async fn pods_of_proxies_and_operator_meet_the_strictest_standard() {
    let Some(stage) = Stage::open("restricted").await else {
        return;
    };
    // The standard is enforced for pods: the templates of the manifest are tried as such.
    let namespace =
        json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let namespaces: Api<Namespace> = Api::all(stage.client.clone());
    namespaces
        .patch(
            &stage.namespace,
            &PatchParams::default(),
            &Patch::Merge(namespace),
        )
        .await
        .unwrap();
    let text = fs::read_to_string(root().join("manifests/install.yaml")).unwrap();
    let mut tried = 0;
    for document in serde_yaml::Deserializer::from_str(&text) {
        let Some(object) = Option::<DynamicObject>::deserialize(document).unwrap() else {
            continue;
        };
        if object
            .types
            .as_ref()
            .is_some_and(|types| types.kind == "Deployment")
        {
            try_template(&stage, &object.data["spec"]["template"]).await;
            tried += 1;
        }
    }
    assert_eq!(tried, 1);
    stage.login("login", "secret").await;
    stage.make("shop", json!({})).await;
    let _operator =
        crate::harness::operator::Operator::start(crate::operator(), &stage, "one").await;
    let deployment: k8s_openapi::api::apps::v1::Deployment = stage.there("shop-proxy").await;
    let template = serde_json::to_value(deployment.spec.unwrap().template).unwrap();
    try_template(&stage, &template).await;
}

async fn try_template(stage: &Stage, template: &serde_json::Value) {
    let mut pod = template.clone();
    pod["metadata"]["name"] = "tried".into();
    let pod = serde_json::from_value(pod).unwrap();
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let answer = stage
        .api::<k8s_openapi::api::core::v1::Pod>()
        .create(&dry, &pod)
        .await;
    answer.unwrap_or_else(|error| panic!("{error}"));
}
