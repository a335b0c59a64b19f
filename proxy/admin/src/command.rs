//! What a command is, and the list of all.

use std::future::Future;
use std::pin::Pin;

use crate::admin::Admin;
use crate::answer::{Answer, Refusal, syntax, unsupported};
use crate::lexer::Token;
use crate::table::{Column, Table, Value};
use crate::{act, show};

/// A command that runs.
pub(crate) type Running<'a> = Pin<Box<dyn Future<Output = Result<Answer, Refusal>> + Send + 'a>>;

/// What stands behind a command's name.
#[derive(Debug, Clone, Copy)]
pub struct Args<'a>(pub(crate) &'a [Token]);

/// A command of the console.
pub trait Command: Sync {
    /// The keywords that it begins with.
    fn name(&self) -> &'static str;

    /// How it is written.
    fn usage(&self) -> &'static str;

    /// What it does, in a sentence.
    fn help(&self) -> &'static str;

    /// The columns of the rows that it gives; none where it gives no rows.
    fn columns(&self) -> &'static [Column] {
        &[]
    }

    /// Whether it is a view: names of columns may follow, and choose among them.
    fn is_view(&self) -> bool {
        false
    }

    /// Whether what stands behind a view's name is for the view itself, and no list of columns.
    fn is_filter(&self, _args: Args<'_>) -> bool {
        false
    }

    /// Runs it. May be dropped before it ends: what is half done then is taken back.
    fn run<'a>(
        &'a self,
        admin: &'a Admin,
        args: Args<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, Refusal>> + Send + 'a>>;
}

impl std::fmt::Debug for dyn Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A view: `SHOW` and a name.
#[derive(Debug)]
pub(crate) struct Show {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) columns: &'static [Column],
    pub(crate) rows: fn(&Admin) -> Vec<Vec<Value>>,
}

impl Show {
    /// Its rows now.
    pub(crate) fn table(&self, admin: &Admin) -> Table {
        Table {
            columns: self.columns,
            rows: (self.rows)(admin),
        }
    }
}

impl Command for Show {
    fn name(&self) -> &'static str {
        self.name
    }

    fn usage(&self) -> &'static str {
        self.name
    }

    fn help(&self) -> &'static str {
        self.help
    }

    fn columns(&self) -> &'static [Column] {
        self.columns
    }

    fn is_view(&self) -> bool {
        true
    }

    fn run<'a>(&'a self, admin: &'a Admin, _args: Args<'a>) -> Running<'a> {
        Box::pin(async move { Ok(Answer::rows((self.rows)(admin))) })
    }
}

/// A command of PgBouncer or PgDog that does nothing here: it is refused with the reason.
#[derive(Debug)]
pub(crate) struct Missing {
    pub(crate) name: &'static str,
    pub(crate) why: &'static str,
}

impl Missing {
    pub(crate) fn refusal(&self) -> Refusal {
        unsupported(format!("{} is not supported: {}", self.name, self.why))
    }
}

/// All commands, in the order in which `SHOW HELP` lists them.
pub const COMMANDS: &[&dyn Command] = &[
    &show::clients::SHOW,
    &show::servers::SHOW,
    &show::pools::SHOW,
    &show::bans::SHOW,
    &show::replication::SHOW,
    &show::databases::SHOW,
    &show::users::SHOW,
    &show::stats::SHOW,
    &show::stats::TOTALS_BY_DATABASE,
    &show::stats::AVERAGES_BY_DATABASE,
    &show::stats::TOTALS,
    &show::config::SHOW,
    &show::prepared::SHOW,
    &show::query_cache::QueryCache,
    &show::query_stats::SHOW,
    &show::lists::SHOW,
    &show::listeners::SHOW,
    &show::mem::SHOW,
    &show::mirrors::SHOW,
    &show::peers::SHOW,
    &show::sockets::SHOW,
    &show::sockets::ACTIVE,
    &show::state::SHOW,
    &show::about::VERSION,
    &show::about::INSTANCE,
    &show::help::SHOW,
    &act::pause::Pause,
    &act::pause::Resume,
    &act::maintenance::Maintenance,
    &act::disable::Disable,
    &act::disable::Enable,
    &act::kill::Kill,
    &act::kill::KillClient,
    &act::reconnect::Reconnect,
    &act::reconnect::WaitClose,
    &act::ban::Ban,
    &act::ban::Unban,
    &act::healthcheck::Healthcheck,
    &act::probe::Probe,
    &act::reload::Reload,
    &act::set::Set,
    &act::reset::ResetPrepared,
    &act::reset::ResetQueryCache,
    &act::reset::ResetQueryStats,
    &act::shutdown::Shutdown,
];

/// What other consoles have and this one has not.
pub(crate) const MISSING: &[Missing] = &[
    missing(
        "SUSPEND",
        "it would hand sockets to another process, and a restart here is a drain: SHUTDOWN",
    ),
    missing("SHOW FDS", "sockets are not handed to another process"),
    missing(
        "SHOW DNS_HOSTS",
        "names are looked up by the system, and no answers are kept",
    ),
    missing(
        "SHOW DNS_ZONES",
        "names are looked up by the system, and no zones are watched",
    ),
    missing(
        "SHOW PEER_POOLS",
        "cancel requests for peers are passed on over a connection each",
    ),
    missing(
        "SHOW CLIENT MEMORY",
        "memory is not counted for each client; SHOW MEM has the sums",
    ),
    missing(
        "SHOW SERVER MEMORY",
        "memory is not counted for each server; SHOW MEM has the sums",
    ),
    missing("SHOW TRANSACTIONS", "there is no two-phase commit yet"),
    missing("SHOW REPLICATION_SLOTS", "there is no resharding yet"),
    missing("SHOW SCHEMA_SYNC", "there is no resharding yet"),
    missing("SHOW TABLE_COPIES", "there is no resharding yet"),
    missing("SHOW TASKS", "there are no tasks in the background yet"),
    missing("SETUP SCHEMA", "there is no sharding yet"),
    missing("RESHARD", "there is no resharding yet"),
    missing("SCHEMA_SYNC", "there is no resharding yet"),
    missing("COPY_DATA", "there is no resharding yet"),
    missing("REPLICATE", "there is no resharding yet"),
    missing("CUTOVER", "there is no resharding yet"),
    missing("STOP_TASK", "there are no tasks in the background yet"),
];

const fn missing(name: &'static str, why: &'static str) -> Missing {
    Missing { name, why }
}

/// The rows of a view by its name without `SHOW`, in small letters; `None` when there is no such view.
#[must_use]
pub fn view(name: &str, admin: &Admin) -> Option<Table> {
    let show = show::ALL.iter().find(|show| {
        show.name
            .strip_prefix("SHOW ")
            .is_some_and(|n| n.eq_ignore_ascii_case(name))
    })?;
    Some(show.table(admin))
}

impl<'a> Args<'a> {
    /// Refuses anything behind the name.
    pub(crate) fn none(self, command: &dyn Command) -> Result<(), Refusal> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(usage(command))
    }

    /// The words, names and texts behind the name; other signs are refused.
    pub(crate) fn words(self, command: &dyn Command) -> Result<Vec<&'a Token>, Refusal> {
        let words: Vec<_> = self.0.iter().collect();
        if words.iter().any(|token| token.content().is_none()) {
            return Err(usage(command));
        }
        Ok(words)
    }
}

/// The error for a command that is not written as it has to be.
pub(crate) fn usage(command: &dyn Command) -> Refusal {
    syntax(format!("syntax error in {}", command.name()))
        .hint(format!("It is written {}.", command.usage()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_command_has_a_name_of_its_own() {
        let names = COMMANDS.iter().map(|c| c.name());
        let names: Vec<_> = names.chain(MISSING.iter().map(|m| m.name)).collect();
        let unique: BTreeSet<_> = names.iter().collect();
        assert_eq!(names.len(), unique.len());
    }

    #[test]
    fn each_command_says_how_it_is_written_and_what_it_does() {
        for command in COMMANDS {
            assert!(command.usage().starts_with(command.name()), "{command:?}");
            assert!(command.help().ends_with('.'), "{command:?}");
            let names: BTreeSet<_> = command.columns().iter().map(|c| c.name).collect();
            assert_eq!(names.len(), command.columns().len(), "{command:?}");
        }
    }

    #[test]
    fn every_view_is_a_command() {
        for show in show::ALL {
            assert!(COMMANDS.iter().any(|c| c.name() == show.name), "{show:?}");
        }
        let views = COMMANDS.iter().filter(|c| c.is_view()).count();
        assert_eq!(views, show::ALL.len());
    }
}
