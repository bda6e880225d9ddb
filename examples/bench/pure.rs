//! What is computed: decisions and plan for 10,000 pods of one node, a claim from a pool that is half leased.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use egret::addr::Cidr;
use egret::egress::inside::inside;
use egret::egress::model::{
    EgressAddress, Endpoint, EndpointState, Namespace, Node, Pod, PodName, Pool, View,
};
use egret::egress::numbering::Numbering;
use egret::egress::numbers::gateway_mac;
use egret::egress::plan::{Here, LocalPod};
use egret::egress::planning::{Inputs, plan};
use egret::egress::resolve::resolve;
use egret::ipam::{Block, Claim, DirStore, Holder, Owner, Source, Store, Tenant, block_name};
use egret::ipam::{How, claim};
use egret::store::{Dir, Version, record};
use egret::testbed::{MemoryStore, Trouble};

use crate::Arguments;
use crate::policies;
use crate::rows::{Rows, Series, Target};

/// All halves.
pub(crate) fn measure(arguments: &Arguments, rows: &mut Rows) -> Result<(), Trouble> {
    decisions(arguments, rows)?;
    policies::measure(arguments, rows)?;
    claims(arguments, rows).map_err(|e| Trouble::new(e.to_string()))
}

pub(crate) fn ms(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

pub(crate) const PODS: usize = 10_000;
pub(crate) const NAMESPACES: usize = 50;

fn decisions(arguments: &Arguments, rows: &mut Rows) -> Result<(), Trouble> {
    let view = view();
    let locals = locals();
    let inside = inside(&view);
    let here = here();
    let (mut resolved, mut planned) = (Series::default(), Series::default());
    for _ in 0..arguments.pairs {
        let begun = Instant::now();
        let resolution = resolve(&view, locals.iter().filter_map(|l| l.pod.clone()));
        resolved.0.push(ms(begun));
        let inputs =
            Inputs { here: &here, view: &view, locals: &locals, resolution: &resolution, inside: &inside };
        let begun = Instant::now();
        let (next, problems) = plan(&inputs, &mut Numbering::default());
        planned.0.push(ms(begun));
        if next.clients.len() != 2 * PODS || next.bindings.len() != NAMESPACES || !problems.is_empty() {
            return Err(Trouble::new(format!(
                "the plan for {PODS} pods has {} clients, {} bindings and {} problems",
                next.clients.len(),
                next.bindings.len(),
                problems.len()
            )));
        }
    }
    rows.figure("decisions about 10,000 pods", &resolved, "ms", Target::None);
    rows.figure("plan for 10,000 pods", &planned, "ms", Target::AtMost(50.0));
    Ok(())
}

pub(crate) fn here() -> Here {
    Here {
        node: "node-0".into(),
        underlay: IpAddr::from([172, 30, 0, 1]),
        port: 4790,
        vni: 4097,
        tunnel_mtu: 1450,
        veth_mtu: 1500,
        mark_mask: 0x7f,
        ipv6: true,
        hash_ports: true,
        uplinks: Vec::new().into(),
        outward: ["eth0".to_owned()].into(),
        doors: BTreeMap::new(),
    }
}

/// 50 namespaces, each with a rule of its own; 10,000 selected pods; 20 gateways on 20 nodes.
fn view() -> View {
    let mut view = View::default();
    for n in 0..NAMESPACES {
        let rule = format!("team in {{ 'all', 'team-{n}' }}");
        let annotations = BTreeMap::from([
            ("egress.projectcalico.org/selector".to_owned(), rule),
            ("egress.projectcalico.org/namespaceSelector".to_owned(), "all()".to_owned()),
        ]);
        view.namespaces.insert(format!("team-{n}"), Namespace { annotations, ..Namespace::default() });
    }
    view.namespaces.insert("gateways".into(), Namespace::default());
    for n in 0..PODS {
        view.pods.insert(pod(n), Pod::default());
    }
    view.pools.insert("red".into(), pool("red", "10.10.0.0/24"));
    for n in 0..20u8 {
        let ip = IpAddr::from([172, 30, 0, 1 + n]);
        let node = Node {
            internal_ips: vec![ip],
            number: Some(1 + u16::from(n)),
            wire: Some([172, 30, 0, 1 + n].into()),
            ..Node::default()
        };
        view.nodes.insert(format!("node-{n}"), node);
        let labels = BTreeMap::from([("team".to_owned(), "all".to_owned())]);
        let name = PodName::new("gateways", format!("gw-{n}"));
        view.pods.insert(name.clone(), Pod { labels, ..Pod::default() });
        view.endpoints.push(Endpoint {
            pod: name,
            uid: None,
            attachment: format!("pods/gw-{n}/eth0"),
            node: format!("node-{n}"),
            underlay: vec![ip],
            vni: 5000 + u32::from(n),
            mac: gateway_mac([10, 10, 0, n].into()),
            addresses: vec![EgressAddress::leased(IpAddr::from([10, 10, 0, n]), "red")],
            state: EndpointState::Ready,
            generation: 1,
            problems: Vec::new(),
        });
    }
    view
}

pub(crate) fn pod(number: usize) -> PodName {
    PodName::new(format!("team-{}", number % NAMESPACES), format!("pod-{number}"))
}

pub(crate) fn locals() -> Vec<LocalPod> {
    let local = |n: usize| LocalPod {
        attachment: format!("pods/{n:064x}/eth0"),
        pod: Some(pod(n)),
        addresses: vec![
            IpAddr::from([10, 60, (n >> 8) as u8, n as u8]),
            IpAddr::from([0xfd00, 0x10, 0x60, 0, 0, 0, 0, n as u16]),
        ],
        networks: Vec::new(),
    };
    (0..PODS).map(local).collect()
}

pub(crate) fn pool(name: &str, cidr: &str) -> Pool {
    let cidr = cidr.parse().unwrap_or(egret::addr::Family::V4.everything());
    Pool {
        gateway_namespaces: Some("all()".to_owned()),
        client_namespaces: Some("all()".to_owned()),
        ..Pool::new(name, cidr, 31)
    }
}

const BLOCKS: u32 = 16_000;

fn claims(arguments: &Arguments, rows: &mut Rows) -> Result<(), Box<dyn std::error::Error>> {
    let pool = pool("large", "10.96.0.0/16");
    let root = arguments.scratch.join("claims");
    let _ = fs::remove_dir_all(&root);
    let dir = Dir::open(&root)?;
    let folder = dir.ipam().join(&pool.name);
    fs::create_dir_all(&folder)?;
    let memory = MemoryStore::new();
    // Every second /31 of the /16 is full: 32,000 leases of 50 nodes, and holes to find.
    for n in 0..BLOCKS {
        let node = format!("node-{}", n % 50);
        let first = pool.cidr.nth(u128::from(n) * 4).ok_or("the pool is too small")?;
        let mut block = Block::new(&pool.name, Cidr::covering(first, 31), Some(&node));
        for ordinal in 0..2 {
            let ip = block.cidr.nth(ordinal).ok_or("a block is too small")?;
            block.take(ip, &tenant(&format!("{n:010}{ordinal:02}"), &node), 1);
        }
        let name = block_name(block.cidr);
        record::replace(
            &folder.join(format!("{name}.json")),
            ("EgressBlock", &name),
            Version(1),
            &block,
            false,
        )?;
        memory.swap(&block, None)?;
    }
    let warm =
        |f: &mut dyn FnMut(&dyn Store) -> Result<(), String>| -> Result<f64, Box<dyn std::error::Error>> {
            let begun = Instant::now();
            // As each ADD does it: lock, look, claim, unlock.
            let guard = dir.lock("bench", Duration::from_secs(5))?;
            f(&DirStore::under(&dir, &guard))?;
            drop(guard);
            Ok(ms(begun))
        };
    let direct =
        |f: &mut dyn FnMut(&dyn Store) -> Result<(), String>| -> Result<f64, Box<dyn std::error::Error>> {
            let begun = Instant::now();
            f(&memory)?;
            Ok(ms(begun))
        };
    let ask = |n: usize, source: Source| {
        let pool = pool.clone();
        move |store: &dyn Store| -> Result<(), String> {
            let tenant = tenant(&format!("{source:?}-{n}"), "node-new");
            let asked = Claim {
                tenant,
                pools: &[&pool],
                known: &[&pool],
                address: None,
                unservable: &BTreeMap::new(),
                in_use: &BTreeMap::new(),
                nodes: None,
                endpoints: &[],
                now: 1,
            };
            let claimed = claim(store, &asked).map_err(|e| e.to_string())?;
            if claimed.how == How::New(source) {
                Ok(())
            } else {
                Err(format!("{:?} instead of {source:?}", claimed.how))
            }
        }
    };
    let mut series: [Series; 5] = Default::default();
    let replace = root.join("replace.json");
    for n in 0..=arguments.pairs {
        let values = [
            direct(&mut ask(n, Source::Free))?,
            direct(&mut ask(n, Source::Affine))?,
            warm(&mut ask(n, Source::Free))?,
            warm(&mut ask(n, Source::Affine))?,
            {
                let begun = Instant::now();
                record::replace(&replace, ("Probe", "probe"), Version(n as u64), &"0".repeat(200), true)?;
                ms(begun)
            },
        ];
        // The first reads all blocks to make the pool's summary.
        if n > 0 {
            series.iter_mut().zip(values).for_each(|(s, v)| s.0.push(v));
        } else {
            println!("first claim through the directory, which reads all 16,000 blocks: {:.1} ms", values[2]);
        }
    }
    let [free, affine, dir_free, dir_affine, disk] = series;
    rows.figure("claim, 32,000 of 65,536 leased, pure, new block", &free, "ms", Target::AtMost(2.0));
    rows.figure("… own block", &affine, "ms", Target::AtMost(2.0));
    rows.figure("the same through the directory, new block", &dir_free, "ms", Target::AtMost(5.0));
    rows.figure("… own block", &dir_affine, "ms", Target::AtMost(5.0));
    rows.figure("of that: one durable replace of a small file on this disk", &disk, "ms", Target::None);
    fs::remove_dir_all(&root)?;
    Ok(())
}

fn tenant(uid: &str, node: &str) -> Tenant {
    let holder = Holder {
        network: "pods".into(),
        container: format!("{uid:0>64}"),
        ifname: "eth0".into(),
        node: node.to_owned(),
    };
    Tenant { owner: Owner::PodUid(uid.to_owned()), holder, pod: None }
}
