//! `SHOW MEM`.

use pgdog_backend::{ServerHandle, Statement};
use pgdog_session::{Account, ClientHandle};

use crate::admin::Admin;
use crate::command::Show;
use crate::row;
use crate::table::{Column, Value};

pub(crate) const SHOW: Show = Show {
    name: "SHOW MEM",
    help: "Memory of what is counted, and of the whole process.",
    columns: &[
        Column::text("name", "What the memory is for."),
        Column::int("size", "Size of one, bytes."),
        Column::int("used", "How many there are."),
        Column::int("free", "How many are kept for later."),
        Column::int("memtotal", "Memory of all, bytes."),
    ],
    rows,
};

fn rows(admin: &Admin) -> Vec<Vec<Value>> {
    let accounts = admin.accounts();
    let servers = accounts.iter().map(|a| a.pool.servers().len()).sum();
    let of = |name: &str, size: usize, used: usize| row![name, size, used, 0u32, size * used];
    let statements = admin.runtime.store.all();
    let texts: usize = statements.iter().map(|s| s.text.len()).sum();
    vec![
        of(
            "client_handle",
            size_of::<ClientHandle>(),
            admin.runtime.registry.len() as usize,
        ),
        of("server_handle", size_of::<ServerHandle>(), servers),
        of("account", size_of::<Account>(), accounts.len()),
        of("statement", size_of::<Statement>(), statements.len()),
        row!["statement_text", Value::Null, statements.len(), 0u32, texts],
        row!["process", Value::Null, Value::Null, Value::Null, resident()],
    ]
}

/// Memory of the process that is in use, where the system tells it.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
