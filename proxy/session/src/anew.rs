//! What a host says to a new connection, where the one at hand cannot tell: it has gone, or its session says something else.

use std::sync::Arc;
use std::time::Duration;

use pgdog_backend::server::Reported;
use pgdog_backend::{Pool, Server};

/// Time for a question.
const LIMIT: Duration = Duration::from_secs(2);

/// Whether writes are refused by a server itself, and not by what a user or a database is set to.
const TAKES_NO_WRITES: &str = "select pg_is_in_recovery() or exists (select from pg_settings \
    where name = 'default_transaction_read_only' and setting = 'on' and source in ('configuration file', 'command line'))";

/// Whether a host takes no writes. One that cannot be reached has gone, or is about to.
pub(crate) async fn takes_no_writes(pool: &Arc<Pool>) -> bool {
    let asked = ask(pool, async |server| {
        let rows = server.query(TAKES_NO_WRITES, LIMIT).await;
        rows.map_or(true, |rows| crate::notify::is_on(&rows))
    });
    match asked.await {
        Asked::Said(no) => no,
        Asked::Gone => true,
        // What it has said to the client stands.
        Asked::Full => false,
    }
}

/// Whether new sessions begin with these settings: whoever was told of them has not made them.
pub(crate) async fn begins_with(pool: &Arc<Pool>, settings: &[Reported]) -> bool {
    let asked = ask(pool, async |server| {
        let same = |(name, value): &Reported| server.reported(name) == Some(value);
        settings.iter().all(same)
    });
    matches!(asked.await, Asked::Said(true))
}

/// What came of a question.
enum Asked {
    /// The host was asked.
    Said(bool),
    /// It could not be asked.
    Gone,
    /// It has no place for another connection now.
    Full,
}

async fn ask(pool: &Arc<Pool>, question: impl AsyncFnOnce(&mut Server) -> bool) -> Asked {
    let place = match pool.host_budget() {
        Some(budget) => match budget.place(LIMIT).await {
            Some(place) => Some(place),
            None => return Asked::Full,
        },
        None => None,
    };
    let asked = async {
        let mut server = pool.target().connect().await.ok()?;
        let said = question(&mut server).await;
        server.gone(true).await;
        Some(said)
    };
    let asked = pgdog_net::timer::timeout(LIMIT, asked).await;
    drop(place);
    asked.ok().flatten().map_or(Asked::Gone, Asked::Said)
}
