//! What the keys of `[pgbouncer]` are to us.

use crate::import::keys::Meaning::{Near, Nothing, Same, Special};
use crate::import::keys::{Key, Kind};

/// Every key of PgBouncer 1.26's manual, and those of older versions that still stand in files.
pub(super) const KEYS: &[Key] = &[
    // Where it listens
    ("listen_addr", Special),
    ("listen_port", Same("port", Kind::Count)),
    ("unix_socket_dir", Special),
    ("unix_socket_mode", Same("unix_socket_mode", Kind::Text)),
    (
        "unix_socket_group",
        Nothing(
            "the socket belongs to the group of the process; set unix_socket_mode to who may use it",
        ),
    ),
    ("listen_backlog", Same("listen_backlog", Kind::Count)),
    (
        "so_reuseport",
        Nothing(
            "one process uses several cores, set general.workers in place of several processes",
        ),
    ),
    ("peer_id", Same("peer_id", Kind::Count)),
    // The process
    (
        "logfile",
        Nothing("the log goes to standard output, for the service manager to keep"),
    ),
    (
        "pidfile",
        Nothing("it does not put itself into the background"),
    ),
    ("user", Nothing("start it as that user")),
    ("conffile", Nothing("the file is an argument, --config")),
    ("service_name", Nothing("for Windows only")),
    ("job_name", Nothing("for Windows only")),
    (
        "syslog",
        Nothing("the log goes to standard output, for the service manager to keep"),
    ),
    ("syslog_ident", Nothing("there is no syslog")),
    ("syslog_facility", Nothing("there is no syslog")),
    ("verbose", Special),
    ("log_connections", Same("log_connections", Kind::Flag)),
    ("log_disconnections", Same("log_disconnections", Kind::Flag)),
    (
        "log_pooler_errors",
        Nothing("errors of the proxy are always logged"),
    ),
    ("log_stats", Nothing("figures are not written to the log")),
    ("stats_period", Same("stats_period", Kind::Seconds)),
    // Pools
    ("pool_mode", Same("pooler_mode", Kind::Mode)),
    ("max_client_conn", Same("max_client_conn", Kind::Count)),
    ("default_pool_size", Same("default_pool_size", Kind::Count)),
    ("min_pool_size", Special),
    ("reserve_pool_size", Same("reserve_pool_size", Kind::Count)),
    (
        "reserve_pool_timeout",
        Same("reserve_pool_timeout", Kind::SecondsOrNever),
    ),
    (
        "max_db_connections",
        Same("max_db_connections", Kind::Count),
    ),
    (
        "max_db_client_connections",
        Same("max_db_client_connections", Kind::Count),
    ),
    (
        "max_user_connections",
        Near(
            "max_user_connections",
            Kind::Count,
            "counts for the user of the client here, for the user of the server there; where databases have a user= of their own the two differ",
        ),
    ),
    (
        "max_user_client_connections",
        Same("max_user_client_connections", Kind::Count),
    ),
    (
        "server_round_robin",
        Nothing("the connection that was used last is used first"),
    ),
    (
        "server_fast_close",
        Nothing(
            "a session keeps its connection until the client leaves, also when the configuration changed",
        ),
    ),
    ("server_lifetime", Special),
    ("server_idle_timeout", Same("idle_timeout", Kind::Seconds)),
    (
        "server_connect_timeout",
        Same("connect_timeout", Kind::SecondsOrNever),
    ),
    (
        "server_login_retry",
        Nothing(
            "a failed login to the server is tried again by itself, sooner at first and then less often",
        ),
    ),
    ("server_check_delay", Special),
    ("server_check_query", Special),
    (
        "autodb_idle_timeout",
        Nothing("there are no databases beside the listed ones"),
    ),
    (
        "pool_idle_timeout",
        Nothing("a pool without connections costs next to nothing and stays"),
    ),
    (
        "query_wait_timeout",
        Near(
            "checkout_timeout",
            Kind::SecondsOrNever,
            "the client gets another error (53300); it is disconnected, there as here",
        ),
    ),
    (
        "query_wait_notify",
        Nothing("clients are not told that they wait"),
    ),
    (
        "cancel_wait_timeout",
        Nothing("a cancel request does not wait for a place in a pool"),
    ),
    ("query_timeout", Same("query_timeout", Kind::Seconds)),
    (
        "transaction_timeout",
        Same("transaction_timeout", Kind::Seconds),
    ),
    (
        "idle_transaction_timeout",
        Same("client_idle_in_transaction_timeout", Kind::Seconds),
    ),
    (
        "client_idle_timeout",
        Same("client_idle_timeout", Kind::Seconds),
    ),
    (
        "client_login_timeout",
        Same("client_login_timeout", Kind::SecondsOrNever),
    ),
    (
        "suspend_timeout",
        Nothing("there is no SUSPEND; SIGTERM lets clients finish, see shutdown_timeout"),
    ),
    // Sessions
    ("max_prepared_statements", Special),
    ("server_reset_query", Special),
    (
        "server_reset_query_always",
        Nothing(
            "what a client changed in its session is undone before another one gets the connection, in every mode",
        ),
    ),
    (
        "track_extra_parameters",
        Nothing("every setting of a session is carried along, not only listed ones"),
    ),
    (
        "ignore_startup_parameters",
        Nothing(
            "startup parameters are neither refused nor ignored, they count for the client's session; listed ones take effect now",
        ),
    ),
    (
        "application_name_add_host",
        Nothing("application_name is passed on as it is"),
    ),
    (
        "disable_pqexec",
        Nothing("the simple protocol cannot be turned off"),
    ),
    ("login_notify_message", Nothing("clients are not greeted")),
    // Logging in
    ("auth_type", Special),
    ("auth_file", Special),
    ("auth_hba_file", Special),
    ("auth_ident_file", Special),
    ("auth_user", Special),
    ("auth_query", Special),
    ("auth_dbname", Special),
    ("auth_ldap_options", Special),
    (
        "scram_iterations",
        Nothing("verifiers are made with 4096 iterations; a given verifier keeps its own"),
    ),
    ("admin_users", Special),
    ("stats_users", Special),
    // TLS
    ("client_tls_sslmode", Special),
    ("client_tls_ca_file", Special),
    ("client_tls_key_file", Special),
    ("client_tls_cert_file", Special),
    (
        "client_tls_protocols",
        Nothing("TLS 1.2 and 1.3, with what is considered safe"),
    ),
    (
        "client_tls_ciphers",
        Nothing("TLS 1.2 and 1.3, with what is considered safe"),
    ),
    (
        "client_tls13_ciphers",
        Nothing("TLS 1.2 and 1.3, with what is considered safe"),
    ),
    (
        "client_tls_dheparams",
        Nothing("no key exchange of this kind is offered"),
    ),
    (
        "client_tls_ecdhcurve",
        Nothing("the curve is agreed on with the client"),
    ),
    ("server_tls_sslmode", Special),
    ("server_tls_ca_file", Special),
    ("server_tls_key_file", Special),
    ("server_tls_cert_file", Special),
    (
        "server_tls_protocols",
        Nothing("TLS 1.2 and 1.3, with what is considered safe"),
    ),
    (
        "server_tls_ciphers",
        Nothing("TLS 1.2 and 1.3, with what is considered safe"),
    ),
    (
        "server_tls13_ciphers",
        Nothing("TLS 1.2 and 1.3, with what is considered safe"),
    ),
    // Sockets and names
    (
        "pkt_buf",
        Nothing("buffers are sized by what goes through them"),
    ),
    (
        "max_packet_size",
        Near(
            "query_size_limit",
            Kind::Count,
            "counts for queries here, for every message there; query_size_limit_action says what happens",
        ),
    ),
    (
        "sbuf_loopcnt",
        Nothing("connections take turns by themselves"),
    ),
    (
        "tcp_defer_accept",
        Nothing("a connection is accepted at once"),
    ),
    ("tcp_socket_buffer", Nothing("the kernel sizes its buffers")),
    ("tcp_keepalive", Special),
    ("tcp_keepcnt", Special),
    ("tcp_keepidle", Special),
    ("tcp_keepintvl", Special),
    ("tcp_user_timeout", Special),
    ("dns_max_ttl", Same("dns_ttl", Kind::Seconds)),
    (
        "dns_nxdomain_ttl",
        Nothing("a name that is not found is looked up again at the next attempt"),
    ),
    ("dns_zone_check_period", Nothing("zones are not watched")),
    (
        "resolv_conf",
        Nothing("names are looked up as the system does"),
    ),
];

/// PgBouncer's defaults, where ours are others.
pub(super) const DEFAULTS: &[(&str, &str)] = &[
    ("unix_socket_dir", "/tmp"),
    ("listen_backlog", "128"),
    ("pool_mode", "session"),
    ("max_client_conn", "100"),
    ("default_pool_size", "20"),
    ("min_pool_size", "0"),
    ("max_prepared_statements", "200"),
    ("server_lifetime", "3600"),
    ("server_idle_timeout", "600"),
    ("server_connect_timeout", "15"),
    ("query_wait_timeout", "120"),
];
