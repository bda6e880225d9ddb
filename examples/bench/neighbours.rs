//! Pods that exist as attachments alone: planner and kernel treat them as any other, and no process or device is needed.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use egret::egress::model::{Pairs, PodName};
use egret::node::attachment::{Attachment, Attachments};
use egret::testbed::{Pod, RUN_DIR, Trouble, World};

/// The neighbours of a real pod on its node, in whose namespace they claim to be.
pub(crate) struct Neighbours {
    records: Attachments,
    like: Attachment,
}

impl Neighbours {
    /// Nobody yet.
    pub(crate) fn of(pod: &Pod) -> Result<Neighbours, Trouble> {
        let netns = pod.place().path();
        let meta = fs::metadata(&netns).map_err(trouble)?;
        let like = Attachment {
            network: "pods".into(),
            container_id: String::new(),
            ifname: "eth0".into(),
            netns,
            dev: meta.dev(),
            inode: meta.ino(),
            pod: None,
            uid: None,
            addresses: Vec::new(),
            networks: Vec::new(),
            annotations: None,
            seen: 0,
            since: 0,
            host_interface: None,
            host_index: 0,
            last: Default::default(),
            gateway: Default::default(),
        };
        Ok(Neighbours {
            records: Attachments::of_node(Path::new(RUN_DIR), &format!("node{}", pod.node)),
            like,
        })
    }

    /// `shop/other-NUMBER`, with an address of each family. `annotations`: what a runtime would have passed.
    pub(crate) fn add(&self, number: usize, annotations: Option<&[(&str, &str)]>) -> Result<(), Trouble> {
        let pairs = |all: &[(&str, &str)]| -> Pairs {
            all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let attachment = Attachment {
            pod: Some(PodName::new("shop", format!("other-{number}"))),
            addresses: vec![
                IpAddr::from([10, 60, 200 + (number >> 8) as u8, number as u8]),
                IpAddr::from([0xfd00, 0x10, 0x60, 200, 0, 0, 0, number as u16]),
            ],
            annotations: annotations.map(pairs),
            since: number as u64,
            ..self.named(number)
        };
        self.records.write(&attachment).map_err(trouble)
    }

    /// Takes one away.
    pub(crate) fn remove(&self, number: usize) -> Result<(), Trouble> {
        self.records.remove(&self.named(number).id()).map(drop).map_err(trouble)
    }

    fn named(&self, number: usize) -> Attachment {
        Attachment { container_id: format!("other-{number}"), ..self.like.clone() }
    }
}

/// Has a node take up what lies in its directory; the table that it has then.
pub(crate) fn reconcile(world: &World, node: u8) -> Result<String, Trouble> {
    let list = world.conflist_path(node).display().to_string();
    let output = world.egret(node, &["reconcile", "--config", &list])?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Trouble::new(format!("node {node} cannot be reconciled: {}", said.trim())));
    }
    world.node(node).run("nft", &["list", "table", "inet", "egret"])
}

fn trouble(error: std::io::Error) -> Trouble {
    Trouble::new(format!("attachment records: {error}"))
}
