//! The cluster that the calls are measured in: 500 pods, 50 namespaces, 20 gateways as 570 files, and their records.
//!
//! Of ten namespaces one is selected; the gateways sit on ten other nodes, with leases and endpoints as their own nodes
//! would have written them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use egret::egress::model::{EgressAddress, Endpoint, EndpointState, PodName};
use egret::egress::numbers::gateway_mac;
use egret::ipam::{self, Claim, DirStore, Holder, Owner, Tenant};
use egret::store::objects::Objects;
use egret::store::{Dir, endpoints, nodes};
use egret::testbed::Trouble;

pub(crate) const PODS: usize = 500;
pub(crate) const NAMESPACES: usize = 50;
pub(crate) const GATEWAYS: usize = 20;
const GATEWAY_NODES: usize = 10;

/// Namespaces 0, 10, 20 … are selected.
pub(crate) fn pod(namespace: usize, number: usize) -> PodName {
    PodName::new(format!("team-{namespace:02}"), format!("pod-{number:03}"))
}

pub(crate) fn uid(pod: &PodName) -> String {
    format!("uid-{}-{}", pod.namespace, pod.name)
}

/// The pod that becomes a gateway where that is measured: the last one's namesake.
pub(crate) fn gateway(number: usize) -> PodName {
    PodName::new("gateways", format!("gw-{number:02}"))
}

/// Writes everything into an empty directory.
pub(crate) fn write(root: &Path, own: &[(&str, IpAddr)]) -> Result<(), Trouble> {
    let trouble = |e: &dyn std::fmt::Display| Trouble::new(format!("{}: {e}", root.display()));
    let objects = root.join("objects");
    for kind in ["pods", "namespaces", "gateways"] {
        fs::create_dir_all(objects.join(kind)).map_err(|e| trouble(&e))?;
    }
    let file = |name: String, text: String| fs::write(objects.join(name), text).map_err(|e| trouble(&e));
    for n in 0..NAMESPACES - 1 {
        let selects = "annotations: {egress.projectcalico.org/selector: \"egress-code == 'red'\", \
                       egress.projectcalico.org/namespaceSelector: \"projectcalico.org/name == 'gateways'\"}";
        let annotations = if n % 10 == 0 { selects } else { "annotations: {team: blue}" };
        file(
            format!("namespaces/team-{n:02}.yaml"),
            format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: team-{n:02}, {annotations}}}\n"),
        )?;
    }
    file(
        "namespaces/gateways.yaml".into(),
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: gateways}\n".into(),
    )?;
    for n in 0..PODS {
        let pod = pod(n % (NAMESPACES - 1), n);
        file(format!("pods/{}.yaml", pod.name), pod_text(&pod, "app: shop", "team: blue"))?;
    }
    for n in 0..GATEWAYS {
        let asks =
            r#"cni.projectcalico.org/ipv4pools: '["red"]', cni.projectcalico.org/ipv6pools: '["red6"]'"#;
        file(format!("gateways/gw-{n:02}.yaml"), pod_text(&gateway(n), "egress-code: red", asks))?;
    }
    let mut cluster = String::new();
    for (name, cidr) in [("red", "10.10.10.0/26"), ("red6", "fd00:10:10::/122")] {
        cluster += &format!(
            "---\napiVersion: egret.dev/v1alpha1\nkind: EgressPool\nmetadata: {{name: {name}}}\n\
             spec: {{cidr: \"{cidr}\", gatewayNamespaces: all(), clientNamespaces: all()}}\n"
        );
    }
    let others = (0..GATEWAY_NODES).map(|n| (format!("other-{n}"), other(n)));
    for (name, ip) in own.iter().map(|(name, ip)| ((*name).to_owned(), *ip)).chain(others) {
        cluster += &format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n\
             status: {{addresses: [{{type: InternalIP, address: {ip}}}]}}\n"
        );
    }
    file("cluster.yaml".into(), cluster)?;
    records(root).map_err(|e| trouble(&e))
}

fn pod_text(pod: &PodName, labels: &str, annotations: &str) -> String {
    let PodName { namespace, name } = pod;
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  uid: {}\n  labels: {{{labels}}}\n  \
         annotations: {{{annotations}}}\nspec:\n  nodeName: other\n  containers: [{{name: main, image: example/shop:1.0}}]\n\
         status: {{phase: Running, podIP: 10.60.9.9}}\n",
        uid(pod)
    )
}

/// The underlay address of a node that does not exist.
pub(crate) fn other(node: usize) -> IpAddr {
    Ipv4Addr::new(172, 30, 0, 100 + node as u8).into()
}

/// Leases and endpoints of all gateways but the last, which is the one that comes and goes.
fn records(root: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let dir = Dir::open(root)?;
    let guard = dir.lock("bench", Duration::from_secs(1))?;
    let objects = Objects::open(root)?;
    let pools: Vec<_> = objects.pools().map(|(_, pool)| pool).collect();
    for n in 0..GATEWAYS - 1 {
        let (name, node) = (gateway(n), format!("other-{}", n % GATEWAY_NODES));
        let holder = Holder {
            network: "pods".into(),
            container: format!("{n:064}"),
            ifname: "eth0".into(),
            node: node.clone(),
        };
        let mut addresses = Vec::new();
        for pool in &pools {
            let tenant =
                Tenant { owner: Owner::PodUid(uid(&name)), holder: holder.clone(), pod: Some(name.clone()) };
            let known: Vec<_> = pools.iter().collect();
            let claim = Claim {
                tenant,
                pools: &[pool],
                known: &known,
                address: None,
                unservable: &std::collections::BTreeMap::new(),
                in_use: &std::collections::BTreeMap::new(),
                nodes: None,
                endpoints: &[],
                now: 1,
            };
            let lease = ipam::claim(&DirStore::under(&dir, &guard), &claim)?.lease;
            addresses.push(EgressAddress::leased(lease.ip, lease.pool));
        }
        let Some(IpAddr::V4(wire)) = addresses.iter().map(|a| a.ip).find(IpAddr::is_ipv4) else {
            return Err("a gateway got no IPv4 lease".into());
        };
        let IpAddr::V4(underlay) = other(n % GATEWAY_NODES) else { unreachable!("made of four bytes") };
        nodes::ensure(&dir, &guard, &node, Some(underlay))?;
        let endpoint = Endpoint {
            uid: Some(uid(&name)),
            pod: name,
            attachment: format!("pods/{n:064}/eth0"),
            node,
            underlay: vec![underlay.into()],
            vni: 5000 + n as u32,
            mac: gateway_mac(wire),
            addresses,
            state: EndpointState::Ready,
            generation: 0,
            problems: Vec::new(),
        };
        endpoints::put(&dir, &guard, &endpoint)?;
    }
    Ok(())
}
