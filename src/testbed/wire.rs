//! The cables: fabric, nodes, router, the two places outside.
//!
//! ```text
//!  node1 node2 … ──eth0── fabric (bridge) ── router ──(1500)── outside 198.51.100.100  2001:db8:ff::100
//!  172.30.0.N, 10.10.10.(100+N)              .254  └──(1300)── far     198.51.101.100  2001:db8:fe::100
//! ```
//!
//! In: the topology. Out: namespaces wired and routed, as text for `ip -batch`, one batch per namespace.
//! The router knows the way to pod networks, so that a leak is answered too and cannot hide as a time-out; it has no
//! route for a leased address, only the connected subnet: whoever holds a lease must answer for it.

use std::fmt::Write;

use super::place::Place;
use super::topology::{
    FAR_MTU, Masquerade, Outside, Topology, fabric, host, lease_network, node_address, node_lease_address,
    pod_network, pod_networks, router_address, second_address, second_network,
};
use super::{Trouble, netns};
use crate::addr::{Cidr, Family};

/// Name of the router's namespace.
pub(super) const ROUTER: &str = "router";
/// Name of the fabric's namespace.
const FABRIC: &str = "fabric";

/// Makes and wires every namespace of a topology.
pub(super) fn wire(topology: &Topology) -> Result<(), Trouble> {
    for name in names(topology) {
        let place = Place::named(name);
        netns::create(&place.path())?;
        prepare(&place, topology)?;
    }
    let forward = [("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")];
    let router = Place::named(ROUTER);
    router.set(&forward)?;
    router
        .set(&[("net.ipv4.conf.all.send_redirects", "0"), ("net.ipv4.conf.default.send_redirects", "0")])?;
    batch(FABRIC, &fabric_cables(topology))?;
    batch(ROUTER, &router_cables(topology))?;
    for at in Outside::BOTH {
        batch(at.name(), &outside_routes(at))?;
    }
    for node in topology.node_numbers() {
        let place = Place::named(node_name(node));
        place.set(&forward)?;
        let bridged = if topology.br_netfilter { "1" } else { "0" };
        for key in ["net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"] {
            // Without the module bridged packets do not pass netfilter either.
            if topology.br_netfilter || place.get(key).is_ok() {
                place.set(&[(key, bridged)])?;
            }
        }
        batch(place.name(), &node_routes(topology, node))?;
        masquerade(&place, topology.masquerade)?;
    }
    Ok(())
}

/// `node1` …
pub(super) fn node_name(node: u8) -> String {
    format!("node{node}")
}

fn names(topology: &Topology) -> Vec<String> {
    let fixed = [FABRIC, ROUTER, Outside::Near.name(), Outside::Far.name()];
    fixed.into_iter().map(str::to_owned).chain(topology.node_numbers().map(node_name)).collect()
}

/// Settings that devices copy when they are made; so before any is made.
pub(super) fn prepare(place: &Place, topology: &Topology) -> Result<(), Trouble> {
    let strict = if topology.strict_rp_filter { "1" } else { "0" };
    place.set(&[
        ("net.ipv4.conf.all.rp_filter", strict),
        ("net.ipv4.conf.default.rp_filter", strict),
        ("net.ipv6.conf.all.accept_dad", "0"),
        ("net.ipv6.conf.default.accept_dad", "0"),
        ("net.ipv6.conf.default.accept_ra", "0"),
    ])?;
    batch(place.name(), "link set lo up\n")
}

fn batch(name: &str, lines: &str) -> Result<(), Trouble> {
    Place::named(name).feed("ip", &["-batch", "-"], lines).map(drop)
}

fn fabric_cables(topology: &Topology) -> String {
    let mut lines = String::from("link add br0 type bridge mcast_snooping 0\nlink set br0 up\n");
    let mut plug = |name: &str| {
        let _ = writeln!(lines, "link add to-{name} type veth peer name eth0 netns {name}");
        let _ = writeln!(lines, "link set to-{name} master br0 up");
    };
    topology.node_numbers().for_each(|node| plug(&node_name(node)));
    plug(ROUTER);
    lines
}

fn router_cables(topology: &Topology) -> String {
    let mut lines = format!("link set eth0 mtu {} up\n", topology.uplink_mtu);
    for subnet in subnets() {
        lines += &on(subnet, router_address(subnet), "eth0");
    }
    for at in Outside::BOTH {
        let (name, mtu) = (at.name(), mtu(at));
        let _ =
            writeln!(lines, "link add to-{name} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {name}");
        let _ = writeln!(lines, "link set to-{name} up");
        for family in Family::BOTH {
            lines += &on(at.network(family), host(at.network(family), 1), &format!("to-{name}"));
        }
    }
    for node in topology.node_numbers() {
        for family in Family::BOTH {
            let (pods, via) = (pod_network(node, family), node_address(node, family));
            let _ = writeln!(lines, "route add {pods} via {via}");
        }
        if topology.second_uplink {
            let (name, mtu) = (node_name(node), topology.uplink_mtu);
            let _ = writeln!(
                lines,
                "link add to-{name} mtu {mtu} type veth peer name eth1 mtu {mtu} netns {name}"
            );
            let _ = writeln!(lines, "link set to-{name} up");
            for family in Family::BOTH {
                let subnet = second_network(node, family);
                lines += &on(subnet, router_address(subnet), &format!("to-{name}"));
            }
        }
    }
    lines
}

fn outside_routes(at: Outside) -> String {
    let mut lines = String::from("link set eth0 up\n");
    for family in Family::BOTH {
        lines += &on(at.network(family), at.address(family), "eth0");
        let _ = writeln!(lines, "route add default via {}", host(at.network(family), 1));
    }
    lines
}

fn node_routes(topology: &Topology, node: u8) -> String {
    let mut lines = format!("link set eth0 mtu {} up\n", topology.uplink_mtu);
    for family in Family::BOTH {
        lines += &on(fabric(family), node_address(node, family), "eth0");
        // Reachable, but never a source by choice: RFC 6724 passes over deprecated addresses. IPv4 takes the first.
        let second = on(lease_network(family), node_lease_address(node, family), "eth0");
        lines += &if family == Family::V6 { second.replace('\n', " preferred_lft 0\n") } else { second };
        let _ = writeln!(lines, "route add default via {}", router_address(fabric(family)));
        for other in topology.node_numbers().filter(|n| *n != node) {
            let (pods, via) = (pod_network(other, family), node_address(other, family));
            let _ = writeln!(lines, "route add {pods} via {via}");
        }
    }
    if topology.second_uplink {
        lines += "link set eth1 up\n";
        for family in Family::BOTH {
            let subnet = second_network(node, family);
            lines += &on(subnet, second_address(node, family), "eth1");
            let _ = writeln!(lines, "route add default via {} dev eth1 table 100", router_address(subnet));
        }
    }
    lines
}

fn on(subnet: Cidr, ip: std::net::IpAddr, dev: &str) -> String {
    let nodad = if subnet.family() == Family::V6 { " nodad" } else { "" };
    format!("addr add {ip}/{} dev {dev}{nodad}\n", subnet.prefix())
}

fn subnets() -> impl Iterator<Item = Cidr> {
    Family::BOTH.into_iter().flat_map(|f| [fabric(f), lease_network(f)])
}

fn mtu(at: Outside) -> u32 {
    match at {
        Outside::Near => 1500,
        Outside::Far => FAR_MTU,
    }
}

/// The node's own masquerade: what leaves the pod networks, and (as kindnet, flannel and many firewalls do) whatever
/// else leaves by the uplink, which is the rule that would hide leases too.
fn masquerade(node: &Place, by: Masquerade) -> Result<(), Trouble> {
    let tables = |suffix: &str| {
        for (family, program) in Family::BOTH.into_iter().zip(["iptables", "ip6tables"]) {
            let (program, pods) = (format!("{program}-{suffix}"), pod_networks(family).to_string());
            for from in [["-s", pods.as_str()], ["-o", "eth0"]] {
                let rule = ["-w", "-t", "nat", "-A", "POSTROUTING"];
                let to = ["!", "-d", &pods, "-j", "MASQUERADE"];
                node.run(&program, &[&rule[..], &from, &to].concat())?;
            }
        }
        Ok(())
    };
    match by {
        Masquerade::None | Masquerade::IpMasq => Ok(()),
        Masquerade::IptablesNft => tables("nft"),
        Masquerade::IptablesLegacy => tables("legacy"),
        Masquerade::Nft => {
            let [v4, v6] = Family::BOTH.map(pod_networks);
            let rules = format!(
                "table inet primary {{ chain post {{ type nat hook postrouting priority srcnat;\n\
                 ip saddr {v4} ip daddr != {v4} masquerade\n\
                 ip6 saddr {v6} ip6 daddr != {v6} masquerade\n\
                 oifname eth0 ip daddr != {v4} masquerade\n\
                 oifname eth0 ip6 daddr != {v6} masquerade\n}}\n}}\n"
            );
            node.feed("nft", &["-f", "-"], &rules).map(drop)
        }
    }
}
