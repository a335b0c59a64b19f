//! A pool that changes its mode: who is connected keeps its own.

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Database, Message, Postgres, Proxy, ProxyConfig, RawClient, Received, wait};
use serde_json::json;

use super::{admin, config, envelope, settings, with_admin};

/// All changes there are.
const CHANGES: [(&str, &str); 6] = [
    ("transaction", "session"),
    ("session", "transaction"),
    ("transaction", "statement"),
    ("statement", "transaction"),
    ("session", "statement"),
    ("statement", "session"),
];

fn in_mode(database: &Database<'_>, mode: &str) -> ProxyConfig {
    with_admin(config(database), "")
        .general("pooler_mode", &format!("\"{mode}\""))
        .pool_size(12)
}

/// Changes the mode by the files, and waits until it is in force.
fn reload(proxy: &Proxy, config: &ProxyConfig, mode: &str) {
    proxy.write_config(config);
    proxy.reload();
    let http = admin(proxy);
    let modes = || http.get("/v1/pools").json();
    let of = |pools: &serde_json::Value| pools[0]["pool_mode"] == mode;
    assert!(wait::until(PATIENCE, || of(&modes())), "{:#}", modes());
}

/// Binds and executes a statement that gives one value.
fn bound(client: &mut RawClient, statement: &str) -> String {
    let told = client.transcript(&[
        Message::bind(statement, &[]),
        Message::execute(),
        Message::Sync,
    ]);
    told.join(" ")
}

/// One client for each kind of what a session may have; in some modes it is the proxy that keeps it, in others the server.
struct Clients {
    protocol: RawClient,
    unnamed: RawClient,
    sql: RawClient,
    setting: RawClient,
    table: RawClient,
    listener: RawClient,
    all: RawClient,
}

impl Clients {
    fn connect(proxy: &Proxy, database: &Database<'_>) -> Self {
        let client = || proxy.client("pgdog", database.name());
        let mut this = Self {
            protocol: client(),
            unnamed: client(),
            sql: client(),
            setting: client(),
            table: client(),
            listener: client(),
            all: client(),
        };
        for client in [&mut this.protocol, &mut this.all] {
            let parse = Message::parse("P_0", "select 'protocol'");
            let told = client.transcript(&[parse, Message::Sync]);
            assert!(told[0].starts_with('1'), "{told:?}");
        }
        for client in [&mut this.unnamed, &mut this.all] {
            let parse = Message::parse("", "select 'unnamed'");
            client.transcript(&[parse, Message::Sync]);
        }
        this.sql.run("prepare q as select 'sql'");
        this.setting.run("set work_mem = '7MB'");
        this.table.run("create temp table t as select 42 as a");
        this.listener.run("listen x");
        assert_eq!(this.unnamed(), "unnamed");
        for sql in [
            "prepare q as select 'sql'",
            "set work_mem = '7MB'",
            "create temp table t as select 42 as a",
        ] {
            this.all.run(sql);
        }
        this
    }

    fn unnamed(&mut self) -> &'static str {
        let told = bound(&mut self.unnamed, "");
        assert!(told.contains("\"unnamed\""), "{told}");
        "unnamed"
    }

    /// All that they had is there.
    fn check(&mut self, database: &Database<'_>) {
        for client in [&mut self.protocol, &mut self.all] {
            let told = bound(client, "P_0");
            assert!(told.contains("\"protocol\""), "{told}");
        }
        self.unnamed();
        for client in [&mut self.sql, &mut self.all] {
            assert_eq!(client.query_value("execute q"), "sql");
        }
        for client in [&mut self.setting, &mut self.all] {
            assert_eq!(client.query_value("show work_mem"), "7MB");
        }
        for client in [&mut self.table, &mut self.all] {
            assert_eq!(client.query_value("select a from t"), "42");
        }
        database.run("notify x");
        match self.listener.receive(PATIENCE) {
            Received::Frame(frame) => assert_eq!(frame.line(), "A x \"\""),
            other => panic!("{other:?}"),
        }
    }

    /// What they may go on doing.
    fn each(&mut self, sql: &str) {
        for client in [&mut self.protocol, &mut self.sql, &mut self.all] {
            client.run(sql);
        }
    }
}

/// Whoever comes now is served in this mode.
fn newcomers_are_in(proxy: &Proxy, database: &Database<'_>, mode: &str) {
    let mut client = proxy.client("pgdog", database.name());
    // It finds itself, under the name that the server knows it by.
    let sql = "select name from pg_prepared_statements where statement ~ 'itself'";
    client.transcript(&[Message::parse("mine", sql), Message::Sync]);
    let told = bound(&mut client, "mine");
    assert_eq!(told.contains("\"mine\""), mode == "session", "{told}");
    if mode == "statement" {
        assert_eq!(client.query_error("begin"), "0A000");
    } else {
        client.run("begin; commit");
    }
}

#[test]
fn clients_do_not_notice_that_their_pool_changes_its_mode() {
    if !Postgres::installed() {
        return;
    }
    for level in ["extended", "full"] {
        for (from, to) in CHANGES {
            let database = Postgres::shared().fresh_database();
            let mode = |mode: &str| {
                in_mode(&database, mode).general("prepared_statements", &format!("\"{level}\""))
            };
            let proxy = Proxy::start(&mode(from));
            let mut clients = Clients::connect(&proxy, &database);
            clients.check(&database);
            // And back again, under those that came meanwhile.
            for next in [to, from, to] {
                reload(&proxy, &mode(next), next);
                for _ in 0..3 {
                    clients.check(&database);
                }
                if from != "statement" {
                    clients.each("begin");
                    clients.each("commit");
                }
                newcomers_are_in(&proxy, &database, next);
            }
        }
    }
}

#[test]
fn a_mode_that_is_pushed_is_for_those_who_log_in_from_then_on() {
    if !Postgres::installed() {
        return;
    }
    for (from, to) in CHANGES {
        let database = Postgres::shared().fresh_database();
        let proxy = Proxy::start(&in_mode(&database, from));
        let mut clients = Clients::connect(&proxy, &database);
        let mut pushed = settings(&database, &["pgdog"]);
        pushed["general"]["pooler_mode"] = json!(to);
        pushed["general"]["default_pool_size"] = json!(12);
        let http = admin(&proxy);
        http.put("/v1/config/settings", &envelope(1, 1, &pushed))
            .expect(200);
        clients.check(&database);
        newcomers_are_in(&proxy, &database, to);
        clients.check(&database);
    }
}

#[test]
fn a_transaction_under_way_ends_as_it_began() {
    if !Postgres::installed() {
        return;
    }
    for (from, to) in CHANGES.into_iter().filter(|(from, _)| *from != "statement") {
        let database = Postgres::shared().fresh_database();
        database.run("create table t (a int)");
        let proxy = Proxy::start(&in_mode(&database, from));
        let mut client = proxy.client("pgdog", database.name());
        client.run("begin");
        client.run("insert into t values (1)");
        reload(&proxy, &in_mode(&database, to), to);
        client.run("insert into t values (2)");
        client.run("commit");
        client.run("begin; insert into t values (3); commit");
        assert_eq!(client.query_value("select sum(a) from t"), "6");
    }
}

/// Logs in with settings of its own.
fn stranger(proxy: &Proxy, database: &Database<'_>) -> RawClient {
    let parameters = [
        ("user", "pgdog"),
        ("database", database.name()),
        ("application_name", "stranger"),
        ("options", "-c work_mem=3MB"),
    ];
    let (client, frames) =
        RawClient::login_with(proxy.port(), &parameters).expect("the proxy accepts");
    assert_eq!(frames.last().and_then(|f| f.status()), Some('I'));
    client
}

#[test]
fn clients_of_two_modes_get_nothing_of_each_other_from_the_server_they_share() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let mode = |mode: &str| in_mode(&database, mode).pool_size(1);
    let proxy = Proxy::start(&mode("transaction"));
    let mut old = proxy.client("pgdog", database.name());
    let parsed = |name: &str| Message::parse(name, "select 'of the old one'");
    old.send(&[parsed("P_0"), Message::Sync]);
    old.until_ready();
    reload(&proxy, &mode("session"), "session");
    for plain in [true, false, true, false] {
        old.run("reset work_mem");
        let shown = "select current_setting('work_mem') || current_setting('application_name')";
        assert_eq!(old.query_value(shown), "4MB");
        // Both of its statements are on the server from here on.
        old.send(&[parsed(""), Message::Sync]);
        old.until_ready();
        for name in ["P_0", ""] {
            let told = bound(&mut old, name);
            assert!(told.contains("of the old one"), "{told}");
        }

        let mut new = if plain {
            proxy.client("pgdog", database.name())
        } else {
            stranger(&proxy, &database)
        };
        assert!(bound(&mut new, "").contains("26000"));
        let there = "select count(*) from pg_prepared_statements";
        assert_eq!(new.query_value(there), "0");
        if plain {
            new.goodbye();
            continue;
        }
        assert_eq!(new.query_value(shown), "3MBstranger");
        new.run("set work_mem = '8MB'; reset work_mem");
        assert_eq!(new.query_value(shown), "3MBstranger");
        new.goodbye();
    }
}
