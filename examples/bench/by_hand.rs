//! The same guarded path without Egret: wired by `ip` and `nft`, for two nodes, one gateway on each, two clients on the first.
//!
//! Every rule that stands in a packet's way in the product stands here too: pins, source checks, seat belts, identity NAT,
//! both families. What is left out is what makes it a program: numbers, order of change, repair.

mod rules;

use egret::addr::Family;
use egret::testbed::{Place, Pod, Trouble, World, node_address};

use rules::{gateway_rules, node_rules};

/// On a node `bridge` alone is the CNI plugin of that name, which lies first in its PATH.
const BRIDGE: &str = "PATH=/usr/sbin:/usr/bin:/sbin:/bin bridge";

/// A gateway made by hand.
pub(crate) struct Gateway<'a> {
    pub(crate) pod: &'a Pod,
    /// 1 and 2: names its devices, numbers and leases.
    pub(crate) number: u8,
}

impl Gateway<'_> {
    pub(crate) fn lease4(&self) -> String {
        format!("10.10.10.{}", 32 + self.number)
    }
    fn lease6(&self) -> String {
        format!("fd00:10:10::{}", 32 + self.number)
    }
    /// The next hop that stands for it in IPv6: the kernel refuses a lease that lies in the uplink's own subnet.
    fn hop6(&self) -> String {
        format!("fe80::67:{}", self.number)
    }
    fn mac(&self) -> String {
        format!("02:67:0a:0a:0a:{:02x}", 32 + self.number)
    }
    fn veth(&self) -> String {
        format!("eg{}", self.number)
    }
    fn inner_mac(&self) -> String {
        format!("02:68:00:00:01:{:02x}", self.number)
    }
    fn outer_mac(&self) -> String {
        format!("02:68:00:00:02:{:02x}", self.number)
    }
}

fn node_mac(node: u8) -> String {
    format!("02:65:ac:1e:00:{node:02x}")
}

/// Wires both nodes, both gateways, and lets each client use the gateway of its number.
pub(crate) fn wire(world: &World, gateways: &[Gateway<'_>], clients: &[(&Pod, u8)]) -> Result<(), Trouble> {
    let nodes: Vec<u8> = gateways.iter().map(|g| g.pod.node).collect();
    for number in &nodes {
        node(&world.node(*number), *number, &nodes)?;
    }
    for gateway in gateways {
        inside(world, gateway, &nodes)?;
        for number in &nodes {
            reach(&world.node(*number), *number, gateway)?;
        }
    }
    let node = world.node(clients.first().map_or(1, |(pod, _)| pod.node));
    for (pod, number) in clients {
        for (family, name) in [(Family::V4, "4"), (Family::V6, "6")] {
            if let Some(ip) = pod.address(family) {
                nft(
                    &node,
                    &format!("add element inet egret binding{name} {{ {ip} : goto binding{number} }}\n"),
                )?;
            }
        }
    }
    Ok(())
}

fn ip(place: &Place, lines: &[String]) -> Result<(), Trouble> {
    for (family, both) in [("-4", true), ("-6", false)] {
        // A line for both families begins with `*`, one for IPv6 alone with `6`.
        let batch: String = lines
            .iter()
            .filter_map(|line| match line.split_at(1) {
                ("*", rest) => Some(rest),
                ("6", rest) if !both => Some(rest),
                ("4", rest) if both => Some(rest),
                _ => None,
            })
            .map(|line| format!("{line}\n"))
            .collect();
        place.feed("ip", &[family, "-batch", "-"], &batch)?;
    }
    Ok(())
}

fn nft(place: &Place, script: &str) -> Result<(), Trouble> {
    place.feed("nft", &["-f", "-"], script).map(drop)
}

/// What every device of this path needs.
fn device(place: &Place, dev: &str) -> Result<(), Trouble> {
    place.sh(&format!("ip link set {dev} group 4097 addrgenmode none"))?;
    let slashed = dev.replace('.', "/");
    place.set(&[
        (&format!("net.ipv4.conf.{slashed}.rp_filter"), "2"),
        (&format!("net.ipv4.conf.{slashed}.send_redirects"), "0"),
        (&format!("net.ipv6.conf.{slashed}.accept_ra"), "0"),
    ])
}

fn node(place: &Place, number: u8, nodes: &[u8]) -> Result<(), Trouble> {
    let (mac, own) = (node_mac(number), node_address(number, Family::V4));
    place.sh(&format!(
        "ip link add egress.vxlan address {mac} type vxlan id 4097 dstport 4790 local {own} nolearning"
    ))?;
    device(place, "egress.vxlan")?;
    place.set(&[("net.ipv4.fib_multipath_hash_policy", "1"), ("net.ipv6.fib_multipath_hash_policy", "1")])?;
    let mut lines = vec![
        "4link set egress.vxlan mtu 1450 up".to_owned(),
        "4addr add 169.254.77.1/32 dev egress.vxlan scope link".into(),
        "*rule add pref 90 fwmark 0x7f/0x7f lookup 4790".into(),
        "*rule add pref 199 not fwmark 0/0x7f type unreachable".into(),
        "*route add unreachable default metric 4294967295 table 4790".into(),
        "4neigh replace 169.254.77.254 lladdr 02:65:00:00:00:00 dev egress.vxlan nud permanent".into(),
        "6neigh replace fe80::77:254 lladdr 02:65:00:00:00:00 dev egress.vxlan nud permanent".into(),
        "4route add default via 169.254.77.254 dev egress.vxlan onlink table 4790".into(),
        "6route add default via fe80::77:254 dev egress.vxlan onlink table 4790".into(),
    ];
    for set in [1, 2] {
        lines.push(format!("*rule add pref 10{set} fwmark {set}/0x7f lookup 100{set}"));
        lines.push(format!("*route add unreachable default metric 4294967295 table 100{set}"));
    }
    ip(place, &lines)?;
    nft(place, &node_rules(nodes))
}

/// The gateway pod's own namespace, and its node's end of the veth.
fn inside(world: &World, gateway: &Gateway<'_>, nodes: &[u8]) -> Result<(), Trouble> {
    let (node, pod) = (world.node(gateway.pod.node), gateway.pod.place());
    let own = node_address(gateway.pod.node, Family::V4);
    let (veth, vni) = (gateway.veth(), 5000 + u32::from(gateway.number));
    let (e4, e6) = (gateway.lease4(), gateway.lease6());
    let (inner, outer, name) = (gateway.inner_mac(), gateway.outer_mac(), pod.name());
    node.sh(&format!(
        "ip link add vx address {} type vxlan id {vni} dstport 4790 local {own} nolearning
         ip link set vx netns {name} name vxlan0
         ip link add {veth} address {outer} type veth peer name egress0 address {inner} netns {name}",
        gateway.mac()
    ))?;
    device(&node, &veth)?;
    node.set(&[
        (&format!("net.ipv4.conf.{veth}.accept_local"), "1"),
        ("net.ipv4.neigh.eth0.proxy_delay", "0"),
    ])?;
    ip(
        &node,
        &[
            format!("4addr add 169.254.77.253/32 dev {veth} scope link"),
            format!("4link set {veth} up"),
            format!("4neigh replace {e4} lladdr {inner} dev {veth} nud permanent"),
            format!("6neigh replace {e6} lladdr {inner} dev {veth} nud permanent"),
            format!("4route add {e4} dev {veth} src {own}"),
            format!("6route add {e6} dev {veth}"),
            format!("4neigh add proxy {e4} dev eth0"),
        ],
    )?;
    nft(
        &node,
        &format!(
            "add element inet egret lease4 {{ {veth} . {e4} }}\nadd element inet egret lease6 {{ {veth} . {e6} }}\n"
        ),
    )?;
    for dev in ["vxlan0", "egress0"] {
        device(pod, dev)?;
    }
    pod.set(&[
        ("net.ipv4.conf.vxlan0.forwarding", "1"),
        ("net.ipv4.conf.egress0.forwarding", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
    ])?;
    let lines = vec![
        "4link set vxlan0 mtu 1450 up".to_owned(),
        "4link set egress0 up".into(),
        "4addr add 169.254.77.1/32 dev vxlan0 scope link".into(),
        format!("4addr add {e4}/32 dev egress0"),
        format!("6addr add {e6}/128 dev egress0 nodad"),
        format!("4neigh replace 169.254.77.253 lladdr {outer} dev egress0 nud permanent"),
        format!("6neigh replace fe80::77:253 lladdr {outer} dev egress0 nud permanent"),
        "4neigh replace 169.254.77.254 lladdr 02:65:00:00:00:00 dev vxlan0 nud permanent".into(),
        "6neigh replace fe80::77:254 lladdr 02:65:00:00:00:00 dev vxlan0 nud permanent".into(),
        "4route add default via 169.254.77.253 dev egress0 onlink table 4791".into(),
        "6route add default via fe80::77:253 dev egress0 onlink table 4791".into(),
        "4route add default via 169.254.77.254 dev vxlan0 onlink table 4790".into(),
        "6route add default via fe80::77:254 dev vxlan0 onlink table 4790".into(),
        "*rule add pref 100 iif vxlan0 lookup 4791".into(),
        "*rule add pref 101 fwmark 0x4000/0x4000 lookup 4791".into(),
        "*rule add pref 102 not fwmark 0/0x3fff lookup 4790".into(),
        "*rule add pref 103 iif egress0 lookup 4791".into(),
        format!("4rule add pref 104 from {e4} lookup 4791"),
        format!("6rule add pref 104 from {e6} lookup 4791"),
    ];
    ip(pod, &lines)?;
    for other in nodes.iter().filter(|n| **n != gateway.pod.node) {
        let (mac, at) = (node_mac(*other), node_address(*other, Family::V4));
        pod.sh(&format!("{BRIDGE} fdb replace {mac} dev vxlan0 dst {at} vni 4097"))?;
    }
    let numbered = |flip: bool| {
        let one =
            |n: &u8| if flip { format!("{n} : {}", node_mac(*n)) } else { format!("{} : {n}", node_mac(*n)) };
        nodes.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    nft(pod, &gateway_rules(&e4, &e6, &numbered(false), &numbered(true)))
}

/// How a node reaches a gateway: next hop, set, pin.
fn reach(place: &Place, node: u8, gateway: &Gateway<'_>) -> Result<(), Trouble> {
    let n = gateway.number;
    let (e4, e6, mac, pin) = (gateway.lease4(), gateway.hop6(), gateway.mac(), u32::from(n) << 8);
    let mut lines = Vec::new();
    let rules = if node == gateway.pod.node {
        let (veth, slot, table) = (gateway.veth(), 0x60 + n, 4800 + u32::from(n));
        lines.extend([
            format!("6neigh replace {e6} lladdr {} dev {veth} nud permanent", gateway.inner_mac()),
            format!("4nexthop replace id {n} via {e4} dev {veth} onlink"),
            format!("6nexthop replace id {} via {e6} dev {veth} onlink", 1000 + u32::from(n)),
            format!("*route add unreachable default metric 4294967295 table {table}"),
            format!("*rule add pref 91 fwmark {slot}/0x7f lookup {table}"),
            format!("4route add default nhid {n} table {table}"),
            format!("6route add default nhid {} table {table}", 1000 + u32::from(n)),
        ]);
        format!(
            "add chain inet egret to_gateway{n}
             add rule inet egret to_gateway{n} meta mark set meta mark & 0xffffff80 | {slot}
             add rule inet egret to_gateway{n} accept
             add element inet egret pinned {{ {pin} : goto to_gateway{n} }}\n"
        )
    } else {
        let at = node_address(gateway.pod.node, Family::V4);
        lines.extend([
            format!("4neigh replace {e4} lladdr {mac} dev egress.vxlan nud permanent"),
            format!("6neigh replace {e6} lladdr {mac} dev egress.vxlan nud permanent"),
            format!("4nexthop replace id {n} via {e4} dev egress.vxlan onlink"),
            format!("6nexthop replace id {} via {e6} dev egress.vxlan onlink", 1000 + u32::from(n)),
        ]);
        let vni = 5000 + u32::from(n);
        place.sh(&format!("{BRIDGE} fdb replace {mac} dev egress.vxlan dst {at} vni {vni}"))?;
        format!(
            "add element netdev egret mac {{ {pin} : {mac} }}
             add element inet egret pinned {{ {pin} : goto to_tunnel }}\n"
        )
    };
    ip(place, &lines)?;
    // Groups have no family of their own.
    place.sh(&format!(
        "ip nexthop replace id 10{n} group {n}; ip nexthop replace id 110{n} group {}",
        1000 + u32::from(n)
    ))?;
    let routes = [
        format!("4route replace default nhid 10{n} table 100{n}"),
        format!("6route replace default nhid 110{n} table 100{n}"),
    ];
    ip(place, &routes)?;
    nft(
        place,
        &format!(
            "{rules}add chain inet egret pin_gateway{n}
             add rule inet egret pin_gateway{n} ct mark set ct mark & 0x000000ff | {pin}
             add element inet egret pin4 {{ {e4} : goto pin_gateway{n} }}
             add element inet egret pin6 {{ {e6} : goto pin_gateway{n} }}\n"
        ),
    )
}
