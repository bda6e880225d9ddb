//! What a kernel was asked to change, as it tells everybody: `ip monitor` and `nft monitor`.
//!
//! In: a node. Out: a line per change of routing or nftables. Never: counts what conntrack or neighbour discovery does by itself.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use egret::kernel::Netns;
use egret::testbed::Place;

use crate::lab::eventually;

pub(crate) struct Witness {
    children: Vec<Child>,
    files: Vec<PathBuf>,
}

impl Witness {
    pub(crate) fn on(place: &Place) -> Witness {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mut witness = Witness { children: Vec::new(), files: Vec::new() };
        let what: [(&str, &[&str]); 2] =
            [("ip", &["monitor", "link", "address", "route", "rule", "nexthop"]), ("nft", &["monitor"])];
        for (program, arguments) in what {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let file = std::env::temp_dir().join(format!("egret-witness-{}-{number}", std::process::id()));
            let mut command = place.command(program).unwrap();
            command.args(arguments).stdin(Stdio::null()).stdout(File::create(&file).unwrap());
            witness.children.push(command.spawn().unwrap());
            witness.files.push(file);
        }
        // Neither says when it began to listen; the kernel does.
        let network = place.path();
        eventually("both listen", || witness.children.iter().all(|child| listens(&network, child.id())));
        witness
    }

    /// What was seen so far, without the marks between transactions.
    pub(crate) fn seen(&self) -> Vec<String> {
        std::thread::sleep(Duration::from_millis(50));
        let text: String = self.files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
        text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect()
    }
}

/// Whether a process has joined a group of netlink(7), as the kernel lists its sockets; a process's first has its number.
fn listens(network: &Path, process: u32) -> bool {
    let sockets = Netns::open(network).unwrap().run(|| fs::read_to_string("/proc/thread-self/net/netlink"));
    sockets.unwrap().unwrap().lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(2) == Some(&process.to_string().as_str())
            && words.get(3).is_some_and(|groups| *groups != "00000000")
    })
}

impl Drop for Witness {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.files.iter().for_each(|file| drop(fs::remove_file(file)));
    }
}
