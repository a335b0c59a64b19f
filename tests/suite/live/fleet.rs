//! Changes that are made on all proxies of a fleet or on none: prepare, then commit or abort.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::transcript::lines;
use pgdog_tests::{Database, Http, Message, Postgres, Proxy, RawClient, Received, wait};
use serde_json::{Value, json};

use super::{admin, config, envelope, topology, with_admin};

/// Asks one of `prepare`, `commit`, `abort`: the status and the answer.
fn ask(http: &Http, what: &str, body: &Value) -> (u16, Value) {
    let answer = http.ask("POST", &format!("/v1/{what}"), Some(&body.to_string()));
    let answer = answer.expect("there is an answer");
    (answer.status, answer.json())
}

fn change(epoch: u64, id: &str, deadline_ms: u64, change: &Value) -> Value {
    json!({ "epoch": epoch, "id": id, "deadline_ms": deadline_ms, "change": change })
}

fn named(epoch: u64, id: &str) -> Value {
    json!({ "epoch": epoch, "id": id })
}

fn start(database: &Database<'_>) -> Proxy {
    Proxy::start(&with_admin(config(database), ""))
}

fn prepared(http: &Http) -> Value {
    http.get("/v1/status").expect(200).json()["prepared"].clone()
}

/// Sends a query that has to wait.
fn waits(client: &mut RawClient) {
    client.send(&[Message::query("select current_database()")]);
    assert_eq!(
        client.receive(Duration::from_millis(200)),
        Received::Silence
    );
}

/// What the query says that had to wait.
fn told(client: &mut RawClient) -> String {
    let told = lines(&client.until_ready());
    let row = told.iter().find(|line| line.starts_with('D'));
    row.unwrap_or_else(|| panic!("no row: {told:?}")).clone()
}

#[test]
fn a_topology_is_committed_on_all_proxies_and_held_clients_lose_nothing() {
    if !Postgres::installed() {
        return;
    }
    let (database, other) = (
        Postgres::shared().fresh_database(),
        Postgres::shared().fresh_database(),
    );
    let fleet = [start(&database), start(&database)];
    let https = [admin(&fleet[0]), admin(&fleet[1])];
    // The state before ends when the first one commits, and from its first sight on nobody may see it.
    let (done, moved, seen) = (
        AtomicBool::new(false),
        AtomicBool::new(false),
        AtomicUsize::new(0),
    );
    thread::scope(|scope| {
        for number in 0..8 {
            let (proxy, database, other) = (&fleet[number % 2], &database, &other);
            let (done, moved, seen) = (&done, &moved, &seen);
            scope.spawn(move || {
                let mut client = proxy.client("pgdog", database.name());
                while !done.load(Ordering::Relaxed) {
                    let after = moved.load(Ordering::SeqCst);
                    client.run("begin");
                    let name = client.query_value("select current_database()");
                    client.run("commit");
                    if name == other.name() {
                        moved.store(true, Ordering::SeqCst);
                        seen.fetch_add(1, Ordering::Relaxed);
                    } else {
                        assert_eq!(name, database.name());
                        assert!(!after, "the state before, after somebody has seen the next");
                    }
                }
            });
        }
        let push = envelope(1, 1, &topology(&database, other.name()));
        let asked = change(1, "move", 20_000, &json!({ "topology": push }));
        for http in &https {
            let (status, answer) = ask(http, "prepare", &asked);
            assert_eq!(
                (status, &answer["state"]),
                (200, &json!("prepared")),
                "{answer}"
            );
            assert_eq!(answer["pushed"]["state"], "valid");
            let now = prepared(http);
            assert_eq!((&now["id"], &now["holds"]), (&json!("move"), &json!(true)));
        }
        // Who comes meanwhile waits as well.
        let mut held = fleet.each_ref().map(|proxy| {
            let mut client = RawClient::open(proxy.port()).expect("it accepts");
            let parameters = [("user", "pgdog"), ("database", database.name())];
            client.send(&[Message::startup(&parameters)]);
            client
        });
        assert_eq!(seen.load(Ordering::Relaxed), 0);
        for http in &https {
            let (status, answer) = ask(http, "commit", &named(1, "move"));
            assert_eq!(
                (status, &answer["state"]),
                (200, &json!("committed")),
                "{answer}"
            );
            assert_eq!(answer["pushed"]["state"], "applied");
            // Who has not heard the answer hears it again.
            assert_eq!(ask(http, "commit", &named(1, "move")), (200, answer));
            assert_eq!(prepared(http), Value::Null);
        }
        for client in &mut held {
            client.until_ready();
            assert_eq!(
                client.query_value("select current_database()"),
                other.name()
            );
        }
        assert!(wait::until(PATIENCE, || seen.load(Ordering::Relaxed) > 50));
        done.store(true, Ordering::Relaxed);
    });
    for http in &https {
        let status = http.get("/v1/status").expect(200).json();
        assert_eq!(status["topology"]["revision"], 1);
        let (status, _) = ask(http, "abort", &named(1, "move"));
        assert_eq!(status, 409, "it is in force");
    }
}

#[test]
fn when_one_refuses_all_abort_and_nothing_has_changed() {
    if !Postgres::installed() {
        return;
    }
    let (database, other) = (
        Postgres::shared().fresh_database(),
        Postgres::shared().fresh_database(),
    );
    let fleet = [start(&database), start(&database)];
    let https = [admin(&fleet[0]), admin(&fleet[1])];
    let [mut first, mut second] = fleet
        .each_ref()
        .map(|proxy| proxy.client("pgdog", database.name()));
    // One has a transaction that does not end.
    second.run("begin");
    let pause = |id: &str| change(1, id, 700, &json!({ "pause": {} }));
    assert_eq!(ask(&https[0], "prepare", &pause("pause")).0, 200);
    waits(&mut first);
    let begun = Instant::now();
    let (status, answer) = ask(&https[1], "prepare", &pause("pause"));
    assert_eq!(
        (status, &answer["error"]),
        (409, &json!("busy")),
        "{answer}"
    );
    assert!(begun.elapsed() >= Duration::from_millis(600));
    for http in &https {
        let (status, answer) = ask(http, "abort", &named(1, "pause"));
        assert_eq!((status, &answer["state"]), (200, &json!("aborted")));
    }
    assert!(told(&mut first).contains(database.name()));
    assert_eq!(
        second.query_value("select 1"),
        "1",
        "its transaction goes on"
    );
    second.run("commit");
    second.run("select 1");
    // One has a later topology.
    let before = envelope(1, 7, &topology(&database, database.name()));
    https[1].put("/v1/config/topology", &before).expect(200);
    let push = envelope(1, 6, &topology(&database, other.name()));
    let asked = change(1, "move", 20_000, &json!({ "topology": push }));
    assert_eq!(ask(&https[0], "prepare", &asked).0, 200);
    waits(&mut first);
    let (status, answer) = ask(&https[1], "prepare", &asked);
    assert_eq!(
        (status, &answer["error"]),
        (409, &json!("stale")),
        "{answer}"
    );
    assert_eq!(answer["keeping"]["revision"], 7);
    assert_eq!(prepared(&https[1]), Value::Null);
    second.run("select 1");
    // One that is wrong in itself is refused by each.
    let wrong = json!({ "settings": envelope(1, 1, &json!({ "general": { "prot": 1 } })) });
    let (status, answer) = ask(&https[1], "prepare", &change(1, "wrong", 1000, &wrong));
    assert_eq!(
        (status, &answer["error"]),
        (422, &json!("rejected")),
        "{answer}"
    );
    assert_eq!(ask(&https[0], "abort", &named(1, "move")).0, 200);
    assert!(told(&mut first).contains(database.name()));
    let status = https[0].get("/v1/status").expect(200).json();
    assert_eq!(status["topology"]["source"], "files");
    let (status, answer) = ask(&https[0], "commit", &named(1, "move"));
    assert_eq!(
        (status, &answer["error"]),
        (409, &json!("wrong_state")),
        "{answer}"
    );
}

#[test]
fn a_change_that_nobody_commits_is_undone_at_its_deadline() {
    if !Postgres::installed() {
        return;
    }
    let (database, other) = (
        Postgres::shared().fresh_database(),
        Postgres::shared().fresh_database(),
    );
    let proxy = start(&database);
    let http = admin(&proxy);
    let mut client = proxy.client("pgdog", database.name());
    client.run("select 1");
    let push = envelope(1, 1, &topology(&database, other.name()));
    for (id, what) in [
        ("move", json!({ "topology": push })),
        (
            "pause",
            json!({ "pause": { "database": database.name(), "user": "pgdog" } }),
        ),
    ] {
        let begun = Instant::now();
        assert_eq!(ask(&http, "prepare", &change(1, id, 800, &what)).0, 200);
        waits(&mut client);
        assert!(told(&mut client).contains(database.name()));
        let took = begun.elapsed();
        assert!(
            took >= Duration::from_millis(780) && took < Duration::from_secs(5),
            "{took:?}"
        );
        assert_eq!(prepared(&http), Value::Null);
        let undone = format!("a change of the fleet is undone, {id}");
        assert!(
            wait::until(PATIENCE, || proxy.log().contains(&undone)),
            "{}",
            proxy.log()
        );
        assert_eq!(ask(&http, "commit", &named(1, id)).0, 409);
    }
}

#[test]
fn a_fleet_is_paused_and_resumed_as_one() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let fleet = [start(&database), start(&database)];
    let https = [admin(&fleet[0]), admin(&fleet[1])];
    let mut clients = fleet
        .each_ref()
        .map(|proxy| proxy.client("pgdog", database.name()));
    let all = |what: &str, body: &Value| {
        for http in &https {
            let (status, answer) = ask(http, what, body);
            assert_eq!(status, 200, "{answer}");
        }
    };
    all("prepare", &change(1, "p", 20_000, &json!({ "pause": {} })));
    clients.iter_mut().for_each(waits);
    all("commit", &named(1, "p"));
    let paused = |http: &Http| http.get("/v1/status").expect(200).json()["paused"].clone();
    assert!(https.iter().all(|http| paused(http) == true));
    let silent = |client: &mut RawClient| client.receive(Duration::from_millis(100));
    assert!(clients.iter_mut().all(|c| silent(c) == Received::Silence));
    // Before the end of a pause nobody is held who was not.
    all("prepare", &change(1, "r", 20_000, &json!({ "resume": {} })));
    assert_eq!(prepared(&https[0])["holds"], false);
    assert!(clients.iter_mut().all(|c| silent(c) == Received::Silence));
    all("commit", &named(1, "r"));
    assert!(https.iter().all(|http| paused(http) == false));
    for client in &mut clients {
        assert!(told(client).contains(database.name()));
    }
}

#[test]
fn one_that_starts_in_a_paused_fleet_is_paused_until_the_fleet_goes_on() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let config = with_admin(config(&database), "").append("[snapshot]\npaused = true\n");
    let proxy = Proxy::start(&config);
    let http = admin(&proxy);
    assert_eq!(http.get("/v1/status").expect(200).json()["paused"], true);
    thread::scope(|scope| {
        // The first client waits already when it logs in: nobody has told yet what Postgres is like.
        let answer = scope.spawn(|| {
            let mut client = proxy.client("pgdog", database.name());
            client.query_value("select current_database()")
        });
        // It is read at the start only.
        http.post("/v1/reload").expect(200);
        thread::sleep(Duration::from_millis(200));
        assert!(!answer.is_finished());
        let resume = change(1, "r", 20_000, &json!({ "resume": {} }));
        assert_eq!(ask(&http, "prepare", &resume).0, 200);
        assert_eq!(ask(&http, "commit", &named(1, "r")).0, 200);
        assert_eq!(answer.join().expect("it is answered"), database.name());
    });
    http.post("/v1/reload").expect(200);
    assert_eq!(http.get("/v1/status").expect(200).json()["paused"], false);
}

#[test]
fn one_change_is_prepared_at_a_time_and_the_higher_epoch_wins() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let config = with_admin(config(&database), "");
    let proxy = Proxy::start_with(&config, &["--cluster-uid", "c", "--pod-uid", "p"]);
    let http = admin(&proxy);
    let mut client = proxy.client("pgdog", database.name());
    client.run("select 1");
    let pause = |epoch: u64, id: &str| {
        let mut asked = change(epoch, id, 60_000, &json!({ "pause": {} }));
        asked["cluster_uid"] = "c".into();
        asked["pod_uid"] = "p".into();
        asked
    };
    assert_eq!(ask(&http, "prepare", &pause(4, "a")).0, 200);
    assert_eq!(ask(&http, "prepare", &pause(4, "a")).0, 200, "asked again");
    assert_eq!(ask(&http, "prepare", &pause(4, "b")).0, 409);
    assert_eq!(ask(&http, "prepare", &pause(3, "b")).0, 409);
    assert_eq!(ask(&http, "commit", &named(4, "b")).0, 409);
    assert_eq!(ask(&http, "commit", &named(3, "a")).0, 409);
    assert_eq!(ask(&http, "abort", &named(3, "a")).0, 409);
    // Of something that is not known there is nothing to undo.
    assert_eq!(ask(&http, "abort", &named(4, "b")).0, 200);
    assert_eq!(prepared(&http)["id"], "a");
    waits(&mut client);
    assert_eq!(ask(&http, "prepare", &pause(5, "b")).0, 200);
    assert_eq!(prepared(&http)["epoch"], 5);
    assert_eq!(ask(&http, "commit", &named(4, "a")).0, 409);
    assert_eq!(ask(&http, "abort", &named(5, "b")).0, 200);
    assert!(told(&mut client).contains(database.name()));
    let mut elsewhere = pause(6, "x");
    elsewhere["pod_uid"] = "other".into();
    assert_eq!(ask(&http, "prepare", &elsewhere).0, 412);
    for (key, wrong) in [
        ("deadline_ms", json!(0)),
        ("deadline_ms", json!(600_001)),
        ("id", json!("")),
        ("change", json!({ "pause": { "user": "pgdog" } })),
        ("change", json!({ "stop": {} })),
        ("change", json!({ "resume": [null, null] })),
        ("more", json!(1)),
    ] {
        let mut asked = pause(6, "x");
        asked[key] = wrong;
        assert_eq!(ask(&http, "prepare", &asked).0, 400, "{key}");
    }
    for what in ["commit", "abort"] {
        assert_eq!(ask(&http, what, &named(6, "")).0, 400);
    }
    let mut nowhere = pause(6, "x");
    nowhere["change"] = json!({ "pause": { "database": "nowhere" } });
    assert_eq!(ask(&http, "prepare", &nowhere).0, 404);
    client.run("select 1");
}
