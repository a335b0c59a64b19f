//! `SHOW LISTENERS`.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgdog_backend::ChannelFigures;
use pgdog_session::Account;

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
    for account in groups(&admin.accounts()) {
        let (shard, _) = place::shard_and_role(&account[0]);
        for channel in channels(account) {
            rows.push(row![
                account[0].identity.database.as_str(),
                account[0].identity.user.as_str(),
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

/// Accounts with all of their hosts.
pub(crate) fn groups(accounts: &[Arc<Account>]) -> impl Iterator<Item = &[Arc<Account>]> {
    accounts.chunk_by(|a, b| a.identity == b.identity)
}

/// The channels of one account, summed over its hosts: while another one becomes the primary, two may have the same.
pub(crate) fn channels(account: &[Arc<Account>]) -> Vec<ChannelFigures> {
    let mut sums: BTreeMap<String, ChannelFigures> = BTreeMap::new();
    for channel in account.iter().flat_map(|a| a.pool.listener.channels()) {
        if let Some(sum) = sums.get_mut(&channel.channel) {
            sum.clients += channel.clients;
            sum.received += channel.received;
            sum.dropped += channel.dropped;
        } else {
            sums.insert(channel.channel.clone(), channel);
        }
    }
    sums.into_values().collect()
}
