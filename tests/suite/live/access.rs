//! Who may use the admin API, and what it never tells.

use std::fs;

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::scratch::free_port;
use pgdog_tests::{Authority, Http, Postgres, Proxy, wait};
use serde_json::json;

use super::{admin, config, envelope, settings, with_admin};

const SETTINGS: &str = "/v1/config/settings";

#[test]
fn an_address_that_others_can_reach_needs_a_proof() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let open = with_admin(config(&database), "http_host = \"0.0.0.0\"");
    let mut proxy = Proxy::launch(&open, free_port(), &[]);
    assert_eq!(proxy.wait(PATIENCE), Some(1));
    let log = proxy.log();
    assert!(
        log.contains("admin.http_host") && log.contains("http_token_file"),
        "{log}"
    );
}

#[test]
fn a_token_is_asked_for_and_may_change() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&with_admin(
        config(&database),
        "http_host = \"0.0.0.0\"\nhttp_token_file = \"token\"",
    ));
    let http = admin(&proxy);
    let with = |token: &str| {
        http.clone()
            .header("Authorization", &format!("Bearer {token}"))
    };
    with("one").get("/v1/status").expect(401);
    fs::write(proxy.path("token"), "one\n").expect("it is ours");
    let refused = http.get("/v1/status").expect(401);
    assert!(
        refused
            .head
            .to_lowercase()
            .contains("www-authenticate: bearer"),
        "{refused:?}"
    );
    assert_eq!(refused.json()["error"], "unauthorized");
    with("two")
        .put(SETTINGS, &envelope(1, 1, &json!({})))
        .expect(401);
    with("one").get("/v1/status").expect(200);
    fs::write(proxy.path("token"), "two\n").expect("it is ours");
    with("one").get("/v1/status").expect(401);
    with("two").get("/openapi.json").expect(200);
}

#[test]
fn a_certificate_of_the_right_authority_and_name_is_asked_for_and_renewed() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = authority.issue("server", &["localhost"]);
    let proxy = Proxy::start(&with_admin(
        config(&database).general("openmetrics_port", "0"),
        &format!(
            "http_tls_certificate = {:?}\nhttp_tls_private_key = {:?}\nhttp_client_ca = {:?}\nhttp_client_name = \"operator\"",
            server.certificate,
            server.key,
            authority.certificate(),
        ),
    ));
    let http = Http::new(proxy.http_port("admin.http_port")).tls(&authority.certificate());
    let ask = |http: &Http| http.ask("GET", "/v1/status", None);
    let operator = authority.issue("one", &["operator"]);
    let status = ask(&http.clone().identity(&operator))
        .expect("it answers")
        .expect(200)
        .json();
    assert_eq!(status["phase"], "running");
    let other = ask(&http
        .clone()
        .identity(&authority.issue("two", &["somebody"])))
    .expect("it answers");
    assert_eq!(other.expect(403).json()["error"], "forbidden");
    assert!(ask(&http).is_err(), "no certificate");
    assert!(ask(&http.identity(&stranger.issue("three", &["operator"]))).is_err());
    assert!(
        Http::new(proxy.http_port("admin.http_port"))
            .ask("GET", "/v1/status", None)
            .is_err(),
        "no TLS"
    );
    let figures = Http::new(proxy.http_port("general.openmetrics_port"));
    assert!(
        wait::until(PATIENCE, || {
            let text = figures.get("/metrics").expect(200).body;
            text.contains("admin_requests_refused_total{reason=\"handshake\"} 3\n")
                && text.contains("admin_requests_refused_total{reason=\"forbidden\"} 1\n")
                && text.contains("admin_requests_refused_total{reason=\"stale\"} 0\n")
        }),
        "{}",
        figures.get("/metrics").expect(200).body
    );
    // Another authority from now on; the files are read on reload.
    let renewed = stranger.issue("renewed", &["localhost"]);
    renewed.install(&server.certificate, &server.key);
    proxy.reload();
    let renewed = Http::new(proxy.http_port("admin.http_port"))
        .tls(&stranger.certificate())
        .identity(&operator);
    assert!(
        wait::until(PATIENCE, || ask(&renewed)
            .is_ok_and(|answer| answer.status == 200)),
        "{}",
        proxy.log()
    );
}

#[test]
fn web_pages_are_refused() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&with_admin(config(&database), ""));
    let page = admin(&proxy).header("Origin", "http://example.org");
    page.post("/v1/drain").expect(403);
    proxy.client("pgdog", database.name()).run("select 1");
}

#[test]
fn no_answer_and_no_log_line_holds_a_secret() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let secret = "hunter2-very-secret";
    let base = with_admin(
        config(&database).append_users(&format!(
            "[[users]]\nname = \"s\"\ndatabase = \"{0}\"\npassword = \"{secret}-1\"\nserver_password = \"{secret}-2\"",
            database.name()
        )),
        &format!("password = \"{secret}-3\"\nstate_dir = \"state\""),
    )
    .append(&format!("[control]\ntoken = \"{secret}-4\"\n[otel]\nheaders = {{ key = \"{secret}-5\" }}"));
    let proxy = Proxy::start(&base);
    let http = admin(&proxy);
    let mut wrong = settings(&database, &["pgdog"]);
    wrong["users"][0]["password"] = format!("{secret}-6").into();
    wrong["users"][0]["pool_size"] = format!("{secret}-7").into();
    let mut right = settings(&database, &["pgdog"]);
    right["users"][0]["password"] = format!("{secret}-8").into();
    right["databases"] =
        json!([{ "name": database.name(), "user": "pgdog", "password": format!("{secret}-9") }]);
    let answers = [
        http.get("/v1/config").expect(200),
        http.put(SETTINGS, &envelope(1, 1, &wrong)).expect(422),
        http.ask(
            "PUT",
            SETTINGS,
            Some(&format!("{{\"epoch\":\"{secret}-a\"}}")),
        )
        .expect("it answers")
        .expect(400),
        http.ask(
            "PUT",
            SETTINGS,
            Some(&format!("{{\"config\":\"{secret}-b\"}}")),
        )
        .expect("it answers")
        .expect(400),
        http.put(SETTINGS, &envelope(1, 1, &right)).expect(200),
        http.put(SETTINGS, &envelope(1, 1, &json!({}))).expect(409),
        http.get("/v1/config").expect(200),
        http.get("/v1/status").expect(200),
        http.post("/v1/reload").expect(200),
    ];
    for answer in &answers {
        assert!(!answer.body.contains("hunter2"), "{answer:?}");
    }
    assert!(answers[0].body.contains("<redacted>"), "{:?}", answers[0]);
    assert!(!proxy.log().contains("hunter2"), "{}", proxy.log());
}
