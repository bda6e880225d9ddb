//! Near misses: which known word a person probably meant.
//!
//! In: an unknown word and the known ones. Out: the nearest, if one is near. Never: corrects anything by itself.

/// The known word that differs from `word` only by case, `-` and `_`, or else by one or two letters (none in words of
/// up to four letters, one in words of up to eight).
pub fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let plain = plain(word);
    let allowed = match plain.len() {
        0..=4 => 0,
        5..=8 => 1,
        _ => 2,
    };
    let near = known.iter().map(|k| (distance(&plain, &self::plain(k)), *k)).min()?;
    (near.0 <= allowed).then_some(near.1)
}

/// `; did you mean X?`, or nothing: the tail of a message about an unknown word.
pub fn hint(word: &str, known: &[&str]) -> String {
    nearest(word, known).map(|k| format!("; did you mean `{k}`?")).unwrap_or_default()
}

fn plain(word: &str) -> Vec<char> {
    word.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}

/// Edit distance (insert, delete, replace), by the usual row at a time.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 4] = ["stateDir", "clusterCIDRs", "mode", "log"];

    #[test]
    fn case_and_dashes_are_near_and_so_is_a_slip() {
        assert_eq!(nearest("stateDIR", &KEYS), Some("stateDir"));
        assert_eq!(nearest("state_dir", &KEYS), Some("stateDir"));
        assert_eq!(nearest("clusterCidrs", &KEYS), Some("clusterCIDRs"));
        assert_eq!(nearest("clusterCIDR", &KEYS), Some("clusterCIDRs"));
        assert_eq!(nearest("Mode", &KEYS), Some("mode"));
    }

    #[test]
    fn other_words_are_not() {
        assert_eq!(nearest("node", &KEYS), None);
        assert_eq!(nearest("type", &KEYS), None);
        assert_eq!(nearest("", &KEYS), None);
        assert_eq!(nearest("runtimeConfig", &KEYS), None);
    }
}
