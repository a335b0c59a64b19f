//! The operator: it keeps a fleet of proxies in step with the Postgres they stand in front of.
//!
//! [`controller`] watches; [`reconcile`] is the order of steps for one cluster. What is decided is decided by pure functions:
//! [`discover`] makes hosts of what other operators say, [`render`] makes configuration and children of a cluster,
//! [`status`](mod@status) makes conditions of what was seen. [`fleet`] brings a configuration to every proxy and knows which of them have
//! acknowledged it.
//!
//! [`inject`] puts a proxy into the pods of an application, by hand or asked by the API server through the [`webhook`].
//!
//! It is never in the way of a query: without it proxies serve, restart and follow a failover by themselves.

#![forbid(unsafe_code)]

pub mod app;
pub mod apply;
pub mod args;
pub mod atomic;
pub mod authorities;
pub mod authority;
pub mod budget;
pub mod context;
pub mod controller;
pub mod decide;
pub mod discover;
pub mod events;
pub mod fleet;
pub mod http;
pub mod inject;
pub mod leader;
pub mod metrics;
pub mod observe;
pub mod observed;
mod orders;
pub mod pausing;
pub mod peers;
mod pods;
pub mod reconcile;
pub mod render;
pub mod resharding;
pub mod rollout;
pub mod rotation;
pub mod shares;
pub mod sidecars;
pub mod standstill;
pub mod status;
pub mod watch;
pub mod webhook;
pub mod world;
