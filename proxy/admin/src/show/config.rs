//! `SHOW CONFIG`.

use serde_json::Value as Json;

use crate::admin::Admin;
use crate::command::Show;
use crate::row;
use crate::table::{Column, Value};

pub(crate) const SHOW: Show = Show {
    name: "SHOW CONFIG",
    help: "Keys of [general], [tcp] and [memory] with their values in force.",
    columns: &[
        Column::text(
            "key",
            "Name of the key; those of [tcp] begin with tcp_, those of [memory] with memory_.",
        ),
        Column::text("value", "Its value."),
        Column::text("default", "Its value where nothing is configured."),
        Column::text(
            "changeable",
            "yes when RELOAD and, in [general], SET can change it; no when it takes a restart.",
        ),
    ],
    rows,
};

fn rows(admin: &Admin) -> Vec<Vec<Value>> {
    let keys = admin.process.config().map(|config| config.keys());
    let keys = keys.unwrap_or_default();
    keys.into_iter()
        .map(|key| {
            row![
                key.name,
                text(&key.value),
                text(&key.default),
                if key.changeable { "yes" } else { "no" },
            ]
        })
        .collect()
}

fn text(value: &Json) -> Option<String> {
    match value {
        Json::Null => None,
        Json::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
