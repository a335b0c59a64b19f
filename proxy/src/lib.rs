//! The proxy: reads the configuration, listens, and hands each connection to a worker.
//!
//! [`app::run`] is the whole life of the process: start, serve, reload, drain.
#![forbid(unsafe_code)]

pub mod app;
pub mod args;
pub mod build;
mod changes;
pub mod import;
mod lifecycle;
pub mod logging;
mod panel;
pub mod reload;
mod rlimit;
pub mod route;
mod worker;
