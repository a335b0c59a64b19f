//! A thousand configurations under load.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Authority, Postgres, Proxy, wait};
use serde_json::json;

use super::{admin, config, envelope, settings, topology, with_admin};

const ROUNDS: u64 = 1000;
const CLIENTS: usize = 8;

#[test]
fn a_thousand_configurations_under_load_cost_nobody_a_query() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let authority = Authority::new();
    let live = authority.issue("live", &["localhost"]);
    let renewed = [
        authority.issue("a", &["localhost"]),
        authority.issue("b", &["localhost"]),
    ];
    let proxy = Proxy::start(&with_admin(config(&database), "state_dir = \"state\""));
    let http = admin(&proxy);
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (proxy, database, done, answered) = (&proxy, &database, &done, &answered);
            scope.spawn(move || {
                let mut client = proxy.client("pgdog", database.name());
                let mut queries = 0_usize;
                while !done.load(Ordering::Relaxed) {
                    // A client that fails panics, and the scope with it.
                    if number % 2 == 0 {
                        client.run("select 1");
                    } else {
                        client.run("begin");
                        client.run("select pg_sleep(0.001)");
                        client.run("commit");
                    }
                    queries += 1;
                    if queries.is_multiple_of(50) {
                        client = proxy.client("pgdog", database.name());
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let changes = || {
            for round in 1..=ROUNDS {
                // Sizes and users change with each, certificates and hosts with some.
                let extra = format!("user{}", round % 7);
                let mut wanted = settings(&database, &["pgdog", &extra]);
                wanted["general"]["default_pool_size"] = (2 + round % 4).into();
                renewed[(round % 2) as usize].install(&live.certificate, &live.key);
                wanted["general"]["tls_certificate"] = json!(live.certificate);
                wanted["general"]["tls_private_key"] = json!(live.key);
                let answer = http.put("/v1/config/settings", &envelope(1, round, &wanted));
                assert_eq!(answer.status, 200, "round {round}: {answer:?}");
                if round % 10 == 0 {
                    let mut hosts = topology(&database, database.name());
                    let host = if round % 20 == 0 {
                        "127.0.0.1"
                    } else {
                        "localhost"
                    };
                    hosts["databases"][0]["host"] = host.into();
                    http.put("/v1/config/topology", &envelope(1, round, &hosts))
                        .expect(200);
                }
                if round % 25 == 0 {
                    proxy.reload();
                    http.put("/v1/config/settings", &envelope(0, 1, &json!({})))
                        .expect(409);
                }
            }
        };
        let changed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(changes));
        let before = answered.load(Ordering::Relaxed);
        let goes_on = wait::until(PATIENCE, || {
            answered.load(Ordering::Relaxed) > before + 5 * CLIENTS
        });
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = changed {
            std::panic::resume_unwind(panic);
        }
        assert!(goes_on, "clients go on");
    });
    assert!(answered.load(Ordering::Relaxed) > 1000, "there was load");
    let status = http.get("/v1/status").expect(200).json();
    assert_eq!(status["settings"]["revision"], ROUNDS);
    assert_eq!(status["topology"]["revision"], ROUNDS);
}
