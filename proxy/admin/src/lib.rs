//! Consoles over the proxy: the SQL admin console, and what the HTTP admin API and the metrics are made of.
//!
//! It reads everything below it, and nothing below it knows that it exists. What only the process as a whole can do, reload
//! and shut down, it asks of [`Control`](control::Control).
#![forbid(unsafe_code)]

pub mod table;
