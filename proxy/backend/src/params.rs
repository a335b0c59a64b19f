//! Settings of a session: what a client has, what a server has, and how to bring the one to the other.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use pgdog_wire::write::{identifier, literal};

/// How a setting got its value, and so how to give it again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// Its value, as `pg_settings.setting` writes it or a startup packet gave it.
    Plain(Box<str>),
    /// The SET statement that gave it.
    Statement(Box<str>),
}

/// Settings by name (lower case), those that differ from what the server gives every new connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Params {
    values: BTreeMap<Box<str>, Value>,
    /// See [`Params::steer`].
    steer: bool,
}

/// Who the session acts as; these are set last and reset first, because they decide what else may be set.
const IDENTITY: [&str; 2] = ["session_authorization", "role"];
/// Set after the others, which are written in UTF-8.
const ENCODING: &str = "client_encoding";

/// Settings that say to which host requests go, or that have a say in it.
const STEERING: [&str; 4] = [
    "default_transaction_isolation",
    "default_transaction_read_only",
    "pgdog.role",
    "standard_conforming_strings",
];

/// Settings that change nothing of what a text means.
const NO_MEANING: [&str; 7] = [
    "application_name",
    "client_min_messages",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "lock_timeout",
    "statement_timeout",
    "transaction_timeout",
];

impl Params {
    /// The value of one setting.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// Whether one is switched on, as far as its text shows.
    #[must_use]
    pub fn is_on(&self, name: &str) -> bool {
        let text = match self.get(name) {
            None => return false,
            Some(Value::Plain(value)) => value,
            Some(Value::Statement(set)) => set
                .trim_end_matches(|c: char| c == ';' || c.is_whitespace())
                .rsplit([' ', '='])
                .next()
                .unwrap_or_default(),
        };
        ["on", "true", "t", "yes", "1"]
            .iter()
            .any(|on| text.trim_matches('\'').eq_ignore_ascii_case(on))
    }

    /// Sets one.
    pub fn set(&mut self, name: &str, value: Value) {
        self.values.insert(name.to_ascii_lowercase().into(), value);
        self.note_steering();
    }

    /// Takes one out.
    pub fn remove(&mut self, name: &str) {
        self.values.remove(name);
        self.note_steering();
    }

    fn note_steering(&mut self) {
        self.steer = STEERING.iter().any(|name| self.values.contains_key(*name));
    }

    /// Whether one of them may have to do with the host that a request goes to: asked of each request, mostly in vain.
    #[inline]
    #[must_use]
    pub fn steer(&self) -> bool {
        self.steer
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(n, v)| (&**n, v))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// What may distinguish the meaning of a text when it is parsed: names go by the search path, constants by the time zone,
    /// the date style and many more. All that was set, but for what is known to have no part in it; `None` when that is nothing.
    #[must_use]
    pub fn scope(&self) -> Option<String> {
        let mut scope = String::new();
        for (name, value) in self.iter().filter(|(n, _)| !NO_MEANING.contains(n)) {
            let (Value::Plain(value) | Value::Statement(value)) = value;
            for part in [name, "=", value, "\0"] {
                scope.push_str(part);
            }
        }
        (!scope.is_empty()).then_some(scope)
    }

    /// The statements that bring a server from `self` to `target`: empty when nothing differs.
    /// They run as one query string, so all of it takes place or none.
    #[must_use]
    pub fn statements_to(&self, target: &Self) -> String {
        let mut sql = String::new();
        if self == target {
            return sql;
        }
        let identity_differs = IDENTITY.iter().any(|n| self.get(n) != target.get(n));
        if identity_differs || IDENTITY.iter().any(|n| self.get(n).is_some()) {
            sql.push_str("RESET SESSION AUTHORIZATION;RESET ROLE;");
        }
        let ordinary = |n: &str| !IDENTITY.contains(&n) && n != ENCODING;
        for (name, _) in self
            .iter()
            .filter(|(n, _)| ordinary(n) && target.get(n).is_none())
        {
            sql.push_str("RESET ");
            write_name(&mut sql, name);
            sql.push(';');
        }
        for (name, value) in target
            .iter()
            .filter(|(n, v)| ordinary(n) && self.get(n) != Some(v))
        {
            write_set(&mut sql, name, value);
        }
        match (self.get(ENCODING), target.get(ENCODING)) {
            (Some(_), None) => sql.push_str("RESET client_encoding;"),
            // The one before was left before this began.
            (_, Some(value)) => write_set(&mut sql, ENCODING, value),
            (None, None) => {}
        }
        for name in IDENTITY {
            if let Some(value) = target.get(name) {
                write_set(&mut sql, name, value);
            }
        }
        sql
    }
}

/// Names of extensions' settings have dots, each part an identifier of its own.
fn write_name(sql: &mut String, name: &str) {
    for (i, part) in name.split('.').enumerate() {
        if i > 0 {
            sql.push('.');
        }
        identifier(sql, part);
    }
}

fn write_set(sql: &mut String, name: &str, value: &Value) {
    match value {
        Value::Statement(statement) => {
            sql.push_str(statement);
            // It may end in a comment, which must not swallow what follows.
            sql.push('\n');
        }
        Value::Plain(value) => {
            sql.push_str("SELECT pg_catalog.set_config(");
            literal(sql, name);
            sql.push(',');
            literal(sql, value);
            sql.push_str(",false)");
        }
    }
    sql.push(';');
}

/// Keeps one copy of equal settings, so that ten thousand clients of one application share theirs and comparing is cheap.
#[derive(Debug, Default)]
pub struct Interner {
    seen: Mutex<(HashSet<Arc<Params>>, usize)>,
}

impl Interner {
    /// The shared copy.
    pub fn intern(&self, params: Params) -> Arc<Params> {
        let mut guard = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (seen, sweep_at) = &mut *guard;
        if let Some(shared) = seen.get(&params) {
            return shared.clone();
        }
        if seen.len() >= *sweep_at {
            seen.retain(|p| Arc::strong_count(p) > 1);
            *sweep_at = 64.max(seen.len() * 2);
        }
        let shared = Arc::new(params);
        seen.insert(shared.clone());
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(entries: &[(&str, &str)]) -> Params {
        let mut params = Params::default();
        for (name, value) in entries {
            params.set(name, Value::Plain((*value).into()));
        }
        params
    }

    #[test]
    fn only_differences_are_said() {
        let (from, to) = (
            params(&[("a", "1"), ("b", "2"), ("x.y", "3")]),
            params(&[("a", "1"), ("b", "it's")]),
        );
        assert_eq!(
            from.statements_to(&to),
            "RESET \"x\".\"y\";SELECT pg_catalog.set_config('b','it''s',false);"
        );
        assert_eq!(to.statements_to(&to), "");
    }

    #[test]
    fn settings_that_steer_are_noticed_as_they_come_and_go() {
        let mut settings = params(&[("application_name", "x")]);
        assert!(!settings.steer());
        for name in STEERING {
            settings.set(&name.to_ascii_uppercase(), Value::Plain("x".into()));
            assert!(settings.steer(), "{name}");
            settings.remove(name);
            assert!(!settings.steer(), "{name}");
        }
    }

    #[test]
    fn a_role_is_left_before_anything_else_and_taken_after() {
        let (from, to) = (
            params(&[("role", "x"), ("a", "1")]),
            params(&[("role", "y"), ("a", "2")]),
        );
        let sql = from.statements_to(&to);
        let at = |what| sql.find(what).unwrap();
        assert!(
            at("RESET ROLE") < at("'a'") && at("'a'") < at("'role','y'"),
            "{sql}"
        );
    }

    #[test]
    fn equal_settings_are_shared() {
        let interner = Interner::default();
        assert!(Arc::ptr_eq(
            &interner.intern(params(&[("a", "1")])),
            &interner.intern(params(&[("A", "1")]))
        ));
        for i in 0..1000 {
            interner.intern(params(&[("n", &i.to_string())]));
        }
        assert!(interner.seen.lock().unwrap().0.len() <= 200);
    }
}
