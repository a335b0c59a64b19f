//! `[[databases]]`: the hosts behind each database, their shards and roles.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::modes::{PoolerMode, Role};
use crate::secret::Secret;

/// One host of one database. Hosts with the same `name` belong together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// Name that clients connect to. Required. Applies on reload.
    pub name: String,
    /// Address of the server; one that begins with `/` is the directory of a unix socket. Required. Applies on reload.
    pub host: String,
    /// Port of the server. Default: 5432. Applies on reload.
    #[serde(default = "default_port")]
    pub port: u16,
    /// Name of the database on the server. Default: the `name`. Applies on reload.
    pub database_name: Option<String>,
    /// What the host is in its shard. With `auto` the hosts are asked; where one host is a fixed primary, `auto` ones are
    /// replicas. Default: primary. Applies on reload.
    #[serde(default)]
    pub role: Role,
    /// Number of the shard the host belongs to. Default: 0. Applies on reload.
    #[serde(default)]
    pub shard: usize,
    /// User to log in to the server with; wins over `server_user`. Default: that of the user. Applies on reload.
    pub user: Option<String>,
    /// Password to log in to the server with; wins over `server_password`. Default: that of the user. Applies on reload.
    pub password: Option<Secret>,
    /// Query for the password of a user who is not in `[[users]]`. Default: that of `[general]`. Applies on reload.
    pub auth_query: Option<String>,
    /// User of `[[users]]` that runs `auth_query`; an empty one switches it off. Default: that of `[general]`. Applies on reload.
    pub auth_user: Option<String>,
    /// Database in which `auth_query` runs. Default: that of `[general]`. Applies on reload.
    pub auth_dbname: Option<String>,
    /// When a server connection goes back to its pool. Default: that of `[general]`. Applies on reload, to clients that log in from then on.
    pub pooler_mode: Option<PoolerMode>,
    /// Most server connections of one pool. Default: that of `[general]`. Applies on reload.
    pub pool_size: Option<u32>,
    /// The same on a primary. Default: `pool_size`. Applies on reload.
    pub pool_size_primary: Option<u32>,
    /// The same on a replica. Default: `pool_size`. Applies on reload.
    pub pool_size_replica: Option<u32>,
    /// Server connections kept open. Default: that of `[general]`. Applies on reload.
    pub min_pool_size: Option<u32>,
    /// The same on a primary. Default: `min_pool_size`. Applies on reload.
    pub min_pool_size_primary: Option<u32>,
    /// The same on a replica. Default: `min_pool_size`. Applies on reload.
    pub min_pool_size_replica: Option<u32>,
    /// Server connections a pool may open above its size. Default: that of `[general]`. Applies on reload.
    pub reserve_pool_size: Option<u32>,
    /// Wait after which the reserve is used, ms. Default: that of `[general]`. Applies on reload.
    pub reserve_pool_timeout: Option<u64>,
    /// Server connections over all users, 0 = unlimited. Default: that of `[general]`. Applies on reload.
    pub max_db_connections: Option<u32>,
    /// Clients of this database, 0 = unlimited. Default: that of `[general]`. Applies on reload.
    pub max_db_client_connections: Option<u32>,
    /// Server connections of one pool that may be pinned, 0 = unlimited. Default: that of `[general]`. Applies on reload.
    pub max_pinned_connections: Option<u32>,
    /// Time after which an idle server connection is closed, ms. Default: that of `[general]`. Applies on reload.
    pub idle_timeout: Option<u64>,
    /// The same on a primary, ms. Default: `idle_timeout`. Applies on reload.
    pub idle_timeout_primary: Option<u64>,
    /// The same on a replica, ms. Default: `idle_timeout`. Applies on reload.
    pub idle_timeout_replica: Option<u64>,
    /// Age at which a server connection is closed, ms. Default: that of `[general]`. Applies on reload.
    pub server_lifetime: Option<u64>,
    /// Spread of `server_lifetime`, ms. Default: that of `[general]`. Applies on reload.
    pub server_lifetime_jitter: Option<u64>,
    /// `statement_timeout` of the server connections, ms. Default: that of the server. Applies on reload.
    pub statement_timeout: Option<u64>,
    /// `lock_timeout` of the server connections, ms. Default: that of the server. Applies on reload.
    pub lock_timeout: Option<u64>,
    /// `default_transaction_read_only` of the server connections. Default: that of the server. Applies on reload.
    pub read_only: Option<bool>,
    /// Zone that the host is in, see `zone` of `[general]`. Default: none. Applies on reload.
    pub zone: Option<String>,
    /// Share of this host when hosts are chosen by weight; 0 is no reads unless no other host may answer them, however hosts
    /// are chosen. Default: 255. Applies on reload.
    #[serde(default = "default_weight")]
    pub lb_weight: u8,
    /// Whether the host is only a source for resharding and gets no traffic. Default: false. Applies on reload.
    #[serde(default)]
    pub resharding_only: bool,
}

fn default_port() -> u16 {
    5432
}

fn default_weight() -> u8 {
    255
}
