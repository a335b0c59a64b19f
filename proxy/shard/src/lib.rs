//! Layer crate `pgdog-shard`.
