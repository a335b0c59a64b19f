//! Lays what a person wrote over a generated pod template, as a strategic merge patch: `null` takes a field away, and lists whose
//! entries have a name are merged entry by entry.
//! <https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/>

use k8s_openapi::api::core::v1::PodTemplateSpec;
use pgdog_config::api::Finding;
use pgdog_operator_api::annotations;
use serde_json::{Map, Value};

use super::pod::CONTAINER;

/// Where the template stands.
const PLACE: &str = "spec.pod.template";

/// The lists of a pod that are merged, and what tells their entries apart: `patchMergeKey` of Kubernetes' types. All others are
/// replaced.
const MERGED: [(&str, &str); 10] = [
    ("containers", "name"),
    ("initContainers", "name"),
    ("volumes", "name"),
    ("env", "name"),
    ("volumeMounts", "mountPath"),
    ("volumeDevices", "devicePath"),
    ("ports", "containerPort"),
    ("imagePullSecrets", "name"),
    ("hostAliases", "ip"),
    ("topologySpreadConstraints", "topologyKey"),
];

/// Says in an entry what becomes of it: `delete`.
const DIRECTIVE: &str = "$patch";

/// The template with what is laid over it.
///
/// # Errors
///
/// What is no field of a pod's template, and what belongs to the operator.
pub(super) fn lay(
    generated: &PodTemplateSpec,
    over: &Value,
) -> Result<PodTemplateSpec, Vec<Finding>> {
    let mut merged = serde_json::to_value(generated).unwrap_or_default();
    merge(&mut merged, over, PLACE).map_err(|finding| vec![finding])?;
    let template: PodTemplateSpec = serde_json::from_value(merged.clone())
        .map_err(|error| vec![bad(PLACE, error.to_string())])?;
    let mut findings = Vec::new();
    let kept = serde_json::to_value(&template).unwrap_or_default();
    unknown(&merged, &kept, PLACE, &mut findings);
    findings.extend(lost(generated, &template));
    if findings.is_empty() {
        Ok(template)
    } else {
        Err(findings)
    }
}

fn bad(path: &str, message: impl Into<String>) -> Finding {
    Finding {
        path: path.to_owned(),
        code: "bad_value".to_owned(),
        message: message.into(),
    }
}

fn merge(under: &mut Value, over: &Value, path: &str) -> Result<(), Finding> {
    let Value::Object(over) = over else {
        *under = over.clone();
        return Ok(());
    };
    if !under.is_object() {
        *under = Value::Object(Map::new());
    }
    for (key, value) in over {
        let path = format!("{path}.{key}");
        if key.starts_with('$') {
            return Err(bad(
                &path,
                format!(
                    "is not taken here: null takes a field away, {{{DIRECTIVE}: delete}} an entry"
                ),
            ));
        }
        let merged_by = MERGED.iter().find(|(list, _)| list == key);
        match (value, merged_by) {
            (Value::Null, _) => {
                under.as_object_mut().map(|under| under.remove(key));
            }
            (Value::Array(entries), Some((_, by))) => {
                if !under[key].is_array() {
                    under[key] = Value::Array(Vec::new());
                }
                if let Value::Array(list) = &mut under[key] {
                    merge_entries(list, entries, by, &path)?;
                }
            }
            _ => merge(&mut under[key], value, &path)?,
        }
    }
    Ok(())
}

fn merge_entries(
    list: &mut Vec<Value>,
    entries: &[Value],
    by: &str,
    path: &str,
) -> Result<(), Finding> {
    for (index, entry) in entries.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(name) = entry.get(by).filter(|name| !name.is_null()) else {
            return Err(bad(&path, format!("has no {by}, which says what it is")));
        };
        let place = list.iter().position(|one| one.get(by) == Some(name));
        match (entry.get(DIRECTIVE), place) {
            (None, Some(place)) => merge(&mut list[place], entry, &path)?,
            (None, None) => {
                let mut new = Value::Null;
                merge(&mut new, entry, &path)?;
                list.push(new);
            }
            (Some(directive), _) if directive != "delete" => {
                return Err(bad(
                    &format!("{path}.{DIRECTIVE}"),
                    "only `delete` is taken here",
                ));
            }
            (Some(_), Some(place)) => {
                list.remove(place);
            }
            (Some(_), None) => {}
        }
    }
    Ok(())
}

/// Fields that are in no pod's template: the API server would never see them.
fn unknown(written: &Value, read: &Value, path: &str, findings: &mut Vec<Finding>) {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            for (key, value) in written {
                let path = format!("{path}.{key}");
                match read.get(key) {
                    Some(read) => unknown(value, read, &path, findings),
                    None => findings.push(Finding {
                        code: "unknown_key".to_owned(),
                        ..bad(&path, "is no field of a pod's template")
                    }),
                }
            }
        }
        (Value::Array(written), Value::Array(read)) => {
            for (index, (value, read)) in written.iter().zip(read).enumerate() {
                unknown(value, read, &format!("{path}[{index}]"), findings);
            }
        }
        _ => {}
    }
}

/// What the operator knows the proxies by has to stay as it is.
fn lost(generated: &PodTemplateSpec, template: &PodTemplateSpec) -> Vec<Finding> {
    let mut findings = Vec::new();
    let of = |template: &PodTemplateSpec| {
        let metadata = template.metadata.clone().unwrap_or_default();
        let notes = metadata.annotations.unwrap_or_default();
        (
            metadata.labels.unwrap_or_default(),
            notes.get(annotations::POD_HASH).cloned(),
        )
    };
    let ((own, hash), (labels, now)) = (of(generated), of(template));
    for (label, value) in own {
        if labels.get(&label) != Some(&value) {
            let path = format!("{PLACE}.metadata.labels[{label}]");
            findings.push(bad(&path, "is the operator's, or set in spec.pod.labels"));
        }
    }
    if now != hash {
        let path = format!("{PLACE}.metadata.annotations[{}]", annotations::POD_HASH);
        findings.push(bad(&path, "is the operator's"));
    }
    let container = |template: &PodTemplateSpec| {
        let containers = template.spec.iter().flat_map(|spec| &spec.containers);
        let mut own = containers.filter(|container| container.name == CONTAINER);
        own.next().cloned().unwrap_or_default()
    };
    let (own, proxy) = (container(generated), container(template));
    let place = format!("{PLACE}.spec.containers[{CONTAINER}]");
    if proxy.name.is_empty() {
        findings.push(bad(&place, "is the proxy: it cannot be taken away"));
        return findings;
    }
    if proxy.image != own.image {
        findings.push(bad(
            &format!("{place}.image"),
            "is set in spec.image, by which a rollout is followed",
        ));
    }
    let mounts = proxy.volume_mounts.unwrap_or_default();
    for mount in own.volume_mounts.unwrap_or_default() {
        if !mounts.contains(&mount) {
            let path = format!("{place}.volumeMounts[{}]", mount.mount_path);
            findings.push(bad(&path, "is the operator's: the proxy reads it"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn generated() -> PodTemplateSpec {
        serde_json::from_value(json!({
            "metadata": {"labels": {"app": "pgdog"}, "annotations": {(annotations::POD_HASH): "1"}},
            "spec": {
                "containers": [{
                    "name": CONTAINER,
                    "image": "pgdog:1",
                    "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                    "volumeMounts": [{"name": "state", "mountPath": "/state"}],
                    "resources": {"requests": {"cpu": "1", "memory": "1Mi"}},
                }],
                "tolerations": [{"key": "a", "operator": "Exists"}],
                "volumes": [{"name": "state", "emptyDir": {}}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn what_is_written_is_laid_over_and_everything_else_stays() {
        let over = json!({
            "metadata": {"annotations": {"team": "shop"}},
            "spec": {
                "containers": [
                    {
                        "name": CONTAINER,
                        "env": [{"name": "B", "value": "3"}, {"name": "A", "$patch": "delete"}, {"name": "C", "value": "4"}],
                        "resources": {"requests": {"cpu": null}, "limits": {"memory": "2Mi"}},
                        "volumeMounts": [{"name": "more", "mountPath": "/more"}],
                    },
                    {"name": "second", "image": "other:1"},
                ],
                "tolerations": [{"key": "b", "operator": "Exists"}],
                "volumes": [{"name": "more", "emptyDir": {}}],
                "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["db"]}],
            },
        });
        let laid = serde_json::to_value(lay(&generated(), &over).unwrap()).unwrap();
        let proxy = &laid["spec"]["containers"][0];
        assert_eq!(
            laid["metadata"],
            json!({"labels": {"app": "pgdog"}, "annotations": {(annotations::POD_HASH): "1", "team": "shop"}})
        );
        assert_eq!(
            proxy["env"],
            json!([{"name": "B", "value": "3"}, {"name": "C", "value": "4"}])
        );
        assert_eq!(
            proxy["resources"],
            json!({"requests": {"memory": "1Mi"}, "limits": {"memory": "2Mi"}})
        );
        assert_eq!(proxy["volumeMounts"].as_array().unwrap().len(), 2);
        assert_eq!(laid["spec"]["containers"][1]["image"], "other:1");
        assert_eq!(
            laid["spec"]["tolerations"],
            json!([{"key": "b", "operator": "Exists"}]),
            "a list without names is replaced"
        );
        assert_eq!(laid["spec"]["volumes"].as_array().unwrap().len(), 2);
        assert_eq!(
            lay(&generated(), &json!({})).unwrap(),
            generated(),
            "nothing changes nothing"
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let wrong = [
            (
                json!({"spec": {"node": "a"}}),
                "spec.pod.template.spec.node",
            ),
            (
                json!({"spec": {"containers": [{"name": "b", "imagee": "x"}]}}),
                "spec.pod.template.spec.containers[1].imagee",
            ),
            (
                json!({"spec": {"containers": [{"image": "x"}]}}),
                "spec.pod.template.spec.containers[0]",
            ),
            (
                json!({"spec": {"containers": [{"name": CONTAINER, "$patch": "delete"}]}}),
                "spec.pod.template.spec.containers[pgdog]",
            ),
            (
                json!({"spec": {"containers": [{"name": CONTAINER, "image": "x"}]}}),
                "spec.pod.template.spec.containers[pgdog].image",
            ),
            (
                json!({"spec": {"containers": [{"name": CONTAINER, "volumeMounts": [{"mountPath": "/state", "$patch": "delete"}]}]}}),
                "spec.pod.template.spec.containers[pgdog].volumeMounts[/state]",
            ),
            (
                json!({"spec": {"$patch": "replace"}}),
                "spec.pod.template.spec.$patch",
            ),
            (
                json!({"metadata": {"labels": {"app": "x"}}}),
                "spec.pod.template.metadata.labels[app]",
            ),
            (
                json!({"metadata": {"annotations": null}}),
                "spec.pod.template.metadata.annotations[pgdog.dev/pod-hash]",
            ),
            (json!({"spec": {"containers": "x"}}), "spec.pod.template"),
        ];
        for (over, path) in wrong {
            let findings = lay(&generated(), &over).unwrap_err();
            assert_eq!(findings[0].path, path, "{over}: {findings:?}");
        }
    }
}
