//! What Postgres itself sees of the proxy: `pg_stat_activity`, watched over a connection of its own.

use std::time::Duration;

use crate::postgres::{Database, Postgres};
use crate::raw::RawClient;
use crate::wait;

/// How long a condition may take to come true.
const LIMIT: Duration = Duration::from_secs(15);

/// Watches the backends of one database.
#[derive(Debug)]
pub struct Activity {
    client: RawClient,
    database: String,
}

impl Activity {
    /// Watches this database from outside of it.
    pub fn new(postgres: &Postgres, database: &str) -> Self {
        Self {
            client: postgres.client("postgres"),
            database: database.to_owned(),
        }
    }

    /// Watches this database.
    pub fn of(postgres: &Postgres, database: &Database<'_>) -> Self {
        Self::new(postgres, database.name())
    }

    fn from(&self, condition: &str) -> String {
        format!(
            "from pg_stat_activity where datname = '{}' and backend_type = 'client backend' and ({condition})",
            self.database
        )
    }

    /// Backends that fulfil a condition over the view's columns.
    pub fn count(&mut self, condition: &str) -> usize {
        let sql = format!("select count(*) {}", self.from(condition));
        self.client
            .query_value(&sql)
            .parse()
            .expect("a count is a number")
    }

    /// Process ids of the backends that fulfil a condition, in order.
    pub fn pids(&mut self, condition: &str) -> Vec<String> {
        let sql = format!("select pid {} order by pid", self.from(condition));
        self.client
            .query_rows(&sql)
            .into_iter()
            .map(|mut row| row.remove(0))
            .collect()
    }

    /// Waits until exactly `count` backends fulfil a condition; panics with what there is when that does not happen.
    pub fn wait(&mut self, count: usize, condition: &str) {
        if wait::until(LIMIT, || self.count(condition) == count) {
            return;
        }
        let sql = format!(
            "select usename, state, wait_event, query {}",
            self.from("true")
        );
        let rows = self.client.query_rows(&sql);
        panic!("not {count} backends where {condition}: {rows:#?}");
    }

    /// Ends the backends that fulfil a condition, and waits until they are gone.
    pub fn terminate(&mut self, condition: &str) {
        let pids = self.pids(condition).join(", ");
        if pids.is_empty() {
            return;
        }
        self.client.run(&format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where pid in ({pids})"
        ));
        self.wait(0, &format!("pid in ({pids})"));
    }
}
