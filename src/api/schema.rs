//! JSON schemas (draft 2020-12) of the kinds that are read, printed from the tables that their readers obey.
//!
//! A schema says what can be said of one field: type, default, words, pattern. What holds between fields (exactly one of
//! two, no destination twice) stands in the descriptions and in `docs/policies.md`; `egret lint` checks it.

use std::fmt;

use serde_json::{Map, Value, json};

use super::kind::{self, Kind};
use super::shape;

/// The schema of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// What it is a schema of.
    pub kind: Kind,
    /// `Kind.group`, or `Kind` for the core group: a name for people, arguments and files.
    pub name: String,
    /// `apiVersion`s that the kind is read from.
    pub versions: Vec<String>,
    /// The schema.
    pub schema: Value,
}

/// As it is printed and kept in `docs/schema/`.
impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:#}", self.schema)
    }
}

/// One schema per kind, in the order of [`Kind::ALL`].
pub fn schemas() -> Vec<Schema> {
    Kind::ALL.into_iter().filter_map(of).collect()
}

fn of(kind: Kind) -> Option<Schema> {
    let rows: Vec<_> = kind::served().iter().filter(|row| row.kind == kind).collect();
    let first = rows.first()?;
    let versions: Vec<String> = rows.iter().flat_map(|row| row.versions()).collect();
    let name = if first.group().is_empty() { kind.to_string() } else { format!("{kind}.{}", first.group()) };
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("{kind} of {}", versions.join(" or ")),
    });
    let mut body = shape::map(first.fields, first.strict);
    if let (Value::Object(schema), Value::Object(body)) = (&mut schema, &mut body) {
        if let Some(Value::Array(required)) = body.get_mut("required") {
            required.splice(0..0, ["apiVersion".into(), "kind".into()]);
        }
        let mut properties = Map::new();
        properties.insert("apiVersion".into(), json!({"type": "string", "enum": versions}));
        properties.insert("kind".into(), json!({"type": "string", "enum": [kind.as_str()]}));
        if let Some(Value::Object(fields)) = body.get_mut("properties") {
            properties.append(fields);
        }
        body.insert("properties".into(), Value::Object(properties));
        schema.append(body);
    }
    Some(Schema { kind, name, versions, schema })
}
