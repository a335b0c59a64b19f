//! The custom resource definition, as it is given to the API server.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::PgDogCluster;

/// The definition. Of what the types say, that is left out which only makes it longer: a key that is not set is left out and
/// not null, and the width of a number is told by its bounds. A definition has to fit into an annotation of 256 KiB, twice.
///
/// # Panics
///
/// Never: what came from a definition is one.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    let mut crd = serde_json::to_value(PgDogCluster::crd()).expect("a definition is JSON");
    shorten(&mut crd["spec"]["versions"]);
    serde_json::from_value(crd).expect("it was a definition")
}

fn shorten(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            // A property may have such a name; then it is a schema.
            for key in ["nullable", "format"] {
                if entries.get(key).is_some_and(|value| !value.is_object())
                    && entries.contains_key("type")
                {
                    entries.remove(key);
                }
            }
            entries.values_mut().for_each(shorten);
        }
        Value::Array(values) => values.iter_mut().for_each(shorten),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_small_enough_for_kubectl_apply() {
        let size = serde_json::to_vec(&crd()).unwrap().len();
        assert!(size < 100 * 1024, "{size} bytes");
    }

    #[test]
    fn every_field_is_explained() {
        fn walk(path: &str, schema: &Value, bare: &mut Vec<String>) {
            let properties = schema["properties"].as_object().into_iter().flatten();
            for (key, property) in properties {
                let path = format!("{path}.{key}");
                if property["description"].as_str().is_none_or(str::is_empty) {
                    bare.push(path.clone());
                }
                walk(&path, property, bare);
                walk(&format!("{path}[]"), &property["items"], bare);
            }
        }
        let crd = serde_json::to_value(crd()).unwrap();
        let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut bare = Vec::new();
        for part in ["spec", "status"] {
            walk(part, &root["properties"][part], &mut bare);
        }
        bare.retain(|path| !path.contains("elector"));
        assert!(bare.is_empty(), "without a description: {bare:#?}");
    }
}
