//! Random worlds of Calico's, Cilium's and our manifests, the same for the same seed.

use serde_json::{Value, json};

/// Numbers that look random (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn of(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    /// Once in `n`.
    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of_these<'a, T: ?Sized>(&mut self, these: &[&'a T]) -> &'a T {
        these[self.below(these.len())]
    }

    fn some<'a>(&mut self, these: &[&'a str], most: usize) -> Vec<&'a str> {
        let mut taken: Vec<&str> = (0..1 + self.below(most)).map(|_| self.of_these(these)).collect();
        taken.sort_unstable();
        taken.dedup();
        taken
    }
}

const PREFIXES: [&str; 9] = [
    "0.0.0.0/0",
    "::/0",
    "203.0.113.0/24",
    "203.0.113.0/25",
    "203.0.113.7/32",
    "198.51.100.0/24",
    "2001:db8:9::/48",
    "2001:db8:9::7/128",
    "10.0.0.0/8",
];
const PODS: [&str; 6] = [
    "app == 'gw'",
    "app in {'gw', 'red'}",
    "all()",
    "has(app) && app != 'cart'",
    "tier == 'x'",
    "app == 'red'",
];
const SPACES: [&str; 4] = ["all()", "projectcalico.org/name == 'a'", "team == 'one'", "has(team)"];
const POLICIES: [&str; 4] = ["web", "net", "more", "none"];

/// Files of a world.
pub(crate) fn world(random: &mut Random) -> Vec<(String, String)> {
    let mut objects: Vec<Value> = Vec::new();
    for name in ["a", "b", "c"] {
        let team = random.of_these(&["one", "two"]);
        objects.push(json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"team": team}, "annotations": client(random, 2)}}));
    }
    for n in 0..3 {
        let zone = random.of_these(&["x", "y"]);
        let mut addresses = vec![json!({"type": "InternalIP", "address": format!("172.18.0.{}", 9 - n)})];
        if random.once_in(2) {
            addresses.push(json!({"type": "InternalIP", "address": format!("fd00::{n}")}));
        }
        objects.push(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("n{n}"), "labels": {"zone": zone}},
            "status": {"addresses": addresses}}));
    }
    for n in 0..8 {
        objects.push(pod(random, n));
    }
    for (n, name) in ["p0", "p1", "p6"].iter().enumerate() {
        let cidr = if *name == "p6" {
            "2001:db8:70::/120".to_owned()
        } else {
            format!("192.0.2.{}/28", 64 + 16 * n)
        };
        let block = if *name == "p6" { 124 } else { 31 };
        let spec =
            json!({"cidr": cidr, "blockSize": block, "nodeSelector": random.of_these(&["all()", "!all()"])});
        objects.push(json!({"apiVersion": random.of_these(&["projectcalico.org/v3", "crd.projectcalico.org/v1"]), "kind": "IPPool",
            "metadata": {"name": name, "annotations": narrowed(random)}, "spec": spec}));
    }
    for _ in 0..random.below(4) {
        objects.push(calico(random));
    }
    for _ in 0..random.below(4) {
        objects.push(cilium(random));
    }
    if random.once_in(3) {
        objects.push(own(random));
    }
    // Who comes first counts where two have one name.
    let text = |objects: &[Value]| {
        let texts: Vec<String> = objects.iter().map(|o| serde_yaml_ng::to_string(o).unwrap()).collect();
        texts.join("---\n")
    };
    let (first, second) = objects.split_at(random.below(objects.len() - 1) + 1);
    vec![("1.yaml".to_owned(), text(first)), ("2.yaml".to_owned(), text(second))]
}

fn narrowed(random: &mut Random) -> Value {
    match random.below(3) {
        0 => json!({"egret.dev/client-namespaces": random.of_these(&SPACES)}),
        _ => json!({}),
    }
}

/// What makes pods clients, once in `rare` objects.
fn client(random: &mut Random, rare: usize) -> Value {
    let mut pairs = serde_json::Map::new();
    if !random.once_in(rare) {
        return Value::Object(pairs);
    }
    let prefix = random.of_these(&["egress.projectcalico.org", "egress.projectcalico.org", "egret.dev"]);
    let mut put = |key: &str, value: String| drop(pairs.insert(format!("{prefix}/{key}"), value.into()));
    match random.below(3) {
        0 => put("egressGatewayPolicy", random.some(&POLICIES, 2).join(", ")),
        _ => {
            put("selector", random.of_these(&PODS).to_owned());
            if random.once_in(2) {
                put("namespaceSelector", random.of_these(&SPACES).to_owned());
            }
            if random.once_in(3) {
                put("maxNextHops", random.of_these(&["0", "1", "2", "many"]).to_owned());
            }
            if random.once_in(9) {
                put("egressGatewayPolicy", "web".to_owned());
            }
        }
    }
    if random.once_in(9) {
        pairs.insert("egret.dev/selector".to_owned(), "app == 'red'".into());
    }
    Value::Object(pairs)
}

fn pod(random: &mut Random, n: usize) -> Value {
    let mut annotations = client(random, 3);
    let app = random.of_these(&["gw", "red", "cart"]);
    if app != "cart" {
        let pools = random.of_these(&["[\"p0\"]", "[\"p1\", \"p0\"]", "[\"192.0.2.64/28\"]", "p9"]);
        annotations["cni.projectcalico.org/ipv4pools"] = pools.into();
        if random.once_in(2) {
            annotations["cni.projectcalico.org/ipv6pools"] = "[\"p6\"]".into();
        }
    }
    let namespace = random.of_these(&["a", "b", "c", "d"]);
    let host = random.once_in(12);
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("p{n}"), "namespace": namespace, "uid": format!("uid-{n}"), "labels": {"app": app},
            "annotations": annotations},
        "spec": {"nodeName": format!("n{}", random.below(4)), "hostNetwork": host}})
}

fn metadata(random: &mut Random, names: &[&str]) -> Value {
    let mut metadata = json!({"name": random.of_these(names)});
    if random.once_in(2) {
        metadata["creationTimestamp"] = format!("2026-01-0{}T00:00:00Z", 1 + random.below(3)).into();
    }
    metadata
}

fn calico(random: &mut Random) -> Value {
    let mut rules = Vec::new();
    for cidr in random.some(&PREFIXES, 4) {
        let mut rule = json!({"destination": {"cidr": cidr}, "description": "some"});
        if !random.once_in(4) {
            rule["gateway"] = json!({"selector": random.of_these(&PODS), "namespaceSelector": random.of_these(&SPACES),
                "maxNextHops": random.below(3)});
            rule["gatewayPreference"] = random.of_these(&["None", "PreferNodeLocal"]).into();
        }
        if random.once_in(20) {
            rule["gateway"] = json!({"selector": "app = 'x'", "namespaceSelector": "all()"});
        }
        if random.once_in(25) {
            rule["gateway"] = json!({"selector": "all()"});
        }
        if random.once_in(8) {
            rule.as_object_mut().unwrap().remove("destination");
        }
        rules.push(rule);
    }
    let version = random.of_these(&["projectcalico.org/v3", "crd.projectcalico.org/v1"]);
    json!({"apiVersion": version, "kind": "EgressGatewayPolicy", "metadata": metadata(random, &POLICIES[..3]), "spec": {"rules": rules}})
}

fn labels(random: &mut Random) -> Value {
    match random.below(5) {
        0 => json!({}),
        1 => json!({"matchLabels": {"app": "cart"}}),
        2 => json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["cart", "red"]}]}),
        3 => json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["gw"]}]}),
        _ => {
            json!({"matchLabels": {"io.kubernetes.pod.namespace": "a"}, "matchExpressions": [{"key": "k8s:app", "operator": "Exists"}]})
        }
    }
}

fn node_gateway(random: &mut Random) -> Value {
    let mut gateway = json!({"nodeSelector": {"matchLabels": {"zone": random.of_these(&["x", "y", "z"])}}});
    match random.below(6) {
        0 => gateway["interface"] = "eth1".into(),
        1 => gateway["egressIP"] = random.of_these(&["192.0.2.10", "192.0.2.11", "172.18.0.9"]).into(),
        2 if random.once_in(4) => {
            gateway["interface"] = "eth1".into();
            gateway["egressIP"] = "192.0.2.10".into();
        }
        _ => {}
    }
    gateway
}

fn cilium(random: &mut Random) -> Value {
    let mut selectors = Vec::new();
    for _ in 0..1 + random.below(2) {
        let mut entry = json!({"podSelector": labels(random)});
        if random.once_in(3) {
            entry["namespaceSelector"] = json!({"matchLabels": {"team": random.of_these(&["one", "two"])}});
        }
        if random.once_in(4) {
            entry["nodeSelector"] = json!({"matchLabels": {"zone": random.of_these(&["x", "y"])}});
        }
        selectors.push(entry);
    }
    let mut spec = json!({"selectors": selectors, "destinationCIDRs": random.some(&PREFIXES, 3), "egressGateway": node_gateway(random)});
    if random.once_in(3) {
        spec["excludedCIDRs"] = json!(random.some(&PREFIXES, 2));
    }
    if random.once_in(3) {
        spec["egressGateways"] = (0..1 + random.below(3)).map(|_| node_gateway(random)).collect();
    }
    json!({"apiVersion": "cilium.io/v2", "kind": "CiliumEgressGatewayPolicy", "metadata": metadata(random, &POLICIES[..3]), "spec": spec})
}

/// Ours: nothing about it is to change.
fn own(random: &mut Random) -> Value {
    let rules = json!([{"destination": {"cidrs": random.some(&PREFIXES, 2)}, "gateway": {"selector": random.of_these(&PODS)}}]);
    json!({"apiVersion": "egret.dev/v1alpha1", "kind": "EgressGatewayPolicy", "metadata": metadata(random, &POLICIES[..3]),
        "spec": {"enforced": random.once_in(2), "selectors": [{"selector": "app == 'cart'"}], "rules": rules}})
}
