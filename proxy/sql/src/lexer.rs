//! PostgreSQL's lexical rules as far as words, quotes, comments and statement ends go (`src/backend/parser/scan.l`).

/// A lexical element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// A keyword or unquoted identifier, as written.
    Word(&'a [u8]),
    /// A quoted identifier, quotes included.
    Quoted(&'a [u8]),
    /// A string literal of any kind, prefix and quotes included; it may lack its end.
    Literal(&'a [u8]),
    /// Digits and what belongs to a number.
    Number(&'a [u8]),
    /// A parameter, `$1`.
    Parameter(&'a [u8]),
    /// Any other single byte, `;` among them.
    Symbol(u8),
}

impl Token<'_> {
    /// Whether it is this keyword (given in lower case).
    #[must_use]
    pub fn is(&self, keyword: &str) -> bool {
        matches!(self, Token::Word(w) if w.eq_ignore_ascii_case(keyword.as_bytes()))
    }

    /// The name that an identifier stands for: folded to lower case, or unquoted.
    #[must_use]
    pub fn name(&self) -> Option<Vec<u8>> {
        match self {
            Token::Word(w) => Some(w.to_ascii_lowercase()),
            Token::Quoted(q) => {
                let inner = q.strip_prefix(b"\"")?;
                let inner = inner.strip_suffix(b"\"").unwrap_or(inner);
                let mut name = Vec::with_capacity(inner.len());
                let mut bytes = inner.iter();
                while let Some(&b) = bytes.next() {
                    name.push(b);
                    if b == b'"' {
                        bytes.next();
                    }
                }
                Some(name)
            }
            _ => None,
        }
    }
}

/// Tokens of a query text, white space and comments left out.
#[derive(Debug, Clone)]
pub struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Lexer<'a> {
    /// Begins at the start of `text`.
    #[must_use]
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// Begins in the midst of `text`, where a token may begin.
    pub(crate) fn starting(text: &'a [u8], at: usize) -> Self {
        Self { text, at }
    }

    /// The whole text.
    pub(crate) fn text(&self) -> &'a [u8] {
        self.text
    }

    /// Where the next token's search begins.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn skip_blank(&mut self) {
        self.at = skip_blank(self.text, self.at);
    }

    fn run(&mut self, start: usize, belongs: impl Fn(u8) -> bool) -> &'a [u8] {
        while self.at < self.text.len() && belongs(self.text[self.at]) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    /// To the closing quote; doubled quotes stay inside, and backslashes escape when `escapes`.
    fn quoted(&mut self, start: usize, quote: u8, escapes: bool) -> &'a [u8] {
        self.at += 1;
        while self.at < self.text.len() {
            let b = self.text[self.at];
            self.at += 1;
            if escapes && b == b'\\' {
                self.at = (self.at + 1).min(self.text.len());
            } else if b == quote {
                if self.peek(0) != quote {
                    break;
                }
                self.at += 1;
            }
        }
        &self.text[start..self.at]
    }

    /// A string with escapes goes on after a line break, and its backslashes still escape there (`quotecontinue`).
    fn continued(&mut self, start: usize) -> &'a [u8] {
        loop {
            let next = skip_blank(self.text, self.at);
            let between = self.text.get(self.at..next).unwrap_or_default();
            if self.text.get(next) != Some(&b'\'')
                || !between.iter().any(|b| matches!(b, b'\n' | b'\r'))
            {
                return &self.text[start..self.at];
            }
            self.at = next;
            self.quoted(next, b'\'', true);
        }
    }

    /// Digits and what belongs to them, a sign in the exponent among it.
    fn number(&mut self, start: usize) -> &'a [u8] {
        let belongs = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'_';
        let text = self.run(start, belongs);
        let exponent = matches!(text, [.., b'0'..=b'9' | b'.', b'e' | b'E'])
            && !text.starts_with(b"0x")
            && !text.starts_with(b"0X");
        if exponent && matches!(self.peek(0), b'+' | b'-') && self.peek(1).is_ascii_digit() {
            self.at += 1;
            return self.run(start, belongs);
        }
        text
    }

    /// `$tag$ … $tag$`, when a dollar quote begins here.
    fn dollar_quoted(&mut self, start: usize) -> Option<&'a [u8]> {
        let rest = &self.text[start + 1..];
        let tag = rest.iter().position(|&b| !is_word(b) || b == b'$')?;
        if rest[tag] != b'$' || rest.first().is_some_and(u8::is_ascii_digit) {
            return None;
        }
        let delimiter = &self.text[start..start + tag + 2];
        let body = start + delimiter.len();
        let end = self.text[body..]
            .windows(delimiter.len())
            .position(|w| w == delimiter);
        self.at = end.map_or(self.text.len(), |e| body + e + delimiter.len());
        Some(&self.text[start..self.at])
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_blank();
        let start = self.at;
        let first = *self.text.get(start)?;
        Some(match first {
            b'\'' => Token::Literal(self.quoted(start, b'\'', false)),
            b'"' => Token::Quoted(self.quoted(start, b'"', false)),
            b'e' | b'E' if self.peek(1) == b'\'' => {
                self.at += 1;
                self.quoted(start, b'\'', true);
                Token::Literal(self.continued(start))
            }
            b'b' | b'B' | b'x' | b'X' | b'n' | b'N' if self.peek(1) == b'\'' => {
                self.at += 1;
                Token::Literal(self.quoted(start, b'\'', false))
            }
            b'u' | b'U' if self.peek(1) == b'&' && matches!(self.peek(2), b'\'' | b'"') => {
                let quote = self.peek(2);
                self.at += 2;
                let text = self.quoted(start, quote, false);
                if quote == b'"' {
                    Token::Quoted(&text[2..])
                } else {
                    Token::Literal(text)
                }
            }
            b'$' if self.peek(1).is_ascii_digit() => {
                self.at += 1;
                Token::Parameter(self.run(start, |b| b.is_ascii_digit()))
            }
            b'$' => match self.dollar_quoted(start) {
                Some(text) => Token::Literal(text),
                None => {
                    self.at += 1;
                    Token::Symbol(b'$')
                }
            },
            b'0'..=b'9' => Token::Number(self.number(start)),
            b'.' if self.peek(1).is_ascii_digit() => Token::Number(self.number(start)),
            b if is_word_start(b) => Token::Word(self.run(start, is_word)),
            b => {
                self.at += 1;
                Token::Symbol(b)
            }
        })
    }
}

/// Position of the first byte at or after `at` that is neither white space nor within a comment.
#[must_use]
pub fn skip_blank(text: &[u8], mut at: usize) -> usize {
    loop {
        match text.get(at) {
            Some(b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c) => at += 1,
            Some(b'-') if text.get(at + 1) == Some(&b'-') => {
                at = text[at..]
                    .iter()
                    .position(|&b| matches!(b, b'\n' | b'\r'))
                    .map_or(text.len(), |n| at + n);
            }
            Some(b'/') if text.get(at + 1) == Some(&b'*') => at = skip_comment(text, at + 2),
            _ => return at,
        }
    }
}

/// Block comments nest in PostgreSQL.
fn skip_comment(text: &[u8], mut at: usize) -> usize {
    let mut depth = 1;
    while depth > 0 {
        match (text.get(at), text.get(at + 1)) {
            (Some(b'/'), Some(b'*')) => {
                depth += 1;
                at += 2;
            }
            (Some(b'*'), Some(b'/')) => {
                depth -= 1;
                at += 2;
            }
            (Some(_), _) => at += 1,
            (None, _) => return text.len(),
        }
    }
    at
}

#[inline]
fn is_word_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_' || b >= 0x80
}

#[inline]
pub(crate) fn is_word(b: u8) -> bool {
    WORD[usize::from(b)]
}

/// Which bytes words are made of: looked up, for most bytes of a query are asked.
const WORD: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 256 {
        let byte = b as u8;
        table[b] = byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80;
        b += 1;
    }
    table
};

/// The statements of a query string: the text between semicolons, statements without tokens left out.
pub fn statements(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut lexer = Lexer::new(text);
    std::iter::from_fn(move || {
        loop {
            let start = skip_blank(text, lexer.at);
            let mut empty = true;
            let end = loop {
                match lexer.next() {
                    Some(Token::Symbol(b';')) => break lexer.at - 1,
                    Some(_) => empty = false,
                    None if empty => return None,
                    None => break text.len(),
                }
            };
            if !empty {
                return Some(&text[start..end]);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        Lexer::new(text.as_bytes())
            .map(|t| format!("{t:?}"))
            .collect()
    }

    #[test]
    fn quotes_hide_what_is_inside() {
        for text in [
            "';x'",
            "E'\\';x'",
            "\"a;\"\"b\"",
            "$$;$$",
            "$a$;$b$;$a$",
            "U&'x;'",
        ] {
            assert_eq!(words(text).len(), 1, "{text}: {:?}", words(text));
        }
    }

    #[test]
    fn comments_nest_and_end_at_the_line() {
        assert_eq!(words("/* a /* b */ ; */ x -- ;\n y").len(), 2);
        assert_eq!(words("/* never closed").len(), 0);
    }

    #[test]
    fn statements_are_cut_at_semicolons_only() {
        let cut = |t: &'static str| {
            statements(t.as_bytes())
                .map(|s| String::from_utf8_lossy(s).into_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(cut("a; b ';' ;; -- x\n ; c"), ["a", "b ';' ", "c"]);
        assert!(cut(" ; ;").is_empty());
    }

    #[test]
    fn names_fold_or_unquote() {
        let name = |t: &'static str| {
            Lexer::new(t.as_bytes())
                .next()
                .and_then(|t| t.name())
                .unwrap()
        };
        assert_eq!(name("Work_Mem"), b"work_mem");
        assert_eq!(name("\"A\"\"b\""), b"A\"b");
    }

    #[test]
    fn numbers_keep_their_point_and_exponent() {
        for text in ["1e-3", "1.5E+10", ".5", "1_000", "0xFE", "7.", ".5e-1"] {
            assert_eq!(words(text).len(), 1, "{text}: {:?}", words(text));
        }
        for (text, parts) in [("0xFE-1", 3), ("1e-x", 3), ("1-3", 3), ("a.b", 3)] {
            assert_eq!(words(text).len(), parts, "{text}: {:?}", words(text));
        }
    }

    #[test]
    fn a_string_with_escapes_goes_on_after_a_line_break() {
        assert_eq!(words("E'a' \n 'b\\';c'").len(), 1);
        assert_eq!(words("E'a' -- x\n 'b\\';c'").len(), 1);
        assert_eq!(words("E'a' 'b'").len(), 2);
        assert_eq!(words("E'a'\n;").len(), 2);
    }

    #[test]
    fn dollars_inside_words_are_not_quotes() {
        assert_eq!(words("a$b$c;d").len(), 3);
        assert_eq!(words("$1").len(), 1);
    }
}
