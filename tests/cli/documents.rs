//! The documents show what the program prints: every example in them that needs no node is run, and compared.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::world::output;

/// Pages, and how many commands of each are run. A page that loses its examples loses its test, so the number stands here.
const PAGES: [(&str, usize); 3] = [("docs/migrate.md", 5), ("docs/policies.md", 2), ("docs/explain.md", 4)];

/// Commands of a page that need nothing but the repository, each with what the page says it prints.
fn examples(page: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for block in page.split("```").skip(1).step_by(2) {
        let mut lines = block.lines();
        lines.next(); // the language
        let mut current = false;
        for line in lines {
            if let Some(command) = line.strip_prefix("$ ") {
                current = command == "egret schema" || command.contains("examples/");
                if current {
                    found.push((command.to_owned(), String::new()));
                }
            } else if current && let Some((_, printed)) = found.last_mut() {
                *printed += line.trim_end();
                *printed += "\n";
            }
        }
    }
    found
}

#[test]
fn the_documents_show_what_the_program_prints() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = Path::new(env!("CARGO_BIN_EXE_egret")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap_or_default());
    let mut wrong = Vec::new();
    for (page, least) in PAGES {
        let mut text = fs::read_to_string(root.join(page)).unwrap();
        let all = examples(&text);
        assert!(all.len() >= least, "{page} has {} examples that could be run, and had {least}", all.len());
        for (command, shown) in all {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("{{ {command}; }} 2>&1")]).env("PATH", &path).current_dir(root);
            let said = String::from_utf8(output(&mut shell).stdout).unwrap();
            let said: String = said.lines().map(|line| format!("{}\n", line.trim_end())).collect();
            if said.trim_end() != shown.trim_end() {
                wrong.push(format!("{page}: $ {command}\nshows\n{shown}and the program prints\n{said}"));
                text = text.replacen(&format!("$ {command}\n{shown}"), &format!("$ {command}\n{said}"), 1);
            }
        }
        if std::env::var_os("UPDATE").is_some() {
            fs::write(root.join(page), text).unwrap();
        }
    }
    assert!(wrong.is_empty(), "run this test with UPDATE=1:\n{}", wrong.join("\n"));
}
