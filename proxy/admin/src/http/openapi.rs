//! `/openapi.json`: made of the table of operations, the types of the API and the schema of the configuration.

use pgdog_config::api::{Half, Push, Refused, RefusedBecause};
use pgdog_config::documents;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value as Json, json};

use super::routes::{OPERATIONS, Operation};

/// Where schemas stand in the document.
const SCHEMAS: &str = "#/components/schemas/";

/// What any request may be refused for.
const ALWAYS: &[RefusedBecause] = &[
    RefusedBecause::Unauthorized,
    RefusedBecause::Forbidden,
    RefusedBecause::Internal,
];

/// The OpenAPI document of the admin API.
#[must_use]
pub fn document() -> Json {
    let settings = SchemaSettings::draft2020_12()
        .with(|s| s.definitions_path = SCHEMAS[1..].trim_end_matches('/').to_owned().into());
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = describe(operation, &mut generator);
    }
    paths.insert("/openapi.json".to_owned(), json!({ "get": own() }));
    let refused = generator.subschema_for::<Refused>();
    let push = generator.root_schema_for::<Push>().to_value();
    let mut schemas: Map<String, Json> = generator.take_definitions(true).into_iter().collect();
    debug_assert!(refused.get("$ref").is_some(), "it is a definition");
    for half in [Half::Settings, Half::Topology] {
        add_half(half, &push, &mut schemas);
    }
    schemas.remove("Push");
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "PgDog admin API",
            "version": "1",
            "description": "Configuration and life of one proxy.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "The content of admin.http_token_file." },
                "certificate": { "type": "mutualTLS", "description": "A certificate of the authority in admin.http_client_ca." },
            },
        },
        // Loopback addresses may do without.
        "security": [{ "token": [] }, { "certificate": [] }, {}],
    })
}

fn describe(operation: &Operation, generator: &mut SchemaGenerator) -> Json {
    let mut responses = Map::new();
    let answer = (operation.answer)(generator);
    responses.insert(
        operation.status.to_string(),
        content("Done", &answer.to_value()),
    );
    let refused = json!({ "$ref": format!("{SCHEMAS}Refused") });
    for because in operation.refusals.iter().chain(ALWAYS) {
        let name = serde_json::to_value(because).unwrap_or_default();
        let text = format!("Nothing was changed: {}", name.as_str().unwrap_or_default());
        responses.insert(because.status().to_string(), content(&text, &refused));
    }
    let id = operation.path.trim_start_matches("/v1/").replace('/', "_");
    let mut described = json!({
        "operationId": format!("{}_{id}", operation.method),
        "summary": operation.summary,
        "responses": responses,
    });
    if let Some(half) = operation.body {
        described["parameters"] = json!([{
            "name": "dryRun",
            "in": "query",
            "description": "Only say what would become of it.",
            "schema": { "type": "boolean", "default": false },
        }]);
        described["requestBody"] = json!({
            "required": true,
            "content": { "application/json": { "schema": { "$ref": format!("{SCHEMAS}{}", push_name(half)) } } },
        });
    }
    described
}

fn own() -> Json {
    json!({
        "operationId": "get_openapi",
        "summary": "This document",
        "responses": {
            "200": content("The document", &json!({ "type": "object" })),
            "401": content("Not without a token or a certificate", &json!({ "$ref": format!("{SCHEMAS}Refused") })),
            "403": content("Not for the one who asks", &json!({ "$ref": format!("{SCHEMAS}Refused") })),
        },
    })
}

fn content(description: &str, schema: &Json) -> Json {
    json!({
        "description": description,
        "content": { "application/json": { "schema": schema } },
    })
}

const fn push_name(half: Half) -> &'static str {
    match half {
        Half::Settings => "PushSettings",
        Half::Topology => "PushTopology",
    }
}

/// Adds the schema of a half, the definitions that it refers to, and that of its push.
fn add_half(half: Half, push: &Json, schemas: &mut Map<String, Json>) {
    let mut config = documents::schema(half);
    move_references(&mut config);
    let (mut push, name) = (
        push.clone(),
        config["title"].as_str().unwrap_or_default().to_owned(),
    );
    if let Some(fields) = config.as_object_mut() {
        fields.remove("$schema");
        let definitions = fields.remove("$defs");
        for (name, definition) in definitions
            .as_ref()
            .and_then(Json::as_object)
            .into_iter()
            .flatten()
        {
            schemas.insert(name.clone(), definition.clone());
        }
    }
    schemas.insert(name.clone(), config);
    if let Some(fields) = push.as_object_mut() {
        fields.remove("$schema");
        fields.remove("components");
        fields.remove("$defs");
    }
    push["title"] = push_name(half).into();
    push["properties"]["config"] = json!({ "$ref": format!("{SCHEMAS}{name}") });
    schemas.insert(push_name(half).to_owned(), push);
}

fn move_references(schema: &mut Json) {
    match schema {
        Json::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Json::String(text) if key == "$ref" => {
                        *text = text.replace("#/$defs/", SCHEMAS);
                    }
                    other => move_references(other),
                }
            }
        }
        Json::Array(values) => values.iter_mut().for_each(move_references),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let text = document.to_string();
        assert!(!text.contains("#/$defs/"));
        let schemas = &document["components"]["schemas"];
        let mut seen = 0;
        for reference in text.split(&format!("\"{SCHEMAS}")).skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schemas[name].is_object(), "{name} in {schemas:#}");
            seen += 1;
        }
        assert!(seen > 50, "{seen}");
    }

    #[test]
    fn names_of_the_api_and_of_the_configuration_do_not_meet() {
        let mut generator = SchemaGenerator::default();
        for operation in OPERATIONS {
            (operation.answer)(&mut generator);
        }
        let api: Vec<String> = generator
            .take_definitions(false)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        let mut config = Map::new();
        for half in [Half::Settings, Half::Topology] {
            add_half(half, &json!({ "properties": {} }), &mut config);
        }
        let both: Vec<_> = api
            .iter()
            .filter(|name| config.contains_key(*name))
            .collect();
        assert!(both.is_empty(), "{both:?}");
    }

    #[test]
    fn every_operation_is_described_with_what_it_answers() {
        let document = document();
        for operation in OPERATIONS {
            let described = &document["paths"][operation.path][operation.method];
            let status = operation.status.to_string();
            assert!(
                described["responses"][&status].is_object(),
                "{}",
                operation.path
            );
            for because in operation.refusals {
                assert!(described["responses"][because.status().to_string()].is_object());
            }
        }
        let push = &document["components"]["schemas"]["PushTopology"];
        assert_eq!(
            push["properties"]["config"]["$ref"],
            "#/components/schemas/Topology"
        );
        assert_eq!(push["required"], json!(["epoch", "revision", "config"]));
    }
}
