//! `/openapi.json` is true.

use pgdog_tests::{Postgres, Proxy};

use super::{admin, config, with_admin};

#[test]
fn the_document_names_every_path_and_what_each_half_looks_like() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&with_admin(config(&database), ""));
    let http = admin(&proxy);
    let document = http.get("/openapi.json").expect(200).json();
    let paths = document["paths"].as_object().expect("there are paths");
    for (path, methods) in paths {
        for method in methods.as_object().expect("there are methods").keys() {
            if method != "post" {
                let answer = http
                    .ask(&method.to_uppercase(), path, None)
                    .expect("it answers");
                assert!(
                    ![404, 405].contains(&answer.status),
                    "{method} {path}: {answer:?}"
                );
            }
        }
    }
    let schemas = &document["components"]["schemas"];
    assert!(schemas["General"]["properties"]["default_pool_size"].is_object());
    assert!(schemas["Host"]["properties"]["role"].is_object());
}
