//! Shards and where they live: ids, roles of hosts, and the snapshot of both that decisions are made on.
//!
//! Values only: this crate knows nothing of connections and of SQL.
#![forbid(unsafe_code)]

mod id;
mod topology;

pub use id::ShardId;
pub use topology::{Shard, Topology};
