//! `SHOW PEERS`.

use crate::admin::Admin;
use crate::command::Show;
use crate::row;
use crate::table::{Column, Value};

pub(crate) const SHOW: Show = Show {
    name: "SHOW PEERS",
    help: "The other proxies of the fleet, as configured or pushed.",
    columns: &[
        Column::text("addr", "Address and port."),
        Column::text("last_seen", "Not known: peers are not looked for."),
        Column::int("clients", "Not known."),
        Column::int("peer_id", "Its number."),
        Column::text("host", "Its address."),
        Column::int("port", "Its port."),
        Column::int(
            "pool_size",
            "Not supported: a cancel request takes a connection of its own.",
        ),
    ],
    rows,
};

fn rows(admin: &Admin) -> Vec<Vec<Value>> {
    let live = admin.runtime.live();
    let peers = live.settings.peers.iter();
    peers
        .map(|peer| {
            row![
                format!("{}:{}", peer.host, peer.port),
                Value::Null,
                Value::Null,
                peer.id,
                peer.host.as_str(),
                peer.port,
                Value::Null,
            ]
        })
        .collect()
}
