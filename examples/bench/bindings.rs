//! Round trip and TCP throughput on a node that holds as much as one may: 500 bindings of 100 prefixes, 90 gateway sets, 1,000
//! client pods. Beside it, in the same world, a node with one binding, one set and one client per path.
//!
//! Real: three nodes, three gateways, the four clients that are measured. The other clients are attachments alone, the other 88
//! gateways endpoints of nodes that do not exist; what the first node's kernel holds of them is real.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use egret::addr::Family;
use egret::egress::model::{EgressAddress, Endpoint, EndpointState, PodName};
use egret::egress::numbers::gateway_mac;
use egret::store::{Dir, endpoints};
use egret::testbed::{Outside, Pod, STATE_DIR, Trouble, World};

use crate::neighbours::{Neighbours, reconcile};
use crate::paths::{selects, through};
use crate::rows::{Pairs, Rows, Series, Target};
use crate::world::{LEASES, pool, pools, raise};
use crate::{Arguments, cluster};

const CLIENTS: usize = 1_000;
const BINDINGS: usize = 500;
const PREFIXES: usize = 100;
/// Two more sets are those of the gateways that exist.
const GROUPS: usize = 88;
/// Nodes without existence, on which those groups' gateways are.
const NODES: usize = 8;

/// Raises the world, fills the first node, measures.
pub(crate) fn measure(arguments: &Arguments, rows: &mut Rows) -> Result<(), Trouble> {
    let world = raise(arguments, 3)?;
    let to = Outside::Near.address(Family::V4);
    objects(&world)?;
    let add = |node, pod: &str| world.add_pod(node, pod).map_err(|e| Trouble::new(e.to_string()));
    let _gateways = [add(1, "gate/near-1")?, add(2, "gate/near-2")?, add(3, "gate/far")?];
    world.settle()?;
    let one = [add(2, "shop/one-near")?, add(2, "shop/one-far")?];
    let many = [add(1, "shop/many-near")?, add(1, "shop/many-far")?];
    endpoints_of_groups()?;
    let took = fill(&world, &many[0])?;
    rows.figure("500 bindings of 100 prefixes wired at once", &took, "s", Target::None);
    compare(arguments, (&many, &one), to, rows)
}

fn compare(
    arguments: &Arguments,
    (many, one): (&[Pod; 2], &[Pod; 2]),
    to: IpAddr,
    rows: &mut Rows,
) -> Result<(), Trouble> {
    for (at, path) in ["local", "remote"].into_iter().enumerate() {
        let (mut trips, mut rates) = (Pairs::default(), Pairs::default());
        for _ in 0..arguments.pairs {
            let (many, one) = (through(&many[at], to, true)?, through(&one[at], to, true)?);
            trips.push(1e3 / many.round_trip, 1e3 / one.round_trip);
            rates.push(many.throughput, one.throughput);
        }
        let what = format!("{BINDINGS} bindings, 90 sets, {CLIENTS} clients, {path} gateway");
        rows.ratio(&format!("round trips, {what}"), &trips, "per ms", "one of each", Target::AtLeast(0.97));
        rows.ratio(&format!("TCP throughput, {what}"), &rates, "Gb/s", "one of each", Target::AtLeast(0.97));
    }
    Ok(())
}

fn objects(world: &World) -> Result<(), Trouble> {
    pools(world)?;
    pool(world, "groups", "10.10.20.0/24")?;
    for namespace in ["gate", "shop"] {
        world.namespace(namespace, &[], &[])?;
    }
    for (place, node) in [("near-1", 1), ("near-2", 2), ("far", 3)] {
        world.pod_object(&format!("gate/{place}"), &[("place", place)], &LEASES, node)?;
    }
    world.pod_object("shop/one-near", &[], &selects("place == 'near-2'"), 2)?;
    world.pod_object("shop/one-far", &[], &selects("place == 'far'"), 2)?;
    for (name, number) in [("many-near", 0), ("many-far", 1)] {
        world.pod_object(&format!("shop/{name}"), &[], &[(POLICY, &policy_of(number))], 1)?;
    }
    for group in 0..GROUPS {
        world.pod_object(&format!("gate/group-{group}"), &[("place", &place(group))], &[], 9)?;
    }
    for node in 0..NODES {
        world.object(&format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: other-{node}}}\n\
             status: {{addresses: [{{type: InternalIP, address: {}}}]}}\n",
            cluster::other(node)
        ))?;
    }
    (0..BINDINGS).try_for_each(|n| world.object(&policy(n)).map(drop))
}

const POLICY: &str = "egress.projectcalico.org/egressGatewayPolicy";

fn policy_of(binding: usize) -> String {
    format!("way-{binding}")
}

fn place(group: usize) -> String {
    format!("group-{group}")
}

/// 99 prefixes of its own to its group, everything else to a gateway that exists: even ones to the local, odd ones to the remote.
fn policy(n: usize) -> String {
    let to = |place: &str| {
        format!(
            "gateway: {{selector: \"place == '{place}'\", namespaceSelector: \"projectcalico.org/name == 'gate'\"}}"
        )
    };
    let mut text = format!(
        "apiVersion: egret.dev/v1alpha1\nkind: EgressGatewayPolicy\nmetadata: {{name: {}}}\nspec:\n  rules:\n  - {}\n",
        policy_of(n),
        to(if n.is_multiple_of(2) { "near-1" } else { "far" })
    );
    let group = to(&place(n % GROUPS));
    let base = u32::from(Ipv4Addr::new(198, 18, 0, 0));
    for k in 0..PREFIXES - 1 {
        // Every other address: neighbours would become one range.
        let prefix = Ipv4Addr::from(base + 2 * (n * (PREFIXES - 1) + k) as u32);
        text += &format!("  - destination: {{cidr: {prefix}/32}}\n    {group}\n");
    }
    text
}

fn endpoints_of_groups() -> Result<(), Trouble> {
    let trouble = |e: &dyn std::fmt::Display| Trouble::new(format!("endpoints of groups: {e}"));
    let dir = Dir::at(Path::new(STATE_DIR)).map_err(|e| trouble(&e))?;
    let guard = dir.lock("bench", Duration::from_secs(1)).map_err(|e| trouble(&e))?;
    for group in 0..GROUPS {
        let ip = Ipv4Addr::new(10, 10, 20, group as u8);
        let endpoint = Endpoint {
            pod: PodName::new("gate", format!("group-{group}")),
            uid: None,
            attachment: format!("pods/group-{group}/eth0"),
            node: format!("other-{}", group % NODES),
            underlay: vec![cluster::other(group % NODES)],
            vni: 5000 + group as u32,
            mac: gateway_mac(ip),
            addresses: vec![EgressAddress::leased(ip.into(), "groups")],
            state: EndpointState::Ready,
            generation: 0,
            problems: Vec::new(),
        };
        endpoints::put(&dir, &guard, &endpoint).map_err(|e| trouble(&e))?;
    }
    Ok(())
}

/// The other clients of the first node, wired by its own reconcile; how long that took, in seconds.
fn fill(world: &World, like: &Pod) -> Result<Series, Trouble> {
    let neighbours = Neighbours::of(like)?;
    for n in 2..CLIENTS {
        neighbours.add(n, Some(&[(POLICY, policy_of(n % BINDINGS).as_str())]))?;
    }
    let begun = Instant::now();
    let table = reconcile(world, 1)?;
    let took = begun.elapsed().as_secs_f64();
    let chains = table.lines().filter(|line| line.trim_start().starts_with("map b")).count();
    let rules = world.node(1).run("ip", &["rule", "show", "priority", "720"])?.lines().count();
    let last = format!("10.60.{}.{}", 200 + ((CLIENTS - 1) >> 8), (CLIENTS - 1) & 0xff);
    if chains < BINDINGS || rules < GROUPS + 2 || !table.contains(&last) {
        return Err(Trouble::new(format!("the node has {chains} maps of bindings and {rules} gateway sets")));
    }
    Ok(Series(vec![took]))
}
