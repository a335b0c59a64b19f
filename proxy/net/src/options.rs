//! TCP settings, the same for clients and servers.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// Settings of a TCP socket. `None` leaves the system's default. `TCP_NODELAY` is always on: messages are gathered
/// before they are written, so waiting for more would only add latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpOptions {
    /// Probe idle connections (`SO_KEEPALIVE`).
    pub keepalive: bool,
    /// Idle time before the first probe (`TCP_KEEPIDLE`).
    pub time: Option<Duration>,
    /// Time between probes (`TCP_KEEPINTVL`).
    pub interval: Option<Duration>,
    /// Lost probes before the connection counts as dead (`TCP_KEEPCNT`).
    pub retries: Option<u32>,
    /// How long sent data may stay unacknowledged (`TCP_USER_TIMEOUT`, Linux only).
    pub user_timeout: Option<Duration>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            keepalive: true,
            time: None,
            interval: None,
            retries: None,
            user_timeout: None,
        }
    }
}

impl TcpOptions {
    /// Applies the settings to a connected socket, or to one about to connect.
    pub(crate) fn apply(&self, socket: &SockRef<'_>) -> io::Result<()> {
        socket.set_tcp_nodelay(true)?;
        if self.keepalive {
            let mut keepalive = TcpKeepalive::new();
            if let Some(time) = self.time {
                keepalive = keepalive.with_time(time);
            }
            if let Some(interval) = self.interval {
                keepalive = keepalive.with_interval(interval);
            }
            if let Some(retries) = self.retries {
                keepalive = keepalive.with_retries(retries);
            }
            socket.set_tcp_keepalive(&keepalive)?;
        } else {
            socket.set_keepalive(false)?;
        }
        #[cfg(target_os = "linux")]
        if self.user_timeout.is_some() {
            socket.set_tcp_user_timeout(self.user_timeout)?;
        }
        Ok(())
    }
}
