//! `[tcp]`, `[memory]`, `[[peers]]`: sockets, buffers and the other proxies of a fleet.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::macros::section;

section! {
    /// `[tcp]`: options of the sockets on both sides.
    pub struct Tcp {
        /// Whether keepalive probes are sent. Default: true. Applies on reload, to new connections.
        keepalive: bool = true,
        /// Idle time before the first probe, ms. Default: that of the system. Applies on reload, to new connections.
        time: Option<u64> = None,
        /// Time between two probes, ms. Default: that of the system. Applies on reload, to new connections.
        interval: Option<u64> = None,
        /// Lost probes that end a connection. Default: that of the system. Applies on reload, to new connections.
        retries: Option<u32> = None,
        /// Time that sent data may go unconfirmed, ms. Default: that of the system. Applies on reload, to new connections.
        user_timeout: Option<u64> = None,
        /// Algorithm against congestion. Default: that of the system. Applies on reload, to new connections.
        congestion_control: Option<String> = None,
    }
}

section! {
    /// `[memory]`: sizes of buffers.
    pub struct Memory {
        /// Buffer of a message, bytes. Default: 4096. Needs a restart.
        message_buffer: usize = 4_096,
        /// Buffer of a socket, bytes. Default: 4096. Needs a restart.
        net_buffer: usize = 4_096,
        /// Stack of a thread, bytes. Default: 2097152. Needs a restart.
        stack_size: usize = 2_097_152,
    }
}

/// `[[peers]]`: another proxy of the fleet, to which cancel requests for its clients are passed on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its `peer_id`. Required. Applies on reload.
    pub id: u16,
    /// Its address. Required. Applies on reload.
    pub host: String,
    /// Its port. Default: 6432. Applies on reload.
    #[serde(default = "default_port")]
    pub port: u16,
}

/// `[replica_lag]`: the older form of the lag keys in `[general]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplicaLag {
    /// Time between two checks, ms. Required. Applies on reload.
    pub check_interval: u64,
    /// Age at which a replica gets no traffic, ms. Required. Applies on reload.
    pub max_age: u64,
}

fn default_port() -> u16 {
    6432
}
