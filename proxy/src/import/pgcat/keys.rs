//! What PgCat's keys are to us.

use crate::import::keys::Meaning::{Near, Nothing, Same, Special};
use crate::import::keys::{Key, Kind};

const LOOKED_UP: &str = "there it finds the passwords of listed users, here auth_query lets in everybody whom it finds: write general.auth_user and auth_query where that is meant, else the passwords in users.toml";
const BY_REGEX: &str =
    "write /* pgdog_sharding_key: … */ or /* pgdog_shard: … */ before the statement";

/// `[general]`.
pub(super) const GENERAL: &[Key] = &[
    ("host", Same("host", Kind::Text)),
    ("port", Same("port", Kind::Count)),
    ("enable_prometheus_exporter", Special),
    ("prometheus_exporter_port", Special),
    ("connect_timeout", Special),
    ("idle_timeout", Same("idle_timeout", Kind::Millis)),
    ("server_lifetime", Same("server_lifetime", Kind::Millis)),
    (
        "server_round_robin",
        Nothing("the connection that was used last is used first"),
    ),
    (
        "idle_client_in_transaction_timeout",
        Same("client_idle_in_transaction_timeout", Kind::Millis),
    ),
    (
        "healthcheck_timeout",
        Same("healthcheck_timeout", Kind::Millis),
    ),
    (
        "healthcheck_delay",
        Same("healthcheck_interval", Kind::Millis),
    ),
    ("shutdown_timeout", Same("shutdown_timeout", Kind::Millis)),
    ("ban_time", Same("ban_timeout", Kind::Seconds)),
    (
        "log_client_connections",
        Same("log_connections", Kind::Flag),
    ),
    (
        "log_client_disconnections",
        Same("log_disconnections", Kind::Flag),
    ),
    (
        "autoreload",
        Nothing("general.watch_config = true is the same without a choice of the interval"),
    ),
    ("worker_threads", Same("workers", Kind::Count)),
    ("tcp_keepalives_idle", Special),
    ("tcp_keepalives_count", Special),
    ("tcp_keepalives_interval", Special),
    ("tcp_user_timeout", Special),
    ("dns_cache_enabled", Special),
    ("dns_max_ttl", Special),
    ("tls_certificate", Same("tls_certificate", Kind::Path)),
    ("tls_private_key", Same("tls_private_key", Kind::Path)),
    ("server_tls", Special),
    ("verify_server_certificate", Special),
    ("admin_username", Special),
    ("admin_password", Special),
    (
        "admin_auth_type",
        Nothing("the console asks for its password"),
    ),
    (
        "admin_auth_ldapurl",
        Nothing("the console asks for its password"),
    ),
    (
        "admin_auth_ldapsuffix",
        Nothing("the console asks for its password"),
    ),
    (
        "validate_config",
        Nothing("servers are not asked before the start; pgdog configcheck checks the files"),
    ),
    ("auth_query", Nothing(LOOKED_UP)),
    ("auth_query_user", Nothing(LOOKED_UP)),
    ("auth_query_password", Nothing(LOOKED_UP)),
    ("prepared_statements", Special),
    (
        "prepared_statements_cache_size",
        Same("prepared_statements_limit", Kind::Count),
    ),
];

/// Defaults of `[general]`, where ours are others.
pub(super) const DEFAULTS: &[(&str, &str)] = &[
    ("port", "5432"),
    ("connect_timeout", "1000"),
    ("idle_timeout", "600000"),
    ("server_lifetime", "3600000"),
    ("healthcheck_timeout", "1000"),
    ("ban_time", "60"),
    ("log_client_connections", "false"),
    ("log_client_disconnections", "false"),
    ("worker_threads", "4"),
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_count", "5"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_user_timeout", "10000"),
    ("server_tls", "false"),
];

/// `[pools.NAME]`: what is said about each host of the pool.
pub(super) const POOL: &[Key] = &[
    ("pool_mode", Same("pooler_mode", Kind::Mode)),
    ("idle_timeout", Same("idle_timeout", Kind::Millis)),
    ("server_lifetime", Same("server_lifetime", Kind::Millis)),
    ("connect_timeout", Special),
    ("load_balancing_mode", Special),
    (
        "checkout_failure_limit",
        Nothing("a client may try as often as it likes"),
    ),
    ("default_role", Special),
    ("query_parser_enabled", Special),
    ("query_parser_read_write_splitting", Special),
    (
        "query_parser_max_length",
        Nothing("statements are looked at whatever their length"),
    ),
    ("primary_reads_enabled", Special),
    (
        "db_activity_based_routing",
        Nothing("where a statement goes does not depend on what was written lately"),
    ),
    (
        "db_activity_init_delay",
        Nothing("see db_activity_based_routing"),
    ),
    ("db_activity_ttl", Nothing("see db_activity_based_routing")),
    (
        "table_mutation_cache_ms_ttl",
        Nothing("see db_activity_based_routing"),
    ),
    ("sharding_function", Special),
    ("automatic_sharding_key", Special),
    ("sharding_key_regex", Nothing(BY_REGEX)),
    ("shard_id_regex", Nothing(BY_REGEX)),
    ("regex_search_limit", Nothing(BY_REGEX)),
    (
        "default_shard",
        Nothing(
            "a statement without a sharding key goes to all shards or is refused, see general.cross_shard_disabled",
        ),
    ),
    ("auth_query", Nothing(LOOKED_UP)),
    ("auth_query_user", Nothing(LOOKED_UP)),
    ("auth_query_password", Nothing(LOOKED_UP)),
    (
        "cleanup_server_connections",
        Nothing(
            "what a client changed in its session is always undone before another one gets the connection",
        ),
    ),
    (
        "log_client_parameter_status_changes",
        Nothing("settings of clients are not logged"),
    ),
    ("prepared_statements_cache_size", Special),
    ("query_result_capacity", Nothing("results are not kept")),
];

/// `[pools.NAME.users.N]`.
pub(super) const USER: &[Key] = &[
    ("username", Special),
    ("password", Same("password", Kind::Path)),
    ("auth_type", Special),
    ("auth_ldapurl", Nothing("see auth_type")),
    ("auth_ldapsuffix", Nothing("see auth_type")),
    ("server_username", Same("server_user", Kind::Path)),
    ("server_password", Same("server_password", Kind::Path)),
    ("pool_size", Same("pool_size", Kind::Count)),
    ("min_pool_size", Same("min_pool_size", Kind::Count)),
    ("pool_mode", Same("pooler_mode", Kind::Mode)),
    ("server_lifetime", Same("server_lifetime", Kind::Millis)),
    ("idle_timeout", Same("idle_timeout", Kind::Millis)),
    (
        "connect_timeout",
        Nothing("general.connect_timeout holds for all users"),
    ),
    (
        "statement_timeout",
        Near(
            "statement_timeout",
            Kind::Millis,
            "PostgreSQL cancels the statement here and the client stays, there the connection ends",
        ),
    ),
];

/// `[pools.NAME.shards.N]`.
pub(super) const SHARD: &[Key] = &[
    ("database", Special),
    ("servers", Special),
    ("mirrors", Special),
];
