//! `SHOW MIRRORS`.

use crate::admin::Admin;
use crate::command::Show;
use crate::row;
use crate::table::{Column, Value};

pub(crate) const SHOW: Show = Show {
    name: "SHOW MIRRORS",
    help: "What became of the transactions of mirrored databases.",
    columns: &[
        Column::text("database", "The database that clients ask for."),
        Column::text("user", "The user."),
        Column::text("destination", "The database that is the mirror."),
        Column::int("total_count", "Transactions of clients."),
        Column::int("mirrored_count", "Those repeated without an error."),
        Column::int(
            "dropped_count",
            "Those that were to be mirrored and were not.",
        ),
        Column::int("error_count", "Those whose repetition gave an error."),
        Column::int("queue_length", "Those that wait to be repeated."),
    ],
    rows,
};

fn rows(admin: &Admin) -> Vec<Vec<Value>> {
    let views = admin.runtime.mirrors.views(&admin.runtime);
    views
        .iter()
        .map(|view| {
            row![
                view.database.as_str(),
                view.user.as_str(),
                view.destination.as_str(),
                view.total,
                view.mirrored,
                view.dropped,
                view.errors,
                view.queued,
            ]
        })
        .collect()
}
