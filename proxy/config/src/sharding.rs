//! Sharded, copied and mirrored tables, rewrites and what else decides where a statement goes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::macros::section;
use crate::modes::{
    DataType, Hasher, LookupResult, MappingKind, MirrorLevel, QueryParserEngine, QueryParserLevel,
    RewriteMode,
};

/// `[[sharded_tables]]`: a table, or a column of any table, that is spread over the shards of a database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShardedTable {
    /// Database of the table. Required. Applies on reload.
    pub database: String,
    /// Name of the table. Default: every table that has the column. Applies on reload.
    pub name: Option<String>,
    /// Schema of the table. Default: any. Applies on reload.
    pub schema: Option<String>,
    /// Column that holds the sharding key. Default: none. Applies on reload.
    #[serde(default)]
    pub column: String,
    /// Type of the column. Default: bigint. Applies on reload.
    #[serde(default)]
    pub data_type: DataType,
    /// Function that turns a key into a shard. Default: postgres. Applies on reload.
    #[serde(default)]
    pub hasher: Hasher,
    /// Whether this is the table that the keys come from. Default: false. Applies on reload.
    #[serde(default)]
    pub primary: bool,
    /// Shards of single keys and of ranges of keys. Default: the hash of the key. Applies on reload.
    pub mapping: Option<Vec<Mapping>>,
    /// Query that finds the key, its parameter is `$1`. Default: none. Applies on reload.
    pub lookup_query: Option<String>,
    /// What that query gives. Default: value. Applies on reload.
    #[serde(default)]
    pub lookup_result: LookupResult,
    /// Centres of the shards of a vector column. Default: none. Applies on reload.
    #[serde(default)]
    pub centroids: Vec<Vec<f64>>,
    /// JSON file that holds the centroids. Default: none. Applies on reload.
    pub centroids_path: Option<String>,
    /// Centroids that a search looks at. Default: 0, the square root of their number. Applies on reload.
    #[serde(default)]
    pub centroid_probes: usize,
}

/// One entry of `mapping`: a list (`values`), a range (`start`, `end`) or, with neither, all other keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// Shard these keys belong to. Required. Applies on reload.
    pub shard: usize,
    /// Single keys. Default: none. Applies on reload.
    pub values: Option<Vec<ShardKey>>,
    /// First key of a range. Default: open. Applies on reload.
    pub start: Option<ShardKey>,
    /// First key behind a range. Default: open. Applies on reload.
    pub end: Option<ShardKey>,
}

/// A sharding key as written: a number, or the text of a UUID or a string.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ShardKey {
    /// A number.
    Integer(i64),
    /// A UUID or any text.
    Text(String),
}

/// `[[sharded_mappings]]`: the older form of `mapping` of a sharded table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShardedMapping {
    /// Database of the table. Required. Applies on reload.
    pub database: String,
    /// Name of the table. Default: any. Applies on reload.
    pub table: Option<String>,
    /// Schema of the table. Default: any. Applies on reload.
    pub schema: Option<String>,
    /// Column that holds the sharding key. Required. Applies on reload.
    pub column: String,
    /// Kind of the mapping. Required. Applies on reload.
    pub kind: MappingKind,
    /// Keys of a list. Default: none. Applies on reload.
    #[serde(default)]
    pub values: Vec<ShardKey>,
    /// First key of a range. Default: open. Applies on reload.
    pub start: Option<ShardKey>,
    /// First key behind a range. Default: open. Applies on reload.
    pub end: Option<ShardKey>,
    /// Shard these keys belong to. Required. Applies on reload.
    pub shard: usize,
}

/// `[[sharded_schemas]]`: a schema that lives in one shard, or in all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShardedSchema {
    /// Database of the schema. Required. Applies on reload.
    pub database: String,
    /// Name of the schema. Default: every schema not named elsewhere. Applies on reload.
    pub name: Option<String>,
    /// Shard the schema lives in. Default: 0. Applies on reload.
    #[serde(default)]
    pub shard: usize,
    /// Whether the schema lives in all shards. Default: false. Applies on reload.
    #[serde(default)]
    pub all: bool,
}

/// `[[omnisharded_tables]]`: tables that have the same rows in each shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OmnishardedTables {
    /// Database of the tables. Required. Applies on reload.
    pub database: String,
    /// Tables that have the same rows in each shard. Required. Applies on reload.
    pub tables: Vec<String>,
    /// Whether a client reads them always from the same shard. Default: false. Applies on reload.
    #[serde(default)]
    pub sticky: bool,
}

/// `[[mirroring]]`: traffic of one database that is copied to another one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mirroring {
    /// Database whose traffic is copied. Required. Applies on reload.
    pub source_db: String,
    /// Database the copy goes to. Required. Applies on reload.
    pub destination_db: String,
    /// Share of the transactions that are copied, 0.0 to 1.0. Default: `mirror_exposure` of `[general]`. Applies on reload.
    pub exposure: Option<f64>,
    /// Transactions of one client that wait for the mirror. Default: `mirror_queue` of `[general]`. Applies on reload.
    pub queue_length: Option<usize>,
    /// Which transactions are copied, by the statements in them. Default: all. Applies on reload.
    #[serde(default)]
    pub level: MirrorLevel,
}

/// `[multi_tenant]`: every query has to name its tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MultiTenant {
    /// Column that holds the tenant. Required. Applies on reload.
    pub column: String,
}

/// `[[query_parsers]]`: the parser's settings for one database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryParser {
    /// Database that this is about. Required. Applies on reload.
    pub database: String,
    /// Which queries are parsed. Default: `query_parser` of `[general]`. Applies on reload.
    pub level: Option<QueryParserLevel>,
    /// How the parser hands over its tree. Default: `query_parser_engine` of `[general]`. Applies on reload.
    pub engine: Option<QueryParserEngine>,
}

section! {
    /// `[rewrite]`: statements that are rewritten so that they run on shards.
    pub struct Rewrite {
        /// Whether statements are rewritten at all. Default: false. Applies on reload.
        enabled: bool = false,
        /// What is done with inserts without a primary key. Default: ignore. Applies on reload.
        primary_key: RewriteMode = RewriteMode::Ignore,
        /// What is done with updates of a sharding key. Default: error. Applies on reload.
        shard_key: RewriteMode = RewriteMode::Error,
        /// What is done with inserts of several rows. Default: error. Applies on reload.
        split_inserts: RewriteMode = RewriteMode::Error,
    }
}

section! {
    /// `[replication]`: moving data between databases.
    pub struct Replication {
        /// Program that reads the schema. Default: pg_dump. Applies on reload.
        pg_dump_path: String = "pg_dump".to_owned(),
    }
}
