//! The kernel's way to keep ranges: a point where one begins and, mostly, a point behind its end.
//!
//! In: points as the kernel lists them, in any order. Out: ranges with both ends inside. Never: reads a kernel.

use std::net::IpAddr;

use super::table::Atom;
use super::table::{Key, Value};
use crate::addr::{Family, address_bits, address_from_bits};

/// One element of an interval set as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point {
    /// Where.
    pub(super) at: IpAddr,
    /// Whether a range begins here; else the one before ends here, this address outside. An end sorts before a beginning.
    pub(super) begins: bool,
    /// What the range that begins gives.
    pub(super) value: Option<Value>,
}

/// Ranges from points.
///
/// A range ends before the next point of either kind; the last may have no end and then reaches to the highest address
/// of its family. nft also writes an end at 0 before the first range, which closes nothing.
pub(super) fn ranges(family: Family, mut points: Vec<Point>) -> Vec<(Key, Option<Value>)> {
    points.sort();
    let mut found = Vec::new();
    let mut open: Option<(IpAddr, Option<Value>)> = None;
    for point in points {
        if let Some((first, value)) = open.take() {
            let last = address_from_bits(family, address_bits(point.at).saturating_sub(1));
            found.push((vec![Atom::Range(first, last)], value));
        }
        open = point.begins.then_some((point.at, point.value));
    }
    if let Some((first, value)) = open {
        found.push((vec![Atom::Range(first, family.everything().last())], value));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(at: &str, begins: bool, value: Option<Value>) -> Point {
        Point { at: at.parse().unwrap(), begins, value }
    }

    fn range(first: &str, last: &str) -> Key {
        vec![Atom::Range(first.parse().unwrap(), last.parse().unwrap())]
    }

    #[test]
    fn neighbours_the_last_address_and_the_end_at_zero_are_understood() {
        let points = vec![
            point("0.0.0.0", false, None),
            point("10.0.0.0", true, Some(Value::Accept)),
            point("10.0.0.1", false, None),
            point("10.0.0.1", true, Some(Value::Drop)),
            point("10.0.0.9", true, Some(Value::Accept)),
            point("10.0.1.0", false, None),
            point("255.255.255.255", true, Some(Value::Drop)),
        ];
        let expected = vec![
            (range("10.0.0.0", "10.0.0.0"), Some(Value::Accept)),
            (range("10.0.0.1", "10.0.0.8"), Some(Value::Drop)),
            (range("10.0.0.9", "10.0.0.255"), Some(Value::Accept)),
            (range("255.255.255.255", "255.255.255.255"), Some(Value::Drop)),
        ];
        let mut shuffled = points.clone();
        shuffled.reverse();
        assert_eq!(ranges(Family::V4, points), expected);
        assert_eq!(ranges(Family::V4, shuffled), expected);
    }

    #[test]
    fn one_beginning_without_an_end_is_everything() {
        let all = ranges(Family::V6, vec![point("::", true, None)]);
        assert_eq!(all, vec![(range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), None)]);
    }
}
