//! What only the process as a whole can do. Whoever runs it gives the console this way to it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use pgdog_backend::Target;
use pgdog_config::api::Finding;
use pgdog_config::{Config, PoolSettings};

/// Something that the process is told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Read the configuration again. What [`Order::Set`] changed is forgotten.
    Reload,
    /// Change a key of `[general]` until the next reload; `None` is its default.
    Set {
        /// The key.
        key: String,
        /// Its new value, as it would be typed.
        value: Option<String>,
    },
    /// End.
    Shutdown(Shutdown),
}

/// How to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// As on SIGTERM: clients may finish their transactions within `shutdown_timeout`.
    Drain,
    /// Clients may finish their transactions, however long that takes.
    WaitForServers,
    /// Nobody new is let in, and clients stay for as long as they like.
    WaitForClients,
}

/// What came of an order: warnings, or all that stands against it.
pub type Outcome = Result<Vec<Finding>, String>;
/// The outcome to come.
pub type Ordered = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// The process.
pub trait Process: Send + Sync {
    /// Tells it to do something.
    fn order(&self, order: Order) -> Ordered;

    /// The configuration in force, as it was written and changed since.
    ///
    /// # Errors
    ///
    /// Never, short of a defect.
    fn config(&self) -> Result<Arc<Config>, String>;

    /// How the servers of a pool would be reached.
    ///
    /// # Errors
    ///
    /// What stands against it, a certificate that cannot be read for instance.
    fn target(&self, pool: &PoolSettings) -> Result<Target, String>;
}
