//! A state directory of its own, gone at the end of the test.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::super::{Objects, cache, scan};
use crate::egress::model::PodName;

pub(super) struct World {
    pub(super) state: PathBuf,
}

impl World {
    pub(super) fn new() -> World {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("egret-objects-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let state = std::env::temp_dir().join(name);
        std::fs::create_dir_all(state.join("objects")).unwrap();
        World { state }
    }

    /// A world that holds these files.
    pub(super) fn with(files: &[(&str, &str)]) -> World {
        let world = World::new();
        for (path, text) in files {
            world.write(path, text);
        }
        world
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.state.join("objects").join(path)
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        // A child that another test is just starting has what this process had open until it executes, and a file that
        // somebody still writes is not read.
        let file = std::fs::File::open(&path).unwrap();
        for _ in 0..1000 {
            if !super::super::file::is_being_written(&file) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("somebody keeps {} open for writing", path.display());
    }

    pub(super) fn delete(&self, path: &str) {
        std::fs::remove_file(self.path(path)).unwrap();
    }

    pub(super) fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.path(from), self.path(to)).unwrap();
    }

    pub(super) fn open(&self) -> Objects {
        Objects::open(&self.state).unwrap()
    }

    /// Waits until what was written is old enough to be trusted, opens, and shows that the cache now serves.
    pub(super) fn settle(&self) -> Objects {
        std::thread::sleep(Duration::from_millis(30));
        let objects = self.open();
        assert!(self.is_cached(), "the cache is not current after an open");
        objects
    }

    /// Whether the next open parses nothing.
    pub(super) fn is_cached(&self) -> bool {
        let root = std::fs::File::open(self.state.join("objects")).unwrap();
        let root = std::os::fd::AsFd::as_fd(&root);
        cache::load(&self.state).is_some_and(|image| scan::survey(root, &image).is_current())
    }

    pub(super) fn cache(&self) -> PathBuf {
        self.state.join("cache/objects")
    }

    /// What an open without a cache says.
    pub(super) fn open_afresh(&self) -> Objects {
        let other = World::new();
        std::fs::remove_dir(other.state.join("objects")).unwrap();
        std::os::unix::fs::symlink(self.state.join("objects"), other.state.join("objects")).unwrap();
        other.open()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.state);
    }
}

/// `file: object: field: message` of every problem.
pub(super) fn told(objects: &Objects) -> Vec<String> {
    objects.problems().iter().map(ToString::to_string).collect()
}

/// Names of the pods in force.
pub(super) fn pods(objects: &Objects) -> Vec<String> {
    objects.pods().map(|(name, _)| name.to_string()).collect()
}

/// The label `v` of pod `s/NAME`.
pub(super) fn label(objects: &Objects, name: &str) -> Option<String> {
    objects.pod(&PodName::new("s", name))?.labels.get("v").cloned()
}

/// Pod `s/NAME` with the label `v`.
pub(super) fn pod(name: &str, v: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: s, labels: {{v: '{v}'}}}}\n")
}

pub(super) fn pool(name: &str, cidr: &str) -> String {
    format!(
        "apiVersion: egret.dev/v1alpha1\nkind: EgressPool\nmetadata: {{name: {name}}}\nspec: {{cidr: {cidr}}}\n"
    )
}

/// Whether a path exists, without following links.
pub(super) fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}
