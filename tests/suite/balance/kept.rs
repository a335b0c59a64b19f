//! What a client keeps on a server, and what comes right behind: it is on the primary, and not on one that was.

use std::time::{Duration, Instant};

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Message, Postgres, Proxy, ProxyConfig, RawClient, Replicated, wait};

use super::{Roles, WHO, config, host_of, wait_readers};

/// Reads are answered by the only replica.
fn apart(cluster: &Replicated, database: &str) -> ProxyConfig {
    config(cluster, database, Roles::Auto).general("read_write_split", "\"exclude_primary\"")
}

/// A primary on which this was run, a replica, and a proxy whose reads the replica answers.
fn stage(sql: &str) -> (Replicated, Proxy) {
    let cluster = Replicated::start(1);
    cluster.primary().run("postgres", sql);
    cluster.settle();
    let proxy = Proxy::start(&apart(&cluster, "postgres"));
    wait_readers(&cluster, &proxy, "postgres", &[1]);
    (cluster, proxy)
}

#[test]
fn who_keeps_a_server_of_a_primary_that_was_demoted_is_told_to_come_again() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::start(1);
    cluster.primary().run("postgres", "create table t (a int)");
    cluster.primary().run(
        "postgres",
        "create role steady login superuser password 'steady'",
    );
    cluster.settle();
    let config = config(&cluster, "postgres", Roles::Auto)
        .append_users("[[users]]\nname = \"steady\"\ndatabase = \"postgres\"\npassword = \"steady\"\npooler_mode = \"session\"\n");
    let proxy = Proxy::start(&config);
    wait_readers(&cluster, &proxy, "postgres", &[0, 1]);
    let client = || proxy.client("pgdog", "postgres");
    let mut within = client();
    within.run("begin");
    within.run("insert into t values (1)");
    let mut pinned = client();
    pinned.run("create temp table mine (a int)");
    let mut session = proxy.client("steady", "postgres");
    session.run("insert into t values (2)");
    let mut reading = client();
    reading.run("begin read only");

    // Nobody fences the old one.
    cluster.promote(1);
    let known = || {
        RawClient::try_login(proxy.port(), "pgdog", "postgres").is_ok_and(|mut fresh| {
            host_of(
                &cluster,
                &mut fresh,
                "insert into t values (3) returning current_setting('port')",
            ) == 1
        })
    };
    assert!(wait::until(PATIENCE, known), "{}", proxy.log());
    for (who, client) in [
        ("in a transaction", &mut within),
        ("with a temporary table", &mut pinned),
        ("in session mode", &mut session),
    ] {
        client.send(&[Message::query("insert into t values (4)")]);
        let last = client.until_eof().expect("it is closed");
        let told = last.iter().find(|frame| frame.tag == b'E');
        let code = told.and_then(|frame| frame.field(b'C'));
        assert_eq!(code.as_deref(), Some("57P01"), "{who}: {last:?}");
    }
    reading.run("select 1");
    reading.run("commit");
    let on_old = cluster
        .host(0)
        .value("postgres", "select count(*) from t where a = 4");
    assert_eq!(on_old, "0", "{}", proxy.log());
}

#[test]
fn what_follows_upon_a_look_at_the_session_finds_its_own_host() {
    if !Postgres::installed() {
        return;
    }
    let (_cluster, proxy) = stage("create table t (a int); create table s (temp int)");
    let mut client = proxy.client("pgdog", "postgres");
    for before in [
        "discard all",
        "set a.b = '1'; set a.c = '2'",
        "set session characteristics as transaction isolation level read committed",
        "select 1; reset all",
        "select temp from s",
    ] {
        client.run("select 1");
        // Without a pause, as fast clients do.
        client.send(&[
            Message::query(before),
            Message::query("insert into t values (1)"),
        ]);
        client.until_ready();
        let frames = client.until_ready();
        assert!(
            frames.iter().all(|frame| frame.tag != b'E'),
            "{before}: {frames:?}"
        );
        client.run("select 1");
        client.run(before);
        client.run("insert into t values (1)");
    }
}

#[test]
fn what_stays_on_a_server_is_made_on_the_primary() {
    if !Postgres::installed() {
        return;
    }
    let (cluster, proxy) = stage("create table t (a int)");

    let mut holds = proxy.client("pgdog", "postgres");
    holds.run("declare c cursor with hold for select 1");
    holds.run("insert into t values (1)");
    assert_eq!(holds.query_value("fetch c"), "1");

    let mut asks = proxy.client("pgdog", "postgres");
    assert_eq!(host_of(&cluster, &mut asks, WHO), 1);
    asks.run("set pgdog.pin = on");
    assert_eq!(host_of(&cluster, &mut asks, WHO), 0);
    asks.run("insert into t values (1)");

    // In a transaction that is on a replica already there is no way but a word.
    for keeps in [
        "prepare p as select 1",
        "declare c cursor with hold for select 1",
    ] {
        let mut reads = proxy.client("pgdog", "postgres");
        reads.run("begin read only");
        reads.run("select 1");
        assert_eq!(reads.query_error(keeps), "0A000", "{keeps}");
        reads.run("rollback");
        reads.run("insert into t values (1)");
    }
}

#[test]
fn what_no_replica_can_tell_is_asked_of_the_primary() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::start(1);
    cluster.primary().run(
        "postgres",
        "create unlogged table u (a int); insert into u values (7); create role strict login superuser password 'strict'; \
         alter role strict set default_transaction_isolation = 'serializable'",
    );
    cluster.settle();
    let config = apart(&cluster, "postgres").append_users(
        "[[users]]\nname = \"strict\"\ndatabase = \"postgres\"\npassword = \"strict\"\n",
    );
    let proxy = Proxy::start(&config);
    wait_readers(&cluster, &proxy, "postgres", &[1]);
    let mut client = proxy.client("pgdog", "postgres");
    assert_eq!(client.query_value("select a from u"), "7");
    client.send(&[
        Message::parse("", "select a from u"),
        Message::bind("", &[]),
        Message::execute(),
        Message::Sync,
    ]);
    let frames = client.until_ready();
    assert!(frames.iter().any(|frame| frame.tag == b'D'), "{frames:?}");
    let mut strict = proxy.client("strict", "postgres");
    assert_eq!(strict.query_value("select 1"), "1");
    assert_eq!(
        strict.query_value("show transaction_isolation"),
        "serializable"
    );
}

#[test]
fn a_replica_that_was_asked_for_is_waited_for_until_it_has_the_write() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::start(1);
    cluster.primary().run("postgres", "create table t (a int)");
    cluster.settle();
    let config = config(&cluster, "postgres", Roles::Auto)
        .general("read_your_writes", "\"replayed\"")
        .general("lsn_check_interval", "30000");
    let proxy = Proxy::start(&config);
    wait_readers(&cluster, &proxy, "postgres", &[0, 1]);
    let mut client = proxy.client("pgdog", "postgres");
    client.run("insert into t values (1)");
    let begun = Instant::now();
    let sql = "/* pgdog_role: replica */ select count(*) from t";
    assert_eq!(client.query_value(sql), "1");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}: {}", proxy.log());
}

#[test]
fn a_role_is_the_value_and_no_word_around_it() {
    if !Postgres::installed() {
        return;
    }
    let (cluster, proxy) = stage("select 1");
    for (set, host) in [
        ("set pgdog.role to 'primary' /* app: replica-checker */", 0),
        ("set pgdog.role = replica -- not primary", 1),
        ("set session \"pgdog\".role to \"primary\";", 0),
    ] {
        let mut client = proxy.client("pgdog", "postgres");
        client.run(set);
        assert_eq!(host_of(&cluster, &mut client, WHO), host, "{set}");
    }
}
