//! Many clients that know what they must be answered, through a few servers, while clients vanish, cancel and are timed
//! out, servers are ended and Postgres crashes: nobody gets what is another's, and at the end the pool is at rest.
//!
//! `CHAOS_SECONDS` says for how long (`make chaos`), `CHAOS_SEED` repeats a run that failed, as far as time lets it.

mod acts;
mod client;

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pgdog_tests::{
    Activity, Message, Postgres, PostgresOptions, Proxy, ProxyConfig, RawClient, StopMode, wait,
};

use crate::dice::Dice;

const CLIENTS: u64 = 24;
const SERVERS: usize = 5;
const SHORT: Duration = Duration::from_secs(8);
/// How long everything may take to come to rest after the last client has gone.
const CALM: Duration = Duration::from_secs(20);
/// An idle transaction and a query may take this long, ms.
const IDLE_IN_TRANSACTION: u64 = 1500;
const QUERY: u64 = 6000;

/// What all threads of a run share.
pub(super) struct World {
    pub(super) port: u16,
    until: Instant,
    /// One client has found a defect: the others stop.
    failed: AtomicBool,
    pub(super) lives: AtomicU64,
    pub(super) answers: AtomicU64,
}

impl World {
    pub(super) fn over(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || Instant::now() >= self.until
    }
}

fn seed() -> u64 {
    let given = env::var("CHAOS_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |t| t.as_nanos() as u64)
    })
}

fn duration() -> Duration {
    let given = env::var("CHAOS_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    given.map_or(SHORT, Duration::from_secs)
}

/// Ends servers at random, and tries keys that are nobody's.
fn mischief(world: &World, postgres: &Postgres, mut dice: Dice) {
    while !world.over() {
        sleep(Duration::from_millis(dice.below(400) + 50));
        if let Ok(mut cancel) = RawClient::open(world.port) {
            let secret = dice.below(u64::MAX).to_be_bytes()[..4].to_vec();
            cancel.send(&[Message::CancelRequest {
                pid: dice.below(1 << 31) as i32,
                secret,
            }]);
        }
        let ends = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'pgdog' order by random() limit 1";
        if dice.one_in(2)
            && let Ok(mut client) = RawClient::try_login(postgres.port(), "postgres", "postgres")
        {
            client.query(ends);
        }
    }
}

/// Crashes Postgres: once in a short run, every quarter of a minute in a long one.
fn crashes(world: &World, postgres: &Postgres, mut dice: Dice) {
    let first = Duration::from_millis(2000 + dice.below(2000));
    let mut next = Instant::now() + first;
    while !world.over() {
        if Instant::now() >= next {
            postgres.stop(if dice.one_in(3) {
                StopMode::Kill
            } else {
                StopMode::Immediate
            });
            sleep(Duration::from_millis(dice.below(700)));
            postgres.start_again();
            next = Instant::now() + Duration::from_secs(10 + dice.below(10));
        }
        sleep(Duration::from_millis(20));
    }
}

fn panic_text(cause: &(dyn std::any::Any + Send)) -> String {
    let text = cause.downcast_ref::<String>().cloned();
    text.or_else(|| cause.downcast_ref::<&str>().map(|&t| t.to_owned()))
        .unwrap_or_else(|| "a panic without words".to_owned())
}

#[test]
fn chaos_gives_no_client_what_is_anothers() {
    if !Postgres::installed() {
        return;
    }
    let seed = seed();
    // A crash leaves temporary tables behind, and only autovacuum removes them.
    let options = PostgresOptions::default()
        .setting("autovacuum", "on")
        .setting("autovacuum_naptime", "1s");
    let postgres = Postgres::start(&options);
    postgres.run(
        "postgres",
        "create unlogged table chaos (owner text, n int)",
    );
    let config = ProxyConfig::transaction(&postgres)
        .database("postgres")
        .user("pgdog", "pgdog")
        .pool_size(SERVERS)
        .general("checkout_timeout", "30000")
        .general("rollback_timeout", "1000")
        .general(
            "client_idle_in_transaction_timeout",
            &IDLE_IN_TRANSACTION.to_string(),
        )
        .general("query_timeout", &QUERY.to_string());
    let mut proxy = Proxy::start(&config);
    let world = Arc::new(World {
        port: proxy.port(),
        until: Instant::now() + duration(),
        failed: AtomicBool::new(false),
        lives: AtomicU64::new(0),
        answers: AtomicU64::new(0),
    });
    let troubles: Vec<String> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|index| {
                let world = world.clone();
                scope.spawn(move || {
                    let run = std::panic::AssertUnwindSafe(|| {
                        client::run(&world, index, &mut Dice::new(seed, index))
                    });
                    let result = std::panic::catch_unwind(run);
                    if result.is_err() {
                        world.failed.store(true, Ordering::Relaxed);
                    }
                    result
                        .err()
                        .map(|cause| format!("client {index}: {}", panic_text(&*cause)))
                })
            })
            .collect();
        scope.spawn(|| mischief(&world, &postgres, Dice::new(seed, 1000)));
        scope.spawn(|| crashes(&world, &postgres, Dice::new(seed, 1001)));
        clients
            .into_iter()
            .filter_map(|client| client.join().expect("panics are caught"))
            .collect()
    });
    assert!(
        troubles.is_empty(),
        "CHAOS_SEED={seed}:\n{}\n--- the proxy's log ---\n{}",
        troubles.join("\n"),
        tail(&proxy.log())
    );
    let trouble = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        check_rest(&postgres, &mut proxy)
    }));
    if let Err(cause) = trouble {
        panic!(
            "CHAOS_SEED={seed}: {}\n--- the proxy's log ---\n{}",
            panic_text(&*cause),
            tail(&proxy.log())
        );
    }
    println!(
        "chaos: {} sessions, {} answers checked",
        world.lives.load(Ordering::Relaxed),
        world.answers.load(Ordering::Relaxed)
    );
}

fn tail(log: &str) -> String {
    let mut lines: Vec<_> = log.lines().rev().take(40).collect();
    lines.reverse();
    lines.join("\n")
}

/// All clients have gone: nothing is left of them, and the pool serves.
fn check_rest(postgres: &Postgres, proxy: &mut Proxy) {
    assert!(!proxy.has_ended(), "the proxy has ended");
    let log = proxy.log();
    for bad in ["panicked", "unexpected message of type"] {
        assert!(
            !log.contains(bad),
            "{bad} in the log: {:?}",
            log.lines().find(|line| line.contains(bad))
        );
    }
    let mut activity = Activity::new(postgres, "postgres");
    let calm = wait::until(CALM, || {
        activity.count("usename = 'pgdog' and state <> 'idle'") == 0
            && activity.count("usename = 'pgdog'") <= SERVERS
    });
    if !calm {
        activity.wait(0, "usename = 'pgdog' and state <> 'idle'");
        panic!(
            "{} servers of a pool of {SERVERS} are left",
            activity.count("usename = 'pgdog'")
        );
    }
    assert_eq!(
        postgres.value(
            "postgres",
            "select count(*) from pg_locks where locktype = 'advisory'"
        ),
        "0"
    );
    let temporary = "select count(*) from pg_class where relpersistence = 't'";
    assert!(
        wait::until(CALM, || postgres.value("postgres", temporary) == "0"),
        "temporary tables are left"
    );
    // All at once, each in a transaction: every server of the pool is looked at.
    let mut clients: Vec<_> = (0..SERVERS)
        .map(|_| proxy.client("pgdog", "postgres"))
        .collect();
    for client in &mut clients {
        client.run("begin");
        assert_eq!(
            client.query_value("select coalesce(current_setting('chaos.id', true), '')"),
            "",
            "a setting of another's"
        );
        assert_eq!(
            client.query_value("select count(*) from pg_cursors where name <> ''"),
            "0"
        );
        assert_eq!(client.query_value("show statement_timeout"), "0");
    }
    for client in &mut clients {
        client.run("commit");
    }
}
