//! A client's session: login, the loop, transactions, settings, prepared statements, pinning.
//!
//! The only place where the text of statements (`sql`) and server connections (`backend`) meet. This crate knows nothing
//! of listeners, signals and the admin console.
#![forbid(unsafe_code)]

mod active;
mod anew;
pub mod catalogue;
pub mod client;
pub mod gates;
pub mod guard;
pub mod guests;
pub mod handle;
pub mod insight;
pub mod login;
pub mod metrics;
pub mod mirror;
mod named;
mod naming;
mod notify;
mod prepare;
mod recover;
pub mod registry;
mod relay;
pub mod replication;
mod requests;
mod resets;
pub mod route;
pub mod runtime;
mod sequences;
mod settle;
mod statements;
mod tally;
mod watch;

pub use client::{Client, Ended};
pub use gates::{Gates, Scope};
pub use guests::{Entrance, EntranceHost};
pub use handle::{ClientHandle, ClientKind, Doing, Identity, Signal};
pub use login::{Console, Login, login};
pub use metrics::Metrics;
pub use mirror::{MirrorView, Mirrors};
pub use registry::Registry;
pub use replication::Replication;
pub use runtime::{Account, Live, LoginRules, Runtime, Secrets};
