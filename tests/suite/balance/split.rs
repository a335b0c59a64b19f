//! Which host a statement goes to.

use pgdog_tests::{Message, Postgres, Proxy, RawClient, Replicated};

use super::{Roles, WHO, config, host_of, readers, spread, wait_readers};

/// Texts whose first column is the port of the host that ran them, and whether they may run on a replica.
const TEXTS: &[(&str, bool)] = &[
    ("select current_setting('port')", true),
    ("select current_setting('port') from t", true),
    ("table ports", true),
    ("values (current_setting('port'))", true),
    (
        "with w as (select current_setting('port') as p) select p from w",
        true,
    ),
    (
        "select current_setting('port'), random(), now(), gen_random_uuid()",
        true,
    ),
    ("select current_setting('port'), harmless()", true),
    (
        "(select current_setting('port')) union all select current_setting('port') limit 1",
        true,
    ),
    (
        "insert into t values (2) returning current_setting('port')",
        false,
    ),
    (
        "update t set a = a returning current_setting('port')",
        false,
    ),
    (
        "with gone as (delete from t where a = 2) select current_setting('port')",
        false,
    ),
    ("select current_setting('port') from t for update", false),
    ("select current_setting('port') from t for share", false),
    (
        "select current_setting('port') from (select * from t for update) as locked",
        false,
    ),
    (
        "with w as (insert into t values (2) returning a) select current_setting('port') from w",
        false,
    ),
    (
        "select current_setting('port') where exists (select nextval('numbers'))",
        false,
    ),
    ("select current_setting('port'), nextval('numbers')", false),
    (
        "select current_setting('port'), setval('numbers', 5)",
        false,
    ),
    ("select current_setting('port'), writing()", false),
    ("select current_setting('port'), \"Writing\"()", false),
    ("select current_setting('port'), public.writing()", false),
    (
        "select current_setting('port'), pg_advisory_xact_lock(1)",
        false,
    ),
    ("select current_setting('port'), txid_current()", false),
    (
        "/* pgdog_role: primary */ select current_setting('port')",
        false,
    ),
    (
        "select current_setting('port') /* pgdog_role: primary */",
        false,
    ),
];

fn prepare(database: &pgdog_tests::Database<'_>) {
    database.run(
        "create table t (a int); insert into t values (1); create sequence numbers; \
         create view ports as select current_setting('port'); \
         create function harmless() returns int language sql stable as 'select 1'; \
         create function writing() returns int language sql volatile as 'insert into t values (3) returning a'; \
         create function \"Writing\"() returns int language sql volatile as 'insert into t values (3) returning a'",
    );
}

/// Sends these messages; gives the port that has answered.
fn port_of(client: &mut RawClient, messages: &[Message]) -> String {
    client.send(messages);
    let frames = client.until_ready();
    let row = frames.iter().find(|frame| frame.tag == b'D');
    let lines = || pgdog_tests::transcript::lines(&frames);
    let row = row.unwrap_or_else(|| panic!("{messages:?}: {:?}", lines()));
    let port = row.columns().into_iter().next().flatten();
    String::from_utf8_lossy(&port.expect("a port")).into_owned()
}

/// Runs a text by each protocol; gives the ports that have answered.
fn by_all_protocols(client: &mut RawClient, sql: &str) -> [String; 3] {
    let run = port_of;
    let extended = |name: &str| {
        vec![
            Message::parse(name, sql),
            Message::bind(name, &[]),
            Message::execute(),
            Message::Sync,
        ]
    };
    let simple = run(client, &[Message::query(sql)]);
    let unnamed = run(client, &extended(""));
    run(client, &extended("named"));
    let again = [
        Message::bind("named", &[]),
        Message::execute(),
        Message::CloseStatement("named".into()),
        Message::Sync,
    ];
    [simple, unnamed, run(client, &again)]
}

#[test]
fn reads_go_to_replicas_and_what_may_write_to_the_primary() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    prepare(&database);
    cluster.settle();
    let config = config(cluster, database.name(), Roles::Fixed)
        .general("read_write_split", "\"exclude_primary\"");
    let proxy = Proxy::start(&config);
    wait_readers(cluster, &proxy, database.name(), &[1, 2, 3]);
    let primary = cluster.port(0).to_string();
    let mut client = proxy.client("pgdog", database.name());
    // What functions there are may be known a moment later than who is who.
    let known = || {
        by_all_protocols(&mut client, TEXTS[6].0)
            .iter()
            .all(|p| *p != primary)
    };
    assert!(pgdog_tests::wait::until(pgdog_tests::raw::PATIENCE, known));
    for (sql, on_replica) in TEXTS {
        for port in by_all_protocols(&mut client, sql) {
            assert_eq!(port != primary, *on_replica, "{sql}: {port}");
        }
    }
    client.run("create table u as select 1 as a");
    client.run("select * into v from t");
    client.run("select 1; insert into t values (4); select 2");
    client.run("explain analyze insert into t values (5)");
    client.run("do $$ begin insert into t values (6); end $$");
    client.run("notify somebody");
    client.run("vacuum t");
}

#[test]
fn a_prepared_statement_goes_where_its_functions_may_run_by_now() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    database.run("create function turns() returns int language sql volatile as 'select 1'");
    cluster.settle();
    let config = config(cluster, database.name(), Roles::Fixed)
        .general("read_write_split", "\"exclude_primary\"");
    let proxy = Proxy::start(&config);
    wait_readers(cluster, &proxy, database.name(), &[1, 2, 3]);
    let primary = cluster.port(0).to_string();
    let mut client = proxy.client("pgdog", database.name());
    client.send(&[
        Message::parse("named", "select current_setting('port'), turns()"),
        Message::Sync,
    ]);
    client.until_ready();
    let bound = [
        Message::bind("named", &[]),
        Message::execute(),
        Message::Sync,
    ];
    assert_eq!(port_of(&mut client, &bound), primary);
    for (kind, on_replica) in [("stable", true), ("volatile", false), ("immutable", true)] {
        database.run(&format!("alter function turns() {kind}"));
        cluster.settle();
        proxy.reload();
        let turned = || (port_of(&mut client, &bound) != primary) == on_replica;
        assert!(
            pgdog_tests::wait::until(pgdog_tests::raw::PATIENCE, turned),
            "{kind}"
        );
    }
}

#[test]
fn a_transaction_stays_on_one_host() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    prepare(&database);
    cluster.settle();
    let config = config(cluster, database.name(), Roles::Fixed)
        .general("read_write_split", "\"exclude_primary\"");
    let proxy = Proxy::start(&config);
    wait_readers(cluster, &proxy, database.name(), &[1, 2, 3]);
    let mut client = proxy.client("pgdog", database.name());
    for begin in ["begin", "start transaction isolation level serializable"] {
        client.run(begin);
        assert_eq!(host_of(cluster, &mut client, WHO), 0, "{begin}");
        client.run("insert into t values (9)");
        assert_eq!(host_of(cluster, &mut client, WHO), 0, "{begin}");
        client.run("commit");
    }
    for begin in [
        "begin read only",
        "start transaction read only",
        "begin isolation level repeatable read, read only",
    ] {
        client.run(begin);
        let host = host_of(cluster, &mut client, WHO);
        assert_ne!(host, 0, "{begin}");
        for _ in 0..6 {
            assert_eq!(host_of(cluster, &mut client, WHO), host, "{begin}");
        }
        assert_eq!(client.query_error("insert into t values (9)"), "25006");
        client.run("rollback");
    }
    // And whoever comes after is spread as before.
    assert_eq!(spread(cluster, &mut client, 30).len(), 3);
}

#[test]
fn an_aggressive_split_routes_a_transaction_by_its_first_statement() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    prepare(&database);
    cluster.settle();
    let config = config(cluster, database.name(), Roles::Fixed)
        .general("read_write_split", "\"exclude_primary\"")
        .general("read_write_strategy", "\"aggressive\"");
    let proxy = Proxy::start(&config);
    wait_readers(cluster, &proxy, database.name(), &[1, 2, 3]);
    let mut client = proxy.client("pgdog", database.name());
    client.run("begin");
    let host = host_of(cluster, &mut client, WHO);
    assert_ne!(host, 0);
    assert_eq!(host_of(cluster, &mut client, WHO), host);
    client.run("commit");
    client.run("begin");
    client.run("insert into t values (7)");
    assert_eq!(host_of(cluster, &mut client, WHO), 0);
    client.run("commit");
}

#[test]
fn the_primary_answers_reads_as_the_split_says() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    cluster.settle();
    for (split, wanted) in [
        ("include_primary", &[0, 1, 2, 3][..]),
        ("exclude_primary", &[1, 2, 3]),
        ("include_primary_if_replica_banned", &[1, 2, 3]),
        ("prefer_primary", &[0]),
    ] {
        for roles in [Roles::Fixed, Roles::Auto] {
            let config = config(cluster, database.name(), roles)
                .general("read_write_split", &format!("\"{split}\""));
            let proxy = Proxy::start(&config);
            wait_readers(cluster, &proxy, database.name(), wanted);
            let mut client = proxy.client("pgdog", database.name());
            client.run("create table if not exists written (a int)");
            let hinted = format!("/* pgdog_role: replica */ {WHO}");
            if split == "prefer_primary" {
                assert_ne!(host_of(cluster, &mut client, &hinted), 0, "{roles:?}");
            }
        }
    }
}

#[test]
fn a_client_can_say_where_it_wants_to_read() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    cluster.settle();
    let config = config(cluster, database.name(), Roles::Fixed)
        .general("read_write_split", "\"exclude_primary\"");
    let proxy = Proxy::start(&config);
    wait_readers(cluster, &proxy, database.name(), &[1, 2, 3]);
    let parameters = [
        ("user", "pgdog"),
        ("database", database.name()),
        ("options", "-c pgdog.role=primary"),
    ];
    let (mut pinned, frames) =
        RawClient::login_with(proxy.port(), &parameters).expect("the proxy accepts");
    assert_eq!(frames.last().and_then(|f| f.status()), Some('I'));
    for _ in 0..6 {
        assert_eq!(host_of(cluster, &mut pinned, WHO), 0);
    }
    let mut client = proxy.client("pgdog", database.name());
    client.run("set pgdog.role = 'primary'");
    for _ in 0..6 {
        assert_eq!(host_of(cluster, &mut client, WHO), 0);
    }
    client.run("reset pgdog.role");
    assert_ne!(host_of(cluster, &mut client, WHO), 0);
    client.run("begin; set local pgdog.role = 'replica'");
    assert_ne!(host_of(cluster, &mut client, WHO), 0);
    client.run("commit");
}

#[test]
fn a_read_only_user_never_meets_the_primary() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    database.run("create table t (a int)");
    cluster.settle();
    let users = format!(
        "[[users]]\nname = \"reader\"\ndatabase = \"{}\"\nserver_user = \"pgdog\"\npassword = \"pgdog\"\nread_only = true\n",
        database.name()
    );
    let config = config(cluster, database.name(), Roles::Fixed).append_users(&users);
    let proxy = Proxy::start(&config);
    wait_readers(cluster, &proxy, database.name(), &[0, 1, 2, 3]);
    let mut client = proxy.client("reader", database.name());
    for _ in 0..20 {
        assert_ne!(host_of(cluster, &mut client, WHO), 0);
    }
    client.run("begin");
    assert_ne!(host_of(cluster, &mut client, WHO), 0);
    client.run("rollback");
    assert_eq!(client.query_error("insert into t values (1)"), "25006");
}

#[test]
fn one_host_is_all_there_is_whatever_the_split_says() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    let config = super::at(&[cluster.port(0)], cluster, database.name(), Roles::Auto)
        .general("read_write_split", "\"include_primary\"");
    let proxy = Proxy::start(&config);
    let mut client = proxy.client("pgdog", database.name());
    client.run("create table t (a int)");
    assert_eq!(readers(cluster, &proxy, database.name()), [0]);
}
