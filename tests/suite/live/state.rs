//! What a restart remembers.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Http, Postgres, Proxy, wait};

use super::{admin, also, config, envelope, logs_in, settings, topology, with_admin};

const SETTINGS: &str = "/v1/config/settings";
const TOPOLOGY: &str = "/v1/config/topology";
const STATE: &str = "state_dir = \"state\"\n";
const KEPT: &str = "state/last-known-good.json";

fn serves(proxy: &Proxy) -> bool {
    wait::until(PATIENCE, || proxy.log().contains("listening on"))
}

#[test]
fn what_was_pushed_is_there_after_a_restart_without_files() {
    if !Postgres::installed() {
        return;
    }
    let (database, other) = (
        Postgres::shared().fresh_database(),
        Postgres::shared().fresh_database(),
    );
    let mut proxy = Proxy::start(&with_admin(config(&database), STATE));
    let http = admin(&proxy);
    let pushed = http
        .put(
            SETTINGS,
            &envelope(1, 7, &settings(&database, &["pgdog", "carol"])),
        )
        .expect(200)
        .json();
    assert_eq!(pushed["persisted"], true);
    http.put(
        TOPOLOGY,
        &envelope(1, 3, &topology(&database, other.name())),
    )
    .expect(200);
    let mode = fs::metadata(proxy.path(KEPT))
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let check = |proxy: &Proxy| {
        assert!(serves(proxy), "{}", proxy.log());
        let mut client = proxy.client("carol", database.name());
        assert_eq!(
            client.query_value("select current_database()"),
            other.name()
        );
        let status = admin(proxy).get("/v1/status").expect(200).json();
        assert_eq!(status["settings"]["source"], "last_known_good");
        assert_eq!(status["settings"]["revision"], 7);
        assert_eq!(status["settings"]["sha256"], pushed["sha256"]);
        assert_eq!(status["topology"]["revision"], 3);
    };
    // With the files, which are older than the push; then without.
    proxy.start_again(&[], &[]);
    check(&proxy);
    fs::remove_file(proxy.path("pgdog.toml")).expect("it is there");
    fs::remove_file(proxy.path("users.toml")).expect("it is there");
    proxy.start_again(&[], &[("PGDOG_ADMIN_STATE_DIR", "state")]);
    check(&proxy);
    // It goes on from there.
    let http = admin(&proxy);
    http.put(SETTINGS, &envelope(1, 6, &settings(&database, &["pgdog"])))
        .expect(409);
    http.put(SETTINGS, &envelope(1, 8, &settings(&database, &["pgdog"])))
        .expect(200);
    assert!(!logs_in(&proxy, "carol", &database));
    http.post("/v1/reload").expect(200);
}

#[test]
fn half_a_file_is_named_and_skipped() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let mut proxy = Proxy::start(&with_admin(config(&database), STATE));
    admin(&proxy)
        .put(
            SETTINGS,
            &envelope(1, 1, &settings(&database, &["pgdog", "carol"])),
        )
        .expect(200);
    let whole = fs::read(proxy.path(KEPT)).expect("it is there");
    fs::write(proxy.path(KEPT), &whole[..whole.len() / 2]).expect("it is ours");
    proxy.start_again(&[], &[]);
    assert!(serves(&proxy), "{}", proxy.log());
    assert!(
        proxy.log().contains("last-known-good.json is damaged"),
        "{}",
        proxy.log()
    );
    assert!(!logs_in(&proxy, "carol", &database), "the files are used");
    assert!(logs_in(&proxy, "pgdog", &database));
    admin(&proxy)
        .put(
            SETTINGS,
            &envelope(1, 1, &settings(&database, &["pgdog", "carol"])),
        )
        .expect(200);
    assert_eq!(
        fs::read(proxy.path(KEPT)).expect("it is there").len(),
        whole.len()
    );
}

#[test]
fn a_push_that_cannot_be_kept_is_refused_and_what_was_in_force_stays() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&with_admin(config(&database), STATE));
    let http = admin(&proxy);
    http.put(SETTINGS, &envelope(1, 1, &settings(&database, &["pgdog"])))
        .expect(200);
    // Tests run as root, whom permissions do not stop: a file in place of the directory does.
    fs::rename(proxy.path("state"), proxy.path("away")).expect("it is ours");
    fs::write(proxy.path("state"), "").expect("it is ours");
    let push = envelope(1, 2, &settings(&database, &["pgdog", "carol"]));
    let refused = http.put(SETTINGS, &push).expect(507).json();
    assert_eq!(refused["error"], "not_persisted");
    assert_eq!(refused["keeping"]["revision"], 1);
    assert!(!logs_in(&proxy, "carol", &database));
    fs::remove_file(proxy.path("state")).expect("it is ours");
    fs::rename(proxy.path("away"), proxy.path("state")).expect("it is ours");
    http.put(SETTINGS, &push).expect(200);
    assert!(logs_in(&proxy, "carol", &database));
}

#[test]
fn without_a_configuration_it_waits_for_one() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let mut proxy = Proxy::start(&with_admin(config(&database), ""));
    fs::remove_file(proxy.path("pgdog.toml")).expect("it is there");
    fs::remove_file(proxy.path("users.toml")).expect("it is there");
    let port = proxy.port().to_string();
    proxy.start_again(
        &["--wait-for-config"],
        &[
            ("PGDOG_PORT", &port),
            ("PGDOG_HOST", "127.0.0.1"),
            ("PGDOG_HEALTHCHECK_PORT", "0"),
            ("PGDOG_OPENMETRICS_HOST", "127.0.0.1"),
            ("PGDOG_ADMIN_HTTP_PORT", "0"),
        ],
    );
    let http = admin(&proxy);
    let health = Http::new(proxy.http_port("general.healthcheck_port"));
    assert!(wait::until(
        PATIENCE,
        || http.get("/v1/status").json()["phase"] == "waiting"
    ));
    health.get("/livez").expect(200);
    health.get("/startupz").expect(503);
    health.get("/readyz").expect(503);
    assert!(!logs_in(&proxy, "pgdog", &database));
    // Users of a database that is not there yet: the topology comes first.
    http.put(SETTINGS, &envelope(1, 1, &settings(&database, &["pgdog"])))
        .expect(422);
    http.put(
        TOPOLOGY,
        &envelope(1, 1, &topology(&database, database.name())),
    )
    .expect(200);
    health.get("/readyz").expect(503);
    http.put(SETTINGS, &envelope(1, 1, &settings(&database, &["pgdog"])))
        .expect(200);
    assert!(
        wait::until(PATIENCE, || health.get("/readyz").status == 200),
        "{}",
        proxy.log()
    );
    health.get("/startupz").expect(200);
    proxy.client("pgdog", database.name()).run("select 1");
}

#[test]
fn who_waits_for_a_configuration_can_be_stopped() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let mut proxy = Proxy::start(&with_admin(config(&database), ""));
    fs::remove_file(proxy.path("pgdog.toml")).expect("it is there");
    let port = proxy.port().to_string();
    proxy.start_again(&["--wait-for-config"], &[("PGDOG_PORT", &port)]);
    assert!(wait::until(PATIENCE, || proxy
        .log()
        .contains("waiting for a configuration")));
    proxy.terminate();
    assert_eq!(proxy.wait(PATIENCE), Some(0), "{}", proxy.log());
}

#[test]
fn files_that_hold_a_later_push_win_over_what_is_kept_and_older_ones_do_not() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let snapshot = |revision: u32, user: &str| {
        with_admin(also(config(&database), user, &database), STATE).append(&format!(
            "[snapshot]\nepoch = 1\nsettings_revision = {revision}"
        ))
    };
    let mut proxy = Proxy::start(&snapshot(1, "one"));
    let http = admin(&proxy);
    assert_eq!(http.get("/v1/status").json()["settings"]["revision"], 1);
    http.put(
        SETTINGS,
        &envelope(1, 2, &settings(&database, &["pgdog", "two"])),
    )
    .expect(200);
    // The mounted file lags behind.
    http.post("/v1/reload").expect(200);
    assert!(logs_in(&proxy, "two", &database) && !logs_in(&proxy, "one", &database));
    proxy.write_config(&snapshot(3, "three"));
    proxy.start_again(&[], &[]);
    assert!(serves(&proxy));
    assert!(logs_in(&proxy, "three", &database) && !logs_in(&proxy, "two", &database));
    let status = admin(&proxy).get("/v1/status").json();
    assert_eq!(status["settings"]["source"], "files");
    assert_eq!(status["settings"]["revision"], 3);
    admin(&proxy)
        .put(SETTINGS, &envelope(1, 2, &settings(&database, &["pgdog"])))
        .expect(409);
}
