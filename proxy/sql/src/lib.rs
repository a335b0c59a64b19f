//! Layer crate `pgdog-sql`.
