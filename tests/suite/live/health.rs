//! Health, metrics, drain.

use std::net::TcpStream;

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Http, Postgres, Proxy, ProxyConfig, wait};

use super::{admin, config, with_admin};

fn with_health(config: ProxyConfig) -> ProxyConfig {
    config
        .general("openmetrics_host", "\"127.0.0.1\"")
        .general("healthcheck_port", "0")
        .general("openmetrics_port", "0")
}

#[test]
fn health_and_metrics_are_there_for_everybody() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(
        &with_health(config(&database)).general("openmetrics_namespace", "\"pgdog_\""),
    );
    let health = Http::new(proxy.http_port("general.healthcheck_port"));
    for path in ["/livez", "/startupz", "/readyz", "/", "/anything"] {
        assert!(
            wait::until(PATIENCE, || health.get(path).status == 200),
            "{path}"
        );
    }
    let metrics = Http::new(proxy.http_port("general.openmetrics_port"));
    let _client = proxy.client("pgdog", database.name());
    for path in ["/metrics", "/"] {
        let text = metrics.get(path).expect(200);
        assert!(text.head.contains("text/plain; version=0.0.4"), "{text:?}");
        assert!(text.body.contains("\npgdog_clients 1\n"), "{text:?}");
        assert!(
            text.body
                .contains("pgdog_config_changes_total{outcome=\"applied\"} 1\n"),
            "{text:?}"
        );
    }
    metrics.get("/readyz").expect(200);
}

#[test]
fn a_drain_ends_readiness_first_and_the_process_when_clients_are_done() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let mut proxy = Proxy::start(&with_admin(with_health(config(&database)), ""));
    let (http, health) = (
        admin(&proxy),
        Http::new(proxy.http_port("general.healthcheck_port")),
    );
    let mut inside = proxy.client("pgdog", database.name());
    inside.run("begin");
    let answer = http.post("/v1/drain").expect(202).json();
    assert_eq!(answer["phase"], "draining");
    assert_eq!(answer["clients"], 1);
    health.get("/readyz").expect(503);
    health.get("/startupz").expect(200);
    health.get("/livez").expect(200);
    assert!(wait::until(PATIENCE, || TcpStream::connect((
        "127.0.0.1",
        proxy.port()
    ))
    .is_err()));
    let push = serde_json::json!({ "epoch": 1, "revision": 1, "config": {} });
    http.put("/v1/config/settings", &push).expect(503);
    inside.run("select 1");
    inside.run("commit");
    assert_eq!(proxy.wait(PATIENCE), Some(0), "{}", proxy.log());
}

#[test]
fn an_address_that_is_taken_is_named_and_nothing_starts() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("it is bound").port();
    let config = config(&database).append(&format!("[admin]\nhttp_port = {port}"));
    let mut proxy = Proxy::launch(&config, pgdog_tests::scratch::free_port(), &[]);
    assert_eq!(proxy.wait(PATIENCE), Some(1));
    let log = proxy.log();
    assert!(
        log.contains("admin.http_port") && log.contains(&port.to_string()),
        "{log}"
    );
}
