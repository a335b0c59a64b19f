//! The budget of server connections for a PostgreSQL host, over all users and databases of the process.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Database, Http, Postgres, Proxy, ProxyConfig, RawClient, wait};
use serde_json::{Value, json};

use super::{admin, also, envelope, with_admin};

const BUDGET: &str = "/v1/budget";
const USERS: [&str; 3] = ["pgdog", "carol", "dave"];

/// The host, as budgets name it.
fn host() -> String {
    format!("127.0.0.1:{}", Postgres::shared().port())
}

/// Three users in each of the databases, each with a pool of its own.
fn config(databases: &[Database<'_>], mode: &str) -> ProxyConfig {
    let mut config = ProxyConfig::transaction(Postgres::shared())
        .general("pooler_mode", &format!("\"{mode}\""))
        .general("checkout_timeout", "20000")
        .pool_size(8);
    for database in databases {
        config = config.database(database.name());
    }
    config = config.user("pgdog", "pgdog");
    for database in databases {
        for user in &USERS[1..] {
            config = also(config, user, database);
        }
    }
    with_admin(config, "state_dir = \"state\"\n")
}

fn limit(http: &Http, revision: u64, limit: u64) -> Value {
    let push = envelope(1, revision, &json!({ "hosts": { host(): limit } }));
    http.put(BUDGET, &push).expect(200).json()
}

/// `open` and `limit` of the host, as status tells.
fn figures(http: &Http) -> (u64, Option<u64>) {
    let status = http.get("/v1/status").expect(200).json();
    let host = &status["budget"]["hosts"][host()];
    (
        host["open"].as_u64().expect("a number"),
        host["limit"].as_u64(),
    )
}

/// Connections to the databases, as Postgres counts them; health checks are besides.
fn backends(watcher: &mut RawClient, databases: &[Database<'_>]) -> usize {
    let names: Vec<_> = databases
        .iter()
        .map(|database| format!("'{}'", database.name()))
        .collect();
    let sql = format!(
        "select count(*) from pg_stat_activity where datname in ({}) and application_name <> 'pgdog monitor'",
        names.join(", ")
    );
    watcher.query_value(&sql).parse().expect("a number")
}

/// Says that it is over.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `clients` of each user in each database until `during` has ended, and gives the most connections that were seen from
/// the moment on when `counts` was set. Panics when a client has an error, or was never served.
fn under_load(
    proxy: &Proxy,
    databases: &[Database<'_>],
    clients: usize,
    counts: &AtomicBool,
    during: impl FnOnce(),
) -> usize {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let most = scope.spawn(|| {
            let mut watcher = Postgres::shared().client("postgres");
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                // What is read before does not count: it may have been looked at before the limit was set.
                let counted = counts.load(Ordering::Relaxed);
                let seen = backends(&mut watcher, databases);
                if counted {
                    most = most.max(seen);
                }
            }
            most
        });
        let mut running = Vec::new();
        for database in databases {
            for user in USERS {
                for _ in 0..clients {
                    running.push(scope.spawn(|| {
                        let mut client = proxy.client(user, database.name());
                        let mut served = 0;
                        while !done.load(Ordering::Relaxed) || served == 0 {
                            client.run("begin; select pg_sleep(0.003)");
                            client.run("commit");
                            served += 1;
                        }
                        served
                    }));
                }
            }
        }
        // Also when it panics: nobody waits for ever.
        let ended = Ended(&done);
        during();
        drop(ended);
        for client in running {
            assert!(client.join().expect("no client has an error") > 0);
        }
        most.join().expect("the watcher watches")
    })
}

#[test]
fn a_budget_holds_under_a_rush_and_everybody_gets_a_share() {
    if !Postgres::installed() {
        return;
    }
    let databases = [
        Postgres::shared().fresh_database(),
        Postgres::shared().fresh_database(),
    ];
    // The pools would keep twelve between them, and may have 48.
    let proxy = Proxy::start(&config(&databases, "transaction").general("min_pool_size", "2"));
    let http = admin(&proxy);
    let answer = limit(&http, 1, 4);
    assert_eq!(answer["state"], "applied");
    assert_eq!(answer["hosts"][host()]["limit"], 4);
    assert!(wait::until(PATIENCE, || {
        let (open, _) = figures(&http);
        open <= 4
    }));
    let counts = AtomicBool::new(true);
    let waited = AtomicUsize::new(0);
    let most = under_load(&proxy, &databases, 4, &counts, || {
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            let (open, limit) = figures(&http);
            assert!(open <= 4 && limit == Some(4), "{open} of {limit:?}");
            let status = http.get("/v1/status").expect(200).json();
            let waiting = &status["budget"]["hosts"][host()]["waiting"];
            let waiting = waiting.as_u64().expect("a number") as usize;
            waited.fetch_max(waiting, Ordering::Relaxed);
        }
    });
    assert_eq!(most, 4, "all of it is used, and no more");
    assert!(waited.into_inner() > 0, "somebody is seen to wait for it");
}

#[test]
fn a_budget_that_shrinks_under_load_is_reached_without_an_error() {
    if !Postgres::installed() {
        return;
    }
    let databases = [
        Postgres::shared().fresh_database(),
        Postgres::shared().fresh_database(),
    ];
    let proxy = Proxy::start(&config(&databases, "transaction"));
    let http = admin(&proxy);
    let counts = AtomicBool::new(false);
    let most = under_load(&proxy, &databases, 4, &counts, || {
        assert!(
            wait::until(PATIENCE, || figures(&http).0 > 12),
            "{:?}",
            figures(&http)
        );
        for (round, size) in [10, 3, 1, 6, 2].into_iter().enumerate() {
            let answer = limit(&http, round as u64 + 1, size);
            let told = answer["hosts"][host()]["open"].as_u64().expect("a number");
            let start = Instant::now();
            assert!(
                wait::until(PATIENCE, || {
                    let (open, limit) = figures(&http);
                    // From the answer on none is opened above the limit.
                    assert!(open <= told.max(size), "{open} of {told}");
                    limit == Some(size) && open <= size
                }),
                "{:?}",
                figures(&http)
            );
            assert!(start.elapsed() < Duration::from_secs(5), "{start:?}");
        }
        // Reached: from here on it counts.
        counts.store(true, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(1500));
    });
    assert_eq!(most, 2);
}

#[test]
fn idle_connections_above_a_new_budget_are_closed_and_null_is_any_number() {
    if !Postgres::installed() {
        return;
    }
    let databases = [Postgres::shared().fresh_database()];
    let proxy = Proxy::start(&config(&databases, "transaction"));
    let http = admin(&proxy);
    let mut clients: Vec<_> = (0..6)
        .map(|_| proxy.client("pgdog", databases[0].name()))
        .collect();
    let mut all_at_once = || {
        clients.iter_mut().for_each(|client| client.run("begin"));
        clients.iter_mut().for_each(|client| client.run("commit"));
    };
    all_at_once();
    assert_eq!(figures(&http), (6, None));
    let mut watcher = Postgres::shared().client("postgres");
    assert_eq!(backends(&mut watcher, &databases), 6);
    limit(&http, 1, 2);
    // Postgres has seen them go before the proxy hears of it.
    assert!(wait::until(PATIENCE, || figures(&http) == (2, Some(2))));
    assert_eq!(backends(&mut watcher, &databases), 2);
    // A default counts for hosts that are not named.
    let push = envelope(1, 2, &json!({ "default": 1 }));
    http.put(BUDGET, &push).expect(200);
    assert!(wait::until(PATIENCE, || figures(&http) == (1, Some(1))));
    assert_eq!(backends(&mut watcher, &databases), 1);
    let push = envelope(1, 3, &json!({ "default": null }));
    http.put(BUDGET, &push).expect(200);
    all_at_once();
    assert_eq!(figures(&http), (6, None));
}

#[test]
fn a_budget_of_nothing_lets_clients_wait_for_as_long_as_they_may() {
    if !Postgres::installed() {
        return;
    }
    let databases = [Postgres::shared().fresh_database()];
    let config = config(&databases, "transaction")
        .general("checkout_timeout", "600")
        .general("client_connection_recovery", "\"recover\"");
    let proxy = Proxy::start(&config);
    let http = admin(&proxy);
    let name = databases[0].name();
    let mut early = proxy.client("pgdog", name);
    early.run("select 1");
    limit(&http, 1, 0);
    let start = Instant::now();
    assert_eq!(early.query_error("select 1"), "53300");
    assert!(start.elapsed() >= Duration::from_millis(400));
    let mut watcher = Postgres::shared().client("postgres");
    assert_eq!(backends(&mut watcher, &databases), 0);
    assert_eq!(figures(&http), (0, Some(0)));
    // Who waits when it grows is served.
    thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let mut client = early;
            client.query_value("select 'served'")
        });
        assert!(wait::until(PATIENCE, || {
            let status = http.get("/v1/status").expect(200).json();
            status["budget"]["hosts"][host()]["waiting"] == 1
        }));
        limit(&http, 2, 1);
        assert_eq!(waits.join().expect("it is served"), "served");
    });
}

#[test]
fn who_may_open_nothing_looks_after_nobody_either() {
    if !Postgres::installed() {
        return;
    }
    let databases = [Postgres::shared().fresh_database()];
    let proxy = Proxy::start(
        &config(&databases, "transaction")
            .general("idle_healthcheck_interval", "50")
            .general("idle_healthcheck_delay", "0")
            .append("[budget]\ndefault = 0\n"),
    );
    let http = admin(&proxy);
    let name = databases[0].name();
    let mut watcher = Postgres::shared().client("postgres");
    let mut all = || {
        let sql = format!("select count(*) from pg_stat_activity where datname = '{name}'");
        watcher.query_value(&sql)
    };
    for _ in 0..20 {
        assert_eq!(all(), "0");
        thread::sleep(Duration::from_millis(20));
    }
    let push = envelope(1, 1, &json!({ "default": 1 }));
    http.put(BUDGET, &push).expect(200);
    assert_eq!(proxy.client("pgdog", name).query_value("select 7"), "7");
    assert!(
        wait::until(PATIENCE, || all() == "2"),
        "it is checked: {}",
        all()
    );
    let push = envelope(1, 2, &json!({ "default": 0 }));
    http.put(BUDGET, &push).expect(200);
    assert!(wait::until(PATIENCE, || all() == "0"), "and no more");
}

#[test]
fn connections_that_belong_to_no_pool_and_those_of_sessions_count() {
    if !Postgres::installed() {
        return;
    }
    let databases = [Postgres::shared().fresh_database()];
    let listening = config(&databases, "transaction").general("pub_sub_channel_size", "16");
    let proxy = Proxy::start(&listening);
    let http = admin(&proxy);
    let name = databases[0].name();
    let mut listener = proxy.client("pgdog", name);
    listener.run("listen news");
    let mut watcher = Postgres::shared().client("postgres");
    let listens = format!(
        "select count(*) from pg_stat_activity where application_name = 'pgdog listener' and datname = '{name}'"
    );
    assert!(wait::until(PATIENCE, || {
        watcher.query_value(&listens) == "1"
            && figures(&http).0 as usize == backends(&mut watcher, &databases)
    }));
    limit(&http, 1, 2);
    for user in USERS {
        proxy.client(user, name).run("select 1");
        assert!(backends(&mut watcher, &databases) <= 2);
    }
    assert!(figures(&http).0 <= 2);
    drop(proxy);
    // In session mode a server begins with the client's settings: the one before has gone by then.
    let proxy = Proxy::start(&config(&databases, "session"));
    let http = admin(&proxy);
    limit(&http, 1, 1);
    let done = AtomicBool::new(false);
    let most = thread::scope(|scope| {
        let most = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(backends(&mut watcher, &databases));
            }
            most
        });
        for round in 0..30 {
            let user = USERS[round % 3];
            let options = format!("app{round}");
            let parameters = [
                ("user", user),
                ("database", name),
                ("application_name", options.as_str()),
            ];
            let (mut client, _) = RawClient::login_with(proxy.port(), &parameters).expect("it may");
            client.run("select 1");
            client.goodbye();
        }
        done.store(true, Ordering::Relaxed);
        most.join().expect("the watcher watches")
    });
    assert_eq!(most, 1);
}

#[test]
fn a_budget_has_a_version_of_its_own_and_outlives_a_restart() {
    if !Postgres::installed() {
        return;
    }
    let databases = [Postgres::shared().fresh_database()];
    let mut proxy = Proxy::start(&config(&databases, "transaction"));
    let http = admin(&proxy);
    let status = http.get("/v1/status").expect(200).json();
    assert_eq!(status["budget"]["source"], "files");
    for capability in ["peers", "budget", "prepare"] {
        let all = status["capabilities"].as_array().expect("a list");
        assert!(all.contains(&json!(capability)), "{all:?}");
    }
    let of = |limit: u64| json!({ "hosts": { host(): limit } });
    let dry = http
        .put(&format!("{BUDGET}?dryRun=true"), &envelope(1, 5, &of(3)))
        .expect(200)
        .json();
    assert_eq!(dry["state"], "valid");
    assert_eq!(figures(&http).1, None);
    let answer = http.put(BUDGET, &envelope(1, 5, &of(3))).expect(200).json();
    assert_eq!(answer["persisted"], true);
    let again = http.put(BUDGET, &envelope(1, 5, &of(3))).expect(200).json();
    assert_eq!(again["state"], "unchanged");
    http.put(BUDGET, &envelope(1, 5, &of(4))).expect(409);
    http.put(BUDGET, &envelope(1, 4, &of(4))).expect(409);
    let refused = http
        .put(
            BUDGET,
            &envelope(1, 6, &json!({ "hosts": { "nowhere": 1 } })),
        )
        .expect(422)
        .json();
    assert_eq!(refused["problems"][0]["path"], "hosts.nowhere");
    assert_eq!(refused["keeping"]["revision"], 5);
    for wrong in [
        json!({ "hosts": { host(): -1 } }),
        json!({ "hosts": { host(): null } }),
        json!({ "host": {} }),
        json!({ "default": "many" }),
    ] {
        http.put(BUDGET, &envelope(1, 6, &wrong)).expect(422);
    }
    assert_eq!(figures(&http).1, Some(3));
    let metrics = http.get("/v1/status").expect(200).json();
    assert_eq!(metrics["attempts"][0]["cause"], "push_budget");
    // The files are as before, and say nothing of it.
    http.post("/v1/reload").expect(200);
    assert_eq!(figures(&http).1, Some(3));
    proxy.start_again(&[], &[]);
    assert!(wait::until(PATIENCE, || proxy
        .log()
        .contains("listening on")));
    let http = admin(&proxy);
    assert_eq!(figures(&http).1, Some(3));
    let status = http.get("/v1/status").expect(200).json();
    assert_eq!(status["budget"]["source"], "last_known_good");
    assert_eq!(status["budget"]["revision"], 5);
    http.put(BUDGET, &envelope(1, 4, &of(4))).expect(409);
    // A higher epoch of any of them ends the one before for all.
    http.put(BUDGET, &envelope(2, 1, &of(2))).expect(200);
    let topology = super::topology(&databases[0], databases[0].name());
    http.put("/v1/config/topology", &envelope(1, 9, &topology))
        .expect(409);
    // A snapshot that is later counts; one that is not does not.
    for (revision, expected) in [(0, 2), (7, 1)] {
        let snapshot = format!(
            "[snapshot]\nepoch = 2\nbudget_revision = {revision}\n[budget.hosts]\n\"{}\" = 1\n",
            host()
        );
        proxy.write_config(&config(&databases, "transaction").append(&snapshot));
        admin(&proxy).post("/v1/reload").expect(200);
        assert_eq!(figures(&admin(&proxy)).1, Some(expected));
    }
    proxy.start_again(&[], &[]);
    assert!(wait::until(PATIENCE, || proxy
        .log()
        .contains("listening on")));
    assert_eq!(figures(&admin(&proxy)).1, Some(1));
}
