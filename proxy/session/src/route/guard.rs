//! Transactions on a replica: a read-only one may still take locks, or ask what only the primary can tell. That is seen when
//! the statement comes, which is after its BEGIN has found a host.

use pgdog_sql::{Place, Why};
use pgdog_wire::frontend::{BindNames, Parse, query_text};
use pgdog_wire::{ErrorResponse, Header, frame, sqlstate};

use crate::active::{Active, Event};
use crate::client::{Client, Ended};
use crate::requests::{NAMES_MAX, READ_MAX, Step};
use crate::settle::ASK_TIMEOUT;

/// What a text calls that is meant for the primary, in a read-only transaction too.
pub(super) fn insists(client: &Client, text: &[u8]) -> Option<String> {
    let functions = client.account.catalogue(&client.runtime).now();
    let planner = &client.runtime.planner;
    let route = planner.route(text, &functions);
    if route.place != Place::Primary {
        return None;
    }
    if matches!(route.why, Why::Prepares | Why::Holds) {
        // The client would keep this server, and write there.
        return Some(route.why.to_string());
    }
    let facts = planner.facts(text);
    facts.insists(&functions).map(|culprit| culprit.to_string())
}

impl Active {
    /// Looks at a message of a transaction that is on a replica. `None`: it may be passed on.
    ///
    /// # Errors
    ///
    /// [`Event::BeginElsewhere`]: nothing of the transaction has taken place, so that it can begin again on the primary.
    #[cold]
    pub(crate) fn guard(
        &mut self,
        client: &Client,
        header: Header,
        whole: bool,
    ) -> Result<Option<Step>, Event> {
        if !self.trial.guarded {
            return Ok(None);
        }
        let Header { kind, len } = header;
        let there = len.min(self.cin.len());
        let enough = match kind {
            b'Q' | b'P' => whole || len > READ_MAX,
            b'B' => whole || there >= NAMES_MAX,
            _ => return Ok(None),
        };
        if !enough {
            return Ok(Some(Step::More));
        }
        let body = &self.cin.data()[frame::HEADER..there];
        let found = match kind {
            b'Q' => query_text(body).and_then(|text| insists(client, text)),
            b'P' => Parse::read(body).and_then(|parse| insists(client, parse.query)),
            _ => bound(client, body).and_then(|text| insists(client, text)),
        };
        let Some(found) = found else {
            return Ok(None);
        };
        if self.has_only_begun() {
            return Err(Event::BeginElsewhere);
        }
        let error = ErrorResponse::error(
            sqlstate::FEATURE_NOT_SUPPORTED,
            "this transaction is on a replica, where the statement would not do what it does on the primary",
        )
        .detail(format!("It began READ ONLY, or with a statement that reads; {found}."))
        .hint("Begin the transaction with READ WRITE or behind /* pgdog_role: primary */, or call the function in its first statement.");
        Ok(Some(self.fail_here(error, len, kind == b'Q')))
    }

    /// The transaction that has just begun begins again, on the primary.
    pub(crate) async fn begin_elsewhere(&mut self, client: &mut Client) -> Result<(), Ended> {
        tracing::debug!(user = %client.account.user.name, database = %client.account.user.database, "a transaction begins again on the primary");
        client.runtime.metrics.count(|m| &m.retries);
        if let Some(mut server) = self.server.take() {
            if server.query("ROLLBACK", ASK_TIMEOUT).await.is_ok() && !server.tainted {
                client.pool().release(server);
            } else {
                self.server = Some(server);
                self.drop_server(client);
            }
        }
        self.trial.first = false;
        self.trial.guarded = false;
        self.trial.deferred = true;
        self.trial.to_primary = true;
        Ok(())
    }
}

/// The text of the statement that is bound.
fn bound<'a>(client: &'a Client, body: &[u8]) -> Option<&'a [u8]> {
    let names = BindNames::read(body)?;
    let statements = client.statements.as_deref()?;
    if names.statement.is_empty() {
        statements.unnamed_text()
    } else {
        statements.get(names.statement).map(|s| &*s.text)
    }
}
