//! What an object's annotations ask for: gateways by a selector, or policies by name.
//!
//! In: the annotations of one object, as found. Out: an [`Asked`], or the problem for which its pods are held. Never: looks at
//! what is asked for.

use crate::egress::annotations::{self, ClientAnnotations, Found, GatewayQuery};
use crate::egress::selector::Selector;
use crate::problem::Problem;

/// What annotations ask for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Asked {
    /// These gateways for everything; so many at most.
    Gateways(GatewayQuery, Option<u32>),
    /// These policies' rules, together.
    Policies(Vec<String>),
}

/// Reads them.
pub(super) fn asked(found: &ClientAnnotations<'_>) -> Result<Asked, Problem> {
    if let Some(policy) = found.policy {
        if let Some(other) = found.selector.or(found.namespace_selector) {
            let message = format!(
                "`{}` stands beside `{}`, and only one of them can hold: remove one",
                policy.name, other.name
            );
            return Err(problem(policy, "SelectorAndPolicy", message));
        }
        if let Some(hops) = found.max_next_hops {
            let message = format!(
                "it limits a selector, and `{}` stands here: say it in the policy's rules",
                policy.name
            );
            return Err(problem(hops, "MaxNextHopsAlone", message));
        }
        return names(policy).map(Asked::Policies);
    }
    let most = found.max_next_hops.map(|hops| limit(found, hops)).transpose()?;
    let parse = |found: Found<'_>| {
        Selector::parse(found.value).map_err(|error| problem(found, "SelectorSyntax", error.sentence()))
    };
    let query = GatewayQuery {
        pods: found.selector.map_or_else(|| Ok(Selector::all()), parse)?,
        namespaces: found.namespace_selector.map(parse).transpose()?,
    };
    Ok(Asked::Gateways(query, most.filter(|most| *most > 0)))
}

fn limit(found: &ClientAnnotations<'_>, hops: Found<'_>) -> Result<u32, Problem> {
    if found.selector.is_none() && found.namespace_selector.is_none() {
        let message =
            format!("it limits a selector, and this object has none: add `{}`", annotations::SELECTOR.name());
        return Err(problem(hops, "MaxNextHopsAlone", message));
    }
    hops.value.trim().parse().map_err(|_| {
        let message =
            format!("`{}` is not a whole number such as \"2\"; \"0\" means all gateways", hops.value);
        problem(hops, "BadValue", message)
    })
}

/// `a`, `a, b` or `["a", "b"]`.
fn names(found: Found<'_>) -> Result<Vec<String>, Problem> {
    let text = found.value.trim();
    let mut names: Vec<String> = match text.starts_with('[') {
        true => serde_json::from_str(text).map_err(|error| {
            let message = format!("`{text}` is not a JSON list of names such as [\"web\", \"db\"]: {error}");
            problem(found, "BadValue", message)
        })?,
        false => text.split(',').map(|name| name.trim().to_owned()).collect(),
    };
    if names.is_empty() || names.iter().any(String::is_empty) {
        return Err(problem(
            found,
            "BadValue",
            format!("`{text}` names no policy where it should: write its name"),
        ));
    }
    names.sort();
    names.dedup();
    Ok(names)
}

fn problem(found: Found<'_>, reason: &str, message: impl Into<String>) -> Problem {
    Problem::new("", reason, message).at(annotations::field(found.name)).value(found.value)
}
