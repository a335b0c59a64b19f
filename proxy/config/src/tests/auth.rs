//! Rules, queries for passwords, and what slows guessing down.

use std::time::Duration;

use super::{errors, settings, warnings};
use crate::{AuthQuery, AuthType, Hba, LoginLimits};

const DATABASES: &str =
    "[[databases]]\nname = \"a\"\nhost = \"h\"\n[[databases]]\nname = \"b\"\nhost = \"h\"\n";
const USER: &str = "[[users]]\nname = \"reader\"\npassword = \"p\"\nall_databases = true\n";

#[test]
fn with_rules_a_user_needs_no_password_since_they_may_ask_for_none() {
    let general =
        "[general]\nauth_type = \"hba\"\nauth_hba_file = \"f\"\nauth_ident_file = \"g\"\n";
    let users = "[[users]]\nname = \"a\"\n";
    let settings = settings(&format!("{general}{DATABASES}"), users);
    assert_eq!(
        settings.hba,
        Some(Hba {
            rules: "f".into(),
            maps: Some("g".into())
        })
    );
    assert_eq!(settings.users[0].auth, None);
}

#[test]
fn rules_and_their_file_need_each_other() {
    let without = "[general]\nauth_type = \"hba\"\n";
    assert_eq!(
        errors(without, ""),
        ["pgdog.toml:2: general.auth_type: hba needs auth_hba_file"]
    );
    let unused = "[general]\nauth_hba_file = \"f\"\nauth_ident_file = \"g\"\n";
    let told = warnings(unused, "");
    let paths: Vec<_> = told.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["general.auth_hba_file", "general.auth_ident_file"]);
    let settings = settings(unused, "");
    assert_eq!((settings.auth, settings.hba), (AuthType::Scram, None));
}

#[test]
fn a_method_of_a_user_is_not_looked_at_beside_rules() {
    let pgdog = format!("[general]\nauth_type = \"hba\"\nauth_hba_file = \"f\"\n{DATABASES}");
    let users = format!("{USER}auth_type = \"trust\"\n");
    let told = warnings(&pgdog, &users);
    assert!(
        told[0]
            .to_string()
            .contains("users[0].auth_type: not looked at"),
        "{told:?}"
    );
}

#[test]
fn a_database_wins_over_general_in_its_query() {
    let general = "[general]\nauth_user = \"reader\"\nauth_dbname = \"b\"\n";
    let first = "[[databases]]\nname = \"a\"\nhost = \"h\"\nauth_query = \"select f($1)\"\nauth_dbname = \"a\"\n";
    let others = "[[databases]]\nname = \"b\"\nhost = \"h\"\n[[databases]]\nname = \"c\"\nhost = \"h\"\nauth_user = \"\"\n";
    let pgdog = format!("{general}{first}{others}");
    let queries = settings(&pgdog, USER).auth_queries;
    assert_eq!(
        queries[0],
        AuthQuery {
            database: "a".to_owned(),
            user: "reader".to_owned(),
            runs_in: "a".to_owned(),
            query: "select f($1)".to_owned(),
        }
    );
    assert_eq!(
        (queries[1].database.as_str(), queries[1].runs_in.as_str()),
        ("b", "b")
    );
    assert!(queries[1].query.contains("pg_catalog.pg_authid"));
    assert_eq!(queries.len(), 2, "c switches it off");
    assert!(settings(DATABASES, USER).auth_queries.is_empty());
    let told = warnings(&pgdog, USER);
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn the_pool_of_a_guest_is_that_of_the_database() {
    let pgdog = "[general]\ndefault_pool_size = 7\nmax_user_client_connections = 3\npassthrough_auth = \"enabled\"\n\
        [[databases]]\nname = \"a\"\nhost = \"h\"\npool_size = 4\n\
        [[databases]]\nname = \"b\"\nhost = \"h\"\nuser = \"forced\"\npassword = \"p\"\n";
    let settings = settings(pgdog, "");
    let seen: Vec<_> = settings
        .guest_pools
        .iter()
        .map(|pool| {
            let (user, server_user) = (pool.user.as_str(), pool.server_user.as_str());
            (pool.database.as_str(), user, server_user, pool.size)
        })
        .collect();
    assert_eq!(seen, [("a", "", "", 4), ("b", "", "forced", 7)]);
    assert_eq!(settings.guest_pools[1].server_passwords, ["p"]);
    assert_eq!(settings.guest_max_clients, Some(3));
    assert!(warnings(pgdog, "").is_empty());
}

#[test]
fn passthrough_asks_for_passwords_where_nobody_can_read_along() {
    use crate::PassthroughAuth::*;
    let ways = [
        Disabled,
        Enabled,
        EnabledAllowChange,
        EnabledPlain,
        EnabledPlainAllowChange,
    ];
    let asks = |secure| ways.map(|way| way.asks(secure));
    assert_eq!(asks(true), [false, true, true, true, true]);
    assert_eq!(asks(false), [false, false, false, true, true]);
    assert_eq!(
        ways.map(|way| way.allows_change()),
        [false, false, true, false, true]
    );
}

#[test]
fn a_query_names_what_exists() {
    let general = "[general]\nauth_user = \"nobody\"\nauth_query = \"select 1\"\n";
    let database = "[[databases]]\nname = \"a\"\nhost = \"h\"\n[[databases]]\nname = \"b\"\nhost = \"h\"\nauth_user = \"reader\"\nauth_dbname = \"x\"\nauth_query = \"select $1\"\n";
    assert_eq!(
        errors(&format!("{general}{database}"), USER),
        [
            "pgdog.toml:2: general.auth_user: no user \"nobody\" in [[users]] to run auth_query",
            "pgdog.toml:3: general.auth_query: needs $1 in place of the name of the user",
            "pgdog.toml:11: databases[1].auth_dbname: no database \"x\" in [[databases]]",
        ]
    );
}

#[test]
fn limits_of_logins_have_defaults_and_can_be_switched_off() {
    let limits = settings("", "").login_limits;
    assert_eq!(
        limits,
        LoginLimits {
            free_failures: 10,
            failure_delay: Some(Duration::from_millis(500)),
            failure_delay_max: Duration::from_secs(30),
            per_address: None,
        }
    );
    let general = "[general]\nauth_failure_delay = 0\nmax_logins_per_address = 5\n";
    let limits = settings(general, "").login_limits;
    assert_eq!((limits.failure_delay, limits.per_address), (None, Some(5)));
}
