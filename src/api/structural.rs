//! The schemas that a cluster's API server checks objects with: structural ones (apiextensions.k8s.io/v1), with rules.
//!
//! In: the same tables of fields that the readers obey. Out: `openAPIV3Schema`. Two things differ from the schemas for
//! editors. *No defaults*: the API server would write them into every object, where they outlive the release that chose them,
//! and some are wrong beside another field (`maxNextHops` beside `nodes`); what an absent field means is said in words. *Limits on
//! sizes*: without them the server takes the longest conceivable list for the cost of a rule, and refuses the rule.

use serde_json::{Map, Value, json};

use super::shape::{ADDRESS, CIDR, Field, PREFIX, Rule, Shape, rule};

/// Longest selector. Far past what people write, and short enough to be matched in each of [`MOST_MAPS`] rules.
const LONGEST_SELECTOR: usize = 512;
/// Longest address with a prefix length, as in `2001:db8:1111:2222:3333:4444:5555:6666/128`.
const LONGEST_CIDR: usize = 43;
/// Longest text of another kind that a rule is about.
const LONGEST_CHECKED: usize = 256;
/// Longest text of another kind.
const LONGEST_TEXT: usize = 1024;
/// Longest list of texts.
const MOST_TEXTS: usize = 1024;
/// Longest list of maps.
const MOST_MAPS: usize = 256;
/// Most entries of a map by name.
pub const MOST_PAIRS: usize = 256;
/// How often a selector may stand in an object and still be matched by a rule, which has a sentence. Where it may stand more
/// often, the server would refuse the rule as too dear; a `pattern` costs nothing, but its message is the expression.
const MOST_MATCHED: usize = 4096;

/// The grammar of selectors as a regular expression, all but the balance of parentheses, which none can tell: see [`BALANCE`].
///
/// `empty`: an empty text is one, too.
fn selector_pattern(empty: bool) -> String {
    let (blanks, label, value) = ("[ \t]*", "[A-Za-z0-9_./-]+", "('[^']*'|\"[^\"]*\")");
    let function = format!("(all|global)[(]{blanks}[)]|has[(]{blanks}{label}{blanks}[)]");
    let compared =
        format!("{label}{blanks}(==|!=|[ \t](contains|starts{blanks}with|ends{blanks}with)){blanks}{value}");
    let set = format!("[{{]{blanks}({value}{blanks}(,{blanks}{value}{blanks})*,?{blanks})?[}}]");
    let among = format!("{label}[ \t]{blanks}(in|not{blanks}in){blanks}{set}");
    let term = format!("[!( \t]*({function}|{compared}|{among})[) \t]*");
    let nothing = if empty { format!("{blanks}|") } else { String::new() };
    format!("^({nothing}{term}((&&|[|][|]){term})*)$")
}

/// As many parentheses are opened as closed, unless some stand between quotes: cutting those out would cost more than the API server
/// allows.
const BALANCE: &str = r#"!self.matches("^([^'\"]|'[^'()]*'|\"[^\"()]*\")*$") || self.split('(').size() == self.split(')').size()"#;

const CIDR_RULES: &[Rule] = &[rule(
    "isCIDR(self) || isIP(self)",
    "this is no address with a prefix length, such as 203.0.113.0/24 or 2001:db8::/32",
)];
const PREFIX_RULES: &[Rule] = &[rule(
    "isCIDR(self)",
    "this is no address with a prefix length, such as 203.0.113.0/24 or 2001:db8::/32",
)];
const ADDRESS_RULES: &[Rule] =
    &[rule("self == '' || isIP(self)", "this is not an address such as 192.0.2.10 or 2001:db8::10")];

/// The schema of a field's value; `times`: how often the field may stand in an object.
fn value(field: &Field, times: usize) -> Value {
    let most = field.items.map(|(_, most)| most);
    let mut schema = match field.shape {
        Shape::Text => return text(field, field.rules, times),
        Shape::Flag => json!({"type": "boolean"}),
        Shape::Number(least, most) => {
            json!({"type": "integer", "format": "int64", "minimum": least, "maximum": most})
        }
        Shape::Choice(words) => json!({"type": "string", "enum": words}),
        Shape::Pairs => json!({
            "type": "object",
            "maxProperties": MOST_PAIRS,
            "additionalProperties": {"type": "string", "maxLength": LONGEST_TEXT},
        }),
        Shape::Texts => {
            json!({"type": "array", "maxItems": most.unwrap_or(MOST_TEXTS), "items": text(field, &[], times)})
        }
        Shape::Map(fields) => map(fields, false, times),
        Shape::Open(fields) => map(fields, true, times),
        Shape::Maps(fields) => {
            let most = most.unwrap_or(MOST_MAPS);
            let mut items = map(fields, false, times * most);
            add_rules(&mut items, field.each);
            // Wholly replaced by whoever applies it: an entry has no key to be merged by.
            json!({"type": "array", "maxItems": most, "x-kubernetes-list-type": "atomic", "items": items})
        }
        Shape::Named(fields) => json!({"type": "object", "additionalProperties": map(fields, false, times)}),
        Shape::Count => json!({"type": "integer", "format": "int64", "minimum": 0}),
        Shape::Conditions => json!({
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": map(super::kept::CONDITION, false, times),
        }),
        Shape::Any => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
    };
    if let (Some((least @ 1.., _)), Value::Object(schema)) = (field.items, &mut schema) {
        schema.insert("minItems".into(), least.into());
    }
    add_rules(&mut schema, field.rules);
    schema
}

/// A text, or one of a list.
fn text(field: &Field, own: &[Rule], times: usize) -> Value {
    let (longest, rules) = match field.pattern {
        Some(CIDR) => (LONGEST_CIDR, CIDR_RULES),
        Some(PREFIX) => (LONGEST_CIDR, PREFIX_RULES),
        Some(ADDRESS) => (LONGEST_CIDR, ADDRESS_RULES),
        _ if field.selects => (LONGEST_SELECTOR, &[][..]),
        _ if own.is_empty() => (LONGEST_TEXT, &[][..]),
        _ => (LONGEST_CHECKED, &[][..]),
    };
    let mut schema = json!({"type": "string", "maxLength": longest});
    if field.selects && times > MOST_MATCHED {
        let pattern = selector_pattern(own.is_empty());
        if let Value::Object(schema) = &mut schema {
            schema.insert("pattern".into(), pattern.into());
        }
        return schema;
    }
    add_rules(&mut schema, rules);
    add_rules(&mut schema, own);
    if field.selects {
        let cel = format!("self.matches({})", Value::from(selector_pattern(true)));
        let says = "the selector does not parse; write one such as role == \"edge\" && has(zone), or all(); \
                    `egret lint` says where it stumbles";
        add(&mut schema, &cel, says);
        let says = "the selector does not parse: it opens and closes another number of parentheses";
        add(&mut schema, BALANCE, says);
    }
    schema
}

fn add_rules(schema: &mut Value, rules: &[Rule]) {
    for rule in rules {
        add(schema, rule.cel, rule.says);
    }
}

fn add(schema: &mut Value, cel: &str, says: &str) {
    let Value::Object(schema) = schema else { return };
    let rules = schema.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
    if let Value::Array(rules) = rules {
        rules.push(json!({"rule": cel, "message": says}));
    }
}

/// The schema of a map with these fields; `open`: others are somebody else's, and kept; `times`: how often it may stand there.
pub(super) fn map(fields: &[Field], open: bool, times: usize) -> Value {
    let required: Vec<&str> = fields.iter().filter(|f| f.required).map(|f| f.name).collect();
    let mut properties = Map::new();
    for field in fields {
        let mut schema = Map::new();
        schema.insert("description".into(), described(field).into());
        if let Value::Object(mut value) = value(field, times) {
            schema.append(&mut value);
        }
        properties.insert(field.name.to_owned(), schema.into());
    }
    let mut schema = json!({"type": "object"});
    if let Value::Object(schema) = &mut schema {
        if !required.is_empty() {
            schema.insert("required".into(), json!(required));
        }
        schema.insert("properties".into(), properties.into());
        if open {
            schema.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
        }
    }
    schema
}

fn described(field: &Field) -> String {
    match field.default {
        Some(default) => format!("{} Absent: {default}.", field.about),
        None => field.about.to_owned(),
    }
}
