//! Comments that tell the router what to do: `/* pgdog_role: replica */` before or behind a query string.
//!
//! Only comments count that stand before the first token or behind the last one; what looks like a comment within a literal
//! is none. Of two that say the same thing, the one before the text wins.

use crate::lexer::{Lexer, skip_blank};

/// A role that a comment asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RoleHint {
    /// The primary.
    Primary,
    /// A replica.
    Replica,
}

/// What the comments of a query string say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hints<'a> {
    /// `pgdog_role`.
    pub role: Option<RoleHint>,
    /// `pgdog_shard`.
    pub shard: Option<u32>,
    /// `pgdog_sharding_key`, without its quotes.
    pub sharding_key: Option<&'a [u8]>,
}

/// What all of them begin with.
const PREFIX: &[u8] = b"pgdog_";

/// Reads the comments. Texts that neither begin nor end with one cost nothing but a look at both ends.
#[must_use]
pub fn hints(text: &[u8]) -> Hints<'_> {
    let mut found = Hints::default();
    let start = skip_blank(text, 0);
    read_all(text, 0, start, &mut found);
    if ends_with_comment(text) && contains(&text[start..], PREFIX) {
        let end = last_token_end(text);
        if end > 0 {
            read_all(text, end, text.len(), &mut found);
        }
    }
    found
}

/// Whether the last thing in it looks like the end of a comment.
fn ends_with_comment(text: &[u8]) -> bool {
    let mut end = text;
    while let [
        rest @ ..,
        b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | b';' | 0,
    ] = end
    {
        end = rest;
    }
    end.ends_with(b"*/")
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

/// Where the last token ends that is no semicolon.
fn last_token_end(text: &[u8]) -> usize {
    let mut lexer = Lexer::new(text);
    let mut end = 0;
    while let Some(token) = lexer.next() {
        if token != crate::lexer::Token::Symbol(b';') {
            end = lexer.position();
        }
    }
    end
}

/// All block comments between two places; line comments and semicolons are passed over.
fn read_all<'a>(text: &'a [u8], from: usize, to: usize, found: &mut Hints<'a>) {
    let mut at = from;
    while at < to {
        let rest = &text[at..to];
        if rest.starts_with(b"--") {
            at += rest
                .iter()
                .position(|b| matches!(b, b'\n' | b'\r'))
                .unwrap_or(rest.len());
        } else if rest.starts_with(b"/*") {
            let end = comment_end(rest);
            let inner = &rest[2..end];
            read(inner.strip_suffix(b"*/").unwrap_or(inner), found);
            at += end;
        } else {
            at += 1;
        }
    }
}

/// The length of the comment that `text` begins with.
fn comment_end(text: &[u8]) -> usize {
    let (mut depth, mut at) = (1, 2);
    while depth > 0 && at < text.len() {
        match &text[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    at.max(2)
}

/// One comment's `key: value` pairs. What has been found before stays.
fn read<'a>(comment: &'a [u8], found: &mut Hints<'a>) {
    let mut from = 0;
    while let Some(at) = memchr::memmem::find(&comment[from..], PREFIX).map(|at| at + from) {
        from = at + PREFIX.len();
        if at > 0 && crate::lexer::is_word(comment[at - 1]) {
            continue;
        }
        let Some((key, value)) = pair(&comment[at..]) else {
            continue;
        };
        match key {
            b"pgdog_role" => found.role = found.role.or(role(value)),
            b"pgdog_shard" => {
                let number = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
                found.shard = found.shard.or(number);
            }
            b"pgdog_sharding_key" => found.sharding_key = found.sharding_key.or(Some(value)),
            _ => {}
        }
    }
}

fn role(value: &[u8]) -> Option<RoleHint> {
    if value.eq_ignore_ascii_case(b"primary") {
        Some(RoleHint::Primary)
    } else if value.eq_ignore_ascii_case(b"replica") {
        Some(RoleHint::Replica)
    } else {
        None
    }
}

/// `key: value`, where the value may be quoted.
fn pair(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let word = |text: &[u8]| {
        text.iter()
            .take_while(|b| crate::lexer::is_word(**b))
            .count()
    };
    let (key, rest) = text.split_at(word(text));
    let rest = rest
        .trim_ascii_start()
        .strip_prefix(b":")?
        .trim_ascii_start();
    let value = match rest.first() {
        Some(&quote @ (b'\'' | b'"')) => {
            let inner = &rest[1..];
            &inner[..inner.iter().position(|b| *b == quote)?]
        }
        _ => {
            let ends = |b: &u8| b.is_ascii_whitespace() || matches!(b, b',' | b';' | b'*');
            &rest[..rest.iter().position(ends).unwrap_or(rest.len())]
        }
    };
    (!value.is_empty()).then_some((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role_of(text: &str) -> Option<RoleHint> {
        hints(text.as_bytes()).role
    }

    #[test]
    fn a_comment_before_or_behind_the_text_is_read() {
        let replica = Some(RoleHint::Replica);
        for text in [
            "/* pgdog_role: replica */ select 1",
            "select 1 /* pgdog_role: replica */",
            "select 1; /* pgdog_role: replica */ ;\n",
            "select 1 /* pgdog_role: replica */;",
            "/*pgdog_role:replica*/ select 1",
            "/* x=1, pgdog_role: REPLICA, y */ select 1",
            "-- one\n/* pgdog_role: 'replica' */ select 1",
            "/* a */ /* pgdog_role: replica */ select 1",
            "/* a /* b */ pgdog_role: replica */ select 1",
            "select 1 -- it's\n /* pgdog_role: replica */",
            "/* pgdog_role: replica */",
        ] {
            assert_eq!(role_of(text), replica, "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_one_is_not() {
        for text in [
            "select '/* pgdog_role: replica */'",
            "select /* pgdog_role: replica */ 1",
            "select 1 -- /* pgdog_role: replica */",
            "-- /* pgdog_role: replica */\nselect 1",
            "select $$x /* pgdog_role: replica */",
            "select \"a /* pgdog_role: replica */\"",
            "/* my_pgdog_role: replica */ select 1",
            "/* pgdog_role: other */ select 1",
            "/* pgdog_role replica */ select 1",
            "/* pgdog_role: */ select 1",
            "/* pgdog_role: 'replica */ select 1",
            "/*",
            "/*/",
            "",
        ] {
            assert_eq!(role_of(text), None, "{text}");
        }
    }

    #[test]
    fn the_comment_before_the_text_wins() {
        let text = "/* pgdog_role: primary */ select 1 /* pgdog_role: replica */";
        assert_eq!(role_of(text), Some(RoleHint::Primary));
        let both = hints(b"/* pgdog_shard: 3 */ select 1 /* pgdog_role: replica */");
        assert_eq!((both.shard, both.role), (Some(3), Some(RoleHint::Replica)));
    }

    #[test]
    fn shards_and_keys_are_kept() {
        let found = hints(b"/* pgdog_shard: 12 pgdog_sharding_key: 'a b' */ select 1");
        assert_eq!(found.shard, Some(12));
        assert_eq!(found.sharding_key, Some(&b"a b"[..]));
        let plain = hints(b"/* pgdog_sharding_key: 7f-1 */ select 1");
        assert_eq!(plain.sharding_key, Some(&b"7f-1"[..]));
    }
}
