//! Errors as PostgreSQL's clients see them: a severity, an SQLSTATE and a text.

use crate::frame;
use crate::write;

/// SQLSTATE codes that the proxy itself gives. Source: PostgreSQL's `errcodes.txt`.
pub mod sqlstate {
    #![allow(missing_docs, reason = "each name is the code's own condition name")]
    pub const CONNECTION_FAILURE: &str = "08006";
    pub const CANNOT_CONNECT: &str = "08001";
    pub const CONNECTION_REJECTED: &str = "08004";
    pub const PROTOCOL_VIOLATION: &str = "08P01";
    pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
    pub const INVALID_PARAMETER_VALUE: &str = "22023";
    pub const ACTIVE_TRANSACTION: &str = "25001";
    pub const READ_ONLY_SQL_TRANSACTION: &str = "25006";
    pub const IN_FAILED_TRANSACTION: &str = "25P02";
    pub const IDLE_IN_TRANSACTION_TIMEOUT: &str = "25P03";
    pub const TRANSACTION_TIMEOUT: &str = "25P04";
    pub const INVALID_STATEMENT_NAME: &str = "26000";
    pub const INVALID_AUTHORIZATION: &str = "28000";
    pub const INVALID_PASSWORD: &str = "28P01";
    pub const UNDEFINED_DATABASE: &str = "3D000";
    pub const DUPLICATE_PREPARED_STATEMENT: &str = "42P05";
    pub const SERIALIZATION_FAILURE: &str = "40001";
    pub const SYNTAX_ERROR: &str = "42601";
    pub const TOO_MANY_CONNECTIONS: &str = "53300";
    pub const CONFIGURATION_LIMIT: &str = "53400";
    pub const PROGRAM_LIMIT_EXCEEDED: &str = "54000";
    pub const NOT_IN_STATE: &str = "55000";
    pub const QUERY_CANCELED: &str = "57014";
    pub const ADMIN_SHUTDOWN: &str = "57P01";
    pub const CANNOT_CONNECT_NOW: &str = "57P03";
    pub const IDLE_SESSION_TIMEOUT: &str = "57P05";
    pub const SYSTEM_ERROR: &str = "58000";
    pub const CONFIG_FILE_ERROR: &str = "F0000";
    pub const INTERNAL_ERROR: &str = "XX000";
}

/// How bad an error is: whether the connection lives on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed; the connection lives.
    Error,
    /// The connection ends.
    Fatal,
    /// Advice.
    Notice,
    /// A warning, sent as a NoticeResponse.
    Warning,
}

impl Severity {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Notice => "NOTICE",
            Self::Warning => "WARNING",
        }
    }
}

/// An ErrorResponse or NoticeResponse to be built, or one that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorResponse {
    /// Whether the connection ends with it.
    pub severity: Severity,
    /// Five letters or digits, see [`sqlstate`].
    pub code: String,
    /// The text, without secrets.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// The way out.
    pub hint: Option<String>,
    /// The function of PostgreSQL that raises it: drivers recognise a few errors by it alone.
    pub routine: Option<String>,
}

impl ErrorResponse {
    /// An error after which the connection lives.
    pub fn error(code: &str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code: code.to_owned(),
            message: message.into(),
            detail: None,
            hint: None,
            routine: None,
        }
    }

    /// An error that ends the connection.
    pub fn fatal(code: &str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Fatal,
            ..Self::error(code, message)
        }
    }

    /// The same with a detail.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same from a function of PostgreSQL.
    #[must_use]
    pub fn routine(mut self, name: impl Into<String>) -> Self {
        self.routine = Some(name.into());
        self
    }

    /// The same, and the connection ends with it.
    #[must_use]
    pub fn into_fatal(self) -> Self {
        Self {
            severity: Severity::Fatal,
            ..self
        }
    }

    /// Appends it as a message: ErrorResponse, or NoticeResponse for a notice or warning.
    pub fn write(&self, out: &mut Vec<u8>) {
        let kind = match self.severity {
            Severity::Error | Severity::Fatal => b'E',
            Severity::Notice | Severity::Warning => b'N',
        };
        write::message(out, kind, |b| {
            let mut field = |tag: u8, text: &str| {
                b.push(tag);
                write::cstr(b, text.as_bytes());
            };
            field(b'S', self.severity.as_str());
            field(b'V', self.severity.as_str());
            field(b'C', &self.code);
            field(b'M', &self.message);
            if let Some(detail) = &self.detail {
                field(b'D', detail);
            }
            if let Some(hint) = &self.hint {
                field(b'H', hint);
            }
            if let Some(routine) = &self.routine {
                field(b'R', routine);
            }
            b.push(0);
        });
    }

    /// Reads the body of an ErrorResponse. Missing fields read as empty, an unknown severity as an error:
    /// servers in odd states leave fields out.
    #[must_use]
    pub fn read(body: &[u8]) -> Self {
        let text = |tag| field(body, tag).map(|t| String::from_utf8_lossy(t).into_owned());
        let severity = match field(body, b'V').or_else(|| field(body, b'S')) {
            Some(b"FATAL" | b"PANIC") => Severity::Fatal,
            _ => Severity::Error,
        };
        Self {
            severity,
            code: text(b'C').unwrap_or_else(|| sqlstate::INTERNAL_ERROR.to_owned()),
            message: text(b'M').unwrap_or_default(),
            detail: text(b'D'),
            hint: text(b'H'),
            routine: text(b'R'),
        }
    }
}

/// One field of an ErrorResponse's or NoticeResponse's body, by its tag.
#[must_use]
pub fn field(mut body: &[u8], tag: u8) -> Option<&[u8]> {
    while let Some((&t, rest)) = body.split_first() {
        if t == 0 {
            return None;
        }
        let (text, rest) = frame::cstr(rest)?;
        if t == tag {
            return Some(text);
        }
        body = rest;
    }
    None
}

/// The body of an ErrorResponse with another text in one field, which is there.
#[must_use]
pub fn with_field(body: &[u8], tag: u8, text: &[u8]) -> Vec<u8> {
    let Some(old) = field(body, tag) else {
        return body.to_vec();
    };
    // A slice of the body: its place is how far its address is from the body's.
    let start = old.as_ptr() as usize - body.as_ptr() as usize;
    [&body[..start], text, &body[start + old.len()..]].concat()
}

/// What any error that can reach a client must answer. Never implemented for errors of unknown kind.
pub trait ClientError: std::error::Error {
    /// What the client sees: SQLSTATE and a text that holds no secret.
    fn response(&self) -> ErrorResponse;

    /// Whether the server connection that was in use is still in a known state.
    fn server_reusable(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::split;

    #[test]
    fn what_is_written_reads_back() {
        let error = ErrorResponse::fatal(sqlstate::ADMIN_SHUTDOWN, "going away").hint("come back");
        let mut out = Vec::new();
        error.write(&mut out);
        let (frame, len) = split(&out).unwrap().unwrap();
        assert_eq!((frame.kind, len), (b'E', out.len()));
        assert_eq!(ErrorResponse::read(frame.body), error);
    }

    #[test]
    fn a_fatal_error_says_the_same() {
        let error = ErrorResponse::error(sqlstate::QUERY_CANCELED, "enough").detail("of it");
        let fatal = ErrorResponse::fatal(sqlstate::QUERY_CANCELED, "enough").detail("of it");
        assert_eq!(error.into_fatal(), fatal);
        assert_eq!(fatal.clone().into_fatal(), fatal);
    }

    #[test]
    fn one_field_is_replaced_and_the_others_stay() {
        let body = b"SERROR\0P123\0Mtext\0\0";
        assert_eq!(with_field(body, b'P', b"9"), b"SERROR\0P9\0Mtext\0\0");
        assert_eq!(with_field(body, b'q', b"9"), body);
    }

    #[test]
    fn an_error_without_fields_is_still_an_error() {
        assert_eq!(ErrorResponse::read(b"").code, "XX000");
        assert_eq!(ErrorResponse::read(b"Mno end").message, "");
    }
}
