//! Interfaces by which node gateways leave: what this node says of its own, and hears of the others'.
//!
//! In: this node's kernel, the directory. Out: interfaces by node, for resolvers; this node's file. Never: another node's file.

use std::collections::{BTreeMap, BTreeSet};

use crate::egress::interfaces::Interfaces;
use crate::egress::model::{Resolution, View};
use crate::egress::numbers;
use crate::egress::plan::Door;
use crate::kernel::devices;
use crate::node::embedded::{Embedded, NodeError};
use crate::node::facts;
use crate::problem::Problem;
use crate::store::interfaces;

impl Embedded {
    /// What nodes say of their interfaces, and what this one's kernel says of its own, which counts; other nodes read it from the
    /// directory. Only where a policy asks for node gateways: a directory without them is not read.
    ///
    /// # Errors
    /// The folder cannot be listed, or the node's own devices cannot be read.
    pub(super) fn hear_interfaces(&self, view: &mut View) -> Result<Vec<Problem>, NodeError> {
        if !view.asks_for_nodes() {
            return Ok(Vec::new());
        }
        let mut said = interfaces::list(&self.dir)?;
        let last = self.memory.interfaces();
        for node in said.torn.keys() {
            if let Some(known) = last.get(node) {
                said.interfaces.insert(node.clone(), known.clone());
            }
        }
        said.interfaces.insert(self.name.clone(), self.own_interfaces()?);
        view.interfaces = said.interfaces;
        Ok(said.torn.into_values().collect())
    }

    /// Keeps what was heard, for the day when a file is torn.
    pub(super) fn keep_interfaces(&self, view: &View) -> Result<(), NodeError> {
        if self.dry_run || self.memory.interfaces() == view.interfaces {
            return Ok(());
        }
        self.memory.remember_interfaces(&view.interfaces).map_err(|e| self.unwritable(e))
    }

    /// Whether any policy asks for node gateways: then this node may be one without having a single pod.
    ///
    /// # Errors
    /// The objects cannot be listed.
    pub fn may_be_asked(&self) -> Result<bool, NodeError> {
        Ok(self.view_for(&self.objects()?, &[], Vec::new()).asks_for_nodes())
    }

    /// This node's interfaces as they are.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn own_interfaces(&self) -> Result<Interfaces, NodeError> {
        let node_ns = self.netns()?;
        let devices = devices::list(&node_ns)?;
        let default = |family| devices::default_route_device(&node_ns, family).ok().flatten();
        Ok(facts::interfaces(&devices, &default))
    }

    /// Interfaces by which this node's own gateways leave, as they are. Where it is none nobody looks at its routes.
    pub(super) fn doors(&self, resolution: &Resolution) -> Result<BTreeMap<String, Door>, NodeError> {
        let own = resolution.node_gateways.values().filter(|gateway| gateway.node == self.name);
        let names: BTreeSet<&str> = own.map(|gateway| gateway.interface.as_str()).collect();
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let node_ns = self.netns()?;
        let defaults = devices::default_routes(&node_ns, numbers::PROTOCOL)?;
        Ok(facts::doors(&names, &devices::list(&node_ns)?, &defaults))
    }

    /// Lets the other nodes know of this one's interfaces, and where those lead by which its own gateways leave.
    pub(super) fn say_ways(&self, own: &Interfaces, doors: &BTreeMap<String, Door>) -> Option<Problem> {
        let mut said = own.clone();
        for link in &mut said.links {
            link.ways = doors.get(&link.name).map(|door| door.routes.keys().copied().collect());
        }
        self.say_interfaces(&said)
    }

    /// Lets the other nodes know.
    pub(super) fn say_interfaces(&self, own: &Interfaces) -> Option<Problem> {
        if self.dry_run {
            return None;
        }
        let error = interfaces::put(&self.dir, &self.name, own).err()?;
        let message = format!(
            "this node cannot say its interfaces to the others ({}: {error}), so they may choose it as a gateway by old addresses",
            self.dir.interfaces().display()
        );
        Some(Problem::new(format!("Node {}", self.name), "InterfacesNotWritten", message))
    }
}
