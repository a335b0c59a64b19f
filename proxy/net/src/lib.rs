//! Layer crate `pgdog-net`.
