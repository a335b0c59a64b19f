//! Keys that are accepted, but have no effect in this version. Whoever builds a feature deletes its lines.

use serde_json::Value as Json;

use crate::problem::{Problem, ProblemCode, Severity};
use crate::{Config, json_schema};

/// Sections and the keys in them; `*` is the section itself, whatever is in it.
pub(crate) const UNSUPPORTED: &[(&str, &[&str])] = &[
    (
        "general",
        &[
            "broadcast_address",
            "broadcast_port",
            "canonicalize_type_information",
            "cross_shard_disabled",
            "cutover_last_transaction_delay",
            "cutover_replication_lag_threshold",
            "cutover_save_config",
            "cutover_timeout",
            "cutover_timeout_action",
            "cutover_traffic_stop_threshold",
            "dry_run",
            "load_schema",
            "log_min_duration_parse",
            "omnisharded_sticky",
            "prepared_statements_ttl",
            "prepared_statements_ttl_jitter",
            "query_log",
            "query_log_stdout",
            "query_parser",
            "query_parser_enabled",
            "query_parser_engine",
            "regex_parser_limit",
            "reload_schema_on_ddl",
            "resharding_copy_format",
            "resharding_copy_retry_max_attempts",
            "resharding_copy_retry_min_delay",
            "resharding_parallel_copies",
            "resharding_replication_retry_max_attempts",
            "resharding_replication_retry_min_delay",
            "sharding_lookup_cache_size",
            "sharding_lookup_timeout",
            "system_catalogs",
            "two_phase_commit",
            "two_phase_commit_auto",
            "two_phase_commit_wal_checkpoint_interval",
            "two_phase_commit_wal_dir",
            "two_phase_commit_wal_fsync_interval",
            "two_phase_commit_wal_segment_size",
            "unique_id_function",
            "unique_id_min",
        ],
    ),
    ("databases", &["shard", "resharding_only"]),
    (
        "users",
        &[
            "server_auth",
            "server_iam_region",
            "server_vault_path",
            "vault_path",
            "vault_refresh_percent",
            "replication_sharding",
            "schema_admin",
            "cross_shard_disabled",
            "two_phase_commit",
            "two_phase_commit_auto",
        ],
    ),
    ("tcp", &["congestion_control"]),
    ("memory", &["message_buffer", "net_buffer", "stack_size"]),
    ("sharded_tables", &["*"]),
    ("sharded_mappings", &["*"]),
    ("sharded_schemas", &["*"]),
    ("omnisharded_tables", &["*"]),
    ("multi_tenant", &["*"]),
    ("query_parsers", &["*"]),
    (
        "rewrite",
        &["enabled", "primary_key", "shard_key", "split_inserts"],
    ),
    ("replication", &["pg_dump_path"]),
    ("plugins", &["*"]),
    (
        "otel",
        &[
            "endpoint",
            "headers",
            "namespace",
            "push_interval",
            "datadog_api_key",
        ],
    ),
    ("vault", &["*"]),
    ("control", &["*"]),
    (
        "query_stats",
        &[
            "max_errors",
            "max_error_age",
            "query_plans_threshold",
            "query_plans_sample_rate",
            "query_plans_cache",
            "query_plans_max_age",
        ],
    ),
    ("qos", &["*"]),
    ("autodiscovery", &["*"]),
];

/// Adds one warning for each of these keys that is set to something other than its default.
pub(crate) fn warn(config: &Config, problems: &mut Vec<Problem>) {
    // A `Config` always becomes JSON: it came from there, and its maps have strings as keys.
    let Ok(written) = serde_json::to_value(config) else {
        return;
    };
    let Ok(defaults) = serde_json::to_value(Config::default()) else {
        return;
    };
    let schema = json_schema();
    for (section, keys) in UNSUPPORTED {
        for key in *keys {
            if let Some(path) = changed(section, key, &written, &defaults, &schema) {
                let place = config.origin.place(&path);
                let message = match (*section, *key) {
                    ("databases", "shard") => {
                        "this version routes to no shard: clients of this database are refused"
                    }
                    _ => "has no effect in this version",
                };
                let mut problem = place.error(&path, ProblemCode::NotImplemented, message);
                problem.severity = Severity::Warning;
                problems.push(problem);
            }
        }
    }
}

/// The path of the first place where a key differs from its default.
fn changed(
    section: &str,
    key: &str,
    written: &Json,
    defaults: &Json,
    schema: &Json,
) -> Option<String> {
    let (now, default) = (&written[section], &defaults[section]);
    match now {
        _ if key == "*" => (now != default).then(|| section.to_owned()),
        // Entries of a list have no default of their own but the one in the schema.
        Json::Array(entries) => {
            let name = schema["properties"][section]["items"]["$ref"]
                .as_str()?
                .strip_prefix("#/$defs/")?;
            let default = &schema["$defs"][name]["properties"][key]["default"];
            let index = entries
                .iter()
                .position(|entry| differs(&entry[key], default))?;
            Some(format!("{section}[{index}].{key}"))
        }
        _ => differs(&now[key], &default[key]).then(|| format!("{section}.{key}")),
    }
}

/// Where the default is "off", the largest integer says the same.
fn differs(now: &Json, default: &Json) -> bool {
    now != default && !(default.is_null() && now.as_u64() == Some(i64::MAX as u64))
}
