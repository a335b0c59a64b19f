//! What is known of a database's functions: whether calling one may write, lock, or depend on which server answers.
//!
//! Two sources: the catalogue of a database, as the caller has read it with [`CATALOGUE`], and what the configuration says of
//! single functions. What neither knows may do anything. Before the catalogue has been read, the built-in functions of
//! PostgreSQL are known by name.
//!
//! The catalogue also tells which relations, operators and types call functions by themselves: views, policies, casts. Only those
//! are known, so that a relation of which nothing is known counts as a table.

mod behind;
mod builtin;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

pub use behind::{Kind, Mention};

pub(crate) use builtin::is_one_servers;

use behind::{Behind, Call};

/// Reads what [`Functions::new`] takes: schema, name, whether one of that name is volatile, whether all are PostgreSQL's own;
/// then what calls it: kind, schema and name, which are null where it is the query that calls. It is worth its while to switch
/// `jit` off before.
pub const CATALOGUE: &str = include_str!("functions/catalogue.sql");

/// One row of [`CATALOGUE`].
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The schema.
    pub schema: &'a str,
    /// The name; functions that differ only in their parameters share it.
    pub name: &'a str,
    /// Whether one of them is volatile.
    pub volatile: bool,
    /// Whether all of them are PostgreSQL's own.
    pub builtin: bool,
    /// What calls it, where it is not the query itself.
    pub through: Option<Through<'a>>,
}

/// What calls a function when a query mentions it.
#[derive(Debug, Clone, Copy)]
pub struct Through<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its schema.
    pub schema: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// What may come of calling a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It reads, and any server may be asked.
    Reads,
    /// Its volatility says that it may write.
    Volatile,
    /// It writes, locks, or belongs to the session or to the primary, whatever its mark says.
    Bound,
    /// The configuration says that it writes.
    Configured,
    /// Nothing is known of it.
    Unknown,
}

impl Verdict {
    /// Whether a replica may be asked.
    #[must_use]
    pub const fn reads(self) -> bool {
        matches!(self, Self::Reads)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reads => "only reads",
            Self::Volatile => "is volatile",
            Self::Bound => "writes, locks, or belongs to the session or the primary",
            Self::Configured => "is configured to write",
            Self::Unknown => "is not known",
        })
    }
}

/// A name with or without its schema, folded as PostgreSQL folds it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// The schema, where it is said.
    pub schema: Option<Box<str>>,
    /// The name itself.
    pub name: Box<str>,
}

impl Name {
    /// From `name` or `schema.name`, as configured: not quoted, in the case it has in the database.
    #[must_use]
    pub fn written(text: &str) -> Self {
        match text.trim().split_once('.') {
            Some((schema, name)) => Self {
                schema: Some(schema.into()),
                name: name.into(),
            },
            None => Self {
                schema: None,
                name: text.trim().into(),
            },
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// What is known of functions. It does not change: when the catalogue has been read again, another takes its place.
#[derive(Debug)]
pub struct Functions {
    /// Tells this knowledge from any other in this process, for answers that are remembered.
    id: u32,
    /// By name; `None` before the catalogue has been read.
    catalogue: Option<HashMap<Box<str>, Vec<Known>>>,
    /// What calls functions by itself.
    behind: Behind,
    /// By name: the schema, where one is said, and whether it writes.
    configured: HashMap<Box<str>, Vec<Said>>,
}

/// What is configured for a name: in which schema, where one is said.
type Said = (Option<Box<str>>, Verdict);

#[derive(Debug)]
struct Known {
    schema: Box<str>,
    verdict: Verdict,
}

impl Default for Functions {
    fn default() -> Self {
        Self::unread()
    }
}

impl Functions {
    /// PostgreSQL's own functions by name, and nothing else: before the catalogue has been read.
    #[must_use]
    pub fn unread() -> Self {
        Self::with(None, Behind::default())
    }

    /// From the rows of [`CATALOGUE`].
    pub fn new<'a>(rows: impl IntoIterator<Item = Row<'a>>) -> Self {
        let mut catalogue: HashMap<Box<str>, Vec<Known>> = HashMap::new();
        let mut behind = Behind::default();
        for row in rows {
            let verdict = of_row(row);
            let Some(through) = row.through else {
                let schema = row.schema.into();
                let known = Known { schema, verdict };
                catalogue.entry(row.name.into()).or_default().push(known);
                continue;
            };
            let function = Name {
                schema: Some(row.schema.into()),
                name: row.name.into(),
            };
            let call = Call {
                schema: through.schema.into(),
                function,
                verdict,
            };
            behind.put(through.kind, through.name, call);
        }
        Self::with(Some(catalogue), behind)
    }

    fn with(catalogue: Option<HashMap<Box<str>, Vec<Known>>>, behind: Behind) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            catalogue,
            behind,
            configured: HashMap::new(),
        }
    }

    /// With what the configuration says: these only read, those write, whatever the catalogue says. A name without a schema
    /// counts for all schemas. What is named in both writes.
    #[must_use]
    pub fn configured<'a>(
        mut self,
        reads: impl IntoIterator<Item = &'a str>,
        writes: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let writes = writes.into_iter().map(|name| (name, Verdict::Configured));
        let reads = reads.into_iter().map(|name| (name, Verdict::Reads));
        for (name, verdict) in writes.chain(reads) {
            let Name { schema, name } = Name::written(name);
            let all = self.configured.entry(name).or_default();
            if !all.iter().any(|(known, _)| *known == schema) {
                all.push((schema, verdict));
            }
        }
        let mut behind = std::mem::take(&mut self.behind);
        behind.retain(|call| !self.of_call(call).reads());
        self.behind = behind;
        self
    }

    /// Differs between any two of them in this process, and is never 0.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Whether the catalogue has been read.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.catalogue.is_some()
    }

    /// What may come of a call by this name. Without a schema, the worst of all functions that have it.
    #[must_use]
    pub fn verdict(&self, called: &Name) -> Verdict {
        match self.by_itself(called) {
            (Verdict::Reads, false) => self
                .called_by(Kind::Function, called)
                .next()
                .map_or(Verdict::Reads, |(_, verdict)| verdict),
            (verdict, _) => verdict,
        }
    }

    /// Whether this function is meant for the primary in a read-only transaction too, as this verdict of it says.
    pub(crate) fn insists(function: &Name, verdict: Verdict) -> bool {
        verdict == Verdict::Configured
            || verdict == Verdict::Bound && builtin::insists(&function.name)
    }

    /// Whether anything is known to call functions by itself.
    pub(crate) fn has_behind(&self) -> bool {
        !self.behind.is_empty()
    }

    /// The functions that may not be called on a replica, of those that are called when this is mentioned.
    pub(crate) fn called_by(
        &self,
        kind: Kind,
        named: &Name,
    ) -> impl Iterator<Item = (&Name, Verdict)> {
        self.behind
            .calls(kind, named)
            .map(move |call| (&call.function, self.of_call(call)))
            .filter(|(_, verdict)| !verdict.reads())
    }

    /// What may come of a call that is in no text: the configuration goes before the mark.
    fn of_call(&self, call: &Call) -> Verdict {
        let Name { schema, name } = &call.function;
        let said = self.configured.get(name).map_or(&[][..], |all| all);
        let of = |schema: &Option<Box<str>>| said.iter().find(|(known, _)| known == schema);
        of(schema)
            .or_else(|| of(&None))
            .map_or(call.verdict, |(_, verdict)| *verdict)
    }

    /// The same without what it calls in its turn, and whether the configuration has said it.
    fn by_itself(&self, called: &Name) -> (Verdict, bool) {
        let said = self.configured.get(&called.name).map_or(&[][..], |all| all);
        let of = |schema: Option<&str>| {
            let mut all = said.iter();
            all.find(|(known, _)| known.as_deref() == schema)
                .map(|(_, verdict)| *verdict)
        };
        let in_schema = |schema: &str| of(Some(schema)).or_else(|| of(None));
        let told = match &called.schema {
            Some(schema) => in_schema(schema),
            None => {
                // One that is configured for a schema may be the one that is meant.
                let writes = said.iter().find(|(_, verdict)| !verdict.reads());
                writes.map(|(_, verdict)| *verdict).or_else(|| of(None))
            }
        };
        if let Some(verdict) = told {
            return (verdict, true);
        }
        let known = match &called.schema {
            Some(_) => self.known(called, |_| None),
            None => self.known(called, in_schema),
        };
        (known.unwrap_or(Verdict::Unknown), false)
    }

    /// The worst of what the catalogue knows by that name; `said` goes before it.
    fn known(&self, called: &Name, said: impl Fn(&str) -> Option<Verdict>) -> Option<Verdict> {
        let Some(catalogue) = &self.catalogue else {
            let meant = called.schema.as_deref().unwrap_or(builtin::SCHEMA);
            return (meant == builtin::SCHEMA)
                .then(|| builtin::verdict(&called.name))
                .flatten();
        };
        let meant = |known: &&Known| called.schema.as_ref().is_none_or(|s| *s == known.schema);
        let mut verdicts = catalogue
            .get(&called.name)?
            .iter()
            .filter(meant)
            .map(|known| said(&known.schema).unwrap_or(known.verdict));
        let first = verdicts.next()?;
        Some(verdicts.fold(
            first,
            |worst, next| if worst.reads() { next } else { worst },
        ))
    }
}

fn of_row(row: Row<'_>) -> Verdict {
    let builtin = row.schema == builtin::SCHEMA;
    if builtin && (builtin::is_bound(row.name) || builtin::is_one_servers(row.name)) {
        Verdict::Bound
    } else if row.volatile && !(builtin && row.builtin && builtin::is_harmless(row.name)) {
        Verdict::Volatile
    } else {
        Verdict::Reads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<'a>(schema: &'a str, name: &'a str, volatile: bool) -> Row<'a> {
        Row {
            schema,
            name,
            volatile,
            builtin: schema == "pg_catalog",
            through: None,
        }
    }

    fn some() -> Functions {
        Functions::new([
            row("pg_catalog", "lower", false),
            row("pg_catalog", "random", true),
            row("pg_catalog", "nextval", true),
            row("pg_catalog", "pg_control_system", true),
            row("pg_catalog", "txid_current", false),
            row("public", "f", true),
            row("other", "f", false),
            row("public", "g", false),
        ])
    }

    fn of(functions: &Functions, name: &str) -> Verdict {
        functions.verdict(&Name::written(name))
    }

    #[test]
    fn a_function_is_what_its_volatility_says() {
        let functions = some();
        assert_eq!(of(&functions, "lower"), Verdict::Reads);
        assert_eq!(of(&functions, "public.g"), Verdict::Reads);
        assert_eq!(of(&functions, "g"), Verdict::Reads);
        assert_eq!(of(&functions, "public.f"), Verdict::Volatile);
        assert_eq!(of(&functions, "other.f"), Verdict::Reads);
        assert_eq!(of(&functions, "pg_control_system"), Verdict::Volatile);
    }

    #[test]
    fn without_a_schema_the_worst_of_all_schemas_counts() {
        assert_eq!(of(&some(), "f"), Verdict::Volatile);
        let mine = Functions::new([row("pg_catalog", "lower", false), row("app", "lower", true)]);
        assert_eq!(of(&mine, "lower"), Verdict::Volatile);
        assert_eq!(of(&mine, "pg_catalog.lower"), Verdict::Reads);
    }

    #[test]
    fn of_built_in_functions_the_mark_is_corrected_both_ways() {
        let functions = some();
        assert_eq!(of(&functions, "random"), Verdict::Reads);
        assert_eq!(of(&functions, "nextval"), Verdict::Bound);
        assert_eq!(of(&functions, "txid_current"), Verdict::Bound);
        // Somebody's own function of that name is what its mark says.
        let own = Functions::new([row("public", "random", true)]);
        assert_eq!(of(&own, "random"), Verdict::Volatile);
    }

    #[test]
    fn what_is_not_there_is_unknown() {
        let functions = some();
        assert_eq!(of(&functions, "h"), Verdict::Unknown);
        assert_eq!(of(&functions, "app.lower"), Verdict::Unknown);
        assert_eq!(of(&functions, "upper"), Verdict::Unknown);
    }

    #[test]
    fn before_the_catalogue_is_read_only_built_in_names_are_known() {
        let functions = Functions::unread();
        for name in ["lower", "pg_catalog.lower", "random", "count", "now"] {
            assert_eq!(of(&functions, name), Verdict::Reads, "{name}");
        }
        for name in ["nextval", "pg_advisory_lock", "set_config", "lo_import"] {
            assert_eq!(of(&functions, name), Verdict::Bound, "{name}");
        }
        for name in ["f", "public.lower", "st_distance"] {
            assert_eq!(of(&functions, name), Verdict::Unknown, "{name}");
        }
    }

    #[test]
    fn the_configuration_goes_before_the_catalogue_in_both_directions() {
        let functions =
            some().configured(["public.f", "h", "nextval"], ["lower", "other.g", "x.y"]);
        assert_eq!(of(&functions, "public.f"), Verdict::Reads);
        // All others of that name read as well.
        assert_eq!(of(&functions, "f"), Verdict::Reads);
        assert_eq!(of(&functions, "h"), Verdict::Reads);
        assert_eq!(of(&functions, "any.h"), Verdict::Reads);
        assert_eq!(of(&functions, "nextval"), Verdict::Reads);
        assert_eq!(of(&functions, "lower"), Verdict::Configured);
        assert_eq!(of(&functions, "pg_catalog.lower"), Verdict::Configured);
        assert_eq!(of(&functions, "public.g"), Verdict::Reads);
        assert_eq!(of(&functions, "g"), Verdict::Configured);
        assert_eq!(of(&functions, "x.y"), Verdict::Configured);
    }

    #[test]
    fn what_is_configured_both_ways_writes() {
        let functions = some().configured(["f"], ["f"]);
        assert_eq!(of(&functions, "f"), Verdict::Configured);
    }

    #[test]
    fn the_configuration_counts_before_the_catalogue_is_read() {
        let functions = Functions::unread().configured(["app.f"], []);
        assert_eq!(of(&functions, "app.f"), Verdict::Reads);
        assert_eq!(of(&functions, "f"), Verdict::Unknown);
    }
}
