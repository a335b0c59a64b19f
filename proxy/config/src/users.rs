//! `[[users]]` and `[admin]`: who may connect, with which password, to what.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::macros::section;
use crate::modes::{AuthType, PoolerMode, ServerAuth};
use crate::secret::Secret;

/// One user in one or more databases.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Name that clients log in with. Required. Applies on reload.
    pub name: String,
    /// Database of this user. Default: none. Applies on reload.
    pub database: Option<String>,
    /// Further databases of this user. Default: none. Applies on reload.
    #[serde(default)]
    pub databases: Vec<String>,
    /// Whether the user may use every database. Default: false. Applies on reload.
    #[serde(default)]
    pub all_databases: bool,
    /// Password of the client, and of the server where no other is given. Default: none. Applies on reload.
    pub password: Option<Secret>,
    /// Further passwords that are accepted, for rotation. Default: none. Applies on reload.
    #[serde(default)]
    pub passwords: Vec<Secret>,
    /// SCRAM-SHA-256 verifier in place of a password, as in `pg_authid`. Default: none. Applies on reload.
    pub password_hash: Option<Secret>,
    /// How this user proves who it is. Default: that of `[general]`. Applies on reload.
    pub auth_type: Option<AuthType>,
    /// Name in the client certificate that stands for this user. Default: none. Applies on reload.
    pub identity: Option<String>,
    /// Whether a client certificate is the only way in. Default: true for users with an `identity`. Applies on reload.
    pub tls_client_certificate_required: Option<bool>,
    /// User to log in to the server with. Default: the `name`. Applies on reload.
    pub server_user: Option<String>,
    /// Password to log in to the server with. Default: the passwords of the client. Applies on reload.
    pub server_password: Option<Secret>,
    /// How the proxy proves to the server who it is. Default: password. Applies on reload.
    #[serde(default)]
    pub server_auth: ServerAuth,
    /// AWS region for `server_auth = "rds_iam"`. Default: none. Applies on reload.
    pub server_iam_region: Option<String>,
    /// Path in Vault of the login to the server. Default: none. Applies on reload.
    pub server_vault_path: Option<String>,
    /// Path in Vault of the password of the client. Default: none. Applies on reload.
    pub vault_path: Option<String>,
    /// Part of the lease of a Vault secret after which it is renewed, per cent. Default: 80. Applies on reload.
    pub vault_refresh_percent: Option<u8>,
    /// When a server connection goes back to its pool. Default: that of the database. Applies on reload, to clients that log in from then on.
    pub pooler_mode: Option<PoolerMode>,
    /// Most server connections of one pool. Default: that of the database. Applies on reload.
    pub pool_size: Option<u32>,
    /// The same on a primary. Default: `pool_size`. Applies on reload.
    pub pool_size_primary: Option<u32>,
    /// The same on a replica. Default: `pool_size`. Applies on reload.
    pub pool_size_replica: Option<u32>,
    /// Server connections kept open. Default: that of the database. Applies on reload.
    pub min_pool_size: Option<u32>,
    /// The same on a primary. Default: `min_pool_size`. Applies on reload.
    pub min_pool_size_primary: Option<u32>,
    /// The same on a replica. Default: `min_pool_size`. Applies on reload.
    pub min_pool_size_replica: Option<u32>,
    /// Server connections a pool may open above its size. Default: that of the database. Applies on reload.
    pub reserve_pool_size: Option<u32>,
    /// Server connections of this user over all databases, 0 = unlimited. Default: that of `[general]`. Applies on reload.
    pub max_user_connections: Option<u32>,
    /// Clients of this user, 0 = unlimited. Default: that of `[general]`. Applies on reload.
    pub max_user_client_connections: Option<u32>,
    /// Server connections of one pool that may be pinned, 0 = unlimited. Default: that of the database. Applies on reload.
    pub max_pinned_connections: Option<u32>,
    /// Time after which an idle server connection is closed, ms. Default: that of the database. Applies on reload.
    pub idle_timeout: Option<u64>,
    /// The same on a primary, ms. Default: `idle_timeout`. Applies on reload.
    pub idle_timeout_primary: Option<u64>,
    /// The same on a replica, ms. Default: `idle_timeout`. Applies on reload.
    pub idle_timeout_replica: Option<u64>,
    /// Age at which a server connection is closed, ms. Default: that of the database. Applies on reload.
    pub server_lifetime: Option<u64>,
    /// Spread of `server_lifetime`, ms. Default: that of the database. Applies on reload.
    pub server_lifetime_jitter: Option<u64>,
    /// `statement_timeout` of the server connections, ms. Default: that of the database. Applies on reload.
    pub statement_timeout: Option<u64>,
    /// `lock_timeout` of the server connections, ms. Default: that of the database. Applies on reload.
    pub lock_timeout: Option<u64>,
    /// `default_transaction_read_only` of the server connections. Default: that of the database. Applies on reload.
    pub read_only: Option<bool>,
    /// Whether server connections speak the replication protocol. Default: false. Applies on reload.
    #[serde(default)]
    pub replication_mode: bool,
    /// Database whose tables shard a replication stream. Default: none. Applies on reload.
    pub replication_sharding: Option<String>,
    /// Whether this user reads and changes the schema for resharding. Default: false. Applies on reload.
    #[serde(default)]
    pub schema_admin: bool,
    /// Whether queries over more than one shard are refused. Default: that of `[general]`. Applies on reload.
    pub cross_shard_disabled: Option<bool>,
    /// Whether transactions over shards commit in two phases. Default: that of `[general]`. Applies on reload.
    pub two_phase_commit: Option<bool>,
    /// Whether single statements over shards commit in two phases. Default: that of `[general]`. Applies on reload.
    pub two_phase_commit_auto: Option<bool>,
}

section! {
    /// `[admin]`: the database of the admin console, and the HTTP admin API.
    pub struct Admin {
        /// Name of the admin database. Default: admin. Applies on reload.
        name: String = "admin".to_owned(),
        /// User of the admin database. Default: admin. Applies on reload.
        user: String = "admin".to_owned(),
        /// Password of this user. Default: a random one at each start. Applies on reload.
        password: Option<Secret> = None,
        /// Address of the HTTP admin API; one that is not loopback needs `http_client_ca` or `http_token_file`. Default: 127.0.0.1. Needs a restart.
        http_host: String = "127.0.0.1".to_owned(),
        /// Port of the HTTP admin API. Default: none = off. Needs a restart.
        http_port: Option<u16> = None,
        /// Certificate chain of the HTTP admin API, path to a PEM file. Default: none = no TLS. Needs a restart; the file is read on reload.
        http_tls_certificate: Option<String> = None,
        /// Private key of `http_tls_certificate`, path to a PEM file. Default: none. Needs a restart; the file is read on reload.
        http_tls_private_key: Option<String> = None,
        /// Authority that signs the certificates of those who may use the HTTP admin API, path to a PEM file. Default: none. Needs a restart; the file is read on reload.
        http_client_ca: Option<String> = None,
        /// Name (DNS, URI or common name) that such a certificate has to carry. Default: none = any. Needs a restart.
        http_client_name: Option<String> = None,
        /// File that holds a token, which requests carry as `Authorization: Bearer`; read again for each of them. Default: none. Needs a restart.
        http_token_file: Option<String> = None,
        /// Directory that keeps what was pushed last, for the next start. Default: none = nothing is kept. Needs a restart.
        state_dir: Option<String> = None,
    }
}

section! {
    /// `[snapshot]`: which push these files hold, so that the later of the two is in force. Without it any push is later.
    pub struct Snapshot {
        /// Epoch of the push. Default: 0. Applies on reload.
        epoch: u64 = 0,
        /// Revision of the settings. Default: 0. Applies on reload.
        settings_revision: u64 = 0,
        /// Revision of the topology. Default: 0. Applies on reload.
        topology_revision: u64 = 0,
        /// Revision of the budget. Default: 0. Applies on reload.
        budget_revision: u64 = 0,
        /// Whether the process starts with everything paused, until `RESUME`: its fleet is. Default: false. Needs a restart.
        paused: bool = false,
    }
}
