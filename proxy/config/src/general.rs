//! `[general]`: the listener, workers, timeouts and the defaults of every pool.

use crate::macros::section;
use crate::modes::{
    ClientAuth, ClientRecovery, CopyFormat, CutoverTimeoutAction, LoadBalancingStrategy,
    LoadSchema, LogFormat, PassthroughAuth, PoolerMode, PreparedLevel, QueryParserEngine,
    QueryParserLevel, QuerySizeAction, ReadWriteSplit, ReadWriteStrategy, ReadYourWrites, Recovery,
    SystemCatalogs, TlsMode, UniqueIdFunction,
};

/// All names with their schema: what runs as a user who reads passwords must not depend on a `search_path`.
const DEFAULT_AUTH_QUERY: &str = "SELECT rolname, CASE WHEN rolvaliduntil OPERATOR(pg_catalog.<) pg_catalog.now() THEN NULL ELSE rolpassword END FROM pg_catalog.pg_authid WHERE rolname OPERATOR(pg_catalog.=) $1 AND rolcanlogin";

section! {
    /// `[general]`: what holds for the whole proxy, and the defaults of databases and users.
    ///
    /// Times are in milliseconds. Where a time is "off" by default, 0 and 9223372036854775807 switch it off as well.
    pub struct General {
        // Listening
        /// Address that clients connect to. Default: 0.0.0.0. Needs a restart.
        host: String = "0.0.0.0".to_owned(),
        /// TCP port that clients connect to. Default: 6432. Needs a restart.
        port: u16 = 6432,
        /// Directory of the unix socket that clients connect to. Default: none. Needs a restart.
        unix_socket_dir: Option<String> = None,
        /// Permissions of the unix socket, octal. Default: 0777. Needs a restart.
        unix_socket_mode: String = "0777".to_owned(),
        /// Connections the kernel queues before they are accepted. Default: 1024. Needs a restart.
        listen_backlog: u32 = 1024,
        /// Worker threads, 0 means one. Default: 2. Needs a restart.
        workers: usize = 2,
        /// Number of this proxy among its `[[peers]]`, put into cancel keys. Default: 0 = none. Needs a restart.
        peer_id: u16 = 0,
        /// Clients that may be connected at once. Default: 0 = unlimited. Applies on reload.
        max_client_conn: u32 = 0,
        /// Whether a changed file of the configuration, certificates among them, is a reload. Default: false. Applies on reload.
        watch_config: bool = false,
        /// Time that clients get to finish at shutdown, ms. Default: 60000. Applies on reload.
        shutdown_timeout: u64 = 60_000,
        /// Further time at shutdown in which running queries are cancelled, ms. Default: none = skipped. Applies on reload.
        shutdown_termination_timeout: Option<u64> = None,

        // Clients
        /// How clients prove who they are. Default: scram. Applies on reload.
        auth_type: ClientAuth = ClientAuth::Scram,
        /// Rules as in `pg_hba.conf` for `auth_type = "hba"`, path to the file. Default: none. Applies on reload.
        auth_hba_file: Option<String> = None,
        /// Maps as in `pg_ident.conf` that those rules name, path to the file. Default: none. Applies on reload.
        auth_ident_file: Option<String> = None,
        /// Query for the password of a user who is not in `[[users]]`: `$1` is the name, the answer has one row of name and
        /// password (as in `pg_authid`). It runs as `auth_user`. Default: one of `pg_authid`. Applies on reload.
        auth_query: String = DEFAULT_AUTH_QUERY.to_owned(),
        /// User of `[[users]]` that runs `auth_query`. Default: none = no query. Applies on reload.
        auth_user: Option<String> = None,
        /// Database of `[[databases]]` in which `auth_query` runs. Default: the one the client asked for. Applies on reload.
        auth_dbname: Option<String> = None,
        /// Failed logins of one address (of IPv6: of one network of 64 bits) that cost nothing. Default: 10. Applies on reload.
        auth_failure_free: u32 = 10,
        /// Delay of the answer to the first failed login after those, doubled by each further one, ms, 0 = off. Default: 500. Applies on reload.
        auth_failure_delay: u64 = 500,
        /// Longest such delay, and time after which one failure is forgotten, ms. Default: 30000. Applies on reload.
        auth_failure_delay_max: u64 = 30_000,
        /// Clients of one address that may be logging in at once. Default: 0 = unlimited. Applies on reload.
        max_logins_per_address: u32 = 0,
        /// Whether `auth_type = "plain"` is allowed without TLS. Default: false. Applies on reload.
        plain_without_tls: bool = false,
        /// Whether clients of unknown users are tried against the server. Default: disabled. Applies on reload.
        passthrough_auth: PassthroughAuth = PassthroughAuth::Disabled,
        /// Time a client has to log in, ms. Default: 60000. Applies on reload.
        client_login_timeout: u64 = 60_000,
        /// Time after which an idle client is disconnected, ms. Default: off. Applies on reload.
        client_idle_timeout: Option<u64> = None,
        /// Time after which a client idle in a transaction is disconnected, ms. Default: off. Applies on reload.
        client_idle_in_transaction_timeout: Option<u64> = None,
        /// Longest time a transaction may take, ms. Default: off. Applies on reload.
        transaction_timeout: Option<u64> = None,
        /// Longest time a query may take, ms. Default: off. Applies on reload.
        query_timeout: Option<u64> = None,
        /// Whether a client outlives the loss of its server connection. Default: drop. Applies on reload.
        client_connection_recovery: ClientRecovery = ClientRecovery::Drop,
        /// What happens to a server connection whose client left it unfinished. Default: recover. Applies on reload.
        connection_recovery: Recovery = Recovery::Recover,
        /// Time to bring an abandoned server connection back into order, ms. Default: 5000. Applies on reload.
        rollback_timeout: u64 = 5_000,
        /// Largest query a client may send, bytes. Default: none. Applies on reload.
        query_size_limit: Option<u64> = None,
        /// What happens to a query above `query_size_limit`. Default: warn. Applies on reload.
        query_size_limit_action: QuerySizeAction = QuerySizeAction::Warn,
        /// Which prepared statements are managed for clients. Default: extended. Applies on reload.
        prepared_statements: PreparedLevel = PreparedLevel::Extended,
        /// Prepared statements kept on one server connection. Default: off. Applies on reload.
        prepared_statements_limit: Option<u64> = None,
        /// Time after which an unused prepared statement is forgotten, ms. Default: none. Applies on reload.
        prepared_statements_ttl: Option<u64> = None,
        /// Spread of `prepared_statements_ttl`, ms. Default: 30000. Applies on reload.
        prepared_statements_ttl_jitter: u64 = 30_000,
        /// Notifications that may wait for one client that listens over the connection that the clients of its pool share.
        /// Default: 0 = off, who listens keeps a server of its own. Applies on reload, to clients that begin to listen.
        pub_sub_channel_size: usize = 0,

        // Pools
        /// When a server connection goes back to its pool. Default: transaction. Applies on reload, to clients that log in from then on.
        pooler_mode: PoolerMode = PoolerMode::Transaction,
        /// Most server connections of one pool. Default: 10. Applies on reload.
        default_pool_size: u32 = 10,
        /// Server connections kept open in each pool. Default: 1. Applies on reload.
        min_pool_size: u32 = 1,
        /// Server connections a pool may open above its size when clients wait too long. Default: 0. Applies on reload.
        reserve_pool_size: u32 = 0,
        /// Wait after which the reserve is used, ms. Default: 5000. Applies on reload.
        reserve_pool_timeout: u64 = 5_000,
        /// Server connections of one database over all its users. Default: 0 = unlimited. Applies on reload.
        max_db_connections: u32 = 0,
        /// Server connections of one user over all its databases. Default: 0 = unlimited. Applies on reload.
        max_user_connections: u32 = 0,
        /// Clients of one database. Default: 0 = unlimited. Applies on reload.
        max_db_client_connections: u32 = 0,
        /// Clients of one user. Default: 0 = unlimited. Applies on reload.
        max_user_client_connections: u32 = 0,
        /// Server connections that one pool opens at the same time. Default: 4. Applies on reload.
        max_connecting: u32 = 4,
        /// Server connections of one pool that may be pinned to clients outside of a transaction. Default: 0 = unlimited. Applies on reload.
        max_pinned_connections: u32 = 0,
        /// Time a client waits for a server connection, ms. Default: 5000. Applies on reload.
        checkout_timeout: u64 = 5_000,
        /// Time one attempt to connect to a server may take, ms. Default: 5000. Applies on reload.
        connect_timeout: u64 = 5_000,
        /// Attempts to open one server connection. Default: 1. Applies on reload.
        connect_attempts: u32 = 1,
        /// Pause between these attempts, ms. Default: 0. Applies on reload.
        connect_attempt_delay: u64 = 0,
        /// Time after which an idle server connection is closed, ms, 0 = never. Default: 60000. Applies on reload.
        idle_timeout: u64 = 60_000,
        /// Age at which a server connection is closed, ms, 0 = never. Default: 86400000 (a day). Applies on reload.
        server_lifetime: u64 = 86_400_000,
        /// Spread of `server_lifetime`, ms. Default: 0. Applies on reload.
        server_lifetime_jitter: u64 = 0,
        /// Idle time after which a server connection is checked before use, ms, 0 = always. Default: 30000. Applies on reload.
        healthcheck_interval: u64 = 30_000,
        /// Time such a check may take, ms. Default: 5000. Applies on reload.
        healthcheck_timeout: u64 = 5_000,
        /// Interval of the checks in the background, each over a connection of its own, ms, 0 = off. Default: 30000. Applies on reload.
        idle_healthcheck_interval: u64 = 30_000,
        /// Time before the first check in the background of a database with one host, ms; several hosts are looked at from the
        /// start. Default: 5000. Applies on reload.
        idle_healthcheck_delay: u64 = 5_000,
        /// Whether a new host gets no traffic before it passed a check. Default: false. Applies on reload.
        require_healthcheck_on_discovery: bool = false,
        /// Port of plain HTTP for health: /livez, /startupz, /readyz, which any other path stands for; at `openmetrics_host`. Default: none = off. Needs a restart.
        healthcheck_port: Option<u16> = None,
        /// Interval at which the names of hosts are looked up again, ms; where the addresses have changed, the server connections
        /// are renewed. Default: none = each new connection looks its name up, and those that are open stay. Applies on reload.
        dns_ttl: Option<u64> = None,

        // TLS
        /// Certificate chain shown to clients, path to a PEM file. Default: none. Applies on reload.
        tls_certificate: Option<String> = None,
        /// Private key of `tls_certificate`, path to a PEM file. Default: none. Applies on reload.
        tls_private_key: Option<String> = None,
        /// Whether clients without TLS are refused. Default: false. Applies on reload.
        tls_client_required: bool = false,
        /// Authority that signs certificates of clients, path to a PEM file; turns on mutual TLS. Default: none. Applies on reload.
        tls_client_ca_certificate: Option<String> = None,
        /// TLS to servers and how far their certificate is checked. Default: prefer. Applies on reload.
        tls_verify: TlsMode = TlsMode::Prefer,
        /// Authority that signs certificates of servers, path to a PEM file. Default: none. Applies on reload.
        tls_server_ca_certificate: Option<String> = None,
        /// Certificate shown to servers, path to a PEM file. Default: none. Applies on reload.
        tls_server_certificate: Option<String> = None,
        /// Private key of `tls_server_certificate`, path to a PEM file. Default: none. Applies on reload.
        tls_server_private_key: Option<String> = None,

        // Load balancing
        /// How a host is chosen for a read. Default: random. Applies on reload.
        load_balancing_strategy: LoadBalancingStrategy = LoadBalancingStrategy::Random,
        /// Whether the primary serves reads. Default: include_primary. Applies on reload.
        read_write_split: ReadWriteSplit = ReadWriteSplit::IncludePrimary,
        /// Where transactions that began with a read go. Default: conservative. Applies on reload.
        read_write_strategy: ReadWriteStrategy = ReadWriteStrategy::Conservative,
        /// Zone that the proxy runs in: reads stay within it while a host with the same `zone` may answer them. Default: none. Applies on reload.
        zone: Option<String> = None,
        /// Time in which the share of a host grows to its full size when it is back after a ban, ms, 0 = at once. Default: 5000. Applies on reload.
        slow_start: u64 = 5_000,
        /// Functions that only read, whatever the database says of them: `name` or `schema.name`. Default: none. Applies on reload.
        read_functions: Vec<String> = Vec::new(),
        /// Functions that write, whatever the database says of them: `name` or `schema.name`. Default: none. Applies on reload.
        write_functions: Vec<String> = Vec::new(),
        /// Where the reads of a client go that has written. Default: off. Applies on reload.
        read_your_writes: ReadYourWrites = ReadYourWrites::Off,
        /// Time that such a read waits for a replica with `read_your_writes = "replayed"` before it goes to the primary, ms. Default: 0. Applies on reload.
        read_your_writes_timeout: u64 = 0,
        /// Time that a write waits while no host is known to be the primary, ms. Default: 10000. Applies on reload.
        hold_timeout: u64 = 10_000,
        /// Time a banned host gets no reads, and longer while its checks fail, ms. Default: 300000. Applies on reload.
        ban_timeout: u64 = 300_000,
        /// Lag at which a replica is banned, ms. Default: off. Applies on reload.
        ban_replica_lag: Option<u64> = None,
        /// Lag at which a replica is banned, bytes. Default: off. Applies on reload.
        ban_replica_lag_bytes: Option<u64> = None,
        /// Time before the first look at roles and replication positions, ms; 9223372036854775807 means none where the roles
        /// are fixed and nothing else needs it. Default: none = at once where there are several hosts. Applies on reload.
        lsn_check_delay: Option<u64> = None,
        /// Interval of looks at roles and replication positions, ms. Default: 5000. Applies on reload.
        lsn_check_interval: u64 = 5_000,
        /// Time such a look may take, ms. Default: 5000. Applies on reload.
        lsn_check_timeout: u64 = 5_000,
        /// Transactions of one client that wait for a mirror. Default: 128. Applies on reload.
        mirror_queue: usize = 128,
        /// Share of the transactions that are mirrored, 0.0 to 1.0. Default: 1.0. Applies on reload.
        mirror_exposure: f64 = 1.0,

        // Parser
        /// Which queries are parsed. Default: auto. Applies on reload.
        query_parser: QueryParserLevel = QueryParserLevel::Auto,
        /// Deprecated, the same as `query_parser = "on"`. Default: false. Applies on reload.
        query_parser_enabled: bool = false,
        /// How the parser hands over its tree. Default: pg_query_protobuf. Needs a restart.
        query_parser_engine: QueryParserEngine = QueryParserEngine::PgQueryProtobuf,
        /// Query strings, without their constants, that are remembered with where they may go; 0 has each parsed anew.
        /// Default: 10000. Applies on reload.
        query_cache_limit: usize = 10_000,
        /// Bytes of a query looked at before it is parsed. Default: 1000. Applies on reload.
        regex_parser_limit: usize = 1_000,
        /// Whether EXPLAIN shows how the query was routed. Default: false. Applies on reload.
        expanded_explain: bool = false,
        /// Whether routing is worked out and recorded, but not applied. Default: false. Applies on reload.
        dry_run: bool = false,
        /// Whether the schema of the databases is read. Default: auto. Applies on reload.
        load_schema: LoadSchema = LoadSchema::Auto,
        /// Whether the schema is read again after DDL. Default: true. Applies on reload.
        reload_schema_on_ddl: bool = true,
        /// Whether type numbers that differ between shards are made the same. Default: false. Applies on reload.
        canonicalize_type_information: bool = false,

        // Sharding
        /// Whether queries over more than one shard are refused. Default: false. Applies on reload.
        cross_shard_disabled: bool = false,
        /// Whether a client reads tables copied to all shards from one shard. Default: false. Applies on reload.
        omnisharded_sticky: bool = false,
        /// Where queries of the system catalogs go. Default: omnisharded_sticky. Applies on reload.
        system_catalogs: SystemCatalogs = SystemCatalogs::OmnishardedSticky,
        /// Memory for looked up sharding keys, bytes for each database. Default: 67108864. Applies on reload.
        sharding_lookup_cache_size: u64 = 67_108_864,
        /// Time that looking up a sharding key may take, ms. Default: 5000. Applies on reload.
        sharding_lookup_timeout: u64 = 5_000,
        /// Layout of generated ids. Default: standard. Needs a restart.
        unique_id_function: UniqueIdFunction = UniqueIdFunction::Standard,
        /// Number added to generated ids. Default: 0. Needs a restart.
        unique_id_min: u64 = 0,
        /// Whether transactions over shards commit in two phases. Default: false. Applies on reload.
        two_phase_commit: bool = false,
        /// Whether single statements over shards commit in two phases. Default: off. Applies on reload.
        two_phase_commit_auto: Option<bool> = None,
        /// Directory of the log of two-phase commits. Default: none = no log. Needs a restart.
        two_phase_commit_wal_dir: Option<String> = None,
        /// Size at which a new file of this log begins, bytes. Default: 16777216. Needs a restart.
        two_phase_commit_wal_segment_size: u64 = 16_777_216,
        /// Time between writes of this log to disk, ms. Default: 0 = each batch. Needs a restart.
        two_phase_commit_wal_fsync_interval: u64 = 0,
        /// Time between checkpoints of this log, ms. Default: 15000. Needs a restart.
        two_phase_commit_wal_checkpoint_interval: u64 = 15_000,
        /// Format in which tables are copied. Default: binary. Applies on reload.
        resharding_copy_format: CopyFormat = CopyFormat::Binary,
        /// Attempts to copy one table. Default: 5. Applies on reload.
        resharding_copy_retry_max_attempts: usize = 5,
        /// Pause before the second attempt, doubled each time, ms. Default: 1000. Applies on reload.
        resharding_copy_retry_min_delay: u64 = 1_000,
        /// Tables copied at the same time from one replica. Default: 1. Applies on reload.
        resharding_parallel_copies: usize = 1,
        /// Attempts to go on with replication, 0 = unlimited. Default: 5. Applies on reload.
        resharding_replication_retry_max_attempts: usize = 5,
        /// Pause between these attempts, ms. Default: 1000. Applies on reload.
        resharding_replication_retry_min_delay: u64 = 1_000,
        /// Time the cutover may take, ms. Default: 30000. Applies on reload.
        cutover_timeout: u64 = 30_000,
        /// What happens when `cutover_timeout` is over. Default: abort. Applies on reload.
        cutover_timeout_action: CutoverTimeoutAction = CutoverTimeoutAction::Abort,
        /// Lag at which traffic is paused for the cutover, bytes. Default: 1000000. Applies on reload.
        cutover_traffic_stop_threshold: u64 = 1_000_000,
        /// Lag at which the cutover happens, bytes. Default: 0. Applies on reload.
        cutover_replication_lag_threshold: u64 = 0,
        /// Time without a transaction after which the cutover happens, ms. Default: 1000. Applies on reload.
        cutover_last_transaction_delay: u64 = 1_000,
        /// Whether the configuration after the cutover is written to disk. Default: false. Applies on reload.
        cutover_save_config: bool = false,

        // Looking inside
        /// What is logged, a level or a filter as in RUST_LOG, which wins at the start. Default: info. Applies on reload.
        log_level: String = "info".to_owned(),
        /// How log lines look. Default: text. Needs a restart.
        log_format: LogFormat = LogFormat::Text,
        /// Whether connecting clients are logged. Default: true. Applies on reload.
        log_connections: bool = true,
        /// Whether disconnecting clients are logged. Default: true. Applies on reload.
        log_disconnections: bool = true,
        /// Length of a query in the log, characters. Default: 1000. Applies on reload.
        log_query_sample_length: usize = 1_000,
        /// Time above which parsing a query is logged, ms. Default: none. Applies on reload.
        log_min_duration_parse: Option<u64> = None,
        /// Time above which a query is logged, its constants left out, ms. Default: off. Applies on reload.
        log_min_duration_query: Option<u64> = None,
        /// Times that a log line appears within `log_dedup_window`, further ones are counted. Default: 0 = off. Applies on reload.
        log_dedup_threshold: usize = 0,
        /// Time in which log lines count as repetitions, ms. Default: 0 = off. Applies on reload.
        log_dedup_window: u64 = 0,
        /// File that all queries are written to. Default: none. Applies on reload.
        query_log: Option<String> = None,
        /// Whether all queries are written to standard output. Default: false. Applies on reload.
        query_log_stdout: bool = false,
        /// Time over which averages are taken, ms. Default: 15000. Applies on reload.
        stats_period: u64 = 15_000,
        /// Address of the health and metrics endpoints. Default: 0.0.0.0. Needs a restart.
        openmetrics_host: String = "0.0.0.0".to_owned(),
        /// Port of plain HTTP for metrics, /metrics; may be `healthcheck_port` too. Default: none = off. Needs a restart.
        openmetrics_port: Option<u16> = None,
        /// Prefix of the names of metrics. Default: none. Needs a restart.
        openmetrics_namespace: Option<String> = None,
        /// Multicast address over which proxies find each other. Default: none. Needs a restart.
        broadcast_address: Option<String> = None,
        /// Port for it. Default: 6433. Needs a restart.
        broadcast_port: u16 = 6433,
    }
}
