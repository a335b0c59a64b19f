//! What a proxy is started with: addresses, ports and paths within its container.

use pgdog_operator_api::{Mode, PgDogCluster};
use serde_json::{Map, Value, json};

/// Where the snapshot of the configuration is mounted.
pub const SNAPSHOT_DIR: &str = "/etc/pgdog/snapshot";
/// Where the certificates of the admin API are mounted.
pub const ADMIN_DIR: &str = "/etc/pgdog/admin";
/// Where the certificate that clients see is mounted.
pub const CLIENT_TLS_DIR: &str = "/etc/pgdog/client-tls";
/// Where the authority of clients' certificates is mounted.
pub const CLIENT_CA_DIR: &str = "/etc/pgdog/client-ca";
/// Where the authority of servers is mounted.
pub const SERVER_CA_DIR: &str = "/etc/pgdog/server-ca";
/// Where the certificate for servers is mounted.
pub const SERVER_TLS_DIR: &str = "/etc/pgdog/server-tls";
/// Where what was pushed last is kept.
pub const STATE_DIR: &str = "/var/lib/pgdog";
/// Where a container finds the token of its pod's account.
pub const TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The name in the operator's client certificate.
pub const OPERATOR_NAME: &str = "pgdog-operator";

/// The ports of a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Clients.
    pub clients: i32,
    /// The admin API.
    pub admin: i32,
    /// Health and metrics.
    pub plain: i32,
}

impl Ports {
    /// The ports of a cluster's proxies.
    #[must_use]
    pub fn of(cluster: &PgDogCluster) -> Self {
        let spec = &cluster.spec;
        let clients = match spec.mode {
            Mode::Deployment => spec.service.clone().unwrap_or_default().target_port,
            Mode::Sidecar => spec.sidecar.clone().unwrap_or_default().port,
        };
        Self {
            clients,
            admin: spec.admin.clone().unwrap_or_default().port,
            plain: spec.monitoring.clone().unwrap_or_default().port,
        }
    }
}

/// The keys that belong to the process.
#[must_use]
pub fn render(cluster: &PgDogCluster, ipv6: bool) -> Map<String, Value> {
    let ports = Ports::of(cluster);
    // A socket of :: takes clients of both families; a node without IPv6 has none.
    let everywhere = if ipv6 { "::" } else { "0.0.0.0" };
    let host = match cluster.spec.mode {
        Mode::Deployment => everywhere,
        Mode::Sidecar => "127.0.0.1",
    };
    let monitoring = cluster.spec.monitoring.clone().unwrap_or_default();
    let mut general = json!({
        "host": host,
        "port": ports.clients,
        "healthcheck_port": ports.plain,
        "openmetrics_port": ports.plain,
        // One Prometheus has the metrics of many programs.
        "openmetrics_namespace": "pgdog_",
    });
    if ipv6 {
        general["openmetrics_host"] = everywhere.into();
    }
    if let Some(level) = &monitoring.log_level {
        general["log_level"] = level.as_str().into();
    }
    if let Some(format) = monitoring.log_format {
        general["log_format"] = json!(format);
    }
    let process = json!({
        "general": general,
        "admin": {
            "http_host": everywhere,
            "http_port": ports.admin,
            "http_tls_certificate": format!("{ADMIN_DIR}/tls.crt"),
            "http_tls_private_key": format!("{ADMIN_DIR}/tls.key"),
            "http_client_ca": format!("{ADMIN_DIR}/ca.crt"),
            "http_client_name": OPERATOR_NAME,
            "state_dir": STATE_DIR,
        },
    });
    match process {
        Value::Object(process) => process,
        _ => Map::new(),
    }
}
