//! The table of statements with their routes and reasons, `routes.txt`.

use pgdog_sql::functions::Row;
use pgdog_sql::{Facts, Functions, Planner};

const TABLE: &str = include_str!("routes.txt");

/// The queries of the table: the line, what is expected (`place: reason`), the text.
fn rows() -> impl Iterator<Item = (usize, &'static str, &'static str)> {
    let mut expected = "";
    TABLE.lines().enumerate().filter_map(move |(at, line)| {
        if let Some(header) = line.strip_prefix("== ") {
            expected = header;
            return None;
        }
        let skipped = line.starts_with('#') || line.is_empty() || expected.is_empty();
        (!skipped).then_some((at + 1, expected, line))
    })
}

/// The functions that the table's head names, and PostgreSQL's own.
fn functions() -> Functions {
    let own = include_str!("../src/functions/stable.txt").lines();
    let volatile = [
        "clock_timestamp",
        "gen_random_uuid",
        "pg_sleep",
        "pg_sleep_for",
        "random",
        "timeofday",
        "pg_table_size",
        "pg_total_relation_size",
        "pg_database_size",
        "pg_relation_size",
        "pg_control_system",
        "nextval",
        "setval",
        "currval",
        "lastval",
        "pg_advisory_lock",
        "pg_advisory_lock_shared",
        "pg_advisory_xact_lock",
        "pg_try_advisory_lock",
        "pg_try_advisory_xact_lock_shared",
        "pg_advisory_unlock",
        "pg_advisory_unlock_all",
        "pg_notify",
        "lo_create",
        "lo_import",
        "lo_open",
        "lo_unlink",
        "lo_get",
        "lowrite",
        "pg_current_wal_lsn",
        "pg_current_wal_insert_lsn",
        "pg_switch_wal",
        "pg_create_restore_point",
        "pg_create_physical_replication_slot",
        "pg_create_logical_replication_slot",
        "pg_drop_replication_slot",
        "pg_logical_slot_get_changes",
        "pg_logical_emit_message",
        "pg_replication_origin_create",
        "pg_export_snapshot",
        "set_config",
        "pg_terminate_backend",
        "pg_cancel_backend",
        "pg_reload_conf",
        "pg_promote",
        "pg_is_in_recovery",
        "pg_stat_reset",
        "query_to_xml",
        "setseed",
        "pg_read_file",
        "pg_ls_dir",
        "pg_wal_replay_pause",
    ];
    let row = |schema, name, volatile| Row {
        schema,
        name,
        volatile,
        builtin: schema == "pg_catalog",
        through: None,
    };
    let own = own.map(|name| row("pg_catalog", name, false));
    let own = own.chain(volatile.map(|name| row("pg_catalog", name, true)));
    let others = [
        row("public", "reads", false),
        row("app", "reads", false),
        row("public", "writes", true),
        row("app", "mixed", false),
        row("public", "mixed", true),
    ];
    Functions::new(own.chain(others))
}

#[test]
fn every_statement_of_the_table_goes_where_it_says() {
    let functions = functions();
    let planner = Planner::new(10_000);
    let mut wrong = Vec::new();
    let mut count = 0;
    for (line, expected, text) in rows() {
        count += 1;
        // Without its constants, an error may look like what is right; then the server says so.
        let fresh = Planner::new(1);
        let planner = if expected.ends_with("does not parse") {
            &fresh
        } else {
            &planner
        };
        let route = planner.route(text.as_bytes(), &functions);
        let found = format!("{}: {}", route.place, route.why);
        if found != expected {
            let error = planner.facts(text.as_bytes());
            wrong.push(format!("{line}: {text}\n    {found} ({:?})", error.error()));
        }
    }
    assert!(count >= 300, "{count} statements");
    assert!(
        wrong.is_empty(),
        "{} of {count}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn remembered_without_constants_they_go_the_same_way() {
    // Each text with other constants, before and after its like has been seen.
    let functions = functions();
    let planner = Planner::new(10_000);
    let other = |text: &str| {
        text.replace("'1MB'", "'2MB'")
            .replace('1', "7")
            .replace("'a'", "'it''s'")
    };
    let right = rows().filter(|(_, expected, _)| !expected.ends_with("does not parse"));
    for (line, _, text) in right {
        let changed = other(text);
        let parsed = Facts::parse(changed.as_bytes()).place(&functions);
        for text in [&changed, text, &changed] {
            let route = planner.route(text.as_bytes(), &functions);
            assert_eq!((route.place, route.why), parsed, "{line}: {text}");
        }
    }
    let counters = planner.counters();
    assert!(counters.hits > counters.misses, "{counters:?}");
}
