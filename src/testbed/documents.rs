//! Whether a document that the program printed is what `docs/schema/output/` promises.
//!
//! In: a document. Out: every fault, with its place. Never: passes over a keyword that it does not know, so that nothing is promised in
//! vain; and stricter than the promise, which lets fields be added: here each field must be described.

use std::net::IpAddr;
use std::path::Path;

use serde_json::{Map, Value};

/// What is wrong with a printed document; empty: nothing.
pub fn faults(document: &Value) -> Vec<String> {
    let kind = document["kind"].as_str().unwrap_or("document without kind");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/schema/output/{kind}.json"));
    let schema = std::fs::read_to_string(&file).map_err(|e| e.to_string());
    match schema.and_then(|text| serde_json::from_str(&text).map_err(|e| e.to_string())) {
        Ok(schema) => against(&schema, document),
        Err(error) => {
            vec![format!("a {kind} has no schema: {}: {error}; see src/cli/output.rs", file.display())]
        }
    }
}

fn against(schema: &Value, document: &Value) -> Vec<String> {
    let mut check = Check { root: schema, faults: Vec::new() };
    check.value(schema, document, "");
    check.faults
}

struct Check<'a> {
    root: &'a Value,
    faults: Vec<String>,
}

impl Check<'_> {
    fn fault(&mut self, at: &str, what: String) {
        let at = if at.is_empty() { "the document" } else { at };
        self.faults.push(format!("{at}: {what}"));
    }

    fn value(&mut self, schema: &Value, value: &Value, at: &str) {
        let Value::Object(keywords) = schema else {
            return self.fault(at, format!("`{schema}` is no schema"));
        };
        for (keyword, wanted) in keywords {
            self.keyword(keyword, wanted, value, at);
        }
        match value {
            Value::Object(fields) => self.fields(keywords, fields, at),
            Value::Array(items) => self.items(keywords, items, at),
            _ => {}
        }
    }

    fn keyword(&mut self, keyword: &str, wanted: &Value, value: &Value, at: &str) {
        let good = match keyword {
            "$schema" | "$defs" | "title" | "description" => true,
            // Of `fields` and `items`.
            "properties" | "additionalProperties" | "required" | "items" | "prefixItems" => true,
            "$ref" => {
                let pointer = wanted.as_str().and_then(|text| text.strip_prefix('#')).unwrap_or("nowhere");
                match self.root.pointer(pointer) {
                    Some(schema) => self.value(schema, value, at),
                    None => self.fault(at, format!("the schema's {wanted} leads nowhere")),
                }
                return;
            }
            "anyOf" => self.fitting(wanted, value) > 0,
            "oneOf" => self.fitting(wanted, value) == 1,
            "type" => match wanted {
                Value::Array(types) => types.iter().any(|one| is_a(one, value)),
                one => is_a(one, value),
            },
            "const" => value == wanted,
            "enum" => wanted.as_array().is_some_and(|all| all.contains(value)),
            "minimum" => value.as_f64().zip(wanted.as_f64()).is_none_or(|(is, least)| is >= least),
            "maximum" => value.as_f64().zip(wanted.as_f64()).is_none_or(|(is, most)| is <= most),
            "minItems" => size(value).zip(wanted.as_u64()).is_none_or(|(is, least)| is >= least),
            "maxItems" => size(value).zip(wanted.as_u64()).is_none_or(|(is, most)| is <= most),
            "format" if wanted == "ip" => value.as_str().is_none_or(|text| text.parse::<IpAddr>().is_ok()),
            _ => return self.fault(at, format!("`{keyword}: {wanted}` of the schema is not checked")),
        };
        if !good {
            self.fault(at, format!("{value} is not {keyword} {wanted}"));
        }
    }

    fn fitting(&self, schemas: &Value, value: &Value) -> usize {
        let fits = |schema: &&Value| {
            let mut check = Check { root: self.root, faults: Vec::new() };
            check.value(schema, value, "");
            check.faults.is_empty()
        };
        schemas.as_array().map_or(0, |all| all.iter().filter(fits).count())
    }

    fn fields(&mut self, keywords: &Map<String, Value>, fields: &Map<String, Value>, at: &str) {
        for name in keywords.get("required").and_then(Value::as_array).into_iter().flatten() {
            if !name.as_str().is_some_and(|name| fields.contains_key(name)) {
                self.fault(at, format!("there is no {name}"));
            }
        }
        // A schema that says nothing of fields is one part of another that does.
        if !["properties", "additionalProperties"].iter().any(|keyword| keywords.contains_key(*keyword)) {
            return;
        }
        for (name, value) in fields {
            let named = keywords.get("properties").and_then(|all| all.get(name));
            match named.or_else(|| keywords.get("additionalProperties")) {
                Some(schema) => self.value(schema, value, &format!("{at}.{name}")),
                None => self.fault(at, format!("`{name}` is not described")),
            }
        }
    }

    fn items(&mut self, keywords: &Map<String, Value>, items: &[Value], at: &str) {
        let first = keywords.get("prefixItems").and_then(Value::as_array);
        for (n, item) in items.iter().enumerate() {
            let schema = first.and_then(|all| all.get(n)).or_else(|| keywords.get("items"));
            if let Some(schema) = schema {
                self.value(schema, item, &format!("{at}[{n}]"));
            }
        }
    }
}

fn size(value: &Value) -> Option<u64> {
    Some(value.as_array()?.len() as u64)
}

fn is_a(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap_or_default() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {
                "ip": {"$ref": "#/$defs/Address"},
                "n": {"type": "integer", "minimum": 0, "maximum": 9},
                "word": {"oneOf": [{"const": "a"}, {"const": "b"}]},
                "maybe": {"anyOf": [{"type": "null"}, {"type": "array", "items": {"type": "boolean"}, "maxItems": 2}]},
                "pair": {"prefixItems": [{"type": "string"}, {"enum": [1, 2]}]},
                "counts": {"additionalProperties": {"type": "number"}},
            },
            "required": ["n"],
            "$defs": {"Address": {"type": ["string", "null"], "format": "ip"}},
        })
    }

    #[test]
    fn a_document_that_keeps_the_promise_has_no_fault() {
        let document = json!({
            "ip": "2001:db8::1", "n": 9, "word": "b", "maybe": [true], "pair": ["x", 2], "counts": {"k": 1.5}
        });
        assert_eq!(against(&schema(), &document), Vec::<String>::new());
        assert_eq!(against(&schema(), &json!({"n": 0, "ip": null, "maybe": null})), Vec::<String>::new());
    }

    #[test]
    fn every_way_to_break_it_is_named_with_its_place() {
        let broken = [
            (json!({}), "the document: there is no \"n\""),
            (json!([]), "the document: [] is not type \"object\""),
            (json!({"n": 1, "new": 2}), "the document: `new` is not described"),
            (json!({"n": 10}), ".n: 10 is not maximum 9"),
            (json!({"n": -1}), ".n: -1 is not minimum 0"),
            (json!({"n": 1, "ip": "here"}), ".ip: \"here\" is not format \"ip\""),
            (json!({"n": 1, "word": "c"}), ".word: \"c\" is not oneOf"),
            (json!({"n": 1, "maybe": [1]}), ".maybe: [1] is not anyOf"),
            (json!({"n": 1, "maybe": [true, true, true]}), ".maybe: [true,true,true] is not anyOf"),
            (json!({"n": 1, "pair": ["x", 3]}), ".pair[1]: 3 is not enum [1,2]"),
            (json!({"n": 1, "counts": {"k": "v"}}), ".counts.k: \"v\" is not type \"number\""),
        ];
        for (document, fault) in broken {
            let faults = against(&schema(), &document);
            assert!(faults.len() == 1 && faults[0].starts_with(fault), "{document}: {faults:?}");
        }
        let unknown = against(&json!({"pattern": "^a"}), &json!("b"));
        assert_eq!(unknown, ["the document: `pattern: \"^a\"` of the schema is not checked"]);
        assert!(faults(&json!({"kind": "Nonsense"}))[0].starts_with("a Nonsense has no schema"));
    }
}
