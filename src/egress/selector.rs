//! Calico's label selectors: one expression, its evaluation and its canonical text.
//!
//! In: text as users write it in annotations, pools and policies. Out: a [`Selector`] that answers `matches`, prints
//! canonically, and is equal to every other spelling of itself; or a [`SelectorError`] that points at the character.
//! Never: panics or overflows the stack, whatever the text.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::egress::model::{Pairs, PodName, View};

mod parse;

pub use parse::SelectorError;

/// What is known of one thing by name; borrowed, so that implicit labels cost no copy.
pub trait Labels {
    /// The value of a label.
    fn label(&self, name: &str) -> Option<&str>;

    /// What `global()` says of it. True, except for a namespace: in a namespace selector `global()` means "what lies in
    /// no namespace", which no pod does.
    fn global(&self) -> bool {
        true
    }
}

impl Labels for Pairs {
    fn label(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }
}

/// A namespace as its selectors see it: its labels, and its name under two implicit ones that nobody can overwrite. A
/// namespace without an object still has these.
#[derive(Debug, Clone, Copy)]
pub struct NamespaceLabels<'a> {
    /// The namespace's name.
    pub name: &'a str,
    /// The object's labels, if there is one.
    pub labels: Option<&'a Pairs>,
}

impl<'a> NamespaceLabels<'a> {
    /// The implicit labels that are its name.
    pub const NAME: [&'static str; 2] = ["projectcalico.org/name", "kubernetes.io/metadata.name"];

    /// Of a namespace in the view, or of one that has no object there.
    pub fn of(view: &'a View, name: &'a str) -> NamespaceLabels<'a> {
        NamespaceLabels { name, labels: view.namespaces.get(name).map(|namespace| &namespace.labels) }
    }
}

impl Labels for NamespaceLabels<'_> {
    fn label(&self, name: &str) -> Option<&str> {
        match Self::NAME.contains(&name) {
            true => Some(self.name),
            false => self.labels?.get(name).map(String::as_str),
        }
    }

    fn global(&self) -> bool {
        false
    }
}

/// A pod as its selectors see it: its labels, and its namespace under the label that Calico adds.
#[derive(Debug, Clone, Copy)]
pub struct PodLabels<'a> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// The object's labels, if there is one.
    pub labels: Option<&'a Pairs>,
}

impl<'a> PodLabels<'a> {
    /// Of a pod in the view, or of one that has no object there.
    pub fn of(view: &'a View, pod: &'a PodName) -> PodLabels<'a> {
        PodLabels { namespace: &pod.namespace, labels: view.pods.get(pod).map(|pod| &pod.labels) }
    }
}

impl Labels for PodLabels<'_> {
    fn label(&self, name: &str) -> Option<&str> {
        match name {
            "projectcalico.org/namespace" => Some(self.namespace),
            "projectcalico.org/orchestrator" => Some("k8s"),
            _ => self.labels?.get(name).map(String::as_str),
        }
    }
}

/// A selector that parsed. Two spellings of one expression are equal and print alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selector(Expr);

impl Selector {
    /// Reads a selector. Empty text is `all()`.
    ///
    /// # Errors
    /// Names the first character that cannot stand where it stands.
    pub fn parse(text: &str) -> Result<Selector, SelectorError> {
        parse::parse(text).map(Selector)
    }

    /// The selector that everything matches.
    pub fn all() -> Selector {
        Selector(Expr::All)
    }

    /// Whether the thing with these labels is selected.
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        self.0.matches(labels)
    }

    /// Label and value pairs of which anything that matches has at least one; `None` if it need not have any. So those who hold
    /// many selectors find the few that may match without asking them all.
    pub fn needs(&self) -> Option<Vec<(&str, &str)>> {
        self.0.needs()
    }

    /// The labels that it asks for.
    pub fn labels(&self) -> BTreeSet<&str> {
        let mut labels = BTreeSet::new();
        self.0.labels(&mut labels);
        labels
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Selector, SelectorError> {
        Selector::parse(text)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One expression in canonical form: no `And` inside an `And`, no `Or` inside an `Or`, no `Not` of a `Not`, and `And` and
/// `Or` have at least two members. The parser's constructors keep it so, and equality rests on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Expr {
    All,
    Global,
    Has(String),
    Compare(String, Operator, String),
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Not(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
}

/// Operators between a label and one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operator {
    Equal,
    NotEqual,
    Contains,
    StartsWith,
    EndsWith,
}

impl Operator {
    fn text(self) -> &'static str {
        match self {
            Operator::Equal => "==",
            Operator::NotEqual => "!=",
            Operator::Contains => "contains",
            Operator::StartsWith => "starts with",
            Operator::EndsWith => "ends with",
        }
    }

    /// A missing label is unequal to everything and neither contains, starts nor ends with anything.
    fn holds(self, found: Option<&str>, value: &str) -> bool {
        match self {
            Operator::Equal => found == Some(value),
            Operator::NotEqual => found != Some(value),
            Operator::Contains => found.is_some_and(|found| found.contains(value)),
            Operator::StartsWith => found.is_some_and(|found| found.starts_with(value)),
            Operator::EndsWith => found.is_some_and(|found| found.ends_with(value)),
        }
    }
}

impl Expr {
    fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        match self {
            Expr::All => true,
            Expr::Global => labels.global(),
            Expr::Has(label) => labels.label(label).is_some(),
            Expr::Compare(label, operator, value) => operator.holds(labels.label(label), value),
            Expr::In(label, values) => labels.label(label).is_some_and(|found| values.contains(found)),
            Expr::NotIn(label, values) => !labels.label(label).is_some_and(|found| values.contains(found)),
            Expr::Not(inner) => !inner.matches(labels),
            Expr::And(parts) => parts.iter().all(|part| part.matches(labels)),
            Expr::Or(parts) => parts.iter().any(|part| part.matches(labels)),
        }
    }

    fn needs(&self) -> Option<Vec<(&str, &str)>> {
        match self {
            Expr::Compare(label, Operator::Equal, value) => Some(vec![(label, value)]),
            Expr::In(label, values) => {
                Some(values.iter().map(|value| (label.as_str(), value.as_str())).collect())
            }
            Expr::And(parts) => parts.iter().filter_map(Expr::needs).min_by_key(Vec::len),
            Expr::Or(parts) => {
                parts.iter().map(Expr::needs).collect::<Option<Vec<_>>>().map(|all| all.concat())
            }
            _ => None,
        }
    }

    fn labels<'a>(&'a self, found: &mut BTreeSet<&'a str>) {
        match self {
            Expr::All | Expr::Global => {}
            Expr::Has(label) | Expr::Compare(label, _, _) | Expr::In(label, _) | Expr::NotIn(label, _) => {
                found.insert(label);
            }
            Expr::Not(inner) => inner.labels(found),
            Expr::And(parts) | Expr::Or(parts) => parts.iter().for_each(|part| part.labels(found)),
        }
    }

    fn not(self) -> Expr {
        match self {
            Expr::Not(inner) => *inner,
            other => Expr::Not(Box::new(other)),
        }
    }

    fn and(parts: Vec<Expr>) -> Expr {
        let flat = parts.into_iter().flat_map(|part| match part {
            Expr::And(inner) => inner,
            other => vec![other],
        });
        Expr::joined(flat.collect(), Expr::And)
    }

    fn or(parts: Vec<Expr>) -> Expr {
        let flat = parts.into_iter().flat_map(|part| match part {
            Expr::Or(inner) => inner,
            other => vec![other],
        });
        Expr::joined(flat.collect(), Expr::Or)
    }

    fn joined(mut parts: Vec<Expr>, join: fn(Vec<Expr>) -> Expr) -> Expr {
        match parts.len() {
            1 => parts.remove(0),
            _ => join(parts),
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::All => f.write_str("all()"),
            Expr::Global => f.write_str("global()"),
            Expr::Has(label) => write!(f, "has({label})"),
            Expr::Compare(label, operator, value) => {
                write!(f, "{label} {} {}", operator.text(), Quoted(value))
            }
            Expr::In(label, values) => write!(f, "{label} in {}", Set(values)),
            Expr::NotIn(label, values) => write!(f, "{label} not in {}", Set(values)),
            // `!` binds to one primary, so a comparison needs no parentheses and a chain does.
            Expr::Not(inner) => match **inner {
                Expr::And(_) | Expr::Or(_) => write!(f, "!({inner})"),
                _ => write!(f, "!{inner}"),
            },
            Expr::And(parts) => {
                for (i, part) in parts.iter().enumerate() {
                    f.write_str(if i == 0 { "" } else { " && " })?;
                    match part {
                        Expr::Or(_) => write!(f, "({part})")?,
                        _ => part.fmt(f)?,
                    }
                }
                Ok(())
            }
            Expr::Or(parts) => {
                for (i, part) in parts.iter().enumerate() {
                    f.write_str(if i == 0 { "" } else { " || " })?;
                    part.fmt(f)?;
                }
                Ok(())
            }
        }
    }
}

/// A value in the quotes that it does not contain; the grammar has no escapes.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('"') { '\'' } else { '"' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

struct Set<'a>(&'a BTreeSet<String>);

impl fmt::Display for Set<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, value) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, Quoted(value))?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests;
