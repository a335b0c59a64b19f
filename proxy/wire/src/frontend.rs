//! Messages of a client: views on those that a decision needs, and builders for those that the proxy sends to servers.

use crate::frame::cstr;
use crate::write::{self, message};

/// A Parse message's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parse<'a> {
    /// The statement's name, empty for the unnamed one.
    pub name: &'a [u8],
    /// The query text.
    pub query: &'a [u8],
    /// The parameter types as they stand on the wire: a count and that many OIDs.
    pub types: &'a [u8],
}

impl<'a> Parse<'a> {
    /// Reads the body; `None` when it is malformed.
    #[inline]
    #[must_use]
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let (name, rest) = cstr(body)?;
        let (query, types) = cstr(rest)?;
        let count = i16::from_be_bytes(*types.first_chunk()?);
        (usize::try_from(count).ok()? * 4 + 2 == types.len()).then_some(Self { name, query, types })
    }
}

/// The names at the start of a Bind message's body. The rest is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindNames<'a> {
    /// The portal's name, empty for the unnamed one.
    pub portal: &'a [u8],
    /// The statement's name, empty for the unnamed one.
    pub statement: &'a [u8],
    /// Bytes of both names with their NULs.
    pub len: usize,
}

impl<'a> BindNames<'a> {
    /// Reads the names; `None` when the bytes end before the second.
    #[inline]
    #[must_use]
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let (portal, rest) = cstr(body)?;
        let (statement, _) = cstr(rest)?;
        Some(Self {
            portal,
            statement,
            len: portal.len() + statement.len() + 2,
        })
    }
}

/// What a Describe or Close speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A prepared statement.
    Statement(&'a [u8]),
    /// A portal.
    Portal(&'a [u8]),
}

impl<'a> Target<'a> {
    /// Reads the body of a Describe or Close; `None` when it is malformed.
    #[must_use]
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let (&kind, rest) = body.split_first()?;
        let (name, rest) = cstr(rest)?;
        match kind {
            _ if !rest.is_empty() => None,
            b'S' => Some(Self::Statement(name)),
            b'P' => Some(Self::Portal(name)),
            _ => None,
        }
    }
}

/// The text of a Query message's body, `None` when its NUL is missing or not at the end.
#[inline]
#[must_use]
pub fn query_text(body: &[u8]) -> Option<&[u8]> {
    let (&last, text) = body.split_last()?;
    (last == 0).then_some(text)
}

/// Appends a Query.
pub fn query(out: &mut Vec<u8>, text: &[u8]) {
    message(out, b'Q', |b| write::cstr(b, text));
}

/// Appends a Parse; `types` as in [`Parse::types`].
pub fn parse(out: &mut Vec<u8>, name: &[u8], text: &[u8], types: &[u8]) {
    message(out, b'P', |b| {
        write::cstr(b, name);
        write::cstr(b, text);
        b.extend_from_slice(types);
    });
}

/// Appends a Describe or Close (`kind` is `b'D'` or `b'C'`) of a statement.
pub fn of_statement(out: &mut Vec<u8>, kind: u8, name: &[u8]) {
    message(out, kind, |b| {
        b.push(b'S');
        write::cstr(b, name);
    });
}

/// Appends a Bind of the named statement to the unnamed portal without parameters.
pub fn bind_plain(out: &mut Vec<u8>, statement: &[u8]) {
    message(out, b'B', |b| {
        b.push(0);
        write::cstr(b, statement);
        b.extend_from_slice(&[0; 6]);
    });
}

/// Appends a Bind of the unnamed statement to the unnamed portal, with parameters and results in text.
pub fn bind_texts(out: &mut Vec<u8>, parameters: &[&str]) {
    message(out, b'B', |b| {
        b.extend_from_slice(&[0; 4]);
        let count = i16::try_from(parameters.len()).unwrap_or(i16::MAX);
        b.extend_from_slice(&count.to_be_bytes());
        for parameter in parameters {
            let length = i32::try_from(parameter.len()).unwrap_or(i32::MAX);
            b.extend_from_slice(&length.to_be_bytes());
            b.extend_from_slice(parameter.as_bytes());
        }
        b.extend_from_slice(&[0; 2]);
    });
}

/// Appends an Execute of the unnamed portal to its end.
pub fn execute(out: &mut Vec<u8>) {
    message(out, b'E', |b| b.extend_from_slice(&[0; 5]));
}

/// Appends a Parse, Bind and Execute of a text, all under one name, and a Close of the portal. What an earlier failure may
/// have left under that name is closed before.
pub fn run_named(out: &mut Vec<u8>, name: &[u8], text: &[u8]) {
    of_statement(out, b'C', name);
    parse(out, name, text, &[0, 0]);
    message(out, b'B', |b| {
        write::cstr(b, name);
        write::cstr(b, name);
        b.extend_from_slice(&[0; 6]);
    });
    message(out, b'E', |b| {
        write::cstr(b, name);
        b.extend_from_slice(&[0; 4]);
    });
    message(out, b'C', |b| {
        b.push(b'P');
        write::cstr(b, name);
    });
}

/// Appends a message that has no body (`b'S'` Sync, `b'H'` Flush, `b'X'` Terminate, `b'c'` CopyDone).
pub fn bare(out: &mut Vec<u8>, kind: u8) {
    out.extend_from_slice(&[kind, 0, 0, 0, 4]);
}

/// Appends a CopyFail with its reason.
pub fn copy_fail(out: &mut Vec<u8>, reason: &str) {
    message(out, b'f', |b| write::cstr(b, reason.as_bytes()));
}

/// Appends a password message: a cleartext or md5 password.
pub fn password(out: &mut Vec<u8>, secret: &[u8]) {
    message(out, b'p', |b| write::cstr(b, secret));
}

/// Appends a SASLInitialResponse.
pub fn sasl_initial(out: &mut Vec<u8>, mechanism: &str, data: &[u8]) {
    message(out, b'p', |b| {
        write::cstr(b, mechanism.as_bytes());
        b.extend_from_slice(&i32::try_from(data.len()).unwrap_or(i32::MAX).to_be_bytes());
        b.extend_from_slice(data);
    });
}

/// Reads a SASLInitialResponse: the mechanism and the data.
#[must_use]
pub fn read_sasl_initial(body: &[u8]) -> Option<(&str, &[u8])> {
    let (mechanism, rest) = cstr(body)?;
    let (length, data) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(i32::from_be_bytes(*length)).ok()?;
    (data.len() == length).then_some((std::str::from_utf8(mechanism).ok()?, data))
}

/// Appends a SASLResponse.
pub fn sasl_response(out: &mut Vec<u8>, data: &[u8]) {
    message(out, b'p', |b| b.extend_from_slice(data));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::split;

    #[test]
    fn a_parse_reads_back() {
        let mut out = Vec::new();
        parse(&mut out, b"s1", b"select $1", &[0, 1, 0, 0, 0, 23]);
        let (frame, _) = split(&out).unwrap().unwrap();
        let read = Parse::read(frame.body).unwrap();
        assert_eq!(
            (read.name, read.query, read.types.len()),
            (&b"s1"[..], &b"select $1"[..], 6)
        );
        assert_eq!(Parse::read(&frame.body[..frame.body.len() - 1]), None);
    }

    #[test]
    fn a_bind_needs_only_its_names() {
        let names = BindNames::read(b"p\0st\0\0\0").unwrap();
        assert_eq!(
            (names.portal, names.statement, names.len),
            (&b"p"[..], &b"st"[..], 5)
        );
        assert_eq!(BindNames::read(b"p\0st"), None);
    }

    #[test]
    fn targets_are_statements_or_portals() {
        assert_eq!(Target::read(b"Sx\0"), Some(Target::Statement(b"x")));
        assert_eq!(Target::read(b"P\0"), Some(Target::Portal(b"")));
        for bad in [&b""[..], b"S", b"Sx", b"Qx\0", b"Sx\0y"] {
            assert_eq!(Target::read(bad), None);
        }
    }
}
