//! What the integration tests are made of: throwaway Postgres clusters, a running proxy, and a client
//! that speaks the wire protocol message by message.
//!
//! Everything here panics when it cannot do its work, since a panic is how a test fails. Nothing here uses the
//! proxy's own crates: what checks the proxy must not share its mistakes.
//!
//! ```no_run
//! use pgdog_tests::{Postgres, Proxy, ProxyConfig, RawClient};
//!
//! let postgres = Postgres::shared();
//! let database = postgres.fresh_database();
//! let config = ProxyConfig::transaction(postgres).database(database.name()).user("pgdog", "pgdog");
//! let proxy = Proxy::start(&config);
//! let mut client = RawClient::login(proxy.port(), "pgdog", database.name());
//! assert_eq!(client.query_value("select 1"), "1");
//! ```

pub mod activity;
pub mod binaries;
pub mod certificates;
pub mod cut;
pub mod guardian;
pub mod http;
pub mod ledger;
pub mod message;
pub mod postgres;
pub mod processes;
pub mod proxy;
pub mod proxy_config;
pub mod psql;
pub mod raw;
pub mod replicated;
pub mod scratch;
pub mod template;
pub mod tls;
pub mod transcript;
pub mod wait;

pub use activity::Activity;
pub use certificates::Authority;
pub use cut::Cut;
pub use http::{Answer, Http};
pub use ledger::{Book, Ledger, Load};
pub use message::Message;
pub use postgres::{Database, Postgres, PostgresOptions, StopMode};
pub use proxy::Proxy;
pub use proxy_config::ProxyConfig;
pub use psql::Psql;
pub use raw::{RawClient, Received};
pub use replicated::{Fence, Replicated};
pub use transcript::Frame;
