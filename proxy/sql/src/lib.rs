//! What a statement's text says, as far as pooling must know it.
//!
//! [`effects()`] answers, for a whole query string, which state of the server session it may change. It looks at words, not
//! at grammar: it may say "may change" where nothing changes (that costs a question to the server), never the reverse for
//! what can be seen in the text. [`lexer`] follows PostgreSQL's lexical rules (`scan.l`).
//! [`fingerprint()`] tells queries apart but for their constants. [`kinds()`] tells what kinds of statements there are.
//! This crate knows nothing of connections.
#![forbid(unsafe_code)]

pub mod effects;
pub mod fingerprint;
pub mod kinds;
pub mod lexer;
pub mod names;
pub mod set;

pub use effects::{Effects, effects, effects_but_prepare};
pub use fingerprint::{fingerprint, normalise};
pub use kinds::{Kinds, kinds};
