//! The rows of the scenario table, so that none is forgotten: each has a case of its name.

use std::process::Command;

/// How many rows each section has: rows 1.1–1.11, 2.1–2.10, and so on.
const SECTIONS: [(u32, u32); 9] =
    [(1, 11), (2, 10), (3, 2), (4, 31), (5, 14), (6, 9), (7, 11), (8, 6), (9, 11)];

/// Names of this program's cases, as the test runner lists them.
fn cases() -> Vec<String> {
    let list = Command::new(std::env::current_exe().unwrap()).arg("--list").output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    list.lines().filter_map(|line| line.strip_suffix(": test")).map(ToOwned::to_owned).collect()
}

#[test]
fn every_row_has_a_case() {
    let cases = cases();
    assert!(cases.len() > 80, "the list of cases could not be read");
    let mut missing = Vec::new();
    for (section, rows) in SECTIONS {
        for row in 1..=rows {
            let number = format!("{section}.{row}");
            let name = format!("::row_{section}_{row}_");
            let found: Vec<&String> = cases.iter().filter(|case| case.contains(&name)).collect();
            for case in &found {
                println!("{number:<5} {case}");
            }
            if found.is_empty() {
                missing.push(number);
            }
        }
    }
    assert!(missing.is_empty(), "rows without a case: {missing:?}");
    let known = |case: &&String| {
        let Some((_, numbers)) = case.split_once("::row_") else { return true };
        let mut numbers = numbers.split('_').map_while(|n| n.parse::<u32>().ok());
        let (section, row) = (numbers.next(), numbers.next());
        SECTIONS
            .iter()
            .any(|(s, rows)| Some(*s) == section && row.is_some_and(|row| (1..=*rows).contains(&row)))
    };
    let strangers: Vec<&String> = cases.iter().filter(|case| !known(case)).collect();
    assert!(strangers.is_empty(), "cases that name no row: {strangers:?}");
}
