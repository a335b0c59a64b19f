//! What keeps a server with its client outside of transactions, and for how long.

use pgdog_tests::transcript::lines;
use pgdog_tests::{Database, Message, Postgres, Proxy, ProxyConfig, RawClient};

fn config(database: &Database<'_>) -> ProxyConfig {
    ProxyConfig::transaction(Postgres::shared())
        .pool_size(1)
        .general("checkout_timeout", "300")
        .general("client_connection_recovery", "\"recover\"")
        .database(database.name())
        .user("pgdog", "pgdog")
}

/// One server, a client that may keep it, and another that finds out whether it does.
struct Stage<'a> {
    _database: Database<'a>,
    proxy: Proxy,
    client: RawClient,
    other: RawClient,
}

impl Stage<'_> {
    fn set() -> Self {
        Self::set_with(|config| config)
    }

    fn set_with(change: impl FnOnce(ProxyConfig) -> ProxyConfig) -> Self {
        let database = Postgres::shared().fresh_database();
        let proxy = Proxy::start(&change(config(&database)));
        let (client, other) = (
            proxy.client("pgdog", database.name()),
            proxy.client("pgdog", database.name()),
        );
        Self {
            _database: database,
            proxy,
            client,
            other,
        }
    }

    fn is_pinned(&mut self) -> bool {
        let frames = self.other.query("select 1");
        match frames.iter().find(|frame| frame.tag == b'E') {
            Some(error) => {
                assert_eq!(
                    error.field(b'C').as_deref(),
                    Some("53300"),
                    "{:?}",
                    lines(&frames)
                );
                true
            }
            None => false,
        }
    }

    fn client_runs(&mut self, sql: &str) {
        self.client.run(sql);
    }

    /// Runs SQL after which the server is kept.
    fn pins(&mut self, sql: &str) {
        self.client.run(sql);
        assert!(self.is_pinned(), "not pinned after: {sql}");
    }

    /// Runs SQL after which the server is everybody's.
    fn unpins(&mut self, sql: &str) {
        self.client.run(sql);
        assert!(!self.is_pinned(), "pinned after: {sql}");
    }
}

#[test]
fn each_reason_pins_and_unpins_on_its_own() {
    if !Postgres::installed() {
        return;
    }
    let mut stage = Stage::set();
    let reasons = [
        ("create temp table x (a int)", "drop table x"),
        ("select 1 as a into temporary x", "drop table x"),
        (
            "begin; declare c cursor with hold for select 1; commit",
            "close c",
        ),
        ("select pg_advisory_lock(1)", "select pg_advisory_unlock(1)"),
        (
            "select pg_try_advisory_lock_shared(1, 2)",
            "select pg_advisory_unlock_all()",
        ),
        ("prepare p as select 1", "deallocate p"),
        ("listen x", "unlisten x"),
        (
            "do $$ begin create temp table x (a int); end $$",
            "do $$ begin drop table x; end $$",
        ),
        ("set pgdog.pin = on", "set pgdog.pin = off"),
        ("set pgdog.pin to 'true'", "reset pgdog.pin"),
    ];
    for (pin, unpin) in reasons {
        stage.pins(pin);
        stage.client_runs("begin");
        stage.pins("commit");
        stage.unpins(unpin);
    }
}

#[test]
fn a_server_is_kept_until_the_last_reason_is_gone() {
    if !Postgres::installed() {
        return;
    }
    let mut stage = Stage::set();
    stage.pins("create temp table x (a int); listen x");
    stage.client_runs("select pg_advisory_lock(1), pg_advisory_lock(1)");
    stage.pins("drop table x");
    stage.pins("select pg_advisory_unlock(1)");
    stage.pins("unlisten x");
    stage.unpins("select pg_advisory_unlock(1)");
    stage.pins("prepare p as select 1; listen x; create temp table x (a int)");
    stage.unpins("discard all");
}

#[test]
fn what_ends_with_its_transaction_does_not_pin() {
    if !Postgres::installed() {
        return;
    }
    let mut stage = Stage::set();
    for sql in [
        "begin; create temp table x (a int); rollback",
        "begin; create temp table x (a int) on commit drop; commit",
        "begin; declare c cursor for select 1; commit",
        "begin; declare c cursor with hold for select 1; rollback",
        "begin; select pg_advisory_xact_lock(1); commit",
        "begin; listen x; rollback",
        "begin; set local work_mem = '7MB'; commit",
        "set work_mem = '7MB'",
        "set local pgdog.pin = on",
        "select 'create temp table x (a int)'",
        "notify x",
    ] {
        stage.unpins(sql);
    }
    // In several messages, too.
    for sql in [
        "begin",
        "create temp table x (a int)",
        "savepoint s",
        "listen x",
        "select 1",
    ] {
        stage.client_runs(sql);
    }
    stage.unpins("rollback");
    for sql in ["begin", "set pgdog.pin = on"] {
        stage.client_runs(sql);
    }
    stage.unpins("rollback");
}

#[test]
fn the_extended_protocol_pins_alike() {
    if !Postgres::installed() {
        return;
    }
    let mut stage = Stage::set();
    let execute = |stage: &mut Stage<'_>, sql: &str| {
        stage.client.send(&[
            Message::parse("", sql),
            Message::bind("", &[]),
            Message::execute(),
            Message::Sync,
        ]);
        let told = lines(&stage.client.until_ready());
        assert_eq!(told.last().map(String::as_str), Some("Z I"), "{told:?}");
        stage.is_pinned()
    };
    let reasons = [
        ("create temp table x (a int)", "drop table x"),
        ("select pg_advisory_lock(1)", "select pg_advisory_unlock(1)"),
        ("prepare p as select 1", "deallocate p"),
        ("listen x", "unlisten *"),
        ("set pgdog.pin = on", "set pgdog.pin = off"),
    ];
    for (pin, unpin) in reasons {
        assert!(execute(&mut stage, pin), "{pin}");
        assert!(!execute(&mut stage, unpin), "{unpin}");
    }
    // A prepared statement that makes a temporary table pins whenever it is executed.
    stage.client.send(&[
        Message::parse("s", "create temp table y (a int)"),
        Message::Sync,
    ]);
    stage.client.until_ready();
    assert!(!stage.is_pinned(), "prepared and not executed");
    stage
        .client
        .send(&[Message::bind("s", &[]), Message::execute(), Message::Sync]);
    stage.client.until_ready();
    assert!(stage.is_pinned());
    stage.unpins("drop table y");
}

#[test]
fn at_the_full_level_statements_of_sql_do_not_pin() {
    if !Postgres::installed() {
        return;
    }
    let mut stage = Stage::set_with(|c| c.general("prepared_statements", "\"full\""));
    for sql in [
        "prepare a (int) as select $1",
        "execute a (1)",
        "explain execute a (1)",
        "create table t as execute a (1)",
        "prepare b as select 2; execute b; deallocate b",
        "begin; prepare b as select 3; rollback",
        "execute b",
        "deallocate b",
        "deallocate all",
    ] {
        stage.unpins(sql);
    }
    for sql in ["prepare a as select 1", "execute a", "deallocate a"] {
        let mut batch = vec![Message::parse("", sql), Message::bind("", &[])];
        batch.extend([Message::execute(), Message::Sync]);
        let told = stage.client.transcript(&batch);
        assert!(!told.iter().any(|l| l.starts_with('E')), "{told:?}");
        assert!(!stage.is_pinned(), "{sql}");
    }
    // What a statement does pins when it is executed, and the reason can go.
    stage.unpins("prepare l as select pg_advisory_lock(1)");
    stage.pins("execute l");
    stage.unpins("select pg_advisory_unlock(1)");
    // A name that only the server reads is the server's; then all names are.
    stage.unpins("prepare a as select 'a'");
    stage.pins("prepare U&\"\\0062\" as select 'b'");
    assert_eq!(stage.client.query_value("execute a"), "a");
    assert_eq!(stage.client.query_value("execute b"), "b");
    stage.client_runs("deallocate a");
    stage.client_runs("deallocate l");
    stage.unpins("deallocate b");
    stage.unpins("prepare a as select 'c'");
}

#[test]
fn at_the_full_level_each_client_has_its_own_names() {
    if !Postgres::installed() {
        return;
    }
    // Both use the one server by turns.
    let mut stage = Stage::set_with(|c| {
        c.general("prepared_statements", "\"full\"")
            .general("rollback_timeout", "200")
    });
    stage.client.run("prepare a as select 'client'");
    stage.other.run("prepare a as select 'other'");
    stage.other.run("prepare b as select 'client'");
    for _ in 0..2 {
        assert_eq!(stage.client.query_value("execute a"), "client");
        assert_eq!(stage.other.query_value("execute a"), "other");
        assert_eq!(stage.other.query_value("execute b"), "client");
    }
    stage.other.run("deallocate all");
    assert_eq!(stage.other.query_error("execute a"), "26000");
    assert_eq!(stage.client.query_value("execute a"), "client");
    // Somebody who leaves in the middle of it leaves nothing behind.
    stage
        .other
        .send(&[Message::query("prepare a as select 1; select pg_sleep(60)")]);
    let gone = std::mem::replace(
        &mut stage.other,
        RawClient::open(stage.proxy.port()).expect("the proxy accepts"),
    );
    drop(gone);
    let mut told = Vec::new();
    let answered = pgdog_tests::wait::until(pgdog_tests::raw::PATIENCE, || {
        told = lines(&stage.client.query("prepare x as select 1"));
        told[0] == "C PREPARE"
    });
    assert!(answered, "{told:?}");
    assert_eq!(stage.client.query_value("execute x"), "1");
    assert_eq!(stage.client.query_value("execute a"), "client");
}

#[test]
fn sequence_values_are_remembered_until_they_are_discarded() {
    if !Postgres::installed() {
        return;
    }
    let mut stage = Stage::set();
    stage.client_runs("create sequence s");
    for (ask, discard) in [
        ("select currval('s')", "discard sequences"),
        ("select lastval()", "discard all"),
    ] {
        if ask.contains("currval") {
            // The first of the pool to ask so is asked to begin again.
            stage.client_runs("begin");
            stage.client_runs("select nextval('s')");
            assert_eq!(stage.client.query_error(ask), "40001");
            stage.client_runs("rollback");
            stage.unpins(discard);
        }
        stage.client_runs("begin");
        stage.client_runs("select nextval('s')");
        let drawn = stage.client.query_value(ask);
        stage.pins("commit");
        assert_eq!(stage.client.query_value(ask), drawn);
        stage.unpins(discard);
        // What others have drawn is nobody's.
        stage.other.run("select nextval('s')");
        assert_eq!(stage.client.query_error(ask), "55000");
        stage.unpins(discard);
    }
}

#[test]
fn a_client_may_ask_for_a_server_of_its_own_at_login() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let mut other = proxy.client("pgdog", database.name());
    for parameters in [("pgdog.pin", "on"), ("options", "-c pgdog.pin=true")] {
        let login = [("user", "pgdog"), ("database", database.name()), parameters];
        let (mut client, _) =
            RawClient::login_with(proxy.port(), &login).expect("the proxy accepts");
        client.run("select 1");
        assert_eq!(other.query_error("select 1"), "53300", "{parameters:?}");
        client.run("set pgdog.pin = off");
        other.run("select 1");
        client.goodbye();
    }
}

#[test]
fn a_pinned_server_is_cleaned_when_its_client_goes() {
    if !Postgres::installed() {
        return;
    }
    for orderly in [true, false] {
        let mut stage = Stage::set();
        stage.pins("create temp table x (a int); listen x; prepare p as select 1; select pg_advisory_lock(1)");
        let gone = std::mem::replace(
            &mut stage.client,
            RawClient::open(stage.proxy.port()).expect("the proxy accepts"),
        );
        if orderly {
            gone.goodbye()
        } else {
            drop(gone)
        }
        let rows = "select (select count(*) from pg_class where relname = 'x'), (select count(*) from pg_prepared_statements where from_sql), \
            (select count(*) from pg_listening_channels()), (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid())";
        let clean = pgdog_tests::wait::until(pgdog_tests::raw::PATIENCE, || {
            let frames = stage.other.query(rows);
            frames
                .iter()
                .any(|frame| frame.line() == "D (\"0\", \"0\", \"0\", \"0\")")
        });
        assert!(clean, "orderly: {orderly}");
    }
}

#[test]
fn pinned_connections_have_a_limit() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(
        &config(&database)
            .pool_size(4)
            .general("max_pinned_connections", "1"),
    );
    let [mut first, mut second, mut third, mut plain] =
        [(); 4].map(|()| proxy.client("pgdog", database.name()));
    first.run("create temp table x (a int)");
    // Whether it is kept is found out behind the answer; this waits for it.
    first.run("select 1");
    // What was asked for has succeeded by then, and is answered.
    plain.run("begin; create temp table y (a int)");
    plain.send(&[Message::query("commit")]);
    let told = lines(&plain.until_eof().expect("it is closed"));
    assert_eq!(told[..2], ["C COMMIT", "Z I"]);
    assert!(
        told.iter()
            .any(|line| line.starts_with("E FATAL 53300") && line.contains("temp")),
        "{told:?}"
    );
    second.send(&[Message::query("listen x")]);
    let told = lines(&second.until_eof().expect("it is closed"));
    assert!(
        told.last()
            .is_some_and(|line| line.starts_with("E FATAL 53300") && line.contains("listen")),
        "{told:?}"
    );
    assert_eq!(third.query_value("select 1"), "1");
    first.run("drop table x");
    third.run("listen x");
    // Whoever vanishes makes room.
    drop(third);
    assert!(pgdog_tests::wait::until(pgdog_tests::raw::PATIENCE, || {
        let mut next = proxy.client("pgdog", database.name());
        next.query("listen x")
            .last()
            .and_then(pgdog_tests::Frame::status)
            .is_some()
    }));
}

#[test]
fn a_made_up_setting_leaves_its_name_behind_and_not_its_value() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database).pool_size(1));
    let [mut first, mut second] = [(); 2].map(|()| proxy.client("pgdog", database.name()));
    let asked = "select current_setting('made.up', true) is null";
    assert_eq!(second.query_value(asked), "t");
    first.run("set made.up = 'secret'");
    assert_eq!(
        first.query_value("select current_setting('made.up')"),
        "secret"
    );
    // PostgreSQL knows no way to forget the name.
    assert_eq!(
        second.query_value("select current_setting('made.up', true) = ''"),
        "t"
    );
    assert_eq!(
        second.query_value("select nullif(current_setting('made.up', true), '') is null"),
        "t"
    );
}

#[test]
fn what_a_text_does_not_show_stays_with_the_client_that_hid_it() {
    if !Postgres::installed() {
        return;
    }
    for hidden in [
        "set search_path to pg_temp, public",
        "select set_config('search_path', 'pg_temp', false)",
        "begin; set local search_path = pg_temp; create table x (a int); commit",
        "set standard_conforming_strings = off",
        "set client_encoding to sjis",
        "set seed = 0.5",
        "select setseed(0.5)",
        "prepare p as select set_config('a.b', $1, false); deallocate p",
    ] {
        Stage::set().pins(hidden);
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    for (name, value) in [
        ("search_path", "pg_temp, public"),
        ("standard_conforming_strings", "off"),
    ] {
        let parameters = [
            ("user", "pgdog"),
            ("database", database.name()),
            (name, value),
        ];
        let (mut client, _) = RawClient::login_with(proxy.port(), &parameters).expect("it may");
        client.run("create table secret as select 'of the first' as text");
        client.goodbye();
        let mut other = proxy.client("pgdog", database.name());
        let found = other.query("select text from secret");
        let is_temporary = name == "search_path";
        assert_eq!(
            found.iter().any(|frame| frame.tag == b'E'),
            is_temporary,
            "{name}"
        );
    }
    // What it needs and pg_dump says costs nobody anything.
    let mut stage = Stage::set();
    for plain in [
        "set standard_conforming_strings = on",
        "set client_encoding = 'UTF8'",
        "set search_path = public",
    ] {
        stage.unpins(plain);
    }
}

#[test]
fn functions_that_are_called_by_number_are_asked_about() {
    if !Postgres::installed() {
        return;
    }
    let mut stage = Stage::set();
    let call = |function: u32, arguments: &[&str]| Message::FunctionCall {
        function,
        formats: Vec::new(),
        values: arguments
            .iter()
            .map(|a| Some(a.as_bytes().to_vec()))
            .collect(),
        result: 0,
    };
    // pg_advisory_lock and pg_advisory_unlock
    stage.client.transcript(&[call(2880, &["4711"])]);
    assert!(stage.is_pinned());
    stage.client.transcript(&[call(2884, &["4711"])]);
    assert!(!stage.is_pinned());
    // set_config
    stage
        .client
        .transcript(&[call(2078, &["work_mem", "7MB", "f"])]);
    assert_ne!(stage.other.query_value("show work_mem"), "7MB");
    assert_eq!(stage.client.query_value("show work_mem"), "7MB");
}

#[test]
fn what_was_done_under_a_pin_goes_with_its_client() {
    if !Postgres::installed() {
        return;
    }
    let mut stage = Stage::set();
    stage.client.run(
        "create function quietly() returns void language plpgsql as $$ begin set work_mem = '13MB'; end $$",
    );
    stage.pins("set pgdog.pin = on");
    stage.client.run("select quietly()");
    stage.unpins("set pgdog.pin = off");
    assert_ne!(stage.other.query_value("show work_mem"), "13MB");
    assert_eq!(stage.client.query_value("show work_mem"), "13MB");
}
