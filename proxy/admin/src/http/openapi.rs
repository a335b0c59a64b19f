//! `/openapi.json`: made of the table of operations, the types of the API and the schema of the configuration.

use pgdog_config::api::{
    BudgetPushed, Changed, ConfigInForce, Decide, Done, DrainBegun, Half, Prepare, Push, Pushed,
    Refused, RefusedBecause, Reloaded, Status,
};
use pgdog_config::documents;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value as Json, json};

use super::console::{Takes, WAIT, WAIT_MAX};
use super::operations::{Asks, OPERATIONS, Operation};
use crate::command::Show;
use crate::table::Kind;

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
    let _ = generator.subschema_for::<Decide>();
    let _ = generator.subschema_for::<Prepare>();
    let push = generator.root_schema_for::<Push>().to_value();
    let mut schemas: Map<String, Json> = generator.take_definitions(true).into_iter().collect();
    debug_assert!(refused.get("$ref").is_some(), "it is a definition");
    for half in [Half::Settings, Half::Topology] {
        let (config, name) = (documents::schema(half), push_name(half));
        add_push(config, name, &push, &mut schemas);
    }
    add_push(documents::budget_schema(), PUSH_BUDGET, &push, &mut schemas);
    schemas.remove("Push");
    name_pushes(&mut schemas["Change"]);
    for operation in OPERATIONS {
        if let Asks::View(show) = operation.asks {
            schemas.insert(row_name(show), row(show));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "PgDog admin API",
            "version": "1",
            "description": "Configuration, views and life of one proxy.",
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
    let answer = answer(&operation.asks, generator);
    responses.insert(operation.status.to_string(), content("Done", &answer));
    let refused = json!({ "$ref": format!("{SCHEMAS}Refused") });
    for because in operation.refusals.iter().chain(ALWAYS) {
        let name = serde_json::to_value(because).unwrap_or_default();
        let name = name.as_str().unwrap_or_default();
        let status = because.status().to_string();
        let text = match responses.get(&status).map(|told| &told["description"]) {
            Some(Json::String(text)) => format!("{text}, {name}"),
            _ => format!("Nothing was changed: {name}"),
        };
        responses.insert(status, content(&text, &refused));
    }
    let id = operation.path.trim_start_matches("/v1/").replace('/', "_");
    let mut described = json!({
        "operationId": format!("{}_{id}", operation.method),
        "summary": operation.summary(),
        "responses": responses,
    });
    let parameters = parameters(&operation.asks);
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    let body = match operation.asks {
        Asks::Push(half) => Some(push_name(half)),
        Asks::Budget => Some(PUSH_BUDGET),
        Asks::Prepare => Some("Prepare"),
        Asks::Commit | Asks::Abort => Some("Decide"),
        _ => None,
    };
    if let Some(body) = body {
        described["requestBody"] = json!({
            "required": true,
            "content": { "application/json": { "schema": { "$ref": format!("{SCHEMAS}{body}") } } },
        });
    }
    described
}

/// What the answer looks like when it works.
fn answer(asks: &Asks, generator: &mut SchemaGenerator) -> Json {
    fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Json {
        generator.subschema_for::<T>().to_value()
    }
    match asks {
        Asks::Push(_) => of::<Pushed>(generator),
        Asks::Budget => of::<BudgetPushed>(generator),
        Asks::Prepare | Asks::Commit | Asks::Abort => of::<Changed>(generator),
        Asks::Config => of::<ConfigInForce>(generator),
        Asks::Status => of::<Status>(generator),
        Asks::Reload => of::<Reloaded>(generator),
        Asks::Drain => of::<DrainBegun>(generator),
        Asks::Act(_) => of::<Done>(generator),
        Asks::View(show) => {
            let row = format!("{SCHEMAS}{}", row_name(show));
            json!({ "type": "array", "items": { "$ref": row } })
        }
    }
}

/// What may stand behind the question mark.
fn parameters(asks: &Asks) -> Vec<Json> {
    let parameter = |name: &str, description: &str, schema: Json| json!({ "name": name, "in": "query", "description": description, "schema": schema });
    let name = || json!({ "type": "string", "minLength": 1 });
    match asks {
        Asks::Push(_) | Asks::Budget => vec![parameter(
            "dryRun",
            "Only say what would become of it.",
            json!({ "type": "boolean", "default": false }),
        )],
        Asks::Act(act) => {
            if act.takes == Takes::Hosts {
                return vec![
                    parameter("database", "Only the hosts of this database.", name()),
                    parameter(
                        "host",
                        "Only this host of the database: its address, with or without a port.",
                        name(),
                    ),
                ];
            }
            let mut all = vec![
                parameter("database", "Only the pools of this database.", name()),
                parameter("user", "Only this user's pools of the database.", name()),
            ];
            if act.takes == Takes::PoolsAndTime {
                let limit = json!({ "type": "integer", "format": "int64", "minimum": 0, "maximum": WAIT_MAX, "default": WAIT });
                all.push(parameter(
                    "timeoutMs",
                    "How long it may take; it is taken back when that is over.",
                    limit,
                ));
            }
            all
        }
        _ => Vec::new(),
    }
}

/// The name of the schema of a view's row: `QueryStatsRow`.
fn row_name(show: &Show) -> String {
    let name = show.name.trim_start_matches("SHOW ").to_lowercase();
    let words = name.split('_').map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_uppercase() + rest
    });
    words.chain(["Row".to_owned()]).collect()
}

/// A row of a view, made of its columns.
fn row(show: &Show) -> Json {
    let field = |column: &crate::table::Column| {
        let kind = match column.kind {
            Kind::Text => "string",
            Kind::Int | Kind::Count => "integer",
            Kind::Float => "number",
            Kind::Bool => "boolean",
        };
        let schema = json!({ "type": [kind, "null"], "description": column.help });
        (column.name.to_owned(), schema)
    };
    let names: Vec<_> = show.columns.iter().map(|c| c.name).collect();
    json!({
        "type": "object",
        "description": show.help,
        "properties": show.columns.iter().map(field).collect::<Map<_, _>>(),
        "required": names,
        "additionalProperties": false,
    })
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

/// Says of the pushes in a change what each pushes.
fn name_pushes(change: &mut Json) {
    for choice in change["oneOf"].as_array_mut().into_iter().flatten() {
        for half in [Half::Settings, Half::Topology] {
            if let Some(push) = choice["properties"].get_mut(half.as_str()) {
                *push = json!({ "$ref": format!("{SCHEMAS}{}", push_name(half)) });
            }
        }
    }
}

const PUSH_BUDGET: &str = "PushBudget";

/// Adds the schema of what is pushed, the definitions that it refers to, and that of its push.
fn add_push(mut config: Json, push_name: &str, push: &Json, schemas: &mut Map<String, Json>) {
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
    push["title"] = push_name.into();
    push["properties"]["config"] = json!({ "$ref": format!("{SCHEMAS}{name}") });
    schemas.insert(push_name.to_owned(), push);
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
            answer(&operation.asks, &mut generator);
        }
        let api: Vec<String> = generator
            .take_definitions(false)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        let views = OPERATIONS.iter().filter_map(|o| match o.asks {
            Asks::View(show) => Some(row_name(show)),
            _ => None,
        });
        let api: Vec<_> = api.into_iter().chain(views).collect();
        let mut config = Map::new();
        for half in [Half::Settings, Half::Topology] {
            let none = json!({ "properties": {} });
            add_push(documents::schema(half), push_name(half), &none, &mut config);
        }
        let none = json!({ "properties": {} });
        add_push(documents::budget_schema(), PUSH_BUDGET, &none, &mut config);
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
