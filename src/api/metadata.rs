//! `metadata`: names, labels, annotations.
//!
//! Names become keys of maps and parts of file names, so they are checked here, once, by the rules of Kubernetes
//! (RFC 1123: labels of at most 63, subdomains of at most 253 characters).

use serde_json::{Map, Value};

use super::fields::{Findings, Section};
use super::kind::Kind;
use crate::egress::names::{LABEL, SUBDOMAIN, label, subdomain};

/// The object's name as a key: `name`, or `namespace/name`. Wrong or absent: noted, and `None`.
pub(super) fn name(map: &Map<String, Value>, kind: Kind, findings: &mut Findings<'_>) -> Option<String> {
    let metadata = Section::of("", map).section("metadata", findings);
    let given = metadata.get("name").is_some();
    let name = metadata.text("name", findings);
    let Some(name) = name.filter(|n| !n.is_empty()) else {
        if !given || name.is_some() {
            let generated = metadata.get("generateName").is_some();
            let message = if generated {
                "the object has only a generateName; a directory gives no names, so write metadata.name"
            } else {
                "the object has no name; write metadata.name"
            };
            findings.wrong("metadata.name", "", "NoName", message);
        }
        return None;
    };
    let right = if kind == Kind::Namespace { label(name) } else { subdomain(name) };
    if !right {
        refuse("metadata.name", name, kind == Kind::Namespace, findings);
    }
    if !kind.namespaced() {
        return right.then(|| name.to_owned());
    }
    let given = metadata.get("namespace").is_some();
    let namespace = metadata.text("namespace", findings);
    let namespace = if given { namespace? } else { "default" };
    if !label(namespace) {
        refuse("metadata.namespace", namespace, true, findings);
        return None;
    }
    right.then(|| format!("{namespace}/{name}"))
}

/// The key of an object whose name breaks the rules: what names it all the same is held.
pub(super) fn any_name(map: &Map<String, Value>, kind: Kind) -> Option<String> {
    let metadata = map.get("metadata")?;
    let name = metadata.get("name")?.as_str().filter(|n| !n.is_empty())?;
    let namespace = metadata.get("namespace").and_then(Value::as_str).unwrap_or("default");
    Some(if kind.namespaced() { format!("{namespace}/{name}") } else { name.to_owned() })
}

fn refuse(field: &str, name: &str, short: bool, findings: &mut Findings<'_>) {
    let rule = if short { LABEL } else { SUBDOMAIN };
    findings.wrong(field, name, "InvalidName", format!("`{name}` is no name: write {rule}"));
}
