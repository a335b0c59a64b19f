//! The integration tests: the built proxy in front of a real Postgres.

mod differential;
mod harness;
mod layers;
mod login;
mod startup;
