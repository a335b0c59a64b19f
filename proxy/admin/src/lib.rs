//! Consoles over the proxy: the SQL admin console and the HTTP admin API. The place is kept; neither is there yet.
//!
//! It will read everything below it, and nothing below it knows that it exists.
#![forbid(unsafe_code)]
