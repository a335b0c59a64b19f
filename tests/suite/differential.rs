//! The same as Postgres: every script is held with Postgres itself and through the proxy, and the transcripts
//! must be equal. Nothing is expected in advance, Postgres is asked each time.
//!
//! `DIFFERENTIAL_FILTER=text` runs the scripts with the text in `file: name`; `DIFFERENTIAL_TARGET=direct` asks Postgres
//! twice, which proves that the scripts have one answer only; `DIFFERENTIAL_PRINT=1` prints Postgres' transcripts.

mod conversation;
mod difference;
mod messages;
mod mode;
mod place;
mod script;
mod stage;
mod stranger;
mod tokens;

use std::collections::HashMap;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::scope;

use pgdog_tests::{Postgres, Proxy};

use conversation::{Answer, SILENCE, hold};
use difference::{difference, transcript};
use mode::Mode;
use place::Place;
use script::{Script, parse};
use stage::Stage;
use stranger::Stranger;

/// Conversations held at the same time: most of their time they wait.
const TALKERS: usize = 4;

/// Postgres' own answers to a script, asked for once per test process.
type Oracle = Arc<OnceLock<Vec<Answer>>>;

/// A script under the name of the proxy's database for it.
struct Held<'a> {
    script: &'a Script,
    title: String,
    database: String,
}

/// Holds every script of a file in one mode and compares; panics with all differences.
fn same_as_postgres(file: &str, text: &str, mode: Mode) {
    if !Postgres::installed() {
        return;
    }
    let filter = env::var("DIFFERENTIAL_FILTER").unwrap_or_default();
    let scripts = parse(text).unwrap_or_else(|problem| panic!("{file}: {problem}"));
    let held: Vec<Held<'_>> = scripts
        .iter()
        .filter(|script| script.applies_to(mode))
        .enumerate()
        .map(|(index, script)| Held {
            script,
            title: format!("{file}: {}", script.name),
            database: format!("{file}_{index}"),
        })
        .filter(|held| held.title.contains(&filter))
        .collect();
    if held.is_empty() {
        return;
    }
    let postgres = postgres();
    let stages: Vec<Stage> = (0..TALKERS.min(held.len()))
        .map(|_| Stage::take(postgres))
        .collect();
    let direct = env::var("DIFFERENTIAL_TARGET").as_deref() == Ok("direct");
    let proxy = (!direct).then(|| start_proxy(postgres, mode, &held, &stages));
    let failures = Mutex::new(Vec::new());
    scope(|scope| {
        for (number, stage) in stages.iter().enumerate() {
            let (held, failures, proxy) = (&held, &failures, proxy.as_ref());
            scope.spawn(move || {
                for held in held.iter().skip(number).step_by(TALKERS) {
                    let result = catch_unwind(AssertUnwindSafe(|| {
                        compare(postgres, stage, proxy, mode, held)
                    }));
                    let result =
                        result.unwrap_or_else(|_| Some("    (panicked, see above)\n".to_owned()));
                    if let Some(difference) = result {
                        let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                        failures.push((held.title.clone(), difference));
                    }
                }
            });
        }
    });
    drop(proxy);
    report(
        mode,
        held.len(),
        failures
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner),
    );
}

fn report(mode: Mode, scripts: usize, mut failures: Vec<(String, String)>) {
    failures.sort();
    let count = failures.len();
    let titles: String = failures
        .iter()
        .map(|(title, _)| format!("  {title}\n"))
        .collect();
    let details: String = failures
        .iter()
        .map(|(title, difference)| format!("\n{title}\n{difference}"))
        .collect();
    assert!(
        failures.is_empty(),
        "{count} of {scripts} scripts differ ({mode:?}; left Postgres, right the proxy)\n{details}\n{count} differ:\n{titles}",
    );
}

/// The cluster all scripts share, with the roles they use.
fn postgres() -> &'static Postgres {
    static ROLES: OnceLock<()> = OnceLock::new();
    let postgres = Postgres::shared();
    ROLES.get_or_init(|| {
        let roles = "create role stranger superuser; create role alice login; create role bob; grant bob to alice";
        postgres.run("postgres", roles);
    });
    postgres
}

fn oracle(title: &str) -> Oracle {
    static ORACLE: OnceLock<Mutex<HashMap<String, Oracle>>> = OnceLock::new();
    let mut all = ORACLE
        .get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    all.entry(title.to_owned()).or_default().clone()
}

fn ask_postgres(postgres: &Postgres, stage: &Stage, script: &Script) -> Vec<Answer> {
    stage.set(postgres, script);
    let place = Place {
        port: postgres.port(),
        database: stage.name(),
        postgres,
        behind: stage.name(),
    };
    let answers = hold(script, place, None, None);
    if env::var_os("DIFFERENTIAL_PRINT").is_some() {
        eprintln!("{}", transcript(script, &answers));
    }
    answers
}

/// A proxy with a database, and so a pool, for each script; the databases behind are fewer.
fn start_proxy(postgres: &Postgres, mode: Mode, held: &[Held<'_>], stages: &[Stage]) -> Proxy {
    let mut config = mode.config(postgres);
    for (index, held) in held.iter().enumerate() {
        let pool_size = format!("pool_size = {}", mode.servers(held.script.clients()));
        let behind = format!("database_name = \"{}\"", stages[index % TALKERS].name());
        config = config.database_with(&held.database, &[&pool_size, &behind]);
    }
    Proxy::start(&config.user("pgdog", "pgdog").user("alice", "alice"))
}

/// Holds the conversation through the proxy (or, without one, with Postgres once more); the difference, when there
/// is one that is not listed.
fn compare(
    postgres: &Postgres,
    stage: &Stage,
    proxy: Option<&Proxy>,
    mode: Mode,
    held: &Held<'_>,
) -> Option<String> {
    let script = held.script;
    let oracle = oracle(&held.title);
    let expected = oracle.get_or_init(|| ask_postgres(postgres, stage, script));
    if expected
        .iter()
        .flat_map(|answer| &answer.lines)
        .any(|line| line == SILENCE)
    {
        return Some(format!(
            "    the script waits for what Postgres does not say\n{}",
            transcript(script, expected)
        ));
    }
    stage.set(postgres, script);
    let (port, database) = match proxy {
        Some(proxy) => (proxy.port(), held.database.as_str()),
        None => (postgres.port(), stage.name()),
    };
    let place = Place {
        port,
        database,
        postgres,
        behind: stage.name(),
    };
    let mut stranger = None;
    if mode.has_stranger() {
        match Stranger::new(port, database) {
            Ok(client) => stranger = Some(client),
            Err(problem) => return Some(format!("    the stranger cannot log in: {problem}\n")),
        }
    }
    let answers = hold(script, place, stranger.as_mut(), Some(expected));
    let difference = difference(script, expected, &answers);
    difference.filter(|_| script.known_difference(mode).is_none())
}

/// A test for each file and mode.
macro_rules! files {
    ($($name:ident)*) => {
        $(mod $name {
            use super::{same_as_postgres, Mode};

            pub(super) const TEXT: &str = include_str!(concat!("differential/scripts/", stringify!($name), ".script"));

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
    copy errors notify pipelines portals prepared prepared_sql session_state settings simple startup
}

/// A test for each file in the transaction modes that manage SQL's PREPARE.
macro_rules! full {
    ($($name:ident)*) => {
        mod full {
            use super::{same_as_postgres, Mode};

            $(mod $name {
                use super::{same_as_postgres, super::$name::TEXT, Mode};

                #[test]
                fn is_the_same_with_as_many_servers_as_clients() {
                    same_as_postgres(stringify!($name), TEXT, Mode::Full);
                }

                #[test]
                fn is_the_same_on_servers_a_stranger_has_used() {
                    same_as_postgres(stringify!($name), TEXT, Mode::FullStirred);
                }

                #[test]
                fn is_the_same_when_servers_keep_two_of_them() {
                    same_as_postgres(stringify!($name), TEXT, Mode::FullFew);
                }
            })*
        }
    };
}

full! {
    pipelines prepared prepared_sql session_state
}

#[test]
fn notifications_are_the_same_over_a_shared_connection() {
    same_as_postgres("notify", notify::TEXT, Mode::Shared);
}

#[test]
fn session_state_is_the_same_with_a_shared_connection() {
    same_as_postgres("session_state", session_state::TEXT, Mode::Shared);
}

#[test]
fn prepared_statements_are_the_same_when_servers_keep_two_of_them() {
    same_as_postgres("prepared", prepared::TEXT, Mode::FewStatements);
}

#[test]
fn pipelines_are_the_same_when_servers_keep_two_statements() {
    same_as_postgres("pipelines", pipelines::TEXT, Mode::FewStatements);
}
