//! What an object's annotations ask for: gateways by a selector, or policies by name.
//!
//! In: the annotations of one object, as found. Out: an [`Asked`], or the problem for which its pods are held. Never: looks at
//! what is asked for.

use crate::egress::annotations::{ClientAnnotations, GatewayQuery};
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
    let mut names = found.policies()?;
    if !names.is_empty() {
        // One set of policies is one wish, in whatever order it is written.
        names.sort();
        return Ok(Asked::Policies(names));
    }
    let mut query = found.query()?;
    // The limit is applied to what the query finds; wishes that differ in it alone share the finding.
    let most = query.max_next_hops.take();
    Ok(Asked::Gateways(query, most))
}
