//! `SHOW STATE`.

use crate::admin::Admin;
use crate::command::Show;
use crate::row;
use crate::table::{Column, Value};

pub(crate) const SHOW: Show = Show {
    name: "SHOW STATE",
    help: "Whether the proxy serves its clients.",
    columns: &[
        Column::text("key", "A state."),
        Column::text("value", "yes or no."),
    ],
    rows,
};

fn rows(admin: &Admin) -> Vec<Vec<Value>> {
    let gates = &admin.runtime.gates;
    let (paused, maintenance) = (gates.all_paused(), gates.maintenance());
    let draining = admin.runtime.registry.draining();
    let row = |key: &str, on: bool| row![key, if on { "yes" } else { "no" }];
    vec![
        row("active", !(paused || maintenance || draining)),
        row("paused", paused),
        row("suspended", false),
        row("maintenance", maintenance),
        row("draining", draining),
    ]
}
