//! `[pgbouncer]` → `[general]` and `[tcp]`.

use pgdog_config::Problem;

use super::keys::{DEFAULTS, KEYS};
use crate::import::Written;
use crate::import::emit::{Table, Value};
use crate::import::keys::Meaning::Near;
use crate::import::keys::{Applied, FOREVER, Kind, apply, value};

/// The keys of `[pgbouncer]`, each once.
pub(super) struct Settings(Vec<Written>);

/// What became of them.
pub(super) struct Tables {
    pub(super) general: Table,
    pub(super) tcp: Table,
}

impl Settings {
    pub(super) fn new(mut written: Vec<Written>, problems: &mut Vec<Problem>) -> Self {
        written
            .iter_mut()
            .for_each(|w| w.key.make_ascii_lowercase());
        // Unknown keys first of all: whatever else is done with the file looks at known ones only.
        let mut ignored = Table::new("");
        problems.extend(
            written
                .iter()
                .filter(|w| !KEYS.iter().any(|(key, _)| *key == w.key))
                .filter_map(|w| apply(KEYS, "[pgbouncer]", w, &mut ignored).err()),
        );
        written.retain(|w| KEYS.iter().any(|(key, _)| *key == w.key));
        Self(written)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Written> {
        self.0.iter().find(|written| written.key == key)
    }

    /// The value of a key that is a path or a name; an empty one is none.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.get(key)
            .map(|written| written.value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// All but what needs a module of its own: logging in and TLS.
    pub(super) fn tables(&self, problems: &mut Vec<Problem>) -> Tables {
        let mut tables = Tables {
            general: Table::new("[general]"),
            tcp: Table::new("[tcp]"),
        };
        if self.text("listen_addr").is_none() {
            tables.general.remark(
                "listen_addr is not set, so PgBouncer opens its unix socket only; here there is always a TCP port: keep it local",
            );
            tables.general.set("host", "127.0.0.1".into());
        }
        for written in &self.0 {
            problems.extend(self.one(written, &mut tables).err());
        }
        let missing: Vec<Written> = DEFAULTS
            .iter()
            .filter(|(key, _)| self.get(key).is_none())
            .map(|(key, value)| Written {
                key: (*key).to_owned(),
                value: (*value).to_owned(),
                place: None,
            })
            .collect();
        if !missing.is_empty() {
            tables
                .general
                .heading("PgBouncer's defaults, where those here are others:");
        }
        for written in &missing {
            problems.extend(self.one(written, &mut tables).err());
        }
        tables
    }

    fn one(&self, written: &Written, tables: &mut Tables) -> Result<(), Problem> {
        let general = &mut tables.general;
        let meaning = KEYS.iter().find(|(key, _)| *key == written.key);
        // A default is taken over without a word about how it differs.
        if let (None, Some((_, Near(key, kind, _)))) = (&written.place, meaning) {
            general.set(key, value(*kind, written)?);
            return Ok(());
        }
        if apply(KEYS, "[pgbouncer]", written, general)? == Applied::Done {
            return Ok(());
        }
        match written.key.as_str() {
            "listen_addr" => listen(written, general),
            "unix_socket_dir" => socket(written, general),
            "verbose" => match value(Kind::Count, written)? {
                Value::Number(0) => {}
                Value::Number(1) => general.set("log_level", "debug".into()),
                _ => general.set("log_level", "trace".into()),
            },
            "min_pool_size" => {
                let size = value(Kind::Count, written)?;
                if size != Value::Number(0) {
                    general.remark(written.remark("kept open from the start for every user and database, there only once a client came"));
                }
                general.set("min_pool_size", size);
            }
            "server_lifetime" => lifetime(written, general)?,
            "server_check_delay"
                if self
                    .get("server_check_query")
                    .is_some_and(|w| w.value.is_empty()) => {}
            "server_check_delay" => {
                general.set("healthcheck_interval", value(Kind::Seconds, written)?)
            }
            "server_check_query" => check_query(written, general),
            "max_prepared_statements" => prepared(written, general)?,
            "server_reset_query" if !written.value.eq_ignore_ascii_case("discard all") => {
                general.remark(written.remark("no counterpart: a connection that goes to another client is brought back to a known state, and not by a query"));
            }
            "tcp_keepalive" => tables.tcp.set("keepalive", value(Kind::Flag, written)?),
            "tcp_keepcnt" => unless_zero(&mut tables.tcp, "retries", Kind::Count, written)?,
            "tcp_keepidle" => unless_zero(&mut tables.tcp, "time", Kind::Seconds, written)?,
            "tcp_keepintvl" => unless_zero(&mut tables.tcp, "interval", Kind::Seconds, written)?,
            "tcp_user_timeout" => {
                unless_zero(&mut tables.tcp, "user_timeout", Kind::Millis, written)?
            }
            // auth.rs, tls.rs, users.rs.
            _ => {}
        }
        Ok(())
    }
}

fn unless_zero(
    table: &mut Table,
    key: &'static str,
    kind: Kind,
    written: &Written,
) -> Result<(), Problem> {
    let value = value(kind, written)?;
    if value != Value::Number(0) {
        table.set(key, value);
    }
    Ok(())
}

fn listen(written: &Written, general: &mut Table) {
    let mut addresses = written
        .value
        .split(',')
        .map(str::trim)
        .filter(|a| !a.is_empty());
    let Some(first) = addresses.next() else {
        return;
    };
    if addresses.next().is_some() {
        general.remark(written.remark(
            "one address only here, the first of the list is taken; 0.0.0.0 (or ::) stands for all",
        ));
    }
    general.set("host", if first == "*" { "0.0.0.0" } else { first }.into());
}

fn socket(written: &Written, general: &mut Table) {
    if written.value.starts_with('@') {
        general.remark(written.remark(
            "no counterpart: sockets in the abstract namespace are not supported, name a directory",
        ));
    } else if !written.value.is_empty() {
        general.set("unix_socket_dir", written.value.as_str().into());
    }
}

fn lifetime(written: &Written, table: &mut Table) -> Result<(), Problem> {
    let mut lifetime = value(Kind::Seconds, written)?;
    if lifetime == Value::Number(0) {
        table.remark(
            written.remark(
                "0 is a connection for one use there, and no limit here: 1 ms comes closest",
            ),
        );
        lifetime = Value::Number(1);
    }
    table.set("server_lifetime", lifetime);
    Ok(())
}

/// The same key of a database.
pub(super) fn lifetime_of_database(written: &Written, table: &mut Table) -> Result<(), Problem> {
    lifetime(written, table)
}

fn check_query(written: &Written, general: &mut Table) {
    match written.value.trim_end_matches(';').trim() {
        "" => general.set("healthcheck_interval", Value::Number(FOREVER)),
        "<empty>" => {}
        query if query.eq_ignore_ascii_case("select 1") => {}
        _ => general.remark(written.remark("no counterpart: the check is an empty query")),
    }
}

fn prepared(written: &Written, general: &mut Table) -> Result<(), Problem> {
    match value(Kind::Count, written)? {
        Value::Number(0) => general.set("prepared_statements", "disabled".into()),
        limit => {
            general.set("prepared_statements", "extended".into());
            general.set("prepared_statements_limit", limit);
        }
    }
    Ok(())
}
