//! `SHOW VERSION` and `SHOW INSTANCE_ID`.

use crate::command::Show;
use crate::row;
use crate::table::Column;

pub(crate) const VERSION: Show = Show {
    name: "SHOW VERSION",
    help: "The version of the proxy.",
    columns: &[Column::text("version", "Name and version.")],
    rows: |_| vec![row![concat!("pgdog ", env!("CARGO_PKG_VERSION"))]],
};

pub(crate) const INSTANCE: Show = Show {
    name: "SHOW INSTANCE_ID",
    help: "What tells this process from others: NODE_ID of its environment, or a random one.",
    columns: &[Column::text("instance_id", "The id.")],
    rows: |admin| vec![row![admin.instance.as_str()]],
};
