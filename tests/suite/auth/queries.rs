//! `auth_query`: users who are not in the configuration, with what Postgres knows of them.

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Postgres, PostgresOptions, Proxy, ProxyConfig, Psql, wait};

use super::logs;

/// A Postgres that asks every role of these tests for its password, each with a secret of its kind.
fn asking() -> Postgres {
    let options = PostgresOptions::default()
        .hba("host all of_scram all scram-sha-256")
        .hba("host all of_md5 all md5");
    let postgres = Postgres::start(&options);
    postgres.run(
        "postgres",
        "set password_encryption = 'scram-sha-256'; create role of_scram login password 'secret'; \
         set password_encryption = 'md5'; create role of_md5 login password 'secret'; \
         create role expired login password 'secret' valid until '2001-01-01'; create role nologin password 'secret'; \
         create role bare login; create role reader superuser login password 'reader'",
    );
    postgres
}

fn config(postgres: &Postgres, auth: &str) -> ProxyConfig {
    ProxyConfig::transaction(postgres)
        .general("auth_type", &format!("\"{auth}\""))
        .general("auth_user", "\"reader\"")
        .general("auth_failure_delay", "0")
        .general("plain_without_tls", "true")
        .general("checkout_timeout", "3000")
        .general("log_level", "\"debug\"")
        .database("postgres")
        .user("reader", "reader")
}

fn psql(proxy: &Proxy, user: &str, password: &str) -> Psql {
    Psql::new(proxy.port(), user, "postgres").password(password)
}

#[test]
fn users_whom_the_query_finds_log_in_to_the_proxy_and_by_what_they_show_to_the_server() {
    if !Postgres::installed() {
        return;
    }
    let postgres = asking();
    for (auth, ins) in [
        // SCRAM: the keys out of the client's proof are good for the server. MD5: the hash is.
        ("scram", &["of_scram"][..]),
        ("md5", &["of_scram", "of_md5"]),
        ("plain", &["of_scram", "of_md5"]),
    ] {
        let proxy = Proxy::start(&config(&postgres, auth));
        for user in ["of_scram", "of_md5", "expired", "nologin", "bare", "nobody"] {
            let output = psql(&proxy, user, "secret").run("select current_user");
            if ins.contains(&user) {
                assert_eq!(output.expect(&format!("{auth} {user}")), user);
            } else {
                let told = output.expect_error(&format!("{auth} {user}"));
                let expected = format!("password authentication failed for user \"{user}\"");
                assert!(told.contains(&expected), "{auth} {user}: {told}");
            }
            let wrong = psql(&proxy, user, "wrong").run("select 1");
            assert!(
                wrong
                    .expect_error(user)
                    .contains("password authentication failed"),
                "{auth} {user}: {}",
                wrong.stderr
            );
        }
        // A name is never SQL.
        let odd = psql(&proxy, "x' or true or rolname = '\\", "secret").run("select 1");
        assert!(
            odd.expect_error("odd")
                .contains("password authentication failed"),
            "{}",
            odd.stderr
        );
    }
}

#[test]
fn a_changed_password_and_a_dropped_role_are_seen() {
    if !Postgres::installed() {
        return;
    }
    let postgres = asking();
    for (auth, user) in [("scram", "of_scram"), ("md5", "of_md5")] {
        let config = config(&postgres, auth).general("idle_timeout", "100");
        let proxy = Proxy::start(&config);
        let lets_in = |password: &str| psql(&proxy, user, password).run("select 1").success;
        let pid = psql(&proxy, user, "secret").run("select pg_backend_pid()");
        pid.expect(auth);
        let encryption = if auth == "md5" {
            "md5"
        } else {
            "scram-sha-256"
        };
        postgres.run(
            "postgres",
            &format!(
                "set password_encryption = '{encryption}'; alter role {user} password 'other'"
            ),
        );
        // At most the time that what was looked up is believed; then new connections log in with the new one.
        assert!(
            wait::until(PATIENCE, || lets_in("other")),
            "{auth}:\n{}",
            proxy.log()
        );
        assert!(wait::until(PATIENCE, || !lets_in("secret")), "{auth}");
        assert!(lets_in("other"), "{auth}");
        postgres.run("postgres", &format!("alter role {user} nologin"));
        assert!(wait::until(PATIENCE, || !lets_in("other")), "{auth}");
        postgres.run(
            "postgres",
            &format!("alter role {user} login password 'secret'"),
        );
    }
}

#[test]
fn a_guest_that_nobody_is_any_more_is_forgotten_and_a_reload_keeps_those_who_are_here() {
    if !Postgres::installed() {
        return;
    }
    let postgres = asking();
    let config = config(&postgres, "trust").general("idle_timeout", "300");
    let proxy = Proxy::start(&config);
    let mut client = proxy.client("bare", "postgres");
    let pid = client.query_value("select pg_backend_pid()");
    proxy.write_config(&config.clone().general("default_pool_size", "3"));
    proxy.reload();
    logs(&proxy, "configuration reloaded", 1);
    assert_eq!(client.query_value("select pg_backend_pid()"), pid);
    drop(client);
    logs(&proxy, "guest forgotten", 1);
    assert!(wait::until(PATIENCE, || postgres.value(
        "postgres",
        "select count(*) from pg_stat_activity where usename = 'bare'"
    ) == "0"));
    // Who is no guest any more is told so.
    let mut client = proxy.client("bare", "postgres");
    client.run("select 1");
    proxy.write_config(&config.general("auth_user", "\"\""));
    proxy.reload();
    logs(&proxy, "configuration reloaded", 2);
    assert_eq!(client.query_error("select 1"), "57P01");
    assert!(pgdog_tests::RawClient::try_login(proxy.port(), "bare", "postgres").is_err());
}

#[test]
fn another_query_in_another_database_serves_and_what_it_fails_with_is_in_the_log_only() {
    if !Postgres::installed() {
        return;
    }
    let postgres = asking();
    let users = postgres.database("users");
    users.run(
        "create table logins (name text, secret text); insert into logins values ('of_scram', 'secret'), ('twice', 'a'), ('twice', 'b')",
    );
    let config = config(&postgres, "scram")
        .general("auth_dbname", "\"users\"")
        .general(
            "auth_query",
            "\"select name, secret from logins where name = $1\"",
        )
        .database("users");
    let config = ProxyConfig::written(
        &postgres,
        &config.pgdog_toml(6432),
        "[[users]]\nname = \"reader\"\nall_databases = true\npassword = \"reader\"\n",
    );
    let proxy = Proxy::start(&config);
    let right = psql(&proxy, "of_scram", "secret").run("select current_user, current_database()");
    assert_eq!(right.expect("a password as text"), "of_scram|postgres");
    let wrong = psql(&proxy, "twice", "a").run("select 1");
    assert!(
        wrong
            .expect_error("two rows")
            .contains("password authentication failed")
    );
    logs(&proxy, "auth_query: more than one row", 1);
    users.run("drop table logins");
    let failed = wait::until(PATIENCE, || {
        let output = psql(&proxy, "of_scram", "secret").run("select 1");
        output.stderr.contains("could not look up the password")
    });
    assert!(failed, "{}", proxy.log());
    logs(
        &proxy,
        "auth_query failed: server said: relation \"logins\" does not exist",
        1,
    );
}

#[test]
fn drivers_come_in_as_users_who_are_looked_up() {
    if !Postgres::installed() {
        return;
    }
    let postgres = asking();
    let proxy = Proxy::start(&config(&postgres, "scram").pool_size(2));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(proxy.port())
        .user("of_scram")
        .password("secret")
        .dbname("postgres");
    runtime.block_on(async {
        let all = (0..8).map(|_| async {
            let (client, connection) = config
                .connect(tokio_postgres::NoTls)
                .await
                .expect("it comes in");
            tokio::spawn(connection);
            let row = client.query_one("select current_user::text", &[]).await;
            row.expect("a row").get::<_, String>(0)
        });
        let users = futures_util::future::join_all(all).await;
        assert_eq!(users, vec!["of_scram"; 8]);
    });
    let connections = postgres.value(
        "postgres",
        "select count(*) <= 2 from pg_stat_activity where usename = 'of_scram'",
    );
    assert_eq!(connections, "t", "they share a pool");
}
