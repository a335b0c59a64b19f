//! A replication connection is a client like others: counted, with a key of the proxy's, and on a server that counts.

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::transcript::lines;
use pgdog_tests::{Message, Postgres, PostgresOptions, Proxy, ProxyConfig, RawClient, wait};

use super::{config, try_walsender, walsender, walsenders};

#[test]
fn they_count_as_clients() {
    if !Postgres::installed() {
        return;
    }
    let postgres = Postgres::shared();
    let users = |line: &str| {
        ProxyConfig::transaction(postgres)
            .database("postgres")
            .append_users(&format!(
                "[[users]]\nname = \"pgdog\"\ndatabase = \"postgres\"\npassword = \"x\"\n{line}"
            ))
    };
    let limits = [
        (users("").general("max_client_conn", "1"), "max_client_conn"),
        (
            users("max_user_client_connections = 1"),
            "max_user_client_connections",
        ),
        (
            ProxyConfig::transaction(postgres)
                .database_with("postgres", &["max_db_client_connections = 1"])
                .user("pgdog", "x"),
            "max_db_client_connections",
        ),
    ];
    for (config, limit) in limits {
        let proxy = Proxy::start(&config);
        let first = walsender(&proxy);
        let others = [
            try_walsender(proxy.port()),
            RawClient::try_login(proxy.port(), "pgdog", "postgres"),
        ];
        for other in others {
            let told = other.expect_err("one is the limit");
            assert!(
                told.starts_with("E FATAL 53300") && told.contains(limit),
                "{told}"
            );
        }
        first.goodbye();
        assert!(
            wait::until(PATIENCE, || try_walsender(proxy.port()).is_ok()),
            "{limit}: its place stays taken"
        );
    }
}

#[test]
fn a_cancel_request_reaches_the_right_server() {
    if !Postgres::installed() {
        return;
    }
    let postgres = Postgres::start(&PostgresOptions::default());
    let proxy = Proxy::start(&config(&postgres));
    let active = |count: &str| {
        wait::until(PATIENCE, || {
            postgres.value("postgres", "select count(*) from pg_stat_activity where backend_type = 'walsender' and state = 'active'") == count
        })
    };
    let (mut one, mut other) = (walsender(&proxy), walsender(&proxy));
    let sleep = || Message::query("select pg_sleep(60)");
    one.send(&[sleep()]);
    other.send(&[sleep()]);
    assert!(active("2"));
    let Some(Message::CancelRequest { pid, secret }) = one.cancel_request() else {
        panic!("no key")
    };
    let servers = postgres
        .client("postgres")
        .query_rows("select pid from pg_stat_activity where backend_type = 'walsender'");
    assert!(
        servers.iter().all(|row| row[0] != pid.to_string()),
        "the key is the server's own: {pid} among {servers:?}"
    );
    for (secret, left) in [(vec![7; secret.len()], "2"), (secret, "1")] {
        let mut canceller = RawClient::open(proxy.port()).expect("the proxy accepts");
        canceller.send(&[Message::CancelRequest { pid, secret }]);
        assert_eq!(canceller.until_eof(), Some(Vec::new()));
        assert!(active(left), "not {left} left");
    }
    let told = lines(&one.until_ready());
    assert!(
        told.iter().any(|line| line.starts_with("E ERROR 57014")),
        "{told:?}"
    );
    assert_eq!(one.query_value("select 1"), "1");
}

#[test]
fn their_servers_count_and_idle_ones_make_room() {
    if !Postgres::installed() {
        return;
    }
    let config = ProxyConfig::transaction(Postgres::shared())
        .general("checkout_timeout", "500")
        .database_with("postgres", &["max_db_connections = 1"])
        .user("pgdog", "pgdog");
    let proxy = Proxy::start(&config);
    let mut client = proxy.client("pgdog", "postgres");
    client.run("begin");
    let told = try_walsender(proxy.port()).expect_err("the only place is taken");
    assert!(told.starts_with("E FATAL 53300"), "{told}");
    client.run("commit");
    // The server is idle now: it gives way.
    let mut stream = walsender(&proxy);
    assert_eq!(stream.query_value("select 1"), "1");
    assert_eq!(client.query_error("select 1"), "53300");
    stream.goodbye();
    let mut client = proxy.client("pgdog", "postgres");
    client.run("select 1");
}

#[test]
fn they_know_no_limit_on_time_and_leave_no_server_behind() {
    if !Postgres::installed() {
        return;
    }
    let postgres = Postgres::start(&PostgresOptions::default());
    let config = config(&postgres)
        .general("client_idle_timeout", "300")
        .general("query_timeout", "300");
    let proxy = Proxy::start(&config);
    let mut stream = walsender(&proxy);
    let mut idle = proxy.client("pgdog", "postgres");
    let told = lines(&idle.until_eof().expect("it is idle for too long"));
    assert!(
        told.last()
            .is_some_and(|line| line.starts_with("E FATAL 57P05")),
        "{told:?}"
    );
    assert_eq!(stream.query_value("select 1"), "1");
    assert_eq!(walsenders(&postgres), "1");
    // Gone without a word.
    drop(stream);
    assert!(wait::until(PATIENCE, || walsenders(&postgres) == "0"));
    // And the other way round: a server that is lost ends its client.
    let mut stream = walsender(&proxy);
    postgres.run(
        "postgres",
        "select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'walsender'",
    );
    let told = lines(&stream.until_eof().expect("it is closed"));
    assert!(
        told.last()
            .is_some_and(|line| line.starts_with("E FATAL 57P01")),
        "{told:?}"
    );
}

#[test]
fn physical_replication_needs_no_database_where_there_is_one_server() {
    if !Postgres::installed() {
        return;
    }
    let (postgres, other) = (
        Postgres::shared(),
        Postgres::start(&PostgresOptions::default()),
    );
    let login = |config: ProxyConfig, database: &str| {
        let proxy = Proxy::start(&config.user("pgdog", "x"));
        let parameters = [
            ("user", "pgdog"),
            ("database", database),
            ("replication", "true"),
        ];
        let (_, frames) =
            RawClient::login_with(proxy.port(), &parameters).expect("the proxy answers");
        lines(&frames).pop().expect("it says something")
    };
    let one = ProxyConfig::transaction(postgres).database("postgres");
    assert_eq!(login(one.clone(), "replication"), "Z I");
    let two = one.database_at("elsewhere", other.port(), &["database_name = \"postgres\""]);
    assert_eq!(login(two.clone(), "elsewhere"), "Z I");
    let told = login(two, "replication");
    assert!(told.starts_with("E FATAL 3D000"), "{told}");
}
