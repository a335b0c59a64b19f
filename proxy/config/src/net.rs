//! `[tcp]`, `[memory]`, `[[peers]]`, `[budget]`: sockets, buffers, the other proxies of a fleet and this one's share of the
//! servers.

use std::collections::BTreeMap;

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

section! {
    /// `[budget]`: how many server connections each PostgreSQL host may have from this process, over all users and databases.
    pub struct Budget {
        /// For hosts that are not named. Default: none = any number. Applies on reload.
        default: Option<u32> = None,
        /// For single hosts, by address and port as `"10.0.0.5:5432"`. Default: none. Applies on reload.
        hosts: BTreeMap<String, u32> = BTreeMap::new(),
    }
}

/// `[[peers]]`: a proxy of the fleet, to which cancel requests for its clients are passed on. A list with a `pod_uid` in it is the
/// same for all of the fleet and belongs to the topology, each finds itself in it; one without belongs to the settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its `peer_id`, 1 to 16383. Required. Applies on reload.
    pub id: u16,
    /// Its address. Required. Applies on reload.
    pub host: String,
    /// Its port. Default: 6432. Applies on reload.
    #[serde(default = "default_port")]
    pub port: u16,
    /// Uid of its pod. A proxy that finds its own (`--pod-uid`) is that peer, whatever its `peer_id`. Default: none. Applies on reload, to new clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
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
