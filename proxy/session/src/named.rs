//! SQL that names prepared statements: `PREPARE name`, `EXECUTE name` and `DEALLOCATE name`, wherever they stand.
//!
//! PostgreSQL keeps the statements of SQL and of the protocol in one list; through the proxy each has another name on
//! servers. A query string goes to the server with those names, and with a PREPARE before each statement that the server
//! lacks: within the string, so that an error comes where PostgreSQL has it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pgdog_backend::statements::{Prepared, Statement};
use pgdog_backend::{Plans, StatementId, Store};
use pgdog_sql::names::{Site, Use, sites};
use pgdog_sql::{effects, names_moment};

use crate::client::Client;
use crate::statements::Statements;

/// A name that no statement keeps: DEALLOCATE of one that the server lacks makes it first, and ends it.
const STAND_IN: &[u8] = b"\"__pgdog_none\"";

/// How positions in a text, in characters from 1, differ from those in the client's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shift {
    /// Positions above this one are concerned.
    pub(crate) from: usize,
    /// By how much they are larger, or smaller.
    pub(crate) by: isize,
}

impl Shift {
    /// The position in the client's own text.
    pub(crate) fn position(self, at: usize) -> usize {
        if at > self.from {
            at.checked_add_signed(-self.by).unwrap_or(at).max(1)
        } else {
            at
        }
    }
}

/// What the end of a PREPARE or DEALLOCATE tells.
#[derive(Debug)]
pub(crate) enum Done {
    /// A statement of the client's that changes nothing here.
    Nothing,
    /// The client has a statement under this name, and so has the server under ours.
    Prepared(Box<[u8]>, Arc<Statement>),
    /// The client's name is free.
    Forgot(Box<[u8]>),
    /// As before, and the server's statement is gone too.
    Dropped(Box<[u8]>, StatementId),
    /// Of our own: the server has this statement now.
    OwnPrepared(Arc<Statement>),
    /// Of our own: the server's statement is gone.
    OwnDropped(StatementId),
    /// Of our own: nothing to keep in mind.
    OwnNothing,
}

impl Done {
    /// Whether the client did not say it.
    pub(crate) fn is_own(&self) -> bool {
        matches!(
            self,
            Self::OwnPrepared(_) | Self::OwnDropped(_) | Self::OwnNothing
        )
    }
}

/// A query string with the server's names, and what its answers will mean.
#[derive(Debug, Default)]
pub(crate) struct Rewritten {
    pub(crate) text: Vec<u8>,
    /// One for each PREPARE and DEALLOCATE, in their order.
    pub(crate) done: VecDeque<Done>,
    /// How positions in the text differ from those in the client's own.
    shifts: Vec<Shift>,
    /// Statements of the protocol that the server must have before.
    pub(crate) parse_first: Vec<Arc<Statement>>,
    /// Those that are executed.
    pub(crate) runs: Vec<Arc<Statement>>,
    /// The client's names for the statements that the text speaks of, for the server's errors.
    pub(crate) called: Vec<(Box<[u8]>, Arc<Statement>)>,
    /// How many are prepared on the server.
    pub(crate) prepares: usize,
    /// A name was replaced.
    pub(crate) changed: bool,
    /// A PREPARE is passed on under the client's own name.
    pub(crate) passes_prepare: bool,
}

impl Rewritten {
    /// Where the client's own text has what stands at this character (from 1) of ours.
    pub(crate) fn position(&self, at: usize) -> usize {
        let shift = self.shifts.iter().rev().find(|shift| shift.from < at);
        shift.map_or(at, |shift| shift.position(at))
    }
}

/// Where a client's new statements come from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) store: &'a Store,
    /// What has become of the store's statements in the client's pool.
    pub(crate) plans: &'a Plans,
    /// As the settings of the client read them.
    pub(crate) scope: Option<&'a str>,
}

impl<'a> Source<'a> {
    pub(crate) fn of(client: &'a Client, scope: Option<&'a str>) -> Self {
        Self {
            store: &client.runtime.store,
            plans: &client.pool().plans,
            scope,
        }
    }

    /// The statement that a Parse of this text makes.
    pub(crate) fn parsed(self, text: &[u8], types: &[u8]) -> Arc<Statement> {
        let effects = || effects(text).bits();
        let own = self.own_scope(text);
        let scope = own.as_deref().or(self.scope);
        let statement = self.store.get(text, types, scope, effects);
        self.plans.current(self.store, statement)
    }

    /// A text that names a moment (`'today'`) means the one in which it is parsed: nobody shares it.
    fn own_scope(self, text: &[u8]) -> Option<String> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        names_moment(text).then(|| {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            format!("{}moment={number}\0", self.scope.unwrap_or_default())
        })
    }

    /// The statement that a PREPARE makes.
    fn made(self, text: &[u8], site: &Site, body: usize) -> Arc<Statement> {
        let before = &text[site.statement.start..site.written.start];
        let after = &text[site.written.end..site.statement.end];
        let whole = [before, after].concat();
        let own = self.own_scope(&whole);
        let scope = own.as_deref().or(self.scope);
        let effects = || effects(&text[body..site.statement.end]).bits();
        let statement = self.store.get_sql(&whole, before.len(), scope, effects);
        self.plans.current(self.store, statement)
    }
}

/// What the names stand for while a text is rewritten: the client's and the server's statements, and what the text before has
/// made of them.
pub(crate) struct Rewriter<'a> {
    pub(crate) names: Option<&'a Statements>,
    pub(crate) prepared: &'a mut Prepared,
    pub(crate) source: Source<'a>,
    /// PREPARE makes statements of the store.
    pub(crate) keeps: bool,
    /// What the text has made of names and of the server's statements.
    overlay: HashMap<Box<[u8]>, Option<Arc<Statement>>>,
    has: HashMap<StatementId, bool>,
    forgot: bool,
    /// Characters of the client's text and of ours so far, and how far the client's text is copied.
    chars: (usize, usize),
    copied: usize,
    out: Rewritten,
}

impl<'a> Rewriter<'a> {
    pub(crate) fn new(
        names: Option<&'a Statements>,
        prepared: &'a mut Prepared,
        source: Source<'a>,
        keeps: bool,
    ) -> Self {
        Self {
            names,
            prepared,
            source,
            keeps,
            overlay: HashMap::new(),
            has: HashMap::new(),
            forgot: false,
            chars: (0, 0),
            copied: 0,
            out: Rewritten::default(),
        }
    }

    /// The query string as the server gets it.
    pub(crate) fn rewrite(mut self, text: &[u8], sites: &[Site]) -> Rewritten {
        for site in sites {
            match site.what {
                Use::Prepare { body } => self.prepare(text, site, body),
                Use::Execute => self.execute(text, site),
                Use::Deallocate => self.deallocate(text, site, sites.len() == 1),
                Use::ForgetAll => {
                    self.overlay.clear();
                    self.has.clear();
                    self.forgot = true;
                }
            }
        }
        self.copy_to(text, text.len());
        self.out
    }

    fn prepare(&mut self, text: &[u8], site: &Site, body: usize) {
        if let Some(existing) = self.resolve(&site.name) {
            // PostgreSQL refuses to replace a statement: the server says so.
            self.ensure(text, site, &existing);
            self.replace(text, site, &existing.identifier());
            self.call(site, existing);
            self.out.done.push_back(Done::Nothing);
            return;
        }
        if !self.keeps {
            self.out.passes_prepare = true;
            self.out.done.push_back(Done::Nothing);
            return;
        }
        let statement = self.source.made(text, site, body);
        if self.has(statement.id) {
            // Another client's, or another name's: made anew, it is what PostgreSQL would make of the text now.
            let drop = [b"DEALLOCATE ", &*statement.identifier(), b";"].concat();
            self.put_in(text, site, &drop, None);
            self.out.done.push_back(Done::OwnDropped(statement.id));
        }
        self.replace(text, site, &statement.identifier());
        self.has.insert(statement.id, true);
        self.out.prepares += 1;
        self.call(site, statement.clone());
        let name: Box<[u8]> = site.name.as_slice().into();
        self.overlay.insert(name.clone(), Some(statement.clone()));
        self.out.done.push_back(Done::Prepared(name, statement));
    }

    fn execute(&mut self, text: &[u8], site: &Site) {
        if let Some(statement) = self.resolve(&site.name) {
            self.ensure(text, site, &statement);
            self.replace(text, site, &statement.identifier());
            self.out.runs.push(statement.clone());
            self.call(site, statement);
        }
    }

    fn deallocate(&mut self, text: &[u8], site: &Site, alone: bool) {
        let Some(statement) = self.resolve(&site.name) else {
            self.out.done.push_back(Done::Nothing);
            return;
        };
        let name: Box<[u8]> = site.name.as_slice().into();
        // One of the protocol cannot be made again within the text, should another name stand for it.
        if self.has(statement.id) && (alone || statement.name_at.is_some()) {
            self.replace(text, site, &statement.identifier());
            self.has.insert(statement.id, false);
            let dropped = Done::Dropped(name.clone(), statement.id);
            self.out.done.push_back(dropped);
        } else {
            let make = [b"PREPARE ", STAND_IN, b" AS SELECT;"].concat();
            self.put_in(text, site, &make, None);
            self.replace(text, site, STAND_IN);
            self.out.done.push_back(Done::OwnNothing);
            self.out.done.push_back(Done::Forgot(name.clone()));
        }
        self.overlay.insert(name, None);
    }

    fn call(&mut self, site: &Site, statement: Arc<Statement>) {
        let name = site.name.as_slice().into();
        self.out.called.push((name, statement));
    }

    fn resolve(&self, name: &[u8]) -> Option<Arc<Statement>> {
        match self.overlay.get(name) {
            Some(known) => known.clone(),
            None if self.forgot => None,
            None => self.names?.get(name).cloned(),
        }
    }

    fn has(&mut self, id: StatementId) -> bool {
        let known = self.has.get(&id).copied();
        known.unwrap_or_else(|| !self.forgot && self.prepared.touch(id))
    }

    /// Sees to it that the server has the statement when it comes to this site.
    fn ensure(&mut self, text: &[u8], site: &Site, statement: &Arc<Statement>) {
        if self.has(statement.id) {
            return;
        }
        self.has.insert(statement.id, true);
        let identifier = statement.identifier();
        let Some(mut make) = statement.prepare_as(&identifier) else {
            self.out.parse_first.push(statement.clone());
            return;
        };
        // It may end in a comment.
        make.extend_from_slice(b"\n;");
        let written = chars(&text[site.written.clone()]);
        let longer = identifier.len() as isize - written as isize;
        let name_at = statement.name_at.unwrap_or(0);
        self.put_in(
            text,
            site,
            &make,
            Some((name_at + identifier.len(), longer)),
        );
        self.out.prepares += 1;
        self.out
            .done
            .push_back(Done::OwnPrepared(statement.clone()));
    }

    /// Puts a statement of ours in front of the client's. `longer`: from which byte of it on positions are by how much larger
    /// than those of the client's own text of it.
    fn put_in(&mut self, text: &[u8], site: &Site, ours: &[u8], longer: Option<(usize, isize)>) {
        self.copy_to(text, site.statement.start);
        let start = self.chars.1;
        let mut shift = |from, by| self.out.shifts.push(Shift { from, by });
        shift(start, start as isize);
        if let Some((from, longer)) = longer {
            shift(start + chars(&ours[..from]), start as isize + longer);
        }
        self.out.text.extend_from_slice(ours);
        self.chars.1 += chars(ours);
        self.shifted();
    }

    /// Writes this instead of the site's name.
    fn replace(&mut self, text: &[u8], site: &Site, name: &[u8]) {
        self.copy_to(text, site.written.start);
        self.out.text.extend_from_slice(name);
        self.chars.0 += chars(&text[site.written.clone()]);
        self.chars.1 += chars(name);
        self.copied = site.written.end;
        self.out.changed = true;
        self.shifted();
    }

    fn copy_to(&mut self, text: &[u8], end: usize) {
        let part = &text[self.copied..end];
        self.out.text.extend_from_slice(part);
        let count = chars(part);
        self.chars = (self.chars.0 + count, self.chars.1 + count);
        self.copied = end;
    }

    /// Positions behind here are shifted by what was put in so far.
    fn shifted(&mut self) {
        let by = self.chars.1 as isize - self.chars.0 as isize;
        let from = self.chars.1;
        self.out.shifts.push(Shift { from, by });
    }
}

/// One statement of the extended protocol that names a prepared one of the client's.
pub(crate) struct Naming {
    pub(crate) text: Vec<u8>,
    pub(crate) what: Use,
    pub(crate) name: Box<[u8]>,
    pub(crate) statement: Arc<Statement>,
    /// How positions in the text differ from those in the client's own.
    pub(crate) shift: Shift,
}

/// The text of a Parse with our name for one of these; `None` when it names none.
pub(crate) fn rewrite_one(names: &Statements, text: &[u8]) -> Option<Naming> {
    let sites = sites(text).ok()?;
    let [site] = sites.as_slice() else {
        return None;
    };
    let statement = names.get(&site.name)?.clone();
    Some(naming(text, site, statement))
}

/// The text of a Parse that is one PREPARE with our name for what it makes; `None` when it is none.
pub(crate) fn rewrite_prepare(source: Source<'_>, text: &[u8]) -> Option<Naming> {
    let sites = sites(text).ok()?;
    let [site] = sites.as_slice() else {
        return None;
    };
    let Use::Prepare { body } = site.what else {
        return None;
    };
    let statement = source.made(text, site, body);
    Some(naming(text, site, statement))
}

fn naming(text: &[u8], site: &Site, statement: Arc<Statement>) -> Naming {
    let (before, after) = (&text[..site.written.start], &text[site.written.end..]);
    let identifier = statement.identifier();
    let shift = Shift {
        from: chars(before) + identifier.len(),
        by: identifier.len() as isize - chars(&text[site.written.clone()]) as isize,
    };
    Naming {
        text: [before, &identifier, after].concat(),
        shift,
        what: site.what,
        name: site.name.as_slice().into(),
        statement,
    }
}

/// Characters of a text in UTF-8, by which servers count positions; bytes of any other.
fn chars(text: &[u8]) -> usize {
    std::str::from_utf8(text).map_or(text.len(), |text| text.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client with statements of SQL under these names, each with its text, and a server without any.
    struct Scene {
        store: Store,
        plans: Plans,
        names: Statements,
        prepared: Prepared,
    }

    impl Scene {
        fn new(prepares: &[&str]) -> Self {
            let mut scene = Self {
                store: Store::new(10),
                plans: Plans::default(),
                names: Statements::default(),
                prepared: Prepared::default(),
            };
            for text in prepares {
                for done in scene.rewrite(text).done {
                    if let Done::Prepared(name, statement) = done {
                        scene.names.set(&name, statement);
                    }
                }
            }
            scene
        }

        fn rewrite(&mut self, text: &str) -> Rewritten {
            let sites = sites(text.as_bytes()).unwrap();
            let source = Source {
                store: &self.store,
                plans: &self.plans,
                scope: None,
            };
            Rewriter::new(Some(&self.names), &mut self.prepared, source, true)
                .rewrite(text.as_bytes(), &sites)
        }

        fn text(&mut self, text: &str) -> String {
            String::from_utf8(self.rewrite(text).text).unwrap()
        }
    }

    #[test]
    fn names_become_ours_and_what_the_server_lacks_comes_before() {
        let mut scene = Scene::new(&["prepare a (int) as select $1 -- one"]);
        assert_eq!(
            scene.text("select 1; execute A(2)"),
            "select 1; prepare \"__pgdog_1\" (int) as select $1 -- one\n;execute \"__pgdog_1\"(2)"
        );
        scene.prepared.insert(StatementId::new(1));
        assert_eq!(scene.text("execute a(2)"), "execute \"__pgdog_1\"(2)");
        assert_eq!(
            scene.text("prepare b (int) as select $1 -- one"),
            "DEALLOCATE \"__pgdog_1\";prepare \"__pgdog_1\" (int) as select $1 -- one"
        );
        assert_eq!(scene.text("execute other"), "execute other");
    }

    #[test]
    fn what_a_text_does_to_names_counts_for_what_follows_in_it() {
        let mut scene = Scene::new(&["prepare a as select 1"]);
        scene.prepared.insert(StatementId::new(1));
        assert_eq!(
            scene.text("deallocate a; prepare a as select 2; execute a"),
            "deallocate \"__pgdog_1\"; prepare \"__pgdog_2\" as select 2; execute \"__pgdog_2\""
        );
        assert_eq!(
            scene.text("deallocate all; execute a"),
            "deallocate all; execute a"
        );
        assert_eq!(
            scene.text("prepare c as select 1; execute a"),
            "DEALLOCATE \"__pgdog_1\";prepare \"__pgdog_1\" as select 1; execute \"__pgdog_1\""
        );
    }

    #[test]
    fn a_name_in_use_stays_in_use() {
        let mut scene = Scene::new(&["prepare a as select 1"]);
        scene.prepared.insert(StatementId::new(1));
        let rewritten = scene.rewrite("prepare a as select 2");
        assert_eq!(rewritten.text, b"prepare \"__pgdog_1\" as select 2");
        assert!(matches!(rewritten.done[0], Done::Nothing));
    }

    #[test]
    fn deallocate_needs_no_statement_on_the_server() {
        let mut scene = Scene::new(&["prepare a as select * from gone"]);
        assert_eq!(
            scene.text("deallocate a"),
            "PREPARE \"__pgdog_none\" AS SELECT;deallocate \"__pgdog_none\""
        );
    }

    #[test]
    fn positions_are_those_of_the_clients_own_text() {
        let mut scene = Scene::new(&["prepare é as select x"]);
        let theirs = "select 1; execute é(y, z)";
        let ours = scene.rewrite(theirs);
        let text = String::from_utf8(ours.text.clone()).unwrap();
        let at = |text: &str, what: &str| {
            let byte = text.find(what).unwrap();
            text[..byte].chars().count() + 1
        };
        for what in ["select 1", "(y", "y,", "z)"] {
            assert_eq!(
                ours.position(at(&text, what)),
                at(theirs, what),
                "{what} of {text}"
            );
        }
        // Of the PREPARE that was put in: where the client's own PREPARE has it.
        assert_eq!(
            ours.position(at(&text, "x\n")),
            at("prepare é as select x", "x")
        );
    }
}
