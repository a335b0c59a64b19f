//! What kinds of statements a query string holds, as far as mirroring asks.

use crate::lexer::{Lexer, Token, statements};

/// A set of kinds, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kinds(u8);

impl Kinds {
    /// Statements that only read, and those that are about the session or the transaction.
    pub const NONE: Self = Self(0);
    /// Statements that change rows: what PostgreSQL's `log_statement = mod` adds to `ddl`, and those that may do so without
    /// saying it (`EXECUTE`, `CALL`, `DO`).
    pub const DML: Self = Self(1);
    /// Statements that change the schema: what PostgreSQL logs with `log_statement = ddl`.
    pub const DDL: Self = Self(1 << 1);
    /// Statements whose effect lies outside of their text: `COPY … FROM STDIN`, `LISTEN`, `UNLISTEN`.
    pub const UNREPEATABLE: Self = Self(1 << 2);

    /// Whether any of `other` is among them.
    #[must_use]
    pub const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The kinds of all statements of a query string. It looks at words: a statement may be taken for more than it is, as one
/// whose column is called `insert`.
#[must_use]
pub fn kinds(text: &[u8]) -> Kinds {
    statements(text).fold(Kinds::NONE, |all, statement| all.with(one(statement)))
}

fn one(statement: &[u8]) -> Kinds {
    let mut tokens = Lexer::new(statement);
    let Some(first) = tokens.next() else {
        return Kinds::NONE;
    };
    let Token::Word(word) = first else {
        // A query in parentheses.
        return within(tokens);
    };
    match word.to_ascii_lowercase().as_slice() {
        b"insert" | b"update" | b"delete" | b"merge" | b"truncate" | b"execute" | b"call"
        | b"do" => Kinds::DML,
        b"create" | b"alter" | b"drop" | b"comment" | b"grant" | b"revoke" | b"reassign"
        | b"security" | b"import" | b"refresh" | b"reindex" | b"cluster" => Kinds::DDL,
        b"select" | b"with" | b"explain" => within(tokens),
        b"copy" => copy(tokens),
        b"listen" | b"unlisten" => Kinds::UNREPEATABLE,
        _ => Kinds::NONE,
    }
}

/// Of a query: what its parts do, and whether it makes a table (`SELECT … INTO`).
fn within(tokens: Lexer<'_>) -> Kinds {
    let mut found = Kinds::NONE;
    for token in tokens {
        found = found.with(match token {
            t if ["insert", "update", "delete", "merge", "execute"]
                .iter()
                .any(|word| t.is(word)) =>
            {
                Kinds::DML
            }
            t if t.is("into") && !found.any(Kinds::DML) => Kinds::DDL,
            _ => Kinds::NONE,
        });
    }
    found
}

/// COPY changes rows when it reads; from the client it takes more than its text.
fn copy(tokens: Lexer<'_>) -> Kinds {
    let mut depth = 0;
    let mut from = false;
    for token in tokens {
        match token {
            Token::Symbol(b'(') => depth += 1,
            Token::Symbol(b')') => depth -= 1,
            t if depth == 0 && from => {
                return if t.is("stdin") {
                    Kinds::DML.with(Kinds::UNREPEATABLE)
                } else {
                    Kinds::DML
                };
            }
            t if depth == 0 => from = t.is("from"),
            _ => {}
        }
    }
    Kinds::NONE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Kinds {
        kinds(text.as_bytes())
    }

    #[test]
    fn statements_that_only_read_are_of_no_kind() {
        for text in [
            "",
            "select 1",
            "(select 1)",
            "begin; commit",
            "set x = 1",
            "show all",
            "with a as (select 1) select * from a",
            "copy t to stdout",
            "copy (select 1 from stdin) to stdout",
            "prepare x as insert into t values (1)",
            "select 'insert'",
        ] {
            assert_eq!(of(text), Kinds::NONE, "{text}");
        }
    }

    #[test]
    fn statements_that_change_rows_are_seen_wherever_they_stand() {
        for text in [
            "INSERT INTO t VALUES (1)",
            "/* x */ update t set a = 1",
            "select 1; delete from t",
            "with a as (delete from t returning 1) select * from a",
            "explain analyze insert into t select 1",
            "truncate t",
            "copy t from '/file'",
            "execute x(1)",
            "call p()",
        ] {
            assert_eq!(of(text), Kinds::DML, "{text}");
        }
    }

    #[test]
    fn statements_that_change_the_schema_are_seen() {
        for text in [
            "create table t ()",
            "begin; alter table t add a int; commit",
            "select 1 as a into t",
            "refresh materialized view v",
        ] {
            assert_eq!(of(text), Kinds::DDL, "{text}");
        }
        assert_eq!(
            of("create table t (); insert into t values (1)"),
            Kinds::DDL.with(Kinds::DML)
        );
    }

    #[test]
    fn what_cannot_be_repeated_from_its_text_is_seen() {
        for text in [
            "copy t from stdin",
            "COPY t (a, b) FROM STDIN WITH (FORMAT csv)",
            "listen x",
            "select 1; unlisten *",
        ] {
            assert!(of(text).any(Kinds::UNREPEATABLE), "{text}");
        }
    }
}
