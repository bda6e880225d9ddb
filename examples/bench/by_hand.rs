//! The same guarded path without Egret: wired by `ip` and `nft`, for two nodes, one gateway on each, two clients on the first.
//!
//! Every rule that stands in a packet's way in the product stands here too: pins, source checks, seat belts, identity NAT,
//! both families. What is left out is what makes it a program: numbers, order of change, repair.

use egret::addr::Family;
use egret::testbed::{Place, Pod, Trouble, World, node_address, pod_networks};

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

fn node_rules(nodes: &[u8]) -> String {
    let [pods4, pods6] = Family::BOTH.map(pod_networks);
    let list =
        |family| nodes.iter().map(|n| node_address(*n, family).to_string()).collect::<Vec<_>>().join(", ");
    let (nodes4, nodes6) = (list(Family::V4), list(Family::V6));
    let binding = |set: u8| {
        format!(
            "chain binding{set} {{
               ct direction reply accept
               ct mark & 0xffffff00 != 0 jump pinned_flow
               ip daddr @direct4 accept
               ip6 daddr @direct6 accept
               ct state invalid counter drop
               fib saddr . iif oif missing counter drop
               meta mark set meta mark & 0xffffff80 | {set}
             }}"
        )
    };
    let (binding1, binding2) = (binding(1), binding(2));
    format!(
        "table inet egret {{
           map binding4 {{ type ipv4_addr : verdict; }}
           map binding6 {{ type ipv6_addr : verdict; }}
           set direct4 {{ type ipv4_addr; flags interval; elements = {{ {pods4}, 172.30.0.0/24, 10.10.10.0/24, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/4, 255.255.255.255 }} }}
           set direct6 {{ type ipv6_addr; flags interval; elements = {{ {pods6}, fd00:172:30::/64, ::1, fe80::/10, ff00::/8 }} }}
           map pin4 {{ type ipv4_addr : verdict; }}
           map pin6 {{ type ipv6_addr : verdict; }}
           map pinned {{ type mark : verdict; }}
           set lease4 {{ type ifname . ipv4_addr; }}
           set lease6 {{ type ifname . ipv6_addr; }}
           set nodes4 {{ type ipv4_addr; elements = {{ {nodes4} }} }}
           set nodes6 {{ type ipv6_addr; elements = {{ {nodes6} }} }}
           chain to_tunnel {{
             meta mark set meta mark & 0xffffff80 | 0x7f
             accept
           }}
           chain pinned_flow {{
             fib saddr . iif oif missing counter drop
             ct mark & 0xffffff00 vmap @pinned
           }}
           {binding1}
           {binding2}
           chain from_us {{
             ct direction reply accept
             iifname . ip saddr @lease4 accept
             iifname . ip6 saddr @lease6 accept
             ip6 daddr ff02::/16 drop
             counter drop
           }}
           chain prerouting {{ type filter hook prerouting priority dstnat + 10; policy accept;
             iifgroup 4097 goto from_us
             ip saddr vmap @binding4
             ip6 saddr vmap @binding6
           }}
           chain guard {{
             ip daddr @nodes4 counter drop
             ip6 daddr @nodes6 counter drop
           }}
           chain forward {{ type filter hook forward priority mangle; policy accept;
             meta mark & 0x7f != 0 oifgroup != 4097 counter drop
             tcp flags & (syn | rst) == syn oifname \"egress.vxlan\" tcp option maxseg size set rt mtu
             udp dport 4790 goto guard
           }}
           chain input {{ type filter hook input priority mangle; policy accept;
             udp dport 4790 ip saddr != @nodes4 counter drop
             udp dport 4790 ip6 saddr != @nodes6 counter drop
           }}
           chain output {{ type route hook output priority mangle; policy accept;
             ct state related ct direction original ct mark & 0xffffff00 vmap @pinned
           }}
           chain srcnat {{ type nat hook postrouting priority srcnat - 10; policy accept;
             oifgroup 4097 meta mark & 0x7f != 0 snat ip to ip saddr
             oifgroup 4097 meta mark & 0x7f != 0 snat ip6 to ip6 saddr
             iifname . ip saddr @lease4 snat ip to ip saddr
             iifname . ip6 saddr @lease6 snat ip6 to ip6 saddr
           }}
           chain pin {{
             rt ip nexthop vmap @pin4
             rt ip6 nexthop vmap @pin6
           }}
           chain postrouting {{ type filter hook postrouting priority srcnat + 250; policy accept;
             meta mark & 0x7f == 0 accept
             oifgroup != 4097 accept
             meta mark & 0x7f < 0x60 jump pin
             oifname \"egress.vxlan\" meta mark set ct mark
           }}
         }}
         table netdev egret {{
           map mac {{ type mark : ether_addr; }}
           chain out {{ type filter hook egress device \"egress.vxlan\" priority 0;
             ether daddr set meta mark & 0xffffff00 map @mac
             meta mark set 0
           }}
         }}\n"
    )
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

fn gateway_rules(e4: &str, e6: &str, by_mac: &str, by_number: &str) -> String {
    format!(
        "table inet egret {{
           map node {{ type ether_addr : mark; elements = {{ {by_mac} }} }}
           chain from_tunnel {{
             ct direction reply counter drop
             ct mark set ether saddr map @node
             ct mark 0 counter drop
           }}
           chain prerouting {{ type filter hook prerouting priority mangle; policy accept;
             iifname {{ vxlan0, egress0 }} ct state invalid counter drop
             iifname vxlan0 jump from_tunnel
             iifname egress0 ct direction original ct mark set 0x4000
             iifname egress0 ct direction reply meta mark set ct mark
           }}
           chain output {{ type route hook output priority mangle; policy accept;
             ct state related ct mark != 0 ct direction original meta mark set 0x4000
             ct state related ct mark != 0 ct direction reply meta mark set ct mark
           }}
           chain input {{ type filter hook input priority filter; policy accept;
             iifname vxlan0 counter drop
             iifname egress0 ct state new meta l4proto != {{ icmp, icmpv6 }} counter drop
           }}
           chain forward {{ type filter hook forward priority mangle; policy accept;
             oifname vxlan0 tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
           }}
           chain srcnat {{ type nat hook postrouting priority srcnat; policy accept;
             oifname egress0 meta iifname {{ vxlan0, egress0 }} snat ip to {e4}
             oifname egress0 meta iifname {{ vxlan0, egress0 }} snat ip6 to {e6}
           }}
           chain postrouting {{ type filter hook postrouting priority srcnat + 200; policy accept;
             oifname != egress0 accept
             ct direction reply accept
             ip saddr {e4} accept
             ip6 saddr {e6} accept
             ip6 daddr ff00::/8 drop
             counter drop
           }}
         }}
         table netdev egret {{
           map mac {{ type mark : ether_addr; elements = {{ {by_number} }} }}
           chain out {{ type filter hook egress device \"vxlan0\" priority 0;
             ether daddr set meta mark map @mac
             meta mark set 0
           }}
         }}\n"
    )
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
