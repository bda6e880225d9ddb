//! Kubernetes' `LabelSelector` → texts of the selector grammar, which can say all it can.
//!
//! | written | becomes |
//! |---|---|
//! | `matchLabels: {a: b}` | `a == "b"` |
//! | `In [b, c]` | `a in {"b", "c"}` |
//! | `NotIn [b, c]` | `a not in {"b", "c"}`, true also without the label, as in Kubernetes |
//! | `Exists`, `DoesNotExist` | `has(a)`, `!has(a)` |
//! | empty | `all()` |

use super::fields::{Findings, Section};
use super::shape::{Field, Shape, field};
use crate::egress::selector::Selector;

/// Cilium's name for a label of the pod's namespace among the pod's own.
const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels.";

/// Cilium's names for what a pod's identity has beside labels: its service account, its cluster.
const OF_IDENTITY: &str = "io.cilium.k8s.policy.";

/// `LabelSelector` of `meta/v1`. All of it must match; an empty one matches everything.
pub(super) const LABEL_SELECTOR: &[Field] = &[
    field("matchLabels", Shape::Pairs, "Labels and their values."),
    field("matchExpressions", Shape::Maps(EXPRESSION), "Conditions on labels."),
];

const EXPRESSION: &[Field] = &[
    field("key", Shape::Text, "Name of the label.").required(),
    field("operator", Shape::Choice(&["In", "NotIn", "Exists", "DoesNotExist"]), "How it is asked.")
        .required(),
    field("values", Shape::Texts, "For `In` and `NotIn`: at least one."),
];

/// What a selector asks for, by whose labels it is about.
pub(super) struct Terms {
    /// Of the thing itself.
    pub(super) own: String,
    /// Of its namespace, named by Cilium's prefix; `None`: nothing.
    pub(super) namespace: Option<String>,
}

/// Reads one selector; `None`: it cannot be understood, as noted.
pub(super) fn read(selector: &Section<'_>, findings: &mut Findings<'_>) -> Option<Terms> {
    selector.closed(findings);
    let (mut own, mut namespace, mut right) = (Vec::new(), Vec::new(), selector.is_there());
    let mut add = |at: &str, key: &str, term: &dyn Fn(&str) -> String, findings: &mut Findings<'_>| {
        let Some(key) = bare(at, key, findings) else { return right = false };
        match key.strip_prefix(NAMESPACE_LABELS) {
            Some(label) => namespace.push(term(label)),
            None => own.push(term(key)),
        }
    };
    let before = findings.problems.len();
    for (key, wanted) in selector.pairs("matchLabels", findings) {
        let at = format!("{}[\"{key}\"]", selector.path("matchLabels"));
        value(&at, &wanted, findings);
        add(&at, &key, &|key| format!("{key} == \"{wanted}\""), findings);
    }
    for expression in selector.sections("matchExpressions", findings) {
        expression.closed(findings);
        let at = expression.path("key");
        let operator = operator(&expression, findings);
        let Some(key) = expression.text("key", findings) else {
            if expression.get("key").is_none() {
                findings.wrong(&at, "", "MissingField", format!("{at} is missing; write the label's name"));
            }
            continue;
        };
        let Some(operator) = operator else { continue };
        add(&at, key, &operator, findings);
    }
    // Doubts (unknown fields) leave the selector as it is.
    let right = right && !findings.wrong_since(before);
    let joined = |terms: Vec<String>| if terms.is_empty() { "all()".to_owned() } else { terms.join(" && ") };
    let namespace = (!namespace.is_empty()).then(|| joined(namespace));
    right.then(|| Terms { own: joined(own), namespace })
}

/// One expression, but for its key.
fn operator(
    expression: &Section<'_>,
    findings: &mut Findings<'_>,
) -> Option<impl Fn(&str) -> String + use<>> {
    #[derive(Clone, Copy)]
    enum Operator {
        In,
        NotIn,
        Exists,
        DoesNotExist,
    }
    let words = [
        ("In", Operator::In),
        ("NotIn", Operator::NotIn),
        ("Exists", Operator::Exists),
        ("DoesNotExist", Operator::DoesNotExist),
    ];
    let operator = expression.choice("operator", &words, findings);
    if expression.get("operator").is_none() {
        let at = expression.path("operator");
        let message = format!("{at} is missing; write In, NotIn, Exists or DoesNotExist");
        findings.wrong(&at, "", "MissingField", message);
    }
    let texts = expression.texts("values", findings);
    for (at, text) in &texts {
        value(at, text, findings);
    }
    let operator = operator?;
    let at = expression.path("values");
    let takes_values = matches!(operator, Operator::In | Operator::NotIn);
    if takes_values && expression.list("values", findings).is_empty() {
        let message = format!("{at} is empty, and the operator needs at least one value");
        findings.wrong(&at, "", "NoValues", message);
    }
    if !takes_values && !texts.is_empty() {
        let message = format!("{at} must be empty for this operator; remove it, or write In or NotIn");
        findings.wrong(&at, texts.len(), "Values", message);
    }
    let quoted: Vec<String> = texts.iter().map(|(_, text)| format!("\"{text}\"")).collect();
    let values = quoted.join(", ");
    Some(move |key: &str| match operator {
        Operator::In => format!("{key} in {{{values}}}"),
        Operator::NotIn => format!("{key} not in {{{values}}}"),
        Operator::Exists => format!("has({key})"),
        Operator::DoesNotExist => format!("!has({key})"),
    })
}

/// A key without Cilium's source prefix. Labels from elsewhere than Kubernetes are not known here.
fn bare<'k>(at: &str, key: &'k str, findings: &mut Findings<'_>) -> Option<&'k str> {
    let bare = key.strip_prefix("k8s:").or_else(|| key.strip_prefix("any:")).unwrap_or(key);
    let identity = bare.starts_with(OF_IDENTITY);
    if Selector::parse(&format!("has({bare})")).is_ok() && !bare.is_empty() && !identity {
        return Some(bare);
    }
    let message = match bare.split_once(':') {
        None if identity => format!(
            "`{key}` is no label of the pod but of Cilium's identity, which Egret does not know, so it would match no pod; select by labels of the pod or of its namespace"
        ),
        Some((source, _)) => format!(
            "`{key}` is a label of the source `{source}`, and only labels of Kubernetes are known; write `k8s:`, `any:` or no prefix"
        ),
        None => format!("`{key}` is no name of a label; write letters, digits, `-`, `_`, `.` and one `/`"),
    };
    findings.wrong(at, key, "LabelName", message);
    None
}

/// Notes a text that no label can have as its value.
fn value(at: &str, text: &str, findings: &mut Findings<'_>) {
    let edge = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let bytes = text.as_bytes();
    let right =
        bytes.len() <= 63 && bytes.iter().all(|b| inner(*b)) && edge(bytes.first()) && edge(bytes.last());
    if !right {
        let message = format!(
            "`{text}` cannot be the value of a label: write at most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends"
        );
        findings.wrong(at, text, "LabelValue", message);
    }
}
