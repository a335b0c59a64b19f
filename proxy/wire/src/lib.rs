//! PostgreSQL's wire protocol as bytes: frames, messages as borrowed views, builders, startup packets, SQLSTATE errors,
//! and authentication as state machines without IO.
//!
//! This crate knows nothing of sockets, pools or configuration. Everything takes bytes and gives bytes.
//! Reference: <https://www.postgresql.org/docs/current/protocol-message-formats.html>.
#![forbid(unsafe_code)]

pub mod backend;
pub mod buffer;
pub mod error;
pub mod frame;
pub mod frontend;
pub mod md5;
pub mod saslprep;
pub mod scram;
pub mod startup;
pub mod write;

pub use error::{ClientError, ErrorResponse, Severity, sqlstate};
pub use frame::{FrameError, Header};
