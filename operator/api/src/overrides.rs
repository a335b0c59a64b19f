//! Keys of the proxy's own configuration, with the schema that the proxy has for them.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Keys of pgdog.toml, as they were written: what is not there keeps the proxy's own default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Overrides(pub Map<String, Value>);

impl Overrides {
    /// The sections that may be written; the others belong to the operator or name files in the proxy's image.
    pub const SECTIONS: &[&str] = &[
        "general",
        "tcp",
        "memory",
        "sharded_tables",
        "sharded_mappings",
        "sharded_schemas",
        "omnisharded_tables",
        "mirroring",
        "multi_tenant",
        "query_parsers",
        "rewrite",
        "query_stats",
    ];

    /// Keys of `general` that the operator writes itself, each with the field of the resource that stands for it.
    pub const OWNED: &[(&str, &str)] = &[
        ("host", "mode"),
        ("port", "service.targetPort"),
        ("unix_socket_dir", "mode"),
        ("unix_socket_mode", "mode"),
        ("peer_id", "the operator"),
        ("watch_config", "the operator"),
        ("shutdown_timeout", "drain.timeout"),
        ("auth_hba_file", "users"),
        ("auth_ident_file", "users"),
        ("tls_certificate", "tls.client.secretRef"),
        ("tls_private_key", "tls.client.secretRef"),
        ("tls_client_ca_certificate", "tls.client.caSecretRef"),
        ("tls_client_required", "tls.client.mode"),
        ("tls_server_ca_certificate", "tls.server.caSecretRef"),
        ("tls_server_certificate", "tls.server.clientSecretRef"),
        ("tls_server_private_key", "tls.server.clientSecretRef"),
        ("tls_verify", "tls.server.mode"),
        ("healthcheck_port", "monitoring.port"),
        ("openmetrics_port", "monitoring.port"),
        ("openmetrics_host", "monitoring.port"),
        ("log_format", "monitoring.logFormat"),
        ("log_level", "monitoring.logLevel"),
        ("default_pool_size", "pooling.defaultPoolSize"),
        ("min_pool_size", "pooling.minPoolSize"),
        ("pooler_mode", "pooling.mode"),
    ];

    /// Whether this key of `general` belongs to the operator; says which field stands for it.
    #[must_use]
    pub fn owner(key: &str) -> Option<&'static str> {
        Self::OWNED
            .iter()
            .find_map(|(owned, field)| (*owned == key).then_some(*field))
    }
}

impl JsonSchema for Overrides {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Overrides".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let root = pgdog_config::json_schema();
        let mut properties = Map::new();
        for section in Self::SECTIONS {
            let mut schema = inlined(&root["properties"][*section], &root);
            if *section == "general"
                && let Some(keys) = schema["properties"].as_object_mut()
            {
                keys.retain(|key, _| Self::owner(key).is_none());
            }
            properties.insert((*section).to_owned(), schema);
        }
        let mut schema = Map::new();
        schema.insert("type".to_owned(), "object".into());
        schema.insert("properties".to_owned(), properties.into());
        schema.into()
    }
}

/// A part of the configuration's schema in the form that Kubernetes takes: without references and defaults, one type each.
fn inlined(schema: &Value, root: &Value) -> Value {
    let mut schema = follow(schema, root);
    let Some(object) = schema.as_object_mut() else {
        return schema;
    };
    // The proxy has its own defaults; written into each resource they could never change.
    for key in [
        "default",
        "$schema",
        "title",
        "format",
        "additionalProperties",
    ] {
        if key != "additionalProperties" || object.get(key) == Some(&Value::Bool(false)) {
            object.remove(key);
        }
    }
    if let Some(choices) = object.remove("oneOf") {
        let values = choices.as_array().into_iter().flatten();
        let all: Vec<Value> = values
            .flat_map(|choice| match (&choice["const"], &choice["enum"]) {
                (Value::Null, Value::Array(several)) => several.clone(),
                (one, _) => vec![one.clone()],
            })
            .collect();
        object.insert("type".to_owned(), "string".into());
        object.insert("enum".to_owned(), all.into());
    }
    if let Some(Value::Array(kinds)) = object.get("type").cloned() {
        // "or null": a key that is not set is left out here.
        let one = kinds.into_iter().find(|kind| kind != "null");
        object.insert("type".to_owned(), one.unwrap_or_default());
    }
    let properties = object.get_mut("properties").and_then(Value::as_object_mut);
    for (_, property) in properties.into_iter().flatten() {
        *property = inlined(property, root);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = object.get(key).filter(|inner| inner.is_object()).cloned() {
            object.insert(key.to_owned(), inlined(&inner, root));
        }
    }
    if !object.contains_key("type") {
        object.insert(
            "x-kubernetes-preserve-unknown-fields".to_owned(),
            true.into(),
        );
    }
    schema
}

/// The schema that is meant: references followed, "or null" left out, the description of the place kept.
fn follow(schema: &Value, root: &Value) -> Value {
    let choices = schema["anyOf"].as_array();
    let one = choices
        .and_then(|all| all.iter().find(|choice| choice["type"] != "null"))
        .unwrap_or(schema);
    let name = one["$ref"]
        .as_str()
        .and_then(|path| path.strip_prefix("#/$defs/"));
    let mut meant = match name {
        Some(name) => follow(&root["$defs"][name], root),
        None => one.clone(),
    };
    if let (Some(meant), Some(description)) = (meant.as_object_mut(), schema.get("description")) {
        meant.insert("description".to_owned(), description.clone());
    }
    meant
}
