//! The fields of the kinds, told once: what a reader may read, what a document may hold, and what `egret schema` prints.
//!
//! In: one table per kind, beside its reader. Out: JSON schemas (draft 2020-12). A reader that asks for a field which its table
//! has not, or asks for it as another type, panics in debug builds, so in every test; a field of the table that no reader
//! reads is found by a test. So the schema cannot say anything else than the reader does.

use serde_json::{Map, Value, json};

/// A prefix, or a bare address.
pub(crate) const CIDR: &str = "^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$";
/// A prefix with its length.
pub(crate) const PREFIX: &str = "^[0-9A-Fa-f.:]+/[0-9]{1,3}$";
/// An address, or nothing.
pub(crate) const ADDRESS: &str = "^[0-9A-Fa-f.:]*$";

/// What a field holds.
#[derive(Clone, Copy)]
pub(crate) enum Shape {
    /// A text.
    Text,
    /// true or false.
    Flag,
    /// A whole number between two others.
    Number(u32, u32),
    /// One of some words.
    Choice(&'static [&'static str]),
    /// Texts by name.
    Pairs,
    /// A list of texts.
    Texts,
    /// A map of these fields and no other.
    Map(&'static [Field]),
    /// A map that may have other fields, which are somebody else's.
    Open(&'static [Field]),
    /// A list of maps.
    Maps(&'static [Field]),
    /// Maps of these fields, each by a name. This and the next two only stand in what Egret writes itself.
    Named(&'static [Field]),
    /// A whole number that no 32 bits hold.
    Count,
    /// `conditions` of `meta/v1`.
    Conditions,
    /// Not looked at here, or read without complaint.
    Any,
}

/// A field of a map.
#[derive(Clone, Copy)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(super) about: &'static str,
    pub(crate) shape: Shape,
    pub(super) required: bool,
    pub(super) default: Option<&'static str>,
    pub(super) pattern: Option<&'static str>,
    pub(super) items: Option<(usize, usize)>,
    pub(super) selects: bool,
    pub(super) rules: &'static [Rule],
    pub(super) each: &'static [Rule],
}

/// What a cluster's API server checks besides types: an expression over `self`, and the sentence if it is false.
#[derive(Clone, Copy)]
pub(crate) struct Rule {
    /// In the Common Expression Language, as Kubernetes 1.31 and newer speak it.
    pub(super) cel: &'static str,
    /// As the reader says it, without the value, which the API server shows.
    pub(super) says: &'static str,
}

/// An expression, and the sentence if it is false.
pub(crate) const fn rule(cel: &'static str, says: &'static str) -> Rule {
    Rule { cel, says }
}

/// `name`, what it means, what it holds.
pub(crate) const fn field(name: &'static str, shape: Shape, about: &'static str) -> Field {
    let (default, pattern, items) = (None, None, None);
    Field {
        name,
        about,
        shape,
        required: false,
        default,
        pattern,
        items,
        selects: false,
        rules: &[],
        each: &[],
    }
}

impl Field {
    /// It must be there.
    pub(crate) const fn required(mut self) -> Field {
        self.required = true;
        self
    }

    /// What its absence means: a text as it is, everything else as JSON.
    pub(crate) const fn or(mut self, default: &'static str) -> Field {
        self.default = Some(default);
        self
    }

    /// What its text, or each text of its list, looks like.
    pub(crate) const fn like(mut self, pattern: &'static str) -> Field {
        self.pattern = Some(pattern);
        self
    }

    /// How many entries its list has.
    pub(crate) const fn items(mut self, least: usize, most: usize) -> Field {
        self.items = Some((least, most));
        self
    }

    /// Its text is a selector.
    pub(crate) const fn selects(mut self) -> Field {
        self.selects = true;
        self
    }

    /// What must be true of it as a whole.
    pub(crate) const fn rules(mut self, rules: &'static [Rule]) -> Field {
        self.rules = rules;
        self
    }

    /// What must be true of each entry of its list.
    pub(crate) const fn each(mut self, rules: &'static [Rule]) -> Field {
        self.each = rules;
        self
    }

    /// The JSON schema of the field; `strict`: maps may have no other fields.
    fn schema(&self, strict: bool) -> Value {
        let mut schema = match self.shape {
            Shape::Text => json!({"type": "string"}),
            Shape::Flag => json!({"type": "boolean"}),
            Shape::Number(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
            Shape::Choice(words) => json!({"type": "string", "enum": words}),
            Shape::Pairs => json!({"type": "object", "additionalProperties": {"type": "string"}}),
            Shape::Texts => json!({"type": "array", "items": {"type": "string"}}),
            Shape::Map(fields) => map(fields, strict),
            Shape::Open(fields) => map(fields, false),
            Shape::Maps(fields) => json!({"type": "array", "items": map(fields, strict)}),
            Shape::Named(fields) => json!({"type": "object", "additionalProperties": map(fields, strict)}),
            Shape::Count => json!({"type": "integer", "minimum": 0}),
            Shape::Conditions => json!({"type": "array"}),
            Shape::Any => json!({}),
        };
        if let (Some(pattern), Some(Value::Object(of))) = (
            self.pattern,
            if matches!(self.shape, Shape::Texts) { schema.get_mut("items") } else { Some(&mut schema) },
        ) {
            of.insert("pattern".into(), pattern.into());
        }
        let Value::Object(schema) = &mut schema else { return schema };
        if let Some((least, most)) = self.items {
            schema.insert("minItems".into(), least.into());
            schema.insert("maxItems".into(), most.into());
        }
        if let Some(default) = self.default {
            let text = matches!(self.shape, Shape::Text | Shape::Choice(_));
            let value = if text { Some(default.into()) } else { serde_json::from_str(default).ok() };
            schema.insert("default".into(), value.unwrap_or_default());
        }
        let mut described = Map::new();
        described.insert("description".into(), self.about.into());
        described.append(schema);
        // Kubernetes, and so Egret, takes `field: null` as a field that is not there.
        if let (false, Some(kind)) = (self.required, described.get_mut("type")) {
            *kind = json!([kind.clone(), "null"]);
        }
        if let (false, Some(Value::Array(words))) = (self.required, described.get_mut("enum")) {
            words.push(Value::Null);
        }
        Value::Object(described)
    }
}

/// The JSON schema of a map with these fields.
pub(super) fn map(fields: &[Field], strict: bool) -> Value {
    let required: Vec<&str> = fields.iter().filter(|f| f.required).map(|f| f.name).collect();
    let properties: Map<String, Value> =
        fields.iter().map(|field| (field.name.to_owned(), field.schema(strict))).collect();
    let mut schema = json!({"type": "object"});
    if let Value::Object(schema) = &mut schema {
        if !required.is_empty() {
            schema.insert("required".into(), json!(required));
        }
        schema.insert("properties".into(), Value::Object(properties));
        if strict {
            schema.insert("additionalProperties".into(), false.into());
        }
    }
    schema
}

/// `metadata` of every kind, as far as it is read.
pub(super) const METADATA: &[Field] = &[
    field("name", Shape::Text, "The object's name.").required(),
    field("labels", Shape::Pairs, "Labels."),
    field("annotations", Shape::Pairs, "Annotations."),
    field("creationTimestamp", Shape::Text, "RFC 3339. Of two policies for one prefix the older wins."),
];

const METADATA_FIELD: Field =
    field("metadata", Shape::Open(METADATA), "Name, labels, annotations.").required();
const STATUS_FIELD: Field = field("status", Shape::Any, "Not looked at.");

/// The fields of a document of a kind that is ours to check wholly, besides `apiVersion` and `kind`.
pub(super) const fn document(spec: &'static [Field], rules: &'static [Rule]) -> [Field; 3] {
    let spec = field("spec", Shape::Map(spec), "What is wanted.").required().rules(rules);
    [METADATA_FIELD, spec, STATUS_FIELD]
}
