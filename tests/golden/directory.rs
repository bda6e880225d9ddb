//! A state directory of its own, and what a node sees in it: manifests come in where a user's come in.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use egret::config::Config;
use egret::egress::model::{Endpoint, View};
use egret::node::embedded::Embedded;
use egret::problem::Problem;
use egret::store::endpoints;

/// Gone when dropped.
pub(crate) struct Directory {
    root: PathBuf,
    config: Config,
}

impl Directory {
    /// An empty one, for the node of this name.
    pub(crate) fn of(node: &str) -> Directory {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("egret-objects-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(root.join("state/objects")).unwrap();
        let config = Config {
            state_dir: root.join("state"),
            run_dir: root.join("run"),
            node_name: Some(node.to_owned()),
            ..Config::default()
        };
        Directory { root, config }
    }

    #[allow(dead_code, reason = "not every test that has this module changes it")]
    pub(crate) fn config(&mut self) -> &mut Config {
        &mut self.config
    }

    /// Writes a file of the directory as an editor does: whole, or not at all.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.config.state_dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let draft = path.with_extension("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, path).unwrap();
    }

    #[allow(dead_code, reason = "not every test that has this module takes files away")]
    pub(crate) fn remove(&self, path: &str) {
        fs::remove_file(self.config.state_dir.join(path)).unwrap();
    }

    /// Writes what a gateway's node writes when the gateway is wired.
    #[allow(dead_code, reason = "not every test that has this module has gateway pods")]
    pub(crate) fn endpoint(&self, endpoint: &Endpoint) {
        let node = Embedded::open(&self.config).unwrap();
        let guard = node.dir.lock("test", Duration::from_secs(5)).unwrap();
        endpoints::put(&node.dir, &guard, endpoint).unwrap();
    }

    /// What the node knows, and what is wrong with the files. It keeps what it read, as a plugin's call does.
    pub(crate) fn view(&self) -> (View, Vec<Problem>) {
        let node = Embedded::open(&self.config).unwrap();
        let (view, objects, problems) = node.whole_view().unwrap();
        drop(objects);
        (view, problems)
    }

    #[allow(dead_code, reason = "not every test that has this module looks at files")]
    pub(crate) fn path(&self) -> &Path {
        &self.config.state_dir
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}
