//! Layer crate `pgdog-config`.
