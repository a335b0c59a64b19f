//! The same as Postgres: every script is held with Postgres itself and through the proxy, and the transcripts
//! must be equal. Nothing is expected in advance, Postgres is asked each time.
//!
//! `DIFFERENTIAL_FILTER=text` runs the scripts with the text in `file: name`; `DIFFERENTIAL_TARGET=direct` asks Postgres
//! twice, which proves that the scripts have one answer only; `DIFFERENTIAL_PRINT=1` prints Postgres' transcripts.

mod conversation;
mod difference;
mod messages;
mod mode;
mod script;
mod stranger;
mod tokens;

use std::collections::HashMap;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::scope;

use pgdog_tests::{Database, Postgres, Proxy};

use conversation::{Answer, Place, hold};
use difference::{difference, transcript};
use mode::Mode;
use script::{Script, parse};
use stranger::Stranger;

/// Conversations held at the same time: most of their time they wait.
const TALKERS: usize = 4;

/// A script with the databases it is held in.
struct Held<'a> {
    script: &'a Script,
    oracle: Arc<OnceLock<Vec<Answer>>>,
    database: Database<'a>,
}

/// Holds every script of a file in one mode and compares; panics with all differences.
fn same_as_postgres(file: &str, text: &str, mode: Mode) {
    if !Postgres::installed() {
        return;
    }
    let filter = env::var("DIFFERENTIAL_FILTER").unwrap_or_default();
    let scripts = parse(text).unwrap_or_else(|problem| panic!("{file}: {problem}"));
    let scripts: Vec<&Script> = scripts
        .iter()
        .filter(|script| script.applies_to(mode))
        .filter(|script| format!("{file}: {}", script.name).contains(&filter))
        .collect();
    if scripts.is_empty() {
        return;
    }
    let postgres = postgres();
    let held = Mutex::new(Vec::new());
    in_parallel(&scripts, |script| {
        let made = Held { script, oracle: oracle(file, script), database: prepared_database(postgres, script) };
        made.oracle.get_or_init(|| ask_postgres(postgres, script));
        held.lock().unwrap_or_else(PoisonError::into_inner).push(made);
    });
    let held = held.into_inner().unwrap_or_else(PoisonError::into_inner);
    let proxy = (env::var("DIFFERENTIAL_TARGET").as_deref() != Ok("direct")).then(|| start_proxy(postgres, mode, &held));
    let port = proxy.as_ref().map_or(postgres.port(), Proxy::port);
    let failures = Mutex::new(Vec::new());
    in_parallel(&held, |held| {
        let failure = catch_unwind(AssertUnwindSafe(|| compare(postgres, port, mode, held)));
        let failure = failure.unwrap_or_else(|_| Some("    the conversation panicked, see above\n".to_owned()));
        if let Some(difference) = failure {
            let title = format!("{file}: {}", held.script.name);
            failures.lock().unwrap_or_else(PoisonError::into_inner).push((title, difference));
        }
    });
    // The proxy first: its connections would have to be thrown out of the databases.
    drop(proxy);
    let mut failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    drop(held);
    failures.sort();
    let titles: String = failures.iter().map(|(title, _)| format!("  {title}\n")).collect();
    let details: String = failures.iter().map(|(title, difference)| format!("\n{title}\n{difference}")).collect();
    assert!(
        failures.is_empty(),
        "{} of {} scripts differ ({mode:?}; left Postgres, right the proxy)\n{details}\n{} differ:\n{titles}",
        failures.len(),
        scripts.len(),
        failures.len(),
    );
}

fn in_parallel<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    scope(|scope| {
        for _ in 0..TALKERS.min(items.len()) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(item);
                }
            });
        }
    });
}

/// The cluster all scripts share, with the roles they use.
fn postgres() -> &'static Postgres {
    static ROLES: OnceLock<()> = OnceLock::new();
    let postgres = Postgres::shared();
    ROLES.get_or_init(|| {
        postgres.run("postgres", "create role stranger superuser; create role alice login; create role bob; grant bob to alice");
    });
    postgres
}

/// Postgres' own answers, asked for once per script and test process.
fn oracle(file: &str, script: &Script) -> Arc<OnceLock<Vec<Answer>>> {
    static ORACLE: OnceLock<Mutex<HashMap<String, Arc<OnceLock<Vec<Answer>>>>>> = OnceLock::new();
    let all = ORACLE.get_or_init(Mutex::default);
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    all.entry(format!("{file}: {}", script.name)).or_default().clone()
}

fn ask_postgres(postgres: &Postgres, script: &Script) -> Vec<Answer> {
    let database = prepared_database(postgres, script);
    let place = Place { port: postgres.port(), database: database.name(), postgres };
    let answers = hold(script, place, None, None);
    if env::var_os("DIFFERENTIAL_PRINT").is_some() {
        eprintln!("{}", transcript(script, &answers));
    }
    answers
}

fn prepared_database<'a>(postgres: &'a Postgres, script: &Script) -> Database<'a> {
    let database = postgres.fresh_database();
    if !script.setup.is_empty() {
        let mut client = database.client();
        script.setup.iter().for_each(|sql| client.run(sql));
        client.goodbye();
    }
    database
}

fn start_proxy(postgres: &Postgres, mode: Mode, held: &[Held<'_>]) -> Proxy {
    let mut config = mode.config(postgres);
    for held in held {
        let pool_size = format!("pool_size = {}", mode.servers(held.script.clients()));
        config = config.database_with(held.database.name(), &[&pool_size]);
    }
    Proxy::start(&config.user("pgdog", "pgdog").user("alice", "alice"))
}

/// Holds the conversation through the proxy; the difference, when there is one that is not listed.
fn compare(postgres: &Postgres, port: u16, mode: Mode, held: &Held<'_>) -> Option<String> {
    let script = held.script;
    let oracle = held.oracle.get().expect("Postgres was asked before");
    let place = Place { port, database: held.database.name(), postgres };
    let mut stranger = None;
    if mode == Mode::Stirred {
        match Stranger::new(port, place.database) {
            Ok(client) => stranger = Some(client),
            Err(problem) => return Some(format!("    the stranger cannot log in: {problem}\n")),
        }
    }
    let answers = hold(script, place, stranger.as_mut(), Some(oracle));
    let difference = difference(script, oracle, &answers);
    match (script.known_difference(mode), difference) {
        (Some(_), _) => None,
        (None, difference) => difference,
    }
}

/// A test for each file and mode.
macro_rules! files {
    ($($name:ident)*) => {
        $(mod $name {
            use super::{same_as_postgres, Mode};

            const TEXT: &str = include_str!(concat!("differential/scripts/", stringify!($name), ".script"));

            #[test]
            fn is_the_same_with_as_many_servers_as_clients() {
                same_as_postgres(stringify!($name), TEXT, Mode::OneServer);
            }

            #[test]
            fn is_the_same_on_servers_a_stranger_has_used() {
                same_as_postgres(stringify!($name), TEXT, Mode::Stirred);
            }

            #[test]
            fn is_the_same_in_session_mode() {
                same_as_postgres(stringify!($name), TEXT, Mode::Session);
            }

            #[test]
            fn is_the_same_in_statement_mode() {
                same_as_postgres(stringify!($name), TEXT, Mode::Statement);
            }
        })*
    };
}

files! {
    simple
}
