//! In which order policy rules come and go, and which one the kernel takes for which when it is asked to delete one.
//!
//! It compares only the fields that are given, takes zero for "not given", and does not look at `not` and at where a `goto` leads at
//! all (`rule_find` in net/core/fib_rules.c, 6.18).

use crate::kernel::state::{Action, Match, Rule};

/// When a rule is added; rules are removed the other way round. The belt stands as long as anything does. A `goto` comes when what
/// it leads to stands, and goes before it.
pub(super) fn turn(rule: &Rule) -> u8 {
    match rule.action {
        Action::Unreachable => 0,
        Action::Nop => 1,
        Action::Lookup(_) => 2,
        Action::Goto(_) => 3,
    }
}

/// Whether the kernel, asked to delete `given`, would also be content with `other`.
pub(super) fn fits(given: &Rule, other: &Rule) -> bool {
    let same_action = match (given.action, other.action) {
        (Action::Goto(_), Action::Goto(_)) => true,
        (given, other) => given == other,
    };
    if (given.family, given.priority) != (other.family, other.priority) || !same_action {
        return false;
    }
    match (&given.matches, &other.matches) {
        (Match::Input(given), Match::Input(other)) => given == other,
        (Match::From(given), Match::From(other)) => given == other,
        (Match::Input(_) | Match::From(_), _) => false,
        (Match::Mark { value: 0, mask: 0 } | Match::NotMark { value: 0, mask: 0 }, _) => true,
        (given, other) => match (bits(given), bits(other)) {
            (Some((value, mask)), Some((others, other_mask))) => {
                (value == 0 || value == others) && (mask == 0 || mask == other_mask)
            }
            _ => false,
        },
    }
}

fn bits(matches: &Match) -> Option<(u32, u32)> {
    match matches {
        Match::Mark { value, mask } | Match::NotMark { value, mask } => Some((*value, *mask)),
        Match::Input(_) | Match::From(_) => None,
    }
}

/// The stricter rule is deleted first, so that the looser one is not content with it.
pub(super) fn looseness(rule: &Rule) -> u8 {
    bits(&rule.matches).map_or(0, |(value, mask)| u8::from(value == 0) + u8::from(mask == 0))
}
