//! A Kubernetes API server that is thrown away, the operator as a process beside it, and proxies that are none: shared by the
//! tests in `tests/api` and the benchmark in `examples/fleet.rs`.

#![allow(dead_code, reason = "each of its users takes a part of it")]

pub(crate) mod operator;
pub(crate) mod proxies;
pub(crate) mod server;
pub(crate) mod stage;
