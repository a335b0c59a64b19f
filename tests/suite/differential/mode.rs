//! What stands between the client and Postgres.

use pgdog_tests::{Postgres, ProxyConfig};

/// How a script reaches Postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Transaction mode with no more servers than the script has clients.
    OneServer,
    /// Transaction mode with servers to spare and a stranger who leaves them in disorder between the steps.
    Stirred,
    /// As [`Mode::Stirred`], and servers keep no more than two prepared statements.
    FewStatements,
    /// As [`Mode::OneServer`], with SQL's PREPARE managed too.
    Full,
    /// As [`Mode::Stirred`], with SQL's PREPARE managed too.
    FullStirred,
    /// As [`Mode::FullStirred`], and servers keep no more than two prepared statements.
    FullFew,
    /// As [`Mode::Stirred`], and clients listen over a connection that they share.
    Shared,
    /// Session mode.
    Session,
    /// Statement mode.
    Statement,
}

impl Mode {
    /// The proxy's name of the mode, which scripts use too.
    pub(super) fn pooler_mode(self) -> &'static str {
        match self {
            Self::OneServer
            | Self::Stirred
            | Self::FewStatements
            | Self::Full
            | Self::FullStirred
            | Self::FullFew
            | Self::Shared => "transaction",
            Self::Session => "session",
            Self::Statement => "statement",
        }
    }

    /// Servers a script with this many clients finds.
    pub(super) fn servers(self, clients: usize) -> usize {
        match self {
            Self::OneServer | Self::Full | Self::Session | Self::Statement => clients,
            Self::Stirred
            | Self::FewStatements
            | Self::FullStirred
            | Self::FullFew
            | Self::Shared => clients + 2,
        }
    }

    /// Whether somebody else uses the servers between the steps.
    pub(super) fn has_stranger(self) -> bool {
        matches!(
            self,
            Self::Stirred | Self::FewStatements | Self::FullStirred | Self::FullFew | Self::Shared
        )
    }

    /// Whether SQL's PREPARE is managed.
    pub(super) fn is_full(self) -> bool {
        matches!(self, Self::Full | Self::FullStirred | Self::FullFew)
    }

    /// Whether clients listen over a connection that they share.
    pub(super) fn is_shared(self) -> bool {
        self == Self::Shared
    }

    /// The configuration without databases.
    pub(super) fn config(self, postgres: &Postgres) -> ProxyConfig {
        match self {
            Self::OneServer | Self::Stirred => ProxyConfig::transaction(postgres),
            Self::Full | Self::FullStirred => {
                ProxyConfig::transaction(postgres).general("prepared_statements", "\"full\"")
            }
            Self::FullFew => ProxyConfig::transaction(postgres)
                .general("prepared_statements", "\"full\"")
                .general("prepared_statements_limit", "2"),
            Self::FewStatements => {
                ProxyConfig::transaction(postgres).general("prepared_statements_limit", "2")
            }
            Self::Shared => {
                ProxyConfig::transaction(postgres).general("pub_sub_channel_size", "100")
            }
            Self::Session => ProxyConfig::session(postgres),
            Self::Statement => ProxyConfig::statement(postgres),
        }
    }
}
