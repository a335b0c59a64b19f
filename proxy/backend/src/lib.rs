//! Server connections: opening, pooling, the state each one is in, and what it has prepared.
//!
//! This crate knows nothing of clients' sessions and of SQL. It turns a pool into a [`Server`] on loan; whoever has it
//! speaks the protocol on it and keeps [`Server::owed`] in step, and gives it back only when it is at rest.
#![forbid(unsafe_code)]

pub mod balance;
pub mod budget;
pub mod cancel;
pub mod clock;
pub mod cluster;
pub mod database;
pub mod error;
pub mod expect;
mod gate;
mod grow;
pub mod handle;
pub mod host;
pub mod hosts;
pub mod listener;
pub mod login;
mod monitor;
pub mod params;
pub mod plans;
pub mod pool;
pub mod probe;
mod replay;
pub mod roles;
pub mod server;
pub mod statements;
pub mod stats;
mod wait;

pub use budget::{Budgets, HostBudget, HostLimits, HostPlace, Places};
pub use clock::Clock;
pub use cluster::{Cluster, Member, ReadNeed};
pub use database::{DatabaseState, NoPrimary, Writer};
pub use error::{CheckoutError, ServerError};
pub use expect::{Expect, Owed, Verdict};
pub use handle::{ServerHandle, ServerState};
pub use host::{Ban, HostOptions, HostState, Reason, Role};
pub use hosts::{HostSpec, Hosts, Prepared};
pub use listener::{ChannelFigures, Listener, ListenerCounters, Mail, Mailbox};
pub use login::{Passed, Target};
pub use params::{Interner, Params, Value};
pub use plans::Plans;
pub use pool::{Pool, PoolFigures, Waiting};
pub use server::{Rows, Server};
pub use statements::{Statement, StatementId, Store, StoreCounts};
