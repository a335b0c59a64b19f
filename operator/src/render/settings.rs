//! The settings: what the resource says about pools, users, routing and the rest, in the proxy's own keys.

use pgdog_config::api::Finding;
use pgdog_config::documents;
use pgdog_operator_api::{
    ClientTlsMode, DatabaseSpec, Duration, Mode, Overrides, PgDogCluster, PgDogClusterSpec,
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::process::{CLIENT_CA_DIR, CLIENT_TLS_DIR, SERVER_CA_DIR, SERVER_TLS_DIR};

/// Keys of one section, of which only those that are set are written.
#[derive(Debug, Default)]
pub(super) struct Keys(Map<String, Value>);

impl Keys {
    pub(super) fn set<T: Serialize>(&mut self, key: &str, value: Option<T>) {
        if let Some(value) = value.and_then(|value| serde_json::to_value(value).ok()) {
            self.0.insert(key.to_owned(), value);
        }
    }

    pub(super) fn time(&mut self, key: &str, value: Option<Duration>) {
        self.set(key, value.map(millis));
    }

    pub(super) fn map(&self) -> &Map<String, Value> {
        &self.0
    }

    pub(super) fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}

/// A time as the proxy writes it.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(std::time::Duration::from(time).as_millis()).unwrap_or(u64::MAX)
}

/// The sections that a person wrote which need a restart, and the settings that do not.
///
/// # Errors
///
/// Keys that belong to the operator.
pub(super) fn render(
    cluster: &PgDogCluster,
    users: Vec<Value>,
) -> Result<(Sections, Sections), Vec<Finding>> {
    let spec = &cluster.spec;
    let mut live = Map::new();
    live.insert("general".to_owned(), general(cluster));
    live.insert(
        "databases".to_owned(),
        spec.databases.iter().map(database).collect(),
    );
    live.insert("users".to_owned(), users.into());
    let (own, overrides) = split(spec.config.as_ref())?;
    super::config::merge(&mut live, overrides);
    Ok((own, live))
}

fn general(cluster: &PgDogCluster) -> Value {
    let mut keys = Keys::default();
    let spec = &cluster.spec;
    pooling(spec, &mut keys);
    routing(spec, &mut keys);
    let health = spec.health.clone().unwrap_or_default();
    keys.time("healthcheck_interval", health.check_interval);
    keys.time("idle_healthcheck_interval", health.check_interval);
    keys.time("healthcheck_timeout", health.check_timeout);
    keys.time("ban_timeout", health.ban_timeout);
    keys.time("ban_replica_lag", health.max_replica_lag);
    keys.set("ban_replica_lag_bytes", health.max_replica_lag_bytes);
    let looks = health.role_check_interval.map_or(1_000, millis);
    keys.set("lsn_check_delay", Some(0));
    keys.set("lsn_check_interval", Some(looks));
    keys.set("lsn_check_timeout", Some(looks.clamp(1_000, 5_000)));
    let failover = spec.failover.clone().unwrap_or_default();
    keys.set(
        "hold_timeout",
        Some(failover.hold_timeout.map_or(30_000, millis)),
    );
    let drain = spec.drain.clone().unwrap_or_default();
    keys.time("shutdown_timeout", Some(drain.timeout));
    // Certificates are renewed in Secrets that are mounted. What was pushed stays: the file is never later than it.
    keys.set("watch_config", Some(true));
    tls(spec, &mut keys);
    keys.into_value()
}

fn pooling(spec: &PgDogClusterSpec, keys: &mut Keys) {
    let pooling = spec.pooling.clone().unwrap_or_default();
    // Sidecars are many: each has few.
    let (size, least) = match spec.mode {
        Mode::Deployment => (10, 1),
        Mode::Sidecar => (2, 0),
    };
    let size = pooling.default_pool_size.unwrap_or(size);
    keys.set("pooler_mode", pooling.mode);
    keys.set("default_pool_size", Some(size));
    keys.set(
        "min_pool_size",
        Some(pooling.min_pool_size.unwrap_or(least).min(size)),
    );
    keys.time("idle_timeout", pooling.idle_timeout);
    let lifetime = pooling.server_lifetime.map_or(86_400_000, millis);
    keys.set("server_lifetime", Some(lifetime));
    // Connections of the same age would be opened anew at the same time.
    keys.set("server_lifetime_jitter", Some(lifetime / 10));
    keys.time("checkout_timeout", pooling.checkout_timeout);
    keys.time("connect_timeout", pooling.connect_timeout);
    keys.set("prepared_statements", pooling.prepared_statements);
}

fn routing(spec: &PgDogClusterSpec, keys: &mut Keys) {
    let routing = spec.routing.clone().unwrap_or_default();
    keys.set("read_write_split", routing.read_write_split);
    keys.set("read_write_strategy", routing.read_write_strategy);
    keys.set("load_balancing_strategy", routing.load_balancing);
    keys.set("read_your_writes", routing.read_your_writes);
}

fn tls(spec: &PgDogClusterSpec, keys: &mut Keys) {
    let tls = spec.tls.clone().unwrap_or_default();
    let client = tls.client.unwrap_or_default();
    if client.mode != ClientTlsMode::Disabled && spec.mode == Mode::Deployment {
        keys.set("tls_certificate", Some(format!("{CLIENT_TLS_DIR}/tls.crt")));
        keys.set("tls_private_key", Some(format!("{CLIENT_TLS_DIR}/tls.key")));
        keys.set(
            "tls_client_required",
            Some(client.mode != ClientTlsMode::Prefer),
        );
        if client.ca_secret_ref.is_some() {
            let path = format!("{CLIENT_CA_DIR}/ca.crt");
            keys.set("tls_client_ca_certificate", Some(path));
        }
    }
    let server = tls.server.unwrap_or_default();
    keys.set("tls_verify", server.mode);
    if server.ca_secret_ref.is_some() {
        let path = format!("{SERVER_CA_DIR}/ca.crt");
        keys.set("tls_server_ca_certificate", Some(path));
    }
    if server.client_secret_ref.is_some() {
        let (certificate, key) = (
            format!("{SERVER_TLS_DIR}/tls.crt"),
            format!("{SERVER_TLS_DIR}/tls.key"),
        );
        keys.set("tls_server_certificate", Some(certificate));
        keys.set("tls_server_private_key", Some(key));
    }
}

fn database(spec: &DatabaseSpec) -> Value {
    let mut keys = Keys::default();
    keys.set("name", Some(&spec.name));
    keys.set("pool_size", spec.pool_size);
    keys.set("min_pool_size", spec.min_pool_size);
    keys.set("pooler_mode", spec.pooler_mode);
    keys.set("read_only", spec.read_only);
    keys.time("statement_timeout", spec.statement_timeout);
    keys.time("lock_timeout", spec.lock_timeout);
    keys.into_value()
}

type Sections = Map<String, Value>;

/// What a person wrote in the proxy's own keys: those that need a restart, and the others.
fn split(overrides: Option<&Overrides>) -> Result<(Sections, Sections), Vec<Finding>> {
    let (mut own, mut live) = (Map::new(), Map::new());
    let mut findings = Vec::new();
    let Some(overrides) = overrides else {
        return Ok((own, live));
    };
    let restart = documents::restart_keys();
    let mut refuse = |path: String, message: String| {
        findings.push(Finding {
            path,
            code: "not_here".to_owned(),
            message,
        });
    };
    for (section, value) in &overrides.0 {
        if !Overrides::SECTIONS.contains(&section.as_str()) {
            let message = "belongs to the operator, or names files in the proxy's image";
            refuse(format!("config.{section}"), message.to_owned());
            continue;
        }
        let Value::Object(keys) = value else {
            live.insert(section.clone(), value.clone());
            continue;
        };
        for (key, value) in keys {
            let owner = (section == "general")
                .then(|| Overrides::owner(key))
                .flatten();
            if let Some(field) = owner {
                refuse(
                    format!("config.{section}.{key}"),
                    format!("is the operator's: set spec.{field} instead"),
                );
                continue;
            }
            let at_start = restart.contains(&(section.clone(), key.clone()));
            let to = if at_start { &mut own } else { &mut live };
            let section = to.entry(section.clone()).or_insert_with(|| json!({}));
            section[key] = value.clone();
        }
    }
    if findings.is_empty() {
        Ok((own, live))
    } else {
        Err(findings)
    }
}
