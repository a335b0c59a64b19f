//! The command line.

use clap::{Args, Parser, Subcommand};

/// Keeps PgDog proxies on Kubernetes in step with the Postgres behind them.
#[derive(Debug, Parser)]
#[command(name = "pgdog-operator", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch PgDogClusters and keep them as they are meant to be, until SIGTERM.
    Run(Run),
    /// Print the custom resource definition as YAML.
    Crd,
}

/// How to run.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// The image of proxies whose PgDogCluster names none.
    #[arg(long, env = "PROXY_IMAGE", default_value = "pgdog:latest")]
    pub proxy_image: String,
    /// The only namespace that is watched. Default: all.
    #[arg(long, env = "WATCH_NAMESPACE")]
    pub namespace: Option<String>,
    /// The operator's own namespace: its Lease and its authority live there.
    #[arg(long, env = "POD_NAMESPACE", default_value = "pgdog-system")]
    pub own_namespace: String,
    /// The name of this replica.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// Name of the Lease.
    #[arg(long, env = "LEASE_NAME", default_value = "pgdog-operator")]
    pub lease_name: String,
    /// Port of `/metrics`, `/livez` and `/readyz`.
    #[arg(long, env = "METRICS_PORT", default_value_t = 8080)]
    pub metrics_port: u16,
    /// Whether logs are JSON.
    #[arg(long, env = "LOG_JSON")]
    pub log_json: bool,
}

impl Run {
    /// The name of this replica in the Lease.
    #[must_use]
    pub fn identity(&self) -> String {
        self.pod_name
            .clone()
            .unwrap_or_else(|| format!("pgdog-operator-{}", std::process::id()))
    }
}
