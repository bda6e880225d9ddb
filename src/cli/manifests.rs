//! Manifests that lie anywhere: the files that `-f` names, and what they hold.
//!
//! In: paths, `-` for standard input. Out: texts with their names, and read objects. Never: a state directory; nothing is
//! written, and nobody need be root.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::Refused;
use super::workload;
use crate::api::document::{self, Format};
use crate::api::{self, Reading};
use crate::problem::Problem;
use crate::store::objects::folder::{Found, files};

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
    /// Why nobody knows what is in it.
    pub unread: Option<String>,
}

impl Text {
    /// What is wrong with the file as such.
    pub fn problem(&self) -> Option<Problem> {
        let why = self.unread.as_ref()?;
        Some(Problem::new("", "Unreadable", why).file(&self.name))
    }
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
                texts.insert(text.name.clone(), text);
            }
        }
        Ok(texts.into_values().collect())
    }
}

fn named(path: &Path) -> Result<Vec<Text>, Refused> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        let read = std::io::stdin().lock().read_to_end(&mut bytes);
        read.map_err(|e| Refused::misused(format!("cannot read standard input: {e}")))?;
        // Its name says the format, as everywhere. A map of YAML may begin as one of JSON does.
        let fits = |format| document::read(&bytes, format).errors.is_empty();
        let json = bytes.trim_ascii_start().starts_with(b"{") && (fits(Format::Json) || !fits(Format::Yaml));
        let name = if json { "stdin.json" } else { "stdin" };
        return Ok(vec![Text { name: name.to_owned(), bytes, unread: None }]);
    }
    if !fs::metadata(path).map_err(|e| unusable(path, &e))?.is_dir() {
        return Ok(vec![content(path)?]);
    }
    let mut texts = folder(path, &[])?;
    texts.retain(|text| !says_interfaces(text));
    if texts.is_empty() {
        let sentence = format!(
            "there is no .yaml, .yml or .json file in {}; name the manifests, or the folder that they are in",
            path.display()
        );
        return Err(Refused::misused(sentence));
    }
    Ok(texts)
}

/// What `ip -j address` printed of a node, or the node wrote of itself: `interfaces/NODE.json`, which may lie beside the manifests at any
/// depth, because a folder of examples is full of worlds. People may call a folder of manifests so, too, hence the second look.
fn says_interfaces(text: &Text) -> bool {
    let path = Path::new(&text.name);
    let beside = path.parent().and_then(Path::file_name).is_some_and(|folder| folder == "interfaces");
    let has_kind = |value: &Value| value.get("kind").is_some();
    beside
        && path.extension().is_some_and(|extension| extension == "json")
        && !document::read(&text.bytes, Format::Json).values.iter().any(has_kind)
}

/// The manifests of a folder, at any depth, but for those below certain folders of it. One that cannot be read is among them, and
/// named when they are: the rest goes on.
///
/// # Errors
/// It cannot be listed.
pub fn folder(path: &Path, except: &[&str]) -> Result<Vec<Text>, Refused> {
    let found = files(path).map_err(|e| Refused::misused(e.to_string()))?;
    let excepted = |name: &str| name.split_once('/').is_some_and(|(first, _)| except.contains(&first));
    let text = |(name, text): Found| {
        let (bytes, unread) = match text {
            Ok(bytes) => (bytes, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        Text { name: shown(&path.join(name)), bytes, unread }
    };
    Ok(found.into_iter().filter(|(name, _)| !excepted(name)).map(text).collect())
}

fn content(path: &Path) -> Result<Text, Refused> {
    let bytes = fs::read(path).map_err(|e| unusable(path, &e))?;
    Ok(Text { name: shown(path), bytes, unread: None })
}

fn unusable(path: &Path, error: &std::io::Error) -> Refused {
    Refused::misused(format!(
        "cannot read {}: {error}; name manifests, or a folder of them, that may be read",
        path.display()
    ))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(".").unwrap_or(path).display().to_string()
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
        if let Some(problem) = text.problem() {
            let unread = Reading { objects: Vec::new(), problems: vec![problem], whole: false };
            readings.push((text.name.clone(), unread));
            continue;
        }
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
