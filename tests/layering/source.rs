//! The repository's files, and the code in them without tests and comments.

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A source file: its path below `src/`, and its lines with their numbers, without comments and without what follows
/// `#[cfg(test)] mod`.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) lines: Vec<(usize, String)>,
}

impl Source {
    pub(crate) fn module(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap()
    }

    /// `src/a/b.rs:7: …`, as an editor finds it.
    pub(crate) fn at(&self, line: usize, what: &str) -> String {
        format!("src/{}:{line}: {}", self.path, what.trim())
    }
}

/// Everything below `src/` that is no test.
pub(crate) fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut all: Vec<Source> = files(&src).iter().filter_map(|path| read(&src, path)).collect();
    assert!(all.len() > 50, "only {} files below src/: the walk is broken", all.len());
    all.sort_by(|a, b| a.path.cmp(&b.path));
    all
}

fn read(src: &Path, path: &Path) -> Option<Source> {
    let name = path.strip_prefix(src).unwrap().display().to_string();
    let is_test = name.contains("/tests") || name.ends_with("sandbox.rs") || !name.ends_with(".rs");
    if is_test {
        return None;
    }
    let text = fs::read_to_string(path).unwrap();
    let mut lines = Vec::new();
    let mut behind_test = false;
    for (number, line) in text.lines().enumerate() {
        // By this repository's habit tests stand at a file's end.
        if behind_test && (line.starts_with("mod ") || line.starts_with("pub(crate) mod ")) {
            if line.ends_with('{') {
                break;
            }
            behind_test = false;
            continue;
        }
        behind_test = line.starts_with("#[cfg(test)]") || (behind_test && line.starts_with("#["));
        let code = line.split("//").next().unwrap_or_default();
        if !code.trim().is_empty() {
            lines.push((number + 1, code.to_owned()));
        }
    }
    Some(Source { path: name, lines })
}

/// All files below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Every word behind `crate::` in a line: `use crate::{addr, egress::x}` names two.
pub(crate) fn crate_modules(line: &str) -> Vec<String> {
    let word =
        |text: &str| text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.push(word(rest)),
            Some(list) => found.extend(list.split(',').map(|part| word(part.trim()))),
        }
    }
    found.retain(|name| !name.is_empty());
    found
}
