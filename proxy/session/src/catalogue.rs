//! What is known of the functions of each database with several hosts: read from its `pg_proc` now and then, so that calls of
//! functions that may write go to the primary.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use pgdog_backend::{Rows, ServerError};
use pgdog_sql::Functions;
use pgdog_sql::functions::{CATALOGUE, Kind, Row, Through};

use crate::runtime::{Account, Runtime};

/// Time between two readings. What a new function does is not known until then, so it is the primary that is asked.
const INTERVAL: Duration = Duration::from_secs(60);
/// Time between two looks for databases that have not been read.
const STEP: Duration = Duration::from_millis(500);
/// Time for reading.
const LIMIT: Duration = Duration::from_secs(10);

/// The functions of one database.
#[derive(Debug)]
pub struct Catalogue {
    functions: RwLock<Arc<Functions>>,
    /// Which these are.
    id: AtomicU32,
    /// Coarse time of the last reading, ms; 0 before the first.
    read: AtomicU64,
    /// The configuration under which it was read.
    generation: AtomicU64,
}

impl Default for Catalogue {
    fn default() -> Self {
        let functions = Functions::unread();
        Self {
            id: AtomicU32::new(functions.id()),
            functions: RwLock::new(Arc::new(functions)),
            read: AtomicU64::new(0),
            generation: AtomicU64::new(0),
        }
    }
}

impl Catalogue {
    /// What is known now.
    #[must_use]
    pub fn now(&self) -> Arc<Functions> {
        let functions = self.functions.read();
        functions.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Brings what somebody knows up to date: without a lock when it is.
    #[inline]
    pub(crate) fn refresh(&self, known: &mut Arc<Functions>) {
        if self.id.load(Ordering::Acquire) != known.id() {
            *known = self.now();
        }
    }

    fn replace(&self, functions: Functions) {
        let known = self.functions.write();
        let mut known = known.unwrap_or_else(PoisonError::into_inner);
        let id = functions.id();
        *known = Arc::new(functions);
        self.id.store(id, Ordering::Release);
    }

    fn is_due(&self, now: u64, generation: u64) -> bool {
        let read = self.read.load(Ordering::Relaxed);
        read == 0
            || u128::from(now.saturating_sub(read)) >= INTERVAL.as_millis()
            || self.generation.load(Ordering::Relaxed) != generation
    }
}

/// Those of all databases, by the names that clients know.
#[derive(Debug, Default)]
pub struct Catalogues(Mutex<HashMap<String, Arc<Catalogue>>>);

impl Catalogues {
    /// That of a database.
    #[must_use]
    pub fn of(&self, database: &str) -> Arc<Catalogue> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get(database) {
            Some(known) => known.clone(),
            None => all.entry(database.to_owned()).or_default().clone(),
        }
    }
}

/// Keeps what is known of functions up to date. Never ends; cancel safe.
pub async fn keep(runtime: Arc<Runtime>) {
    let mut failing = false;
    loop {
        for account in due(&runtime) {
            let generation = runtime.generation();
            let catalogue = account.catalogue(&runtime);
            match read(&runtime, &account).await {
                Ok(functions) => {
                    failing = false;
                    catalogue.replace(functions);
                    let now = runtime.clock.now().max(1);
                    catalogue.read.store(now, Ordering::Relaxed);
                    catalogue.generation.store(generation, Ordering::Relaxed);
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(database = %account.identity.database, "failed to read which functions write, so that calls of unknown ones go to the primary: {error}");
                    }
                }
            }
        }
        pgdog_net::timer::sleep(STEP).await;
    }
}

/// An account of each database whose functions are to be read.
fn due(runtime: &Runtime) -> Vec<Arc<Account>> {
    let (live, now, generation) = (runtime.live(), runtime.clock.now(), runtime.generation());
    let mut due: Vec<Arc<Account>> = Vec::new();
    for account in live.accounts.values().flat_map(HashMap::values) {
        let database = &account.identity.database;
        if !account.cluster.is_single()
            && account.catalogue(runtime).is_due(now, generation)
            && !due.iter().any(|other| other.identity.database == *database)
        {
            due.push(account.clone());
        }
    }
    due
}

/// Asks whichever host answers.
async fn read(runtime: &Runtime, account: &Account) -> Result<Functions, ServerError> {
    let mut failed = ServerError::Closed;
    for member in account.cluster.members() {
        let asked = async {
            let _place = match member.pool.host_budget() {
                Some(budget) => {
                    let place = budget.place(LIMIT).await;
                    Some(place.ok_or(ServerError::Timeout(LIMIT))?)
                }
                None => None,
            };
            let mut server = member.pool.target().connect().await?;
            // It would compile for seconds what runs for milliseconds.
            let asked = async {
                server.query("set jit = off", LIMIT).await?;
                server.query(CATALOGUE, LIMIT).await
            };
            let rows = asked.await;
            server.gone(true).await;
            rows
        };
        match pgdog_net::timer::timeout(LIMIT, asked).await {
            Ok(Ok(rows)) => return Ok(functions(runtime, &rows)),
            Ok(Err(error)) => failed = error,
            Err(_) => failed = ServerError::Timeout(LIMIT),
        }
    }
    Err(failed)
}

fn functions(runtime: &Runtime, rows: &Rows) -> Functions {
    let rows = rows.iter().filter_map(|row| {
        let text = |at: usize| row.get(at)?.as_deref();
        Some(Row {
            schema: text(0)?,
            name: text(1)?,
            volatile: text(2)? == "t",
            builtin: text(3)? == "t",
            through: text(4).and_then(|kind| {
                Some(Through {
                    kind: Kind::read(kind)?,
                    schema: text(5)?,
                    name: text(6)?,
                })
            }),
        })
    });
    let live = runtime.live();
    let balancing = &live.settings.balancing;
    let reads = balancing.read_functions.iter().map(String::as_str);
    let writes = balancing.write_functions.iter().map(String::as_str);
    Functions::new(rows).configured(reads, writes)
}
