//! The schemas say what the readers do, `docs/schema/` is current, and every manifest in the repository obeys them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::addr::Cidr;
use crate::api::fields::Findings;
use crate::api::kind::served;
use crate::api::shape::{ADDRESS, CIDR, Field, PREFIX, Shape};
use crate::api::{Schema, document, read, schemas};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_schemas_in_the_documents_are_current() {
    let folder = root().join("docs/schema");
    let mut expected: Vec<PathBuf> = Vec::new();
    for schema in schemas() {
        let path = folder.join(format!("{}.json", schema.name));
        let text = schema.to_string();
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(kept, text, "{} is not current: run this test with UPDATE=1", path.display());
        expected.push(path);
    }
    let mut found: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    found.retain(|path| path.is_file());
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

/// A document of `fields` in which only the last step of `path` is written, with this value.
fn holding(path: &[(&'static str, bool)], value: &Value) -> Value {
    let Some(((name, list), rest)) = path.split_first() else { return value.clone() };
    let inner = holding(rest, value);
    json!({*name: if *list && !rest.is_empty() { json!([inner]) } else { inner }})
}

fn written(path: &[(&'static str, bool)]) -> String {
    let mut text = String::new();
    for (i, (name, list)) in path.iter().enumerate() {
        let dot = if i == 0 { "" } else { "." };
        text += &format!("{dot}{name}{}", if *list && i + 1 < path.len() { "[0]" } else { "" });
    }
    text
}

/// Every field below `fields`, as (names with "is a list of maps", its shape).
fn all(fields: &'static [Field]) -> Vec<(Vec<(&'static str, bool)>, Shape)> {
    let mut found = Vec::new();
    for field in fields {
        let list = matches!(field.shape, Shape::Maps(_));
        found.push((vec![(field.name, list)], field.shape));
        if let Shape::Map(inner) | Shape::Open(inner) | Shape::Maps(inner) = field.shape {
            for (mut path, shape) in all(inner) {
                path.insert(0, (field.name, list));
                found.push((path, shape));
            }
        }
    }
    found
}

/// What a reader says of a document of its kind, by field.
fn said(row: &crate::api::kind::Served, document: &Value) -> Vec<(String, String)> {
    let mut findings = Findings::of("x.yaml", "X".to_owned());
    let map = document.as_object().unwrap();
    let root = crate::api::fields::Section::shaped("", map, row.fields);
    (row.read)("x", &root, &mut findings);
    findings.problems.into_iter().map(|p| (p.field, p.reason)).collect()
}

#[test]
fn every_field_of_a_schema_is_read_and_its_type_is_checked() {
    let mut count = 0;
    for row in served() {
        for (path, shape) in all(row.fields) {
            // Names are read before the kind's own reader is asked, times by policies alone.
            if matches!(shape, Shape::Any) || matches!(path[0].0, "metadata") && !row.kind.namespaced() {
                continue;
            }
            if path[0].0 == "metadata" && matches!(path[path.len() - 1].0, "name" | "namespace") {
                continue;
            }
            let wrong = match shape {
                Shape::Text | Shape::Choice(_) | Shape::Pairs | Shape::Texts => json!(5),
                Shape::Map(_) | Shape::Open(_) | Shape::Maps(_) => json!(5),
                Shape::Flag | Shape::Number(..) => json!("x"),
                Shape::Any | Shape::Named(_) | Shape::Count | Shape::Conditions => Value::Null,
            };
            let found = said(row, &holding(&path, &wrong));
            let field = written(&path);
            let expected = (field.clone(), "WrongType".to_owned());
            assert!(found.contains(&expected), "{} {field} is not read: {found:?}", row.kind);
            count += 1;
        }
    }
    assert!(count > 80, "only {count} fields");
}

#[test]
fn a_field_that_no_schema_has_is_named_in_every_map_of_a_strict_kind() {
    for row in served().iter().filter(|row| row.strict) {
        let mut maps = vec![vec![]];
        let inner = all(row.fields).into_iter().filter(|(_, s)| matches!(s, Shape::Map(_) | Shape::Maps(_)));
        maps.extend(inner.map(|(path, _)| path));
        for mut path in maps {
            path.push(("unheard", false));
            let found = said(row, &holding(&path, &json!(1)));
            let expected = (written(&path), "UnknownField".to_owned());
            assert!(found.contains(&expected), "{} {}: {found:?}", row.kind, expected.0);
        }
    }
}

/// What of a value breaks a schema, for the words that our schemas use. Another word of JSON Schema fails the test.
fn breaks(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    for (word, wanted) in schema.as_object().unwrap() {
        let right = match word.as_str() {
            "$schema" | "title" | "description" | "default" => true,
            "type" => match wanted {
                Value::Array(several) => several.iter().any(|one| is(one, value)),
                one => is(one, value),
            },
            "enum" => wanted.as_array().unwrap().contains(value),
            "minimum" => value.as_f64().is_none_or(|n| n >= wanted.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|n| n <= wanted.as_f64().unwrap()),
            "minItems" => value.as_array().is_none_or(|l| l.len() as u64 >= wanted.as_u64().unwrap()),
            "maxItems" => value.as_array().is_none_or(|l| l.len() as u64 <= wanted.as_u64().unwrap()),
            "pattern" => value.as_str().is_none_or(|text| match wanted.as_str().unwrap() {
                CIDR => text.parse::<Cidr>().is_ok(),
                PREFIX => text.contains('/') && text.parse::<Cidr>().is_ok(),
                ADDRESS => text.is_empty() || text.parse::<std::net::IpAddr>().is_ok(),
                other => panic!("the pattern {other} is checked by nobody"),
            }),
            "required" => value.as_object().is_none_or(|map| {
                wanted.as_array().unwrap().iter().all(|key| map.contains_key(key.as_str().unwrap()))
            }),
            "items" => {
                for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                    breaks(wanted, item, &format!("{at}[{i}]"), found);
                }
                true
            }
            "properties" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    if let Some(schema) = wanted.get(key) {
                        breaks(schema, value, &format!("{at}.{key}"), found);
                    }
                }
                true
            }
            "additionalProperties" => {
                let none = Map::new();
                let known = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
                let mut right = true;
                for (key, value) in
                    value.as_object().into_iter().flatten().filter(|(k, _)| !known.contains_key(*k))
                {
                    match wanted {
                        Value::Bool(_) => right = false,
                        schema => breaks(schema, value, &format!("{at}.{key}"), found),
                    }
                }
                right
            }
            other => panic!("the word {other} of JSON Schema is checked by nobody"),
        };
        if !right {
            found.push(format!("{at}: {word} {wanted}: {value}"));
        }
    }
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap() {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        other => panic!("the type {other} is checked by nobody"),
    }
}

/// The schema of a document, if its kind is one that is read.
fn schema_of<'s>(schemas: &'s [Schema], document: &Value) -> Option<&'s Schema> {
    let word = |key: &str| document.get(key).and_then(Value::as_str);
    let (kind, version) = (word("kind")?, word("apiVersion")?);
    schemas.iter().find(|s| s.kind.as_str() == kind && s.versions.iter().any(|v| v == version))
}

fn wrong(schemas: &[Schema], document: &Value) -> Option<Vec<String>> {
    let schema = schema_of(schemas, document)?;
    let mut found = Vec::new();
    breaks(&schema.schema, document, "", &mut found);
    Some(found)
}

fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, end));
        } else if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// `(where, text)` of every manifest in examples, and every block of YAML in the documents.
fn manifests() -> Vec<(String, String)> {
    let named = |path: &Path| path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
    let mut found = Vec::new();
    for path in files(&root().join("examples"), ".yaml") {
        found.push((named(&path), fs::read_to_string(&path).unwrap()));
    }
    for path in files(&root().join("docs"), ".md") {
        let page = fs::read_to_string(&path).unwrap();
        for block in page.split("```yaml\n").skip(1) {
            found.push((named(&path), block.split("```").next().unwrap().to_owned()));
        }
    }
    found
}

#[test]
fn every_manifest_in_examples_and_documents_obeys_its_schema() {
    let schemas = schemas();
    let mut count = 0;
    for (place, text) in manifests() {
        for document in document::read(text.as_bytes(), document::Format::Yaml).values {
            if let Some(found) = wrong(&schemas, &document) {
                assert_eq!(found, Vec::<String>::new(), "{place}: {document}");
                count += 1;
            }
        }
    }
    assert!(count >= 15, "only {count} manifests");
}

#[test]
fn every_example_of_a_policy_is_read_without_a_problem() {
    let paths = files(&root().join("examples/policies"), ".yaml");
    assert!(paths.len() >= 6);
    for path in paths {
        let reading = read(&path.to_string_lossy(), &fs::read(&path).unwrap());
        assert_eq!(reading.problems, [], "{}", path.display());
        assert!(reading.objects.iter().all(|written| written.object.is_some()));
    }
}

#[test]
fn a_schema_refuses_what_is_wrong() {
    let schemas = schemas();
    let ours = |spec: Value| json!({"apiVersion": "egret.dev/v1alpha1", "kind": "EgressGatewayPolicy", "metadata": {"name": "a"}, "spec": spec});
    assert_eq!(
        wrong(&schemas, &ours(json!({"rules": [{"gatewayPreference": null}]}))).unwrap(),
        Vec::<String>::new()
    );
    for (spec, at) in [
        (json!({"enforced": "yes"}), ".spec.enforced: type"),
        (json!({"defaultAction": "deny"}), ".spec.defaultAction: enum"),
        (json!({"rules": [{"gateway": {"maxNextHops": -1}}]}), ".spec.rules[0].gateway.maxNextHops: minimum"),
        (json!({"rules": [{"gateway": {"nodes": []}}]}), ".spec.rules[0].gateway.nodes: minItems"),
        (json!({"rules": [{"gateway": {"nodes": [{}]}}]}), ".spec.rules[0].gateway.nodes[0]: required"),
        (json!({"rules": [{"destination": {"cidr": "ten"}}]}), ".spec.rules[0].destination.cidr: pattern"),
        (json!({"rule": []}), ".spec: additionalProperties"),
    ] {
        let found = wrong(&schemas, &ours(spec.clone())).unwrap();
        assert!(found.len() == 1 && found[0].starts_with(at), "{spec}: {found:?}");
    }
}
