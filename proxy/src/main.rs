//! The `pgdog` command.
fn main() {}
