//! The command line.

use std::collections::BTreeSet;
use std::net::IpAddr;

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
    /// Put sidecars into the workloads of manifests, and print them.
    Inject(Inject),
}

/// What is injected, and into what.
#[derive(Debug, Clone, Args)]
pub struct Inject {
    /// Manifests, `-` for standard input: Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob, Pod, List. What is none of
    /// these is printed as it is.
    #[arg(short, long, required = true, value_name = "FILE")]
    pub file: Vec<String>,
    /// The `PgDogCluster`: a file that holds it, or its name on the API server. With one, every workload without the label
    /// `pgdog.dev/inject` gets it; with none or several only those with it do, each that which the label names.
    #[arg(short, long, value_name = "FILE|NAME")]
    pub cluster: Vec<String>,
    /// The image of proxies whose `PgDogCluster` names none. Default: the one that its proxies have, as the API server tells of it, else
    /// pgdog:latest.
    #[arg(long, env = "PROXY_IMAGE")]
    pub image: Option<String>,
    /// The namespace of workloads that name none.
    #[arg(short, long)]
    pub namespace: Option<String>,
}

/// How to run.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// The image of proxies whose PgDogCluster names none.
    #[arg(long, env = "PROXY_IMAGE", default_value = "pgdog:latest")]
    pub proxy_image: String,
    /// Whether proxies that name no image and were made with another one get that image; by default only new ones do.
    #[arg(long, env = "UPGRADE_PROXIES")]
    pub upgrade_proxies: bool,
    /// The operator's own address: where it is of IPv6, proxies listen on addresses of both families.
    #[arg(long, env = "POD_IP")]
    pub pod_ip: Option<IpAddr>,
    /// The only namespaces that are watched, with commas between them. Default: all.
    #[arg(long = "namespace", env = "WATCH_NAMESPACE", value_delimiter = ',')]
    pub namespaces: Vec<String>,
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
    /// Port of the webhook that puts sidecars into labelled pods. 0: there is none.
    #[arg(long, env = "WEBHOOK_PORT", default_value_t = 0)]
    pub webhook_port: u16,
    /// Secret with the webhook's certificate, in the operator's own namespace.
    #[arg(long, default_value = "pgdog-operator-webhook-tls")]
    pub webhook_secret: String,
    /// The webhook's Service: the operator makes and renews a certificate for it. Default: somebody else fills the Secret.
    #[arg(long, requires = "webhook_configuration")]
    pub webhook_service: Option<String>,
    /// The `MutatingWebhookConfiguration` that the operator writes the certificate's authority into: its own, or `ca.crt` of the
    /// Secret that somebody else fills. Default: somebody else writes that too.
    #[arg(long)]
    pub webhook_configuration: Option<String>,
    /// Whether logs are JSON.
    #[arg(long, env = "LOG_JSON")]
    pub log_json: bool,
}

impl Run {
    /// The namespaces that are watched, each once; none is all.
    #[must_use]
    pub fn watched(&self) -> Vec<String> {
        let named = self.namespaces.iter().map(|namespace| namespace.trim());
        let named: BTreeSet<_> = named.filter(|namespace| !namespace.is_empty()).collect();
        named.into_iter().map(str::to_owned).collect()
    }

    /// The name of this replica in the Lease.
    #[must_use]
    pub fn identity(&self) -> String {
        self.pod_name
            .clone()
            .unwrap_or_else(|| format!("pgdog-operator-{}", std::process::id()))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn namespaces_stand_in_one_word_and_an_empty_word_is_all() {
        let of = |value: &str| {
            let cli = Cli::parse_from(["x", "run", "--namespace", value]);
            let Command::Run(run) = cli.command else {
                panic!("run was asked for");
            };
            run.watched()
        };
        assert_eq!(of("b, a,b"), ["a", "b"]);
        assert!(of("").is_empty());
    }
}
