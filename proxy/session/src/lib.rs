//! Layer crate `pgdog-session`.
