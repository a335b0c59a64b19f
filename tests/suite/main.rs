//! The integration tests: the built proxy in front of a real Postgres.

mod cancel;
mod differential;
mod harness;
mod layers;
mod lifecycle;
mod login;
mod pinning;
mod pools;
mod startup;
mod timeouts;
