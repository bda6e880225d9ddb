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

    /// Field and message, for whoever names the object.
    pub fn sentence(&self) -> String {
        if self.field.is_empty() { self.message.clone() } else { format!("{}: {}", self.field, self.message) }
    }

    /// Names the file.
    #[must_use]
    pub fn file(mut self, file: impl Into<String>) -> Problem {
        self.file = file.into();
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut place: Vec<&str> = Vec::new();
        for part in [&self.file, &self.object, &self.field] {
            if !part.is_empty() {
                place.push(part);
            }
        }
        if !place.is_empty() {
            write!(f, "{}: ", place.join(": "))?;
        }
        f.write_str(&self.message)
    }
}
