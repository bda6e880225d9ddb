//! `egret convert`: what was converted decides as it did.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use egret::addr::{Family, Mac};
use egret::api::convert::{Conversion, convert};
use egret::config::Config;
use egret::egress::gateway;
use egret::egress::interfaces::{Interface, Interfaces};
use egret::egress::model::{
    Action, Candidate, EgressAddress, Endpoint, EndpointState, PodName, Resolution, Role, View,
};
use egret::egress::resolve::resolve;
use egret::store::objects::Objects;

use crate::random::{Random, world};
use crate::world::Folder;

/// The manifests as a node reads them, with a gateway wherever a pod asks to be one and may.
fn view(files: &[(String, String)]) -> View {
    let readings = files.iter().map(|(name, text)| (name.clone(), egret::api::read(name, text.as_bytes())));
    let mut view = Objects::of(readings.collect()).unwrap().view(&Config::default(), Vec::new());
    for (n, (name, node)) in view.nodes.iter().enumerate() {
        let own = node.internal_ips.iter().copied();
        let more: [IpAddr; 2] =
            [[192, 0, 2, 10 + n as u8].into(), format!("2001:db8:2::{n}").parse().unwrap()];
        let eth = |name: &str, addresses: Vec<IpAddr>| Interface {
            name: name.into(),
            altnames: Vec::new(),
            addresses,
            ways: None,
        };
        let links = vec![eth("eth0", own.collect()), eth("eth1", more[..1 + n % 2].to_vec())];
        view.interfaces
            .insert(name.clone(), Interfaces { links, default4: Some("eth0".into()), default6: None });
    }
    let pods: Vec<PodName> = view.pods.keys().cloned().collect();
    for pod in pods {
        let node = view.pods[&pod].node.clone().unwrap_or_else(|| "n0".into());
        if let Ok(Some(wish)) = gateway::wanted(&view, &pod, &node) {
            view.endpoints.push(endpoint(&view, pod, node, &wish.pools));
        }
    }
    view
}

fn endpoint(view: &View, pod: PodName, node: String, pools: &BTreeMap<Family, Vec<String>>) -> Endpoint {
    let address = |names: &Vec<String>| {
        let pool = &view.pools[&names[0]];
        EgressAddress::leased(pool.cidr.first(), pool.name.clone())
    };
    Endpoint {
        attachment: format!("net/{pod}/eth0"),
        uid: None,
        addresses: pools.values().map(address).collect(),
        underlay: view.nodes.get(&node).map(|node| node.internal_ips.clone()).unwrap_or_default(),
        pod,
        node,
        vni: 4098,
        mac: Mac([2, 0x67, 0, 0, 0, 1]),
        state: EndpointState::Ready,
        generation: 1,
        problems: Vec::new(),
    }
}

/// Every pod, and one that no manifest has in each namespace.
fn decided(view: &View) -> Resolution {
    let any = view.namespaces.keys().map(|namespace| PodName::new(namespace, "any"));
    let pods: BTreeSet<PodName> = view.pods.keys().cloned().chain(any).collect();
    resolve(view, pods)
}

/// A decision without the words in which it is told: those name objects, and objects have new names.
fn facts(resolution: &Resolution) -> BTreeMap<String, (Role, Vec<String>)> {
    let candidate =
        |c: &Candidate| format!("{} {:?} usable {}", c.gateway(), c.address, c.unusable.is_none());
    let mut facts = BTreeMap::new();
    for (pod, decision) in &resolution.decisions {
        let rules = decision.rules.iter().map(|(cidr, outcome)| {
            let action = match &outcome.action {
                Action::Direct => "direct".to_owned(),
                Action::Held(_) => "held".to_owned(),
                Action::Through(keys) => format!("through {keys:?}"),
            };
            let candidates: Vec<String> = outcome.candidates.iter().map(candidate).collect();
            format!("{cidr}: {action} of {candidates:?}")
        });
        facts.insert(pod.to_string(), (decision.role, rules.collect()));
    }
    facts
}

fn converted(files: &[(String, String)]) -> (Conversion, String) {
    let texts = files.iter().map(|(name, text)| (name.as_str(), text.as_bytes()));
    let conversion = convert(texts, |_| None);
    let mut yaml = String::new();
    for document in &conversion.documents {
        yaml += &format!("---\n{}", serde_yaml_ng::to_string(&document.manifest).unwrap());
    }
    (conversion, yaml)
}

/// Converts a world and compares; the decisions, and what was converted.
fn same_decisions(
    what: &str,
    files: &[(String, String)],
) -> (BTreeMap<String, (Role, Vec<String>)>, Conversion) {
    let (conversion, yaml) = converted(files);
    let before = facts(&decided(&view(files)));
    let after = facts(&decided(&view(&[("all.yaml".to_owned(), yaml.clone())])));
    let show = || {
        let old: Vec<&str> = files.iter().map(|(_, text)| text.as_str()).collect();
        format!("{what}\n{}\n--- became\n{yaml}\n{:#?}", old.join("---\n"), conversion.notes)
    };
    for (pod, fact) in &before {
        assert_eq!(Some(fact), after.get(pod), "{pod} of {}", show());
    }
    assert_eq!(before.len(), after.len(), "{}", show());
    (before, conversion)
}

/// A folder of the repository's examples.
fn example(folder: &str) -> Vec<(String, String)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(folder);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "yaml") {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            files.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
    files.sort();
    assert!(files.len() > 2, "{} has {} manifests", folder.display(), files.len());
    files
}

#[test]
fn the_examples_decide_as_before() {
    let (facts, conversion) = same_decisions("calico-ippool", &example("calico-ippool"));
    let client = &facts["my-namespace/my-client"];
    assert!(client.0 == Role::Client && client.1[0].contains("through"), "{client:?}");
    assert_eq!(conversion.problems, []);
    same_decisions("policies", &example("policies"));
}

#[test]
fn random_worlds_decide_as_before() {
    let (mut through, mut held, mut direct, mut renamed, mut unfit) = (0, 0, 0, 0, 0);
    for seed in 0..150 {
        let files = world(&mut Random::of(seed));
        let (facts, conversion) = same_decisions(&format!("seed {seed}"), &files);
        for line in facts.values().flat_map(|(_, rules)| rules) {
            let of = |word: &str| usize::from(line.contains(word));
            through += of(": through");
            held += of(": held");
            direct += of(": direct");
        }
        renamed += conversion.notes.iter().filter(|note| note.reason == "Renamed").count();
        unfit += conversion.problems.len();
        for document in &conversion.documents {
            let text = document.manifest.to_string();
            let foreign = ["projectcalico.org/v", "crd.projectcalico.org/v", "cilium.io/v"];
            let kept = document.object.starts_with("IPPool") || !document.changed;
            assert!(kept || !foreign.iter().any(|group| text.contains(group)), "seed {seed}: {text}");
        }
    }
    // A comparison of worlds in which nothing happens proves nothing.
    let seen = [through, held, direct, renamed, unfit];
    assert!(seen[..3].iter().all(|n| *n > 50) && seen[3..].iter().all(|n| *n > 2), "{seen:?}");
}

#[test]
fn what_is_converted_passes_lint_and_what_has_no_equal_is_noted() {
    let folder = Folder::with(&[]);
    for (name, text) in example("calico-ippool").iter().chain(&example("policies")) {
        folder.write(name, text);
    }
    folder.write("egw.yaml", EGRESS_GATEWAY);
    folder.write("service.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n");
    let said = folder.egret("convert -f .");
    assert_eq!(said.status, 0, "{}", said.err);
    for line in
        ["note[NoEqual]: egw.yaml: EgressGateway shop/red: ", "1 Service", "note[OwnAddress]: gateway.yaml"]
    {
        assert!(said.err.contains(line), "{line} in {}", said.err);
    }
    let lint = folder.egret_with("lint --strict -f -", &said.out);
    assert_eq!(lint.status, 0, "{}\n{}", lint.out, said.out);
    let again = folder.egret_with("convert -f -", &said.out);
    assert_eq!((again.out, again.status), (said.out, 0), "converting twice changes nothing more");
}

#[test]
fn what_a_policy_of_ciliums_loses_or_changes_by_being_converted_is_noted() {
    let text = "apiVersion: cilium.io/v2
kind: CiliumEgressGatewayPolicy
metadata: {name: web}
spec:
  priority: 5
  selectors:
  - {podSelector: {matchLabels: {a: b}}, nodeSelector: {matchLabels: {zone: z1}}}
  - {namespaceSelector: {}, ports: [443]}
  destinationCIDRs: [10.1.2.3/8]
  egressGateways: [{nodeSelector: {}, maxGatewayNodes: 1}]
  egressGateway: {nodeSelector: {}, interface: eth9}
---
apiVersion: egret.dev/v1alpha1
kind: EgressGatewayPolicy
metadata: {name: web}
spec: {rules: [{destination: {cidr: 192.0.2.0/24}}]}
";
    let folder = Folder::with(&[("all.yaml", text)]);
    let said = folder.egret("convert -f .");
    assert_eq!(said.status, 0, "{}", said.err);
    let place = "all.yaml: CiliumEgressGatewayPolicy web: ";
    for (note, field) in [
        ("NoEqual", "spec.priority"),
        ("NoEqual", "spec.selectors[1].ports"),
        ("NoEqual", "spec.egressGateways[0].maxGatewayNodes"),
        ("NoEqual", "spec.egressGateway"),
        ("Masked", "spec.destinationCIDRs[0]"),
        ("PooledNodeSelectors", "spec.selectors"),
        ("Renamed", "metadata.name"),
    ] {
        let line = format!("note[{note}]: {place}{field}: ");
        assert!(said.err.contains(&line), "{line} in {}", said.err);
    }
    assert_eq!(said.err.matches("note[").count(), 7, "{}", said.err);
    assert!(said.out.contains("name: web-cilium\n"), "{}", said.out);
}

const EGRESS_GATEWAY: &str = "
apiVersion: operator.tigera.io/v1
kind: EgressGateway
metadata: {name: red, namespace: shop}
spec: {replicas: 2, ipPools: [{name: egress-ippool-1}], template: {metadata: {labels: {egress-code: red}}}}
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {egressIPSupport: EnabledPerNamespace, bpfEnabled: false}
";

#[test]
fn a_workload_changes_in_its_template_alone() {
    let deployment = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: shop, annotations: {egress.projectcalico.org/selector: of nobody}}
spec:
  replicas: 2
  template:
    metadata: {labels: {app: cart}, annotations: {egress.projectcalico.org/selector: app == 'gw', other: kept}}
    spec: {containers: [{name: c, image: x}]}
";
    let plain = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: plain}\nspec: {template: {metadata: {labels: {app: x}}}}\n";
    let folder = Folder::with(&[("a.yaml", deployment), ("b.yaml", plain)]);
    let json = folder.egret("convert -f . -o json").json();
    let items = json["items"].as_array().unwrap();
    assert_eq!((items.len(), &json["skipped"]["Deployment"]), (1, &1.into()));
    let template = &items[0]["manifest"]["spec"]["template"];
    assert_eq!(
        template["metadata"]["annotations"],
        serde_json::json!({"egret.dev/selector": "app == 'gw'", "other": "kept"})
    );
    assert_eq!(template["spec"]["containers"][0]["image"], "x");
    assert_eq!(
        items[0]["manifest"]["metadata"]["annotations"]["egress.projectcalico.org/selector"],
        "of nobody"
    );
}

#[test]
fn what_cannot_be_converted_stays_as_it_is_and_is_an_error() {
    let policy = "apiVersion: projectcalico.org/v3\nkind: EgressGatewayPolicy\nmetadata: {name: p}\nspec: {rules: [{gateway: {selector: ''}}]}\n";
    let folder = Folder::with(&[("p.yaml", policy), ("torn.yaml", "a: [1,\n")]);
    let said = folder.egret("convert -f .");
    assert_eq!(said.status, 1);
    assert!(said.out.contains("apiVersion: projectcalico.org/v3"), "{}", said.out);
    for line in [
        "error[EmptySelector]: p.yaml: EgressGatewayPolicy p: spec.rules[0].gateway.selector",
        "error[NotYaml]: torn.yaml: ",
    ] {
        assert!(said.err.contains(line), "{line} in {}", said.err);
    }
    assert_eq!(folder.egret("convert -f nowhere").status, 2);
}

#[test]
fn a_pool_of_pod_addresses_stays_calicos() {
    let pool = |name: &str, more: &str| {
        format!(
            "apiVersion: crd.projectcalico.org/v1\nkind: IPPool\nmetadata: {{name: {name}, uid: x, resourceVersion: '7'}}\nspec: {{cidr: 10.{more}}}\n"
        )
    };
    let [pods, named] =
        [pool("pods", "244.0.0/16, natOutgoing: true, vxlanMode: Always"), pool("named", "9.0.0/24")];
    let gateway = "apiVersion: v1\nkind: Pod\nmetadata: {name: gw, annotations: {cni.projectcalico.org/ipv4pools: '[\"10.9.0.0/24\"]'}}\n";
    let folder = Folder::with(&[("a.yaml", &pods), ("b.yaml", &named), ("c.yaml", gateway)]);
    let json = folder.egret("convert -f . -o json").json();
    let objects: Vec<&str> =
        json["items"].as_array().unwrap().iter().map(|i| i["object"].as_str().unwrap()).collect();
    assert_eq!(objects, ["IPPool pods", "EgressPool named", "Pod gw"]);
    assert_eq!(json["items"][1]["manifest"]["metadata"], serde_json::json!({"name": "named"}));
    assert_eq!(json["items"][1]["manifest"]["spec"]["blockSize"], 26);
    assert_eq!(json["notes"][0]["reason"], "PodPool");
}

/// A command before it that failed prints nothing, and what is written over a manifest then must not count as one.
#[test]
fn nothing_is_no_answer() {
    let folder = Folder::with(&[]);
    for input in ["", "\n", "# nobody is here\n"] {
        let said = folder.egret_with("convert -f -", input);
        assert!(said.err.contains("there is no manifest in stdin"), "{}", said.err);
        assert_eq!((said.status, said.out.as_str()), (2, ""), "{input:?}");
    }
}

#[test]
fn a_list_without_members_is_named() {
    for (list, sentence) in [
        (
            "apiVersion: v1\nkind: List\nitems: nope\n",
            "items: a `List` is read by its members, and this is the text \"nope\"",
        ),
        ("apiVersion: v1\nkind: List\n", "items: a `List` is read by its members, and this is not there"),
        (
            "apiVersion: v1\nkind: PodList\nitems: {}\n",
            "items: a `PodList` is read by its members, and this is a map",
        ),
    ] {
        let folder = Folder::with(&[("list.yaml", list)]);
        for verb in ["lint -f .", "convert -f ."] {
            let said = folder.egret(verb);
            let all = said.out.clone() + &said.err;
            assert!(all.contains(&format!("error[WrongType]: list.yaml: {sentence}")), "{verb}: {all}");
            assert_eq!(said.status, 1, "{verb}");
        }
    }
    let others = "apiVersion: example.net/v1\nkind: AllowList\nspec: {}\n---\napiVersion: v1\nkind: PodList\nitems: null\n";
    let folder = Folder::with(&[("list.yaml", others)]);
    assert_eq!(folder.egret("lint -f .").status, 0, "kinds of others may be called so");
}

#[test]
fn a_member_without_a_name_is_known_by_its_place() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n- 7\n- {metadata: {}}\n";
    let said = Folder::with(&[("list.yaml", list)]).egret("lint -f .");
    assert!(said.out.contains("items[1]: a document is the number 7"), "{}", said.out);
    assert!(said.out.contains("items[2].kind: the object has no kind"), "{}", said.out);
}
