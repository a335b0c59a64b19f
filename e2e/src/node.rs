//! Nodes: what is done on them goes past Kubernetes.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::Skipped;
use crate::cluster::{Stage, until};

/// The name that the programs of proxy and operator have as processes.
const PROGRAM: &str = "program";

/// The commands that reach nodes.
#[derive(Clone)]
pub(crate) struct Nodes {
    stage: Stage,
    run: String,
}

impl Nodes {
    /// As the environment says.
    ///
    /// # Errors
    ///
    /// [`Skipped`], when it says nothing.
    pub(crate) fn new(stage: &Stage) -> anyhow::Result<Self> {
        let run = std::env::var("E2E_NODE")
            .map_err(|_| Skipped("needs a command that runs something on a node: E2E_NODE"))?;
        Ok(Self {
            stage: stage.clone(),
            run,
        })
    }

    /// The names of the workers.
    ///
    /// # Errors
    ///
    /// [`Skipped`], when there are fewer than two.
    pub(crate) async fn workers(&self) -> anyhow::Result<Vec<String>> {
        let (_, workers) = self.all().await?;
        if workers.len() < 2 {
            return Err(Skipped("needs two nodes beside the control plane").into());
        }
        Ok(workers)
    }

    /// The control planes and the workers.
    async fn all(&self) -> anyhow::Result<(Vec<String>, Vec<String>)> {
        let nodes: Api<Node> = Api::all(self.stage.client.clone());
        let nodes = nodes.list(&ListParams::default()).await?;
        let leads = |node: &Node| {
            node.labels()
                .contains_key("node-role.kubernetes.io/control-plane")
        };
        let (leading, others): (Vec<_>, Vec<_>) = nodes.items.into_iter().partition(leads);
        let names = |nodes: Vec<Node>| nodes.iter().map(ResourceExt::name_any).collect();
        Ok((names(leading), names(others)))
    }

    /// The node that the API server runs on.
    pub(crate) async fn control_plane(&self) -> anyhow::Result<String> {
        let (leading, _) = self.all().await?;
        leading
            .into_iter()
            .next()
            .context("no node is a control plane")
    }

    /// Runs a script on a node.
    pub(crate) async fn on(&self, node: &str, script: &str) -> anyhow::Result<String> {
        command(&self.run, &[node, "sh", "-c", script]).await
    }

    /// Ends a node as if its power had gone.
    pub(crate) async fn kill(&self, node: &str) -> anyhow::Result<()> {
        let kill = std::env::var("E2E_NODE_KILL")
            .map_err(|_| Skipped("needs a command that ends a node: E2E_NODE_KILL"))?;
        command(&kill, &[node]).await.map(drop)
    }

    /// Starts it again.
    pub(crate) async fn start(&self, node: &str) -> anyhow::Result<()> {
        let start = std::env::var("E2E_NODE_START")
            .map_err(|_| Skipped("needs a command that starts a node: E2E_NODE_START"))?;
        command(&start, &[node]).await?;
        let nodes: Api<Node> = Api::all(self.stage.client.clone());
        until(
            Duration::from_secs(120),
            &format!("{node} is ready"),
            || async {
                let status = nodes.get(node).await?.status.unwrap_or_default();
                let ready = status
                    .conditions
                    .iter()
                    .flatten()
                    .any(|c| c.type_ == "Ready" && c.status == "True");
                Ok(ready.then_some(()))
            },
        )
        .await
    }

    /// The node of a pod, and the process of a proxy or an operator in it.
    pub(crate) async fn process(&self, pod: &Pod) -> anyhow::Result<(String, String)> {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let node = node.context("the pod has no node")?;
        let uid = pod.uid().unwrap_or_default();
        let script = format!(
            "for p in $(pgrep -x {PROGRAM}); do grep -q -e {uid} -e {} /proc/$p/cgroup && echo $p; done; true",
            uid.replace('-', "_")
        );
        let pid = self.on(&node, &script).await?.trim().to_owned();
        anyhow::ensure!(
            !pid.is_empty() && pid.chars().all(|c| c.is_ascii_digit()),
            "{} has these processes: {pid:?}",
            pod.name_any()
        );
        Ok((node, pid))
    }

    /// Sends a signal to the proxy or the operator in a pod.
    pub(crate) async fn signal(&self, pod: &Pod, signal: &str) -> anyhow::Result<()> {
        let (node, pid) = self.process(pod).await?;
        self.on(&node, &format!("kill -{signal} {pid}"))
            .await
            .map(drop)
    }

    /// Adds (`-I`) or takes away (`-D`) a rule of iptables in the network of a pod.
    pub(crate) async fn firewall(&self, pod: &Pod, rule: &str) -> anyhow::Result<()> {
        let (node, pid) = self.process(pod).await?;
        let script = format!("nsenter -t {pid} -n iptables -w {rule}");
        self.on(&node, &script).await.map(drop)
    }
}

/// Runs a command that may have several words; returns what it prints.
async fn command(words: &str, args: &[&str]) -> anyhow::Result<String> {
    let mut words = words.split_whitespace();
    let program = words.next().context("the command is empty")?;
    let output = tokio::process::Command::new(program)
        .args(words)
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("run {program}"))?;
    anyhow::ensure!(
        output.status.success(),
        "{program} {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
