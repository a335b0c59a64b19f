//! The operator as a process, with the rights that its manifests give it and no others.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::discovery::ApiResource;
use serde::Deserialize;

use super::stage::Stage;
use crate::guardian;
use crate::scratch::free_port;

/// The image of proxies that name none.
pub(crate) const IMAGE: &str = "pgdog:tests";

/// A running operator of one namespace.
pub(crate) struct Operator {
    child: Child,
    log: PathBuf,
    metrics: u16,
}

impl Operator {
    /// Starts `program` for the namespace of the stage, in which it lives itself too; `name` is that of this replica.
    pub(crate) async fn start(program: &Path, stage: &Stage, name: &str) -> Self {
        Self::start_with(program, stage, name, &[]).await
    }

    /// The same with further options.
    pub(crate) async fn start_with(
        program: &Path,
        stage: &Stage,
        name: &str,
        options: &[String],
    ) -> Self {
        grant(stage).await;
        let account = format!("system:serviceaccount:{}:pgdog-operator", stage.namespace);
        let kubeconfig = stage.server.kubeconfig(&account, &[]);
        let log = stage
            .server
            .folder()
            .join(format!("{}-{name}.log", stage.namespace));
        let file = File::create(&log).expect("the folder is ours");
        let metrics = free_port();
        let child = Command::new(program)
            .arg("run")
            .args(options)
            .env("KUBECONFIG", kubeconfig)
            .env("WATCH_NAMESPACE", &stage.namespace)
            .env("POD_NAMESPACE", &stage.namespace)
            .env("POD_NAME", name)
            .env("PROXY_IMAGE", IMAGE)
            .env("METRICS_PORT", metrics.to_string())
            .env("RUST_LOG", "info,pgdog_operator=debug")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file can be cloned"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("failed to start {}: {error}", program.display()));
        guardian::watch_process(child.id());
        Self {
            child,
            log,
            metrics,
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its port of `/metrics`.
    pub(crate) fn metrics(&self) -> u16 {
        self.metrics
    }

    /// Ends it without a word.
    pub(crate) fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        guardian::forget_process(self.child.id());
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        let asked = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status();
        assert!(
            asked.is_ok_and(|status| status.success()),
            "it runs no longer"
        );
    }

    /// What it has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(40)..];
            eprintln!("--- the operator's last lines:\n{}", last.join("\n"));
        }
    }
}

/// Gives the account the rights of the manifest for one namespace.
async fn grant(stage: &Stage) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let manifest = root.join("manifests/install-namespaced.yaml");
    let text = fs::read_to_string(&manifest).expect("it is in the checkout");
    for document in serde_yaml::Deserializer::from_str(&text) {
        let mut object = DynamicObject::deserialize(document).expect("it is an object");
        let types = object.types.clone().expect("it says its kind");
        if !types.api_version.starts_with("rbac.authorization.k8s.io/") {
            continue;
        }
        object.metadata.namespace = Some(stage.namespace.clone());
        let subjects = object
            .data
            .get_mut("subjects")
            .and_then(serde_json::Value::as_array_mut);
        for subject in subjects.into_iter().flatten() {
            subject["namespace"] = stage.namespace.clone().into();
        }
        let kind = kube::core::GroupVersionKind::try_from(&types).expect("it is one");
        let api: Api<DynamicObject> = Api::namespaced_with(
            stage.client.clone(),
            &stage.namespace,
            &ApiResource::from_gvk(&kind),
        );
        let name = object.metadata.name.clone().expect("it has a name");
        api.patch(
            &name,
            &PatchParams::apply("tests").force(),
            &Patch::Apply(&object),
        )
        .await
        .expect("the API server takes our roles");
    }
}
