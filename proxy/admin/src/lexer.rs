//! Commands as words, names, texts and signs.

use pgdog_wire::sqlstate;

use crate::answer::Refusal;

/// A piece of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// A keyword or a name without quotes, as it was written.
    Word(String),
    /// A name in double quotes.
    Quoted(String),
    /// A text in single quotes.
    Text(String),
    /// Any other sign.
    Sign(char),
}

impl Token {
    /// Whether it is this keyword.
    pub(crate) fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    /// The word, name or text in it.
    pub(crate) fn content(&self) -> Option<&str> {
        match self {
            Self::Word(text) | Self::Quoted(text) | Self::Text(text) => Some(text),
            Self::Sign(_) => None,
        }
    }
}

/// Cuts a string into commands. A command without a token is an empty one; the last is left out when it is.
pub(crate) fn commands(sql: &str) -> Result<Vec<Vec<Token>>, Refusal> {
    let mut commands = vec![Vec::new()];
    let mut rest = sql.trim_start();
    while let Some(first) = rest.chars().next() {
        if let Some(after) = comment(rest)? {
            rest = after.trim_start();
            continue;
        }
        let (token, after) = match first {
            ';' => {
                commands.push(Vec::new());
                rest = rest[1..].trim_start();
                continue;
            }
            '\'' => quoted(rest, '\'').map(|(text, after)| (Token::Text(text), after))?,
            '"' => quoted(rest, '"').map(|(text, after)| (Token::Quoted(text), after))?,
            _ if is_sign(first) => (Token::Sign(first), &rest[first.len_utf8()..]),
            _ => {
                let ends =
                    |c: char| c.is_whitespace() || is_sign(c) || matches!(c, ';' | '\'' | '"');
                let end = rest.find(ends).unwrap_or(rest.len());
                (Token::Word(rest[..end].to_owned()), &rest[end..])
            }
        };
        if let Some(command) = commands.last_mut() {
            command.push(token);
        }
        rest = after.trim_start();
    }
    if commands.len() > 1 && commands.last().is_some_and(Vec::is_empty) {
        commands.pop();
    }
    Ok(commands)
}

fn is_sign(c: char) -> bool {
    matches!(c, ',' | '=' | '(' | ')')
}

/// What follows the comment that `text` begins with, if it does.
fn comment(text: &str) -> Result<Option<&str>, Refusal> {
    if text.starts_with("--") {
        return Ok(Some(text.find('\n').map_or("", |end| &text[end..])));
    }
    if text.starts_with("/*") {
        let end = text.find("*/").ok_or_else(|| unterminated("comment"))?;
        return Ok(Some(&text[end + 2..]));
    }
    Ok(None)
}

/// What stands in the quotes that `text` begins with, a doubled one for one, and what follows.
fn quoted(text: &str, quote: char) -> Result<(String, &str), Refusal> {
    let mut content = String::new();
    let mut rest = &text[1..];
    loop {
        let end = rest
            .find(quote)
            .ok_or_else(|| unterminated("quoted string"))?;
        content.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix(quote) {
            Some(after) => {
                content.push(quote);
                rest = after;
            }
            None => return Ok((content, rest)),
        }
    }
}

fn unterminated(what: &str) -> Refusal {
    Refusal::new(sqlstate::SYNTAX_ERROR, format!("unterminated {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> Token {
        Token::Word(text.to_owned())
    }

    #[test]
    fn commands_are_cut_at_semicolons_outside_of_quotes() {
        let cut =
            commands("show Pools; pause \"My;Db\" -- all\n; /* x;y */ set a='it''s'").unwrap();
        assert_eq!(cut[0], [word("show"), word("Pools")]);
        assert_eq!(cut[1], [word("pause"), Token::Quoted("My;Db".to_owned())]);
        let text = Token::Text("it's".to_owned());
        assert_eq!(cut[2], [word("set"), word("a"), Token::Sign('='), text]);
        assert!(cut[0][0].is("SHOW") && !cut[1][1].is("My;Db"));
    }

    #[test]
    fn empty_commands_are_kept_but_for_the_last() {
        assert_eq!(commands("").unwrap(), [vec![]]);
        assert_eq!(commands(" ; ").unwrap(), [vec![]]);
        assert_eq!(commands(";;x").unwrap().len(), 3);
        assert_eq!(commands("x;").unwrap().len(), 1);
    }

    #[test]
    fn what_does_not_end_is_an_error() {
        for sql in ["'a", "\"a", "/* a", "pause 'a''"] {
            assert_eq!(commands(sql).unwrap_err().code, sqlstate::SYNTAX_ERROR);
        }
    }

    #[test]
    fn urls_are_words() {
        let cut = commands("probe postgres://u:p@h:5432/d").unwrap();
        assert_eq!(cut[0][1], word("postgres://u:p@h:5432/d"));
    }
}
