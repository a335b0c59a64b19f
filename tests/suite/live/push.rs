//! Pushes: what is applied, what is refused, and that nothing in between happens.

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Message, Postgres, Proxy, Psql, RawClient, wait};
use serde_json::json;

use super::{admin, config, envelope, logs_in, settings, topology, with_admin};

const SETTINGS: &str = "/v1/config/settings";
const TOPOLOGY: &str = "/v1/config/topology";

#[test]
fn settings_that_are_pushed_are_in_force_at_once_and_connections_stay() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&with_admin(config(&database), ""));
    let http = admin(&proxy);
    let mut client = proxy.client("pgdog", database.name());
    let pid = client.query_value("select pg_backend_pid()");
    assert!(!logs_in(&proxy, "carol", &database));
    // The login of `pgdog` on the server has to stay the same for its connections to stay.
    let answer = http
        .put(
            SETTINGS,
            &envelope(1, 1, &settings(&database, &["pgdog", "carol"])),
        )
        .expect(200)
        .json();
    assert_eq!(answer["state"], "applied");
    assert_eq!(answer["persisted"], false);
    assert!(logs_in(&proxy, "carol", &database));
    assert_eq!(client.query_value("select pg_backend_pid()"), pid);
    let status = http.get("/v1/status").expect(200).json();
    assert_eq!(status["phase"], "running");
    assert_eq!(status["settings"]["source"], "push");
    assert_eq!(status["settings"]["revision"], 1);
    assert_eq!(status["settings"]["sha256"], answer["sha256"]);
    assert_eq!(status["topology"]["source"], "files");
    assert_eq!(status["attempts"][0]["cause"], "push_settings");
    assert_eq!(status["attempts"][0]["applied"], true);
}

#[test]
fn a_topology_that_is_pushed_moves_a_database_and_settings_stay() {
    if !Postgres::installed() {
        return;
    }
    let (database, other) = (
        Postgres::shared().fresh_database(),
        Postgres::shared().fresh_database(),
    );
    let proxy = Proxy::start(&with_admin(config(&database), ""));
    let http = admin(&proxy);
    let mut client = proxy.client("pgdog", database.name());
    assert_eq!(
        client.query_value("select current_database()"),
        database.name()
    );
    http.put(
        TOPOLOGY,
        &envelope(1, 1, &topology(&database, other.name())),
    )
    .expect(200);
    assert_eq!(
        client.query_value("select current_database()"),
        other.name()
    );
    let shown = http.get("/v1/config").expect(200).json();
    assert_eq!(
        shown["topology"]["config"]["databases"][0]["database_name"],
        other.name()
    );
    assert_eq!(
        shown["settings"]["config"]["general"]["default_pool_size"],
        4
    );
    assert_eq!(shown["settings"]["source"], "files");
}

#[test]
fn settings_that_are_refused_do_not_hold_up_a_failover() {
    if !Postgres::installed() {
        return;
    }
    let (database, other) = (
        Postgres::shared().fresh_database(),
        Postgres::shared().fresh_database(),
    );
    let proxy = Proxy::start(&with_admin(config(&database), ""));
    let http = admin(&proxy);
    let wrong = json!({ "users": [{ "name": "pgdog", "database": "nowhere", "password": "x" }] });
    let refused = http
        .put(SETTINGS, &envelope(1, 1, &wrong))
        .expect(422)
        .json();
    assert_eq!(refused["error"], "rejected");
    assert_eq!(refused["problems"][0]["path"], "users[0].database");
    assert_eq!(refused["problems"][0]["code"], "unknown_name");
    assert_eq!(refused["keeping"]["source"], "files");
    http.put(
        TOPOLOGY,
        &envelope(1, 1, &topology(&database, other.name())),
    )
    .expect(200);
    let mut client = proxy.client("pgdog", database.name());
    assert_eq!(
        client.query_value("select current_database()"),
        other.name()
    );
}

#[test]
fn whatever_is_wrong_is_told_at_once_and_nothing_changes() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&with_admin(config(&database), ""));
    let http = admin(&proxy);
    let before = http.get("/v1/config").json();
    let wrong = json!({
        "general": { "defaul_pool_size": 3, "auth_type": "scrum", "checkout_timeout": "long" },
        "databases": [{ "name": database.name(), "host": "elsewhere" }],
        "users": [{ "name": 7 }, {}],
    });
    let refused = http
        .put(SETTINGS, &envelope(1, 1, &wrong))
        .expect(422)
        .json();
    let paths: Vec<_> = refused["problems"]
        .as_array()
        .map(|problems| problems.iter().filter_map(|p| p["path"].as_str()).collect())
        .unwrap_or_default();
    for path in [
        "general.defaul_pool_size",
        "general.auth_type",
        "general.checkout_timeout",
        "databases[0].host",
        "users[0].name",
        "users[1].name",
    ] {
        assert!(paths.contains(&path), "{path} in {refused:#}");
    }
    let own = json!({ "general": { "port": 1, "workers": 9 } });
    let refused = http.put(SETTINGS, &envelope(1, 1, &own)).expect(422).json();
    assert_eq!(
        refused["problems"][0]["code"], "requires_restart",
        "{refused:#}"
    );
    let certificate = json!({
        "general": { "tls_certificate": "/nonexistent/a", "tls_private_key": "/nonexistent/b" },
    });
    let refused = http
        .put(SETTINGS, &envelope(1, 1, &certificate))
        .expect(422)
        .json();
    assert_eq!(refused["problems"][0]["code"], "unreadable", "{refused:#}");
    let mut hashed = envelope(1, 1, &settings(&database, &["pgdog"]));
    hashed["sha256"] = "00".into();
    let refused = http.put(SETTINGS, &hashed).expect(422).json();
    assert_eq!(refused["problems"][0]["code"], "wrong_hash", "{refused:#}");
    assert_eq!(http.get("/v1/config").json(), before);
    let status = http.get("/v1/status").json();
    assert_eq!(status["attempts"][0]["applied"], false);
    proxy.client("pgdog", database.name()).run("select 1");
}

#[test]
fn what_is_not_later_is_refused_and_the_same_again_is_unchanged() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&with_admin(config(&database), ""));
    let http = admin(&proxy);
    let (one, two) = (
        settings(&database, &["pgdog"]),
        settings(&database, &["pgdog", "carol"]),
    );
    http.put(SETTINGS, &envelope(3, 5, &one)).expect(200);
    let again = http.put(SETTINGS, &envelope(3, 5, &one)).expect(200).json();
    assert_eq!(again["state"], "unchanged");
    for (epoch, revision) in [(3, 5), (3, 4), (2, 99)] {
        let stale = http
            .put(SETTINGS, &envelope(epoch, revision, &two))
            .expect(409)
            .json();
        assert_eq!(stale["error"], "stale");
        assert_eq!(stale["keeping"]["epoch"], 3);
        assert_eq!(stale["keeping"]["revision"], 5);
    }
    assert!(!logs_in(&proxy, "carol", &database));
    // The same content under a later version: nothing to do, but older pushers are out from now on.
    let newer = http.put(SETTINGS, &envelope(4, 1, &one)).expect(200).json();
    assert_eq!(newer["state"], "unchanged");
    http.put(SETTINGS, &envelope(3, 6, &two)).expect(409);
    http.put(SETTINGS, &envelope(4, 2, &two)).expect(200);
    assert!(logs_in(&proxy, "carol", &database));
}

#[test]
fn a_pusher_whose_epoch_is_over_reaches_neither_half() {
    if !Postgres::installed() {
        return;
    }
    let (database, other) = (
        Postgres::shared().fresh_database(),
        Postgres::shared().fresh_database(),
    );
    let proxy = Proxy::start(&with_admin(config(&database), ""));
    let http = admin(&proxy);
    // Two pushers race: each believes to be the only one.
    std::thread::scope(|scope| {
        for epoch in [1, 2] {
            let (http, database, other) = (&http, &database, &other);
            scope.spawn(move || {
                for revision in 1..=20 {
                    let users = if epoch == 2 {
                        vec!["pgdog", "new"]
                    } else {
                        vec!["pgdog", "old"]
                    };
                    let answer = http.put(
                        SETTINGS,
                        &envelope(epoch, revision, &settings(database, &users)),
                    );
                    let fine = if epoch == 2 {
                        vec![200]
                    } else {
                        vec![200, 409]
                    };
                    assert!(
                        fine.contains(&answer.status),
                        "{epoch}, {revision}: {answer:?}"
                    );
                    if epoch == 2 && revision == 20 {
                        http.put(TOPOLOGY, &envelope(2, 1, &topology(database, other.name())))
                            .expect(200);
                    }
                }
            });
        }
    });
    assert!(logs_in(&proxy, "new", &database));
    assert!(!logs_in(&proxy, "old", &database));
    let late = http
        .put(
            TOPOLOGY,
            &envelope(1, 99, &topology(&database, database.name())),
        )
        .expect(409)
        .json();
    assert!(
        late["message"]
            .as_str()
            .is_some_and(|text| text.contains("epoch 1 is over")),
        "{late}"
    );
}

#[test]
fn a_dry_run_says_what_would_be_and_changes_nothing() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&with_admin(config(&database), ""));
    let http = admin(&proxy);
    let mut limited = settings(&database, &["pgdog", "carol"]);
    limited["general"]["max_db_connections"] = 1.into();
    let before = http.get("/v1/status").json();
    let dry = format!("{SETTINGS}?dryRun=true");
    let answer = http.put(&dry, &envelope(1, 1, &limited)).expect(200).json();
    assert_eq!(answer["state"], "valid");
    http.put(&dry, &envelope(1, 1, &json!({ "general": { "x": 1 } })))
        .expect(422);
    http.put(
        &format!("{SETTINGS}?dryRun=maybe"),
        &envelope(1, 1, &json!({})),
    )
    .expect(400);
    let after = http.get("/v1/status").json();
    assert_eq!(after["settings"], before["settings"]);
    assert_eq!(after["attempts"], before["attempts"]);
    assert!(!logs_in(&proxy, "carol", &database));
}

#[test]
fn a_push_for_another_pod_or_cluster_is_refused() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start_with(
        &with_admin(config(&database), ""),
        &["--cluster-uid", "here", "--pod-uid", "me"],
    );
    let http = admin(&proxy);
    let mut push = envelope(1, 1, &settings(&database, &["pgdog"]));
    http.put(SETTINGS, &push).expect(412);
    push["cluster_uid"] = "here".into();
    push["pod_uid"] = "you".into();
    let refused = http.put(SETTINGS, &push).expect(412).json();
    assert_eq!(refused["error"], "wrong_target");
    push["pod_uid"] = "me".into();
    http.put(SETTINGS, &push).expect(200);
}

#[test]
fn what_is_no_push_is_refused_before_anybody_looks_into_it() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&with_admin(config(&database), ""));
    let http = admin(&proxy);
    let put = |body: &str| http.ask("PUT", SETTINGS, Some(body)).expect("it answers");
    for body in [
        "",
        "{",
        "[]",
        "null",
        "{\"epoch\":-1}",
        "{\"epoch\":1,\"revision\":1,\"config\":[]}",
    ] {
        put(body).expect(400);
    }
    put(&format!("{{\"x\":\"{}\"}}", "y".repeat(5 << 20))).expect(413);
    let form = http
        .clone()
        .header("Content-Type", "application/x-www-form-urlencoded");
    form.ask("PUT", SETTINGS, Some("{}"))
        .expect("it answers")
        .expect(415);
    let unknown = http.get("/v2/config").expect(404).json();
    assert_eq!(unknown["error"], "not_found");
    let method = http
        .ask("DELETE", "/v1/config", None)
        .expect("it answers")
        .expect(405);
    assert!(method.head.to_lowercase().contains("allow: "), "{method:?}");
    proxy.client("pgdog", database.name()).run("select 1");
}

#[test]
fn a_mistyped_dry_run_is_refused_and_changes_nothing() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&with_admin(config(&database), ""));
    let http = admin(&proxy);
    let wanted = settings(&database, &["pgdog", "other"]);
    http.put("/v1/config/settings?dryrun=true", &envelope(1, 1, &wanted))
        .expect(400);
    assert!(!logs_in(&proxy, "other", &database));
}

#[test]
fn the_way_into_the_console_stays_when_settings_are_pushed_without_one() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&with_admin(config(&database), "password = \"chosen\""));
    let console = || {
        Psql::new(proxy.port(), "admin", "admin")
            .password("chosen")
            .run("show version")
            .expect("the console lets its user in")
            .contains("pgdog")
    };
    assert!(console());
    let wanted = settings(&database, &["pgdog"]);
    admin(&proxy)
        .put("/v1/config/settings", &envelope(1, 1, &wanted))
        .expect(200);
    assert!(console());
}

#[test]
fn a_database_of_several_shards_serves_nobody_rather_than_one_shard() {
    if !Postgres::installed() {
        return;
    }
    let (database, other) = (
        Postgres::shared().fresh_database(),
        Postgres::shared().fresh_database(),
    );
    // Two servers, of which one is on loan for good: who comes third waits.
    let proxy = Proxy::start(&with_admin(config(&database).pool_size(2), ""));
    let http = admin(&proxy);
    let mut client = proxy.client("pgdog", database.name());
    client.run("select 1");
    let mut busy = proxy.client("pgdog", database.name());
    busy.run("begin");
    let mut other_one = proxy.client("pgdog", database.name());
    other_one.run("begin");
    let mut waits = proxy.client("pgdog", database.name());
    waits.send(&[Message::query("select 1")]);
    assert!(wait::until(PATIENCE, || {
        let pools = http.get("/v1/pools").expect(200).json();
        pools.to_string().contains("\"cl_waiting\":1")
    }));
    let mut sharded = topology(&database, database.name());
    let mut second = sharded["databases"][0].clone();
    second["database_name"] = other.name().into();
    second["shard"] = 1.into();
    let hosts = sharded["databases"].as_array_mut().expect("it is a list");
    hosts.push(second);
    let answer = http.put(TOPOLOGY, &envelope(1, 1, &sharded)).expect(200);
    let text = answer.json().to_string();
    assert!(text.contains("routes to no shard"), "{text}");
    // What has begun ends where it began.
    assert_eq!(
        busy.query_value("select current_database()"),
        database.name()
    );
    busy.run("commit");
    other_one.run("commit");
    let told = waits.until_ready();
    assert_eq!(
        told.iter().find_map(|frame| frame.field(b'C')).as_deref(),
        Some("0A000")
    );
    for client in [&mut client, &mut busy] {
        assert_eq!(client.query_error("select 1"), "0A000");
    }
    let refused = RawClient::try_login(proxy.port(), "pgdog", database.name());
    let refused = refused.expect_err("it is refused");
    assert!(
        refused.contains("0A000") && refused.contains("2 shards"),
        "{refused}"
    );
    let one = topology(&database, database.name());
    http.put(TOPOLOGY, &envelope(1, 2, &one)).expect(200);
    proxy.client("pgdog", database.name()).run("select 1");
}
