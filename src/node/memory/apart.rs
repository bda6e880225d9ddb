//! The nodes of a plan, where they are many, in a file of their own: a pod's ADD changes none of them, and to write five hundred each time,
//! twice the room of all the rest, was an eighth of what it took.
//!
//! In: a plan. Out: its text, in which the nodes are the name of their file. Never: changes a file of nodes: it is called by a hash of what
//! it says, is there before anything names it, and goes when others are written and nothing names it any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Applied, INTENDED, Memory, PLAN};
use crate::addr::Cidr;
use crate::egress::peers::Peers;
use crate::egress::plan::{Binding, Client, Exit, Gateway, Here, LocalGateway, NodePlan};

/// A plan as it is written. Named one by one, so that what is added to plans is thought of here.
#[derive(Serialize)]
struct Apart<'a> {
    here: &'a Here,
    nodes: &'a str,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    unnamed: &'a BTreeSet<IpAddr>,
    clients: &'a BTreeMap<IpAddr, Client>,
    bindings: &'a BTreeMap<String, Binding>,
    gateways: &'a BTreeMap<u32, Gateway>,
    sets: &'a BTreeMap<u8, BTreeSet<u32>>,
    locals: &'a BTreeMap<String, LocalGateway>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exits: &'a BTreeMap<u16, Exit>,
    inside: &'a BTreeSet<Cidr>,
}

#[derive(Serialize)]
struct Written<P> {
    inputs: u64,
    plan: P,
}

impl Memory {
    /// What a plan's file says. The nodes' own is there then, if they have one.
    pub(super) fn text_of(&self, inputs: u64, plan: &NodePlan) -> io::Result<Vec<u8>> {
        let Some((name, text)) = plan.nodes.apart()? else {
            return Ok(serde_json::to_vec(&Written { inputs, plan })?);
        };
        if !self.dir.join(name).exists() {
            self.replace(name, text.as_bytes())?;
            self.forget_nodes(name);
            self.last.iter().for_each(|last| last.keep_nodes(name, &plan.nodes));
        }
        let NodePlan { here, nodes: _, unnamed, clients, bindings, gateways, sets, locals, exits, inside } =
            plan;
        let plan =
            Apart { here, nodes: name, unnamed, clients, bindings, gateways, sets, locals, exits, inside };
        Ok(serde_json::to_vec(&Written { inputs, plan })?)
    }

    /// A plan that was read, with its nodes; `None`: these cannot be.
    pub(super) fn whole(&self, mut applied: Applied) -> Option<Applied> {
        if let Some(name) = applied.plan.nodes.elsewhere() {
            let known = self.last.as_ref().and_then(|last| last.nodes(name));
            let nodes = match known {
                Some(nodes) => nodes,
                None => {
                    let nodes: Peers = self.read(name).filter(|nodes: &Peers| nodes.elsewhere().is_none())?;
                    self.last.iter().for_each(|last| last.keep_nodes(name, &nodes));
                    nodes
                }
            };
            applied.plan.nodes = nodes;
        }
        Some(applied)
    }

    /// Files of nodes that neither plan names go. Whoever read one's name and finds no file reads the plan again, which is another one then.
    fn forget_nodes(&self, stays: &str) {
        #[derive(Deserialize)]
        struct Nodes {
            nodes: Peers,
        }
        #[derive(Deserialize)]
        struct Part {
            plan: Nodes,
        }
        let mut named = BTreeSet::from([stays.to_owned()]);
        for file in [PLAN, INTENDED] {
            let part = self.read::<Part>(file);
            named.extend(part.and_then(|part| part.plan.nodes.elsewhere().map(str::to_owned)));
        }
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("nodes.") && name.ends_with(".json") && !named.contains(&name) {
                let _ = fs::remove_file(entry.path()); // it is tried again when nodes change
            }
        }
    }
}
