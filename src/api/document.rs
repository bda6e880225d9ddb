//! Text into documents: YAML (one or many) and JSON become `serde_json::Value`, once.
//!
//! In: the bytes of a file. Out: its documents, and what is wrong with the rest, with line and column.
//! Never: knows kinds or fields. A key written twice is an error here, because readers that take the last one lose the
//! first silently: a second `annotations:` would drop the selector that keeps a pod from leaving with its own address.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How a text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// YAML 1.2, of which JSON is a part; documents are separated by `---`.
    Yaml,
    /// JSON; documents may follow one another.
    Json,
}

impl Format {
    /// By the file's name: `.json` is JSON, however that is written, everything else YAML.
    pub fn of(file: &str) -> Format {
        if file.to_ascii_lowercase().ends_with(".json") { Format::Json } else { Format::Yaml }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Yaml => "YAML",
            Format::Json => "JSON",
        })
    }
}

/// Where and why a text cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syntax {
    /// Line and column, from 1; `None` where the parser knows none.
    pub place: Option<(usize, usize)>,
    /// The parser's words, without the place.
    pub what: String,
}

impl fmt::Display for Syntax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, "line {line}, column {column}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// What a text holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Documents {
    /// The documents that could be read, in order; empty ones are left out.
    pub values: Vec<Value>,
    /// One per document that could not. After a syntax error the rest of the text is lost.
    pub errors: Vec<Syntax>,
}

/// Reads all documents of a text. A byte order mark is skipped.
pub fn read(text: &[u8], format: Format) -> Documents {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut found = Documents::default();
    let text = match std::str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => {
            found.errors.push(not_utf8(text, error.valid_up_to()));
            return found;
        }
    };
    match format {
        Format::Yaml => {
            let merges = text.contains(MERGE);
            for document in serde_yaml_ng::Deserializer::from_str(text) {
                match Strict::deserialize(document) {
                    Ok(Strict(Value::Null)) => {}
                    Ok(Strict(value)) if merges => found.values.push(merged(value)),
                    Ok(Strict(value)) => found.values.push(value),
                    Err(error) => {
                        let error = yaml_error(&error);
                        // After anything but a key of ours the parser does not know where the next document begins
                        // (serde_yaml_ng 0.10 then repeats its error without end).
                        let lost = !error.what.ends_with(TWICE);
                        found.errors.push(error);
                        if lost {
                            break;
                        }
                    }
                }
            }
        }
        Format::Json => {
            for document in serde_json::Deserializer::from_str(text).into_iter::<Strict>() {
                match document {
                    Ok(Strict(Value::Null)) => {}
                    Ok(Strict(value)) => found.values.push(value),
                    Err(error) => found.errors.push(json_error(&error)),
                }
            }
        }
    }
    found
}

/// YAML's merge keys: what `<<` names is taken into the map, unless the map says otherwise itself. Left as they are they would be
/// one unknown field, and a policy would lose its selectors with a warning; `kubectl` follows them too.
fn merged(value: Value) -> Value {
    match value {
        Value::Array(values) => values.into_iter().map(merged).collect(),
        Value::Object(map) => {
            let mut map: Map<String, Value> =
                map.into_iter().map(|(key, value)| (key, merged(value))).collect();
            let bases = match map.shift_remove(MERGE) {
                Some(Value::Object(base)) => vec![base],
                Some(Value::Array(bases)) if bases.iter().all(Value::is_object) => {
                    let map = |base| if let Value::Object(base) = base { base } else { Map::new() };
                    bases.into_iter().map(map).collect()
                }
                Some(other) => {
                    map.insert(MERGE.to_owned(), other);
                    Vec::new()
                }
                None => Vec::new(),
            };
            for (key, value) in bases.into_iter().flatten() {
                map.entry(key).or_insert(value);
            }
            Value::Object(map)
        }
        other => other,
    }
}

fn not_utf8(text: &[u8], at: usize) -> Syntax {
    let before = &text[..at];
    let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let byte = text.get(at).copied().unwrap_or_default();
    Syntax { place: Some((line, at - line_start + 1)), what: format!("byte 0x{byte:02x} is not UTF-8 text") }
}

fn yaml_error(error: &serde_yaml_ng::Error) -> Syntax {
    let place = error.location().map(|l| (l.line(), l.column()));
    let mut what = error.to_string();
    if let Some((line, column)) = place {
        what = what.replace(&format!(" at line {line} column {column}"), "");
    }
    Syntax { place, what }
}

fn json_error(error: &serde_json::Error) -> Syntax {
    let place = (error.line() > 0).then(|| (error.line(), error.column()));
    let mut what = error.to_string();
    if let Some((line, column)) = place {
        what = what.replace(&format!(" at line {line} column {column}"), "");
    }
    Syntax { place, what }
}

/// The key of YAML 1.1 for "and all of that" (yaml.org/type/merge.html).
const MERGE: &str = "<<";

const TWICE: &str = " is written twice in one map; keep one";

/// A value in which no key is written twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Tree).map(Strict)
    }
}

struct Tree;

impl<'de> DeserializeSeed<'de> for Tree {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(Tree)
    }
}

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map, a list, a text, a number, true, false or null")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Number::from_f64(v).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(Tree)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if values.contains_key(&key) {
                return Err(A::Error::custom(format!("the key `{key}`{TWICE}")));
            }
            let value = map.next_value_seed(Tree)?;
            values.insert(key, value);
        }
        Ok(Value::Object(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn yaml(text: &str) -> Documents {
        read(text.as_bytes(), Format::Yaml)
    }

    #[test]
    fn several_documents_and_empty_ones() {
        let found = yaml("---\na: 1\n---\n# nothing\n---\n- x\n- true\n---\n");
        assert_eq!(found.values, [json!({"a": 1}), json!(["x", true])]);
        assert!(found.errors.is_empty());
        let found = read(b"{\"a\": 1}\n[2]\n", Format::Json);
        assert_eq!(found.values, [json!({"a": 1}), json!([2])]);
    }

    #[test]
    fn a_syntax_error_has_line_and_column_and_the_documents_before_it_stay() {
        let found = yaml("a: 1\n---\nb: [1,\nc: 2\n");
        assert_eq!(found.values, [json!({"a": 1})]);
        assert_eq!(found.errors.len(), 1);
        assert!(found.errors[0].place.is_some(), "{found:?}");
        let found = read(b"{\"a\": 1,\n  }", Format::Json);
        assert_eq!(found.errors[0].to_string(), "line 2, column 3: trailing comma");
    }

    #[test]
    fn a_key_written_twice_is_an_error_and_the_next_document_is_read() {
        let found = yaml("a: 1\nb: 2\na: 3\n---\nc: 4\n");
        assert_eq!(found.values, [json!({"c": 4})]);
        assert!(found.errors[0].to_string().contains("the key `a` is written twice"), "{found:?}");
        let found = read(b"{\"a\":1,\"a\":2}", Format::Json);
        assert!(found.errors[0].to_string().contains("the key `a` is written twice"), "{found:?}");
    }

    #[test]
    fn a_merge_key_takes_in_what_the_map_does_not_say_itself() {
        let text = "base: &b {enforced: true, rules: [1]}\nmore: &m {rules: [2], x: {y: &i {<<: *b, z: 1}}}\nspec:\n  rules: [3]\n  <<: [*m, *b]\n";
        let found = yaml(text);
        assert_eq!(found.errors, []);
        let inner = json!({"z": 1, "enforced": true, "rules": [1]});
        assert_eq!(found.values[0]["spec"], json!({"rules": [3], "x": {"y": inner}, "enforced": true}));
        assert_eq!(yaml("a:\n  <<: text\n").values, [json!({"a": {"<<": "text"}})], "named by the reader");
        assert_eq!(read(b"{\"<<\": {\"a\": 1}}", Format::Json).values, [json!({"<<": {"a": 1}})]);
    }

    #[test]
    fn keys_that_look_like_numbers_are_texts() {
        assert_eq!(yaml("1: x\ntrue: y\n").values, [json!({"1": "x", "true": "y"})]);
    }

    #[test]
    fn text_that_is_not_utf8_is_placed() {
        let found = read(b"a: 1\nbc\xff", Format::Yaml);
        assert_eq!(found.errors[0].to_string(), "line 2, column 3: byte 0xff is not UTF-8 text");
    }

    #[test]
    fn a_bomb_of_aliases_is_an_error() {
        let mut text = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (a, b) in ["ab", "bc", "cd", "de", "ef", "fg", "gh", "hi"].iter().map(|p| p.split_at(1)) {
            text += &format!("{b}: &{b} [{}]\n", vec![format!("*{a}"); 9].join(","));
        }
        assert!(!yaml(&text).errors.is_empty());
    }
}
