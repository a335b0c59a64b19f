//! Messages of a server: builders for those that the proxy sends to clients, views on those that it must understand.

use crate::frame::cstr;
use crate::write::{self, message};

/// A server's state as its ReadyForQuery tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// Not in a transaction block.
    Idle,
    /// In a transaction block.
    InTransaction,
    /// In a transaction block that failed.
    Failed,
}

impl TransactionStatus {
    /// Reads the status byte of a ReadyForQuery.
    #[inline]
    #[must_use]
    pub fn read(body: &[u8]) -> Option<Self> {
        match body {
            b"I" => Some(Self::Idle),
            b"T" => Some(Self::InTransaction),
            b"E" => Some(Self::Failed),
            _ => None,
        }
    }

    /// The byte on the wire.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InTransaction => b'T',
            Self::Failed => b'E',
        }
    }
}

/// An authentication request of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// The login is done.
    Ok,
    /// The password is wanted in clear.
    Cleartext,
    /// The password is wanted as an MD5 hash with this salt.
    Md5([u8; 4]),
    /// A SASL exchange begins; the mechanisms as a list of C strings.
    Sasl(&'a [u8]),
    /// The exchange goes on.
    SaslContinue(&'a [u8]),
    /// The exchange ends.
    SaslFinal(&'a [u8]),
    /// A method that this proxy does not speak, by its number.
    Other(i32),
}

impl<'a> Authentication<'a> {
    /// Reads the body of an authentication request.
    #[must_use]
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let (code, rest) = body.split_first_chunk::<4>()?;
        Some(match i32::from_be_bytes(*code) {
            0 => Self::Ok,
            3 => Self::Cleartext,
            5 => Self::Md5(*rest.first_chunk()?),
            10 => Self::Sasl(rest),
            11 => Self::SaslContinue(rest),
            12 => Self::SaslFinal(rest),
            other => Self::Other(other),
        })
    }

    /// Appends it.
    pub fn write(&self, out: &mut Vec<u8>) {
        let (code, data): (i32, &[u8]) = match self {
            Self::Ok => (0, &[]),
            Self::Cleartext => (3, &[]),
            Self::Md5(salt) => (5, salt),
            Self::Sasl(data) => (10, data),
            Self::SaslContinue(data) => (11, data),
            Self::SaslFinal(data) => (12, data),
            Self::Other(code) => (*code, &[]),
        };
        message(out, b'R', |b| {
            b.extend_from_slice(&code.to_be_bytes());
            b.extend_from_slice(data);
        });
    }
}

/// The SASL mechanisms in an [`Authentication::Sasl`] request.
pub fn mechanisms(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (name, rest) = cstr(list)?;
        list = rest;
        (!name.is_empty()).then_some(name)
    })
}

/// What a CommandComplete says was done to rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// INSERT.
    Inserted(u64),
    /// UPDATE.
    Updated(u64),
    /// DELETE.
    Deleted(u64),
}

/// Reads a CommandComplete's tag: `None` when it changes no rows, or does not say how many (MERGE does not say which).
#[must_use]
pub fn read_changed(body: &[u8]) -> Option<Changed> {
    let rows = || {
        let tag = body.strip_suffix(b"\0").unwrap_or(body);
        let digits = tag.rsplit(|b| *b == b' ').next()?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    };
    match body {
        [b'I', b'N', b'S', ..] => rows().map(Changed::Inserted),
        [b'U', b'P', b'D', ..] => rows().map(Changed::Updated),
        [b'D', b'E', b'L', ..] => rows().map(Changed::Deleted),
        _ => None,
    }
}

/// Reads a ParameterStatus: name and value.
#[must_use]
pub fn read_parameter_status(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, rest) = cstr(body)?;
    let (value, _) = cstr(rest)?;
    Some((name, value))
}

/// Reads a BackendKeyData: process id and secret (4 bytes in protocol 3.0, up to 256 in 3.2).
#[must_use]
pub fn read_key_data(body: &[u8]) -> Option<(u32, &[u8])> {
    let (pid, secret) = body.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*pid), secret))
}

/// The text columns of a DataRow in text format; `None` stands for NULL. Malformed rows give no columns.
#[must_use]
pub fn read_row(body: &[u8]) -> Vec<Option<&[u8]>> {
    let mut columns = Vec::new();
    let Some((count, mut rest)) = body.split_first_chunk::<2>() else {
        return columns;
    };
    for _ in 0..u16::from_be_bytes(*count) {
        let Some((length, after)) = rest.split_first_chunk::<4>() else {
            return Vec::new();
        };
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            columns.push(None);
            rest = after;
            continue;
        };
        let Some((value, after)) = after.split_at_checked(length) else {
            return Vec::new();
        };
        columns.push(Some(value));
        rest = after;
    }
    columns
}

/// Appends a ReadyForQuery.
pub fn ready(out: &mut Vec<u8>, status: TransactionStatus) {
    out.extend_from_slice(&[b'Z', 0, 0, 0, 5, status.byte()]);
}

/// Appends a message that has no body (`b'1'` ParseComplete, `b'3'` CloseComplete, `b'I'` EmptyQueryResponse …).
pub fn bare(out: &mut Vec<u8>, kind: u8) {
    out.extend_from_slice(&[kind, 0, 0, 0, 4]);
}

/// Appends a CommandComplete with its tag.
pub fn command_complete(out: &mut Vec<u8>, tag: &str) {
    message(out, b'C', |b| write::cstr(b, tag.as_bytes()));
}

/// Appends a ParameterStatus.
pub fn parameter_status(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    message(out, b'S', |b| {
        write::cstr(b, name);
        write::cstr(b, value);
    });
}

/// Appends a BackendKeyData.
pub fn key_data(out: &mut Vec<u8>, pid: u32, secret: &[u8]) {
    message(out, b'K', |b| {
        b.extend_from_slice(&pid.to_be_bytes());
        b.extend_from_slice(secret);
    });
}

/// Appends a NegotiateProtocolVersion: the newest minor version spoken here (the whole version number), and the `_pq_.` options not known.
pub fn negotiate_version(out: &mut Vec<u8>, version: u32, unknown: &[&str]) {
    message(out, b'v', |b| {
        b.extend_from_slice(&version.to_be_bytes());
        b.extend_from_slice(
            &u32::try_from(unknown.len())
                .unwrap_or(u32::MAX)
                .to_be_bytes(),
        );
        for name in unknown {
            write::cstr(b, name.as_bytes());
        }
    });
}

/// Appends a RowDescription of text columns.
pub fn text_columns(out: &mut Vec<u8>, names: &[&str]) {
    const TEXT_OID: u32 = 25;
    message(out, b'T', |b| {
        b.extend_from_slice(&(names.len() as u16).to_be_bytes());
        for name in names {
            write::cstr(b, name.as_bytes());
            b.extend_from_slice(&[0; 6]);
            b.extend_from_slice(&TEXT_OID.to_be_bytes());
            b.extend_from_slice(&(-1i16).to_be_bytes());
            b.extend_from_slice(&(-1i32).to_be_bytes());
            b.extend_from_slice(&[0; 2]);
        }
    });
}

/// Appends a DataRow of text values.
pub fn text_row(out: &mut Vec<u8>, values: &[&str]) {
    message(out, b'D', |b| {
        b.extend_from_slice(&(values.len() as u16).to_be_bytes());
        for value in values {
            b.extend_from_slice(&(value.len() as u32).to_be_bytes());
            b.extend_from_slice(value.as_bytes());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::split;

    #[test]
    fn rows_read_back_and_torn_rows_are_empty() {
        let mut out = Vec::new();
        text_row(&mut out, &["a", ""]);
        let (frame, _) = split(&out).unwrap().unwrap();
        assert_eq!(read_row(frame.body), [Some(&b"a"[..]), Some(&b""[..])]);
        assert!(read_row(&frame.body[..7]).is_empty());
        assert_eq!(read_row(&[0, 1, 255, 255, 255, 255]), [None]);
    }

    #[test]
    fn authentication_requests_read_back() {
        for request in [
            Authentication::Ok,
            Authentication::Md5([1, 2, 3, 4]),
            Authentication::Sasl(b"X\0\0"),
            Authentication::Other(9),
        ] {
            let mut out = Vec::new();
            request.write(&mut out);
            let (frame, _) = split(&out).unwrap().unwrap();
            assert_eq!(Authentication::read(frame.body), Some(request));
        }
        assert_eq!(mechanisms(b"A\0B\0\0").collect::<Vec<_>>(), [b"A", b"B"]);
    }
}
