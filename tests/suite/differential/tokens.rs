//! The words a script line is made of.

use std::iter::Peekable;
use std::str::Chars;

/// One word of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A bare word: `P`, `s=one`, `23`.
    Word(String),
    /// A quoted text: `"select 1"` with escapes, or `` `select "1"` `` without.
    Text(Vec<u8>),
    /// A quoted text right behind `key=`.
    Named(String, Vec<u8>),
    /// `;`
    End,
    /// `{`
    Open,
    /// `}`
    Close,
}

/// Splits a line into its words.
pub(super) fn tokens(line: &str) -> Result<Vec<Token>, String> {
    let mut out = Vec::new();
    let mut chars = line.chars().peekable();
    while let Some(&c) = chars.peek() {
        match c {
            ' ' | '\t' => {
                chars.next();
            }
            ';' | '{' | '}' => {
                chars.next();
                out.push(match c {
                    ';' => Token::End,
                    '{' => Token::Open,
                    _ => Token::Close,
                });
            }
            '"' | '`' => out.push(Token::Text(quoted(&mut chars)?)),
            _ => out.push(word(&mut chars)?),
        }
    }
    Ok(out)
}

fn word(chars: &mut Peekable<Chars<'_>>) -> Result<Token, String> {
    let mut word = String::new();
    while let Some(&c) = chars.peek() {
        match c {
            ' ' | '\t' | ';' | '{' | '}' => break,
            '"' | '`' if word.ends_with('=') => {
                word.pop();
                return Ok(Token::Named(word, quoted(chars)?));
            }
            _ => {
                word.push(c);
                chars.next();
            }
        }
    }
    Ok(Token::Word(word))
}

/// A quoted text. In double quotes: `\n`, `\t`, `\\`, `\"`, `\xHH`, and `\{text*count}` for something long.
fn quoted(chars: &mut Peekable<Chars<'_>>) -> Result<Vec<u8>, String> {
    let quote = chars.next();
    let mut out = Vec::new();
    let mut utf8 = [0; 4];
    while let Some(c) = chars.next() {
        match c {
            _ if Some(c) == quote => return Ok(out),
            '\\' if quote == Some('"') => escape(chars, &mut out)?,
            _ => out.extend(c.encode_utf8(&mut utf8).bytes()),
        }
    }
    Err("a quote is not closed".to_owned())
}

fn escape(chars: &mut Peekable<Chars<'_>>, out: &mut Vec<u8>) -> Result<(), String> {
    match chars.next() {
        Some('n') => out.push(b'\n'),
        Some('t') => out.push(b'\t'),
        Some(c @ ('\\' | '"')) => out.extend(c.to_string().bytes()),
        Some('x') => {
            let hex: String = chars.by_ref().take(2).collect();
            out.push(u8::from_str_radix(&hex, 16).map_err(|_| format!("\\x{hex} is no byte"))?);
        }
        Some('{') => {
            let inner: String = chars.by_ref().take_while(|&c| c != '}').collect();
            let (text, count) = inner.rsplit_once('*').ok_or("\\{text*count} expected")?;
            let count: usize = count.parse().map_err(|_| format!("{count} is no count"))?;
            out.extend(text.repeat(count).bytes());
        }
        other => return Err(format!("unknown escape \\{}", other.unwrap_or(' '))),
    }
    Ok(())
}

/// Reads `00ff` as bytes.
pub(super) fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    if digits.len() != text.len() || !digits.len().is_multiple_of(2) {
        return Err(format!("{text} is no hex"));
    }
    Ok(digits
        .chunks(2)
        .filter_map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok())
        .collect())
}

#[test]
fn a_line_splits_into_words_and_texts() {
    let line = r#"P s="a b" "select \"x\\\x41\{yz*3}" 23; S"#;
    let expected = vec![
        Token::Word("P".into()),
        Token::Named("s".into(), b"a b".to_vec()),
        Token::Text(b"select \"x\\Ayzyzyz".to_vec()),
        Token::Word("23".into()),
        Token::End,
        Token::Word("S".into()),
    ];
    assert_eq!(tokens(line), Ok(expected));
}
