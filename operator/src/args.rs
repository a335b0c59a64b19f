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
