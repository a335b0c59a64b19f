//! Where a query string names prepared statements: PREPARE, EXECUTE and DEALLOCATE, also within EXPLAIN and CREATE TABLE AS.

use std::ops::Range;

use crate::lexer::{Lexer, Token, skip_blank, statements};

/// PostgreSQL cuts longer names (`NAMEDATALEN`).
const NAME_MAX: usize = 63;

/// What a statement does with the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// PREPARE; the text of the statement itself begins at `body`.
    Prepare {
        /// A position in the query string.
        body: usize,
    },
    /// EXECUTE, alone or within another statement.
    Execute,
    /// DEALLOCATE of one.
    Deallocate,
    /// DEALLOCATE ALL or DISCARD ALL: there is no name.
    ForgetAll,
}

/// A statement that names a prepared one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// What it does.
    pub what: Use,
    /// Where the statement stands in the query string, without its semicolon.
    pub statement: Range<usize>,
    /// Where the name stands.
    pub written: Range<usize>,
    /// The name that it means.
    pub name: Vec<u8>,
}

/// A name is written in a way that only the server reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unclear;

/// All sites of a query string, in order. Statements that PostgreSQL will not understand are none.
///
/// # Errors
///
/// [`Unclear`] when a name has escapes (`U&"…"`) or more bytes than PostgreSQL keeps.
pub fn sites(text: &[u8]) -> Result<Vec<Site>, Unclear> {
    let mut found = Vec::new();
    let mut from = 0;
    for statement in statements(text) {
        // Statements come in order, and each is a part of the text.
        let start = from + skip_to(&text[from..], statement);
        from = start + statement.len();
        if let Some(site) = site(statement, start)? {
            found.push(site);
        }
    }
    Ok(found)
}

/// Where `part`, a slice of `text`, begins in it.
fn skip_to(text: &[u8], part: &[u8]) -> usize {
    (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize)
}

/// A token and where it stands in its statement.
#[derive(Debug, Clone)]
struct Placed<'a> {
    token: Token<'a>,
    at: Range<usize>,
}

#[derive(Debug, Clone)]
struct Cursor<'a> {
    text: &'a [u8],
    lexer: Lexer<'a>,
}

impl<'a> Cursor<'a> {
    fn next(&mut self) -> Option<Placed<'a>> {
        let start = skip_blank(self.text, self.lexer.position());
        let token = self.lexer.next()?;
        Some(Placed {
            token,
            at: start..self.lexer.position(),
        })
    }

    /// Past the closing parenthesis of the one that was just read.
    fn skip_parentheses(&mut self) {
        let mut depth = 1;
        while depth > 0 {
            match self.next().map(|p| p.token) {
                Some(Token::Symbol(b'(')) => depth += 1,
                Some(Token::Symbol(b')')) => depth -= 1,
                Some(_) => {}
                None => return,
            }
        }
    }
}

fn site(statement: &[u8], start: usize) -> Result<Option<Site>, Unclear> {
    let mut cursor = Cursor {
        text: statement,
        lexer: Lexer::new(statement),
    };
    let Some(first) = cursor.next() else {
        return Ok(None);
    };
    let whole = start..start + statement.len();
    let forget_all = Site {
        what: Use::ForgetAll,
        statement: whole.clone(),
        written: start..start,
        name: Vec::new(),
    };
    let found = if first.token.is("prepare") {
        prepared(&cursor)
    } else if first.token.is("execute") {
        cursor.next().map(|name| (Use::Execute, name))
    } else if first.token.is("deallocate") {
        match deallocated(&mut cursor) {
            Some(name) if name.token.is("all") => return Ok(Some(forget_all)),
            name => name.map(|name| (Use::Deallocate, name)),
        }
    } else if first.token.is("discard") {
        let all = cursor.next().is_some_and(|p| p.token.is("all"));
        return Ok(all.then_some(forget_all));
    } else if first.token.is("explain") {
        explained(&mut cursor).map(|name| (Use::Execute, name))
    } else if first.token.is("create") {
        created(&mut cursor).map(|name| (Use::Execute, name))
    } else {
        None
    };
    let Some((what, placed)) = found else {
        return Ok(None);
    };
    let Some(name) = read_name(statement, &placed)? else {
        return Ok(None);
    };
    let what = match what {
        Use::Prepare { body } => Use::Prepare { body: start + body },
        other => other,
    };
    Ok(Some(Site {
        what,
        statement: whole,
        written: start + placed.at.start..start + placed.at.end,
        name,
    }))
}

/// `PREPARE name [(types)] AS …`; PREPARE TRANSACTION is another thing.
fn prepared<'a>(cursor: &Cursor<'a>) -> Option<(Use, Placed<'a>)> {
    let mut cursor = cursor.clone();
    let name = cursor.next()?;
    let mut next = cursor.next()?;
    if next.token == Token::Symbol(b'(') {
        cursor.skip_parentheses();
        next = cursor.next()?;
    }
    if !next.token.is("as") {
        return None;
    }
    let body = cursor.next()?.at.start;
    Some((Use::Prepare { body }, name))
}

/// `DEALLOCATE [PREPARE] name`; PREPARE may be the name.
fn deallocated<'a>(cursor: &mut Cursor<'a>) -> Option<Placed<'a>> {
    let first = cursor.next()?;
    if first.token.is("prepare")
        && let Some(second) = cursor.next()
    {
        return Some(second);
    }
    Some(first)
}

/// `EXPLAIN [ANALYZE] [VERBOSE] [(options)] EXECUTE name`
fn explained<'a>(cursor: &mut Cursor<'a>) -> Option<Placed<'a>> {
    loop {
        let next = cursor.next()?.token;
        if next.is("execute") {
            return cursor.next();
        }
        if next == Token::Symbol(b'(') {
            cursor.skip_parentheses();
        } else if next.is("create") {
            return created(cursor);
        } else if !["analyze", "analyse", "verbose"].iter().any(|w| next.is(w)) {
            return None;
        }
    }
}

/// `CREATE … TABLE … AS EXECUTE name`
fn created<'a>(cursor: &mut Cursor<'a>) -> Option<Placed<'a>> {
    let kinds = ["temp", "temporary", "local", "global", "unlogged"];
    loop {
        let next = cursor.next()?.token;
        if next.is("table") {
            break;
        }
        if !kinds.iter().any(|kind| next.is(kind)) {
            return None;
        }
    }
    loop {
        let next = cursor.next()?.token;
        if next == Token::Symbol(b'(') {
            cursor.skip_parentheses();
        } else if next.is("as") {
            return cursor
                .next()?
                .token
                .is("execute")
                .then(|| cursor.next())
                .flatten();
        }
    }
}

/// The name that a token means; `None` when it cannot be one.
fn read_name(statement: &[u8], placed: &Placed<'_>) -> Result<Option<Vec<u8>>, Unclear> {
    let escaped = matches!(placed.token, Token::Quoted(_)) && statement[placed.at.start] != b'"';
    if let Token::Word(word) = placed.token
        && RESERVED.contains(&&*String::from_utf8_lossy(word).to_ascii_lowercase())
    {
        return Ok(None);
    }
    match placed.token.name() {
        Some(name) if escaped || name.len() > NAME_MAX => {
            drop(name);
            Err(Unclear)
        }
        // `""` is an error, and so is a quote without its end.
        Some(name) if name.is_empty() => Ok(None),
        name => Ok(name),
    }
}

/// Words that are no names unless quoted: reserved, or for types and functions only (`src/include/parser/kwlist.h`).
#[rustfmt::skip]
const RESERVED: &[&str] = &[
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "authorization", "binary", "both", "case",
    "cast", "check", "collate", "collation", "column", "concurrently", "constraint", "create", "cross", "current_catalog",
    "current_date", "current_role", "current_schema", "current_time", "current_timestamp", "current_user", "default",
    "deferrable", "desc", "distinct", "do", "else", "end", "except", "false", "fetch", "for", "foreign", "freeze", "from",
    "full", "grant", "group", "having", "ilike", "in", "initially", "inner", "intersect", "into", "is", "isnull", "join",
    "lateral", "leading", "left", "like", "limit", "localtime", "localtimestamp", "natural", "not", "notnull", "null",
    "offset", "on", "only", "or", "order", "outer", "overlaps", "placing", "primary", "references", "returning", "right",
    "select", "session_user", "similar", "some", "symmetric", "system_user", "table", "tablesample", "then", "to", "trailing",
    "true", "union", "unique", "user", "using", "variadic", "verbose", "when", "where", "window", "with",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// What is done with which name.
    fn found(text: &str) -> Vec<(String, String)> {
        sites(text.as_bytes())
            .unwrap()
            .into_iter()
            .map(|site| {
                let what = match site.what {
                    Use::Prepare { body } => text[body..site.statement.end].to_owned(),
                    other => format!("{other:?}"),
                };
                (what, String::from_utf8(site.name).unwrap())
            })
            .collect()
    }

    fn one(text: &str, what: &str, name: &str) {
        assert_eq!(found(text), [(what.to_owned(), name.to_owned())], "{text}");
    }

    #[test]
    fn each_form_is_found_with_the_name_it_means() {
        one("PREPARE Foo AS select 1", "select 1", "foo");
        one(
            "prepare \"Fo\"\"o\"(int, text) as\n select $1;",
            "select $1",
            "Fo\"o",
        );
        one("prepare transaction as select 1", "select 1", "transaction");
        one("/* x */ execute a(1, 'b;')", "Execute", "a");
        one("execute\"A\"", "Execute", "A");
        one("explain (costs off, analyze) execute a", "Execute", "a");
        one("EXPLAIN ANALYZE VERBOSE EXECUTE a(1)", "Execute", "a");
        one(
            "create temp table if not exists t (a, b) with (fillfactor = 10) as execute a with no data",
            "Execute",
            "a",
        );
        one("deallocate prepare a", "Deallocate", "a");
        one("deallocate prepare", "Deallocate", "prepare");
        one("deallocate \"all\"", "Deallocate", "all");
        one("deallocate prepare all", "ForgetAll", "");
        one("discard all", "ForgetAll", "");
        one("prepare été as select 1", "select 1", "été");
    }

    #[test]
    fn what_only_looks_alike_is_not_found() {
        for text in [
            "prepare transaction 'x'",
            "prepare select as select 1",
            "prepare a select 1",
            "execute all",
            "grant execute on function f() to x",
            "create trigger t after insert on x execute function f()",
            "create view v as select 1 as execute from x",
            "create function f() returns int language sql as 'execute a'",
            "create table t as select execute a from x",
            "explain select 'execute a'",
            "select execute a",
            "execute",
            "execute 'a'",
            "discard plans",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }

    #[test]
    fn places_are_those_in_the_whole_text() {
        let text = " select 1;  execute abc(1) ; prepare  \"x\" as select 2 -- end";
        let sites = sites(text.as_bytes()).unwrap();
        let written: Vec<_> = sites.iter().map(|s| &text[s.written.clone()]).collect();
        assert_eq!(written, ["abc", "\"x\""]);
        let whole: Vec<_> = sites.iter().map(|s| &text[s.statement.clone()]).collect();
        assert_eq!(
            whole,
            ["execute abc(1) ", "prepare  \"x\" as select 2 -- end"]
        );
    }

    #[test]
    fn names_that_only_the_server_reads_are_unclear() {
        let long = format!("execute {}", "a".repeat(64));
        for text in [&*long, "prepare U&\"a\" as select 1", "deallocate u&\"a\""] {
            assert_eq!(sites(text.as_bytes()), Err(Unclear), "{text}");
        }
    }
}
