//! The folders of a node that a container runtime reads: plugins and network lists.
//!
//! In: where they are. Out: files replaced in one piece, because a runtime reads them whenever they change; what was changed.
//! Never: a file that its owner has written meanwhile, or one that is not JSON.

#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::iter;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::list::{self, ListError};
use super::look::Room;
use super::multus::{self, Known};
use crate::store::{advice, read_whole};

/// A list of ours, where the primary's stands alone and nothing can stand behind it. It sorts before anybody's.
pub const WRAPPED: &str = "00-egret.conflist";
/// What became of a list that stays without our entry.
pub(super) const ENTRY_REMOVED: &str = "entry removed";

/// Bytes that are compared, or written, at once. The kernel keeps what comes in one write in one folio, and maps 64 KB of a program around what
/// a start touches: as one folio in half the time that sixteen take. A call that does nothing takes 0.15 ms in place of 0.20; pieces of 2 MB
/// would save 0.01 more and count as that much memory each.
const PIECE: usize = 64 << 10;

/// Where things are.
#[derive(Debug, Clone)]
pub struct Place {
    /// Plugins: `/opt/cni/bin`.
    pub bin: PathBuf,
    /// Network lists: `/etc/cni/net.d`.
    pub conf: PathBuf,
    /// The primary's list, if it is not the first one.
    pub list: Option<String>,
}

/// What was done to a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Its path.
    pub file: String,
    /// `installed`, `entered`, `removed`, `entry removed` of a list that stays, or `unchanged`.
    pub what: &'static str,
}

/// Why a node is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// No primary has written its list yet.
    #[error("there is no network list in {}: install the cluster's network first, or name its folder with --cni-conf", .0.display())]
    NoList(PathBuf),
    /// A file that is no list.
    #[error("{} {why}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: ListError,
    },
    /// Multus's file stands first, and what it hands pods on to is not there.
    #[error(
        "pods are started with {}, which is Multus's and hands them on to a list that is not beside it: Egret's entry belongs into that one; \
         name it with --list", .0.display()
    )]
    NoMaster(PathBuf),
    /// What Multus hands pods on to is no list, and it would not take one of ours before it starts anew.
    #[error(
        "{} is one plugin alone, so nothing can stand behind it, and Multus ({}) would not hand pods on to a list around it: write it as a \
         list (`plugins`) in a file of its own, start Multus anew, and name that file with --list", path.display(), multus.display()
    )]
    Alone {
        /// The file.
        path: PathBuf,
        /// Multus's.
        multus: PathBuf,
    },
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
    /// Its owner wrote it while we did: the next look sees what is there now.
    #[error("{} was written by somebody else at the same moment; try again", .0.display())]
    Raced(PathBuf),
}

/// Inode, size and times of a file.
pub type Stamp = (u64, u64, i64, i64);

pub(super) fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError::Io { verb, path, source }
}

impl Place {
    /// The binary among the plugins, by its own name.
    pub fn binary(&self) -> PathBuf {
        self.bin.join(list::TYPE)
    }

    /// Puts `program` among the plugins, if another one or none is there.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn put_binary(&self, program: &Path) -> Result<Change, InstallError> {
        let target = self.binary();
        let file = target.display().to_string();
        if is_same(program, &target) {
            return Ok(Change { file, what: "unchanged" });
        }
        fs::create_dir_all(&self.bin).map_err(failed("make", &self.bin))?;
        let mut from = File::open(program).map_err(failed("read", program))?;
        // A plugin that runs keeps the old one: the name gets another file, the file no other content.
        replace(&target, &mut from, 0o755)?;
        Ok(Change { file, what: "installed" })
    }

    /// Which file is there now, to be compared cheaply: whoever changes it changes one of these.
    pub fn binary_stamp(&self) -> Option<Stamp> {
        let now = fs::metadata(self.binary()).ok()?;
        Some((now.ino(), now.size(), now.mtime(), now.ctime_nsec()))
    }

    /// Brings our entry into the primary's list; what was changed, that list first.
    ///
    /// # Errors
    /// There is no list, it cannot be understood, or a file cannot be read or written.
    pub fn put_entry(&self, entry: &Value) -> Result<Vec<Change>, InstallError> {
        let change = |path: &Path, what| Change { file: path.display().to_string(), what };
        let ours = self.conf.join(WRAPPED);
        let (path, what) = match self.room(entry)? {
            Room::Around(next) => {
                if read_whole(&ours).is_ok_and(|now| now == next.as_bytes()) {
                    return Ok(vec![change(&ours, "unchanged")]);
                }
                replace(&ours, &mut next.as_bytes(), 0o644)?;
                return Ok(vec![change(&ours, "entered")]);
            }
            Room::In { path, seen, next } => {
                rewrite(&path, &seen, &next)?;
                (path, "entered")
            }
            Room::Taken(path) => (path, "unchanged"),
        };
        // A list that we made before the primary wrote one of its own: away only now, because until the other has our entry pods start
        // with us by this one alone.
        let away = if path == ours { None } else { remove(&ours)? };
        Ok(iter::once(change(&path, what)).chain(away).collect())
    }

    /// Takes our entry out of every list, and away the list that is ours. A file that cannot be understood has no entry of ours. `changes`
    /// has what was done in any case.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn take_entries(&self, changes: &mut Vec<Change>) -> Result<(), InstallError> {
        for path in self.lists()? {
            let file = path.display().to_string();
            if path.file_name().is_some_and(|name| name == WRAPPED) {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
                changes.push(Change { file, what: "removed" });
                continue;
            }
            let text = read_whole(&path).map_err(failed("read", &path))?;
            if let Ok(Some(next)) = list::without(&text) {
                rewrite(&path, &text, &next)?;
                changes.push(Change { file, what: ENTRY_REMOVED });
            }
        }
        Ok(())
    }

    /// Takes the binary away.
    ///
    /// # Errors
    /// It is there and cannot be removed.
    pub fn take_binary(&self) -> Result<Option<Change>, InstallError> {
        remove(&self.binary())
    }

    /// The list that pods are started with: the first by name that can be understood, as libcni and containerd choose it; behind Multus
    /// the one that it hands them on to.
    pub(super) fn primary(&self) -> Result<PathBuf, InstallError> {
        if let Some(name) = &self.list {
            return Ok(self.conf.join(name));
        }
        let (lists, broken) = self.known()?;
        let Some(first) = lists.first() else {
            return Err(broken.unwrap_or_else(|| InstallError::NoList(self.conf.clone())));
        };
        let Some(multus) = first.multus() else { return Ok(self.conf.join(&first.file)) };
        match multus::master(multus, &lists) {
            Some(file) => Ok(self.conf.join(file)),
            None => Err(InstallError::NoMaster(self.conf.join(&first.file))),
        }
    }

    pub(super) fn first_is_multus(&self) -> Result<Option<PathBuf>, InstallError> {
        let (lists, _) = self.known()?;
        Ok(lists.first().filter(|first| first.multus().is_some()).map(|first| self.conf.join(&first.file)))
    }

    /// Lists of others that can be read and understood, by name; and why the first of the rest cannot.
    fn known(&self) -> Result<(Vec<Known>, Option<InstallError>), InstallError> {
        let (mut known, mut broken) = (Vec::new(), None);
        for path in self.lists()?.into_iter().filter(|path| !path.ends_with(WRAPPED)) {
            match understood(&path) {
                Ok(list) => {
                    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    known.push(Known { file, list });
                }
                Err(why) => broken = broken.or(Some(why)),
            }
        }
        Ok((known, broken))
    }

    pub(super) fn lists(&self) -> Result<Vec<PathBuf>, InstallError> {
        let entries = match fs::read_dir(&self.conf) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(InstallError::NoList(self.conf.clone()));
            }
            other => other.map_err(failed("list", &self.conf))?,
        };
        let ends =
            |path: &Path| path.extension().is_some_and(|e| e == "conf" || e == "conflist" || e == "json");
        let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        found.retain(|path| ends(path) && path.is_file());
        found.sort();
        Ok(found)
    }
}

/// What a list says.
fn understood(path: &Path) -> Result<Value, InstallError> {
    let text = read_whole(path).map_err(failed("read", path))?;
    let list = list::shape(&text).and_then(|_| list::read(&text));
    list.map_err(|why| InstallError::Unfit { path: path.to_owned(), why })
}

/// Removes a file, if it is there.
fn remove(path: &Path) -> Result<Option<Change>, InstallError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(Some(Change { file: path.display().to_string(), what: "removed" })),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("remove", path)(e)),
    }
}

/// Whether a program is there already and can be started. Piece by piece: it may be larger than the memory that we are given.
fn is_same(program: &Path, target: &Path) -> bool {
    // The open of a pipe waits for who writes into it.
    if !target.is_file() {
        return false;
    }
    let (Ok(one), Ok(two)) = (File::open(program), File::open(target)) else { return false };
    let (Ok(a), Ok(b)) = (one.metadata(), two.metadata()) else { return false };
    if a.len() != b.len() || b.permissions().mode() & 0o111 != 0o111 {
        return false;
    }
    let (mut one, mut two) = (BufReader::with_capacity(PIECE, one), BufReader::with_capacity(PIECE, two));
    loop {
        let (Ok(a), Ok(b)) = (one.fill_buf(), two.fill_buf()) else { return false };
        let length = a.len().min(b.len());
        if a[..length] != b[..length] {
            return false;
        }
        if length == 0 {
            return true;
        }
        one.consume(length);
        two.consume(length);
    }
}

/// Writes over a file that was read as `seen`, unless it says something else by now. Between this look and the rename lie
/// microseconds; who writes in them is overwritten, and writes again at its next start, which is then followed.
fn rewrite(path: &Path, seen: &[u8], next: &str) -> Result<(), InstallError> {
    let mode = fs::metadata(path).map_err(failed("read", path))?.mode() & 0o777;
    if read_whole(path).map_err(failed("read", path))? != seen {
        return Err(InstallError::Raced(path.to_owned()));
    }
    replace(path, &mut next.as_bytes(), mode)
}

fn replace(path: &Path, content: &mut impl Read, mode: u32) -> Result<(), InstallError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // An ending that no runtime reads.
    let draft = folder.join(format!(".{name}.egret-draft"));
    let mut write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&draft)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        let mut piece = Vec::new();
        while content.take(PIECE as u64).read_to_end(&mut piece)? > 0 {
            file.write_all(&piece)?;
            piece.clear();
        }
        file.sync_all()?;
        fs::rename(&draft, path)?;
        // After a power cut a node must not find half of it.
        File::open(folder)?.sync_all()
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&draft);
        InstallError::Io { verb: "write", path: path.to_owned(), source }
    })
}
