//! `[[plugins]]` and the systems outside that the proxy talks to.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::macros::section;
use crate::modes::VaultAuth;
use crate::secret::Secret;

/// `[[plugins]]`: a library that takes part in routing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    /// Name or path of the library. Required. Needs a restart.
    pub name: String,
    /// Path of a file that is handed to the plugin. Default: none. Needs a restart.
    pub config: Option<String>,
}

/// `[vault]`: where passwords come from that are not in the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Vault {
    /// Address of Vault. Required. Applies on reload.
    pub url: String,
    /// How the proxy logs in. Required. Applies on reload.
    pub auth_method: VaultAuth,
    /// Mount point of the login method. Default: that of the method. Applies on reload.
    pub auth_mount: Option<String>,
    /// Namespace in Vault. Default: none. Applies on reload.
    pub namespace: Option<String>,
    /// Role for a login with the service account. Default: none. Applies on reload.
    pub kubernetes_role: Option<String>,
    /// File that holds the token of the service account. Default: the one Kubernetes mounts. Applies on reload.
    pub kubernetes_jwt_path: Option<String>,
    /// Role for a login with an AppRole. Default: none. Applies on reload.
    pub approle_role_id: Option<String>,
    /// File that holds the secret of the AppRole. Default: VAULT_SECRET_ID of the environment. Applies on reload.
    pub approle_secret_id_file: Option<String>,
    /// Lifetime of the token of the proxy, seconds. Default: 60. Applies on reload.
    pub client_token_ttl: Option<u64>,
}

section! {
    /// `[otel]`: metrics sent by OTLP.
    pub struct Otel {
        /// Address that metrics are sent to. Default: none = off. Needs a restart.
        endpoint: Option<String> = None,
        /// Headers that are sent along. Default: none. Needs a restart.
        headers: BTreeMap<String, Secret> = BTreeMap::new(),
        /// Prefix of the names of metrics. Default: none. Needs a restart.
        namespace: Option<String> = None,
        /// Time between two sends, ms. Default: 10000. Needs a restart.
        push_interval: u64 = 10_000,
        /// Key of Datadog. Default: none. Needs a restart.
        datadog_api_key: Option<Secret> = None,
    }
}

section! {
    /// `[query_stats]`: statistics of queries, as `pg_stat_statements` keeps them.
    pub struct QueryStats {
        /// Whether they are kept: that costs each query about as much as reading its text twice. Default: false. Applies on reload.
        enabled: bool = false,
        /// Queries that each worker keeps, those used least are forgotten for new ones. Default: 1000. Applies on reload.
        max_entries: usize = 1_000,
        /// Errors that are kept. Default: 100. Applies on reload.
        max_errors: usize = 100,
        /// Time after which an error is forgotten, ms. Default: 300000. Applies on reload.
        max_error_age: u64 = 300_000,
        /// Time above which a query's plan is asked for, ms. Default: none. Applies on reload.
        query_plans_threshold: Option<u64> = None,
        /// Share of all queries whose plan is asked for, 0.0 to 1.0. Default: 0.0. Applies on reload.
        query_plans_sample_rate: f64 = 0.0,
        /// Plans that are kept. Default: 500. Applies on reload.
        query_plans_cache: usize = 500,
        /// Time after which a plan is asked for again, ms. Default: 15000. Applies on reload.
        query_plans_max_age: u64 = 15_000,
    }
}
