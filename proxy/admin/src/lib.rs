//! Consoles over the proxy: the HTTP admin API. The place of the SQL admin console is kept; it is not there yet.
//!
//! It will read everything below it, and nothing below it knows that it exists.
#![forbid(unsafe_code)]

pub mod http;
