//! The integration tests: the built proxy in front of a real Postgres.

mod admin;
mod auth;
mod cancel;
mod chaos;
mod conversations;
mod dice;
mod differential;
mod drivers;
mod exposition;
mod found;
mod harness;
mod hba;
mod import;
mod insight;
mod layers;
mod lifecycle;
mod live;
mod login;
mod malformed;
mod mirroring;
mod pinning;
mod pools;
mod pubsub;
mod replication;
mod startup;
mod timeouts;
