//! The table of acceptance scenarios names tests that exist, and leaves no number out.

use std::fs;
use std::path::PathBuf;

use crate::source::{files, root};

/// Letters and how many scenarios each has.
const NUMBERS: [(char, usize); 8] =
    [('A', 18), ('B', 10), ('C', 14), ('D', 9), ('E', 5), ('F', 12), ('G', 5), ('I', 17)];

fn table() -> String {
    fs::read_to_string(root().join("tests/SCENARIOS.md")).unwrap()
}

/// Whether `target::module::function` is a test: in a file below the target whose path has the module. `lib` is `src`.
fn exists(name: &str) -> bool {
    let parts: Vec<&str> = name.split("::").collect();
    let [target, .., module, function] = parts.as_slice() else { return false };
    let folder = if *target == "lib" { root().join("src") } else { root().join("tests").join(target) };
    let holds = |path: &PathBuf| {
        let stem = path.with_extension("");
        stem.iter().any(|part| part == *module) && has_test(&fs::read_to_string(path).unwrap(), function)
    };
    folder.is_dir()
        && files(&folder).iter().filter(|path| path.extension().is_some_and(|e| e == "rs")).any(holds)
}

fn has_test(text: &str, function: &str) -> bool {
    let mut before = "";
    text.lines().any(|line| {
        let is_it = before == "#[test]" && line.trim_start().starts_with(&format!("fn {function}("));
        before = line.trim();
        is_it
    })
}

#[test]
fn every_number_has_a_row_and_every_named_test_exists() {
    let table = table();
    let mut wrong = Vec::new();
    let mut named = 0;
    for (letter, count) in NUMBERS {
        for number in 1..=count {
            let rows: Vec<&str> =
                table.lines().filter(|line| line.starts_with(&format!("| {letter}{number} |"))).collect();
            let [row] = rows.as_slice() else {
                wrong.push(format!("{letter}{number} has {} rows", rows.len()));
                continue;
            };
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            if cells[2] == "–" && cells[3].is_empty() {
                wrong.push(format!("{letter}{number} has neither a test nor a reason"));
            }
            for name in cells[2].split('`').filter(|name| name.contains("::")) {
                named += 1;
                if !exists(name) {
                    wrong.push(format!("{letter}{number}: there is no test {name}"));
                }
            }
        }
    }
    assert!(named > 80, "only {named} tests named");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        !exists("scenarios::basic::no_such_test") && !exists("belts::basic::c1"),
        "the look itself can fail"
    );
}
