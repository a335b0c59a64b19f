//! The configuration: what was written ([`Config`]) and what is meant ([`Settings`]).
//!
//! `Config` comes from `pgdog.toml` and `users.toml`, from one `pgdog.yaml` of the same schema, or from database URLs. Each
//! key is a documented field, so the JSON Schema is the reference. [`Settings::build`] turns it into what the other crates
//! use. Both steps report all problems at once, with file, line and path.
//!
//! This crate reads files and nothing else: it opens no sockets, keeps no state, and knows no other crate.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod api;
pub mod databases;
pub mod documents;
pub mod general;
pub mod hba;
pub mod keys;
pub mod modes;
pub mod net;
pub mod plugins;
pub mod problem;
pub mod settings;
pub mod sharding;
pub mod users;

mod check;
mod load;
mod macros;
mod secret;
#[cfg(test)]
mod tests;
mod tree;
mod unsupported;
mod url;

pub use check::nearest;
pub use keys::Key;
pub use load::Source;
pub use modes::{
    AuthType, ClientAuth, ClientRecovery, LoadBalancingStrategy, LogFormat, MirrorLevel,
    PassthroughAuth, PoolerMode, PreparedLevel, QuerySizeAction, ReadWriteSplit, ReadWriteStrategy,
    ReadYourWrites, Recovery, Role, TlsMode,
};
pub use problem::{Problem, ProblemCode, Problems, Severity};
pub use secret::Secret;
pub use settings::{
    Address, Admin, AdminHttp, AuthQuery, Balancing, Checks, ClientTimeouts, ClientTls,
    Credentials, Dedup, Hba, Host, Listen, Log, LoginLimits, Mirror, Peer, PlainHttp, PoolSettings,
    ServerTls, Settings, Tcp, User,
};

/// A section that is accepted, but that this version does not look into.
pub type FreeForm = BTreeMap<String, serde_json::Value>;

/// Everything that can be configured, as it was written.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What holds for the whole proxy, and the defaults of databases and users.
    pub general: general::General,
    /// The hosts behind each database.
    pub databases: Vec<databases::Database>,
    /// Who may connect; in a file of its own or here.
    pub users: Vec<users::User>,
    /// The admin console and the HTTP admin API.
    pub admin: users::Admin,
    /// Which push these files hold.
    pub snapshot: users::Snapshot,
    /// Options of the sockets on both sides.
    pub tcp: net::Tcp,
    /// Sizes of buffers.
    pub memory: net::Memory,
    /// The other proxies of the fleet.
    pub peers: Vec<net::Peer>,
    /// How many server connections each host may have.
    pub budget: net::Budget,
    /// The older form of the lag keys in `[general]`.
    pub replica_lag: Option<net::ReplicaLag>,
    /// Tables that are spread over shards.
    pub sharded_tables: Vec<sharding::ShardedTable>,
    /// The older form of `mapping` of a sharded table.
    pub sharded_mappings: Vec<sharding::ShardedMapping>,
    /// Schemas that live in one shard.
    pub sharded_schemas: Vec<sharding::ShardedSchema>,
    /// Tables that have the same rows in each shard.
    pub omnisharded_tables: Vec<sharding::OmnishardedTables>,
    /// Traffic that is copied to another database.
    pub mirroring: Vec<sharding::Mirroring>,
    /// Every query has to name its tenant.
    pub multi_tenant: Option<sharding::MultiTenant>,
    /// The parser's settings for single databases.
    pub query_parsers: Vec<sharding::QueryParser>,
    /// Statements that are rewritten so that they run on shards.
    pub rewrite: sharding::Rewrite,
    /// Moving data between databases.
    pub replication: sharding::Replication,
    /// Libraries that take part in routing.
    pub plugins: Vec<plugins::Plugin>,
    /// Metrics sent by OTLP.
    pub otel: plugins::Otel,
    /// Where passwords come from that are not in the configuration.
    pub vault: Option<plugins::Vault>,
    /// Accepted for compatibility.
    pub control: Option<FreeForm>,
    /// Statistics of queries.
    pub query_stats: plugins::QueryStats,
    /// Accepted for compatibility.
    pub qos: Option<FreeForm>,
    /// Accepted for compatibility.
    pub autodiscovery: Option<FreeForm>,
    /// What was odd about the sources, a missing file for instance.
    #[serde(skip)]
    pub warnings: Vec<Problem>,
    #[serde(skip)]
    pub(crate) origin: Origin,
}

impl Config {
    /// The same configuration with its secrets blacked out, for people and APIs to look at.
    pub fn redacted(&self) -> Self {
        let mut config = self.clone();
        let users = config.users.iter_mut().flat_map(|user| {
            let single = [
                &mut user.password,
                &mut user.password_hash,
                &mut user.server_password,
            ];
            single.into_iter().flatten().chain(&mut user.passwords)
        });
        let databases = config
            .databases
            .iter_mut()
            .filter_map(|database| database.password.as_mut());
        let otel = config
            .otel
            .headers
            .values_mut()
            .chain(&mut config.otel.datadog_api_key);
        for secret in users
            .chain(databases)
            .chain(otel)
            .chain(&mut config.admin.password)
        {
            *secret = Secret::from(Secret::REDACTED);
        }
        // What this version does not look into may hold anything.
        for section in [
            &mut config.control,
            &mut config.qos,
            &mut config.autodiscovery,
        ] {
            for value in section.iter_mut().flat_map(BTreeMap::values_mut) {
                *value = Secret::REDACTED.into();
            }
        }
        config
    }
}

/// Where each key was written, for problems that show up when [`Settings`] are built.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin(pub(crate) BTreeMap<String, tree::Place>);

impl PartialEq for Origin {
    /// The same configuration is the same wherever it was written.
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Origin {
    /// The place of a path, or of the nearest table around it.
    pub(crate) fn place(&self, path: &str) -> tree::Place {
        let mut path = path;
        loop {
            if let Some(place) = self.0.get(path) {
                return place.clone();
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return tree::Place::default(),
            }
        }
    }
}

/// The JSON Schema of [`Config`].
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(Config).to_value()
}
