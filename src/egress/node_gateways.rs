//! Which node a policy's node gateway is, and the addresses that it leaves with.
//!
//! In: a wish (selector, interface, address), the nodes and what they said of their interfaces. Out: a [`NodeGateway`], the same on
//! every node that asks, or a sentence. Never: asks the kernel, or whether the node lives: the first by name serves, as in Cilium.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::addr::Family;
use crate::egress::interfaces::{Interface, Interfaces};
use crate::egress::model::{Node, NodeGateway, View};
use crate::egress::policy::{NodeGatewayWish, Policy, To};
use crate::egress::selector::Selector;
use crate::problem::Problem;

/// What a wish comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The node, and its underlay address: gateways of one policy are in the order of these. `None`: no node matches.
    pub(super) node: Option<(String, IpAddr)>,
    /// The gateway, or why there is none, as reason and sentence.
    pub(super) gateway: Result<NodeGateway, (&'static str, String)>,
}

impl Found {
    /// Why the gateway has no address of a family, though it has one of the other.
    pub(super) fn no_address(gateway: &NodeGateway, family: Family) -> String {
        let NodeGateway { node, interface, .. } = gateway;
        format!(
            "interface {interface} of node {node} has no {family} address: give it one, or name another interface"
        )
    }
}

/// Every node gateway that a policy asks for, used by a pod or not, by key; and what is wrong with those that cannot be.
pub(super) fn all(view: &View) -> (BTreeMap<String, NodeGateway>, Vec<Problem>) {
    let mut known: BTreeMap<String, Found> = BTreeMap::new();
    let mut gateways = BTreeMap::new();
    let mut problems = Vec::new();
    for policy in view.policies.values().chain(view.cilium_policies.values()) {
        if !policy.unfit.is_empty() {
            continue;
        }
        let mut asked: Vec<&NodeGatewayWish> = Vec::new();
        for rule in &policy.rules {
            let To::Nodes(wishes) = &rule.to else { continue };
            for wish in wishes.iter().filter(|wish| !asked.contains(wish)).collect::<Vec<_>>() {
                asked.push(wish);
                let found = known.entry(format!("{wish:?}")).or_insert_with(|| find(view, wish));
                match &found.gateway {
                    Ok(gateway) => {
                        gateways.insert(gateway.key(), gateway.clone());
                        problems.extend(no_address_of(policy, wish, gateway));
                    }
                    Err((reason, why)) => {
                        let problem = Problem::new(policy.object(), reason, why.clone());
                        problems.push(problem.at("spec.egressGateway").value(wish.nodes.clone()));
                    }
                }
            }
        }
    }
    (gateways, problems)
}

/// A family that the policy sends to the gateway and that the gateway has no address of.
fn no_address_of(policy: &Policy, wish: &NodeGatewayWish, gateway: &NodeGateway) -> Option<Problem> {
    let asks = |family: &Family| {
        let mut rules = policy.rules.iter().filter(|rule| rule.destination.family() == *family);
        rules.any(|rule| matches!(&rule.to, To::Nodes(wishes) if wishes.contains(wish)))
    };
    let lacking =
        Family::BOTH.into_iter().find(|family| gateway.address(*family).is_none() && asks(family))?;
    let why = format!("{}; until then {lacking} is held", Found::no_address(gateway, lacking));
    let problem = Problem::new(policy.object(), "NoEgressAddress", why);
    Some(problem.at("spec.egressGateway").value(gateway.interface.clone()))
}

/// The node that a wish finds, and what it would leave with.
pub(super) fn find(view: &View, wish: &NodeGatewayWish) -> Found {
    let selector = match Selector::parse(&wish.nodes) {
        Ok(selector) => selector,
        Err(error) => {
            let why = format!("no egress gateway found: in nodeSelector {}", error.sentence());
            return Found { node: None, gateway: Err(("SelectorSyntax", why)) };
        }
    };
    // Without any IPv4 InternalIP in the cluster the tunnel runs over IPv6.
    let tunnel = match view.nodes.values().any(|node| underlay(node, Family::V4).is_some()) {
        true => Family::V4,
        false => Family::V6,
    };
    let mut matching = view.nodes.iter().filter(|(_, node)| selector.matches(&node.labels)).peekable();
    if matching.peek().is_none() {
        let why = format!(
            "no egress gateway found: no node matches {selector}: label a node so, or change nodeSelector"
        );
        return Found { node: None, gateway: Err(("NoGatewayNode", why)) };
    }
    let Some((name, ip)) = matching.find_map(|(name, node)| Some((name, underlay(node, tunnel)?))) else {
        let why = format!(
            "no egress gateway found: no node that matches {selector} has an {tunnel} InternalIP, and the tunnel runs over \
             {tunnel}: add one to the Node object"
        );
        return Found { node: None, gateway: Err(("NoGatewayNode", why)) };
    };
    let gateway = match view.interfaces.get(name) {
        None => Err((
            "InterfacesUnknown",
            format!("nobody said which interfaces node {name} has: run `egret reconcile` on node {name}"),
        )),
        Some(interfaces) => derive(name, &view.nodes[name], interfaces, wish),
    };
    Found { node: Some((name.clone(), ip)), gateway }
}

fn underlay(node: &Node, family: Family) -> Option<IpAddr> {
    node.internal_ips.iter().copied().find(|ip| Family::of(*ip) == family)
}

/// The interface and the addresses. A family that it has no address of is simply not there, so that the other is served.
fn derive(
    node: &str,
    object: &Node,
    interfaces: &Interfaces,
    wish: &NodeGatewayWish,
) -> Result<NodeGateway, (&'static str, String)> {
    let lacks = |why: String| ("NoEgressAddress", why);
    let interface = match (&wish.interface, wish.egress_ip) {
        (Some(name), _) => interfaces.named(name).ok_or_else(|| {
            lacks(format!("node {node} has no interface {name} that is up and has an address: name another, or set it up"))
        })?,
        (None, Some(ip)) => interfaces.owner(ip).ok_or_else(|| {
            lacks(format!("no interface of node {node} has the address {ip}: add it there, or ask for one that it has"))
        })?,
        (None, None) => interfaces.default_route(object).ok_or_else(|| {
            lacks(format!("node {node} has no default route to tell the interface: name an interface or an egressIP"))
        })?,
    };
    let first = |family: Family| {
        let asked = wish.egress_ip.filter(|ip| wish.interface.is_none() && Family::of(*ip) == family);
        let by_route = wish.interface.is_none() && wish.egress_ip.is_none();
        if by_route && interfaces.default_of(family).is_some_and(|name| !interface.is(name)) {
            return None;
        }
        asked.or_else(|| interface.first(family))
    };
    let addresses: Vec<IpAddr> = Family::BOTH.into_iter().filter_map(first).collect();
    if addresses.is_empty() {
        let name = &interface.name;
        return Err(lacks(format!(
            "interface {name} of node {node} has no address to leave with: give it one, or name another"
        )));
    }
    Ok(NodeGateway { node: node.to_owned(), interface: interface.name.clone(), addresses })
}

impl Interfaces {
    fn named(&self, name: &str) -> Option<&Interface> {
        let by_name = self.links.iter().find(|link| link.name == name);
        by_name.or_else(|| self.links.iter().find(|link| link.is(name)))
    }

    fn default_of(&self, family: Family) -> Option<&str> {
        match family {
            Family::V4 => self.default4.as_deref(),
            Family::V6 => self.default6.as_deref(),
        }
    }

    fn owner(&self, ip: IpAddr) -> Option<&Interface> {
        self.links.iter().find(|link| link.addresses.contains(&ip))
    }

    /// The default route's interface, IPv4's before IPv6's; where nobody said it, the one with the node's own address. Where the
    /// families have different ones there is no second gateway: IPv6 is held, as both families are in Cilium.
    fn default_route(&self, node: &Node) -> Option<&Interface> {
        match self.default_of(Family::V4).or(self.default_of(Family::V6)) {
            Some(name) => self.named(name),
            None => node.internal_ips.iter().find_map(|ip| self.owner(*ip)),
        }
    }
}

impl Interface {
    fn is(&self, name: &str) -> bool {
        self.name == name || self.altnames.iter().any(|alt| alt == name)
    }

    /// The first address of a family that others can answer to.
    fn first(&self, family: Family) -> Option<IpAddr> {
        let global = |ip: &&IpAddr| match ip {
            IpAddr::V4(ip) => !ip.is_loopback(),
            IpAddr::V6(ip) => !ip.is_unicast_link_local() && !ip.is_loopback(),
        };
        self.addresses.iter().filter(|ip| Family::of(**ip) == family).find(global).copied()
    }
}
