//! What a kernel was asked to change, as it tells everybody: `ip monitor` and `nft monitor`.
//!
//! In: a node. Out: a line per change of routing or nftables. Never: counts what conntrack or neighbour discovery does by itself.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use egret::testbed::Place;

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
        // Neither says when it began to listen.
        std::thread::sleep(Duration::from_millis(200));
        witness
    }

    /// What was seen so far, without the marks between transactions.
    pub(crate) fn seen(&self) -> Vec<String> {
        std::thread::sleep(Duration::from_millis(50));
        let text: String = self.files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
        text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect()
    }
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
