//! Values of keys that name one of a few choices, in the order: clients and pools, then routing, then the rest.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a client proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthType {
    /// SCRAM-SHA-256.
    #[default]
    Scram,
    /// MD5 of password and salt.
    Md5,
    /// The password itself.
    Plain,
    /// No proof at all.
    Trust,
}

/// How clients prove who they are: one method for all, or rules that choose among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// SCRAM-SHA-256.
    #[default]
    Scram,
    /// MD5 of password and salt.
    Md5,
    /// The password itself.
    Plain,
    /// No proof at all.
    Trust,
    /// What the rules of `auth_hba_file` say.
    Hba,
}

impl ClientAuth {
    /// The method, where there is one for all.
    pub fn method(self) -> Option<AuthType> {
        match self {
            Self::Scram => Some(AuthType::Scram),
            Self::Md5 => Some(AuthType::Md5),
            Self::Plain => Some(AuthType::Plain),
            Self::Trust => Some(AuthType::Trust),
            Self::Hba => None,
        }
    }
}

/// What happens to a server connection that a client left in the middle of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Recovery {
    /// Unread answers are drained and an open transaction is rolled back.
    #[default]
    Recover,
    /// Only an open transaction is rolled back; unread answers close the connection.
    RollbackOnly,
    /// The connection is closed.
    Drop,
}

/// What happens to a client whose server connection was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientRecovery {
    /// The client gets an error and stays.
    Recover,
    /// The client is disconnected.
    #[default]
    Drop,
}

/// When a server connection goes back to its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PoolerMode {
    /// After each transaction.
    #[default]
    Transaction,
    /// When the client disconnects.
    Session,
    /// After each statement; transactions are refused.
    Statement,
}

/// Which prepared statements the proxy manages for its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PreparedLevel {
    /// None: they are passed on as they come.
    Disabled,
    /// Named ones of the extended protocol.
    #[default]
    Extended,
    /// Also unnamed ones of the extended protocol.
    ExtendedAnonymous,
    /// Also PREPARE and EXECUTE of the simple protocol.
    Full,
}

/// What happens to a query above the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuerySizeAction {
    /// It is logged and runs.
    #[default]
    Warn,
    /// It is refused.
    Block,
}

/// TLS to servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TlsMode {
    /// Never.
    Disabled,
    /// Where the server offers it; the certificate is not checked.
    #[default]
    Prefer,
    /// Always, the certificate has to come from the given authority.
    VerifyCa,
    /// Always, and the certificate has to carry the name of the host.
    VerifyFull,
}

/// What a host is in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Takes writes.
    #[default]
    Primary,
    /// Takes reads only.
    Replica,
    /// Found out by asking the host.
    Auto,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
    /// One JSON object a line, its fields at the top level.
    JsonFlattened,
}

/// Whether clients of unknown users are tried against the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PassthroughAuth {
    /// No.
    #[default]
    Disabled,
    /// Yes, over TLS.
    Enabled,
    /// Yes, without TLS too.
    EnabledPlain,
    /// Yes, over TLS, and a new password replaces the old one.
    EnabledAllowChange,
    /// Yes, without TLS too, and a new password replaces the old one.
    EnabledPlainAllowChange,
}

impl PassthroughAuth {
    /// Whether a client is asked for its password as text; `secure` is whether nobody can read along.
    pub fn asks(self, secure: bool) -> bool {
        match self {
            Self::Disabled => false,
            Self::Enabled | Self::EnabledAllowChange => secure,
            Self::EnabledPlain | Self::EnabledPlainAllowChange => true,
        }
    }

    /// Whether another password than the one before is tried.
    pub fn allows_change(self) -> bool {
        matches!(
            self,
            Self::EnabledAllowChange | Self::EnabledPlainAllowChange
        )
    }
}

/// How a host is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoadBalancingStrategy {
    /// By chance.
    #[default]
    Random,
    /// In turn.
    RoundRobin,
    /// The one with the fewest connections in use.
    LeastActiveConnections,
    /// In turn, by weight.
    WeightedRoundRobin,
    /// The better one of two taken by chance: by its connections in use times its latency.
    LeastLatency,
}

/// Where a client's reads go after a write of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadYourWrites {
    /// Where all reads go: they may miss the write for as long as replicas lag.
    #[default]
    Off,
    /// To the primary, for the rest of the session.
    Primary,
    /// To a replica that has replayed the write, else to the primary.
    Replayed,
}

/// Whether the primary serves reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadWriteSplit {
    /// As any replica.
    #[default]
    IncludePrimary,
    /// Never.
    ExcludePrimary,
    /// Only while a replica is banned.
    IncludePrimaryIfReplicaBanned,
    /// First of all.
    PreferPrimary,
}

/// Where explicit transactions go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadWriteStrategy {
    /// To the primary.
    #[default]
    Conservative,
    /// By their first statement.
    Aggressive,
}

/// Whether the schema of the databases is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoadSchema {
    /// When something needs it.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// Which queries are parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueryParserLevel {
    /// Those where a decision needs it.
    #[default]
    Auto,
    /// All.
    On,
    /// None.
    Off,
    /// Those that change the session.
    SessionControl,
    /// Those that change the session or take advisory locks.
    SessionControlAndLocks,
}

/// How the parser hands over its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueryParserEngine {
    /// As protobuf.
    #[default]
    PgQueryProtobuf,
    /// As it is.
    PgQueryRaw,
}

/// Where queries of the system catalogs go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SystemCatalogs {
    /// To one shard, the same for each client.
    #[default]
    OmnishardedSticky,
    /// To any shard.
    Omnisharded,
    /// To all shards.
    Sharded,
}

/// Layout of generated ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UniqueIdFunction {
    /// 64 bits.
    #[default]
    Standard,
    /// 53 bits, exact in JavaScript.
    Compact,
}

/// Format in which tables are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CopyFormat {
    /// Binary.
    #[default]
    Binary,
    /// Text.
    Text,
}

/// What happens when a cutover takes too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CutoverTimeoutAction {
    /// It is given up.
    #[default]
    Abort,
    /// It happens anyway.
    Cutover,
}

/// How the proxy proves to a server who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServerAuth {
    /// With a password.
    #[default]
    Password,
    /// With a token of AWS.
    RdsIam,
    /// With a token of Azure.
    AzureWorkloadIdentity,
    /// With a user made by Vault.
    VaultDynamic,
    /// With a password kept by Vault.
    VaultStatic,
}

/// Type of a sharding key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DataType {
    /// Integer.
    #[default]
    Bigint,
    /// UUID.
    Uuid,
    /// Text.
    Varchar,
    /// Vector of pgvector.
    Vector,
}

/// Function that turns a sharding key into a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Hasher {
    /// As hash partitions of Postgres.
    #[default]
    Postgres,
    /// SHA-1 of the text.
    Sha1,
}

/// What a lookup query gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LookupResult {
    /// The sharding key.
    #[default]
    Value,
    /// The number of the shard.
    Shard,
}

/// Kind of a deprecated mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MappingKind {
    /// A list of values.
    #[default]
    List,
    /// A range.
    Range,
    /// Everything else.
    Default,
}

/// What is done with a statement that has to be rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RewriteMode {
    /// It is passed on as it is.
    #[default]
    Ignore,
    /// It is refused.
    Error,
    /// It is rewritten.
    Rewrite,
    /// It is rewritten, for tables on all shards too.
    RewriteOmni,
}

/// Which transactions are mirrored: whole, for half of one is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MirrorLevel {
    /// All.
    #[default]
    All,
    /// Those with a statement that changes data.
    Dml,
    /// Those with a statement that changes the schema.
    Ddl,
}

/// How the proxy logs in to Vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VaultAuth {
    /// With its service account.
    #[default]
    Kubernetes,
    /// With an AppRole.
    Approle,
}
