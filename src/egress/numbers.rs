//! Every name and number that we own in a kernel, with the reason for each. Nothing else is ever touched.
//!
//! In: nothing. Out: constants, and the [`Scope`]s that `observe` may look at. Never: state.
//!
//! A number that changes between releases stays here as *former*: observed, so that it is cleaned away, never desired.
//! What users may move (mark mask, port, VNI) is in the configuration; everything else derives from it and from here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addr::Mac;
use crate::kernel::state::{NftFamily, Scope};

/// Link group of every device of ours, so that one `-m devgroup` rule in a foreign firewall serves any number of gateways.
/// Equal to the tunnel's default VNI, to be remembered once.
pub const LINK_GROUP: u32 = 4097;

/// First VNI of a gateway: clear of the nodes' own by default; one that the configuration puts above it is given to no gateway.
pub const FIRST_VNI: u32 = 5000;

/// Route protocol of our routes, rules, nexthops and proxy neighbours. Unassigned in iproute2's `rt_protos` and in the daemons
/// known to us; a router daemon can export leases by it (BIRD: `krt_source = 65`).
pub const PROTOCOL: u8 = 65;

/// nftables table, in `inet` and in `netdev`.
pub const NFT_TABLE: &str = "egret";
/// nftables table that belongs to the agent's process, as long as its node has a plan: it outlives a flushed ruleset, has no hook and does
/// nothing but ask that packets be tracked. Not in any [`Scope`]: it goes with its process, and nobody else can delete it.
pub const TRACKING_TABLE: &str = "egret-tracking";

/// The node's tunnel device.
pub const TUNNEL: &str = "egress.vxlan";
/// Prefix of the node's end of a local gateway's veth; nine hexadecimal digits of its attachment's hash follow.
pub const VETH_PREFIX: &str = "eg";
/// The tunnel's device in a gateway's namespace.
pub const GATEWAY_TUNNEL: &str = "vxlan0";
/// The device in a gateway's namespace that holds the lease and leads outside.
pub const GATEWAY_VETH: &str = "egress0";

/// Rule priority of the tunnel's table. Below every primary's own rules (AWS 512–1536, Cilium 9–111 excepted: those match
/// other marks), above `main`.
pub const PRIORITY_TUNNEL: u32 = 700;
/// Rule priority of local gateways' tables.
pub const PRIORITY_LOCAL: u32 = 710;
/// Rule priority of the way past the sets: what carries no mark of ours, which is nearly all, goes on at [`PRIORITY_BEHIND`]. Rules are a
/// list that every look-up reads (1.2 to 1.7 µs more for a round trip with 90 sets). The three stand next to each other, so that
/// nothing is jumped over but what is ours.
pub const PRIORITY_PAST: u32 = PRIORITY_SETS - 1;
/// Rule priority of gateway sets' tables: one priority for all, so that their number costs nothing to read.
pub const PRIORITY_SETS: u32 = 720;
/// Rule priority of where the jump ends. The brake comes later: it is for packets without a mark.
pub const PRIORITY_BEHIND: u32 = PRIORITY_SETS + 1;
/// Rule priority of the brake: a client's address, as long as the rules that decide about it are gone → unreachable. Behind those
/// that lead somewhere, so that it stops nothing that is decided. Only the agent adds these, and for a moment.
pub const PRIORITY_BRAKE: u32 = 790;
/// Rule priority of the belt: marked, but nobody's any more → unreachable.
pub const PRIORITY_BELT: u32 = 799;

/// Rule priorities in a gateway's namespace, in the order in which they are asked.
pub mod gateway_priority {
    /// From the tunnel → outside.
    pub const FROM_TUNNEL: u32 = 700;
    /// Marked as travelling by `egress0` → outside.
    pub const BY_VETH: u32 = 701;
    /// Marked with a client's node → tunnel.
    pub const TO_NODE: u32 = 702;
    /// From `egress0` (a local client, both ways) → outside.
    pub const FROM_VETH: u32 = 703;
    /// From the lease itself: probes and answers of the gateway → outside.
    pub const FROM_LEASE: u32 = 704;
}

/// First routing table; a mark's table is this plus the mark's number. Far above what people and daemons use by hand.
pub const TABLES: u32 = 479_000;
/// In a gateway's namespace: the way to the outside.
pub const TABLE_OUTSIDE: u32 = TABLES + 1;
/// In a gateway's namespace: the way back to clients, by the tunnel.
pub const TABLE_CLIENTS: u32 = TABLES + 2;
/// Table `main` (RT_TABLE_MAIN).
pub const TABLE_MAIN: u32 = 254;
/// Metric of the belt at the end of every table of ours: the last one there is.
pub const LAST_METRIC: u32 = u32::MAX;

/// Numbers in the packet mark (shifted to the configured mask). 0 is "not ours".
pub mod mark {
    /// Gateway sets: 0x01–0x5f.
    pub const SETS: std::ops::RangeInclusive<u8> = 0x01..=0x5f;
    /// Slots: what a local pod gateway, or an interface by which this node's own gateways leave, is called: 0x60–0x7d. Each has a
    /// table. Which address a node gateway's packet leaves with is in its connection mark, so interfaces suffice here. (0x7e is spare.)
    pub const LOCALS: std::ops::RangeInclusive<u8> = 0x60..=0x7d;
    /// Into the tunnel; the egress hook finds the gateway by the pin.
    pub const TUNNEL: u8 = 0x7f;
}

/// Bits of the connection mark that are ours; the low byte is foreign and always preserved.
pub const PIN_MASK: u32 = 0xffff_ff00;
/// A pin is a gateway's number at this shift; bit 31 clear.
pub const PIN_SHIFT: u32 = 8;
/// Highest gateway number: one below [`PIN_DEAD`]'s.
pub const LAST_GATEWAY: u32 = 0x7f_fffe;
/// The pin of a flow whose pod was moved off its gateway: never in a map, so it takes the not-found path.
pub const PIN_DEAD: u32 = 0x7fff_ff00;
/// Set in the connection mark where this node is the gateway: the bits below are no gateway's number but the node gateway's index
/// ([`EXIT_MASK`]) and the client's node ([`CLIENT_MASK`]).
pub const PIN_IS_EXIT: u32 = 0x8000_0000;
/// The bits that say *which* node gateway: [`PIN_IS_EXIT`], and the index (1–511) at [`EXIT_SHIFT`].
pub const EXIT_MASK: u32 = 0xffc0_0000;
/// Where the index stands.
pub const EXIT_SHIFT: u32 = 22;
/// Highest index: nine bits are what fourteen for the client's node leave.
pub const LAST_EXIT: u16 = 511;
/// The bits that say whose node the client is on: [`PIN_IS_EXIT`], and the node's number at [`PIN_SHIFT`].
pub const CLIENT_MASK: u32 = PIN_IS_EXIT | NODE_MASK << PIN_SHIFT;

/// In a gateway's namespace the mark is the client's node (1–0x3fff) …
pub const NODE_MASK: u32 = 0x3fff;
/// … or this: the packet travels by `egress0`, to the outside or to a client of the gateway's own node.
pub const BY_VETH: u32 = 0x4000;

/// Nexthop ids of single gateways: this plus twice the gateway's number, plus one for IPv6 (one object serves one family).
pub const NEXTHOPS: u32 = 0x0e00_0000;
/// Nexthop ids of groups: this plus twice the set's number, plus one for IPv6. Above every gateway's.
pub const NEXTHOP_GROUPS: u32 = 0x0f00_0000;

/// Address of tunnel devices. `rp_filter=2` on a device without an address drops (measured), so each has one; `scope link`
/// keeps it from being chosen as a source.
pub const TUNNEL_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 1);
/// Address of the node's end of a gateway's veth.
pub const VETH_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 253);
/// The same for IPv6; never configured, only a next hop with a permanent neighbour.
pub const VETH_ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x77, 0x253);
/// Next hop into the tunnel: a place holder, because the egress hook writes the real MAC.
pub const TUNNEL_NEXT_HOP: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 254);
/// The same for IPv6.
pub const TUNNEL_NEXT_HOP6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x77, 0x254);

/// MAC of the node's end of every gateway veth; each is alone on its wire, so one is enough.
pub const VETH_MAC: Mac = Mac([0x02, 0x66, 0, 0, 0, 1]);

/// Who a node is on the wire: `02:65` and its four wire bytes.
pub fn node_mac(wire: Ipv4Addr) -> Mac {
    mac(0x65, wire)
}

/// Who a gateway is on the wire: `02:67` and the four bytes of its egress IPv4 (or of 240.0.0.0/4).
pub fn gateway_mac(wire: Ipv4Addr) -> Mac {
    mac(0x67, wire)
}

/// Who a node gateway is on the wire: `02:68` and four bytes of 240.0.0.0/4 that follow from its key, so that every node finds the
/// same without asking. Two keys of one node that meet (one in 2^28) are a problem, and the second is not served.
pub fn exit_mac(key: &str) -> Mac {
    // 255.255.255.255 is no next hop.
    let hash = (crate::hash::stable32(key.as_bytes()) & 0x0fff_ffff).min(0x0fff_fffe);
    mac(EXIT_MAC, Ipv4Addr::from(0xf000_0000 | hash))
}

/// The connection mark's bits of a node gateway.
pub fn exit_mark(index: u16) -> u32 {
    PIN_IS_EXIT | u32::from(index) << EXIT_SHIFT
}

/// The connection mark's bits of a client's node.
pub fn client_mark(node: u16) -> u32 {
    PIN_IS_EXIT | u32::from(node) << PIN_SHIFT
}

/// MAC of `egress0` of the gateway that is `gateway` on the wire.
pub fn egress0_mac(gateway: Mac) -> Mac {
    let mut bytes = gateway.0;
    bytes[1] = 0x66;
    Mac(bytes)
}

/// The next hop that stands for a gateway on client nodes. IPv4: its egress address, `onlink`. IPv6: `fe80::67:` and the last four
/// bytes of its MAC, because IPv6 refuses even an `onlink` gateway that `main` reaches by another device ("device mismatch"), and
/// a lease usually lies in the uplink's own subnet. Link-local next hops are exempt from that check.
///
/// A node gateway's address cannot be its next hop: several may share one node's address, and `main` knows the way to it. So it is
/// the four bytes of its MAC in IPv4 too.
pub fn gateway_next_hop(gateway: Mac, address: IpAddr) -> IpAddr {
    let [_, kind, a, b, c, d] = gateway.0;
    let [x, y] = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
    match address {
        IpAddr::V4(_) if kind == EXIT_MAC => Ipv4Addr::new(a, b, c, d).into(),
        IpAddr::V4(_) => address,
        IpAddr::V6(_) if kind == EXIT_MAC => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x68, x, y).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x67, x, y).into(),
    }
}

/// Second byte of a node gateway's MAC.
const EXIT_MAC: u8 = 0x68;

fn mac(kind: u8, wire: Ipv4Addr) -> Mac {
    let [a, b, c, d] = wire.octets();
    Mac([0x02, kind, a, b, c, d])
}

/// The next hop into the tunnel in a family.
pub fn tunnel_next_hop(family: crate::addr::Family) -> IpAddr {
    match family {
        crate::addr::Family::V4 => TUNNEL_NEXT_HOP.into(),
        crate::addr::Family::V6 => TUNNEL_NEXT_HOP6.into(),
    }
}

/// The node's end of a gateway's veth, as next hop, in a family.
pub fn veth_next_hop(family: crate::addr::Family) -> IpAddr {
    match family {
        crate::addr::Family::V4 => VETH_ADDRESS.into(),
        crate::addr::Family::V6 => VETH_ADDRESS6.into(),
    }
}

/// Everything of ours in a node's namespace.
pub fn node_scope() -> Scope {
    Scope {
        link_group: LINK_GROUP,
        protocol: PROTOCOL,
        rule_priorities: vec![
            PRIORITY_TUNNEL,
            PRIORITY_LOCAL,
            PRIORITY_PAST,
            PRIORITY_SETS,
            PRIORITY_BEHIND,
            PRIORITY_BRAKE,
            PRIORITY_BELT,
        ],
        nexthop_ids: NEXTHOPS..=NEXTHOP_GROUPS + 2 * u32::from(*mark::SETS.end()) + 1,
        tables: vec![(NftFamily::Inet, NFT_TABLE.to_owned()), (NftFamily::Netdev, NFT_TABLE.to_owned())],
    }
}

/// Everything of ours in a gateway's namespace.
pub fn gateway_scope() -> Scope {
    use gateway_priority::{BY_VETH, FROM_LEASE, FROM_TUNNEL, FROM_VETH, TO_NODE};
    Scope { rule_priorities: vec![FROM_TUNNEL, BY_VETH, TO_NODE, FROM_VETH, FROM_LEASE], ..node_scope() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranges_do_not_meet() {
        assert!(mark::SETS.end() < mark::LOCALS.start() && *mark::LOCALS.end() < mark::TUNNEL);
        const { assert!(EXIT_MASK & CLIENT_MASK == PIN_IS_EXIT && EXIT_MASK | CLIENT_MASK == PIN_MASK) };
        assert_eq!(exit_mark(LAST_EXIT), EXIT_MASK);
        const { assert!(PRIORITY_LOCAL < PRIORITY_PAST && PRIORITY_BEHIND < PRIORITY_BRAKE) };
        const { assert!(NEXTHOPS + 2 * LAST_GATEWAY + 1 < NEXTHOP_GROUPS) };
        const { assert!((LAST_GATEWAY + 1) << PIN_SHIFT == PIN_DEAD && PIN_DEAD & PIN_IS_EXIT == 0) };
        const { assert!(TABLE_CLIENTS < TABLES + mark::TUNNEL as u32) };
    }
}
