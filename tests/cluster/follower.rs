//! An agent's end of the API behind a proxy, in this process.
//!
//! In: a proxy, the name of a node. Out: what the agent heard of and what it would say to a plugin. Never: the agent's loop, or a kernel.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use egret::agent::calls::Calls;
use egret::agent::cluster::Cluster;
use egret::agent::door::Gate;
use egret::agent::families::FAMILIES;
use egret::agent::in_force::InForce;
use egret::config::{Config, Mode, Project};
use egret::probes::metrics::Metrics;
use egret::store::Dir;
use egret::testbed::within;

use crate::proxy::{Proxy, refusal};

/// What an agent's end of the API does, without its loop and the kernel.
pub(crate) struct Follower {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) config: Config,
    shared: InForce,
    proxy: Arc<Proxy>,
    pub(crate) dir: PathBuf,
}

impl Drop for Follower {
    /// Its threads live as long as the process. No later story may hear of them.
    fn drop(&mut self) {
        self.proxy.judge(|_| refusal(503, "ServiceUnavailable", "the story is over"));
    }
}

pub(crate) fn follow(proxy: &Arc<Proxy>, node: &str) -> Follower {
    follow_adopting(proxy, node, &[])
}

pub(crate) fn follow_adopting(proxy: &Arc<Proxy>, node: &str, adopt: &[Project]) -> Follower {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("egret-trouble-{}-{number}", std::process::id()));
    follow_from(proxy, node, adopt, dir)
}

/// The next agent of a node, with what the earlier one left on disk, and behind another proxy. The earlier one's threads live on, and
/// what they hear by watches that stand must not come to its successor: so that has a copy.
pub(crate) fn follow_again(proxy: &Arc<Proxy>, earlier: Follower) -> Follower {
    follow_after(proxy, earlier, |_| {})
}

/// The same, after something was done to the state directory while no agent was there.
pub(crate) fn follow_after(proxy: &Arc<Proxy>, earlier: Follower, deed: impl FnOnce(&Path)) -> Follower {
    let (node, adopt) = (earlier.config.node_name.clone().unwrap(), &earlier.config.adopt.clone());
    let left = earlier.dir.parent().unwrap();
    let dir = left.with_extension("next");
    let copied = Command::new("cp").arg("-a").arg(left).arg(&dir).status().unwrap();
    assert!(copied.success(), "{}", left.display());
    deed(&dir.join("state"));
    follow_from(proxy, &node, &adopt.iter().copied().collect::<Vec<_>>(), dir)
}

fn follow_from(proxy: &Arc<Proxy>, node: &str, adopt: &[Project], dir: PathBuf) -> Follower {
    let config = Config {
        mode: Mode::Cluster,
        state_dir: dir.join("state"),
        run_dir: dir.join("run"),
        node_name: Some(node.to_owned()),
        adopt: adopt.iter().copied().collect(),
        ..Config::default()
    };
    let state = Dir::open(&config.state_dir).unwrap();
    let shared = InForce::of(config.clone());
    let with = (None, Arc::new(Metrics::of(FAMILIES)), Calls::default());
    let cluster = Cluster::follow(proxy.access(), state, shared.clone(), node, with).unwrap();
    Follower { cluster, config, shared, proxy: proxy.clone(), dir: dir.join("state") }
}

impl Follower {
    /// Its configuration says something else.
    pub(crate) fn adopt(&self, adopt: &[Project]) {
        self.shared
            .adopt(Config { adopt: adopt.iter().copied().collect(), ..Config::clone(&self.shared.now()) });
    }

    pub(crate) fn synced(&self) {
        let heard = within(Duration::from_secs(120), Duration::from_millis(20), || self.cluster.is_synced());
        assert!(heard.is_some(), "{:?}", self.cluster.ready());
    }

    /// What it says to a plugin.
    pub(crate) fn sentence(&self, part: &str) -> String {
        let said = || self.cluster.ready().map_or_else(|error| error.to_string(), |()| String::new());
        let patience = Duration::from_secs(120);
        let says = within(patience, Duration::from_millis(50), || said().contains(part));
        assert!(says.is_some(), "it says `{}`", said());
        said()
    }
}
