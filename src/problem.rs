//! One thing that is wrong in the user's objects, named, beside the result. It never stops the rest.
//!
//! In: what a reader, resolver or store found. Out: one sentence for people, stable fields for machines.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A problem: which object, where, which value, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Problem {
    /// `Kind namespace/name` or `Kind name`; empty when the file could not even be read that far.
    pub object: String,
    /// Path of the file in the state directory, relative to it; empty when the object has no file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// The field, as a path: `spec.cidr`, `metadata.annotations["egret.dev/selector"]`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// The value found there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// CamelCase word for machines: `SelectorSyntax`, `PoolOverlap`, `NotYaml`.
    pub reason: String,
    /// A sentence with real values and the next step, without the object's name.
    pub message: String,
}

impl Problem {
    /// A problem of an object as a whole; fill in the place with the `at`, `value` and `file` methods.
    pub fn new(object: impl Into<String>, reason: &str, message: impl Into<String>) -> Problem {
        Problem {
            object: object.into(),
            file: String::new(),
            field: String::new(),
            value: String::new(),
            reason: reason.to_owned(),
            message: message.into(),
        }
    }

    /// Names the field.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Problem {
        self.field = field.into();
        self
    }

    /// Names the value found.
    #[must_use]
    pub fn value(mut self, value: impl Into<String>) -> Problem {
        self.value = value.into();
        self
    }

    /// Field and message, for whoever names the object. Many a message is a sentence about its field by itself (`spec is a list`), as
    /// JSON and the configuration's errors have it; the field is not said twice then, but as the path that is longer: of
    /// `items[3].spec`, not of `spec`.
    pub fn sentence(&self) -> String {
        if self.field.is_empty() {
            return self.message.clone();
        }
        let dots = self.field.match_indices('.').map(|(dot, _)| dot + 1);
        let told =
            |from: usize| self.message.strip_prefix(&self.field[from..]).filter(|rest| rest.starts_with(' '));
        match std::iter::once(0).chain(dots).find_map(told) {
            Some(rest) => format!("{}{rest}", self.field),
            None => format!("{}: {}", self.field, self.message),
        }
    }

    /// Names the file. What a cluster says comes under the object's own name in place of a file's: that is none, and is not said twice.
    #[must_use]
    pub fn file(mut self, file: impl Into<String>) -> Problem {
        let file = file.into();
        if file != self.object {
            self.file = file;
        }
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.file, &self.object] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.sentence())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(field: &str, message: &str) -> String {
        Problem::new("Pod shop/cart", "Any", message).file("a.yaml").at(field).to_string()
    }

    #[test]
    fn an_object_of_a_cluster_is_named_once_and_has_no_file() {
        let problem = Problem::new("Pod shop/cart", "Any", "is not served").file("Pod shop/cart");
        assert_eq!(
            (problem.to_string().as_str(), problem.file.as_str()),
            ("Pod shop/cart: is not served", "")
        );
    }

    #[test]
    fn a_field_is_named_once() {
        let cases = [
            ("spec", "spec is a list", "spec is a list"),
            ("items[3].spec", "spec is a list", "items[3].spec is a list"),
            ("spec", "speculation is a text", "spec: speculation is a text"),
            ("spec.cidr", "the range is empty", "spec.cidr: the range is empty"),
            ("", "metadata.name is missing", "metadata.name is missing"),
        ];
        for (field, message, expected) in cases {
            assert_eq!(told(field, message), format!("a.yaml: Pod shop/cart: {expected}"));
        }
    }
}
