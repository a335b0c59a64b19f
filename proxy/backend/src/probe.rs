//! Asking a server what its session holds, where the text of statements cannot tell.

use std::time::Duration;

use pgdog_wire::write::literal;

use crate::error::ServerError;
use crate::params::{Params, Value};
use crate::server::{Rows, Server};

/// Settings that SET or set_config changed in this session; role and session authorization are not in the view.
/// Names are qualified, so that no search path can redirect them.
const SETTINGS: &str = "SELECT name, setting FROM pg_catalog.pg_settings WHERE source OPERATOR(pg_catalog.=) 'session' \
    AND name NOT IN ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable') \
    UNION ALL SELECT 'role', pg_catalog.current_setting('role') WHERE pg_catalog.current_setting('role') OPERATOR(pg_catalog.<>) 'none' \
    UNION ALL SELECT 'session_authorization', session_user::pg_catalog.text";

/// One row of booleans, in the order of [`Reasons`]' bits.
const HOLDS: &str = "SELECT pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.<>) 0::pg_catalog.oid AND ( \
      EXISTS (SELECT 1 FROM pg_catalog.pg_class WHERE relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) \
      OR EXISTS (SELECT 1 FROM pg_catalog.pg_depend WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass \
        AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())), \
    EXISTS (SELECT 1 FROM pg_catalog.pg_cursors WHERE is_holdable), \
    EXISTS (SELECT 1 FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory' AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()), \
    EXISTS (SELECT 1 FROM pg_catalog.pg_prepared_statements WHERE from_sql AND NOT OURS), \
    EXISTS (SELECT 1 FROM pg_catalog.pg_listening_channels())";

/// Whether a statement is one that the proxy has prepared in SQL, on a server where it may have.
const OURS: &str = "pg_catalog.left(name, 8) OPERATOR(pg_catalog.=) '__pgdog_'";

/// Why a client keeps its server outside of transactions. Each bit is set and cleared on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reasons(u8);

impl Reasons {
    /// No reason.
    pub const NONE: Self = Self(0);
    /// Temporary objects exist.
    pub const TEMP: Self = Self(1);
    /// A cursor WITH HOLD is open.
    pub const CURSOR: Self = Self(1 << 1);
    /// A session advisory lock is held.
    pub const LOCK: Self = Self(1 << 2);
    /// A statement was prepared in SQL.
    pub const PREPARE: Self = Self(1 << 3);
    /// A channel is listened to.
    pub const LISTEN: Self = Self(1 << 4);
    /// Values of sequences were read that the session must remember.
    pub const SEQUENCE: Self = Self(1 << 5);
    /// A library was loaded, or a statement was too large to look at.
    pub const FOREVER: Self = Self(1 << 6);
    /// The client asked for it with `pgdog.pin`.
    pub const ASKED: Self = Self(1 << 7);

    /// What [`Server::holds`] can tell.
    pub const KNOWABLE: Self = Self(0b1_1111);

    /// Names in the order of the bits.
    pub const NAMES: [&'static str; 8] = [
        "temp",
        "cursor",
        "advisory_lock",
        "prepare",
        "listen",
        "sequence",
        "forever",
        "asked",
    ];

    /// Whether there is any.
    #[inline]
    #[must_use]
    pub fn any(self) -> bool {
        self.0 != 0
    }

    /// Sets or clears those in `which`.
    pub fn put(&mut self, which: Self, on: bool) {
        if on {
            self.0 |= which.0;
        } else {
            self.0 &= !which.0;
        }
    }

    /// Whether any of `which` is set.
    #[must_use]
    pub fn has(self, which: Self) -> bool {
        self.0 & which.0 != 0
    }

    /// Their names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .into_iter()
            .enumerate()
            .filter(move |(bit, _)| self.0 >> bit & 1 == 1)
            .map(|(_, name)| name)
    }

    /// `self` with those that the server was asked about as it answered.
    #[must_use]
    pub fn learn(self, knowable: Self) -> Self {
        Self(self.0 & !Self::KNOWABLE.0 | knowable.0)
    }
}

impl Server {
    /// The settings of its session that differ from those of a new connection; `custom` are names with dots that the
    /// session may have made up. Not cancel safe.
    ///
    /// # Errors
    ///
    /// As [`Server::query`].
    pub async fn settings(
        &mut self,
        login: &str,
        custom: &[String],
        timeout: Duration,
    ) -> Result<Params, ServerError> {
        let mut sql = SETTINGS.to_owned();
        for name in custom {
            // Settings with dots that no library declares stand in no view: they are asked for by name.
            sql.push_str(" UNION ALL SELECT ");
            literal(&mut sql, name);
            sql.push_str(", pg_catalog.current_setting(");
            literal(&mut sql, name);
            sql.push_str(", true)");
        }
        let encoding = self
            .reported(b"client_encoding")
            .map(|v| String::from_utf8_lossy(v).into_owned());
        let foreign = encoding.filter(|e| e != "UTF8");
        if foreign.is_some() {
            sql = format!("BEGIN; SET LOCAL client_encoding = 'UTF8'; {sql}; COMMIT");
        }
        let rows = self.query(&sql, timeout).await?;
        let mut params = read_settings(rows, login);
        if let Some(encoding) = foreign
            && params.get("client_encoding").is_some()
        {
            params.set("client_encoding", Value::Plain(encoding.into()));
        }
        Ok(params)
    }

    /// Whether it has ever had temporary objects. Not cancel safe.
    ///
    /// # Errors
    ///
    /// As [`Server::query`].
    pub async fn has_temp_schema(&mut self, timeout: Duration) -> Result<bool, ServerError> {
        let rows = self
            .query(
                "SELECT pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.<>) 0::pg_catalog.oid",
                timeout,
            )
            .await?;
        Ok(rows
            .first()
            .and_then(|r| r.first())
            .is_some_and(|c| c.as_deref() == Some("t")))
    }

    /// Has the server count what the session has done, as it would at the session's end (PostgreSQL 15 and later).
    /// Not cancel safe.
    ///
    /// # Errors
    ///
    /// As [`Server::query`].
    pub async fn flush_statistics(&mut self, timeout: Duration) -> Result<(), ServerError> {
        let version = self
            .reported(b"server_version")
            .map(|v| String::from_utf8_lossy(v).into_owned());
        let major = version.and_then(|v| {
            v.split(|c: char| !c.is_ascii_digit())
                .next()
                .and_then(|m| m.parse::<u32>().ok())
        });
        if major.is_some_and(|m| m >= 15) {
            self.query("SELECT pg_catalog.pg_stat_force_next_flush()", timeout)
                .await?;
        }
        Ok(())
    }

    /// What its session holds. Not cancel safe.
    ///
    /// # Errors
    ///
    /// As [`Server::query`].
    pub async fn holds(&mut self, timeout: Duration) -> Result<Reasons, ServerError> {
        let ours = if self.prepared.by_sql { OURS } else { "false" };
        let rows = self.query(&HOLDS.replace("OURS", ours), timeout).await?;
        let bits = rows.first().map_or(0, |row| {
            row.iter().enumerate().fold(0, |bits, (i, c)| {
                bits | u8::from(c.as_deref() == Some("t")) << i
            })
        });
        Ok(Reasons(bits))
    }
}

fn read_settings(rows: Rows, login: &str) -> Params {
    let mut params = Params::default();
    for row in rows {
        let [Some(name), Some(value)] = &row[..] else {
            continue;
        };
        if name == "session_authorization" && value == login {
            continue;
        }
        params.set(name, Value::Plain(value.as_str().into()));
    }
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_set_and_cleared_one_by_one() {
        let mut reasons = Reasons::NONE;
        reasons.put(Reasons::ASKED, true);
        reasons = reasons.learn(Reasons::TEMP);
        assert!(reasons.has(Reasons::ASKED) && reasons.has(Reasons::TEMP));
        reasons = reasons.learn(Reasons::NONE);
        assert!(reasons.any() && !reasons.has(Reasons::TEMP));
        reasons.put(Reasons::ASKED, false);
        assert!(!reasons.any());
    }
}
