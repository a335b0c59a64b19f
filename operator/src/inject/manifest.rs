//! Manifests: several YAML documents, of which some are workloads. Pure.
//!
//! Guarantee: a document that nothing is injected into stays as it is, byte by byte; in one that something is injected into keys
//! keep their order and comments within it are lost.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

use super::{DefaultImage, Refusal, asked, inject, yaml};
use pgdog_operator_api::{GROUP, PgDogCluster};

/// What is wrong with a manifest.
#[derive(Debug, thiserror::Error)]
#[error("document {number}{}: {path}{problem}", .what.as_ref().map_or_else(String::new, |what| format!(" ({what})")))]
pub struct Wrong {
    /// Which document, from 1 on.
    number: usize,
    /// Kind and name.
    what: Option<String>,
    /// Where in it, with a colon.
    path: String,
    /// What is wrong.
    problem: String,
}

/// A cluster that a workload asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ask {
    /// The namespace of the workload, where it names one.
    pub namespace: Option<String>,
    /// The name of the cluster.
    pub cluster: String,
}

/// A document as it is written.
struct Raw<'a> {
    /// The line that it begins with: `---`, or nothing.
    separator: &'a str,
    /// The document.
    body: &'a str,
}

/// The clusters that the workloads of a manifest ask for, in the order of the documents. Who asks for none gets `default`.
///
/// # Errors
///
/// What is no YAML.
pub fn asks(text: &str, default: Option<&str>) -> Result<Vec<Ask>, Wrong> {
    let mut asks = Vec::new();
    for (index, raw) in split(text).iter().enumerate() {
        let mut document = parse(index, raw.body)?.1;
        walk(&mut document, "", None, &mut |_, namespace, pod| {
            let cluster = asked(pod).or(default);
            asks.extend(cluster.map(|cluster| Ask {
                namespace: namespace.map(ToOwned::to_owned),
                cluster: cluster.to_owned(),
            }));
            Ok(())
        })
        .map_err(|(path, problem)| wrong(index, &document, &path, problem))?;
    }
    asks.dedup();
    Ok(asks)
}

/// The `PgDogCluster`s that stand in a manifest.
///
/// # Errors
///
/// What is no YAML, or no `PgDogCluster`.
pub fn clusters(text: &str) -> Result<Vec<PgDogCluster>, Wrong> {
    let mut clusters = Vec::new();
    for (index, raw) in split(text).iter().enumerate() {
        let (_, document) = parse(index, raw.body)?;
        let items = document["items"].as_array().cloned().unwrap_or_default();
        for object in items.iter().chain([&document]) {
            let group = object["apiVersion"]
                .as_str()
                .and_then(|v| v.split_once('/'));
            if object["kind"] == "PgDogCluster" && group.is_some_and(|(group, _)| group == GROUP) {
                let cluster = serde_json::from_value(object.clone());
                clusters.push(cluster.map_err(|e| wrong(index, object, "", e.to_string()))?);
            }
        }
    }
    Ok(clusters)
}

/// Puts the proxies into the workloads of a manifest. `find` is asked for each cluster.
///
/// # Errors
///
/// The first workload that cannot have one, and why.
pub fn render<'c>(
    text: &str,
    default: Option<&str>,
    image: &DefaultImage,
    find: &dyn Fn(&Ask) -> Result<&'c PgDogCluster, String>,
) -> Result<String, Wrong> {
    let mut rendered = String::new();
    for (index, raw) in split(text).iter().enumerate() {
        let (written, before) = parse(index, raw.body)?;
        let mut document = before.clone();
        walk(&mut document, "", None, &mut |path, namespace, pod| {
            let Some(cluster) = asked(pod).or(default) else {
                return Ok(());
            };
            let ask = Ask {
                namespace: namespace.map(ToOwned::to_owned),
                cluster: cluster.to_owned(),
            };
            let cluster = find(&ask).map_err(|problem| (path.to_owned(), problem))?;
            let at = |refusal: &Refusal| (path.to_owned(), refusal.to_string());
            inject(cluster, image, pod).map_err(|refusal| at(&refusal))?;
            check(pod).map_err(|problem| (path.to_owned(), problem))
        })
        .map_err(|(path, problem)| wrong(index, &before, &path, problem))?;
        if !rendered.is_empty() && !rendered.ends_with('\n') {
            rendered.push('\n');
        }
        rendered.push_str(raw.separator);
        if document == before {
            rendered.push_str(raw.body);
            continue;
        }
        let head = raw
            .body
            .split_inclusive('\n')
            .take_while(|line| line.starts_with('#'));
        rendered.extend(head);
        rendered.push_str(&yaml::write(&ordered(&written, &document)));
    }
    Ok(rendered)
}

/// What the API server would refuse is told here: a `yes` that is text to us is none to it.
fn check(pod: &Value) -> Result<(), String> {
    fn quantities(value: &mut Value) {
        let entries = value.as_object_mut().into_iter().flatten();
        for (_, value) in entries {
            if value.is_number() {
                *value = value.to_string().into();
            }
        }
    }
    fn walk(value: &mut Value) {
        match value {
            Value::Object(entries) => {
                for (key, value) in entries.iter_mut() {
                    match key.as_str() {
                        "limits" | "requests" | "overhead" => quantities(value),
                        "sizeLimit" | "divisor" if value.is_number() => {
                            *value = value.to_string().into()
                        }
                        _ => walk(value),
                    }
                }
            }
            Value::Array(values) => values.iter_mut().for_each(walk),
            _ => {}
        }
    }
    let mut pod = pod.clone();
    walk(&mut pod);
    let read: Result<PodTemplateSpec, _> = serde_json::from_value(pod);
    read.map(drop).map_err(|e| e.to_string())
}

fn wrong(index: usize, document: &Value, path: &str, problem: String) -> Wrong {
    let kind = document["kind"].as_str();
    let name = document["metadata"]["name"].as_str().unwrap_or_default();
    Wrong {
        number: index + 1,
        what: kind.map(|kind| format!("{kind} {name}").trim_end().to_owned()),
        path: if path.is_empty() {
            String::new()
        } else {
            format!("{path}: ")
        },
        problem,
    }
}

/// The documents. Within a block of text a line never begins with `---`: it would end the document there too.
fn split(text: &str) -> Vec<Raw<'_>> {
    let mut documents = Vec::new();
    let (mut separator, mut from, mut at) = ("", 0, 0);
    for line in text.split_inclusive('\n') {
        let rest = line.strip_prefix("---");
        if let Some(rest) =
            rest.filter(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
        {
            documents.push(Raw {
                separator,
                body: &text[from..at],
            });
            // What stands behind it, as in `--- {}`, belongs to the document.
            let alone = rest.trim().is_empty() || rest.trim().starts_with('#');
            let length = if alone { line.len() } else { 3 };
            separator = &line[..length];
            from = at + length;
        }
        at += line.len();
    }
    documents.push(Raw {
        separator,
        body: &text[from..],
    });
    if documents.len() > 1
        && documents[0].body.trim().is_empty()
        && documents[0].separator.is_empty()
    {
        documents.remove(0);
    }
    documents
}

/// A document in its own order, and as JSON.
fn parse(index: usize, body: &str) -> Result<(serde_yaml::Value, Value), Wrong> {
    let bad = |e: serde_yaml::Error| wrong(index, &Value::Null, "", e.to_string());
    let mut written: serde_yaml::Value = serde_yaml::from_str(body).map_err(bad)?;
    written.apply_merge().map_err(bad)?;
    octal(&mut written, false);
    let json = serde_json::to_value(&written)
        .map_err(|e| wrong(index, &Value::Null, "", e.to_string()))?;
    Ok((written, json))
}

/// Modes of the files of volumes are numbers of base eight to Kubernetes, whose YAML is an older one.
fn octal(value: &mut serde_yaml::Value, of_volumes: bool) {
    match value {
        serde_yaml::Value::Mapping(entries) => {
            for (key, value) in entries.iter_mut() {
                let is_mode = of_volumes && matches!(key.as_str(), Some("defaultMode" | "mode"));
                let of_volumes = of_volumes || key.as_str() == Some("volumes");
                let digits = value.as_str().and_then(|text| text.strip_prefix('0'));
                let number = digits.and_then(|digits| i64::from_str_radix(digits, 8).ok());
                match number {
                    Some(number) if is_mode => *value = number.into(),
                    _ => octal(value, of_volumes),
                }
            }
        }
        serde_yaml::Value::Sequence(values) => {
            values.iter_mut().for_each(|value| octal(value, of_volumes));
        }
        _ => {}
    }
}

/// Where something is wrong, and what.
type At = (String, String);

/// Is given a path, the namespace that is written, and the pod or template there.
type Visit<'v> = dyn FnMut(&str, Option<&str>, &mut Value) -> Result<(), At> + 'v;

/// Visits every pod and template of a document: with its path, and the namespace that is written.
fn walk(
    document: &mut Value,
    path: &str,
    namespace: Option<&str>,
    visit: &mut Visit<'_>,
) -> Result<(), At> {
    let own = document["metadata"]["namespace"]
        .as_str()
        .map(ToOwned::to_owned);
    let namespace = own.as_deref().or(namespace);
    let (version, kind) = (document["apiVersion"].as_str(), document["kind"].as_str());
    let inner: &[&str] = match (version.unwrap_or_default(), kind.unwrap_or_default()) {
        ("v1", "List") => {
            let items = document["items"].as_array_mut().into_iter().flatten();
            for (index, item) in items.enumerate() {
                walk(item, &format!("{path}items[{index}]."), namespace, visit)?;
            }
            return Ok(());
        }
        ("v1", "Pod") => &[],
        ("v1", "ReplicationController")
        | ("apps/v1", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("batch/v1", "Job") => &["spec", "template"],
        ("batch/v1", "CronJob") => &["spec", "jobTemplate", "spec", "template"],
        _ => return Ok(()),
    };
    let mut pod = document;
    for key in inner {
        pod = match pod.get_mut(key) {
            Some(inner) => inner,
            None => return Err((path.to_owned() + &inner.join("."), "is missing".to_owned())),
        };
    }
    let path = format!("{path}{}", inner.join("."));
    visit(path.trim_end_matches('.'), namespace, pod)
}

/// The same as `value`, with keys in the order in which they were written; new ones come last.
fn ordered(written: &serde_yaml::Value, value: &Value) -> serde_yaml::Value {
    match (written, value) {
        (serde_yaml::Value::Mapping(written), Value::Object(entries)) => {
            let known = written.iter().filter_map(|(key, before)| {
                let key = key.as_str()?;
                Some((key.to_owned(), ordered(before, entries.get(key)?)))
            });
            let new = entries
                .iter()
                .filter(|(key, _)| !written.contains_key(key.as_str()))
                .map(|(key, value)| (key.clone(), plain(value)));
            known
                .chain(new)
                .map(|(key, value)| (key.into(), value))
                .collect::<serde_yaml::Mapping>()
                .into()
        }
        (serde_yaml::Value::Sequence(written), Value::Array(values)) => values
            .iter()
            .map(|value| {
                // The one of the same name: others may stand before it now.
                let same = written.iter().find(|before| {
                    before.get("name").and_then(serde_yaml::Value::as_str)
                        == value.get("name").and_then(Value::as_str)
                        && before.is_mapping()
                });
                same.map_or_else(|| plain(value), |before| ordered(before, value))
            })
            .collect::<Vec<_>>()
            .into(),
        _ => plain(value),
    }
}

/// What was not written before; the name of a thing comes first.
fn plain(value: &Value) -> serde_yaml::Value {
    match value {
        Value::Object(entries) => {
            let (name, others): (Vec<_>, Vec<_>) =
                entries.iter().partition(|(key, _)| *key == "name");
            let all = name.into_iter().chain(others);
            all.map(|(key, value)| (key.as_str().into(), plain(value)))
                .collect::<serde_yaml::Mapping>()
                .into()
        }
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().into(),
        value => serde_yaml::to_value(value).unwrap_or_default(),
    }
}
