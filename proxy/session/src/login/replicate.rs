//! A connection of logical or physical replication: it has a server of its own.

use std::sync::Arc;

use pgdog_wire::ClientError;
use pgdog_wire::backend::{self, Authentication, TransactionStatus};
use pgdog_wire::startup::Startup;

use super::{Fail, Login, Session};
use crate::runtime::Account;

impl Session {
    /// A replication connection has a server of its own; bytes pass both ways until one side closes.
    pub(super) async fn replicate(
        &mut self,
        startup: &Startup,
        account: &Arc<Account>,
    ) -> Result<Login, Fail> {
        let target = account.pool.target();
        let mut parameters = target.parameters.clone();
        parameters.extend(
            startup
                .replication
                .iter()
                .map(|v| ("replication".to_owned(), v.clone())),
        );
        parameters.extend(startup.parameters.iter().cloned());
        let mut server = target
            .with_parameters(parameters)
            .connect()
            .await
            .map_err(|e| e.response().into_fatal())?;
        let out = &mut self.out;
        Authentication::Ok.write(out);
        for (name, value) in &server.reported {
            backend::parameter_status(out, name, value);
        }
        if let Some(key) = &server.key {
            backend::key_data(out, key.pid, &key.secret);
        }
        backend::ready(out, TransactionStatus::Idle);
        self.flush().await?;
        let mut stream = self.stream.take().ok_or(Fail::Io)?;
        // Served outside of the login's time limit.
        tokio::spawn(async move {
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut server.stream).await;
        });
        Ok(Login::Replication)
    }
}
