//! PostgreSQL's own functions, up to version 18.

use std::collections::HashSet;
use std::sync::LazyLock;

use super::Verdict;

/// Where they are.
pub(super) const SCHEMA: &str = "pg_catalog";

/// Those whose mark is stable or immutable, one to a line: `pg_proc` of PostgreSQL 15 and what came since.
static STABLE: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| include_str!("stable.txt").lines().collect());

/// Those that are marked volatile and yet write nothing: a replica's answer is as good as the primary's.
const HARMLESS: &[&str] = &[
    "amvalidate",
    "array_sample",
    "array_shuffle",
    "clock_timestamp",
    "current_query",
    "gen_random_uuid",
    "pg_collation_actual_version",
    "pg_database_collation_actual_version",
    "pg_database_size",
    "pg_get_wal_resource_managers",
    "pg_indexes_size",
    "pg_jit_available",
    "pg_partition_ancestors",
    "pg_partition_tree",
    "pg_relation_size",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "pg_table_size",
    "pg_tablespace_size",
    "pg_total_relation_size",
    "random",
    "random_normal",
    "timeofday",
    "uuidv4",
    "uuidv7",
];

/// Those that write, lock, or belong to one session or to the primary: where two servers would answer differently, the
/// primary is the one that is meant.
const BOUND: &[&str] = &[
    "currtid2",
    "currval",
    "cursor_to_xml",
    "cursor_to_xmlschema",
    "lastval",
    "lo_close",
    "lo_creat",
    "lo_create",
    "lo_export",
    "lo_from_bytea",
    "lo_get",
    "lo_import",
    "lo_lseek",
    "lo_lseek64",
    "lo_open",
    "lo_put",
    "lo_tell",
    "lo_tell64",
    "lo_truncate",
    "lo_truncate64",
    "lo_unlink",
    "loread",
    "lowrite",
    "nextval",
    "pg_backend_pid",
    "pg_blocking_pids",
    "pg_cancel_backend",
    "pg_cursor",
    "pg_export_snapshot",
    "pg_get_replication_slots",
    "pg_is_in_recovery",
    "pg_is_other_temp_schema",
    "pg_listening_channels",
    "pg_lock_status",
    "pg_my_temp_schema",
    "pg_notify",
    "pg_prepared_statement",
    "pg_prepared_xact",
    "pg_promote",
    "pg_reload_conf",
    "pg_rotate_logfile",
    "pg_sequence_last_value",
    "pg_switch_wal",
    "pg_terminate_backend",
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "query_to_xmlschema",
    "set_config",
    "setseed",
    "setval",
    "ts_rewrite",
    "ts_stat",
    "txid_status",
];

/// The same by their beginnings. PostgreSQL keeps names that begin with `pg_` for itself.
const BOUND_PREFIXES: &[&str] = &[
    "binary_upgrade_",
    "pg_advisory_",
    "pg_backup_",
    "pg_copy_",
    "pg_create_",
    "pg_current_snapshot",
    "pg_current_wal_",
    "pg_current_xact_",
    "pg_drop_",
    "pg_logical_",
    "pg_ls_",
    "pg_read_",
    "pg_replication_",
    "pg_start_backup",
    "pg_stat_",
    "pg_stop_backup",
    "pg_try_advisory_",
    "pg_wal_",
    "pg_xact_",
    "txid_current",
];

/// Whether it belongs to the primary, whatever its mark says.
pub(super) fn is_bound(name: &str) -> bool {
    BOUND.binary_search(&name).is_ok()
        || BOUND_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Those that do something on the primary which a read-only transaction may do: a replica does it for itself alone, or refuses.
const INSISTING: &[&str] = &[
    "currval",
    "lastval",
    "pg_cancel_backend",
    "pg_export_snapshot",
    "pg_notify",
    "pg_promote",
    "pg_reload_conf",
    "pg_rotate_logfile",
    "pg_switch_wal",
    "pg_terminate_backend",
];

/// The same by their beginnings.
const INSISTING_PREFIXES: &[&str] = &[
    "pg_advisory_",
    "pg_backup_",
    "pg_copy_",
    "pg_create_",
    "pg_current_wal_",
    "pg_current_xact_",
    "pg_drop_",
    "pg_logical_",
    "pg_replication_",
    "pg_start_backup",
    "pg_stop_backup",
    "pg_try_advisory_",
];

/// Whether it is the primary that is meant, in a read-only transaction too. Of those that write, a replica is as good as the
/// primary there: both refuse.
pub(super) fn insists(name: &str) -> bool {
    INSISTING.binary_search(&name).is_ok()
        || ["txid_current", "txid_current_if_assigned"].contains(&name)
        || INSISTING_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// Whether a view of PostgreSQL's tells of a server or a session: each server has other rows.
pub(crate) fn is_one_servers(view: &str) -> bool {
    const PREFIXES: &[&str] = &["pg_stat_", "pg_statio_", "pg_replication_"];
    const VIEWS: &[&str] = &[
        "pg_cursors",
        "pg_locks",
        "pg_prepared_statements",
        "pg_prepared_xacts",
        // Of those that are not logged yet a replica knows more than was drawn.
        "pg_sequences",
    ];
    VIEWS.contains(&view) || PREFIXES.iter().any(|prefix| view.starts_with(prefix))
}

/// Whether it is marked volatile without need.
pub(super) fn is_harmless(name: &str) -> bool {
    HARMLESS.binary_search(&name).is_ok()
}

/// What is known of it by its name alone.
pub(super) fn verdict(name: &str) -> Option<Verdict> {
    if is_bound(name) {
        Some(Verdict::Bound)
    } else {
        (is_harmless(name) || STABLE.contains(name)).then_some(Verdict::Reads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted_and_share_nothing() {
        assert!(BOUND.is_sorted() && HARMLESS.is_sorted() && INSISTING.is_sorted());
        assert!(INSISTING.iter().all(|name| is_bound(name)));
        assert!(HARMLESS.iter().all(|name| !is_bound(name)));
        assert!(HARMLESS.iter().all(|name| !STABLE.contains(name)));
        assert!(STABLE.len() > 2400);
    }
}
