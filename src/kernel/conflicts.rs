//! Who else uses our numbers here, asked once, before anything is written; and what this machine lacks, asked when something failed.
//!
//! In: a place, our marks of ownership, our mark bits, our tunnel's name and UDP port. Out: sentences that say who and what to do; none if all is
//! well. Never: changes anything.

use super::netlink::{link, nexthop, rule};
use super::observe::{KernelError, open, reading};
use super::state::Scope;
use super::{Netns, Place};
use super::{nft, probe};

/// Looks for overlaps in a namespace.
pub fn conflicts(
    place: &Place<'_>,
    scope: &Scope,
    mark_mask: u32,
    (tunnel, port): (&str, u16),
) -> Result<Vec<String>, KernelError> {
    let mut found = Vec::new();
    rules(place.here, scope, mark_mask, &mut found)?;
    nexthops(place.here, scope, &mut found)?;
    tunnels(place.here, scope, (tunnel, port), &mut found)?;
    Ok(found)
}

/// What this machine cannot do although we need it: the egress hook, an `nft` that knows it, and the way back in `input`. Asking costs a grace period of RCU
/// and a process (20 ms), so it is asked when something could not be loaded, to say why, and not before each first wiring.
pub fn lacks(here: &Netns) -> Vec<String> {
    let hook = (!probe::has_netdev_egress(here)).then(|| {
        "this kernel cannot filter packets as they leave a device (nftables `netdev` family, hook `egress`); Egret needs \
         Linux 5.19 or later with CONFIG_NETFILTER_EGRESS and CONFIG_NF_TABLES_NETDEV"
            .to_owned()
    });
    let nft = nft::load::require().err().map(|error| error.to_string());
    let way_back = if nft.is_none() { probe::way_back(here).err() } else { None };
    let way_back = way_back.map(|why| {
        format!(
            "no rule can ask here for the way back of a packet that comes in (nftables `fib saddr . iif oif`, hook `input`), for which Egret \
             needs Linux 5.19 or later with CONFIG_NFT_FIB_INET: {why}"
        )
    });
    hook.into_iter().chain(nft).chain(way_back).collect()
}

fn rules(here: &Netns, scope: &Scope, mark_mask: u32, found: &mut Vec<String>) -> Result<(), KernelError> {
    let mut socket = open(here)?;
    let dump = socket.dump(&rule::list()).map_err(reading("policy rules"))?;
    for known in dump.iter().filter_map(rule::read) {
        let at_ours = scope.rule_priorities.contains(&known.priority);
        if known.protocol == scope.protocol && at_ours {
            continue;
        }
        let (family, priority, owner) = (known.family, known.priority, maker(known.protocol));
        if at_ours {
            found.push(format!(
                "{family} policy rule {priority} ({owner}) stands at one of Egret's priorities; move it to another (`ip rule`)"
            ));
        }
        if let Some((value, mask)) = known.mark.filter(|(value, mask)| value & mask & mark_mask != 0) {
            found.push(format!(
                "{family} policy rule {priority} ({owner}) looks at packet mark {value:#x}/{mask:#x}, which overlaps Egret's bits \
                 {mark_mask:#x}; set `markMask` to seven adjacent bits that nobody uses"
            ));
        }
    }
    Ok(())
}

fn nexthops(here: &Netns, scope: &Scope, found: &mut Vec<String>) -> Result<(), KernelError> {
    let mut socket = open(here)?;
    let dump = match socket.dump(&nexthop::list()) {
        Ok(dump) => dump,
        Err(refusal) if refusal.errno == libc::EOPNOTSUPP => {
            found.push(KernelError::NoNexthops.to_string());
            return Ok(());
        }
        Err(refusal) => return Err(reading("nexthop objects")(refusal)),
    };
    for object in dump.iter().filter_map(nexthop::read) {
        if object.protocol != scope.protocol && scope.nexthop_ids.contains(&object.id) {
            found.push(format!(
                "nexthop object {} ({}) lies among Egret's ids {} to {}; its owner must use others",
                object.id,
                maker(object.protocol),
                scope.nexthop_ids.start(),
                scope.nexthop_ids.end()
            ));
        }
    }
    Ok(())
}

fn tunnels(
    here: &Netns,
    scope: &Scope,
    (tunnel, port): (&str, u16),
    found: &mut Vec<String>,
) -> Result<(), KernelError> {
    let mut socket = open(here)?;
    let dump = socket.dump(&link::list()).map_err(reading("devices"))?;
    for device in dump.iter().filter_map(link::read) {
        if device.name == tunnel && device.group != scope.link_group {
            found.push(format!(
                "device {tunnel} is not Egret's (link group {}, not {}), and Egret needs the name; remove it, or give it another \
                 (`ip link set {tunnel} name …`)",
                device.group, scope.link_group
            ));
            continue;
        }
        let Some(vxlan) = device.vxlan().filter(|vxlan| vxlan.port == port) else { continue };
        if device.group != scope.link_group {
            found.push(format!(
                "VXLAN device {} (VNI {}) uses UDP port {port}, Egret's tunnel port; set `underlay.port` to a free one, equal on \
                 all nodes",
                device.name, vxlan.vni
            ));
        }
    }
    Ok(())
}

/// Who makes objects with a protocol number (`/etc/iproute2/rt_protos`, `linux/rtnetlink.h`).
fn maker(protocol: u8) -> String {
    let name = match protocol {
        0 => return "no protocol number: made by hand, or by a program that gives none".to_owned(),
        2 => "the kernel",
        3 => "`ip` by hand or script",
        4 => "an administrator's `static`",
        11 => "zebra, as FRR uses it",
        12 => "bird",
        16 => "dhcp",
        186 => "bgp",
        188 => "ospf",
        _ => return format!("protocol {protocol}, see /etc/iproute2/rt_protos"),
    };
    format!("protocol {protocol}: {name}")
}
