//! SET and RESET: which setting they change, and how to say it again on another server.

use crate::lexer::{Lexer, Token};

/// What one SET or RESET does to the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// Gives one setting a value; saying the same statement again elsewhere has the same effect.
    Set {
        /// The setting's name in lower case, as `pg_settings` writes it but for case.
        name: String,
    },
    /// Puts one setting back to what it was at login.
    Reset {
        /// The setting's name in lower case.
        name: String,
    },
    /// Puts all settings back.
    ResetAll,
    /// Ends with the transaction.
    Local,
}

/// Reads one statement. `None` when it is a SET whose effect must be asked of the server, or no SET at all.
#[must_use]
pub fn read(statement: &[u8]) -> Option<Setting> {
    let mut tokens = Lexer::new(statement).peekable();
    let first = tokens.next()?;
    if first.is("reset") {
        return read_reset(tokens);
    }
    if !first.is("set") {
        return None;
    }
    let mut token = tokens.next()?;
    let mut session = false;
    if token.is("local") || token.is("constraints") || token.is("transaction") {
        return Some(Setting::Local);
    }
    if token.is("session") {
        session = true;
        token = tokens.next()?;
        if token.is("authorization") {
            // Also changes the role: the server knows what follows.
            return None;
        }
    }
    let name = if token.is("time") && tokens.peek().is_some_and(|t| t.is("zone")) {
        "timezone".to_owned()
    } else if token.is("names") {
        "client_encoding".to_owned()
    } else if token.is("role") {
        "role".to_owned()
    } else if session && token.is("characteristics") || token.is("xml") {
        return None;
    } else {
        let name = dotted(token, &mut tokens)?;
        if !matches!(tokens.next()?, Token::Symbol(b'=')) && !assigns(statement) {
            return None;
        }
        if matches!(
            name.as_str(),
            "transaction_isolation" | "transaction_read_only" | "transaction_deferrable"
        ) {
            return Some(Setting::Local);
        }
        name
    };
    if Lexer::new(statement)
        .last()
        .is_some_and(|t| t.is("default"))
    {
        return Some(Setting::Reset { name });
    }
    Some(Setting::Set { name })
}

/// `SET name TO …` rather than `SET name …`.
fn assigns(statement: &[u8]) -> bool {
    Lexer::new(statement).any(|t| t.is("to"))
}

fn read_reset<'a>(mut tokens: std::iter::Peekable<Lexer<'a>>) -> Option<Setting> {
    let token = tokens.next()?;
    if token.is("all") {
        return Some(Setting::ResetAll);
    }
    if token.is("session") {
        return None;
    }
    if token.is("time") {
        return Some(Setting::Reset {
            name: "timezone".to_owned(),
        });
    }
    let name = dotted(token, &mut tokens)?;
    Some(match name.as_str() {
        "transaction_isolation" | "transaction_read_only" | "transaction_deferrable" => {
            Setting::Local
        }
        _ => Setting::Reset { name },
    })
}

/// `a.b.c`, folded to lower case: names of settings are compared without regard to case even when quoted.
fn dotted<'a>(first: Token<'a>, tokens: &mut std::iter::Peekable<Lexer<'a>>) -> Option<String> {
    let mut name = String::from_utf8(first.name()?).ok()?;
    while tokens.next_if(|t| *t == Token::Symbol(b'.')).is_some() {
        name.push('.');
        name.push_str(&String::from_utf8(tokens.next()?.name()?).ok()?);
    }
    Some(name.to_ascii_lowercase())
}

/// Calls longer than this count as not local: calls within calls must not make reading slow.
const LOCAL_CALL_MAX: usize = 100;

/// Names with a dot that a text sets: by SET, or as a literal first argument of set_config.
#[must_use]
pub fn custom_names(text: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut tokens = Lexer::new(text).peekable();
    while let Some(token) = tokens.next() {
        if token.is("set") || token.is("local") || token.is("session") {
            if let Some(name) = tokens
                .peek()
                .copied()
                .filter(|t| !t.is("local") && !t.is("session"))
                .and_then(|first| {
                    tokens.next();
                    dotted(first, &mut tokens)
                })
                && name.contains('.')
            {
                names.push(name);
            }
        } else if token.is("set_config") && tokens.next_if(|t| *t == Token::Symbol(b'(')).is_some()
        {
            names.extend(tokens.peek().and_then(literal_name));
        }
    }
    names
}

/// The name in a plain string literal.
fn literal_name(token: &Token<'_>) -> Option<String> {
    let Token::Literal(text) = token else {
        return None;
    };
    let inner = text.strip_prefix(b"'")?.strip_suffix(b"'")?;
    let name = std::str::from_utf8(inner).ok()?;
    (name.contains('.') && !name.contains(['\\', '\''])).then(|| name.to_ascii_lowercase())
}

/// Whether the first argument of a set_config, after whose name `rest` begins, is a plain literal.
#[must_use]
pub fn names_literally(mut rest: Lexer<'_>) -> bool {
    rest.next() == Some(Token::Symbol(b'(')) && matches!(rest.next(), Some(Token::Literal(_)))
}

/// Encodings in which a byte of a character may look like a backslash or a quote (PostgreSQL: those of clients alone).
const BLURRED: [&str; 10] = [
    "sjis", "shiftjis", "mskanji", "big5", "gbk", "uhc", "johab", "gb18030", "win9", "windows9",
];

/// The setting of this name, if some values of it are such that texts mean what is not seen in them, see [`hides`]. `names` is that
/// of the encoding in SET NAMES.
#[must_use]
pub fn hiding_name(name: &str) -> Option<&'static str> {
    [
        "search_path",
        "standard_conforming_strings",
        "client_encoding",
        "names",
        "seed",
    ]
    .into_iter()
    .find(|hiding| name.eq_ignore_ascii_case(hiding))
}

/// Whether with this value of a setting texts mean what is not seen in them: tables are temporary, quotes end elsewhere. Or it
/// cannot be asked for, and set again it would not mean the same (the seed of random numbers).
#[must_use]
pub fn hides(name: &str, value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    match name.to_ascii_lowercase().as_str() {
        "search_path" => value.contains("pg_temp"),
        "standard_conforming_strings" => {
            let value = value.trim_matches('\'');
            !value.is_empty()
                && ["off", "false", "no", "0"]
                    .iter()
                    .any(|off| off.starts_with(value))
        }
        "client_encoding" | "names" => {
            let name = value.replace(|c: char| !c.is_ascii_alphanumeric(), "");
            BLURRED.iter().any(|blurred| name.starts_with(blurred))
        }
        "seed" => true,
        _ => false,
    }
}

/// `rest` follows the word `set_config`: is its last argument the literal `true`?
#[must_use]
pub fn is_local_call(rest: Lexer<'_>) -> bool {
    let mut depth = 0;
    let mut last = None;
    for token in rest.take(LOCAL_CALL_MAX) {
        match token {
            Token::Symbol(b'(') => depth += 1,
            Token::Symbol(b')') if depth == 1 => return last.is_some_and(|t: Token| t.is("true")),
            Token::Symbol(b')') => depth -= 1,
            // `true` alone, not the end of an expression.
            Token::Symbol(b',') if depth == 1 => last = None,
            _ if last.is_some() => last = Some(Token::Symbol(b'?')),
            token => last = Some(token),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str) -> Option<Setting> {
        Some(Setting::Set {
            name: name.to_owned(),
        })
    }

    fn reset(name: &str) -> Option<Setting> {
        Some(Setting::Reset {
            name: name.to_owned(),
        })
    }

    #[test]
    fn forms_of_set() {
        for (text, expected) in [
            ("set Work_Mem = '1MB'", set("work_mem")),
            ("SET SESSION search_path TO a, \"B\"", set("search_path")),
            ("set time zone 'UTC'", set("timezone")),
            ("set names 'utf8'", set("client_encoding")),
            ("set role x", set("role")),
            ("set my.var to 1", set("my.var")),
            ("set x to default", reset("x")),
            ("set time zone default", reset("timezone")),
            ("reset x", reset("x")),
            ("reset time zone", reset("timezone")),
            ("reset all", Some(Setting::ResetAll)),
            ("set local x = 1", Some(Setting::Local)),
            ("set transaction read only", Some(Setting::Local)),
            ("set constraints all deferred", Some(Setting::Local)),
            ("set session authorization x", None),
            ("reset session authorization", None),
            ("set session characteristics as transaction read only", None),
            ("set xml option document", None),
            ("select 1", None),
        ] {
            assert_eq!(read(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn custom_names_are_found_where_they_are_set() {
        let names = |text: &str| custom_names(text.as_bytes());
        assert_eq!(
            names("set my.a = 1; SET LOCAL My.b to 2; set session my.c=3"),
            ["my.a", "my.b", "my.c"]
        );
        assert_eq!(
            names("select set_config('My.x', $1, false), set_config('work_mem', '1', false)"),
            ["my.x"]
        );
        assert!(names("set work_mem = 1; select a.b").is_empty());
    }

    #[test]
    fn only_a_literal_true_is_local() {
        let local = |args: &str| is_local_call(Lexer::new(args.as_bytes()));
        assert!(local("('a', f(1, 2), true) from x"));
        for other in [
            "('a', 'b', false)",
            "('a', 'b', $1)",
            "('a', 'b', not true)",
            "('a', 'b', true and x)",
            "('a'",
        ] {
            assert!(!local(other), "{other}");
        }
    }
}
