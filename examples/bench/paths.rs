//! Round trip and TCP throughput: direct, through a gateway of the node, through one of another node; ours beside the same
//! path wired by hand, in one world. Then ours with one client on the node and with a thousand.

use std::net::IpAddr;

use egret::addr::Family;
use egret::testbed::{Outside, Pod, Trouble, World};

use crate::by_hand::{self, Gateway};
use crate::neighbours::{Neighbours, reconcile};
use crate::rows::{Pairs, Rows, Target};
use crate::world::{LEASES, pools, raise};
use crate::{Arguments, traffic};

const CLIENTS: usize = 1_000;

/// Nodes 1 and 2 are Egret's, 3 and 4 are wired by hand; router and outside are the same.
pub(crate) fn measure(arguments: &Arguments, rows: &mut Rows) -> Result<(), Trouble> {
    let world = raise(arguments, 4)?;
    let to = Outside::Near.address(Family::V4);
    objects(&world)?;
    let add = |node, pod: &str| world.add_pod(node, pod).map_err(|e| Trouble::new(e.to_string()));
    let _ours = [add(1, "gate/near")?, add(2, "gate/far")?];
    world.settle()?;
    let ours = [add(1, "free/direct")?, add(1, "shop/near")?, add(1, "shop/far")?];
    world.settle()?;
    let gates = [add(3, "hand/gate-near")?, add(4, "hand/gate-far")?];
    let hand = [add(3, "hand/direct")?, add(3, "hand/near")?, add(3, "hand/far")?];
    let gateways = [Gateway { pod: &gates[0], number: 1 }, Gateway { pod: &gates[1], number: 2 }];
    by_hand::wire(&world, &gateways, &[(&hand[1], 1), (&hand[2], 2)])?;

    for (at, path) in ["direct", "local gateway", "remote gateway"].into_iter().enumerate() {
        let (mut trips, mut rates) = (Pairs::default(), Pairs::default());
        let leased = at > 0;
        for _ in 0..arguments.pairs {
            let one = through(&ours[at], to, leased)?;
            let other = through(&hand[at], to, leased)?;
            // As rates, so that more is better in both.
            trips.push(1e3 / one.round_trip, 1e3 / other.round_trip);
            rates.push(one.throughput, other.throughput);
        }
        rows.ratio(&format!("round trips, {path}"), &trips, "per ms", "by hand", Target::AtLeast(0.95));
        rows.ratio(&format!("TCP throughput, {path}"), &rates, "Gb/s", "by hand", Target::AtLeast(0.95));
    }
    thousand(arguments, &world, &ours, to, rows)
}

/// Measures, and sees to it that the path is the one that is meant: leases are below .64, a node's address hides the rest.
pub(crate) fn through(pod: &Pod, to: IpAddr, leased: bool) -> Result<traffic::Measured, Trouble> {
    let netns = pod.place().netns()?;
    let measured = traffic::measure(&netns, to).map_err(|e| Trouble::new(format!("{}: {e}", pod.name)))?;
    let is_lease = measured.seen.to_string().starts_with("10.10.10.");
    if is_lease == leased {
        return Ok(measured);
    }
    Err(Trouble::new(format!("{} was seen outside as {}", pod.name, measured.seen)))
}

fn objects(world: &World) -> Result<(), Trouble> {
    pools(world)?;
    for namespace in ["gate", "shop", "free", "hand"] {
        world.namespace(namespace, &[], &[])?;
    }
    for place in ["near", "far"] {
        let node = if place == "near" { 1 } else { 2 };
        world.pod_object(&format!("gate/{place}"), &[("place", place)], &LEASES, node)?;
        let selector = format!("place == '{place}'");
        world.pod_object(&format!("shop/{place}"), &[], &selects(&selector), 1)?;
    }
    Ok(())
}

pub(crate) fn selects(selector: &str) -> [(&'static str, &str); 2] {
    [
        ("egress.projectcalico.org/selector", selector),
        ("egress.projectcalico.org/namespaceSelector", "projectcalico.org/name == 'gate'"),
    ]
}

/// One client per path, then 998 more of the same bindings that exist as attachments alone: their map elements are real.
fn thousand(
    arguments: &Arguments,
    world: &World,
    ours: &[Pod; 3],
    to: IpAddr,
    rows: &mut Rows,
) -> Result<(), Trouble> {
    let mut pairs: [(Pairs, Pairs); 2] = Default::default();
    for _ in 0..arguments.pairs {
        let measured = |pod: &Pod| through(pod, to, true);
        let few = [measured(&ours[1])?, measured(&ours[2])?];
        others(world, &ours[1], true)?;
        let many = [measured(&ours[1])?, measured(&ours[2])?];
        others(world, &ours[1], false)?;
        for ((trips, rates), (many, few)) in pairs.iter_mut().zip(many.into_iter().zip(few)) {
            trips.push(1e3 / many.round_trip, 1e3 / few.round_trip);
            rates.push(many.throughput, few.throughput);
        }
    }
    for (path, (trips, rates)) in ["local", "remote"].into_iter().zip(&pairs) {
        let what = format!("{CLIENTS} clients on the node, {path} gateway");
        rows.ratio(&format!("round trips, {what}"), trips, "per ms", "few clients", Target::AtLeast(0.97));
        rows.ratio(&format!("TCP throughput, {what}"), rates, "Gb/s", "few clients", Target::AtLeast(0.97));
    }
    Ok(())
}

/// Writes or removes the records of the other clients; the node's own reconcile does the rest.
fn others(world: &World, like: &Pod, there: bool) -> Result<(), Trouble> {
    let neighbours = Neighbours::of(like)?;
    for n in 2..CLIENTS {
        if there {
            neighbours.add(n, Some(&selects("place == 'near'")))?;
        } else {
            neighbours.remove(n)?;
        }
    }
    // One element stands for each address of each of them.
    if reconcile(world, 1)?.contains("10.60.203.") == there {
        return Ok(());
    }
    Err(Trouble::new(format!("{CLIENTS} clients could not be made or removed")))
}
