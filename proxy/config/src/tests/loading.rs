//! Files, URLs, the environment, and what is said about mistakes in them.

use std::fs;
use std::path::PathBuf;

use super::lines;
use crate::{
    ClientAuth, Config, PoolerMode, ProblemCode, Role, Secret, Settings, Severity, Source,
};

fn no_environment(_: &str) -> Option<String> {
    None
}

/// A directory that goes away with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pgdog-config-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_key() {
    let problems = Config::from_toml("\n[general]\ndefaul_pool_size = 3\n", "").unwrap_err();
    assert_eq!(
        lines(&problems),
        [
            "pgdog.toml:3: general.defaul_pool_size: unknown key, did you mean \"default_pool_size\"?"
        ]
    );
    assert_eq!(problems.0[0].code, ProblemCode::UnknownKey);
}

#[test]
fn a_key_that_belongs_into_general_is_recognised() {
    let problems = Config::from_toml("auth_type = \"md5\"\n", "").unwrap_err();
    assert_eq!(
        lines(&problems),
        ["pgdog.toml:1: auth_type: unknown key, did you mean \"auth_type\" in [general]?"]
    );
}

#[test]
fn all_problems_of_both_files_are_told_at_once() {
    let pgdog = r#"[general]
port = "6432"
workers = -1
auth_type = "skram"
pooler_mode = 7

[[databases]]
name = "a"
port = 70000

[nonsense]
"#;
    let users =
        "[[users]]\nname = \"x\"\n[[users]]\nname = true\npasword = \"secret\"\n[general]\n";
    let problems = Config::from_toml(pgdog, users).unwrap_err();
    assert_eq!(
        lines(&problems),
        [
            "pgdog.toml:2: general.port: expected an integer, found a string",
            "pgdog.toml:3: general.workers: expected 0 or more, found -1",
            "pgdog.toml:4: general.auth_type: unknown value \"skram\", did you mean \"scram\"?",
            "pgdog.toml:5: general.pooler_mode: expected a string, found an integer",
            "pgdog.toml:7: databases[0].host: missing key",
            "pgdog.toml:9: databases[0].port: expected 0 to 65535, found 70000",
            "pgdog.toml:11: nonsense: unknown key",
            "users.toml:4: users[1].name: expected a string, found a boolean",
            "users.toml:5: users[1].pasword: unknown key, did you mean \"password\"?",
            "users.toml:6: general: unknown key, only users and admin stand in this file",
        ]
    );
}

#[test]
fn a_syntax_error_has_its_line_and_shows_no_secret() {
    let problems = Config::from_toml("[admin]\npassword = \"hunter2\nname = 3\n", "").unwrap_err();
    assert_eq!(problems.0[0].code, ProblemCode::Syntax);
    assert_eq!(problems.0[0].line, Some(2));
    assert!(!problems.to_string().contains("hunter2"), "{problems}");
    let problems = Config::from_yaml("general:\n  host: [\n").unwrap_err();
    assert_eq!(problems.0[0].code, ProblemCode::Syntax);
}

#[test]
fn yaml_holds_the_same_schema_as_both_files() {
    let pgdog = r#"
[general]
default_pool_size = 3
query_parser = "on"
idle_timeout = 9223372036854775807

[[databases]]
name = "a"
host = "h"
read_only = true

[[databases]]
name = "a"
host = "h2"
role = "replica"

[qos]
limits = [1, 2]
"#;
    let users = "[admin]\npassword = \"p\"\n[[users]]\nname = \"u\"\ndatabases = [\"a\"]\npassword = \"12\"\n";
    let yaml = r#"
general:
  default_pool_size: 3
  query_parser: on
  idle_timeout: 9223372036854775807
  tls_certificate:
databases:
  - name: a
    host: h
    read_only: true
  - { name: a, host: h2, role: replica }
users:
  - name: u
    databases: [a]
    password: "12"
admin:
  password: p
qos:
  limits: [1, 2]
"#;
    assert_eq!(
        Config::from_yaml(yaml).unwrap(),
        Config::from_toml(pgdog, users).unwrap()
    );
}

#[test]
fn problems_in_yaml_have_lines() {
    let yaml = "general:\n  workers: many\ndatabases:\n  - name: a\n    host: h\n  - name: b\n    hots: h\n";
    assert_eq!(
        lines(&Config::from_yaml(yaml).unwrap_err()),
        [
            "pgdog.yaml:2: general.workers: expected an integer, found a string",
            "pgdog.yaml:6: databases[1].host: missing key",
            "pgdog.yaml:7: databases[1].hots: unknown key, did you mean \"host\"?",
        ]
    );
}

#[test]
fn an_empty_configuration_is_the_default() {
    assert_eq!(Config::from_toml("", "").unwrap(), Config::default());
    assert_eq!(Config::from_yaml("").unwrap(), Config::default());
    assert_eq!(Config::from_urls(&[]).unwrap(), Config::default());
}

#[test]
fn another_name_of_a_key_works_but_not_beside_the_key() {
    let config = Config::from_toml("[general]\nmax_pool_size = 3\n", "").unwrap();
    assert_eq!(config.general.default_pool_size, 3);
    let problems =
        Config::from_toml("[general]\nmax_pool_size = 3\ndefault_pool_size = 4\n", "").unwrap_err();
    assert_eq!(problems.0[0].code, ProblemCode::Duplicate);
}

#[test]
fn the_environment_fills_what_the_file_leaves_open() {
    let directory = Directory::new("environment");
    let config = directory.write("pgdog.toml", "[general]\nport = 7000\nmax_pool_size = 3\n");
    let source = Source {
        config,
        users: None,
        database_urls: Vec::new(),
    };
    let environment = |name: &str| {
        let value = match name {
            "PGDOG_PORT" | "PGDOG_WORKERS" => "8",
            "PGDOG_DEFAULT_POOL_SIZE" => "99",
            "PGDOG_LOG_CONNECTIONS" => "off",
            "PGDOG_AUTH_TYPE" => "md5",
            "PGDOG_QUERY_TIMEOUT" => "1500",
            "PGDOG_CLIENT_LOG_TIMEOUT" => "1",
            "PGDOG_HOST" => "",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let general = Config::load_with(&source, &environment).unwrap().general;
    assert_eq!(
        (general.port, general.workers, general.default_pool_size),
        (7000, 8, 3)
    );
    assert_eq!(
        (general.auth_type, general.log_connections),
        (ClientAuth::Md5, false)
    );
    assert_eq!(
        (general.query_timeout, general.client_login_timeout),
        (Some(1500), 1)
    );
    assert_eq!(general.host, "0.0.0.0");
}

#[test]
fn a_bad_value_in_the_environment_names_the_variable() {
    let source = Source {
        database_urls: vec!["postgres://h/d".to_owned()],
        ..Source::default()
    };
    let environment = |name: &str| (name == "PGDOG_WORKERS").then(|| "many".to_owned());
    assert_eq!(
        lines(&Config::load_with(&source, &environment).unwrap_err()),
        [
            "environment variable PGDOG_WORKERS: general.workers: expected an integer, found a string"
        ]
    );
}

#[test]
fn the_variable_that_kubernetes_sets_for_a_service_is_not_the_port() {
    let source = Source {
        database_urls: vec!["postgres://h/d".to_owned()],
        ..Source::default()
    };
    let environment = |name: &str| (name == "PGDOG_PORT").then(|| "tcp://10.0.0.1:6432".to_owned());
    assert_eq!(
        Config::load_with(&source, &environment)
            .unwrap()
            .general
            .port,
        6432
    );
}

#[test]
fn files_are_read_and_named_in_problems() {
    let directory = Directory::new("files");
    let config = directory.write("pgdog.toml", "[[databases]]\nname = \"a\"\nhost = \"h\"\n");
    let users = directory.write("users.toml", "[[users]]\nname = \"a\"\n");
    let source = Source {
        config,
        users: None,
        database_urls: vec!["postgres://u:p@h/b".to_owned()],
    };
    let config = Config::load_with(&source, &no_environment).unwrap();
    assert_eq!((config.databases.len(), config.users.len()), (2, 2));
    let problems = Settings::build(&config).unwrap_err();
    let expected = format!(
        "{}:1: users[0].password: user \"a\" needs a password, passwords or password_hash to log in",
        users.display()
    );
    assert_eq!(lines(&problems), [expected]);
}

#[test]
fn a_missing_file_is_a_warning_unless_it_was_named() {
    let directory = Directory::new("missing");
    let config = directory.write("pgdog.toml", "");
    let source = Source {
        config,
        users: None,
        database_urls: Vec::new(),
    };
    let warnings = Config::load_with(&source, &no_environment)
        .unwrap()
        .warnings;
    assert_eq!(
        (warnings.len(), warnings[0].severity),
        (1, Severity::Warning)
    );

    let users = Some(directory.0.join("nobody.toml"));
    let problems = Config::load_with(&Source { users, ..source }, &no_environment).unwrap_err();
    assert_eq!(problems.0[0].code, ProblemCode::Unreadable);

    let source = Source {
        config: directory.0.join("other.toml"),
        users: None,
        database_urls: Vec::new(),
    };
    assert!(Config::load_with(&source, &no_environment).is_err());
}

#[test]
fn a_yaml_file_needs_no_users_file() {
    let directory = Directory::new("yaml");
    let config = directory.write("pgdog.yaml", "general:\n  workers: 5\n");
    let source = Source {
        config,
        users: None,
        database_urls: Vec::new(),
    };
    let config = Config::load_with(&source, &no_environment).unwrap();
    assert_eq!((config.general.workers, config.warnings.len()), (5, 0));
}

#[test]
fn a_url_gives_a_database_and_its_user() {
    let urls = [
        "postgres://us%40er:p%2Fw@db.local:6000/shop?pool_size=7&min_pool_size=2&pooler_mode=session&statement_timeout=100&idle_timeout=5&read_only=true&server_lifetime=9&database_name=shop_1&user=su&password=sp",
        "postgresql://us%40er:p%2Fw@[::1]/shop?role=replica&shard=0&max_pool_size=3",
        "postgres://me@/?host=/var/run/postgresql&port=5433",
    ];
    let config = Config::from_urls(&urls.map(str::to_owned)).unwrap();
    let [first, second, third] = &config.databases[..] else {
        panic!("{config:?}")
    };
    assert_eq!(
        (first.name.as_str(), first.host.as_str(), first.port),
        ("shop", "db.local", 6000)
    );
    assert_eq!(
        (first.pool_size, first.min_pool_size, first.pooler_mode),
        (Some(7), Some(2), Some(PoolerMode::Session))
    );
    assert_eq!(
        (
            first.statement_timeout,
            first.idle_timeout,
            first.server_lifetime
        ),
        (Some(100), Some(5), Some(9))
    );
    assert_eq!(
        (first.read_only, first.database_name.as_deref()),
        (Some(true), Some("shop_1"))
    );
    assert_eq!(
        (first.user.as_deref(), &first.password),
        (Some("su"), &Some(Secret::from("sp")))
    );
    assert_eq!(
        (second.host.as_str(), second.port, second.role),
        ("::1", 5432, Role::Replica)
    );
    assert_eq!(
        (third.name.as_str(), third.host.as_str(), third.port),
        ("me", "/var/run/postgresql", 5433)
    );

    let [user, other] = &config.users[..] else {
        panic!("{config:?}")
    };
    assert_eq!(
        (user.name.as_str(), user.database.as_deref()),
        ("us@er", Some("shop"))
    );
    assert_eq!(user.password, Some(Secret::from("p/w")));
    assert_eq!((other.name.as_str(), &other.password), ("me", &None));
}

#[test]
fn bad_urls_are_told_all_at_once_and_without_their_passwords() {
    let urls = [
        "mysql://u:hunter2@h/d",
        "postgres://u:hunter2@h/d?pool_size=many",
        "postgres://u:hunter2%4@h/d",
        "postgres://u:hunter2@h/d?sslmode=require",
        "postgres://u:hunter2@/d",
        "postgres://h",
    ];
    let problems = Config::from_urls(&urls.map(str::to_owned)).unwrap_err();
    assert_eq!(
        lines(&problems),
        [
            "database URL 1: expected postgres://user:password@host:port/database",
            "database URL 2: databases[0].pool_size: expected an integer, found a string",
            "database URL 3: a percent sign without two hexadecimal digits behind it",
            "database URL 4: sslmode: a parameter of libpq, and no key of a database; it is one for all databases here: set general.tls_verify; its \"prefer\", the default, uses TLS where the server has it, and nothing less than \"verify_ca\" insists on it",
            "database URL 5: no host in it",
            "database URL 6: neither a database nor a user in it",
        ]
    );
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let pgdog = r#"
[admin]
password = "hunter2"
[otel]
datadog_api_key = "hunter2"
headers = { authorization = "hunter2" }
[[databases]]
name = "a"
host = "h"
password = "hunter2"
[[databases]]
name = "b"
host = "h"
"#;
    let users = r#"
[[users]]
name = "a"
all_databases = true
password = "hunter2"
passwords = ["hunter2"]
server_password = "hunter2"
"#;
    let config = Config::from_toml(pgdog, users).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    assert!(
        !serde_json::to_string(&config.redacted())
            .unwrap()
            .contains("hunter2")
    );
    let settings = Settings::build(&config).unwrap().0;
    assert_eq!(settings.users[1].pool.server_passwords, ["hunter2"]);
    let shown = format!("{settings:?}");
    assert!(
        !shown.contains("hunter2") && shown.contains("<redacted>"),
        "{shown}"
    );
}

#[test]
fn a_parameter_of_libpq_in_a_url_is_told_with_what_there_is_here() {
    let told = |query: &str| {
        let url = format!("postgres://u:p@h/d?{query}");
        let problems = Config::from_urls(&[url]).unwrap_err();
        assert_eq!(problems.0.len(), 1, "{problems}");
        problems.to_string()
    };
    for (query, hint) in [
        ("sslmode=disable", "general.tls_verify = \"disabled\""),
        ("sslmode=prefer", "general.tls_verify = \"prefer\""),
        ("sslmode=require", "\"verify_ca\" insists"),
        ("sslmode=verify-ca", "PGDOG_TLS_VERIFY=verify_ca"),
        ("sslmode=verify-full", "PGDOG_TLS_VERIFY=verify_full"),
        ("sslrootcert=/ca.crt", "general.tls_server_ca_certificate"),
        ("connect_timeout=3", "general.connect_timeout"),
        ("keepalives_idle=3", "tcp.time"),
        ("dbname=x", "behind the slash"),
    ] {
        let key = query.split('=').next().unwrap();
        let told = told(query);
        assert!(
            told.starts_with(&format!("database URL 1: {key}: a parameter of libpq")),
            "{told}"
        );
        assert!(told.contains(hint), "{told}");
    }
    assert!(told("pool_sise=3").contains("did you mean \"pool_size\"?"));
}

#[test]
fn what_a_parameter_of_libpq_points_at_is_a_key() {
    let schema = crate::check::Schema::new();
    for (section, key) in [
        ("general", "tls_verify"),
        ("general", "tls_server_ca_certificate"),
        ("general", "tls_server_certificate"),
        ("general", "tls_server_private_key"),
        ("general", "connect_timeout"),
        ("databases", "role"),
        ("databases", "statement_timeout"),
        ("databases", "lock_timeout"),
        ("databases", "read_only"),
        ("tcp", "keepalive"),
        ("tcp", "time"),
        ("tcp", "interval"),
        ("tcp", "retries"),
        ("tcp", "user_timeout"),
    ] {
        assert!(!schema.property(section, key).is_null(), "{section}.{key}");
    }
}

#[test]
fn a_variable_that_sets_nothing_is_told_with_the_nearest_key() {
    let told = |name: &str, value: &str| {
        let environment = [(name.to_owned(), value.to_owned())].into_iter();
        let problems = crate::load::strays(environment, &crate::check::Schema::new());
        assert!(problems.iter().all(|p| p.severity == Severity::Warning));
        problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        told("PGDOG_DEFAULT_POOLSIZE", "3"),
        [
            "environment variable PGDOG_DEFAULT_POOLSIZE: sets nothing: no key has this name, did you mean PGDOG_DEFAULT_POOL_SIZE?"
        ]
    );
    assert!(told("PGDOG_ADMIN_HTPP_PORT", "3")[0].ends_with("did you mean PGDOG_ADMIN_HTTP_PORT?"));
    assert!(told("PGDOG_CONFG", "x")[0].ends_with("did you mean PGDOG_CONFIG?"));
    assert!(told("PGDOG_SOMETHING_ELSE_ENTIRELY", "x")[0].ends_with("no key has this name"));
    for (name, value) in [
        ("PGDOG_DEFAULT_POOL_SIZE", "3"),
        ("PGDOG_ADMIN_HTTP_PORT", "3"),
        ("PGDOG_POD_UID", "x"),
        ("PGDOG_CLIENT_LOG_TIMEOUT", "1"),
        ("HOME", "/"),
        // Of Kubernetes, for Services called pgdog and pgdog-ro.
        ("PGDOG_SERVICE_HOST", "10.0.0.1"),
        ("PGDOG_SERVICE_PORT_POSTGRES", "6432"),
        ("PGDOG_PORT", "tcp://10.0.0.1:6432"),
        ("PGDOG_PORT_6432_TCP_ADDR", "10.0.0.1"),
        ("PGDOG_RO_SERVICE_PORT", "6432"),
        ("PGDOG_RO_PORT", "tcp://10.0.0.1:6432"),
    ] {
        assert!(told(name, value).is_empty(), "{name}");
    }
}

#[test]
fn wrong_types_do_not_hide_what_is_wrong_with_the_meaning_of_the_rest() {
    let pgdog = r#"
[general]
default_pool_size = "ten"
mirror_exposure = 2.0

[[databases]]
name = "app"
host = "h"

[[mirroring]]
source_db = "app"
destination_db = "nowhere"
exposure = -1.0

[[mirroring]]
source_db = "app"
destination_db = "app"
queue_length = "long"
"#;
    let users = "[[users]]\nname = \"u\"\npassword = \"p\"\ndatabase = \"app\"\n";
    let problems = Config::from_toml(pgdog, users).unwrap_err();
    let mut paths: Vec<_> = problems.0.iter().map(|p| p.path.as_str()).collect();
    paths.sort_unstable();
    // The list of mirrors is in doubt as a whole: one of them could not be read.
    assert_eq!(
        paths,
        [
            "general.default_pool_size",
            "general.mirror_exposure",
            "mirroring[1].queue_length"
        ],
        "{problems}"
    );
    let fewer = pgdog.replace("\"long\"", "5");
    let problems = Config::from_toml(&fewer, users).unwrap_err();
    let mut paths: Vec<_> = problems.0.iter().map(|p| p.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(
        paths,
        [
            "general.default_pool_size",
            "general.mirror_exposure",
            "mirroring[0].exposure"
        ],
        "{problems}"
    );
    // Users without an entry that can be read are not missed anywhere.
    let broken = users.replace("name = \"u\"", "nam = \"u\"");
    let problems = Config::from_toml(&pgdog.replace("\"ten\"", "10"), &broken).unwrap_err();
    assert!(
        !problems
            .0
            .iter()
            .any(|p| p.message.contains("is not a user")),
        "{problems}"
    );
}
