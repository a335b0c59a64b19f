//! `SHOW BANS`.

use pgdog_session::Account;

use super::place;
use crate::admin::Admin;
use crate::command::Show;
use crate::row;
use crate::table::{Column, Value};

pub(crate) const SHOW: Show = Show {
    name: "SHOW BANS",
    help: "Pools whose host gets no reads, and why.",
    columns: &[
        Column::int("id", "Number of the pool, as in SHOW POOLS."),
        Column::text("database", "Database that clients ask for."),
        Column::text("user", "User that clients log in as."),
        Column::text("addr", "Address of the server."),
        Column::int("port", "Port of the server."),
        Column::int("shard", "Number of the shard."),
        Column::text("role", place::ROLE),
        Column::text(
            "ban_reason",
            "manual, failed, replication lag, or initial health check.",
        ),
        Column::int(
            "ban_time_left",
            "Time until it may end, ms; NULL: until what it is for is over, or UNBAN.",
        ),
        Column::text("ban_detail", "What was told when it began."),
    ],
    rows,
};

fn rows(admin: &Admin) -> Vec<Vec<Value>> {
    let accounts = admin.accounts();
    accounts.iter().filter_map(|a| row(admin, a)).collect()
}

fn row(admin: &Admin, account: &Account) -> Option<Vec<Value>> {
    let host = account.pool.host()?;
    let ban = host.ban()?;
    let (addr, port) = place::of_server(&host.address);
    let (shard, role) = place::shard_and_role(account);
    let now = admin.runtime.clock.now();
    Some(row![
        admin.pool_id(account),
        account.identity.database.as_str(),
        account.identity.user.as_str(),
        addr,
        port,
        shard,
        role,
        ban.reason.as_str(),
        ban.until.map(|until| until.saturating_sub(now)),
        host.ban_detail(),
    ])
}
