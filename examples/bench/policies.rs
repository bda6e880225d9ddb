//! A thousand policies: decisions and plan from nothing, and after one changed label.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use egret::egress::inside::inside;
use egret::egress::model::{EgressAddress, Endpoint, EndpointState, Namespace, Node, Pod, PodName, View};
use egret::egress::numbering::Numbering;
use egret::egress::numbers::gateway_mac;
use egret::egress::planning::{Inputs, Planned, plan};
use egret::egress::policy::{PodGateways, PodSelection, Policy, PolicyKind, PolicyRule, To};
use egret::egress::resolve::{Live, resolve};
use egret::testbed::Trouble;

use crate::Arguments;
use crate::pure::{NAMESPACES, PODS, here, locals, ms, pod, pool};
use crate::rows::{Rows, Series, Target};

const POLICIES: usize = 1_000;
const GATEWAYS: u8 = 100;
/// Distinct sets of gateways that policies name: more would not fit a node's mark numbers.
const GROUPS: usize = 90;

/// Everything on one node, which no node is.
pub(crate) fn measure(arguments: &Arguments, rows: &mut Rows) -> Result<(), Trouble> {
    let (view, locals, here) = (view(), locals(), here());
    let inside = inside(&view);
    let names = || (0..PODS).map(pod);
    let (mut both, mut label) = (Series::default(), Series::default());
    for _ in 0..arguments.pairs {
        let begun = Instant::now();
        let resolution = resolve(&view, names());
        let inputs =
            Inputs { here: &here, view: &view, locals: &locals, resolution: &resolution, inside: &inside };
        let (next, problems) = plan(&inputs, &mut Numbering::default());
        both.0.push(ms(begun));
        if next.clients.len() != 2 * PODS || next.sets.len() != GROUPS || !problems.is_empty() {
            let (clients, sets) = (next.clients.len(), next.sets.len());
            return Err(Trouble::new(format!("{clients} clients, {sets} sets, {problems:?}")));
        }
    }
    let mut live = Live::of(view.clone(), names());
    let inputs =
        Inputs { here: &here, view: &view, locals: &locals, resolution: live.resolution(), inside: &inside };
    let mut planned = Planned::of(&inputs, &mut Numbering::default());
    for n in 0..arguments.pairs * 10 {
        let (changed, app) = (n * 37 % PODS, (n * 61 + 1) % POLICIES);
        let object = labelled(app);
        let begun = Instant::now();
        let touched = live.replace_pod(&pod(changed), Some(object));
        let inputs = Inputs {
            here: &here,
            view: live.view(),
            locals: &locals,
            resolution: live.resolution(),
            inside: &inside,
        };
        for pod in &touched {
            let mut numbering = Numbering::of(&planned.plan);
            planned.follow(&inputs, pod, &mut numbering);
        }
        label.0.push(ms(begun));
        if touched.len() > 1 {
            return Err(Trouble::new(format!("one label touched {} pods", touched.len())));
        }
    }
    let inputs = Inputs {
        here: &here,
        view: live.view(),
        locals: &locals,
        resolution: live.resolution(),
        inside: &inside,
    };
    if plan(&inputs, &mut Numbering::of(&planned.plan)).0 != planned.plan {
        return Err(Trouble::new("the plan that followed the labels is not the plan from nothing"));
    }
    rows.figure(
        "decisions and plan: 10,000 pods, 1,000 policies, 100 gateways",
        &both,
        "ms",
        Target::AtMost(100.0),
    );
    rows.figure("the same after one changed label", &label, "ms", Target::AtMost(1.0));
    rows.figure("… found by a comparison of everything", &compared(view, arguments)?, "ms", Target::None);
    Ok(())
}

/// Decisions as the agent follows them: it has the next view and not the name of what changed. The view before is held meanwhile, as whoever
/// reads by it does.
fn compared(mut view: View, arguments: &Arguments) -> Result<Series, Trouble> {
    let asked: BTreeSet<PodName> = (0..PODS).map(pod).collect();
    let mut last = Arc::new(view.clone());
    let mut live = Live::of(Arc::clone(&last), asked.iter().cloned());
    let mut took = Series::default();
    for n in 0..arguments.pairs * 2 {
        view.pods.insert(pod(n * 37 % PODS), labelled((n * 61 + 1) % POLICIES));
        let _before = std::mem::replace(&mut last, Arc::new(view.clone()));
        let begun = Instant::now();
        let touched = live.follow(Arc::clone(&last), &asked);
        took.0.push(ms(begun));
        if touched.is_none_or(|touched| touched.len() > 1) {
            return Err(Trouble::new("one label had everyone decided for anew, or touched several pods"));
        }
    }
    Ok(took)
}

fn labelled(app: usize) -> Pod {
    let labels = [("app", format!("app-{app}")), ("tier", "web".to_owned())];
    Pod { labels: labels.map(|(k, v)| (k.to_owned(), v)).into(), ..Pod::default() }
}

/// Each policy selects its app by itself, every tenth is enforced, and each sends three prefixes to one of 90 groups of gateways.
fn view() -> View {
    let mut view = View::default();
    for n in 0..NAMESPACES {
        view.namespaces.insert(format!("team-{n}"), Namespace::default());
    }
    view.namespaces.insert("gateways".into(), Namespace::default());
    view.pools.insert("red".into(), pool("red", "10.10.0.0/24"));
    view.pools.insert("red6".into(), pool("red6", "fd00:10::/120"));
    view.pods.extend((0..PODS).map(|n| (pod(n), labelled(n % POLICIES))));
    for n in 0..20u8 {
        let node = Node {
            internal_ips: vec![underlay(n)],
            number: Some(1 + u16::from(n)),
            wire: Some([172, 30, 0, 1 + n].into()),
            ..Node::default()
        };
        view.nodes.insert(format!("node-{n}"), node);
    }
    (0..GATEWAYS).for_each(|n| gateway(n, &mut view));
    for n in 0..POLICIES {
        let policy = policy(n);
        view.policies.insert(policy.name.clone(), policy);
    }
    view
}

fn underlay(node: u8) -> IpAddr {
    IpAddr::from([172, 30, 0, 1 + node])
}

fn gateway(n: u8, view: &mut View) {
    let name = PodName::new("gateways", format!("gw-{n}"));
    let labels = BTreeMap::from([("group".to_owned(), format!("g{}", usize::from(n) % GROUPS))]);
    view.pods.insert(name.clone(), Pod { labels, ..Pod::default() });
    let address = |ip: IpAddr, pool: &str| EgressAddress::leased(ip, pool);
    view.endpoints.push(Endpoint {
        pod: name,
        uid: None,
        attachment: format!("pods/gw-{n}/eth0"),
        // Not on this node: local gateways have fewer numbers.
        node: format!("node-{}", 1 + n % 19),
        underlay: vec![underlay(1 + n % 19)],
        vni: 5000 + u32::from(n),
        mac: gateway_mac([10, 10, 0, n].into()),
        addresses: vec![
            address([10, 10, 0, n].into(), "red"),
            address([0xfd00, 0x10, 0, 0, 0, 0, 0, n.into()].into(), "red6"),
        ],
        state: EndpointState::Ready,
        generation: 1,
        problems: Vec::new(),
    });
}

fn policy(n: usize) -> Policy {
    let to = To::Pods(PodGateways {
        pods: format!("group == 'g{}'", n % GROUPS),
        namespaces: Some("projectcalico.org/name == 'gateways'".to_owned()),
        max_next_hops: None,
        prefer_local: false,
    });
    let prefixes = ["0.0.0.0/0", "::/0", "203.0.113.0/24"];
    let rule = |(i, prefix): (usize, &str)| {
        let destination = prefix.parse().ok()?;
        Some(PolicyRule { destination, field: format!("spec.rules[{i}]"), to: to.clone() })
    };
    let mut rules: Vec<PolicyRule> = prefixes.into_iter().enumerate().filter_map(rule).collect();
    rules.extend("198.51.100.0/24".parse().ok().map(|destination| PolicyRule {
        destination,
        field: "spec.excludedCIDRs[0]".to_owned(),
        to: To::Direct,
    }));
    Policy {
        ignores_other_family: false,
        name: format!("policy-{n}"),
        kind: PolicyKind::Ours,
        created: Some(n as i64),
        enforced: n.is_multiple_of(10),
        selectors: vec![PodSelection { pods: Some(format!("app == 'app-{n}'")), ..PodSelection::default() }],
        rules,
        deny_others: false,
        unfit: Vec::new(),
    }
}
