//! What a configuration means, and what is wrong with one that means nothing.

use std::path::PathBuf;
use std::time::Duration;

use super::{VERIFIER, errors, settings, warnings};
use crate::{Address, AuthType, Config, PoolSettings, PoolerMode, ProblemCode, Settings, Severity};

const DATABASE: &str = "[[databases]]\nname = \"a\"\nhost = \"h\"\n";
const USER: &str = "[[users]]\nname = \"a\"\npassword = \"p\"\n";

#[test]
fn the_defaults_are_those_of_the_documentation() {
    let (settings, warnings) = Settings::build(&Config::default()).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(
        (
            settings.listen.host.as_str(),
            settings.listen.port,
            settings.workers
        ),
        ("0.0.0.0", 6432, 2)
    );
    assert_eq!(
        (settings.listen.unix_socket_mode, settings.listen.backlog),
        (0o777, 1024)
    );
    assert_eq!(
        (settings.auth, settings.client_tls),
        (AuthType::Scram, None)
    );
    assert_eq!(settings.timeouts.login, Duration::from_secs(60));
    assert_eq!(
        (settings.timeouts.idle, settings.timeouts.query),
        (None, None)
    );
    assert_eq!(
        (
            settings.max_client_conn,
            settings.prepared_limit,
            settings.query_size_limit
        ),
        (None, None, None)
    );
    let pool = PoolSettings::default();
    assert_eq!(
        (
            pool.size,
            pool.min_size,
            pool.reserve_size,
            pool.max_connecting
        ),
        (10, 1, 0, 4)
    );
    assert_eq!(
        (pool.idle_timeout, pool.lifetime),
        (
            Some(Duration::from_secs(60)),
            Some(Duration::from_secs(86_400))
        )
    );
    assert_eq!(
        (pool.database_max, pool.user_max, pool.max_pinned),
        (None, None, None)
    );
}

#[test]
fn the_largest_integer_and_zero_switch_times_off() {
    let general = "[general]\nidle_timeout = 0\nserver_lifetime = 9223372036854775807\nquery_timeout = 9223372036854775807\nclient_idle_timeout = 0\nhealthcheck_interval = 0\nban_replica_lag = 9223372036854775807\nprepared_statements_limit = 9223372036854775807\n";
    let config = format!("{general}{DATABASE}");
    let settings = settings(&config, USER);
    let pool = &settings.users[0].pool;
    assert_eq!((pool.idle_timeout, pool.lifetime), (None, None));
    assert_eq!(
        (
            settings.timeouts.query,
            settings.timeouts.idle,
            settings.prepared_limit
        ),
        (None, None, None)
    );
    assert_eq!(pool.healthcheck_interval, Some(Duration::ZERO));
    assert_eq!(warnings(&config, USER), []);
}

#[test]
fn a_user_wins_over_the_database_and_the_database_over_general() {
    let pgdog = r#"
[general]
pooler_mode = "session"
default_pool_size = 20
min_pool_size = 3
idle_timeout = 1000
max_user_connections = 9
reserve_pool_timeout = 50
[[databases]]
name = "a"
host = "h"
pool_size = 30
idle_timeout = 2000
idle_timeout_primary = 2500
statement_timeout = 10
read_only = true
max_db_connections = 77
[[databases]]
name = "b"
host = "h"
pooler_mode = "statement"
"#;
    let users = r#"
[[users]]
name = "x"
password = "p"
all_databases = true
pool_size = 40
statement_timeout = 20
lock_timeout = 5
max_user_client_connections = 8
[[users]]
name = "y"
password = "p"
database = "b"
pooler_mode = "transaction"
read_only = false
max_user_connections = 0
replication_mode = true
"#;
    let settings = settings(pgdog, users);
    let xa = settings.user("x", "a").unwrap();
    assert_eq!(
        (xa.pool.size, xa.pool.min_size, xa.pool.mode),
        (40, 3, PoolerMode::Session)
    );
    assert_eq!(xa.pool.idle_timeout, Some(Duration::from_millis(2500)));
    assert_eq!(
        (xa.pool.database_max, xa.pool.user_max, xa.max_clients),
        (Some(77), Some(9), Some(8))
    );
    assert_eq!(xa.pool.reserve_timeout, Duration::from_millis(50));
    let parameters = [
        ("statement_timeout", "20"),
        ("lock_timeout", "5"),
        ("default_transaction_read_only", "on"),
    ];
    assert_eq!(
        xa.pool.parameters,
        parameters.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    let xb = settings.user("x", "b").unwrap();
    assert_eq!(
        (xb.pool.mode, xb.pool.idle_timeout),
        (PoolerMode::Statement, Some(Duration::from_secs(1)))
    );
    let yb = settings.user("y", "b").unwrap();
    assert_eq!(
        (yb.pool.mode, yb.pool.size, yb.pool.user_max),
        (PoolerMode::Transaction, 20, None)
    );
    assert_eq!(
        yb.pool.parameters[1],
        ("replication".to_owned(), "database".to_owned())
    );
    assert!(settings.user("y", "a").is_none());
}

#[test]
fn the_login_of_a_database_wins_over_the_server_login_of_a_user() {
    let pgdog = format!(
        "{DATABASE}user = \"dbu\"\npassword = \"dbp\"\n[[databases]]\nname = \"b\"\nhost = \"/run/pg\"\ndatabase_name = \"real\"\n"
    );
    let users = "[[users]]\nname = \"u\"\npassword = \"p\"\npasswords = [\"q\"]\nall_databases = true\nserver_user = \"su\"\n";
    let settings = settings(&pgdog, users);
    let a = &settings.user("u", "a").unwrap().pool;
    assert_eq!(
        (a.server_user.as_str(), &a.server_passwords[..]),
        ("dbu", &["dbp".to_owned()][..])
    );
    let b = settings.user("u", "b").unwrap();
    assert_eq!(
        (b.pool.server_user.as_str(), b.pool.server_passwords.len()),
        ("su", 2)
    );
    assert_eq!(b.credentials.passwords, ["p", "q"]);
    assert_eq!(
        b.pool.hosts[0].address,
        Address::Unix {
            dir: PathBuf::from("/run/pg"),
            port: 5432
        }
    );
    assert_eq!(b.pool.hosts[0].database, "real");
}

#[test]
fn a_user_without_a_database_gets_the_one_of_its_name() {
    let settings = settings(DATABASE, USER);
    assert_eq!(settings.users[0].database, "a");
    assert_eq!(
        errors(DATABASE, "[[users]]\nname = \"z\"\npassword = \"p\"\n"),
        [
            "users.toml:1: users[0].database: user \"z\" has no database: set database, databases or all_databases"
        ]
    );
}

#[test]
fn the_settings_of_the_primary_count_wherever_it_stands() {
    let pgdog = "[[databases]]\nname = \"a\"\nhost = \"r\"\nrole = \"replica\"\npool_size = 1\nread_only = true\nmax_db_connections = 5\n[[databases]]\nname = \"a\"\nhost = \"p\"\npool_size = 2\npool_size_primary = 3\n";
    let settings = settings(pgdog, USER);
    let pool = &settings.users[0].pool;
    assert_eq!(
        (pool.size, pool.database_max, pool.parameters.len()),
        (3, Some(5), 0)
    );
    let hosts: Vec<String> = settings.users[0]
        .pool
        .hosts
        .iter()
        .map(|host| host.address.to_string())
        .collect();
    assert_eq!(hosts, ["r:5432", "p:5432"]);
}

#[test]
fn everything_that_contradicts_itself_is_told_at_once() {
    let pgdog = r#"[general]
tls_certificate = "c.pem"
tls_server_private_key = "k.pem"
tls_verify = "verify_full"
unix_socket_mode = "rwx"
[[databases]]
name = "a"
host = "h"
port = 0
[[databases]]
name = "a"
host = "h"
shard = 2
pool_size = 0
[[databases]]
name = "admin"
host = "h"
[[peers]]
id = 1
host = "h"
[[peers]]
id = 1
host = "i"
"#;
    let users = r#"[[users]]
name = "u"
database = "aa"
password_hash = "md5abc"
[[users]]
name = "v"
databases = ["a", "a"]
min_pool_size = 11
pool_size = 10
password = "p"
[[users]]
name = "v"
all_databases = true
[[users]]
name = "w"
database = "nowhere"
identity = "w"
"#;
    assert_eq!(
        errors(pgdog, users),
        [
            "pgdog.toml:1: general.peer_id: needed where there are peers",
            "pgdog.toml:2: general.tls_certificate: needs tls_private_key",
            "pgdog.toml:3: general.tls_server_private_key: needs tls_server_certificate",
            "pgdog.toml:4: general.tls_verify: checking the certificates of servers needs tls_server_ca_certificate",
            "pgdog.toml:5: general.unix_socket_mode: expected octal permissions as \"0777\", found \"rwx\"",
            "pgdog.toml:9: databases[0].port: 0 is not a port",
            "pgdog.toml:13: databases[1].shard: database \"a\" has no shard 1; shards are numbered from 0 without a gap",
            "pgdog.toml:16: databases[2].name: \"admin\" is the name of the admin database, see admin.name",
            "pgdog.toml:22: peers[1].id: a second peer 1",
            "users.toml:3: users[0].database: no database \"aa\", did you mean \"a\"?",
            "users.toml:4: users[0].password_hash: expected a verifier as SCRAM-SHA-256$4096:salt$stored key:server key",
            "users.toml:8: users[1].min_pool_size: 11 connections kept open for user \"v\" in database \"a\", but the pool holds 10 only",
            "users.toml:11: users[2].password: user \"v\" needs a password, passwords or password_hash to log in",
            "users.toml:12: users[2].name: user \"v\" a second time in database \"a\"",
            "users.toml:16: users[3].database: no database \"nowhere\" in [[databases]]",
            "users.toml:17: users[3].identity: needs general.tls_client_ca_certificate",
        ]
    );
}

#[test]
fn hosts_may_not_repeat_and_a_shard_has_one_primary() {
    let twice = format!("{DATABASE}{DATABASE}");
    assert_eq!(
        errors(&twice, USER),
        ["pgdog.toml:6: databases[1].host: the same host a second time in database \"a\""]
    );
    let primaries = format!("{DATABASE}[[databases]]\nname = \"a\"\nhost = \"i\"\n");
    assert_eq!(
        errors(&primaries, USER),
        ["pgdog.toml:4: databases[1].role: a second primary in shard 0 of database \"a\""]
    );
}

#[test]
fn an_empty_pool_is_an_error_of_the_one_who_asked_for_it() {
    let pgdog = format!("{DATABASE}pool_size = 0\n");
    assert_eq!(
        errors(&pgdog, USER),
        ["pgdog.toml:4: databases[0].pool_size: a pool needs at least one server connection"]
    );
}

#[test]
fn a_verifier_stands_in_for_a_password_where_it_can() {
    let users = format!("[[users]]\nname = \"a\"\npassword_hash = \"{VERIFIER}\"\n");
    let user = settings(DATABASE, &users).users.remove(0);
    assert_eq!(user.credentials.verifier.as_deref(), Some(VERIFIER));
    assert!(user.pool.server_passwords.is_empty());
    let md5 = format!("{users}auth_type = \"md5\"\n");
    assert_eq!(errors(DATABASE, &md5).len(), 1);
    let trust = "[[users]]\nname = \"a\"\nauth_type = \"trust\"\n";
    assert_eq!(
        settings(DATABASE, trust).users[0].auth,
        Some(AuthType::Trust)
    );
}

#[test]
fn a_key_without_effect_gives_one_warning() {
    let pgdog = "[general]\nquery_parser = \"on\"\nload_schema = \"auto\"\n[[databases]]\nname = \"a\"\nhost = \"p\"\n[[databases]]\nname = \"a\"\nhost = \"r\"\nrole = \"replica\"\n[[databases]]\nname = \"a\"\nhost = \"s\"\nrole = \"replica\"\n[rewrite]\nenabled = true\n[[plugins]]\nname = \"x\"\n";
    let warnings = warnings(pgdog, USER);
    assert!(
        warnings
            .iter()
            .all(|warning| warning.severity == Severity::Warning)
    );
    assert!(
        warnings
            .iter()
            .all(|warning| warning.code == ProblemCode::NotImplemented)
    );
    let shown: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "pgdog.toml:2: general.query_parser: has no effect in this version",
            "pgdog.toml:16: rewrite.enabled: has no effect in this version",
            "pgdog.toml:17: plugins: has no effect in this version",
        ]
    );
}

#[test]
fn a_database_that_nobody_may_use_is_a_warning() {
    let warnings = warnings(DATABASE, "");
    assert_eq!(
        warnings[0].to_string(),
        "pgdog.toml:2: databases[0].name: no user may connect to database \"a\""
    );
}

#[test]
fn connections_are_kept_when_only_sizes_change() {
    let pool = settings(DATABASE, USER).users.remove(0).pool;
    let larger = settings(
        &format!("{DATABASE}pool_size = 50\nidle_timeout = 1\n"),
        USER,
    )
    .users
    .remove(0)
    .pool;
    assert!(pool.same_servers(&larger) && pool != larger);
    for change in [
        "port = 5433",
        "statement_timeout = 1",
        "user = \"x\"",
        "password = \"x\"",
        "database_name = \"x\"",
    ] {
        let other = settings(&format!("{DATABASE}{change}\n"), USER)
            .users
            .remove(0)
            .pool;
        assert!(!pool.same_servers(&other), "{change}");
    }
}

#[test]
fn a_proxy_does_not_count_itself_among_its_peers() {
    let settings = settings(
        "[general]\npeer_id = 2\n[[peers]]\nid = 1\nhost = \"h\"\n[[peers]]\nid = 2\nhost = \"i\"\n",
        "",
    );
    assert_eq!(
        (settings.peer_id, settings.peers.len(), settings.peers[0].id),
        (2, 1, 1)
    );
    assert_eq!(settings.peers[0].port, 6432);
}

#[test]
fn a_proxy_finds_its_pod_in_a_list_for_the_whole_fleet() {
    let toml = |own: u16| {
        format!(
            "[general]\npeer_id = {own}\n[[peers]]\nid = 1\nhost = \"h\"\npod_uid = \"a\"\n\
             [[peers]]\nid = 2\nhost = \"i\"\npod_uid = \"b\"\n"
        )
    };
    let of = |own: u16, pod: Option<&str>| {
        let config = Config::from_toml(&toml(own), "").unwrap();
        let (settings, warnings) = Settings::build_in_pod(&config, pod).unwrap();
        let others: Vec<_> = settings.peers.iter().map(|peer| peer.id).collect();
        (settings.peer_id, others, warnings.len())
    };
    assert_eq!(of(0, Some("b")), (2, vec![1], 0));
    assert_eq!(of(7, Some("a")), (1, vec![2], 0));
    assert_eq!(of(7, Some("c")), (7, vec![1, 2], 0), "not in the list yet");
    assert_eq!(of(1, Some("c")), (0, vec![1, 2], 1), "another pod's number");
    assert_eq!(of(1, None), (1, vec![2], 0));
    assert_eq!(of(0, None), (0, vec![1, 2], 0));
    let twice = toml(0).replace("\"b\"", "\"a\"");
    assert_eq!(
        errors(&twice, ""),
        ["pgdog.toml:10: peers[1].pod_uid: a second peer in pod \"a\""]
    );
}

#[test]
fn plain_passwords_without_tls_are_warned_about() {
    let warnings = warnings("[general]\nauth_type = \"plain\"\n", "");
    assert_eq!(warnings[0].path, "general.auth_type");
    let allowed = "[general]\nauth_type = \"plain\"\nplain_without_tls = true\n";
    assert_eq!(self::warnings(allowed, ""), []);
}

#[test]
fn an_empty_password_is_none() {
    assert_eq!(
        errors(
            DATABASE,
            "[admin]\npassword = \"\"\n[[users]]\nname = \"a\"\npassword = \"\"\n"
        ),
        [
            "users.toml:2: admin.password: an empty password; leave the key out for a random one",
            "users.toml:5: users[0].password: user \"a\" needs a password, passwords or password_hash to log in",
        ]
    );
}

#[test]
fn the_admin_api_is_for_this_machine_or_for_those_who_prove_themselves() {
    let admin = |more: &str| format!("[admin]\nhttp_port = 6433\n{more}");
    let open = settings(&admin(""), "");
    assert!(!open.admin_http.unwrap().is_guarded());
    let far = "http_host = \"0.0.0.0\"\n";
    let problems = errors(&admin(far), "");
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].contains("admin.http_host") && problems[0].contains("http_token_file"),
        "{problems:?}"
    );
    let token = "http_token_file = \"token\"\n";
    assert!(
        settings(&admin(&format!("{far}{token}")), "")
            .admin_http
            .unwrap()
            .is_guarded()
    );
    let warned = warnings(&admin(&format!("{far}{token}")), "");
    assert!(
        warned.iter().any(|w| w.message.contains("in the clear")),
        "{warned:?}"
    );
    let problems = errors(
        &admin("http_client_ca = \"ca\"\nhttp_tls_certificate = \"c\"\n"),
        "",
    );
    assert_eq!(problems.len(), 2, "{problems:?}");
}
