//! `SHOW USERS`.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgdog_session::Account;

use super::databases::common;
use super::place;
use crate::admin::Admin;
use crate::command::Show;
use crate::row;
use crate::table::{Column, Value};

pub(crate) const SHOW: Show = Show {
    name: "SHOW USERS",
    help: "Users that clients may log in as.",
    columns: COLUMNS,
    rows,
};

const COLUMNS: &[Column] = &[
    Column::text("name", "Name of the user."),
    Column::int(
        "pool_size",
        "Most server connections of one pool; NULL where databases or hosts differ.",
    ),
    Column::int(
        "reserve_pool_size",
        "Server connections above that; NULL where databases or hosts differ.",
    ),
    Column::text(
        "pool_mode",
        "When server connections come back; NULL where databases or hosts differ.",
    ),
    Column::int(
        "max_user_connections",
        "Most server connections over all databases; 0 is no limit.",
    ),
    Column::int("current_connections", "Server connections now."),
    Column::int(
        "max_user_client_connections",
        "Most clients; 0 is no limit.",
    ),
    Column::int("current_client_connections", "Clients now."),
];

fn rows(admin: &Admin) -> Vec<Vec<Value>> {
    let mut users: BTreeMap<String, Vec<Arc<Account>>> = BTreeMap::new();
    for account in admin.accounts() {
        let user = account.identity.user.clone();
        users.entry(user).or_default().push(account);
    }
    let clients = admin.runtime.registry.all();
    let row = |(name, accounts): (String, Vec<Arc<Account>>)| {
        let settings: Vec<_> = accounts.iter().map(|a| a.pool.settings()).collect();
        let connections = accounts.iter().map(|a| a.pool.connections()).sum::<u32>();
        let mine = clients.iter().filter(|c| c.identity.user == name).count();
        row![
            name,
            common(settings.iter().map(|s| s.size)),
            common(settings.iter().map(|s| s.reserve_size)),
            common(settings.iter().map(|s| s.mode)).map(place::mode),
            settings[0].user_max.unwrap_or(0),
            connections,
            accounts[0].user.max_clients.unwrap_or(0),
            mine,
        ]
    };
    users.into_iter().map(row).collect()
}
