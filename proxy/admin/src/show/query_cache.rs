//! `SHOW QUERY_CACHE`.

use crate::admin::Admin;
use crate::answer::Answer;
use crate::command::{Args, Command, Running, Show};
use crate::lexer::Token;
use crate::row;
use crate::table::{Column, Value};

pub(crate) const SHOW: Show = Show {
    name: "SHOW QUERY_CACHE",
    help: "Queries of databases with several hosts as they are remembered, without their constants, those that are asked for most first; SHOW QUERY_CACHE 'text' gives those with the text in them.",
    columns: COLUMNS,
    rows,
};

const COLUMNS: &[Column] = &[
    Column::text("query", "The text without constants; long ones are cut."),
    Column::count("hits", "Times it was known already."),
    Column::count("direct", "Not counted: there is no sharding yet."),
    Column::count("multi", "Not counted: there is no sharding yet."),
    Column::int("parse_time", "Time that reading it took, µs."),
    Column::text(
        "route",
        "Where it may run, functions left out of account: primary, read or anywhere.",
    ),
    Column::text("reason", "Why there."),
];

/// `SHOW QUERY_CACHE ['text' | column, …]`.
#[derive(Debug)]
pub(crate) struct QueryCache;

/// Whether what stands behind the name is a text to look for, and no list of columns.
fn is_filter(args: &[Token]) -> bool {
    let column = |name: &str| COLUMNS.iter().any(|c| c.name.eq_ignore_ascii_case(name));
    match args {
        [Token::Text(_)] => true,
        [Token::Word(name) | Token::Quoted(name)] => !column(name),
        _ => false,
    }
}

impl Command for QueryCache {
    fn name(&self) -> &'static str {
        SHOW.name
    }

    fn usage(&self) -> &'static str {
        SHOW.name
    }

    fn help(&self) -> &'static str {
        SHOW.help
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn is_view(&self) -> bool {
        true
    }

    fn is_filter(&self, args: Args<'_>) -> bool {
        is_filter(args.0)
    }

    fn run<'a>(&'a self, admin: &'a Admin, args: Args<'a>) -> Running<'a> {
        Box::pin(async move {
            let mut rows = rows(admin);
            if is_filter(args.0) {
                let wanted = args.0[0].content().unwrap_or_default().to_lowercase();
                rows.retain(|row| has(row, &wanted));
            }
            Ok(Answer::rows(rows))
        })
    }
}

/// Whether a row's query has a text in small letters in it.
fn has(row: &[Value], wanted: &str) -> bool {
    let query = row.first().and_then(Value::as_text);
    query.is_some_and(|query| query.to_lowercase().contains(wanted))
}

fn rows(admin: &Admin) -> Vec<Vec<Value>> {
    let mut entries: Vec<_> = admin.runtime.planner.entries().collect();
    entries.sort_by(|a, b| b.hits.cmp(&a.hits).then_with(|| a.text.cmp(&b.text)));
    let mut rows = Vec::with_capacity(entries.len());
    for entry in entries {
        let (place, why) = entry.facts.without_functions();
        rows.push(row![
            entry.text,
            entry.hits,
            Value::Null,
            Value::Null,
            entry.parse_nanoseconds / 1000,
            place.to_string(),
            why.to_string(),
        ]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lexer::commands;

    #[test]
    fn a_text_is_looked_for_and_names_of_columns_are_columns() {
        let filter = |sql: &str| is_filter(&commands(sql).unwrap().remove(0));
        assert!(filter("'hits'") && filter("orders"));
        assert!(!filter("hits") && !filter("query, hits") && !filter(""));
    }
}
