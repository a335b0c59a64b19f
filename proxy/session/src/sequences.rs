//! Sequence values: `currval` and `lastval` tell what the session has drawn, and a server's session has served many clients.
//!
//! A client must see its own values or an error. What others have drawn is forgotten (DISCARD SEQUENCES) while nothing that
//! the client itself has drawn can be lost: before its first statement on the server. Which statements draw values, their
//! text does not show (a serial column, a function, a view), and to clean before each transaction would cost all clients. So:
//!
//! - a question outside of transactions, and what makes a client keep its server, is preceded by it;
//! - so is BEGIN in a pool whose clients were seen to ask within transactions;
//! - the first to ask so is refused, once in the life of a pool: nobody can tell whose value it would be.

use std::sync::atomic::Ordering;

use pgdog_backend::probe::Reasons;
use pgdog_config::PoolerMode;
use pgdog_sql::Effects;
use pgdog_wire::backend::TransactionStatus;
use pgdog_wire::{ClientError as _, ErrorResponse, sqlstate};

use crate::active::{Active, Event};
use crate::client::{Client, Ended};
use crate::requests::Step;
use crate::settle::ASK_TIMEOUT;

/// What a server knows of sequences, as a statement may see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Values {
    /// Only the client's own, or the statement does not ask.
    Fine,
    /// The client's own and those of others.
    Mixed,
}

impl Active {
    /// Looks at a statement before it is passed on.
    ///
    /// # Errors
    ///
    /// [`Event::CleanSequences`] when the server is to forget what others have drawn first; the message is looked at again
    /// after that.
    pub(crate) fn sequences(&self, client: &Client, found: Effects) -> Result<Values, Event> {
        let asks = found.any(Effects::SEQUENCES);
        // DO and CALL seldom make anything that stays.
        let holds = found.any(Effects::HOLDS) && found != Effects::UNKNOWN;
        let begins =
            found.any(Effects::BEGINS) && client.pool().asks_sequences.load(Ordering::Relaxed);
        if !asks && !holds && !begins || self.mode == PoolerMode::Session || self.own_sequences() {
            return Ok(Values::Fine);
        }
        if self.server.as_ref().is_some_and(|s| s.owed.at_rest()) {
            return Err(Event::CleanSequences { asks });
        }
        Ok(if asks { Values::Mixed } else { Values::Fine })
    }

    /// Whether the server knows of no values but the client's own. One that is kept was cleaned when that began.
    fn own_sequences(&self) -> bool {
        self.counted || self.effects.any(Effects::OWN_SEQUENCES)
    }

    /// Answers a statement that would mix the client's values with those of others. The next time they are told apart.
    pub(crate) fn refuse_sequences(
        &mut self,
        client: &mut Client,
        len: usize,
        is_query: bool,
    ) -> Step {
        let status = self.server.as_ref().map(|s| s.owed.status);
        if status != Some(TransactionStatus::Failed) {
            // It keeps its server from now on, which is cleaned when the transaction is over.
            client.reasons.put(Reasons::SEQUENCE, true);
        }
        if status == Some(TransactionStatus::InTransaction) || self.effects.any(Effects::BEGINS) {
            client.pool().asks_sequences.store(true, Ordering::Relaxed);
        }
        let error = ErrorResponse::error(
            sqlstate::SERIALIZATION_FAILURE,
            "could not tell this session's sequence values from those of others",
        )
        .detail("The transaction has begun on a server connection on which other clients may have drawn values, before it was known that currval or lastval would be asked for.")
        .hint("Retry the transaction: from now on it begins on a connection without values of others. INSERT ... RETURNING needs no retry.");
        self.fail_here(error, len, is_query)
    }

    /// Makes the server forget the sequence values that others have drawn.
    pub(crate) async fn clean_sequences(
        &mut self,
        client: &mut Client,
        asks: bool,
    ) -> Result<(), Ended> {
        if asks {
            client.reasons.put(Reasons::SEQUENCE, true);
        }
        let Some(server) = &mut self.server else {
            return Ok(());
        };
        match server.query("DISCARD SEQUENCES", ASK_TIMEOUT).await {
            Ok(_) => {
                self.effects = self.effects.with(Effects::OWN_SEQUENCES);
                Ok(())
            }
            Err(error) => {
                self.drop_server(client);
                self.refuse(client, error.response()).await
            }
        }
    }
}
