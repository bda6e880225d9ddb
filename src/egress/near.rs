//! Names that somebody may have meant. In: a name and those that exist. Out: the closest few, closest first.

/// At most `limit` of the names that are a slip away: within a third of the length, and at least two edits.
pub(super) fn near<'a>(name: &str, names: impl Iterator<Item = &'a str>, limit: usize) -> Vec<&'a str> {
    let slip = (name.chars().count() / 3).max(2);
    let mut found: Vec<(usize, &str)> = names
        .filter(|other| other.len().abs_diff(name.len()) <= 4 * slip)
        .map(|other| (edits(name, other), other))
        .filter(|(distance, _)| *distance <= slip)
        .collect();
    found.sort_unstable();
    found.into_iter().take(limit).map(|(_, other)| other).collect()
}

/// Levenshtein's distance: insertions, deletions and replacements from one to the other.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_name_comes_first_and_far_ones_never() {
        let names = ["shop/cart", "shop/card", "shop/payments", "red/cart"];
        assert_eq!(near("shop/cart-", names.into_iter(), 3), ["shop/cart", "shop/card"]);
        assert_eq!(edits("kitten", "sitting"), 3);
        assert!(near("zzz", names.into_iter(), 3).is_empty());
    }
}
