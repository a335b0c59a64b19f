//! What keeps a pool from serving: it is closed for good, paused, or held for maintenance.

use std::sync::Arc;

use crate::pool::Pool;

/// Reasons not to hand out connections. Bits, because maintenance and a pause come and go apart from one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Gate(u8);

impl Gate {
    /// Terminal: the pool is no longer in the configuration, or the proxy shuts down.
    pub(crate) const CLOSED: Self = Self(1);
    /// Clients wait without a limit, and connections are closed when nobody has them.
    pub(crate) const PAUSED: Self = Self(1 << 1);
    /// Clients wait without a limit; connections stay.
    pub(crate) const HELD: Self = Self(1 << 2);

    /// Whether no connection is handed out.
    #[inline]
    pub(crate) fn shut(self) -> bool {
        self.0 != 0
    }

    /// Whether connections that come back are closed.
    #[inline]
    pub(crate) fn keeps_none(self) -> bool {
        self.0 & (Self::CLOSED.0 | Self::PAUSED.0) != 0
    }

    pub(crate) fn has(self, which: Self) -> bool {
        self.0 & which.0 != 0
    }

    pub(crate) fn put(&mut self, which: Self, on: bool) {
        if on {
            self.0 |= which.0;
        } else {
            self.0 &= !which.0;
        }
    }
}

impl Pool {
    /// Pauses the pool, or ends the pause. While it lasts, clients wait without a limit; idle connections are closed now, and
    /// those on loan when they come back.
    pub fn pause(self: &Arc<Self>, on: bool) {
        if self.gate(Gate::PAUSED, on) {
            let idle: Vec<_> = {
                let mut state = self.lock();
                state.idle.iter_mut().flat_map(std::mem::take).collect()
            };
            idle.into_iter().for_each(|s| s.close());
            if on {
                // It ends with this one, and the next is opened when the pause is over.
                self.listener.reconnect();
            }
        }
    }

    /// Holds the clients' next transactions back for maintenance, or lets them through again. Connections stay.
    pub fn hold(self: &Arc<Self>, on: bool) {
        self.gate(Gate::HELD, on);
    }

    /// Whether it is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.lock().gate.has(Gate::PAUSED)
    }

    /// Whether it is out of use for good.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.lock().gate.has(Gate::CLOSED)
    }

    /// Whether it is held for maintenance.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.lock().gate.has(Gate::HELD)
    }

    /// Connections open, being opened or being closed.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.lock().total
    }

    /// Which [`Pool::reconnect`] new connections belong to.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// Whether the last attempt to open a connection did not fail.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        self.lock().last_error.is_none()
    }

    /// Connections from before the last [`Pool::reconnect`].
    #[must_use]
    pub fn outdated(&self) -> usize {
        let generation = self.generation();
        let servers = self.servers();
        let outdated = servers.iter().filter(|s| s.generation < generation);
        outdated.count()
    }

    /// Sets or clears a reason; says whether it is set. Who may go on is served at once.
    fn gate(self: &Arc<Self>, which: Gate, on: bool) -> bool {
        let mut served = Vec::new();
        {
            let mut state = self.lock();
            if state.gate.has(which) == on {
                return on;
            }
            state.gate.put(which, on);
            state.resumed = self.clock.now();
            while let Some(pair) = state.next_served() {
                served.push(pair);
            }
        }
        for (waiter, server) in served {
            if let Err(back) = waiter.grant(server) {
                self.release(back);
            }
        }
        // Connections that lack are opened at the next tick, by the workers whose clients wait.
        on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_come_and_go_one_by_one() {
        let mut gate = Gate::default();
        gate.put(Gate::HELD, true);
        assert!(gate.shut() && !gate.keeps_none());
        gate.put(Gate::PAUSED, true);
        assert!(gate.keeps_none());
        gate.put(Gate::HELD, false);
        assert!(gate.shut() && gate.has(Gate::PAUSED));
        gate.put(Gate::PAUSED, false);
        assert!(!gate.shut());
    }
}
