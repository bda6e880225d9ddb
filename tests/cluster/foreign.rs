//! Calico's and Cilium's own manifests, applied to a real API server: what their guides promise is decided, where `adopt` says so and
//! the project is not at work itself; else it is said.

use std::time::{Duration, Instant};

use egret::agent::door::Gate;
use egret::config::{Config, Project};
use egret::egress::explain::Verdict;
use egret::egress::list::{Row, list};
use egret::egress::model::{PodName, PoolKind};
use egret::kube::Client;
use egret::problem::Problem;
use egret::store::objects::Objects;
use egret::store::{Dir, endpoints, interfaces};
use egret::testbed::{repository, within};
use serde_json::{Value, json};

use crate::controller::PATIENCE;
use crate::follower::{Follower, follow_adopting, follow_after};
use crate::proxy::{Fate, Proxy, refusal};
use crate::server::kubectl;
use crate::trouble::add;
use crate::world::{alone, client_of, forget};

fn apply(text: &str) {
    kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], text);
}

/// The documents of an example that are of these kinds; `v1` of Calico's store is `v3` where that is not.
fn example(file: &str, kinds: &[&str]) -> String {
    let text = std::fs::read_to_string(repository().join("examples").join(file)).unwrap();
    let text = text.replace("crd.projectcalico.org/v1", "projectcalico.org/v3");
    let of_kind = |document: &&str| {
        let kind = document.lines().find_map(|line| line.strip_prefix("kind: ")).unwrap_or_default();
        kinds.contains(&kind)
    };
    let taken: Vec<&str> = text.split("\n---").filter(of_kind).collect();
    assert!(!taken.is_empty(), "{file}");
    taken
        .join("\n---")
        .replace("    uid: ", "    # uid: ")
        .replace("  uid: ", "  # uid: ")
        .replace("resourceVersion: ", "# ")
}

fn pod(namespace: &str, name: &str, node: &str, labels: &Value) -> String {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": namespace, "name": "default"}});
    apply(&account.to_string());
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "x"}]}})
    .to_string()
}

fn node(client: &Client, name: &str, number: u16, ip: &str, labels: &Value, interfaces: Option<Value>) {
    apply(
        &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
            .to_string(),
    );
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": ip}]}}).to_string();
    let patch = ["patch", "node", name, "--subresource=status", "--type=merge", "-p", &status];
    kubectl(&patch, "");
    let mut spec = json!({"node": name, "number": number, "wire": ip});
    if let Some(interfaces) = interfaces {
        spec["interfaces"] = interfaces;
    }
    let record = json!({"apiVersion": "egret.dev/v1alpha1", "kind": "EgressNode",
        "metadata": {"name": format!("node-{number}")}, "spec": spec});
    if let Err(error) = client.create("/apis/egret.dev/v1alpha1/egressnodes", &record) {
        assert!(error.is_conflict(), "{error}");
    }
}

/// What the node would do now, and what it says is wrong.
fn decided(follower: &Follower, pod: &str) -> (Vec<Row>, Vec<Problem>) {
    let objects = Objects::look(&follower.dir).unwrap();
    let dir = Dir::at(&follower.dir).unwrap();
    let mut view = objects.view(&Config::default(), endpoints::list(&dir).unwrap().0);
    view.interfaces = interfaces::list(&dir).unwrap().interfaces;
    let (namespace, name) = pod.split_once('/').unwrap();
    let listing = list(&view, [PodName::new(namespace, name)]);
    (listing.items, objects.problems().into_iter().chain(listing.problems).collect())
}

/// `DESTINATION VERDICT EGRESS-ADDRESS…`
fn lines(rows: &[Row]) -> Vec<String> {
    let line = |row: &Row| {
        let seen =
            row.gateways.iter().filter(|gateway| gateway.usable).filter_map(|gateway| gateway.egress_address);
        let seen: Vec<String> = seen.map(|ip| ip.to_string()).collect();
        let action = match row.action {
            Verdict::Direct => "direct",
            Verdict::Held => "held",
            Verdict::Gateway => "gateway",
        };
        format!("{} {action} {}", row.destination, seen.join(",")).trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn becomes(follower: &Follower, pod: &str, what: impl Fn(&[String], &[Problem]) -> bool) {
    let started = Instant::now();
    loop {
        let (rows, problems) = decided(follower, pod);
        let lines = lines(&rows);
        if what(&lines, &problems) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{pod}: {lines:?} {problems:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn has(lines: &[String], wanted: &[&str]) -> bool {
    wanted.iter().all(|line| lines.iter().any(|known| known == line))
}

/// A DaemonSet of that name for so many nodes, of which none is ready just now.
fn at_work(client: &Client, name: &str, nodes: u32) {
    let labels = json!({"app": name});
    let set = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"namespace": "kube-system", "name": name}, "spec": {
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "x"}]}}}});
    let path = format!("/apis/apps/v1/namespaces/kube-system/daemonsets/{name}");
    if nodes == 0 {
        return drop(client.delete(&path).unwrap());
    }
    apply(&set.to_string());
    let status = json!({"status": {"numberReady": 0, "currentNumberScheduled": nodes, "numberMisscheduled": 0,
        "desiredNumberScheduled": nodes}});
    let patch = [
        "patch",
        "daemonset",
        "-n",
        "kube-system",
        name,
        "--subresource=status",
        "--type=merge",
        "-p",
        &status.to_string(),
    ];
    kubectl(&patch, "");
}

/// Calico's pools are so many, and ranges all.
fn has_ranges(follower: &Follower, number: usize) {
    let pools = || -> Vec<_> {
        let all: Vec<_> = Objects::look(&follower.dir).unwrap().pools().map(|(_, pool)| pool).collect();
        all.into_iter().filter(|pool| pool.kind == PoolKind::IPPool).collect()
    };
    let ranges = || pools().len() == number && pools().iter().all(|pool| !pool.source.is_pool());
    assert!(within(PATIENCE, Duration::from_millis(50), ranges).is_some(), "{:?}", pools());
}

#[test]
fn calicos_guide_is_decided_where_it_is_adopted_and_calico_keeps_its_own_where_it_is_at_work() {
    let _alone = alone();
    let client = client_of("admin");
    forget(&client);
    node(&client, "calico-a", 301, "172.18.0.12", &json!({}), None);
    apply(&example("calico-guide/pools.yaml", &["List"]));
    apply(&example("calico-guide/clients.yaml", &["Namespace", "EgressGatewayPolicy"]));
    apply(&pod("shop", "cart-1", "calico-a", &json!({})));
    apply(&pod("bank", "teller", "calico-a", &json!({})));
    let gateway = json!({"apiVersion": "egret.dev/v1alpha1", "kind": "EgressEndpoint", "metadata": {"name": "calico-gw"}, "spec": {
        "pod": "default/red-1", "attachment": "net/red/eth0", "node": "elsewhere", "underlay": ["172.18.0.13"], "vni": 5001,
        "labels": {"egress-code": "red"}, "mac": "02:67:0a:0a:0a:00", "addresses": [{"ip": "10.10.10.0", "pool": "egress-red"}],
        "state": "ready", "generation": 1}});
    apply(&gateway.to_string());

    let proxy = Proxy::start();
    let adopted = follow_adopting(&proxy, "calico-a", &[Project::Calico]);
    adopted.synced();
    becomes(&adopted, "shop/cart-1", |lines, _| has(lines, &["0.0.0.0/0 gateway 10.10.10.0"]));
    becomes(&adopted, "bank/teller", |lines, _| {
        has(lines, &["10.0.0.0/8 direct", "0.0.0.0/0 gateway 10.10.10.0"])
    });

    // Nobody adopted it: a pod that names such a policy is held, and told what to do.
    let strange = follow_adopting(&proxy, "calico-a", &[]);
    strange.synced();
    becomes(&strange, "bank/teller", |lines, problems| {
        let said = problems.iter().find(|problem| problem.object == "EgressGatewayPolicy egw-policy1");
        has(lines, &["0.0.0.0/0 held"])
            && said.is_some_and(|problem| problem.message.contains("`adopt` in Egret's configuration"))
    });

    // The configuration says otherwise, and nothing is started anew.
    strange.adopt(&[Project::Calico]);
    becomes(&strange, "bank/teller", |lines, _| has(lines, &["0.0.0.0/0 gateway 10.10.10.0"]));
    // It is followed from then on, as closely as what is ours.
    let late = json!({"apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": "late"}, "spec": {"cidr": "10.99.0.0/29", "blockSize": 31}});
    apply(&late.to_string());
    let began = Instant::now();
    while !Objects::look(&strange.dir).unwrap().pools().any(|(name, _)| name == "late") {
        assert!(began.elapsed() < PATIENCE, "a pool that came later is not heard of");
        std::thread::sleep(Duration::from_millis(50));
    }
    client.delete("/apis/projectcalico.org/v3/ippools/late").unwrap();
    strange.adopt(&[]);
    becomes(&strange, "bank/teller", |lines, _| has(lines, &["0.0.0.0/0 held"]));

    // Calico itself comes to work: its policy is left to it, its pools are ranges, and nothing is leased of them.
    at_work(&client, "calico-node", 3);
    becomes(&adopted, "bank/teller", |lines, problems| {
        let told = |problem: &Problem| problem.message.contains("DaemonSet kube-system/calico-node, and");
        has(lines, &["0.0.0.0/0 held"]) && problems.iter().any(told)
    });
    has_ranges(&adopted, 2);
    // Who adopted nothing looks for it rarely, but knows its pools as soon as it was seen, and new ones at once.
    has_ranges(&strange, 2);
    apply(&late.to_string());
    has_ranges(&strange, 3);
    client.delete("/apis/projectcalico.org/v3/ippools/late").unwrap();
    has_ranges(&strange, 2);
    at_work(&client, "calico-node", 0);
    becomes(&adopted, "bank/teller", |lines, _| has(lines, &["0.0.0.0/0 gateway 10.10.10.0"]));
    drop((adopted, strange)); // else they say again what is forgotten now
    forget(&client);
}

#[test]
fn calicos_pools_stay_ranges_where_an_agent_starts_that_may_see_none_of_them() {
    let _alone = alone();
    let client = client_of("admin");
    forget(&client);
    node(&client, "calico-b", 302, "172.18.0.14", &json!({}), None);
    apply(&example("calico-guide/pools.yaml", &["List"]));
    at_work(&client, "calico-node", 3);
    // Not one of its objects, none of the whole group, nobody at all: of whom nothing else can be heard it is not heard that they are gone.
    let refusals: [(u16, &str); 3] = [(403, "ippools"), (403, "/apis/"), (401, "/")];
    for (code, part) in refusals {
        let first = follow_adopting(&Proxy::start(), "calico-b", &[]);
        first.synced();
        has_ranges(&first, 2);
        let proxy = Proxy::start();
        proxy.judge(move |line| match line.contains(part) {
            true => refusal(code, "No", "not for you"),
            false => Fate::Pass,
        });
        let next = follow_after(&proxy, first, |_| {});
        let asked =
            || ["projectcalico.org/v3/ippools", "daemonsets"].iter().all(|kind| proxy.asked(kind) > 0);
        assert!(within(PATIENCE, Duration::from_millis(20), asked).is_some(), "{code} {part}");
        let said = || next.cluster.problems().iter().any(|problem| problem.object == "IPPool");
        assert!(
            within(PATIENCE, Duration::from_millis(20), said).is_some(),
            "{code} {part}: {:?}",
            next.cluster.problems()
        );
        // What was heard meanwhile was copied, whatever it was.
        next.cluster.fresh(&add("kube-system", "any", "uid")).unwrap();
        has_ranges(&next, 2);
    }
    at_work(&client, "calico-node", 0);
    forget(&client);
}

#[test]
fn ciliums_guide_is_decided_where_it_is_adopted_also_when_its_definition_comes_later() {
    let _alone = alone();
    let client = client_of("admin");
    forget(&client);
    let links = |ips: &[(&str, &str)]| {
        let link = |(name, ip): &(&str, &str)| json!({"name": name, "addresses": [ip]});
        Some(json!({"links": ips.iter().map(link).collect::<Vec<_>>(), "default4": "eth0"}))
    };
    let first = json!({"egress-node": "true", "kubernetes.io/hostname": "node-a", "topology.kubernetes.io/zone": "a"});
    node(
        &client,
        "node-a",
        311,
        "172.18.0.2",
        &first,
        links(&[("eth0", "172.18.0.2"), ("eth1", "192.0.2.21")]),
    );
    let second = json!({"kubernetes.io/hostname": "node-b", "topology.kubernetes.io/zone": "a"});
    node(&client, "node-b", 312, "172.18.0.3", &second, links(&[("eth0", "172.18.0.3")]));
    apply(&example("cilium-guide/policies.yaml", &["CiliumEgressGatewayPolicy"]));
    apply(&pod("default", "bot", "node-b", &json!({"org": "empire", "class": "mediabot"})));

    let proxy = Proxy::start();
    proxy.judge(|line| match line.contains("/apis/cilium.io/") {
        true => Fate::Answer(404, "404 page not found\n".to_owned()),
        false => Fate::Pass,
    });
    let adopted = follow_adopting(&proxy, "node-b", &[Project::Cilium]);
    adopted.synced();
    becomes(&adopted, "default/bot", |lines, _| has(lines, &["0.0.0.0/0 direct"]));
    proxy.judge(|_| Fate::Pass);
    let served = |lines: &[String], _: &[Problem]| {
        let out = lines.iter().any(|line| line.starts_with("0.0.0.0/0 gateway "));
        out && has(lines, &["192.0.2.0/24 direct", "198.51.100.7/32 direct"])
    };
    becomes(&adopted, "default/bot", served);

    at_work(&client, "cilium", 2);
    becomes(&adopted, "default/bot", |lines, problems| {
        let told = |problem: &Problem| problem.message.contains("Cilium is at work in this cluster");
        has(lines, &["0.0.0.0/0 direct"]) && problems.iter().any(told)
    });
    // And who did not adopt it hears nothing of what Cilium serves.
    let strange = follow_adopting(&proxy, "node-b", &[]);
    strange.synced();
    becomes(&strange, "default/bot", |lines, problems| {
        has(lines, &["0.0.0.0/0 direct"]) && problems.is_empty()
    });
    at_work(&client, "cilium", 0);
    becomes(&adopted, "default/bot", served);
    drop((adopted, strange)); // else they say again what is forgotten now
    forget(&client);
}
