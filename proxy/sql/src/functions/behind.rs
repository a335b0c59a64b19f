//! What calls functions without a word in the query: views, policies, operators, casts and the domains of types.

use std::collections::HashMap;
use std::fmt;

use super::{Name, Verdict};

/// What a query mentions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A view, or a table with policies.
    Relation,
    /// An operator.
    Operator,
    /// A type, to which something is cast.
    Type,
    /// A function or aggregate, which calls others.
    Function,
}

impl Kind {
    /// By the word that the catalogue's query gives.
    #[must_use]
    pub fn read(word: &str) -> Option<Self> {
        Some(match word {
            "relation" => Self::Relation,
            "operator" => Self::Operator,
            "type" => Self::Type,
            "function" => Self::Function,
            _ => return None,
        })
    }
}

/// Something that a query mentions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mention {
    /// What it is.
    pub kind: Kind,
    /// Its name, as it is written.
    pub name: Name,
}

impl fmt::Display for Mention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            Kind::Relation => "relation",
            Kind::Operator => "operator",
            Kind::Type => "a cast to",
            Kind::Function => "function",
        };
        write!(f, "{what} {}", self.name)
    }
}

/// A function, and what calls it.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// The schema of what calls it.
    pub(super) schema: Box<str>,
    pub(super) function: Name,
    pub(super) verdict: Verdict,
}

/// All calls, by the names of what calls.
#[derive(Debug, Default)]
pub(super) struct Behind(HashMap<(Kind, Box<str>), Vec<Call>>);

impl Behind {
    pub(super) fn put(&mut self, kind: Kind, name: &str, call: Call) {
        self.0.entry((kind, name.into())).or_default().push(call);
    }

    /// Those of what is mentioned. Without a schema, of all that have the name.
    pub(super) fn calls(&self, kind: Kind, named: &Name) -> impl Iterator<Item = &Call> {
        let calls = if self.0.is_empty() {
            None
        } else {
            self.0.get(&(kind, named.name.clone()))
        };
        let meant = move |call: &&Call| named.schema.as_ref().is_none_or(|s| *s == call.schema);
        calls.into_iter().flatten().filter(meant)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets calls that harm nobody.
    pub(super) fn retain(&mut self, harms: impl Fn(&Call) -> bool) {
        self.0.retain(|_, calls| {
            calls.retain(&harms);
            !calls.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Functions, Row, Through};
    use super::*;
    use crate::facts::Facts;
    use crate::route::{Place, Why};

    fn row<'a>(
        (schema, name, volatile): (&'a str, &'a str, bool),
        through: Option<(Kind, &'a str, &'a str)>,
    ) -> Row<'a> {
        Row {
            schema,
            name,
            volatile,
            builtin: schema == "pg_catalog",
            through: through.map(|(kind, schema, name)| Through { kind, schema, name }),
        }
    }

    fn some() -> Functions {
        let nextval = ("pg_catalog", "nextval", true);
        let now = ("pg_catalog", "now", false);
        let writes = ("app", "writes", true);
        Functions::new([
            row(nextval, None),
            row(now, None),
            row(("pg_catalog", "random", true), None),
            row(("public", "agg", false), None),
            row(nextval, Some((Kind::Relation, "public", "v"))),
            row(now, Some((Kind::Relation, "public", "w"))),
            row(
                ("pg_catalog", "random", true),
                Some((Kind::Relation, "public", "w")),
            ),
            row(
                ("pg_catalog", "pg_locks", false),
                Some((Kind::Relation, "public", "l")),
            ),
            row(
                ("pg_catalog", "pg_sequences", false),
                Some((Kind::Relation, "public", "q")),
            ),
            row(writes, Some((Kind::Operator, "app", "<<<"))),
            row(writes, Some((Kind::Operator, "app", ">="))),
            row(writes, Some((Kind::Type, "app", "d"))),
            row(writes, Some((Kind::Function, "public", "agg"))),
        ])
    }

    fn place(functions: &Functions, text: &str) -> Place {
        Facts::parse(text.as_bytes()).place(functions).0
    }

    #[test]
    fn what_calls_a_function_that_writes_goes_to_the_primary() {
        let functions = some().configured([], []);
        for text in [
            "select * from v",
            "table v",
            "select * from public.v",
            "with v as (select * from v) select * from v",
            "select 1 where exists (select 1 from t, v)",
            "copy v to stdout",
            "select * from l",
            "select 1 <<< 2",
            "select 1 operator(app.<<<) 2",
            "select 1 <<< any (select 2)",
            "select a between 1 and 2",
            "select a order by b using <<<",
            "select a::d",
            "select cast(a as app.d)",
            "select '{}'::d[]",
            "select agg(a) from t",
            "select * from q",
        ] {
            assert_eq!(place(&functions, text), Place::Primary, "{text}");
        }
        for text in [
            "select * from w",
            "select * from other.v",
            "select v from t as v",
            "select 1 operator(public.<<<) 2",
            "select a::other.d",
            "select 1 = 2, 1 < 2, a in (1, 2)",
        ] {
            assert_eq!(place(&functions, text), Place::Read, "{text}");
        }
    }

    #[test]
    fn the_configuration_is_the_judge_of_what_is_called_too() {
        let functions = some().configured(["app.writes"], ["now"]);
        assert_eq!(place(&functions, "select 1 <<< 2"), Place::Read);
        assert_eq!(place(&functions, "select agg(a) from t"), Place::Read);
        assert_eq!(place(&functions, "select * from v"), Place::Primary);
        let facts = Facts::parse(b"select * from w");
        assert_eq!(
            facts.explain(&functions),
            "relation w calls pg_catalog.now, which is configured to write"
        );
        let why = facts.place(&functions).1;
        assert_eq!(why, Why::Reaches(Verdict::Configured));
    }

    #[test]
    fn nothing_is_known_of_relations_before_the_catalogue_is_read() {
        assert_eq!(place(&Functions::unread(), "select * from v"), Place::Read);
        let functions = Functions::new([]);
        assert!(!functions.has_behind());
    }

    #[test]
    fn locks_and_what_is_the_primary_s_alone_insist_on_it() {
        let functions = some().configured(["app.writes"], ["public.f"]);
        let insists = |text: &str| {
            let facts = Facts::parse(text.as_bytes());
            facts.insists(&functions).map(|culprit| culprit.to_string())
        };
        let advisory = Functions::unread();
        let locks = Facts::parse(b"begin read only; select g(), pg_advisory_lock(1)");
        let culprit = locks.insists(&advisory).unwrap();
        assert_eq!(&*culprit.function.name, "pg_advisory_lock");
        for text in [
            "select public.f()",
            "select public.f() from pg_locks",
            "lock table t in access share mode; select f()",
        ] {
            assert!(insists(text).is_some(), "{text}");
        }
        for text in [
            "select * from v",
            "select nextval('s')",
            "select 1",
            "insert into t select f()",
        ] {
            assert_eq!(insists(text), None, "{text}");
        }
    }
}
