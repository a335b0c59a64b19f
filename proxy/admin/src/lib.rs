//! Consoles over the proxy: the SQL admin console, the HTTP admin API, and what it shows to Prometheus.
//!
//! It reads everything below it, and nothing below it knows that it exists. What only the process as a whole can do, reload
//! and shut down, it asks of [`Process`].
#![forbid(unsafe_code)]

mod act;
mod admin;
mod answer;
mod averages;
pub mod command;
pub mod console;
pub mod control;
pub mod http;
mod lexer;
pub mod metrics;
mod period;
mod show;
mod statement;
pub mod table;

pub use admin::Admin;
pub use answer::{Answer, Refusal};
pub use command::{COMMANDS, Command, view};
pub use control::{Order, Process, Shutdown};
pub use table::{Column, Kind, Table, Value};
