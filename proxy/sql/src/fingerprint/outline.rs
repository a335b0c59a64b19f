//! A quick way to a fingerprint that is known already.
//!
//! An outline is found in one look at each byte, without making tokens. Texts have the same one only if they differ in
//! nothing but digits of numbers and what stands between plain quotes; so their fingerprints are the same too. The reverse is
//! not so: other blanks or letters make another outline.
//!
//! Texts of which that cannot be said so quickly have none: with comments, with dollar quotes, with letters that belong to a
//! number or to a string (`1e5`, `E'a'`), and those that end within quotes.

use super::{exact, mix};
use crate::lexer::is_word;

/// What stands for a number, and for a string: only numbers have signs, and only strings are joined.
const NUMBER: u64 = 2 << 32;
const STRING: u64 = 3 << 32;

/// The outline's number. Texts that have one have no comments.
#[must_use]
pub(crate) fn outline(text: &[u8], seed: u64) -> Option<u64> {
    let mut hash = mix(seed, 6 << 32);
    // What lies between the two goes into the number as it is.
    let (mut from, mut at) = (0, 0);
    loop {
        at += plain(&text[at..]);
        let Some(&first) = text.get(at) else {
            return Some(exact(hash, &text[from..]));
        };
        let in_word = at > 0 && is_word(text[at - 1]);
        let next = text.get(at + 1).copied().unwrap_or(0);
        let (constant, kind) = match first {
            b'0'..=b'9' => {
                let start = at;
                at += digits(&text[at..]);
                if in_word {
                    // Of a name, or of a parameter.
                    continue;
                }
                if text.get(at).is_some_and(|b| is_word(*b)) {
                    return None;
                }
                (start, NUMBER)
            }
            // The letter before it says how the string is read.
            b'\'' if in_word || at > 0 && text[at - 1] == b'&' => return None,
            b'\'' => {
                let start = at;
                at += quoted(&text[at..], b'\'')?;
                (start, STRING)
            }
            b'"' => {
                at += quoted(&text[at..], b'"')?;
                continue;
            }
            b'$' if !next.is_ascii_digit() => return None,
            b'-' if next == b'-' => return None,
            b'/' if next == b'*' => return None,
            _ => {
                at += 1;
                continue;
            }
        };
        hash = mix(exact(hash, &text[from..constant]), kind);
        from = at;
    }
}

/// How many bytes come before the next with which a constant, a quoted name or a comment may begin, or one of a few others:
/// those from `"` to `'` and from `-` to `9` are counted as such. Eight at a time, for most texts are made of the rest.
#[inline]
fn plain(text: &[u8]) -> usize {
    let (whole, rest) = text.as_chunks::<8>();
    for (at, &chunk) in whole.iter().enumerate() {
        let word = u64::from_le_bytes(chunk);
        let special = within(word, b'"', b'\'') | within(word, b'-', b'9');
        if special != 0 {
            return at * 8 + special.trailing_zeros() as usize / 8;
        }
    }
    let other = |b: &u8| matches!(b, b'"'..=b'\'' | b'-'..=b'9');
    let before = rest.iter().position(other).unwrap_or(rest.len());
    whole.len() * 8 + before
}

/// The high bits of those among eight bytes that lie between two of ASCII.
#[inline]
fn within(word: u64, low: u8, high: u8) -> u64 {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    let seven = word & (EACH * 0x7f);
    let from_low = seven + EACH * u64::from(0x80 - low);
    let above_high = seven + EACH * u64::from(0x7f - high);
    (from_low ^ above_high) & !word & (EACH * 0x80)
}

fn digits(text: &[u8]) -> usize {
    let other = text.iter().position(|b| !b.is_ascii_digit());
    other.unwrap_or(text.len())
}

/// The length of what begins with a quote, up to the one that ends it.
fn quoted(text: &[u8], quote: u8) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr::memchr(quote, text.get(at..)?)? + 1;
        if text.get(at) != Some(&quote) {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::fingerprint::fingerprint;
    use crate::hints::hints;

    fn outline(text: &str) -> Option<u64> {
        super::outline(text.as_bytes(), 1)
    }

    #[test]
    fn numbers_and_strings_make_no_difference() {
        let first = outline("select a1, \"b'2\" from t where c = $1 and d in (1, 'x')");
        assert!(first.is_some());
        for other in [
            "select a1, \"b'2\" from t where c = $1 and d in (23, 'it''s -- /* $$')",
            "select a1, \"b'2\" from t where c = $1 and d in (0, '')",
        ] {
            assert_eq!(outline(other), first, "{other}");
        }
        for other in [
            "select a2, \"b'2\" from t where c = $1 and d in (1, 'x')",
            "select a1, \"b'3\" from t where c = $1 and d in (1, 'x')",
            "select a1, \"b'2\" from t where c = $2 and d in (1, 'x')",
            "select a1, \"b'2\" from t where c = $1 and d in (1, 2)'",
            "select a1, \"b'2\" from t where c = $1 and d in ('x', 1)",
            "select a1, \"b'2\" from t where c = $1 and d in (1)",
        ] {
            assert_ne!(outline(other), first, "{other}");
        }
    }

    #[test]
    fn what_takes_a_closer_look_has_none() {
        for text in [
            "select 1 -- x",
            "select /* x */ 1",
            "select $$a$$",
            "select $a$b$a$",
            "select a$b",
            "select 1e5",
            "select 0xFF",
            "select 1_000",
            "select 1and 2",
            "select E'a'",
            "select b'1'",
            "select U&'a'",
            "select 'a",
            "select 'a''",
            "select \"a",
        ] {
            assert_eq!(outline(text), None, "{text}");
        }
        for text in ["", "select a - 1 / b", "select -1.5", "select $1+1;"] {
            assert!(outline(text).is_some(), "{text}");
        }
    }

    /// Two texts that may have the same outline: the same parts, with other constants.
    fn likes() -> impl Strategy<Value = (String, String)> {
        let parts = "a1 e E x n U& u& \" \"\" ' '' - -- / /* */ $ $1 $a$ $$ . , ; ( ) in array [ ] values + :: : uescape é 0 0x _ \\ \
            select from limit -1 pgdog_role:primary";
        let mut parts: Vec<_> = parts.split_whitespace().collect();
        parts.extend([" ", "\n", "\n'"]);
        let number = || (0..2000u32).prop_map(|n| n.to_string());
        let string = || "'[a-z0-9'$\\\\ /*-]{0,5}'";
        let constant = || prop_oneof![number(), string()];
        let part = prop_oneof![
            3 => prop::sample::select(parts).prop_map(|p| (p.to_owned(), p.to_owned())),
            2 => (number(), number()),
            2 => (string(), string()),
            1 => (constant(), constant()),
            1 => Just((" ".to_owned(), " ".to_owned())),
        ];
        prop::collection::vec(part, 1..16).prop_map(|parts| parts.into_iter().unzip())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 10_000, ..ProptestConfig::default() })]

        #[test]
        fn texts_of_one_outline_have_one_fingerprint_and_no_comments((one, other) in likes()) {
            let (of_one, of_other) = (outline(&one), outline(&other));
            if of_one.is_some() {
                prop_assert_eq!(hints(one.as_bytes()), Default::default());
            }
            if of_one.is_some() && of_one == of_other {
                prop_assert_eq!(fingerprint(one.as_bytes()), fingerprint(other.as_bytes()), "{:?} {:?}", one, other);
            }
        }
    }
}
