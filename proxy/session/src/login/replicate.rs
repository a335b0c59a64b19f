//! A connection of logical or physical replication: it has a server of its own.

use std::sync::Arc;

use pgdog_wire::ClientError;
use pgdog_wire::backend::{self, Authentication, TransactionStatus};
use pgdog_wire::buffer::Buffer;
use pgdog_wire::startup::Startup;

use super::welcome::session_params;
use super::{Fail, Session};
use crate::handle::Doing;
use crate::replication::{Boundary, Flow, Replication};
use crate::runtime::Account;

impl Session {
    /// Opens the server connection and tells the client what the server said, but for the key: a cancel request comes to
    /// the proxy.
    pub(super) async fn replicate(
        &mut self,
        startup: &Startup,
        account: Arc<Account>,
    ) -> Result<Replication, Fail> {
        let (params, ..) = session_params(startup);
        let params = self.runtime.interner.intern(params);
        let registered = self.take_in(startup, &account, &params)?;
        registered
            .handle
            .does(Doing::Active, self.runtime.clock.now());
        let pool = account.writer().clone();
        let places = pool
            .reserve(self.worker)
            .await
            .map_err(|e| e.response().into_fatal())?;
        let target = pool.target();
        let mut parameters = target.parameters.clone();
        parameters.extend(
            startup
                .replication
                .iter()
                .map(|v| ("replication".to_owned(), v.clone())),
        );
        parameters.extend(startup.parameters.iter().cloned());
        let server = target
            .with_parameters(parameters)
            .connect()
            .await
            .map_err(|e| e.response().into_fatal())?;
        let out = &mut self.out;
        Authentication::Ok.write(out);
        for (name, value) in &server.reported {
            backend::parameter_status(out, name, value);
        }
        backend::key_data(out, registered.handle.pid, &registered.handle.secret);
        backend::ready(out, TransactionStatus::Idle);
        self.flush().await?;
        self.runtime.metrics.count(|m| &m.logins);
        Ok(Replication {
            stream: self.stream.take().ok_or(Fail::Io)?,
            server,
            target,
            account,
            tidying: self.runtime.tidying.clone(),
            registered,
            places,
            up: std::mem::take(&mut self.input),
            down: Buffer::new(),
            boundary: Boundary::default(),
            flow: Flow::Open,
        })
    }
}
