//! Manifests that lie anywhere: the files that `-f` names, and what they hold.
//!
//! In: paths, `-` for standard input. Out: texts with their names, and read objects. Never: a state directory; nothing is
//! written, and nobody need be root.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;

use super::Refused;
use super::workload;
use crate::api::{self, Reading};
use crate::problem::Problem;

/// Directories inside directories: more is a mistake, or a link that leads back.
const DEPTH: usize = 32;

/// The flag that `convert` has.
#[derive(Debug, Clone, Args)]
pub struct Manifests {
    /// A file, a directory (its .yaml, .yml and .json files, at any depth), or - for standard input
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub filenames: Vec<PathBuf>,
}

/// The text of one file.
#[derive(Debug, Clone)]
pub struct Text {
    /// As messages name it.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

impl Manifests {
    /// The texts that are meant, each once, by name.
    ///
    /// # Errors
    /// A path that does not exist or cannot be read, or a directory without a manifest: the caller named the wrong thing.
    pub fn texts(&self) -> Result<Vec<Text>, Refused> {
        let mut texts = BTreeMap::new();
        for path in &self.filenames {
            for text in named(path)? {
                texts.insert(text.name, text.bytes);
            }
        }
        Ok(texts.into_iter().map(|(name, bytes)| Text { name, bytes }).collect())
    }
}

fn named(path: &Path) -> Result<Vec<Text>, Refused> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        let read = std::io::stdin().lock().read_to_end(&mut bytes);
        read.map_err(|e| Refused::misused(format!("cannot read standard input: {e}")))?;
        // Its name says the format, as everywhere.
        let json = bytes.trim_ascii_start().starts_with(b"{");
        let name = if json { "stdin.json" } else { "stdin" };
        return Ok(vec![Text { name: name.to_owned(), bytes }]);
    }
    let unusable = |e: std::io::Error| Refused::misused(format!("cannot read {}: {e}", path.display()));
    if !fs::metadata(path).map_err(unusable)?.is_dir() {
        return Ok(vec![content(path)?]);
    }
    // What `ip -j address` printed of nodes may lie beside the manifests.
    let texts = folder(path, &["interfaces"])?;
    if texts.is_empty() {
        let sentence = format!("there is no .yaml, .yml or .json file in {}", path.display());
        return Err(Refused::misused(sentence));
    }
    Ok(texts)
}

/// The manifests of a folder, at any depth, but for those below certain folders of it.
///
/// # Errors
/// It cannot be read.
pub fn folder(path: &Path, except: &[&str]) -> Result<Vec<Text>, Refused> {
    let mut files = BTreeSet::new();
    walk(path, DEPTH, &mut files)?;
    let excepted = |file: &PathBuf| {
        let below = file.strip_prefix(path).ok().and_then(|below| below.components().next());
        below.is_some_and(|first| except.iter().any(|name| first.as_os_str() == *name))
    };
    files.iter().filter(|file| !excepted(file)).map(|file| content(file)).collect()
}

fn content(path: &Path) -> Result<Text, Refused> {
    let bytes =
        fs::read(path).map_err(|e| Refused::misused(format!("cannot read {}: {e}", path.display())))?;
    let shown = path.strip_prefix(".").unwrap_or(path);
    Ok(Text { name: shown.display().to_string(), bytes })
}

/// As the state directory is read: hidden names and other endings are left out, links are followed.
fn walk(folder: &Path, depth: usize, files: &mut BTreeSet<PathBuf>) -> Result<(), Refused> {
    let unlisted = |e: std::io::Error| Refused::misused(format!("cannot list {}: {e}", folder.display()));
    if depth == 0 {
        return Err(Refused::misused(format!("{} lies deeper than {DEPTH} directories", folder.display())));
    }
    for entry in fs::read_dir(folder).map_err(unlisted)? {
        let path = entry.map_err(unlisted)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            walk(&path, depth - 1, files)?;
        } else if [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end)) {
            files.insert(path);
        }
    }
    Ok(())
}

/// Everything that was read.
pub struct Whole {
    /// What each file holds, by name.
    pub readings: Vec<(String, Reading)>,
    /// Objects of kinds that are none of ours, by kind: a folder of manifests is full of them.
    pub skipped: BTreeMap<String, usize>,
}

/// Reads texts as the state directory's files are read, but for two things: kinds that have nothing to do with egress are
/// passed over, because these manifests were written for more than Egret; and the pod templates of workloads count as pods.
pub fn read(texts: &[Text]) -> Whole {
    let mut skipped = BTreeMap::new();
    let mut readings = Vec::new();
    for text in texts {
        let mut reading = api::read(&text.name, &text.bytes);
        let mut workloads = false;
        reading.problems.retain(|problem| {
            let foreign = is_foreign(problem);
            if foreign && workload::is_one(&problem.value) {
                workloads = true;
            } else if foreign {
                *skipped.entry(problem.value.clone()).or_insert(0) += 1;
            }
            !foreign
        });
        if workloads {
            workload::add(text, &mut reading);
        }
        readings.push((text.name.clone(), reading));
    }
    Whole { readings, skipped }
}

/// A kind that is not ours, and no slip of the pen that meant one of ours.
fn is_foreign(problem: &Problem) -> bool {
    problem.reason == "UnknownKind" && !problem.message.contains("did you mean")
}
