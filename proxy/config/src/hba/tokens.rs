//! One line of an authentication file as PostgreSQL reads it: fields between blanks, values between commas, quotes, comments.

/// One value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// Its text without quotes.
    pub(super) text: String,
    /// Whether it began with a quote: then it is no keyword and names no file.
    pub(super) quoted: bool,
}

impl Token {
    /// Whether this is the keyword, not a name that looks like it.
    pub(super) fn is_keyword(&self, keyword: &str) -> bool {
        !self.quoted && self.text == keyword
    }

    /// The file that is to stand in place of this value: `@file`, which may be quoted behind the `@`.
    pub(super) fn file(&self) -> Option<&str> {
        self.text
            .strip_prefix('@')
            .filter(|name| !self.quoted && !name.is_empty())
    }

    /// The pattern of `/pattern`. Quotes do not matter: a pattern with a comma in it needs them.
    pub(super) fn pattern(&self) -> Option<&str> {
        self.text.strip_prefix('/')
    }

    /// The group of `+group`.
    pub(super) fn group(&self) -> Option<&str> {
        self.text.strip_prefix('+').filter(|_| !self.quoted)
    }
}

/// The values of one field: at least one.
pub(super) type Field = Vec<Token>;

/// Splits a line into its fields; none when it is empty or a comment.
///
/// A quote without its partner reaches to the end of the line, as it does in PostgreSQL.
pub(super) fn split(line: &str) -> Vec<Field> {
    let mut rest = line;
    let mut fields = Vec::new();
    loop {
        let mut field = Field::new();
        while let Some((token, comma)) = next(&mut rest) {
            field.push(token);
            if !comma {
                break;
            }
        }
        if field.is_empty() {
            return fields;
        }
        fields.push(field);
    }
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r')
}

/// Takes one value off the line; with it, whether a comma follows. `None` at the end of the line.
fn next(rest: &mut &str) -> Option<(Token, bool)> {
    let line = rest.trim_start_matches(|c| is_blank(c) || c == ',');
    let mut text = String::new();
    let (mut in_quotes, mut quoted, mut any_quote) = (false, false, false);
    // The character before was the second quote of a pair, or may turn out to be the first of two that mean one.
    let mut after_quote = false;
    let mut end = line.len();
    for (at, c) in line.char_indices() {
        if !in_quotes && (is_blank(c) || matches!(c, ',' | '#')) {
            end = at;
            break;
        }
        if c != '"' || after_quote {
            text.push(c);
        }
        after_quote = in_quotes && c == '"' && !after_quote;
        if c == '"' {
            in_quotes = !in_quotes;
            any_quote = true;
            quoted |= text.is_empty();
        }
    }
    let behind = &line[end..];
    // Nothing behind a # counts.
    *rest = if behind.starts_with('#') { "" } else { behind };
    (any_quote || !text.is_empty()).then_some((Token { text, quoted }, behind.starts_with(',')))
}
