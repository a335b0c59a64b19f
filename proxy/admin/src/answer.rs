//! What a command gives, and the errors that several commands share.

use pgdog_wire::error::Severity;
use pgdog_wire::{ErrorResponse, sqlstate};

use crate::table::Value;

/// What a command gives back.
#[derive(Debug, Default)]
pub struct Answer {
    /// What is to be said besides.
    pub notices: Vec<ErrorResponse>,
    /// Rows with a value for each of the command's columns.
    pub rows: Vec<Vec<Value>>,
}

impl Answer {
    /// Rows.
    #[must_use]
    pub fn rows(rows: Vec<Vec<Value>>) -> Self {
        Self {
            rows,
            notices: Vec::new(),
        }
    }

    /// Nothing but advice.
    #[must_use]
    pub fn notice(text: impl Into<String>) -> Self {
        Self::default().and_notice(text)
    }

    /// The same with advice.
    #[must_use]
    pub fn and_notice(mut self, text: impl Into<String>) -> Self {
        self.notices.push(ErrorResponse {
            severity: Severity::Notice,
            ..ErrorResponse::error("00000", text)
        });
        self
    }

    /// The same with a warning.
    #[must_use]
    pub fn and_warning(mut self, text: impl Into<String>) -> Self {
        self.notices.push(ErrorResponse {
            severity: Severity::Warning,
            ..ErrorResponse::error("01000", text)
        });
        self
    }
}

/// Why a command was not done: an error that the client is told. Boxed, for it is large and rare.
#[derive(Debug)]
pub struct Refusal(Box<ErrorResponse>);

impl Refusal {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        ErrorResponse::error(code, message).into()
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        self.0.hint(hint).into()
    }

    pub(crate) fn detail(self, detail: impl Into<String>) -> Self {
        self.0.detail(detail).into()
    }
}

impl From<ErrorResponse> for Refusal {
    fn from(error: ErrorResponse) -> Self {
        Self(Box::new(error))
    }
}

impl std::ops::Deref for Refusal {
    type Target = ErrorResponse;

    fn deref(&self) -> &ErrorResponse {
        &self.0
    }
}

/// A command that is not written as it has to be.
pub(crate) fn syntax(message: impl Into<String>) -> Refusal {
    Refusal::new(sqlstate::SYNTAX_ERROR, message)
}

/// A value that a command cannot take.
pub(crate) fn bad_value(message: impl Into<String>) -> Refusal {
    Refusal::new(sqlstate::INVALID_PARAMETER_VALUE, message)
}

/// Something that is not there.
pub(crate) fn unsupported(message: impl Into<String>) -> Refusal {
    Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message)
}
