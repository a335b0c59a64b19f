//! Databases for the scripts. Creating one takes Postgres hundreds of milliseconds, emptying one a few: they are
//! used again and again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use pgdog_tests::{Postgres, wait};

use super::script::Script;

/// Removes all that a script may have left.
const EMPTY: &str = r"
do $$
declare victim record;
begin
    for victim in select nspname from pg_namespace where nspname !~ '^(pg_|information_schema$)' loop
        execute format('drop schema %I cascade', victim.nspname);
    end loop;
    perform lo_unlink(oid) from pg_largeobject_metadata;
    execute format('alter database %I reset all', current_database());
    create schema public authorization pg_database_owner;
    grant usage on schema public to public;
end $$";

const THROW_OUT: &str = "select pg_terminate_backend(pid) from pg_stat_activity \
    where datname = current_database() and pid <> pg_backend_pid()";

const ALONE: &str = "select count(*) = 1 from pg_stat_activity where datname = current_database()";

/// A database that is one's own until dropped.
#[derive(Debug)]
pub(super) struct Stage {
    name: String,
}

fn free() -> &'static Mutex<Vec<String>> {
    static FREE: OnceLock<Mutex<Vec<String>>> = OnceLock::new();
    FREE.get_or_init(Mutex::default)
}

impl Stage {
    /// Takes a free database, or makes one.
    pub(super) fn take(postgres: &Postgres) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        if let Some(name) = free().lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Self { name };
        }
        let name = format!("stage{}", NEXT.fetch_add(1, Ordering::Relaxed));
        postgres.run(
            "postgres",
            &format!("create database {name} template template0"),
        );
        Self { name }
    }

    /// Its name in Postgres.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Throws everybody out, empties it and runs the script's setup.
    pub(super) fn set(&self, postgres: &Postgres, script: &Script) {
        let mut client = postgres.client(&self.name);
        // Who has not noticed yet that its last client is gone comes back once.
        let alone = || {
            client.query(THROW_OUT);
            client.query_value(ALONE) == "t"
        };
        assert!(
            wait::until(Duration::from_secs(30), alone),
            "somebody does not leave"
        );
        for row in client
            .query_rows("select gid from pg_prepared_xacts where database = current_database()")
        {
            client.run(&format!("rollback prepared '{}'", row[0]));
        }
        client.run("set client_min_messages = error");
        client.run(EMPTY);
        client.run("reset client_min_messages");
        script.setup.iter().for_each(|sql| client.run(sql));
        client.goodbye();
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        free()
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(std::mem::take(&mut self.name));
    }
}
