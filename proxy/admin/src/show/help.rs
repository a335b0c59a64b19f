//! `SHOW HELP`.

use crate::command::{COMMANDS, Command, Show};
use crate::row;
use crate::table::Column;

pub(crate) const SHOW: Show = Show {
    name: "SHOW HELP",
    help: "This list.",
    columns: &[
        Column::text("command", "How it is written."),
        Column::text("does", "What it does."),
    ],
    rows: |_| COMMANDS.iter().map(|c| row![usage(*c), c.help()]).collect(),
};

fn usage(command: &dyn Command) -> String {
    let columns = if command.is_view() {
        " [column, …]"
    } else {
        ""
    };
    format!("{}{columns}", command.usage())
}
