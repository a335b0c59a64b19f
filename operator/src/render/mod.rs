//! From a resource and what was found to a configuration and the children of the resource. Pure.

pub mod children;
pub mod config;
pub mod monitor;
mod overlay;
pub mod pod;
pub mod process;
pub mod settings;
pub mod snapshot;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod topology;
pub mod users;
