//! Another client of the same pool: takes servers away from the script's client and leaves them in disorder.

use pgdog_tests::{Frame, Message, RawClient};

/// Settings a client could leave behind. Each one changes what a script sees when it leaks.
const DISORDER: &str = "set work_mem = '1234kB'; set search_path = nowhere; set timezone = 'Asia/Tokyo'; \
    set datestyle = 'German, DMY'; set bytea_output = 'escape'; set extra_float_digits = -5; \
    set statement_timeout = '1h'; set application_name = 'stranger'; set intervalstyle = 'sql_standard'; \
    set default_transaction_isolation = 'serializable'; set session characteristics as transaction read only; \
    select set_config('my.tenant', 'stranger', false); set client_min_messages = error; set client_encoding = latin1; \
    set standard_conforming_strings = off";

/// What lives in a session and is no setting. Names are those the scripts use.
const POSSESSIONS: &str = "prepare s1 as select 'stranger'; prepare q as select 'stranger'; prepare s as select 'stranger'; \
    create temp table t (stranger int); create temp table tt (stranger int); \
    declare c cursor with hold for select 'stranger'; select pg_advisory_lock(4242); listen stranger; \
    set session authorization stranger; set role none";

/// Statement names the scripts use; each must mean the stranger's own text to the stranger.
const NAMES: &[&str] = &["", "s", "s1", "s2", "q", "a", "b"];

/// What the stranger does around the next step.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// Keeps a server in a transaction while the step runs: the step needs another one.
    HoldServer,
    /// Uses a server and gives it back changed.
    LeaveDisorder,
    /// Comes, leaves possessions behind, and is gone.
    ComeAndGo,
}

/// The other client.
#[derive(Debug)]
pub(super) struct Stranger {
    port: u16,
    database: String,
    client: RawClient,
    deed: Deed,
}

impl Stranger {
    /// Logs in.
    pub(super) fn new(port: u16, database: &str) -> Result<Self, String> {
        let client = RawClient::try_login(port, "pgdog", database)?;
        Ok(Self {
            port,
            database: database.to_owned(),
            client,
            deed: Deed::HoldServer,
        })
    }

    /// Called when no client of the script is in a transaction.
    pub(super) fn before_step(&mut self) -> Result<(), String> {
        match self.deed {
            Deed::HoldServer => run(&mut self.client, "begin; set local work_mem = '77MB'"),
            Deed::LeaveDisorder => {
                run(&mut self.client, DISORDER)?;
                prepare_namesakes(&mut self.client)
            }
            Deed::ComeAndGo => {
                let mut guest = RawClient::try_login(self.port, "pgdog", &self.database)?;
                run(&mut guest, POSSESSIONS)?;
                prepare_namesakes(&mut guest)?;
                guest.goodbye();
                Ok(())
            }
        }
    }

    /// Called when the step has been answered.
    pub(super) fn after_step(&mut self) -> Result<(), String> {
        self.deed = match self.deed {
            Deed::HoldServer => {
                run(&mut self.client, "commit")?;
                Deed::LeaveDisorder
            }
            Deed::LeaveDisorder => Deed::ComeAndGo,
            Deed::ComeAndGo => Deed::HoldServer,
        };
        Ok(())
    }
}

fn run(client: &mut RawClient, sql: &str) -> Result<(), String> {
    no_error(sql, &client.query(sql))
}

fn prepare_namesakes(client: &mut RawClient) -> Result<(), String> {
    let mut messages = Vec::new();
    for name in NAMES {
        messages.push(Message::CloseStatement((*name).into()));
        messages.push(Message::parse(name, "select 'stranger' as stranger"));
    }
    messages.push(Message::Sync);
    client.send(&messages);
    no_error("prepare namesakes", &client.until_ready())
}

fn no_error(what: &str, frames: &[Frame]) -> Result<(), String> {
    match frames.iter().find(|frame| frame.tag == b'E') {
        Some(error) => Err(format!("{what}: {}", error.line())),
        None if frames.last().is_some_and(|frame| frame.tag == b'Z') => Ok(()),
        None => Err(format!("{what}: no answer")),
    }
}
