//! The operator and its custom resource against a real Kubernetes API server, which the tests start themselves.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "helpers of tests may fail as tests do"
)]

#[path = "../../../tests/harness/guardian.rs"]
#[allow(unreachable_pub, dead_code, reason = "it is a library's elsewhere")]
mod guardian;
#[path = "../harness/mod.rs"]
mod harness;
#[path = "../../../tests/harness/scratch.rs"]
#[allow(unreachable_pub, dead_code, reason = "it is a library's elsewhere")]
mod scratch;

mod children;
mod config;
mod definition;
mod leader;
mod manifests;
mod rules;
mod webhook;

use std::path::Path;

/// The operator that cargo has built for these tests.
fn operator() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_pgdog-operator"))
}
