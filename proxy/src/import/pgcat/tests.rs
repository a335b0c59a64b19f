use pgdog_config::{AuthType, ClientAuth, Config, PoolerMode, Role, TlsMode, json_schema, modes};

use super::*;

const ALL: &str = include_str!("../fixtures/pgcat.toml");

fn imported(text: &str) -> (Imported, Config) {
    let imported = import(text, "pgcat.toml").unwrap_or_else(|problems| panic!("{problems}"));
    let told = imported.errors().map(|errors| errors.to_string());
    assert_eq!(told, None, "{}\n{}", imported.toml, imported.users);
    let config = Config::from_toml(&imported.toml, &imported.users).unwrap();
    (imported, config)
}

fn noted(imported: &Imported, text: &str) {
    assert!(
        imported.notes.iter().any(|note| note.contains(text)),
        "no note {text} in {:#?}",
        imported.notes
    );
}

#[test]
fn a_file_with_every_key_becomes_a_configuration_that_starts() {
    for (section, keys) in [
        ("general", keys::GENERAL),
        ("pool", keys::POOL),
        ("user", keys::USER),
        ("shard", keys::SHARD),
    ] {
        for (key, _) in keys {
            let old = ["prepared_statements", "query_result_capacity"].contains(key);
            assert!(
                old || ALL.contains(&format!("\n{key} = ")),
                "{section}: {key} is not in the fixture"
            );
        }
    }
    let (result, config) = imported(ALL);
    let general = &config.general;
    assert_eq!(
        (general.host.as_str(), general.port, general.workers),
        ("0.0.0.0", 6432, 5)
    );
    assert_eq!(
        (general.connect_timeout, general.checkout_timeout),
        (5_000, 5_000)
    );
    assert_eq!((general.idle_timeout, general.min_pool_size), (30_000, 0));
    assert_eq!(
        (general.ban_timeout, general.healthcheck_timeout),
        (60_000, 1_000)
    );
    assert_eq!(
        (general.openmetrics_port, general.dns_ttl),
        (Some(9930), Some(30_000))
    );
    assert_eq!(
        (general.tls_verify, general.auth_type),
        (TlsMode::VerifyFull, ClientAuth::Md5)
    );
    assert_eq!(
        general.load_balancing_strategy,
        modes::LoadBalancingStrategy::LeastActiveConnections
    );
    assert_eq!(
        general.read_write_split,
        modes::ReadWriteSplit::IncludePrimary
    );
    assert_eq!(general.prepared_statements_limit, Some(500));
    assert!(general.query_log_stdout && !general.log_connections && !general.log_disconnections);
    assert_eq!(
        (config.tcp.time, config.tcp.interval, config.tcp.retries),
        (Some(5_000), Some(5_000), Some(5))
    );
    assert_eq!(
        (config.admin.name.as_str(), config.admin.user.as_str()),
        ("pgcat", "admin_user")
    );
    noted(
        &result,
        "read_write_split is one for all databases; simple_db would",
    );
    noted(&result, "pgcat.toml:41: plugin prewarmer: no counterpart");
    noted(&result, "plugin intercept");
    // These features may come: then the keys are in force, and the note is gone.
    assert_eq!(
        result.toml.contains("Without effect in this version"),
        result
            .notes
            .iter()
            .any(|note| note.starts_with("Without effect in this version")),
    );
    assert!(
        !result
            .notes
            .iter()
            .any(|note| note.contains("table_access"))
    );
}

#[test]
fn pools_become_databases_with_their_shards_and_roles() {
    let (result, config) = imported(ALL);
    let hosts: Vec<_> = config
        .databases
        .iter()
        .map(|d| {
            (
                d.name.as_str(),
                d.host.as_str(),
                d.port,
                d.role,
                d.shard,
                d.database_name.as_deref().unwrap_or(""),
            )
        })
        .collect();
    assert_eq!(
        hosts,
        [
            ("sharded_db", "127.0.0.1", 5432, Role::Primary, 0, "shard0"),
            ("sharded_db", "localhost", 5432, Role::Replica, 0, "shard0"),
            ("sharded_db", "127.0.0.1", 5432, Role::Primary, 1, "shard1"),
            ("sharded_db", "localhost", 5432, Role::Replica, 1, "shard1"),
            ("simple_db", "127.0.0.1", 5432, Role::Primary, 0, "some_db"),
            ("simple_db", "localhost", 5433, Role::Replica, 0, "some_db"),
        ]
    );
    assert!(
        config.databases[..4]
            .iter()
            .all(|d| d.idle_timeout == Some(40_000))
    );
    assert_eq!(config.databases[4].pooler_mode, Some(PoolerMode::Session));
    let table = &config.sharded_tables[0];
    assert_eq!(
        (table.name.as_deref(), table.column.as_str(), table.hasher),
        (Some("data"), "id", modes::Hasher::Postgres)
    );
    noted(&result, "the same host a second time");
    noted(&result, "mirrors: a mirror is a database of its own here");
    assert_eq!(
        result
            .notes
            .iter()
            .filter(|note| note.contains("sharding_key_regex"))
            .count(),
        1
    );
}

#[test]
fn users_keep_their_passwords_pools_and_ways_in() {
    let (result, config) = imported(ALL);
    let seen: Vec<_> = config
        .users
        .iter()
        .map(|u| {
            (
                u.name.as_str(),
                u.database.as_deref().unwrap_or(""),
                u.pool_size,
                u.auth_type,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("sharding_user", "sharded_db", Some(9), None),
            ("other_user", "sharded_db", Some(21), None),
            ("ldap_user", "sharded_db", Some(5), None),
            ("simple_user", "simple_db", Some(5), None),
            ("trusted", "simple_db", Some(1), Some(AuthType::Trust)),
        ]
    );
    assert_eq!(
        (
            config.users[0].min_pool_size,
            config.users[0].statement_timeout
        ),
        (Some(2), Some(15_000))
    );
    assert_eq!(config.users[1].server_user.as_deref(), Some("another_user"));
    assert_eq!(
        config.users[1].server_password.as_ref().map(|p| p.reveal()),
        Some("another_pass")
    );
    noted(&result, "no password, PgCat asks the database for it");
    noted(&result, "LDAP is not");
    let secrets = [
        "sharding_pass",
        "other_pass",
        "another_pass",
        "server_pass",
        "simple_pass",
        "admin_pass",
        "look secret",
    ];
    for note in result
        .notes
        .iter()
        .map(|note| note.replace("_password", ""))
    {
        assert!(
            !secrets.iter().any(|secret| note.contains(secret)),
            "{note}"
        );
    }
}

#[test]
fn everything_unknown_is_an_error_with_its_line() {
    let text = "[general]\nprot = 1\nban_time = -1\n[pools.a]\nidle_timeout = 5\nnonsense = 1\nusres = {}\nsharding_function = \"crc\"\n\
        [pools.a.users.0]\nusername = \"u\"\npasword = \"secret\"\n[pools.a.users.1]\npassword = \"x\"\n\
        [pools.a.shards.0]\nserver = []\nservers = [[\"h\", 1, \"primary\"], [\"i\", 1, \"primary\"], [\"h\", 1]]\n[pools.b]\n[query_router]\n";
    let told = import(text, "f").expect_err("it is wrong").to_string();
    let told: Vec<_> = told.lines().collect();
    assert_eq!(
        told,
        [
            "f:2: prot: unknown key in [general], did you mean \"port\"?",
            "f:3: ban_time: expected seconds, as 15 or 0.5",
            "f:6: nonsense: unknown key in [pools.a]: remove it, or correct its name",
            "f:7: usres: unknown table in a pool, did you mean \"users\"?",
            "f:8: sharding_function: expected pg_bigint_hash or sha1",
            "f:11: pasword: unknown key in [pools.a.users.0], did you mean \"password\"?",
            "f:12: username: missing",
            "f:14: servers: a second primary in one shard",
            "f:15: server: unknown key in [pools.a.shards.0], did you mean \"servers\"?",
            "f:16: servers: expected [\"host\", port, \"primary\" or \"replica\"]",
            "f:17: pools.b: a pool needs servers: [pools.NAME.shards.0]",
            "f:18: query_router: [query_router] is from a PgCat before pools: let PgCat's present version read the file first",
        ]
    );
    let broken = import("[general\n", "f")
        .expect_err("it is no TOML")
        .to_string();
    assert!(broken.starts_with("f:1: "), "{broken}");
}

#[test]
fn keys_lead_to_keys_that_exist() {
    use crate::import::keys::Meaning;
    let schema = json_schema();
    for (definition, keys) in [
        ("General", keys::GENERAL),
        ("Database", keys::POOL),
        ("User", keys::USER),
    ] {
        for (_, meaning) in keys {
            if let Meaning::Same(ours, _) | Meaning::Near(ours, ..) = meaning {
                assert!(
                    !schema["$defs"][definition]["properties"][*ours].is_null(),
                    "{definition} has no {ours}"
                );
            }
        }
    }
}

#[test]
fn a_pool_alone_keeps_its_own_connect_timeout_and_old_defaults_are_filled_in() {
    let (_, config) = imported(
        "[pools.a]\nconnect_timeout = 3000\n[pools.a.users.0]\nusername = \"u\"\npassword = \"p\"\npool_size = 1\n\
         [pools.a.shards.0]\ndatabase = \"d\"\nservers = [[\"h\", 5432, \"primary\"]]\n",
    );
    let general = &config.general;
    assert_eq!(
        (general.connect_timeout, general.checkout_timeout),
        (3_000, 3_000)
    );
    assert_eq!(
        (general.port, general.workers, general.idle_timeout),
        (5432, 4, 600_000)
    );
    assert_eq!(general.tls_verify, TlsMode::Disabled);
}
