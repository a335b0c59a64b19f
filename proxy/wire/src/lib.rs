//! Layer crate `pgdog-wire`.
