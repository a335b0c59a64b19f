//! `SHOW LISTENERS`.

use crate::admin::Admin;
use crate::command::Show;
use crate::row;
use crate::show::place;
use crate::table::{Column, Value};

pub(crate) const SHOW: Show = Show {
    name: "SHOW LISTENERS",
    help: "Channels that clients listen to over the connection that the clients of their pool share.",
    columns: &[
        Column::text("database", "The database that clients ask for."),
        Column::text("user", "The user."),
        Column::int("shard", "Number of the shard."),
        Column::text("channel", "The channel."),
        Column::int("listeners", "Clients that listen to it."),
        Column::count(
            "received",
            "Notifications that came since the first of them began to.",
        ),
        Column::count(
            "dropped",
            "Those that did not fit into what waits for a client, for each client.",
        ),
    ],
    rows,
};

fn rows(admin: &Admin) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for account in admin.accounts() {
        let (shard, _) = place::shard_and_role(&account);
        for channel in account.pool.listener.channels() {
            rows.push(row![
                account.identity.database.as_str(),
                account.identity.user.as_str(),
                shard.clone(),
                channel.channel,
                channel.clients,
                channel.received,
                channel.dropped,
            ]);
        }
    }
    rows
}
