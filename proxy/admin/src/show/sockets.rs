//! `SHOW SOCKETS` and `SHOW ACTIVE_SOCKETS`: clients and servers in one list, by the columns that they share.

use super::{clients, servers};
use crate::admin::Admin;
use crate::command::Show;
use crate::table::{Column, Value};

pub(crate) const SHOW: Show = Show {
    name: "SHOW SOCKETS",
    help: "Connections to clients and servers.",
    columns: COLUMNS,
    rows,
};

pub(crate) const ACTIVE: Show = Show {
    name: "SHOW ACTIVE_SOCKETS",
    help: "Connections to clients and servers on which something runs.",
    columns: COLUMNS,
    rows: |admin| {
        let active = |row: &Vec<Value>| row[STATE] == Value::from("active");
        rows(admin).into_iter().filter(active).collect()
    },
};

const STATE: usize = 3;

const COLUMNS: &[Column] = &[
    Column::text("type", "C for a client, S for a server."),
    Column::text("user", "User of the client or the pool."),
    Column::text("database", "Database of the client or the pool."),
    Column::text("state", "As in SHOW CLIENTS and SHOW SERVERS."),
    Column::text("addr", "Address of the other side."),
    Column::int("port", "Port of the other side."),
    Column::text("local_addr", "Not known."),
    Column::int("local_port", "Not known."),
    Column::text("connect_time", "When the connection was made."),
    Column::text("request_time", "Since when it is in its state."),
    Column::int(
        "wait",
        "Time that the client has been waiting, whole seconds.",
    ),
    Column::int("wait_us", "The microseconds beyond these."),
    Column::int(
        "close_needed",
        "1 for a server connection that is closed when it comes back.",
    ),
    Column::text("ptr", "What the link of the other end says."),
    Column::text("link", "The ptr of the other end."),
    Column::int("remote_pid", "Process id on the server."),
    Column::text("tls", "TLS when the connection is encrypted."),
];

fn rows(admin: &Admin) -> Vec<Vec<Value>> {
    let both = [&clients::SHOW, &servers::SHOW];
    both.into_iter()
        .flat_map(|view| shared(view, admin))
        .collect()
}

fn shared(view: &Show, admin: &Admin) -> Vec<Vec<Value>> {
    let position = |column: &Column| view.columns.iter().position(|c| c.name == column.name);
    let positions: Vec<_> = COLUMNS.iter().map(position).collect();
    let pick = |row: Vec<Value>| {
        let value = |at: &Option<usize>| at.map_or(Value::Null, |at| row[at].clone());
        positions.iter().map(value).collect()
    };
    (view.rows)(admin).into_iter().map(pick).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_views_have_all_shared_columns() {
        for view in [&clients::SHOW, &servers::SHOW] {
            for column in COLUMNS {
                let found = view.columns.iter().find(|c| c.name == column.name);
                let kind = found.map(|c| c.kind);
                assert_eq!(kind, Some(column.kind), "{}: {}", view.name, column.name);
            }
        }
        assert_eq!(COLUMNS[STATE].name, "state");
    }
}
