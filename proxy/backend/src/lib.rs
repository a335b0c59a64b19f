//! Layer crate `pgdog-backend`.
