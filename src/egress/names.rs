//! What Kubernetes takes for a name (RFC 1123).
//!
//! In: a text. Out: whether it is one, and the rule in words. Never: knows whether anything is called so.

/// The rule of [`label`] in words.
pub const LABEL: &str = "at most 63 lower-case letters, digits and `-`, with a letter or digit at both ends";

/// The rule of [`subdomain`] in words.
pub const SUBDOMAIN: &str =
    "at most 253 lower-case letters, digits, `-` and `.`, with a letter or digit at both ends of each part";

/// RFC 1123 label: what a namespace is called.
pub fn label(name: &str) -> bool {
    name.len() <= 63 && part(name)
}

/// RFC 1123 subdomain: what a pod is called. As in Kubernetes, its parts may be longer than a label's 63 characters.
pub fn subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(part)
}

fn part(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(edge) && text.ends_with(edge) && text.chars().all(|c| edge(c) || c == '-')
}
