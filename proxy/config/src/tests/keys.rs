//! Every key parses, and every key is in the schema.

use crate::{Config, json_schema};

/// Section, key, a value that is not the default.
const KEYS: &[(&str, &str, &str)] = &[
    ("general", "hold_timeout", "7"),
    ("general", "read_functions", r#"["x"]"#),
    ("general", "read_your_writes", r#""replayed""#),
    ("general", "read_your_writes_timeout", "7"),
    ("general", "slow_start", "7"),
    ("general", "write_functions", r#"["x"]"#),
    ("general", "zone", r#""x""#),
    ("databases", "zone", r#""x""#),
    ("general", "auth_dbname", r#""x""#),
    ("general", "auth_failure_delay", "7"),
    ("general", "auth_failure_delay_max", "7"),
    ("general", "auth_failure_free", "7"),
    ("general", "auth_hba_file", r#""x""#),
    ("general", "auth_ident_file", r#""x""#),
    ("general", "auth_query", r#""x""#),
    ("general", "auth_type", r#""hba""#),
    ("general", "auth_user", r#""x""#),
    ("general", "ban_replica_lag", "7"),
    ("general", "ban_replica_lag_bytes", "7"),
    ("general", "ban_timeout", "7"),
    ("general", "broadcast_address", r#""x""#),
    ("general", "broadcast_port", "7"),
    ("general", "canonicalize_type_information", "true"),
    ("general", "checkout_timeout", "7"),
    ("general", "client_connection_recovery", r#""recover""#),
    ("general", "client_idle_in_transaction_timeout", "7"),
    ("general", "client_idle_timeout", "7"),
    ("general", "client_login_timeout", "7"),
    ("general", "connect_attempt_delay", "7"),
    ("general", "connect_attempts", "7"),
    ("general", "connect_timeout", "7"),
    ("general", "connection_recovery", r#""drop""#),
    ("general", "cross_shard_disabled", "true"),
    ("general", "cutover_last_transaction_delay", "7"),
    ("general", "cutover_replication_lag_threshold", "7"),
    ("general", "cutover_save_config", "true"),
    ("general", "cutover_timeout", "7"),
    ("general", "cutover_timeout_action", r#""cutover""#),
    ("general", "cutover_traffic_stop_threshold", "7"),
    ("general", "default_pool_size", "7"),
    ("general", "dns_ttl", "7"),
    ("general", "dry_run", "true"),
    ("general", "expanded_explain", "true"),
    ("general", "healthcheck_interval", "7"),
    ("general", "healthcheck_port", "7"),
    ("general", "healthcheck_timeout", "7"),
    ("general", "host", r#""x""#),
    ("general", "idle_healthcheck_delay", "7"),
    ("general", "idle_healthcheck_interval", "7"),
    ("general", "idle_timeout", "7"),
    (
        "general",
        "load_balancing_strategy",
        r#""weighted_round_robin""#,
    ),
    ("general", "load_schema", r#""off""#),
    ("general", "log_connections", "false"),
    ("general", "log_dedup_threshold", "7"),
    ("general", "log_dedup_window", "7"),
    ("general", "log_disconnections", "false"),
    ("general", "log_format", r#""json_flattened""#),
    ("general", "log_level", r#""x""#),
    ("general", "log_min_duration_parse", "7"),
    ("general", "log_min_duration_query", "7"),
    ("general", "log_query_sample_length", "7"),
    ("general", "lsn_check_delay", "7"),
    ("general", "lsn_check_interval", "7"),
    ("general", "lsn_check_timeout", "7"),
    ("general", "min_pool_size", "7"),
    ("general", "mirror_exposure", "0.5"),
    ("general", "mirror_queue", "7"),
    ("general", "omnisharded_sticky", "true"),
    ("general", "openmetrics_host", r#""x""#),
    ("general", "openmetrics_namespace", r#""x""#),
    ("general", "openmetrics_port", "7"),
    (
        "general",
        "passthrough_auth",
        r#""enabled_plain_allow_change""#,
    ),
    ("general", "pooler_mode", r#""statement""#),
    ("general", "port", "7"),
    ("general", "prepared_statements", r#""full""#),
    ("general", "prepared_statements_limit", "7"),
    ("general", "prepared_statements_ttl", "7"),
    ("general", "prepared_statements_ttl_jitter", "7"),
    ("general", "pub_sub_channel_size", "7"),
    ("general", "query_cache_limit", "7"),
    ("general", "query_log", r#""x""#),
    ("general", "query_log_stdout", "true"),
    ("general", "query_parser", r#""session_control_and_locks""#),
    ("general", "query_parser_enabled", "true"),
    ("general", "query_parser_engine", r#""pg_query_raw""#),
    ("general", "query_size_limit", "7"),
    ("general", "query_size_limit_action", r#""block""#),
    ("general", "query_timeout", "7"),
    ("general", "read_write_split", r#""prefer_primary""#),
    ("general", "read_write_strategy", r#""aggressive""#),
    ("general", "regex_parser_limit", "7"),
    ("general", "reload_schema_on_ddl", "false"),
    ("general", "require_healthcheck_on_discovery", "true"),
    ("general", "resharding_copy_format", r#""text""#),
    ("general", "resharding_copy_retry_max_attempts", "7"),
    ("general", "resharding_copy_retry_min_delay", "7"),
    ("general", "resharding_parallel_copies", "7"),
    ("general", "resharding_replication_retry_max_attempts", "7"),
    ("general", "resharding_replication_retry_min_delay", "7"),
    ("general", "rollback_timeout", "7"),
    ("general", "server_lifetime", "7"),
    ("general", "server_lifetime_jitter", "7"),
    ("general", "sharding_lookup_cache_size", "7"),
    ("general", "sharding_lookup_timeout", "7"),
    ("general", "shutdown_termination_timeout", "7"),
    ("general", "shutdown_timeout", "7"),
    ("general", "stats_period", "7"),
    ("general", "system_catalogs", r#""sharded""#),
    ("general", "tls_certificate", r#""x""#),
    ("general", "tls_client_ca_certificate", r#""x""#),
    ("general", "tls_client_required", "true"),
    ("general", "tls_private_key", r#""x""#),
    ("general", "tls_server_ca_certificate", r#""x""#),
    ("general", "tls_server_certificate", r#""x""#),
    ("general", "tls_server_private_key", r#""x""#),
    ("general", "tls_verify", r#""verify_full""#),
    ("general", "two_phase_commit", "true"),
    ("general", "two_phase_commit_auto", "true"),
    ("general", "two_phase_commit_wal_checkpoint_interval", "7"),
    ("general", "two_phase_commit_wal_dir", r#""x""#),
    ("general", "two_phase_commit_wal_fsync_interval", "7"),
    ("general", "two_phase_commit_wal_segment_size", "7"),
    ("general", "unique_id_function", r#""compact""#),
    ("general", "unique_id_min", "7"),
    ("general", "watch_config", "true"),
    ("general", "workers", "7"),
    ("databases", "auth_dbname", r#""x""#),
    ("databases", "auth_query", r#""x""#),
    ("databases", "auth_user", r#""x""#),
    ("databases", "database_name", r#""x""#),
    ("databases", "host", r#""x""#),
    ("databases", "idle_timeout", "7"),
    ("databases", "idle_timeout_primary", "7"),
    ("databases", "idle_timeout_replica", "7"),
    ("databases", "lb_weight", "7"),
    ("databases", "lock_timeout", "7"),
    ("databases", "min_pool_size", "7"),
    ("databases", "min_pool_size_primary", "7"),
    ("databases", "min_pool_size_replica", "7"),
    ("databases", "name", r#""x""#),
    ("databases", "password", r#""x""#),
    ("databases", "pool_size", "7"),
    ("databases", "pool_size_primary", "7"),
    ("databases", "pool_size_replica", "7"),
    ("databases", "pooler_mode", r#""statement""#),
    ("databases", "port", "7"),
    ("databases", "read_only", "true"),
    ("databases", "resharding_only", "true"),
    ("databases", "role", r#""auto""#),
    ("databases", "server_lifetime", "7"),
    ("databases", "server_lifetime_jitter", "7"),
    ("databases", "shard", "7"),
    ("databases", "statement_timeout", "7"),
    ("databases", "user", r#""x""#),
    ("users", "all_databases", "true"),
    ("users", "cross_shard_disabled", "true"),
    ("users", "database", r#""x""#),
    ("users", "databases", r#"["x"]"#),
    ("users", "identity", r#""x""#),
    ("users", "idle_timeout", "7"),
    ("users", "idle_timeout_primary", "7"),
    ("users", "idle_timeout_replica", "7"),
    ("users", "lock_timeout", "7"),
    ("users", "min_pool_size", "7"),
    ("users", "min_pool_size_primary", "7"),
    ("users", "min_pool_size_replica", "7"),
    ("users", "name", r#""x""#),
    ("users", "password", r#""x""#),
    ("users", "password_hash", r#""x""#),
    ("users", "passwords", r#"["x"]"#),
    ("users", "pool_size", "7"),
    ("users", "pool_size_primary", "7"),
    ("users", "pool_size_replica", "7"),
    ("users", "pooler_mode", r#""statement""#),
    ("users", "read_only", "true"),
    ("users", "replication_mode", "true"),
    ("users", "replication_sharding", r#""x""#),
    ("users", "schema_admin", "true"),
    ("users", "server_auth", r#""vault_static""#),
    ("users", "server_iam_region", r#""x""#),
    ("users", "server_lifetime", "7"),
    ("users", "server_lifetime_jitter", "7"),
    ("users", "server_password", r#""x""#),
    ("users", "server_user", r#""x""#),
    ("users", "server_vault_path", r#""x""#),
    ("users", "statement_timeout", "7"),
    ("users", "tls_client_certificate_required", "true"),
    ("users", "two_phase_commit", "true"),
    ("users", "two_phase_commit_auto", "true"),
    ("users", "vault_path", r#""x""#),
    ("users", "vault_refresh_percent", "50"),
    ("sharded_tables", "centroid_probes", "7"),
    ("sharded_tables", "centroids", "[[1.0, 2.5]]"),
    ("sharded_tables", "centroids_path", r#""x""#),
    ("sharded_tables", "column", r#""x""#),
    ("sharded_tables", "data_type", r#""vector""#),
    ("sharded_tables", "database", r#""x""#),
    ("sharded_tables", "hasher", r#""sha1""#),
    ("sharded_tables", "lookup_query", r#""x""#),
    ("sharded_tables", "lookup_result", r#""shard""#),
    (
        "sharded_tables",
        "mapping",
        r#"[{ values = [1, "x"], shard = 0 }, { start = 1, end = 9, shard = 1 }, { shard = 2 }]"#,
    ),
    ("sharded_tables", "name", r#""x""#),
    ("sharded_tables", "primary", "true"),
    ("sharded_tables", "schema", r#""x""#),
    ("sharded_mappings", "column", r#""x""#),
    ("sharded_mappings", "database", r#""x""#),
    ("sharded_mappings", "end", "7"),
    ("sharded_mappings", "kind", r#""range""#),
    ("sharded_mappings", "schema", r#""x""#),
    ("sharded_mappings", "shard", "7"),
    ("sharded_mappings", "start", "7"),
    ("sharded_mappings", "table", r#""x""#),
    ("sharded_mappings", "values", r#"[1, "x"]"#),
    ("sharded_schemas", "all", "true"),
    ("sharded_schemas", "database", r#""x""#),
    ("sharded_schemas", "name", r#""x""#),
    ("sharded_schemas", "shard", "7"),
    ("omnisharded_tables", "database", r#""x""#),
    ("omnisharded_tables", "sticky", "true"),
    ("omnisharded_tables", "tables", r#"["x"]"#),
    ("rewrite", "enabled", "true"),
    ("rewrite", "primary_key", r#""rewrite_omni""#),
    ("rewrite", "shard_key", r#""rewrite_omni""#),
    ("rewrite", "split_inserts", r#""rewrite_omni""#),
    ("mirroring", "destination_db", r#""x""#),
    ("mirroring", "exposure", "0.5"),
    ("mirroring", "level", r#""ddl""#),
    ("mirroring", "queue_length", "7"),
    ("mirroring", "source_db", r#""x""#),
    ("multi_tenant", "column", r#""x""#),
    ("plugins", "config", r#""x""#),
    ("plugins", "name", r#""x""#),
    ("admin", "http_client_ca", r#""x""#),
    ("admin", "http_client_name", r#""x""#),
    ("admin", "http_host", r#""x""#),
    ("admin", "http_port", "7"),
    ("admin", "http_tls_certificate", r#""x""#),
    ("admin", "http_tls_private_key", r#""x""#),
    ("admin", "http_token_file", r#""x""#),
    ("admin", "name", r#""x""#),
    ("admin", "password", r#""x""#),
    ("admin", "state_dir", r#""x""#),
    ("admin", "user", r#""x""#),
    ("snapshot", "epoch", "7"),
    ("snapshot", "settings_revision", "7"),
    ("snapshot", "topology_revision", "7"),
    ("snapshot", "budget_revision", "7"),
    ("snapshot", "paused", "true"),
    ("budget", "default", "7"),
    ("budget", "hosts", r#"{ "h:5432" = 7 }"#),
    ("memory", "message_buffer", "7"),
    ("memory", "net_buffer", "7"),
    ("memory", "stack_size", "7"),
    ("tcp", "congestion_control", r#""x""#),
    ("tcp", "interval", "7"),
    ("tcp", "keepalive", "false"),
    ("tcp", "retries", "7"),
    ("tcp", "time", "7"),
    ("tcp", "user_timeout", "7"),
    ("otel", "datadog_api_key", r#""x""#),
    ("otel", "endpoint", r#""x""#),
    ("otel", "headers", r#"{ a = "b" }"#),
    ("otel", "namespace", r#""x""#),
    ("otel", "push_interval", "7"),
    ("replica_lag", "check_interval", "7"),
    ("replica_lag", "max_age", "7"),
    ("replication", "pg_dump_path", r#""x""#),
    ("vault", "approle_role_id", r#""x""#),
    ("vault", "approle_secret_id_file", r#""x""#),
    ("vault", "auth_method", r#""approle""#),
    ("vault", "auth_mount", r#""x""#),
    ("vault", "client_token_ttl", "7"),
    ("vault", "kubernetes_jwt_path", r#""x""#),
    ("vault", "kubernetes_role", r#""x""#),
    ("vault", "namespace", r#""x""#),
    ("vault", "url", r#""x""#),
    ("query_parsers", "database", r#""x""#),
    ("query_parsers", "level", r#""on""#),
    ("query_parsers", "engine", r#""pg_query_raw""#),
    ("general", "max_pool_size", "7"),
    ("databases", "max_pool_size", "7"),
    ("general", "max_client_conn", "7"),
    ("general", "max_logins_per_address", "7"),
    ("general", "max_db_connections", "7"),
    ("general", "max_user_connections", "7"),
    ("general", "max_db_client_connections", "7"),
    ("general", "max_user_client_connections", "7"),
    ("general", "reserve_pool_size", "7"),
    ("general", "reserve_pool_timeout", "7"),
    ("general", "max_connecting", "7"),
    ("general", "max_pinned_connections", "7"),
    ("general", "transaction_timeout", "7"),
    ("general", "unix_socket_dir", r#""x""#),
    ("general", "unix_socket_mode", r#""0700""#),
    ("general", "listen_backlog", "7"),
    ("general", "peer_id", "7"),
    ("general", "plain_without_tls", "true"),
    ("databases", "max_db_connections", "7"),
    ("databases", "max_db_client_connections", "7"),
    ("databases", "reserve_pool_size", "7"),
    ("databases", "reserve_pool_timeout", "7"),
    ("databases", "max_pinned_connections", "7"),
    ("users", "max_user_connections", "7"),
    ("users", "max_user_client_connections", "7"),
    ("users", "reserve_pool_size", "7"),
    ("users", "max_pinned_connections", "7"),
    ("users", "auth_type", r#""md5""#),
    ("peers", "id", "7"),
    ("peers", "host", r#""x""#),
    ("peers", "port", "7"),
    ("peers", "pod_uid", r#""x""#),
    ("control", "anything", "7"),
    ("query_stats", "enabled", "true"),
    ("query_stats", "max_entries", "7"),
    ("query_stats", "max_errors", "7"),
    ("query_stats", "max_error_age", "7"),
    ("query_stats", "query_plans_threshold", "7"),
    ("query_stats", "query_plans_sample_rate", "0.5"),
    ("query_stats", "query_plans_cache", "7"),
    ("query_stats", "query_plans_max_age", "7"),
    ("qos", "anything", "true"),
    ("autodiscovery", "anything", "[7]"),
];

/// What the entries of a list cannot do without.
const REQUIRED: &[(&str, &[&str])] = &[
    ("databases", &["name", "host"]),
    ("users", &["name"]),
    ("peers", &["id", "host", "port"]),
    ("sharded_tables", &["database"]),
    ("sharded_mappings", &["database", "column", "kind", "shard"]),
    ("sharded_schemas", &["database"]),
    ("omnisharded_tables", &["database", "tables"]),
    ("mirroring", &["source_db", "destination_db"]),
    ("multi_tenant", &["column"]),
    ("plugins", &["name"]),
    ("query_parsers", &["database"]),
    ("replica_lag", &["check_interval", "max_age"]),
    ("vault", &["url", "auth_method"]),
];

const LISTS: &[&str] = &[
    "databases",
    "users",
    "peers",
    "sharded_tables",
    "sharded_mappings",
    "sharded_schemas",
    "omnisharded_tables",
    "mirroring",
    "plugins",
    "query_parsers",
];

fn value(section: &str, key: &str) -> &'static str {
    KEYS.iter()
        .find(|(of, name, _)| *of == section && *name == key)
        .unwrap()
        .2
}

fn document(section: &str, key: &str, text: &str) -> String {
    let required = REQUIRED
        .iter()
        .find(|(of, _)| *of == section)
        .map_or(&[][..], |(_, keys)| keys);
    let head = if LISTS.contains(&section) {
        format!("[[{section}]]\n")
    } else {
        format!("[{section}]\n")
    };
    let others = required.iter().filter(|name| **name != key);
    let others: String = others
        .map(|name| format!("{name} = {}\n", value(section, name)))
        .collect();
    format!("{head}{others}{key} = {text}\n")
}

#[test]
fn every_key_parses_and_survives_a_round_trip() {
    for (section, key, text) in KEYS {
        let document = document(section, key, text);
        let config =
            Config::from_toml(&document, "").unwrap_or_else(|error| panic!("{document}\n{error}"));
        assert!(config != Config::default(), "it is the default: {document}");
        let again = toml::to_string(&config).unwrap();
        assert_eq!(Config::from_toml(&again, "").unwrap(), config, "{document}");
        let yaml = serde_yaml::to_string(&config).unwrap();
        assert_eq!(Config::from_yaml(&yaml).unwrap(), config, "{document}");
    }
}

#[test]
fn every_key_of_the_schema_is_in_this_list() {
    let schema = json_schema();
    for (section, property) in schema["properties"].as_object().unwrap() {
        let reference = property["$ref"]
            .as_str()
            .or_else(|| property["items"]["$ref"].as_str())
            .or_else(|| property["anyOf"][0]["$ref"].as_str());
        let Some(reference) = reference else { continue };
        let definition = &schema["$defs"][reference.strip_prefix("#/$defs/").unwrap()];
        for (key, property) in definition["properties"].as_object().unwrap() {
            assert!(
                KEYS.iter()
                    .any(|(of, name, _)| of == section && name == key),
                "{section}.{key} is not tested"
            );
            let text = property["description"].as_str().unwrap_or_default();
            assert!(
                text.contains("reload") || text.contains("restart"),
                "{section}.{key} does not say when it applies"
            );
        }
    }
}

#[test]
fn every_key_refuses_a_value_of_another_type() {
    for (section, key, text) in KEYS.iter().filter(|(_, key, _)| *key != "anything") {
        let wrong = if text.starts_with('"') {
            "1979-05-27"
        } else {
            "\"wrong\""
        };
        if matches!(*key, "start" | "end") {
            continue;
        }
        let document = document(section, key, wrong);
        let problems = Config::from_toml(&document, "").expect_err(&document);
        assert_eq!(problems.0.len(), 1, "{document}\n{problems}");
        assert_eq!(
            problems.0[0].line,
            Some(document.lines().count() as u32),
            "{document}\n{problems}"
        );
    }
}

#[test]
fn keys_that_have_no_effect_name_keys_that_exist() {
    let schema = crate::check::Schema::new();
    for (section, keys) in crate::unsupported::UNSUPPORTED {
        assert!(
            json_schema()["properties"].get(section).is_some(),
            "{section}"
        );
        for key in keys.iter().filter(|key| **key != "*") {
            assert!(
                schema.section(section)["properties"].get(key).is_some(),
                "{section}.{key}"
            );
        }
    }
}
