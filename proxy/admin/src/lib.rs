//! Layer crate `pgdog-admin`.
