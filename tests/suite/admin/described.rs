//! Every answer by HTTP is as `/openapi.json` says, and none tells a secret.

use pgdog_tests::{Http, Message, Postgres, Proxy, ProxyConfig};
use serde_json::Value;

use super::http::{api, config};

#[test]
fn every_answer_fits_the_description() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let name = database.name();
    let proxy = Proxy::start(&config(&database));
    let mut client = proxy.client("pgdog", name);
    client.transcript(&[Message::parse("s", "select 1"), Message::Sync]);
    client.run("begin");
    let http = api(&proxy);
    let document = http.get("/openapi.json").expect(200).json();
    let mut seen = 0;
    let mut rows = 0;
    for (path, methods) in document["paths"].as_object().expect("there are paths") {
        let Some(described) = methods.get("get") else {
            continue;
        };
        let answer = http.get(path).expect(200).json();
        let schema = &described["responses"]["200"]["content"]["application/json"]["schema"];
        fits(&document, schema, &answer, path);
        seen += 1;
        rows += answer.as_array().map_or(0, Vec::len);
    }
    assert!(seen >= 14 && rows >= 10, "{seen} answers, {rows} rows");
    for (path, status) in [
        ("/v1/reconnect", 200),
        ("/v1/resume", 409),
        ("/v1/pause?user=x", 400),
        ("/v1/pause?database=x", 404),
        ("/v1/reload", 200),
    ] {
        let answer = http.post(path).expect(status).json();
        let described = &document["paths"][path.split('?').next().unwrap_or_default()]["post"];
        let schema =
            &described["responses"][status.to_string()]["content"]["application/json"]["schema"];
        fits(&document, schema, &answer, path);
    }
}

/// Panics where a value is not what the schema says; knows the words of JSON Schema that the document uses for answers.
fn fits(document: &Value, schema: &Value, value: &Value, at: &str) {
    assert!(
        schema.is_object() || *schema == Value::Bool(true),
        "{at}: not described"
    );
    if let Some(name) = schema["$ref"].as_str() {
        let target = document.pointer(name.trim_start_matches('#'));
        return fits(
            document,
            target.unwrap_or_else(|| panic!("{name}: nowhere")),
            value,
            at,
        );
    }
    for one in ["anyOf", "oneOf"] {
        let choices = schema[one].as_array().into_iter().flatten();
        let mut choices = choices.peekable();
        if choices.peek().is_some() {
            let null = |s: &&Value| (s["type"] == "null") == value.is_null();
            let choice = choices
                .find(null)
                .unwrap_or_else(|| panic!("{at}: no choice for {value}"));
            fits(document, choice, value, at);
        }
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let is = |kind: &&str| match *kind {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{at}: {other}"),
    };
    assert!(
        kinds.is_empty() || kinds.iter().any(is),
        "{at}: {value} is none of {kinds:?}"
    );
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        if schema["items"].is_object() {
            fits(document, &schema["items"], item, &format!("{at}[{index}]"));
        }
    }
    let Some(fields) = value.as_object() else {
        return;
    };
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().expect("a name");
        assert!(fields.contains_key(name), "{at}: {name} is missing");
    }
    for (name, field) in fields {
        match &schema["properties"][name] {
            Value::Null => assert_ne!(
                schema["additionalProperties"], false,
                "{at}: {name} is too much"
            ),
            described => fits(document, described, field, &format!("{at}.{name}")),
        }
    }
}

#[test]
fn no_endpoint_tells_a_secret() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let secret = "hunter2-very-secret";
    let token = "token-hunter2";
    let scratch = pgdog_tests::scratch::Scratch::new("secrets");
    let file = scratch.path().join("token");
    std::fs::write(&file, token).expect("it can be written");
    let config = ProxyConfig::transaction(Postgres::shared())
        .general("openmetrics_host", "\"127.0.0.1\"")
        .general("openmetrics_port", "0")
        .general("healthcheck_port", "0")
        .database(database.name())
        .append(&format!(
            "[admin]\npassword = \"{secret}-1\"\nhttp_port = 0\nhttp_token_file = {file:?}"
        ))
        .append_users(&format!(
            "[[users]]\nname = \"s\"\ndatabase = \"{}\"\npassword = \"{secret}-2\"\nserver_user = \"pgdog\"\nserver_password = \"{secret}-3\"",
            database.name()
        ));
    let proxy = Proxy::start(&config);
    let mut client = proxy.client("s", database.name());
    client.run("select 1");
    let http = api(&proxy).header("Authorization", &format!("Bearer {token}"));
    let document = http.get("/openapi.json").expect(200);
    let paths = document.json()["paths"].clone();
    let gets = paths.as_object().expect("there are paths").iter();
    let gets = gets.filter(|(_, methods)| methods.get("get").is_some());
    let mut answers: Vec<_> = gets.map(|(path, _)| http.get(path).expect(200)).collect();
    assert!(answers.len() >= 14, "{}", answers.len());
    for path in [
        "/v1/pause?database=x",
        "/v1/resume",
        "/v1/reconnect",
        "/v1/reload",
    ] {
        answers.push(http.post(path));
    }
    let health = Http::new(proxy.http_port("general.healthcheck_port"));
    let figures = Http::new(proxy.http_port("general.openmetrics_port"));
    answers.extend(["/livez", "/readyz", "/startupz", "/metrics"].map(|path| health.get(path)));
    answers.push(figures.get("/metrics").expect(200));
    for answer in &answers {
        assert!(
            !answer.head.contains("hunter2") && !answer.body.contains("hunter2"),
            "{answer:?}"
        );
    }
    assert!(!proxy.log().contains("hunter2"), "{}", proxy.log());
}
