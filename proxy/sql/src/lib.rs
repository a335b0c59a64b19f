//! What a statement's text says, as far as pooling must know it.
//!
//! [`effects()`] answers, for a whole query string, which state of the server session it may change. It looks at words, not
//! at grammar: it may say "may change" where nothing changes (that costs a question to the server), never the reverse for
//! what can be seen in the text. [`lexer`] follows PostgreSQL's lexical rules (`scan.l`).
//! [`fingerprint()`] tells queries apart but for their constants. [`kinds()`] tells what kinds of statements there are.
//!
//! [`Planner`] tells where a query string may run, by PostgreSQL's own grammar: [`facts`] is what it finds in the tree,
//! [`functions`] what a database says of its functions, [`mod@hints`] what comments ask for.
//! This crate knows nothing of connections.
#![forbid(unsafe_code)]

pub mod effects;
pub mod facts;
pub mod fingerprint;
pub mod functions;
pub mod hints;
pub mod kinds;
pub mod lexer;
pub mod names;
pub mod planner;
pub mod route;
pub mod set;

pub use effects::{Effects, effects, effects_but_prepare, names_moment};
pub use facts::Facts;
pub use fingerprint::{fingerprint, normalise};
pub use functions::Functions;
pub use hints::{RoleHint, hints};
pub use kinds::{Kinds, kinds};
pub use planner::Planner;
pub use route::{Begins, Place, Route, Why};
