//! Against guessing: clients of one address that log in at once are limited, and a wrong password is answered late.

use std::future::poll_fn;
use std::time::Duration;

use pgdog_net::Peer;
use pgdog_wire::startup::Startup;
use pgdog_wire::{ErrorResponse, sqlstate};

use super::{Fail, Session};
use crate::guard::Delay;
use crate::runtime::Secrets;

impl Session {
    /// Takes a place among those of the address that are logging in. Unix sockets are not counted: they have no address,
    /// and their clients are on this machine already.
    pub(super) fn enter(&mut self) -> Result<(), Fail> {
        let Peer::Tcp(address) = self.peer else {
            return Ok(());
        };
        self.place = self.runtime.guard.enter(address.ip());
        if self.place.is_some() {
            return Ok(());
        }
        let text = "too many connections from this address are logging in (max_logins_per_address)";
        Err(ErrorResponse::fatal(sqlstate::TOO_MANY_CONNECTIONS, text).into())
    }

    /// Writes a login down that was wrong. The client is told the same whatever the reason is.
    pub(super) fn wrong(&mut self, startup: &Startup, secrets: Option<&Secrets>) -> Fail {
        let why = match secrets {
            None => "there is no such user",
            Some(secrets) if secrets.credentials == Default::default() => {
                "the user has no password"
            }
            Some(secrets) if secrets.has_only_hashes() => {
                "the password is wrong; only an MD5 hash of it is known, which is of no use to SCRAM"
            }
            Some(_) => "the password is wrong",
        };
        // What went wrong on the way here says more.
        self.why.get_or_insert_with(|| why.to_owned());
        if let Peer::Tcp(address) = self.peer {
            let now = self.runtime.clock.now();
            self.delay = self.runtime.guard.failed(address.ip(), now);
        }
        let text = format!(
            "password authentication failed for user \"{}\"",
            startup.user
        );
        ErrorResponse::fatal(sqlstate::INVALID_PASSWORD, text).into()
    }

    /// Writes a login down that was right.
    pub(super) fn right(&self) {
        if let Peer::Tcp(address) = self.peer {
            let now = self.runtime.clock.now();
            self.runtime.guard.succeeded(address.ip(), now);
        }
    }

    /// Lets a client that was wrong wait for its answer; whether it has. Whoever does not wait is not told, and where
    /// places are limited its own stays taken until the time is over, so that it cannot guess faster by leaving.
    pub(super) async fn wait_for_answer(&mut self) -> bool {
        let Delay(delay @ 1..) = std::mem::take(&mut self.delay) else {
            return true;
        };
        let mut over = std::pin::pin!(pgdog_net::timer::sleep(Duration::from_millis(delay)));
        let left = {
            let Some(stream) = &mut self.stream else {
                return false;
            };
            // It has nothing to say until it is answered: anything that comes is the end.
            tokio::select! {
                () = &mut over => false,
                _ = poll_fn(|cx| stream.poll_read_slice(cx, &mut [0])) => true,
            }
        };
        if left {
            self.stream = None;
            if self.live.settings.login_limits.per_address.is_some() {
                over.await;
            }
        }
        !left
    }
}
