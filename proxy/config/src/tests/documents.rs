//! The halves of a configuration.

use serde_json::json;

use crate::api::Half;
use crate::documents::{check, inherit, join, read_budget, sha256, split, without_hosts};
use crate::{Config, Settings, json_schema};

fn config() -> Config {
    let pgdog = "
        [general]
        port = 7000
        [[databases]]
        name = \"app\"
        host = \"a\"
        pool_size = 5
        user = \"rw\"
        password = \"secret\"
        [[databases]]
        name = \"app\"
        host = \"b\"
        role = \"replica\"
        statement_timeout = 100
    ";
    let users = "[[users]]\nname = \"u\"\ndatabase = \"app\"\npassword = \"p\"\n";
    Config::from_toml(pgdog, users).unwrap()
}

#[test]
fn halves_of_a_configuration_make_the_same_configuration() {
    let config = config();
    let (settings, topology) = split(&config);
    let joined = Config::from_json(&join(&settings, &topology), "test").unwrap();
    assert_eq!(
        joined,
        Config {
            warnings: vec![],
            ..config
        }
    );
}

#[test]
fn a_topology_holds_no_password_and_passes_its_own_check() {
    let (settings, topology) = split(&config());
    assert!(!topology.to_string().contains("secret"));
    check(Half::Topology, &topology).unwrap();
    check(Half::Settings, &without_hosts(&settings)).unwrap();
}

#[test]
fn new_hosts_get_the_settings_of_their_database() {
    let settings = json!({
        "databases": [{ "name": "app", "pool_size": 7 }],
        "users": [{ "name": "u", "database": "app", "password": "p" }],
    });
    let topology = json!({ "databases": [{ "name": "app", "host": "c" }] });
    let config = Config::from_json(&join(&settings, &topology), "test").unwrap();
    let (settings, _) = Settings::build(&config).unwrap();
    assert_eq!(settings.users[0].pool.size, 7);
    assert_eq!(
        settings.users[0].pool.hosts[0].address.to_string(),
        "c:5432"
    );
}

#[test]
fn ten_mistakes_are_ten_problems_with_paths() {
    let document = json!({
        "general": { "prot": 1, "port": "x", "workers": -1, "auth_type": "none", "default_pool_size": 1.5 },
        "databases": [{ "name": "app", "host": "h" }, { "pool_size": 1 }, { "name": "app" }],
        "users": [{ "name": 7 }, { "nam": "x" }],
    });
    let problems = check(Half::Settings, &document).unwrap_err();
    let found: Vec<_> = problems.0.iter().map(|p| p.path.as_str()).collect();
    let expected = [
        "databases[0].host",
        "databases[1].name",
        "databases[2].name",
        "general.auth_type",
        "general.default_pool_size",
        "general.port",
        "general.prot",
        "general.workers",
        "users[0].name",
        "users[1].nam",
        "users[1].name",
    ];
    let mut sorted = found.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, expected, "{problems}");
    assert!(problems.to_string().contains("belongs to the topology"));
}

#[test]
fn keys_of_the_process_are_inherited_and_cannot_be_changed() {
    let (process, _) = split(&config());
    let mut silent = json!({ "general": { "default_pool_size": 3 } });
    inherit(&mut silent, &process).unwrap();
    assert_eq!(silent["general"]["port"], 7000);
    assert_eq!(silent["general"]["default_pool_size"], 3);
    let mut same = json!({ "general": { "port": 7000 } });
    inherit(&mut same, &process).unwrap();
    let mut other =
        json!({ "general": { "port": 7001, "workers": 9 }, "admin": { "http_port": 1 } });
    let problems = inherit(&mut other, &process).unwrap_err();
    let paths: Vec<_> = problems.0.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(
        paths,
        ["admin.http_port", "general.port", "general.workers"]
    );
    assert!(
        problems
            .0
            .iter()
            .all(|p| p.code.as_str() == "requires_restart")
    );
}

#[test]
fn the_hash_does_not_depend_on_the_order_of_keys() {
    let one: serde_json::Value =
        serde_json::from_str(r#"{"b":[1,{"y":null,"x":"é"}],"a":1.5}"#).unwrap();
    let other: serde_json::Value =
        serde_json::from_str(r#"{"a":1.5,"b":[1,{"x":"é","y":null}]}"#).unwrap();
    assert_eq!(sha256(&one), sha256(&other));
    // printf '%s' '{"a":1.5,"b":[1,{"x":"é","y":null}]}' | sha256sum
    let mut hasher = <sha2::Sha256 as sha2::Digest>::new();
    sha2::Digest::update(&mut hasher, r#"{"a":1.5,"b":[1,{"x":"é","y":null}]}"#);
    let digest = sha2::Digest::finalize(hasher);
    assert!(sha256(&one).starts_with(&format!("{:02x}{:02x}", digest[0], digest[1])));
}

#[test]
fn every_definition_that_a_half_refers_to_is_there() {
    for half in [Half::Settings, Half::Topology] {
        let schema = crate::documents::schema(half);
        let text = schema.to_string();
        for reference in text.split("\"#/$defs/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schema["$defs"][name].is_object(), "{half}: {name}");
        }
    }
    assert!(json_schema()["$defs"]["Database"].is_object());
}

#[test]
fn null_is_taken_where_the_schema_has_it_and_nowhere_else() {
    let fine =
        json!({ "general": { "query_timeout": null }, "vault": null, "control": { "a": null } });
    check(Half::Settings, &fine).unwrap();
    let wrong = json!({
        "general": { "default_pool_size": null, "auth_type": null },
        "users": [{ "name": "u", "replication_mode": null, "password": null }],
        "tcp": null,
    });
    let problems = check(Half::Settings, &wrong).unwrap_err();
    let mut paths: Vec<_> = problems.0.iter().map(|p| p.path.as_str()).collect();
    paths.sort_unstable();
    let expected = [
        "general.auth_type",
        "general.default_pool_size",
        "tcp",
        "users[0].replication_mode",
    ];
    assert_eq!(paths, expected, "{problems}");
    let whole = serde_json::to_value(Config::default()).unwrap();
    let mut whole = without_hosts(&whole);
    whole.as_object_mut().unwrap().remove("snapshot");
    whole.as_object_mut().unwrap().remove("budget");
    check(Half::Settings, &whole).unwrap();
}

#[test]
fn peers_of_pods_belong_to_the_topology_and_others_to_the_settings() {
    let toml = |pod: &str| {
        format!(
            "[general]\npeer_id = 2\n[[peers]]\nid = 1\nhost = \"h\"\n{pod}\n\
             [[databases]]\nname = \"app\"\nhost = \"a\"\n"
        )
    };
    let fleet = Config::from_toml(&toml("pod_uid = \"a\""), "").unwrap();
    let plain = Config::from_toml(&toml(""), "").unwrap();
    let (settings, topology) = split(&fleet);
    assert!(settings["peers"].is_null());
    assert_eq!(topology["peers"][0]["pod_uid"], "a");
    check(Half::Topology, &topology).unwrap();
    let joined = Config::from_json(&join(&settings, &topology), "test").unwrap();
    assert_eq!(joined.peers, fleet.peers);
    let (with_peers, without) = split(&plain);
    assert_eq!(with_peers["peers"][0]["id"], 1);
    assert!(without["peers"].is_null());
    let joined = |topology| {
        Config::from_json(&join(&with_peers, topology), "test")
            .unwrap()
            .peers
    };
    assert_eq!(joined(&without), plain.peers);
    assert_eq!(joined(&topology), fleet.peers);
    let wrong = json!({ "databases": [], "peers": [{ "id": 1, "hots": "h" }] });
    let problems = check(Half::Topology, &wrong).unwrap_err();
    let mut found: Vec<_> = problems.0.iter().map(|p| p.path.as_str()).collect();
    found.sort_unstable();
    assert_eq!(found, ["peers[0].host", "peers[0].hots"]);
}

#[test]
fn a_budget_names_hosts_by_address_and_port() {
    let fine =
        json!({ "default": null, "hosts": { "h:5432": 3, "[::1]:1": 0, "/run/.s.PGSQL.5432": 1 } });
    let budget = read_budget(&fine).unwrap();
    assert_eq!((budget.default, budget.hosts["h:5432"]), (None, 3));
    for (wrong, path) in [
        (json!({ "hosts": { "10.0.0.5": 3 } }), "hosts.10.0.0.5"),
        (json!({ "hosts": { "h:0": 3 } }), "hosts.h:0"),
        (json!({ "hosts": { ":5432": 3 } }), "hosts.:5432"),
        (json!({ "hosts": { "h:1": null } }), "hosts.h:1"),
        (json!({ "hosts": { "h:1": -1 } }), "hosts.h:1"),
        (json!({ "host": {} }), "host"),
    ] {
        let problems = read_budget(&wrong).unwrap_err();
        let found: Vec<_> = problems.0.iter().map(|p| p.path.as_str()).collect();
        assert_eq!(found, [path], "{problems}");
    }
    let big = json!({ "default": 4_294_967_296_u64 });
    assert!(read_budget(&big).is_err());
    let config = Config::from_toml("[budget.hosts]\nh = 3\n", "").unwrap();
    let problems = Settings::build(&config).unwrap_err().to_string();
    assert!(problems.contains("budget.hosts.h: expected"), "{problems}");
}
