//! `SHOW LISTS`.

use std::collections::BTreeSet;

use pgdog_session::ClientKind;

use crate::admin::Admin;
use crate::command::Show;
use crate::row;
use crate::table::{Column, Value};

pub(crate) const SHOW: Show = Show {
    name: "SHOW LISTS",
    help: "How many there are of everything.",
    columns: &[
        Column::text("list", "Of what."),
        Column::int("items", "How many."),
    ],
    rows,
};

fn rows(admin: &Admin) -> Vec<Vec<Value>> {
    let accounts = admin.accounts();
    let databases: BTreeSet<_> = accounts.iter().map(|a| &a.identity.database).collect();
    let users: BTreeSet<_> = accounts.iter().map(|a| &a.identity.user).collect();
    let figures: Vec<_> = accounts.iter().map(|a| a.pool.figures()).collect();
    let idle: u32 = figures.iter().map(|f| f.idle).sum();
    let used: u32 = figures.iter().map(|f| f.active).sum();
    let clients = admin.runtime.registry.all();
    let served = clients
        .iter()
        .filter(|c| !matches!(c.kind, ClientKind::Admin | ClientKind::Mirror));
    vec![
        // With this console's own.
        row!["databases", databases.len() + 1],
        row!["users", users.len()],
        row!["pools", accounts.len()],
        row!["free_clients", 0u32],
        row!["used_clients", served.count()],
        row!["login_clients", 0u32],
        row!["free_servers", idle],
        row!["used_servers", used],
        row!["dns_names", 0u32],
        row!["dns_zones", 0u32],
        row!["dns_queries", 0u32],
        row!["dns_pending", 0u32],
        row![
            "admin_clients",
            clients.len()
                - clients
                    .iter()
                    .filter(|c| c.kind != ClientKind::Admin)
                    .count()
        ],
        row!["prepared_statements", admin.runtime.store.len()],
    ]
}
