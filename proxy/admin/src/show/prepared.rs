//! `SHOW PREPARED`.

use crate::admin::Admin;
use crate::command::Show;
use crate::row;
use crate::table::{Column, Value};

pub(crate) const SHOW: Show = Show {
    name: "SHOW PREPARED",
    help: "Prepared statements that clients share.",
    columns: &[
        Column::text("name", "Its name on the servers."),
        Column::text("statement", "Its text."),
        Column::text("rewrite", "Not supported."),
        Column::int("used_by", "Clients' statements that it stands for."),
        Column::int("memory_used", "Memory of it, bytes."),
    ],
    rows,
};

fn rows(admin: &Admin) -> Vec<Vec<Value>> {
    let mut statements = admin.runtime.store.all();
    statements.sort_by_key(|s| s.id.number());
    statements
        .iter()
        .map(|statement| {
            // Of those who hold it, the store is one and this list another.
            let users = std::sync::Arc::strong_count(statement).saturating_sub(2);
            row![
                String::from_utf8_lossy(&statement.name).into_owned(),
                String::from_utf8_lossy(&statement.text).into_owned(),
                Value::Null,
                users,
                size_of_val(&**statement)
                    + 2 * (statement.text.len() + statement.types.len())
                    + statement.name.len(),
            ]
        })
        .collect()
}
