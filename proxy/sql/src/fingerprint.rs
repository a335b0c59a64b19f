//! Which queries are the same but for their constants.
//!
//! [`fingerprint()`] is a number, the same for texts that differ only in constants, white space, comments and the case of
//! what is not quoted. [`normalise()`] is such a text for people to read: `$n` for each constant, as `pg_stat_statements`
//! writes it. The number does not change between processes and machines; it may between versions.
//!
//! Both look at words, not at grammar, so they differ from `pg_stat_statements` here and there: each literal is a constant,
//! also the `10` of `varchar(10)` and of `ORDER BY 10`; `true` and `null` are none; a parameter is not a constant, but counts
//! as one kind of element in a list. Strings are read with `standard_conforming_strings = on`.

mod items;
mod outline;

use items::{Items, Kind};
pub(crate) use outline::outline;

use crate::lexer::{Lexer, Token};

/// Odd numbers with as many ones as zeroes: the digits of pi.
const SEED: u64 = 0x243f_6a88_85a3_08d3;
const STEP: u64 = 0x1319_8a2e_0370_7345;

/// The number that stands for all texts like this one. It allocates nothing.
#[must_use]
pub fn fingerprint(text: &[u8]) -> u64 {
    seeded(text, SEED)
}

/// The same from another beginning: where it is secret, nobody can make two texts meet.
#[must_use]
pub(crate) fn seeded(text: &[u8], seed: u64) -> u64 {
    let mut hash = seed;
    for item in Items::new(text) {
        hash = match item.kind {
            Kind::Word => folded(hash, item.of(text)),
            Kind::Quoted | Kind::Parameter => exact(hash, item.of(text)),
            Kind::Symbol(symbol) => mix(hash, u64::from(symbol) | 1 << 32),
            Kind::Constant => mix(hash, 2 << 32),
            Kind::More => mix(hash, 3 << 32),
        };
    }
    hash
}

/// The text with `$n` for each constant, numbered from the highest parameter on; lists of one kind are cut after their
/// first element. A text that sets a role's password is hidden, whatever it looks like.
#[must_use]
pub fn normalise(text: &[u8]) -> String {
    if let Some(hidden) = hidden(text) {
        return hidden;
    }
    let highest = Items::new(text)
        .filter(|item| item.kind == Kind::Parameter)
        .filter_map(|item| std::str::from_utf8(&item.of(text)[1..]).ok()?.parse().ok())
        .max();
    let mut number: u64 = highest.map_or(0, |highest: u32| highest.into());
    let mut out = String::with_capacity(text.len().min(4096));
    let mut end = 0;
    for item in Items::new(text) {
        if item.start > end && !out.is_empty() {
            out.push(' ');
        }
        end = item.end;
        match item.kind {
            Kind::Constant => {
                number += 1;
                out.push('$');
                out.push_str(&number.to_string());
            }
            Kind::More => out.push_str(if out.ends_with(' ') {
                "/*, ... */"
            } else {
                " /*, ... */"
            }),
            _ => out.push_str(&String::from_utf8_lossy(item.of(text))),
        }
    }
    out
}

/// What is shown of a text with `CREATE`/`ALTER` `ROLE`/`USER`/`GROUP` and `PASSWORD` in one of its statements.
///
/// The password is a constant and would be left out anyway, if the text is well-formed. Who types a password wrongly quoted
/// wants it seen by nobody either.
fn hidden(text: &[u8]) -> Option<String> {
    let mut head: Option<[&[u8]; 2]> = None;
    let mut tokens = Lexer::new(text);
    let mut begins = true;
    while let Some(token) = tokens.next() {
        if let Some(head) = head {
            if token.is("password") {
                let head = String::from_utf8_lossy(&head.join(&b' ')).into_owned();
                return Some(format!("{head} /* hidden: a password */"));
            }
        } else if begins && ["create", "alter"].iter().any(|verb| token.is(verb)) {
            // To the end of the text, not of the statement: a wrong quote moves the semicolons.
            head = match (token, tokens.clone().next()) {
                (Token::Word(verb), Some(Token::Word(role))) if is_role(role) => Some([verb, role]),
                _ => None,
            };
        }
        begins = token == Token::Symbol(b';');
    }
    None
}

fn is_role(word: &[u8]) -> bool {
    ["role", "user", "group"]
        .iter()
        .any(|role| word.eq_ignore_ascii_case(role.as_bytes()))
}

/// A number for these very bytes, constants and all.
#[must_use]
pub(crate) fn of_bytes(text: &[u8], seed: u64) -> u64 {
    exact(mix(seed, 5 << 32), text)
}

/// Takes eight bytes more into the hash.
#[inline]
fn mix(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word) * u128::from(STEP);
    // A factor of zero would forget all before it.
    ((product as u64) ^ ((product >> 64) as u64)).wrapping_add(SEED ^ word.rotate_left(32))
}

/// Takes an unquoted word in, whatever its case.
#[inline]
fn folded(hash: u64, bytes: &[u8]) -> u64 {
    each(bytes, mix(hash, bytes.len() as u64), lower)
}

/// Takes bytes in as they are.
#[inline]
fn exact(hash: u64, bytes: &[u8]) -> u64 {
    each(bytes, mix(hash, bytes.len() as u64 | 4 << 32), |word| word)
}

/// Eight bytes at a time; the last ones with zeroes behind them.
#[inline]
fn each(bytes: &[u8], mut hash: u64, changed: impl Fn(u64) -> u64) -> u64 {
    let (whole, rest) = bytes.as_chunks::<8>();
    for &chunk in whole {
        hash = mix(hash, changed(u64::from_le_bytes(chunk)));
    }
    if !rest.is_empty() {
        let mut last = 0;
        for &byte in rest.iter().rev() {
            last = last << 8 | u64::from(byte);
        }
        hash = mix(hash, changed(last));
    }
    hash
}

/// The ASCII capitals among eight bytes made small.
#[inline]
fn lower(word: u64) -> u64 {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    let seven = word & (EACH * 0x7f);
    let from_a = seven + EACH * (0x80 - b'A' as u64);
    let above_z = seven + EACH * (0x7f - b'Z' as u64);
    let capital = (from_a ^ above_z) & !word & (EACH * 0x80);
    word | capital >> 2
}

#[cfg(test)]
mod tests;
