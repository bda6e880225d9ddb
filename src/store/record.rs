//! Records: JSON files of one kind and version each, replaced whole.
//!
//! In: values and the paths they belong at. Out: values with their versions, or errors that name file and reason.
//! Never: drops a file that it cannot read; never writes over one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::advice;
use super::lock::Guard;
use super::whole::read_whole;
use crate::problem::Problem;

mod replace;

use replace::{Waits, pretty, replace_as};
pub(crate) use replace::{replace_file, replace_text};

/// The version of a record: 1 when it is made, one more with every write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// The API group and version of everything that Egret writes.
pub const API_VERSION: &str = "egret.dev/v1alpha1";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<T> {
    api_version: String,
    kind: String,
    metadata: Metadata,
    version: u64,
    spec: T,
}

#[derive(Serialize, Deserialize)]
struct Metadata {
    name: String,
}

/// One record of a folder.
#[derive(Debug, Clone, PartialEq)]
pub struct Record<T> {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// What it says.
    pub spec: T,
}

/// How a compare-and-swap ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// Written, with this version now.
    Stored(Version),
    /// Not written: somebody else wrote since. `None`: the record is gone.
    Raced(Option<Version>),
}

/// Why a record cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The kernel refused.
    #[error("cannot {verb} {}: {source}{}", path.display(), advice(source))]
    Io {
        /// `read`, `write`, `remove`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Not a whole record.
    #[error("{} is damaged: {why}. Restore it from a copy, or move it away", path.display())]
    Torn {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A whole record, of something else.
    #[error("{} holds {found}, not {expected}. It does not belong there: move it away", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it says it is.
        found: String,
        /// What was expected there.
        expected: String,
    },
}

impl RecordError {
    /// As a problem of a file, its path relative to `root`.
    pub fn problem(&self, root: &Path) -> Problem {
        let (path, reason) = match self {
            RecordError::Io { path, .. } => (path, "Unreadable"),
            RecordError::Torn { path, .. } => (path, "Damaged"),
            RecordError::Foreign { path, .. } => (path, "Foreign"),
        };
        let relative = path.strip_prefix(root).unwrap_or(path).display().to_string();
        let message = self.to_string().replace(&path.display().to_string(), "this file");
        Problem::new("", reason, message).file(relative)
    }
}

/// Reads a record; `None` if there is no such file. `name` is what the record must call itself.
///
/// # Errors
/// If the file cannot be read, is empty or cut off, or holds another kind or name.
pub fn read<T: DeserializeOwned>(
    path: &Path,
    kind: &str,
    name: &str,
) -> Result<Option<(T, Version)>, RecordError> {
    let record: Option<Record<T>> = read_any(path, kind)?;
    match record {
        Some(record) if record.name != name => Err(RecordError::Foreign {
            path: path.to_owned(),
            found: format!("{kind} {}", record.name),
            expected: format!("{kind} {name}"),
        }),
        Some(record) => Ok(Some((record.spec, record.version))),
        None => Ok(None),
    }
}

fn read_any<T: DeserializeOwned>(path: &Path, kind: &str) -> Result<Option<Record<T>>, RecordError> {
    let bytes = match read_whole(path) {
        Ok(bytes) => bytes,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(RecordError::Io { verb: "read", path: path.to_owned(), source }),
    };
    parse(&bytes, kind).map(Some).map_err(|wrong| match wrong {
        Wrong::Torn(why) => RecordError::Torn { path: path.to_owned(), why },
        Wrong::Foreign(found) => {
            RecordError::Foreign { path: path.to_owned(), found, expected: format!("{API_VERSION} {kind}") }
        }
    })
}

enum Wrong {
    Torn(String),
    Foreign(String),
}

fn parse<T: DeserializeOwned>(bytes: &[u8], kind: &str) -> Result<Record<T>, Wrong> {
    if bytes.is_empty() {
        return Err(Wrong::Torn("it is empty".to_owned()));
    }
    let ours = |e: &Envelope<_>| e.api_version == API_VERSION && e.kind == kind;
    let foreign = |version: &str, kind: &str| Wrong::Foreign(format!("{version} {kind}"));
    match serde_json::from_slice::<Envelope<T>>(bytes) {
        Ok(e) if ours(&e) => Ok(Record { name: e.metadata.name, version: Version(e.version), spec: e.spec }),
        Ok(e) => Err(foreign(&e.api_version, &e.kind)),
        // A record of another kind usually fails on its fields; the better answer is what kind it is.
        Err(error) => match serde_json::from_slice::<serde_json::Value>(bytes) {
            Ok(value) => {
                let text = |key: &str| value.get(key).and_then(|v| v.as_str()).unwrap_or("(none)").to_owned();
                let (found_version, found_kind) = (text("apiVersion"), text("kind"));
                if found_version == API_VERSION && found_kind == kind {
                    Err(Wrong::Torn(error.to_string()))
                } else {
                    Err(foreign(&found_version, &found_kind))
                }
            }
            Err(error) => Err(Wrong::Torn(error.to_string())),
        },
    }
}

/// Every record of a folder, by file name; beside them the files that are none. A missing folder is an empty one.
///
/// # Errors
/// If the folder itself cannot be read.
pub fn list<T: DeserializeOwned>(
    root: &Path,
    folder: &Path,
    kind: &str,
) -> Result<(Vec<Record<T>>, Vec<Problem>), RecordError> {
    let (mut records, mut problems) = (Vec::new(), Vec::new());
    for path in files(folder)? {
        let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default().to_owned();
        if path.extension().and_then(|e| e.to_str()) != Some("json") {
            let error = RecordError::Foreign {
                path,
                found: "no record".to_owned(),
                expected: format!("{kind} NAME.json"),
            };
            problems.push(error.problem(root));
            continue;
        }
        match read_any::<T>(&path, kind) {
            Ok(Some(record)) if file_name(&record.name) == stem => records.push(record),
            Ok(Some(record)) => {
                let error = RecordError::Foreign {
                    path,
                    found: format!("{kind} {}", record.name),
                    expected: format!("{kind} {stem}"),
                };
                problems.push(error.problem(root));
            }
            Ok(None) => {} // removed since the folder was read
            Err(error) => problems.push(error.problem(root)),
        }
    }
    Ok((records, problems))
}

/// The files of a folder that are not temporary, sorted. A missing folder is an empty one.
///
/// # Errors
/// If the folder cannot be read.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, RecordError> {
    let fail = |source| RecordError::Io { verb: "read", path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(fail(source)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(fail)?;
        if !is_temporary(&entry.file_name().to_string_lossy()) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// Writes a record if it still has the version that was seen (`None`: if there is none). The guard is proof that nobody
/// else writes between the look and the write.
///
/// # Errors
/// If the file that is there cannot be read (it is never written over), or the new one cannot be written.
pub fn swap<T: Serialize>(
    guard: &Guard,
    path: &Path,
    (kind, name): (&str, &str),
    seen: Option<Version>,
    spec: &T,
    durable: bool,
) -> Result<Swap, RecordError> {
    let present = read::<serde::de::IgnoredAny>(path, kind, name)?.map(|(_, version)| version);
    if present != seen {
        return Ok(Swap::Raced(present));
    }
    let next = Version(seen.map_or(1, |v| v.0 + 1));
    let gathered = durable && path.parent().is_some_and(|folder| guard.sees_to(folder));
    let waits = if gathered { Waits::File } else { Waits::of(durable) };
    replace_waiting(path, (kind, name), next, spec, waits)?;
    Ok(Swap::Stored(next))
}

/// Writes what was decided elsewhere and is kept there: a record that is damaged is made anew, and nobody waits for the disk. Only under
/// the lock that its writers hold.
///
/// # Errors
/// If the file that is there cannot be read, or the new one cannot be written.
pub fn hear<T: Serialize + DeserializeOwned>(
    path: &Path,
    (kind, name): (&str, &str),
    spec: &T,
) -> Result<(), RecordError> {
    let version = match read::<T>(path, kind, name) {
        Ok(seen) => Version(seen.map_or(1, |(_, version)| version.0 + 1)),
        Err(RecordError::Torn { .. }) => Version(1),
        Err(error) => return Err(error),
    };
    replace(path, (kind, name), version, spec, false)
}

/// Writes a record whole: temporary file in the same folder, then rename. `durable` also waits for the disk, for file and
/// folder; what lies on tmpfs and dies with the machine need not.
///
/// # Errors
/// If anything of that fails; the record then has its old content.
pub fn replace<T: Serialize>(
    path: &Path,
    (kind, name): (&str, &str),
    version: Version,
    spec: &T,
    durable: bool,
) -> Result<(), RecordError> {
    replace_waiting(path, (kind, name), version, spec, Waits::of(durable))
}

fn replace_waiting<T: Serialize>(
    path: &Path,
    (kind, name): (&str, &str),
    version: Version,
    spec: &T,
    waits: Waits,
) -> Result<(), RecordError> {
    let envelope = Envelope {
        api_version: API_VERSION.to_owned(),
        kind: kind.to_owned(),
        metadata: Metadata { name: name.to_owned() },
        version: version.0,
        spec,
    };
    let written = pretty(&envelope).and_then(|text| replace_as(path, &text, waits));
    written.map_err(|source| RecordError::Io { verb: "write", path: path.to_owned(), source })
}

/// Removes a record; says whether there was one.
///
/// # Errors
/// If the kernel refuses.
pub fn remove(path: &Path, durable: bool) -> Result<bool, RecordError> {
    let fail = |source| RecordError::Io { verb: "remove", path: path.to_owned(), source };
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(fail(source)),
    }
    if let (true, Some(folder)) = (durable, path.parent()) {
        File::open(folder).and_then(|f| f.sync_all()).map_err(fail)?;
    }
    Ok(true)
}

/// Removes leftover temporary files of a folder. Only under the lock that its writers hold.
pub(crate) fn sweep(folder: &Path) -> io::Result<usize> {
    let mut swept = 0;
    for entry in fs::read_dir(folder)?.flatten() {
        if is_temporary(&entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path())?;
            swept += 1;
        }
    }
    Ok(swept)
}

fn is_temporary(file: &str) -> bool {
    file.starts_with('.') && file.ends_with(".tmp")
}

/// A name as one safe part of a path: letters, digits, `.`, `_`, `-` stay, `/` becomes `+`, the rest `%XX`. A leading dot
/// is `%2E`, so no name is hidden, temporary or a way up. Very long names are cut and end in a hash of the whole.
pub fn file_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'/' => out.push('+'),
            b'.' if at == 0 => out.push_str("%2E"),
            b'.' | b'_' | b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    // 255 bytes is what file systems take; a temporary file adds ten.
    if out.len() > 240 {
        out.truncate(200);
        out.push_str(&format!("~{:016x}", crate::hash::stable(name.as_bytes())));
    }
    out
}

#[cfg(test)]
mod tests;
