//! What the hand-made path has in nftables, on a node and in a gateway.
//!
//! In: nodes, addresses, elements of maps. Out: scripts for `nft -f`. Never: starts anything.

use egret::addr::Family;
use egret::testbed::{node_address, pod_networks};

pub(super) fn node_rules(nodes: &[u8]) -> String {
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

pub(super) fn gateway_rules(e4: &str, e6: &str, by_mac: &str, by_number: &str) -> String {
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
