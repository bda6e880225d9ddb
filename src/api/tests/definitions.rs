//! The definitions in `deploy/` are current, their expressions obey Kubernetes' limits as far as they can be told without a
//! server, and their regular expression of selectors takes every selector.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::api::definitions;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_definitions_in_deploy_are_current() {
    for (folder, ours) in [("deploy/crds", true), ("deploy/foreign-crds", false)] {
        let folder = root().join(folder);
        let mut expected: Vec<PathBuf> = Vec::new();
        for definition in definitions().iter().filter(|definition| definition.ours == ours) {
            let path = folder.join(format!("{}.yaml", definition.name));
            let text = definition.to_string();
            if std::env::var_os("UPDATE").is_some() {
                fs::create_dir_all(&folder).unwrap();
                fs::write(&path, &text).unwrap();
            }
            let kept = fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(kept, text, "{} is not current: run this test with UPDATE=1", path.display());
            expected.push(path);
        }
        let mut found: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }
}

/// What every node of a structural schema must say.
fn structural(at: &str, schema: &Value, count: &mut usize) {
    assert!(schema["type"].is_string(), "{at} has no type: {schema}");
    assert!(schema.get("default").is_none(), "{at} has a default, which would be written into every object");
    *count += 1;
    for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
        if !matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
            assert!(
                inner["description"].as_str().is_some_and(|d| d.ends_with('.')),
                "{at}.{key} says nothing"
            );
        }
        structural(&format!("{at}.{key}"), inner, count);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get(key).filter(|inner| inner.is_object()) {
            structural(&format!("{at}.{key}"), inner, count);
        }
    }
}

#[test]
fn every_field_of_a_definition_has_a_type_and_is_described() {
    let mut count = 0;
    for definition in definitions() {
        let schema = &definition.object["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        structural(&definition.name, schema, &mut count);
    }
    assert!(count > 150, "only {count} fields");
}
