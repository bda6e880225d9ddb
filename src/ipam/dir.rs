//! Blocks in the state directory: `ipam/POOL/BLOCK.json`, the block's name being its prefix with `-` for `.`, `:` and `/`.
//!
//! In: the directory and its lock. Out: a [`Store`]. The block files are the truth; `cache/ipam-POOL.summary` saves reading
//! them all: what they said once, and behind it the blocks that changed since. It is believed only if the folder is exactly as it
//! was when the cache was written, and never while a block is being written: whoever writes says so in the cache first. So a
//! writer that is killed anywhere leaves a cache that nobody believes, and the next one makes it again (0.4 s for 16,000 blocks).
//!
//! Do not edit a block file in place; write a new one and move it there, and the change is seen at once. (A change in place is
//! caught when its block is used.)

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::block::Block;
use super::cache;
use super::store::{Store, StoreError};
use super::summary::Summary;
use crate::addr::Cidr;
use crate::fault;
use crate::problem::Problem;
use crate::store::record::{self, RecordError, file_name};
use crate::store::{Dir, Guard, Swap, Version, read_whole};

const KIND: &str = "EgressBlock";

/// The blocks of a state directory.
#[derive(Debug)]
pub struct DirStore<'a> {
    dir: &'a Dir,
    guard: &'a Guard,
    /// Summaries read under the lock that is held.
    known: RefCell<BTreeMap<String, Known>>,
}

/// What the books of a pool say, while its folder is as it was.
#[derive(Debug, Clone)]
struct Known {
    folder: cache::Folder,
    summary: Arc<Summary>,
    /// What the cache file holds.
    written: cache::Written,
}

impl<'a> DirStore<'a> {
    /// The caller holds the directory's lock: nobody else writes as long as it does.
    pub fn under(dir: &'a Dir, guard: &'a Guard) -> DirStore<'a> {
        DirStore { dir, guard, known: RefCell::default() }
    }

    /// The books of a pool; `None`: it has no folder.
    fn known(&self, pool: &str) -> Result<Option<Known>, StoreError> {
        let Ok(folder) = look(&pool_folder(self.dir, pool)) else { return Ok(None) };
        if let Some(known) = self.known.borrow().get(pool).filter(|known| known.folder == folder) {
            return Ok(Some(known.clone()));
        }
        let cached = read_whole(&self.cache_path(pool)).ok().and_then(|bytes| cache::decode(&bytes, folder));
        let Some((summary, written)) = cached else { return self.rebuild(pool) };
        Ok(Some(self.remember(pool, Known { folder, summary: Arc::new(summary), written })))
    }

    fn remember(&self, pool: &str, known: Known) -> Known {
        self.known.borrow_mut().insert(pool.to_owned(), known.clone());
        known
    }

    /// Reads every block, and writes what they say into the cache.
    fn rebuild(&self, pool: &str) -> Result<Option<Known>, StoreError> {
        let folder = pool_folder(self.dir, pool);
        if !folder.is_dir() {
            return Ok(None);
        }
        // Only writers leave temporary files, and they hold the lock that we hold now.
        record::sweep(&folder).map_err(failed("sweep", &folder))?;
        let before = look(&folder).map_err(failed("read", &folder))?;
        let (blocks, problems) = blocks_in(self.dir, pool)?;
        for problem in &problems {
            tracing::warn!(%problem, "a block cannot be used");
        }
        let broken = problems.iter().filter_map(|p| block_of_file(Path::new(&p.file)));
        let summary = Arc::new(Summary::of(&blocks, broken));
        Ok(Some(self.write_whole(pool, summary, before)))
    }

    /// Writes a summary whole.
    fn write_whole(&self, pool: &str, summary: Arc<Summary>, folder: cache::Folder) -> Known {
        let (body, written) = cache::encode(&summary);
        self.write_cache(pool, (cache::HEADER as u64, &body), &written.header(folder));
        self.remember(pool, Known { folder, summary, written })
    }

    fn cache_path(&self, pool: &str) -> PathBuf {
        self.dir.cache().join(format!("ipam-{}.summary", file_name(pool)))
    }

    /// Writes a piece of the cache, and the header under which it is believed. A cache that cannot be written costs time, never truth.
    fn write_cache(&self, pool: &str, (at, piece): (u64, &[u8]), header: &[u8]) {
        let write = || -> io::Result<()> {
            let file = open_cache(&self.cache_path(pool))?;
            // In place and not by rename: renaming over a file makes ext4 write the new one out at once, and a megabyte of
            // cache would then delay every fsync of a block. The piece goes first; until the header follows, nobody believes it.
            file.write_all_at(&cache::unbelievable(), 0)?;
            let (first, second) = piece.split_at(piece.len() / 2);
            file.write_all_at(first, at)?;
            fault::point("ipam.within-cache-write");
            file.write_all_at(second, at + first.len() as u64)?;
            file.write_all_at(header, 0)
        };
        if let Err(error) = write() {
            tracing::debug!(pool, %error, "cannot write the summary of a pool");
        }
    }

    /// Says in the cache that a block is being written. Returns what takes that back.
    fn mark(&self, pool: &str) -> Result<File, StoreError> {
        let path = self.cache_path(pool);
        let mark = || {
            let file = open_cache(&path)?;
            if file.metadata()?.len() < cache::HEADER as u64 {
                file.write_all_at(&cache::unbelievable(), 0)?;
            }
            file.write_all_at(&cache::WRITING, cache::STATE_AT)?;
            Ok(file)
        };
        mark().map_err(failed("write", &path))
    }

    /// A block was written: says so in the cache, at its end as long as that is short.
    fn learn(&self, pool: &str, block: &Block, known: Known, now: cache::Folder) {
        let Known { mut summary, mut written, .. } = known;
        if let Some((at, entry)) = written.add(block) {
            self.write_cache(pool, (at, &entry), &written.header(now));
            // Whoever asks again under this lock reads it: that is rarer than a copy of all of it would be dear.
            self.known.borrow_mut().remove(pool);
        } else {
            Arc::make_mut(&mut summary).learn(block);
            self.write_whole(pool, summary, now);
        }
    }
}

impl Store for DirStore<'_> {
    fn pools(&self) -> Result<Vec<String>, StoreError> {
        let (pools, problems) = pools_in(self.dir)?;
        for problem in &problems {
            tracing::warn!(%problem, "a block cannot be used");
        }
        Ok(pools)
    }

    fn summary(&self, pool: &str) -> Result<Arc<Summary>, StoreError> {
        Ok(self.known(pool)?.map(|known| known.summary).unwrap_or_default())
    }

    fn refresh(&self, pool: &str) -> Result<(), StoreError> {
        self.rebuild(pool).map(drop)
    }

    fn read(&self, pool: &str, block: Cidr) -> Result<Option<(Block, Version)>, StoreError> {
        let path = pool_folder(self.dir, pool).join(format!("{}.json", block_name(block)));
        let Some((found, version)) = record::read::<Block>(&path, KIND, &block_name(block))? else {
            return Ok(None);
        };
        if let Some(why) = inconsistent(&found, pool, Some(block)) {
            return Err(RecordError::Torn { path, why }.into());
        }
        Ok(Some((found, version)))
    }

    fn swap(&self, block: &Block, seen: Option<Version>) -> Result<Swap, StoreError> {
        let pool = block.pool.as_str();
        let folder = make_pool_folder(self.dir, pool)?;
        let known = self.known(pool)?;
        let mark = self.mark(pool)?;
        fault::point("ipam.after-cache-mark");
        let name = block_name(block.cidr);
        let path = folder.join(format!("{name}.json"));
        let swap = record::swap(self.guard, &path, (KIND, &name), seen, block, true)?;
        if let Swap::Raced(_) = swap {
            mark.write_all_at(&cache::CLEAN, cache::STATE_AT)
                .map_err(failed("write", &self.cache_path(pool)))?;
            return Ok(swap);
        }
        fault::point("ipam.after-block-write");
        // Otherwise the mark stays, and nobody believes the cache.
        if let (Some(known), Ok(now)) = (known, look(&folder)) {
            self.learn(pool, block, known, now);
        }
        fault::point("ipam.after-cache-write");
        Ok(swap)
    }
}

/// Names of the pools that have a folder, and what is wrong in folders of which nobody can say whose they are.
///
/// # Errors
/// If a folder cannot be read.
pub fn pools_in(dir: &Dir) -> Result<(Vec<String>, Vec<Problem>), StoreError> {
    let (mut pools, mut nameless) = (Vec::new(), Vec::new());
    for folder in record::files(&dir.ipam())?.into_iter().filter(|path| path.is_dir()) {
        match pool_of(&folder) {
            Some(pool) => pools.push(pool),
            None => nameless.extend(record::list::<Block>(dir.path(), &folder, KIND)?.1),
        }
    }
    Ok((pools, nameless))
}

/// The pool that a folder is of. A very long name is cut there, and only the blocks say all of it; without one that can be read nothing is leased.
fn pool_of(folder: &Path) -> Option<String> {
    let name = folder.file_name()?.to_str()?;
    if !name.contains('~') {
        return Some(unescape(name));
    }
    let blocks = record::files(folder).ok()?.into_iter();
    let mut pools = blocks.filter_map(|path| {
        let name = path.file_stem()?.to_str()?.to_owned();
        Some(record::read::<Block>(&path, KIND, &name).ok()??.0.pool)
    });
    pools.find(|pool| file_name(pool) == name)
}

/// The blocks of a pool, and the files that are none. Needs no lock.
///
/// # Errors
/// If the pool's folder cannot be read.
pub fn blocks_in(dir: &Dir, pool: &str) -> Result<(Vec<Block>, Vec<Problem>), StoreError> {
    let folder = pool_folder(dir, pool);
    let (records, mut problems) = record::list::<Block>(dir.path(), &folder, KIND)?;
    let mut blocks = Vec::with_capacity(records.len());
    for record in records {
        match inconsistent(&record.spec, pool, None).or_else(|| misnamed(&record.spec, &record.name)) {
            None => blocks.push(record.spec),
            Some(why) => {
                let path = folder.join(format!("{}.json", record.name));
                problems.push(RecordError::Torn { path, why }.problem(dir.path()));
            }
        }
    }
    Ok((blocks, problems))
}

/// What a block's record is called: `10-10-10-0-31`.
pub fn block_name(cidr: Cidr) -> String {
    cidr.to_string().replace(['.', ':', '/'], "-")
}

/// The block that a file should be, by its name; so that a damaged one's addresses are given to nobody.
fn block_of_file(path: &Path) -> Option<Cidr> {
    let (address, prefix) = path.file_stem()?.to_str()?.rsplit_once('-')?;
    let [four, six] = [".", ":"].map(|sign| format!("{}/{prefix}", address.replace('-', sign)));
    four.parse().or_else(|_| six.parse()).ok()
}

fn inconsistent(block: &Block, pool: &str, cidr: Option<Cidr>) -> Option<String> {
    if block.pool != pool {
        return Some(format!("it is a block of pool `{}`", block.pool));
    }
    if let Some(cidr) = cidr.filter(|cidr| *cidr != block.cidr) {
        return Some(format!("it is block {}, not {cidr}", block.cidr));
    }
    let outside = block.allocations.keys().find(|ip| !block.cidr.contains(**ip))?;
    Some(format!("{outside} lies outside of block {}", block.cidr))
}

fn misnamed(block: &Block, name: &str) -> Option<String> {
    (block_name(block.cidr) != name).then(|| format!("it is block {}, not what its name says", block.cidr))
}

fn pool_folder(dir: &Dir, pool: &str) -> PathBuf {
    dir.ipam().join(file_name(pool))
}

fn make_pool_folder(dir: &Dir, pool: &str) -> Result<PathBuf, StoreError> {
    let folder = pool_folder(dir, pool);
    if !folder.is_dir() {
        crate::store::make_folder(&folder)?;
        // A block that is on disk in a folder that is not is lost with the power.
        File::open(dir.ipam()).and_then(|f| f.sync_all()).map_err(failed("sync", &dir.ipam()))?;
    }
    Ok(folder)
}

fn open_cache(path: &Path) -> io::Result<File> {
    let mut open = OpenOptions::new();
    // Not blocking, should a pipe be in its place.
    open.write(true).create(true).truncate(false).mode(0o644).custom_flags(libc::O_NONBLOCK).open(path)
}

fn look(folder: &Path) -> io::Result<cache::Folder> {
    let now = fs::metadata(folder)?;
    Ok(cache::Folder { inode: now.ino(), seconds: now.mtime(), nanoseconds: now.mtime_nsec() })
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let what = path.display().to_string();
    move |source| StoreError::Io { verb, what, source }
}

/// The inverse of `file_name`, for names that were not cut: no other has a `~`.
fn unescape(file: &str) -> String {
    let mut bytes = Vec::with_capacity(file.len());
    let mut rest = file.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (first, escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b'/');
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_damaged_file_still_tells_which_addresses_are_in_doubt() {
        for cidr in ["10.10.10.0/31", "fd00::/127", "2001:db8:1:2:3:4:5:6/128", "0.0.0.0/0"] {
            let cidr: Cidr = cidr.parse().unwrap();
            let file = format!("ipam/p/{}.json", block_name(cidr));
            assert_eq!(block_of_file(Path::new(&file)), Some(cidr));
        }
        assert_eq!(block_of_file(Path::new("ipam/p/notes.txt")), None);
    }

    #[test]
    fn folder_names_lead_back_to_pool_names() {
        for pool in ["egress", "a.b-c", "Ö x/y%20", ".hidden"] {
            assert_eq!(unescape(&file_name(pool)), pool);
        }
    }
}
