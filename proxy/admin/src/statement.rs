//! From the tokens of one command to what is to be done: a command of the console, or one of those things that drivers say
//! to any server.

use crate::answer::{Refusal, syntax, unsupported};
use crate::command::{Args, COMMANDS, Command, MISSING};
use crate::lexer::Token;
use crate::table::{Column, Value};

/// What one command asks for.
#[derive(Debug)]
pub(crate) enum Statement {
    /// Nothing.
    Empty,
    /// A command of the console.
    Run(Run),
    /// A value that drivers ask servers for.
    Value {
        column: Column,
        value: Value,
        tag: &'static str,
    },
    /// A setting of the session, by its name in small letters.
    Setting(&'static str),
    /// Something about transactions. There is nothing here that could be rolled back.
    Transaction(Transaction, &'static str),
    /// Something that makes no difference here; its tag.
    Accepted(&'static str),
}

/// A command of the console with what stands behind its name.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) command: &'static dyn Command,
    pub(crate) args: Vec<Token>,
    /// The columns that are wanted, by their place in the command's.
    pub(crate) picked: Vec<usize>,
}

/// A change of the transaction's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transaction {
    Begin,
    /// COMMIT or ROLLBACK.
    End,
    /// ROLLBACK TO a savepoint.
    Back,
}

/// Settings of sessions that drivers set. They say how values are written, or limit statements, and make no difference here.
const SETTINGS: &[&str] = &[
    "application_name",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "extra_float_digits",
    "geqo",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "intervalstyle",
    "is_superuser",
    "jit",
    "lc_messages",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "lock_timeout",
    "names",
    "role",
    "row_security",
    "search_path",
    "server_encoding",
    "server_version",
    "server_version_num",
    "session_authorization",
    "standard_conforming_strings",
    "statement_timeout",
    "synchronous_commit",
    "time",
    "timezone",
    "transaction",
    "transaction_isolation",
    "transaction_read_only",
];

/// What queries begin with.
const QUERIES: &[&str] = &[
    "SELECT", "WITH", "INSERT", "UPDATE", "DELETE", "MERGE", "TABLE", "VALUES", "COPY", "EXPLAIN",
    "CREATE", "ALTER", "DROP", "GRANT", "REVOKE", "TRUNCATE", "VACUUM", "ANALYZE", "DECLARE",
    "FETCH", "CALL", "DO", "PREPARE", "EXECUTE", "LISTEN", "NOTIFY", "LOCK", "COMMENT",
];

/// Things that drivers say and that make no difference here: the words, and the tag of the answer.
const ACCEPTED: &[(&[&str], &str)] = &[
    (&["DISCARD"], "DISCARD"),
    (&["DEALLOCATE"], "DEALLOCATE"),
    (&["CLOSE"], "CLOSE CURSOR"),
    (&["UNLISTEN"], "UNLISTEN"),
    (&["RESET", "ALL"], "RESET"),
    (&["SAVEPOINT"], "SAVEPOINT"),
    (&["RELEASE"], "RELEASE"),
];

/// Reads one command.
pub(crate) fn parse(tokens: &[Token]) -> Result<Statement, Refusal> {
    let Some(first) = tokens.first() else {
        return Ok(Statement::Empty);
    };
    if let Some(statement) = transaction(tokens).or_else(|| accepted(tokens)) {
        return Ok(statement);
    }
    if first.is("SET") && session_setting(tokens).is_some() {
        return Ok(Statement::Accepted("SET"));
    }
    if let Some(missing) = MISSING
        .iter()
        .rev()
        .find(|m| begins(tokens, m.name).is_some())
    {
        return Err(missing.refusal());
    }
    if let Some(run) = command(tokens)? {
        return Ok(Statement::Run(run));
    }
    if let Some(statement) = value(tokens) {
        return Ok(statement);
    }
    Err(unknown(tokens))
}

/// The tokens behind the words of a name, when they begin with it.
fn begins<'t>(tokens: &'t [Token], name: &str) -> Option<&'t [Token]> {
    let mut rest = tokens;
    for word in name.split(' ') {
        let (first, after) = rest.split_first()?;
        if !first.is(word) {
            return None;
        }
        rest = after;
    }
    Some(rest)
}

fn transaction(tokens: &[Token]) -> Option<Statement> {
    let first = &tokens[0];
    let is = |words: &[&str]| words.iter().any(|word| first.is(word));
    if is(&["BEGIN", "START"]) {
        return Some(Statement::Transaction(Transaction::Begin, "BEGIN"));
    }
    if first.is("ROLLBACK") && tokens.iter().any(|token| token.is("TO")) {
        return Some(Statement::Transaction(Transaction::Back, "ROLLBACK"));
    }
    if is(&["ROLLBACK", "ABORT"]) {
        return Some(Statement::Transaction(Transaction::End, "ROLLBACK"));
    }
    is(&["COMMIT", "END"]).then_some(Statement::Transaction(Transaction::End, "COMMIT"))
}

fn accepted(tokens: &[Token]) -> Option<Statement> {
    let begins = |words: &[&str]| {
        let pairs = words.iter().zip(tokens);
        words.len() <= tokens.len() && pairs.into_iter().all(|(word, token)| token.is(word))
    };
    if tokens[0].is("RESET") && tokens.len() == 2 && setting_name(&tokens[1]).is_some() {
        return Some(Statement::Accepted("RESET"));
    }
    let found = ACCEPTED.iter().find(|(words, _)| begins(words))?;
    Some(Statement::Accepted(found.1))
}

/// The setting of a session that a SET is about.
fn session_setting(tokens: &[Token]) -> Option<&'static str> {
    let mut names = tokens[1..].iter();
    let mut name = names.next()?;
    // SET SESSION AUTHORIZATION and CHARACTERISTICS are of a session as well.
    if name.is("SESSION") || name.is("LOCAL") {
        name = names.next()?;
        if name.is("AUTHORIZATION") || name.is("CHARACTERISTICS") {
            return Some("session");
        }
    }
    setting_name(name)
}

fn setting_name(token: &Token) -> Option<&'static str> {
    let name = token.content()?;
    SETTINGS
        .iter()
        .find(|known| known.eq_ignore_ascii_case(name))
        .copied()
}

/// The command with the longest name that the tokens begin with.
fn command(tokens: &[Token]) -> Result<Option<Run>, Refusal> {
    let found = COMMANDS
        .iter()
        .filter_map(|c| Some((*c, begins(tokens, c.name())?)))
        .min_by_key(|(_, rest)| rest.len());
    let Some((command, rest)) = found else {
        return Ok(None);
    };
    let all = 0..command.columns().len();
    let picked = if command.is_view() && !rest.is_empty() && !command.is_filter(Args(rest)) {
        columns(command, rest)?
    } else {
        all.collect()
    };
    let args = rest.to_vec();
    Ok(Some(Run {
        command,
        args,
        picked,
    }))
}

/// The columns of a list behind the name of a view.
fn columns(command: &dyn Command, list: &[Token]) -> Result<Vec<usize>, Refusal> {
    let mut picked = Vec::new();
    for item in list.split(|token| *token == Token::Sign(',')) {
        let [Token::Word(name) | Token::Quoted(name)] = item else {
            let error = syntax(format!("syntax error in the columns of {}", command.name()));
            return Err(error.hint(format!(
                "They are written {} column, column.",
                command.name()
            )));
        };
        let columns = command.columns();
        let place = columns
            .iter()
            .position(|c| c.name.eq_ignore_ascii_case(name));
        picked.push(place.ok_or_else(|| no_column(command, name))?);
    }
    Ok(picked)
}

/// `undefined_column`.
const UNDEFINED_COLUMN: &str = "42703";

fn no_column(command: &dyn Command, name: &str) -> Refusal {
    let text = format!("{} has no column \"{name}\"", command.name());
    let error = Refusal::new(UNDEFINED_COLUMN, text);
    let names = || command.columns().iter().map(|c| c.name);
    match pgdog_config::nearest(&name.to_ascii_lowercase(), names()) {
        Some(near) => error.hint(format!("Perhaps you meant \"{near}\".")),
        None => {
            let names: Vec<_> = names().collect();
            error.hint(format!("It has {}.", names.join(", ")))
        }
    }
}

/// The few queries that drivers and pools send to find out whether and to what they are connected.
fn value(tokens: &[Token]) -> Option<Statement> {
    let word = |at: usize| tokens.get(at).and_then(Token::content);
    if tokens[0].is("SHOW") {
        if begins(tokens, "SHOW TRANSACTION ISOLATION LEVEL").is_some() {
            return Some(Statement::Setting("transaction_isolation"));
        }
        if begins(tokens, "SHOW TIME ZONE").is_some() {
            return Some(Statement::Setting("timezone"));
        }
        return (tokens.len() == 2).then(|| setting_name(&tokens[1]).map(Statement::Setting))?;
    }
    if !tokens[0].is("SELECT") {
        return None;
    }
    let answer = |column: Column, value: Value| {
        Some(Statement::Value {
            column,
            value,
            tag: "SELECT 1",
        })
    };
    if let (2, Some(Token::Word(number))) = (tokens.len(), tokens.get(1)) {
        let number: i64 = number.parse().ok()?;
        return answer(Column::int("?column?", "A number."), number.into());
    }
    let call: Vec<_> = tokens[1..].iter().skip(1).collect();
    let function = word(1)?.to_ascii_lowercase();
    let function = function.strip_prefix("pg_catalog.").unwrap_or(&function);
    match (function, &call[..]) {
        ("version", [Token::Sign('('), Token::Sign(')')]) => {
            let text = concat!(
                "PostgreSQL 15.0 (admin console of pgdog ",
                env!("CARGO_PKG_VERSION"),
                ")"
            );
            answer(Column::text("version", "A version."), text.into())
        }
        // Drivers' pools say it when they take a connection back.
        ("pg_advisory_unlock_all", [Token::Sign('('), Token::Sign(')')]) => answer(
            Column::text("pg_advisory_unlock_all", "Nothing."),
            "".into(),
        ),
        ("current_schema", [Token::Sign('('), Token::Sign(')')]) => {
            answer(Column::text("current_schema", "A schema."), "public".into())
        }
        ("set_config", [Token::Sign('('), name, Token::Sign(','), value, ..])
            if setting_name(name).is_some() =>
        {
            let value = value.content()?.to_owned();
            answer(Column::text("set_config", "The new value."), value.into())
        }
        _ => None,
    }
}

fn unknown(tokens: &[Token]) -> Refusal {
    if QUERIES.iter().any(|word| tokens[0].is(word)) {
        let error = unsupported("the admin console answers commands, not queries");
        return error.hint("SHOW HELP lists the commands. For SQL, connect to one of the databases in SHOW DATABASES.");
    }
    let words: Vec<_> = tokens.iter().take(2).filter_map(Token::content).collect();
    let written = words.join(" ").to_ascii_uppercase();
    let first = words
        .first()
        .copied()
        .unwrap_or_default()
        .to_ascii_uppercase();
    let names = || COMMANDS.iter().map(|c| c.name());
    let near =
        pgdog_config::nearest(&written, names()).or_else(|| pgdog_config::nearest(&first, names()));
    let shown = tokens[0].content().map_or_else(
        || "a sign".to_owned(),
        |_| format!("\"{}\"", words.join(" ")),
    );
    let error = syntax(format!("unknown command: it begins with {shown}"));
    match near {
        Some(near) => error.hint(format!(
            "Perhaps you meant {near}; SHOW HELP lists the commands."
        )),
        None => error.hint("SHOW HELP lists the commands."),
    }
}

#[cfg(test)]
mod tests {
    use pgdog_wire::sqlstate;

    use super::*;
    use crate::lexer::commands;

    fn read(sql: &str) -> Result<Statement, Refusal> {
        parse(&commands(sql).unwrap()[0])
    }

    fn run(sql: &str) -> (&'static str, usize) {
        match read(sql) {
            Ok(Statement::Run(run)) => (run.command.name(), run.args.len()),
            other => panic!("{sql}: {other:?}"),
        }
    }

    fn refused(sql: &str) -> (String, String) {
        let error = read(sql).unwrap_err();
        (error.code.clone(), error.hint.clone().unwrap_or_default())
    }

    #[test]
    fn keywords_have_no_case_and_the_longest_name_counts() {
        assert_eq!(run("show Stats_Totals"), ("SHOW STATS_TOTALS", 0));
        assert_eq!(run("kill_client 5"), ("KILL_CLIENT", 1));
        assert_eq!(run("reset prepared"), ("RESET PREPARED", 0));
        assert_eq!(run("set query_timeout = 5"), ("SET", 3));
    }

    #[test]
    fn columns_are_chosen_by_name() {
        let Ok(Statement::Run(found)) = read("SHOW CLIENTS user, State") else {
            panic!("it is a view");
        };
        assert_eq!(found.picked, [1, 5]);
        let (code, hint) = refused("show clients usr");
        assert_eq!(code, UNDEFINED_COLUMN);
        assert!(hint.contains("\"user\""), "{hint}");
        assert_eq!(refused("show clients user,").0, sqlstate::SYNTAX_ERROR);
    }

    #[test]
    fn what_drivers_say_is_accepted() {
        for sql in [
            "SET application_name = 'x'",
            "set session characteristics as transaction read only",
            "SET DateStyle TO ISO, MDY",
            "SET TIME ZONE 'UTC'",
            "set names 'utf8'",
            "RESET ALL",
            "reset search_path",
            "DISCARD ALL",
            "UNLISTEN *",
            "CLOSE ALL",
        ] {
            assert!(matches!(read(sql), Ok(Statement::Accepted(_))), "{sql}");
        }
        for sql in [
            "SELECT 1",
            "select version()",
            "SELECT pg_catalog.version()",
            "select set_config('search_path', '', false)",
        ] {
            assert!(matches!(read(sql), Ok(Statement::Value { .. })), "{sql}");
        }
        for sql in [
            "SHOW client_encoding",
            "show transaction isolation level",
            "SHOW server_version",
        ] {
            assert!(matches!(read(sql), Ok(Statement::Setting(_))), "{sql}");
        }
        for (sql, which) in [
            ("BEGIN ISOLATION LEVEL SERIALIZABLE", Transaction::Begin),
            ("start transaction", Transaction::Begin),
            ("commit", Transaction::End),
            ("rollback to savepoint a", Transaction::Back),
        ] {
            assert!(
                matches!(read(sql), Ok(Statement::Transaction(t, _)) if t == which),
                "{sql}"
            );
        }
    }

    #[test]
    fn the_nearest_command_is_named() {
        let (code, hint) = refused("SHOW POLS");
        assert_eq!(code, sqlstate::SYNTAX_ERROR);
        assert!(hint.contains("SHOW POOLS"), "{hint}");
        assert!(refused("PAUZE app").1.contains("PAUSE"));
        assert!(refused("RELAOD").1.contains("RELOAD"));
        assert_eq!(refused(", x").0, sqlstate::SYNTAX_ERROR);
    }

    #[test]
    fn queries_and_what_is_missing_are_refused_with_the_reason() {
        for sql in [
            "SELECT n.nspname FROM pg_catalog.pg_class c",
            "create table t ()",
            "SUSPEND",
            "copy_data a b c",
            "show tasks",
            "SHOW FDS",
        ] {
            assert_eq!(refused(sql).0, sqlstate::FEATURE_NOT_SUPPORTED, "{sql}");
        }
    }
}
