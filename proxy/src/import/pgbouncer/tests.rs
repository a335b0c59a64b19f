use pgdog_config::{AuthType, ClientAuth, Config, PoolerMode, Settings as Meant, TlsMode};

use super::*;

const PACKAGED: &str = include_str!("../fixtures/pgbouncer.ini");
const USERLIST: &str = include_str!("../fixtures/userlist.txt");
const VERIFIER: &str = "SCRAM-SHA-256$4096:QSXCR+Q6sek8bf92$FO+9jBb3MUukt6jJnzjPZOWc5ow/Pu6JtPyju0aqaE8=:qxWRkN1uVrcbVxlSVW7bLMdVjCzsVaZ9CxpT/G9mU5s=";
const MD5: &str = "md545f2603610af569b6155c45067268c6b";

fn no_files(name: &str) -> Result<String, String> {
    Err(format!("{name}: no such file"))
}

fn try_import(text: &str, userlist: &str) -> Result<Imported, Problems> {
    import(&Sources {
        file: "pgbouncer.ini",
        text,
        userlist: Some(("userlist.txt", userlist)),
        read: &no_files,
    })
}

/// Imports, and reads the result as the proxy does.
fn imported(text: &str, userlist: &str) -> (Imported, Config) {
    let imported = try_import(text, userlist).unwrap_or_else(|problems| panic!("{problems}"));
    let told = imported.errors().map(|errors| errors.to_string());
    assert_eq!(told, None, "{}\n{}", imported.toml, imported.users);
    let config = Config::from_toml(&imported.toml, &imported.users).unwrap();
    (imported, config)
}

fn noted(imported: &Imported, start: &str, text: &str) {
    assert!(
        imported
            .notes
            .iter()
            .any(|note| note.starts_with(start) && note.contains(text)),
        "no note {start} … {text} in {:#?}",
        imported.notes
    );
}

fn told(text: &str, userlist: &str) -> String {
    try_import(text, userlist)
        .expect_err("it is wrong")
        .to_string()
}

#[test]
fn the_packaged_file_becomes_a_configuration_that_starts() {
    let (imported, config) = imported(PACKAGED, USERLIST);
    let general = &config.general;
    assert_eq!((general.host.as_str(), general.port), ("localhost", 6432));
    assert_eq!(
        general.unix_socket_dir.as_deref(),
        Some("/var/run/postgresql")
    );
    assert_eq!(
        (general.auth_type, general.pooler_mode),
        (ClientAuth::Md5, PoolerMode::Session)
    );
    // Nobody wrote these: they are PgBouncer's defaults.
    assert_eq!((general.default_pool_size, general.min_pool_size), (20, 0));
    assert_eq!(
        (general.max_client_conn, general.listen_backlog),
        (100, 128)
    );
    assert_eq!(
        (general.server_lifetime, general.idle_timeout),
        (3_600_000, 600_000)
    );
    assert_eq!(
        (general.connect_timeout, general.checkout_timeout),
        (15_000, 120_000)
    );
    assert_eq!(general.prepared_statements_limit, Some(200));
    let users: Vec<_> = config.users.iter().map(|user| user.name.as_str()).collect();
    assert_eq!(users, ["marko", "postgres", "pgbouncer"]);
    noted(&imported, "pgbouncer.ini:48: logfile:", "no counterpart");
}

/// The packaged file names nearly every key behind a semicolon, with its default.
#[test]
fn the_packaged_file_with_every_key_in_force_is_understood() {
    let uncommented: Vec<String> = PACKAGED
        .lines()
        .map(|line| match line.strip_prefix(';') {
            Some(rest) if !rest.starts_with([';', '%']) && rest.contains('=') => {
                rest.replace("<system default>", "/etc/ssl/ca.pem")
            }
            _ => line.to_owned(),
        })
        .collect();
    let keys = uncommented
        .iter()
        .filter(|line| line.contains('=') && !line.starts_with(';'));
    assert!(keys.count() > 100, "{uncommented:#?}");
    let (imported, config) = imported(&uncommented.join("\n"), USERLIST);
    assert_eq!(config.general.checkout_timeout, 120_000);
    assert_eq!(config.general.query_size_limit, Some(2_147_483_647));
    assert_eq!(config.general.tls_verify, TlsMode::Prefer);
    assert_eq!(
        (config.admin.name.as_str(), config.admin.user.as_str()),
        ("pgbouncer", "user2")
    );
    let names: Vec<_> = config
        .databases
        .iter()
        .map(|d| (d.name.as_str(), d.host.as_str()))
        .collect();
    assert_eq!(
        names,
        [
            ("forcedb", "localhost"),
            ("nondefaultdb", "/var/run/postgresql"),
            ("foodb", "/var/run/postgresql"),
            ("bardb", "/var/run/postgresql")
        ]
    );
    noted(&imported, "pgbouncer.ini:", "connect_query: no counterpart");
    noted(&imported, "pgbouncer.ini:", "*: no counterpart");
    noted(
        &imported,
        "pgbouncer.ini:",
        "auth_user: the user who runs auth_query has to be in users.toml",
    );
}

#[test]
fn each_key_is_listed_once_and_leads_to_a_key_that_exists() {
    let schema = pgdog_config::json_schema();
    let known =
        |definition: &str, key: &str| !schema["$defs"][definition]["properties"][key].is_null();
    for (definition, keys) in [
        ("General", super::keys::KEYS),
        ("Database", databases::KEYS),
        ("User", users::KEYS),
        ("Peer", databases::PEER_KEYS),
    ] {
        let mut seen = std::collections::BTreeSet::new();
        for (key, meaning) in keys {
            assert!(seen.insert(key), "{key} twice");
            use crate::import::keys::Meaning;
            if let Meaning::Same(ours, _) | Meaning::Near(ours, ..) = meaning {
                assert!(known(definition, ours), "{definition} has no {ours}");
            }
        }
    }
}

#[test]
fn an_unknown_key_is_an_error_with_its_line_and_the_nearest_key() {
    let text = "[pgbouncer]\nlisten_prot = 1\nauth_type = md6\npool_mode = often\n[databses]\n[databases]\n\
        a = hots=h\npgbouncer = host=h\nb = host=h port\n[users]\nu = pool_sise=1\n[peers]\nx = host=h\n";
    assert_eq!(
        told(text, "\"u\" \"p\"\noops\n")
            .lines()
            .collect::<Vec<_>>(),
        [
            "pgbouncer.ini:2: listen_prot: unknown key in [pgbouncer], did you mean \"listen_port\"?",
            "pgbouncer.ini:3: auth_type: expected one of any, trust, plain, md5, scram-sha-256, cert, hba, ldap, pam",
            "pgbouncer.ini:4: pool_mode: expected session, transaction or statement",
            "pgbouncer.ini:5: unknown section [databses], did you mean [databases]?",
            "pgbouncer.ini:7: hots: unknown key in the connection string of a, did you mean \"host\"?",
            "pgbouncer.ini:8: pgbouncer: the name of PgBouncer's console; call the database something else",
            "pgbouncer.ini:9: b: expected key=value pairs with spaces between them",
            "pgbouncer.ini:11: pool_sise: unknown key in the settings of user u, did you mean \"pool_size\"?",
            "pgbouncer.ini:13: x: expected the number of a peer",
            "userlist.txt:2: expected \"user\" \"password\"",
        ]
    );
}

#[test]
fn times_keep_their_length_and_zero_keeps_its_meaning() {
    let never = i64::MAX as u64;
    let (_, config) = imported(
        "[pgbouncer]\nquery_wait_timeout = 0\nserver_connect_timeout = 0\nclient_login_timeout = 0\nreserve_pool_timeout = 0\n\
         server_lifetime = 0\nserver_idle_timeout = 0\nserver_check_query =\nserver_check_delay = 10\nquery_timeout = 1.5\n\
         idle_transaction_timeout = 60\nserver_login_retry = 1\ntcp_keepidle = 7\ntcp_keepcnt = 0\ntcp_user_timeout = 9\n",
        "",
    );
    let general = &config.general;
    assert_eq!(
        (general.checkout_timeout, general.connect_timeout),
        (never, never)
    );
    assert_eq!(
        (general.client_login_timeout, general.reserve_pool_timeout),
        (never, never)
    );
    // One use only there; 0 would be no limit here.
    assert_eq!((general.server_lifetime, general.idle_timeout), (1, 0));
    assert_eq!(general.healthcheck_interval, never);
    assert_eq!(
        (
            general.query_timeout,
            general.client_idle_in_transaction_timeout
        ),
        (Some(1_500), Some(60_000))
    );
    assert_eq!(
        (config.tcp.time, config.tcp.retries, config.tcp.user_timeout),
        (Some(7_000), None, Some(9))
    );
}

#[test]
fn a_database_keeps_its_limits_and_says_what_it_loses() {
    let (imported, config) = imported(
        "[databases]\nApp = host=10.0.0.1,10.0.0.2 port=5433 dbname='my ''db' pool_size=3 min_pool_size=9 reserve_pool=2 pool_mode=transaction \
         max_db_connections=30 max_db_client_connections=40 server_lifetime=60 timezone=UTC\n\"odd name\" = host=/run/pg\n* = host=fallback\n",
        "\"u\" \"p\"",
    );
    assert_eq!(config.databases.len(), 2, "{}", imported.toml);
    let app = &config.databases[0];
    assert_eq!(
        (app.name.as_str(), app.host.as_str(), app.port),
        ("App", "10.0.0.1", 5433)
    );
    assert_eq!(app.database_name.as_deref(), Some("my 'db"));
    // PgBouncer keeps no more open than the pool may have.
    assert_eq!(
        (app.pool_size, app.min_pool_size, app.reserve_pool_size),
        (Some(3), Some(3), Some(2))
    );
    assert_eq!(
        (app.max_db_connections, app.max_db_client_connections),
        (Some(30), Some(40))
    );
    assert_eq!(
        (app.pooler_mode, app.server_lifetime),
        (Some(PoolerMode::Transaction), Some(60_000))
    );
    assert_eq!(config.databases[1].name, "odd name");
    noted(&imported, "pgbouncer.ini:2: timezone:", "no counterpart");
    noted(&imported, "pgbouncer.ini:2: App:", "a further host");
    noted(
        &imported,
        "pgbouncer.ini:4: *:",
        "a database has to be listed",
    );
    assert!(
        imported.toml.contains("# host = \"10.0.0.2\"\n"),
        "{}",
        imported.toml
    );
}

#[test]
fn a_database_with_one_server_user_keeps_one_pools_worth_of_connections() {
    let (_, config) = imported(
        "[pgbouncer]\ndefault_pool_size = 7\nreserve_pool_size = 2\n[databases]\nf = host=h user=baz password=foo\ng = host=h user=b\nh = host=h user=c\n",
        &format!("\"a\" \"p\"\n\"b\" \"q\"\n\"c\" \"{VERIFIER}\"\n"),
    );
    let seen: Vec<_> = config
        .databases
        .iter()
        .map(|d| {
            (
                d.user.as_deref(),
                d.password.as_ref().map(|p| p.reveal()),
                d.max_db_connections,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (Some("baz"), Some("foo"), Some(9)),
            (Some("b"), Some("q"), Some(9)),
            (Some("c"), None, Some(9))
        ]
    );
}

#[test]
fn each_secret_goes_where_it_can_be_used() {
    let userlist = format!(
        "\"plain\" \"p\\\"\n\"hashed\" \"{MD5}\"\n\"scram\" \"{VERIFIER}\"\n\"none\" \"\"\n"
    );
    let by = |auth: &str| {
        imported(
            &format!("[pgbouncer]\nauth_type = {auth}\n[databases]\na = host=h\n"),
            &userlist,
        )
    };
    let seen = |config: &Config| {
        let user = |u: &pgdog_config::users::User| {
            (
                u.name.clone(),
                u.password.clone().map(|p| p.0),
                u.password_hash.is_some(),
                u.auth_type,
            )
        };
        config.users.iter().map(user).collect::<Vec<_>>()
    };
    let plain = |auth| ("plain".to_owned(), Some("p\\".to_owned()), false, auth);
    let hashed = |auth| ("hashed".to_owned(), Some(MD5.to_owned()), false, auth);
    let scram = |auth| ("scram".to_owned(), None, true, auth);
    let none = ("none".to_owned(), None, false, None);

    let (of_md5, config) = by("md5");
    assert_eq!(config.general.auth_type, ClientAuth::Md5);
    assert_eq!(
        seen(&config),
        [plain(None), hashed(None), scram(Some(AuthType::Scram))]
    );
    noted(&of_md5, "userlist.txt:2: user \"hashed\":", "an MD5 hash");
    noted(
        &of_md5,
        "userlist.txt:3: user \"scram\":",
        "write server_password",
    );
    noted(&of_md5, "userlist.txt:4: user \"none\":", "has no password");

    let (of_scram, config) = by("scram-sha-256");
    assert_eq!(seen(&config), [plain(None), scram(None)]);
    noted(
        &of_scram,
        "userlist.txt:2: user \"hashed\":",
        "cannot answer SCRAM",
    );

    let (_, config) = by("trust");
    assert_eq!(config.general.auth_type, ClientAuth::Trust);
    assert_eq!(
        seen(&config),
        [plain(None), hashed(None), scram(None), none.clone()]
    );

    let (_, config) = by("hba\nauth_hba_file = /etc/hba\nauth_ident_file = /etc/ident");
    assert_eq!(config.general.auth_type, ClientAuth::Hba);
    assert_eq!(
        (
            config.general.auth_hba_file.as_deref(),
            config.general.auth_ident_file.as_deref()
        ),
        (Some("/etc/hba"), Some("/etc/ident"))
    );
    // The rules say who needs no password.
    assert_eq!(
        seen(&config),
        [plain(None), hashed(None), scram(None), none]
    );

    let (_, config) =
        by("md5\nauth_user = plain\nauth_query = SELECT * FROM who($1)\nauth_dbname = a");
    assert_eq!(
        (
            config.general.auth_user.as_deref(),
            config.general.auth_query.as_str(),
            config.general.auth_dbname.as_deref(),
        ),
        (Some("plain"), "SELECT * FROM who($1)", Some("a"))
    );
    let (unknown, config) = by("md5\nauth_user = nobody");
    assert_eq!(config.general.auth_user, None);
    noted(
        &unknown,
        "pgbouncer.ini:",
        "auth_user: the user who runs auth_query",
    );

    let (_, config) = by("plain");
    assert_eq!(
        (config.general.auth_type, config.general.plain_without_tls),
        (ClientAuth::Plain, true)
    );
    assert_eq!(seen(&config)[1], hashed(Some(AuthType::Md5)));

    let (of_pam, _) = by("pam");
    noted(&of_pam, "pgbouncer.ini:2: auth_type:", "no counterpart");
}

#[test]
fn no_secret_shows_up_in_a_note_or_an_error() {
    let text = "[pgbouncer]\nadmin_users = a, b\nauth_type = pam\nauth_ldap_options = ldapbindpasswd=hush\n[databases]\n\
        x = host=h user=u password=hush connect_query='select ''hush'''\n";
    let list = format!("\"a\" \"hush\"\n\"b\" \"{VERIFIER}\"\n\"c\" \"{MD5}\"\n");
    let (result, config) = imported(text, &list);
    assert_eq!(config.admin.password.map(|p| p.0), Some("hush".to_owned()));
    for note in &result.notes {
        assert!(
            !note.contains("hush") && !note.contains("SCRAM-SHA-256$") && !note.contains(MD5),
            "{note}"
        );
    }
    let errors = told(
        "[databases]\nx = password=hush passwort=hush\n",
        "\"a\" hush\n",
    );
    assert!(
        !errors.contains("hush") && errors.contains("passwort"),
        "{errors}"
    );
}

#[test]
fn tls_is_taken_over_and_never_weakened_in_silence() {
    let with = |lines: &str| imported(&format!("[pgbouncer]\n{lines}\n"), "");
    let (_, config) = with(
        "client_tls_sslmode = require\nclient_tls_cert_file = c\nclient_tls_key_file = k\nclient_tls_ca_file = a",
    );
    let general = &config.general;
    assert_eq!(
        (
            general.tls_certificate.as_deref(),
            general.tls_private_key.as_deref()
        ),
        (Some("c"), Some("k"))
    );
    assert_eq!(
        (
            general.tls_client_required,
            &general.tls_client_ca_certificate
        ),
        (true, &None)
    );
    let (_, config) =
        with("client_tls_sslmode = allow\nclient_tls_cert_file = c\nclient_tls_key_file = k");
    assert!(!config.general.tls_client_required);

    let (weak, config) = with("server_tls_sslmode = require");
    assert_eq!(config.general.tls_verify, TlsMode::Prefer);
    noted(&weak, "pgbouncer.ini:2: server_tls_sslmode:", "WEAKER HERE");
    for (mode, expected) in [
        ("require", TlsMode::VerifyCa),
        ("verify-ca", TlsMode::VerifyCa),
        ("verify-full", TlsMode::VerifyFull),
        ("disable", TlsMode::Disabled),
        ("allow", TlsMode::Prefer),
    ] {
        let (_, config) = with(&format!(
            "server_tls_sslmode = {mode}\nserver_tls_ca_file = a"
        ));
        assert_eq!(config.general.tls_verify, expected, "{mode}");
    }
    let (_, config) = with("server_tls_sslmode = verify-full");
    assert!(config.general.tls_server_ca_certificate.is_some());
    assert!(
        told("[pgbouncer]\nclient_tls_sslmode = require\n", "")
            .contains("needs client_tls_cert_file")
    );
}

#[test]
fn certificates_stand_for_the_users_of_their_names() {
    let (_, config) = imported(
        "[pgbouncer]\nauth_type = cert\nclient_tls_sslmode = verify-full\nclient_tls_cert_file = c\nclient_tls_key_file = k\n\
         client_tls_ca_file = a\n[databases]\nx = host=h\n",
        "\"app\" \"\"\n",
    );
    assert_eq!(config.users[0].identity.as_deref(), Some("app"));
    let (settings, _) = Meant::build(&config).unwrap();
    assert!(settings.users[0].certificate_required);
}

#[test]
fn users_keep_their_own_settings_also_those_who_are_not_in_the_list() {
    let (result, config) = imported(
        "[pgbouncer]\nmin_pool_size = 5\n[databases]\nx = host=h\n[users]\na = pool_size=2 pool_mode=statement max_user_connections=3 \
         max_user_client_connections=4 reserve_pool_size=1 query_timeout=9\nb = pool_mode=session\n",
        "\"a\" \"p\"\n",
    );
    let [user] = &config.users[..] else {
        panic!("{}", result.users)
    };
    assert!(user.all_databases);
    assert_eq!(
        (user.pool_size, user.min_pool_size, user.reserve_pool_size),
        (Some(2), Some(2), Some(1))
    );
    assert_eq!(
        (user.max_user_connections, user.max_user_client_connections),
        (Some(3), Some(4))
    );
    assert_eq!(user.pooler_mode, Some(PoolerMode::Statement));
    noted(&result, "pgbouncer.ini:6: query_timeout:", "no counterpart");
    noted(&result, "pgbouncer.ini:7: b:", "not in the user list");
}

#[test]
fn addresses_peers_and_includes_are_taken_over() {
    let read = |name: &str| {
        match name {
        "more.ini" => Ok("listen_addr = *\n[peers]\n1 = host=a\n2 = host=b port=7 pool_size=3\n3 = host=/run/x\n".to_owned()),
        "/list" => Ok("\"u\" \"p\"\n".to_owned()),
        other => no_files(other),
    }
    };
    let from = |text: &str| {
        let sources = Sources {
            file: "f",
            text,
            userlist: None,
            read: &read,
        };
        let imported = import(&sources).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(imported.errors(), None, "{}", imported.toml);
        let config = Config::from_toml(&imported.toml, &imported.users).unwrap();
        (imported, config)
    };
    let (result, config) = from("[pgbouncer]\npeer_id = 1\nauth_file = /list\n%include more.ini\n");
    assert_eq!(
        (config.general.host.as_str(), config.general.peer_id),
        ("0.0.0.0", 1)
    );
    let peers: Vec<_> = config
        .peers
        .iter()
        .map(|p| (p.id, p.host.as_str(), p.port))
        .collect();
    assert_eq!(peers, [(1, "a", 6432), (2, "b", 7)]);
    assert_eq!(config.users[0].name, "u");
    noted(&result, "more.ini:5: 3:", "by TCP");

    let (result, config) =
        from("[pgbouncer]\nlisten_addr = ::1, 10.0.0.1\nauth_file = /gone\nunix_socket_dir =\n");
    assert_eq!(
        (config.general.host.as_str(), config.general.unix_socket_dir),
        ("::1", None)
    );
    noted(&result, "f:2: listen_addr:", "one address only");
    noted(
        &result,
        "f:3: auth_file:",
        "give the list as the second argument",
    );

    let (result, config) = from("[pgbouncer]\n");
    assert_eq!(config.general.host, "127.0.0.1");
    noted(&result, "listen_addr is not set", "always a TCP port");
}
