//! Reading fields out of a document, and noting what is wrong with them.
//!
//! In: a map of a `serde_json::Value`. Out: typed values; what is wrong goes to [`Findings`], all of it, not only the
//! first. Never: knows kinds. `null` is the same as a field that is not there, as in Kubernetes.

use std::fmt::Display;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::shape::{Field, Shape};
use crate::egress::model::Pairs;
use crate::problem::Problem;
use crate::spelling;

/// What was found wrong in one object.
pub(crate) struct Findings<'a> {
    file: &'a str,
    /// `Kind name`, as far as known.
    pub(crate) object: String,
    /// In the order found.
    pub(crate) problems: Vec<Problem>,
    /// Whether any of them makes the object unusable.
    pub(crate) broken: bool,
    /// Which of them do, by place in `problems`.
    wrong: Vec<usize>,
}

impl<'a> Findings<'a> {
    pub(crate) fn of(file: &'a str, object: String) -> Findings<'a> {
        Findings { file, object, problems: Vec::new(), broken: false, wrong: Vec::new() }
    }

    /// What makes the object unusable. From now on it counts as usable: who asks hands the reasons on with it.
    pub(crate) fn unfit(&mut self) -> Vec<Problem> {
        self.broken = false;
        std::mem::take(&mut self.wrong).into_iter().filter_map(|i| self.problems.get(i).cloned()).collect()
    }

    /// Whether any of the problems from the given one on makes the object unusable.
    pub(crate) fn wrong_since(&self, from: usize) -> bool {
        self.wrong.last().is_some_and(|last| *last >= from)
    }

    /// Notes something that makes the object unusable.
    pub(crate) fn wrong(
        &mut self,
        field: &str,
        value: impl Display,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.broken = true;
        self.wrong.push(self.problems.len());
        self.doubt(field, value, reason, message);
    }

    /// Notes something that the object survives.
    pub(crate) fn doubt(
        &mut self,
        field: &str,
        value: impl Display,
        reason: &str,
        message: impl Into<String>,
    ) {
        let problem = Problem::new(self.object.as_str(), reason, message).file(self.file);
        self.problems.push(problem.at(field).value(value.to_string()));
    }

    fn wrong_type(&mut self, field: &str, value: &Value, want: &str) {
        let message = format!("{field} is {}, but must be {want}", described(value));
        self.wrong(field, shown(value), "WrongType", message);
    }
}

/// A value as a person would see it in the file: texts bare, the rest as JSON, cut at 80 characters.
pub(crate) fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.chars().count() <= 80 { text } else { text.chars().take(79).chain(['…']).collect() }
}

/// `the number 5`, `the text "x"`, `a list`.
pub(crate) fn described(value: &Value) -> String {
    match value {
        Value::Null => "empty".to_owned(),
        Value::Bool(v) => format!("`{v}`, a boolean"),
        Value::Number(v) => format!("the number {v}"),
        Value::String(_) => format!("the text \"{}\"", shown(value)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a map".to_owned(),
    }
}

/// A map inside a document, with its path for messages. A map that is not there has no fields.
#[derive(Clone)]
pub(crate) struct Section<'v> {
    path: String,
    map: Option<&'v Map<String, Value>>,
    /// What may be read of it; `None`: whatever the reader says.
    fields: Option<&'static [Field]>,
    /// The same of the map around it: a field may stand one level too deep.
    above: Option<&'static [Field]>,
}

impl<'v> Section<'v> {
    pub(crate) fn of(path: impl Into<String>, map: &'v Map<String, Value>) -> Section<'v> {
        Section { path: path.into(), map: Some(map), fields: None, above: None }
    }

    /// One that has these fields; reading another is a mistake of the reader.
    pub(crate) fn shaped(
        path: impl Into<String>,
        map: &'v Map<String, Value>,
        fields: &'static [Field],
    ) -> Section<'v> {
        Section { path: path.into(), map: Some(map), fields: Some(fields), above: None }
    }

    /// What the table says of a field.
    fn shape(&self, key: &str) -> Option<Shape> {
        let field = self.fields?.iter().find(|field| field.name == key);
        debug_assert!(field.is_some(), "{} is read, and its table has it not", self.path(key));
        field.map(|field| field.shape)
    }

    /// The fields of the map, or of the maps in the list, that a field holds.
    fn inner(&self, key: &str) -> Option<&'static [Field]> {
        let shape = self.shape(key)?;
        let (Shape::Map(fields) | Shape::Open(fields) | Shape::Maps(fields)) = shape else {
            debug_assert!(false, "{} is read as a map, and its table says otherwise", self.path(key));
            return None;
        };
        Some(fields)
    }

    /// Checks that the table says of a field what its reader takes it for.
    fn is_in_the_table_as(&self, key: &str, right: impl Fn(Shape) -> bool) {
        debug_assert!(
            self.shape(key).is_none_or(right),
            "{} is read as another type than its table says",
            self.path(key)
        );
    }

    /// Its own path.
    pub(crate) fn here(&self) -> &str {
        &self.path
    }

    /// Whether there is such a map, be it empty.
    pub(crate) fn is_there(&self) -> bool {
        self.map.is_some()
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'v Value> {
        self.shape(key);
        self.map?.get(key).filter(|v| !v.is_null())
    }

    /// The path of a field of this map.
    pub(crate) fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(crate) fn section(&self, key: &str, findings: &mut Findings<'_>) -> Section<'v> {
        let path = self.path(key);
        let fields = self.inner(key);
        let map = match self.get(key) {
            None => None,
            Some(Value::Object(map)) => Some(map),
            Some(other) => {
                findings.wrong_type(&path, other, "a map");
                None
            }
        };
        Section { path, map, fields, above: self.fields }
    }

    pub(crate) fn text(&self, key: &str, findings: &mut Findings<'_>) -> Option<&'v str> {
        self.is_in_the_table_as(key, |shape| matches!(shape, Shape::Text | Shape::Choice(_)));
        match self.get(key)? {
            Value::String(text) => Some(text),
            other => {
                findings.wrong_type(&self.path(key), other, "a text (put it in quotes)");
                None
            }
        }
    }

    /// Not there, or wrong: false.
    pub(crate) fn flag(&self, key: &str, findings: &mut Findings<'_>) -> bool {
        self.is_in_the_table_as(key, |shape| matches!(shape, Shape::Flag));
        match self.get(key) {
            None => false,
            Some(Value::Bool(flag)) => *flag,
            Some(other) => {
                findings.wrong_type(&self.path(key), other, "true or false");
                false
            }
        }
    }

    pub(crate) fn number(
        &self,
        key: &str,
        range: RangeInclusive<u32>,
        findings: &mut Findings<'_>,
    ) -> Option<u32> {
        self.is_in_the_table_as(
            key,
            |shape| matches!(shape, Shape::Number(least, most) if range == (least..=most)),
        );
        let value = self.get(key)?;
        let number = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| range.contains(n));
        if number.is_none() {
            let want = format!("a whole number from {} to {}", range.start(), range.end());
            findings.wrong_type(&self.path(key), value, &want);
        }
        number
    }

    pub(crate) fn list(&self, key: &str, findings: &mut Findings<'_>) -> &'v [Value] {
        self.is_in_the_table_as(key, |shape| matches!(shape, Shape::Texts | Shape::Maps(_) | Shape::Any));
        match self.get(key) {
            None => &[],
            Some(Value::Array(list)) => list,
            Some(other) => {
                findings.wrong_type(&self.path(key), other, "a list");
                &[]
            }
        }
    }

    /// Maps of a list, each with its path; what is no map is noted.
    pub(crate) fn sections(&self, key: &str, findings: &mut Findings<'_>) -> Vec<Section<'v>> {
        let mut sections = Vec::new();
        let fields = self.inner(key);
        for (i, value) in self.list(key, findings).iter().enumerate() {
            let path = format!("{}[{i}]", self.path(key));
            match value {
                Value::Object(map) => {
                    sections.push(Section { path, map: Some(map), fields, above: self.fields });
                }
                other => findings.wrong_type(&path, other, "a map"),
            }
        }
        sections
    }

    /// Texts of a list, each with its path; what is no text is noted.
    pub(crate) fn texts(&self, key: &str, findings: &mut Findings<'_>) -> Vec<(String, &'v str)> {
        let mut texts = Vec::new();
        for (i, value) in self.list(key, findings).iter().enumerate() {
            let path = format!("{}[{i}]", self.path(key));
            match value {
                Value::String(text) => texts.push((path, text.as_str())),
                other => findings.wrong_type(&path, other, "a text"),
            }
        }
        texts
    }

    /// Labels or annotations.
    pub(crate) fn pairs(&self, key: &str, findings: &mut Findings<'_>) -> Pairs {
        let mut pairs = Pairs::new();
        self.is_in_the_table_as(key, |shape| matches!(shape, Shape::Pairs));
        let section = Section { fields: None, ..self.clone() }.section(key, findings);
        for (name, value) in section.map.into_iter().flatten() {
            match value {
                Value::String(text) => {
                    pairs.insert(name.clone(), text.clone());
                }
                other => {
                    let path = format!("{}[\"{name}\"]", section.path);
                    let want = format!("a text; put it in quotes: \"{}\"", shown(other));
                    let want = if other.is_array() || other.is_object() { "a text" } else { &want };
                    findings.wrong_type(&path, other, want);
                }
            }
        }
        pairs
    }

    /// One of some words.
    pub(crate) fn choice<T: Copy>(
        &self,
        key: &str,
        words: &[(&str, T)],
        findings: &mut Findings<'_>,
    ) -> Option<T> {
        let same = |names: &[&str]| words.iter().map(|(word, _)| *word).eq(names.iter().copied());
        self.is_in_the_table_as(key, |shape| matches!(shape, Shape::Choice(names) if same(names)));
        let text = self.text(key, findings)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let path = self.path(key);
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let message = format!("{path} is `{text}`, but must be {}", names.join(" or "));
            findings.wrong(&path, text, "WrongValue", message);
        }
        found
    }

    /// Notes fields that are not in the table; they are ignored.
    pub(crate) fn closed(&self, findings: &mut Findings<'_>) {
        let mut known: Vec<&str> = self.fields.unwrap_or_default().iter().map(|field| field.name).collect();
        if self.path.is_empty() {
            // Every document has these; they were read to find the table.
            known.extend(["apiVersion", "kind"]);
        }
        self.only(&known, findings);
    }

    /// The `spec` of a document of ours: whatever it, its metadata or its `spec` has beside their tables is noted.
    pub(crate) fn spec_of_ours(&self, findings: &mut Findings<'_>) -> Section<'v> {
        self.closed(findings);
        let metadata = self.section("metadata", findings);
        metadata.pairs("labels", findings);
        metadata.pairs("annotations", findings);
        let spec = self.section("spec", findings);
        spec.closed(findings);
        spec
    }

    /// The map around this one, if it has such a field.
    fn around(&self, key: &str) -> Option<&str> {
        self.above?.iter().find(|field| field.name == key)?;
        self.path.rsplit_once('.').map(|(around, _)| around)
    }

    /// Notes fields that are not among the known ones; they are ignored.
    pub(crate) fn only(&self, known: &[&str], findings: &mut Findings<'_>) {
        for (key, value) in self.map.into_iter().flatten() {
            if !known.contains(&key.as_str()) {
                let path = self.path(key);
                let hint = match (spelling::hint(key, known), self.around(key)) {
                    (hint, _) if !hint.is_empty() => hint,
                    (_, Some(around)) => format!("; it belongs into {around}"),
                    (_, None) => "; remove it".to_owned(),
                };
                let message = format!("the field {path} is unknown and has no effect{hint}");
                findings.doubt(&path, shown(value), "UnknownField", message);
            }
        }
    }
}
