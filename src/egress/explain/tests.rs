//! Golden texts, as an operator sees them, and the JSON that machines read.

use super::*;
use crate::egress::model::EndpointState;
use crate::egress::world::{World, pod_name};

const SELECTOR: &str = "egress.projectcalico.org/selector";
const NAMESPACES: &str = "egress.projectcalico.org/namespaceSelector";
const EGRESS: [(&str, &str); 2] = [(SELECTOR, "role == 'egress'"), (NAMESPACES, "team == 'net'")];

/// Three gateways of namespace `red`: one of both families, one of IPv4 alone, one that drains.
fn world() -> View {
    let mut view = View::default()
        .node("n1", &["192.168.0.1"])
        .node("n2", &["192.168.0.2"])
        .namespace("red", "team=net", &[])
        .namespace("shop", "", &EGRESS)
        .pool("p4", "10.10.10.0/28")
        .pool("p6", "fd00:10::/120")
        .pod("red/gw-0", "role=egress", &[])
        .pod("red/gw-1", "role=egress", &[])
        .pod("red/gw-2", "role=egress", &[])
        .pod("shop/cart", "", &[])
        .gateway("red/gw-0", "n1", &["10.10.10.0", "fd00:10::1"])
        .gateway("red/gw-1", "n2", &["10.10.10.1"])
        .gateway("red/gw-2", "n2", &["10.10.10.2", "fd00:10::2"])
        .with_gateway("red/gw-2", |gateway| gateway.state = EndpointState::Draining);
    view.cluster_cidrs = vec!["10.60.0.0/16".parse().unwrap()];
    view
}

/// The printed text of `explain POD [DESTINATION]`, between line breaks.
fn text(view: &View, pod: &str, destination: &str) -> String {
    let destination = (!destination.is_empty()).then(|| destination.parse().unwrap());
    format!("\n{}", explain(view, &pod_name(pod), destination))
}

#[test]
fn a_client_sees_its_gateways_and_the_addresses_that_the_outside_will_see() {
    assert_eq!(
        text(&world(), "shop/cart", ""),
        "
Pod shop/cart on node n1 is a client
  decided by Namespace shop: egress.projectcalico.org/selector: role == 'egress'

to 0.0.0.0/0: through a gateway, seen outside as 10.10.10.0 or 10.10.10.1
  why: 2 of the 3 gateways that match are usable
  GATEWAY   NODE  NODE ADDRESS  EGRESS ADDRESS  USABLE
  red/gw-0  n1    192.168.0.1   10.10.10.0      yes
  red/gw-1  n2    192.168.0.2   10.10.10.1      yes
  red/gw-2  n2    192.168.0.2   10.10.10.2      no: it is draining: it keeps its flows and takes no new ones

to ::/0: through a gateway, seen outside as fd00:10::1
  why: 1 of the 3 gateways that match is usable
  GATEWAY   NODE  NODE ADDRESS  EGRESS ADDRESS  USABLE
  red/gw-0  n1    192.168.0.1   fd00:10::1      yes
  red/gw-1  n2    192.168.0.2   -               no: it has no IPv6 egress address: name an IPv6 pool in its `egret.dev/ipv6pools`
  red/gw-2  n2    192.168.0.2   fd00:10::2      no: it is draining: it keeps its flows and takes no new ones
"
    );
}

#[test]
fn one_destination_is_one_answer() {
    assert_eq!(
        text(&world().pod("shop/own", "", &EGRESS), "shop/own", "2001:db8::1"),
        "
Pod shop/own on node n1 is a client
  decided by Pod shop/own: egress.projectcalico.org/selector: role == 'egress'
  note: the pod's annotations replace those of Namespace shop as a whole

to 2001:db8::1: through a gateway, seen outside as fd00:10::1
  why: 1 of the 3 gateways that match is usable
  GATEWAY   NODE  NODE ADDRESS  EGRESS ADDRESS  USABLE
  red/gw-0  n1    192.168.0.1   fd00:10::1      yes
  red/gw-1  n2    192.168.0.2   -               no: it has no IPv6 egress address: name an IPv6 pool in its `egret.dev/ipv6pools`
  red/gw-2  n2    192.168.0.2   fd00:10::2      no: it is draining: it keeps its flows and takes no new ones
"
    );
}

#[test]
fn an_inside_destination_goes_direct_and_says_who_made_it_inside() {
    assert_eq!(
        text(&world(), "shop/cart", "10.60.7.7"),
        "
Pod shop/cart on node n1 is a client
  decided by Namespace shop: egress.projectcalico.org/selector: role == 'egress'

to 10.60.7.7: direct
  why: 10.60.0.0/16 is inside (clusterCIDRs), and inside destinations go direct
"
    );
}

#[test]
fn a_held_client_is_told_what_it_lacks_and_what_to_do() {
    let mut view = world();
    view.endpoints.retain(|endpoint| endpoint.pod == pod_name("red/gw-2"));
    assert_eq!(
        text(&view, "shop/cart", "1.1.1.1"),
        "
Pod shop/cart on node n1 is a client
  decided by Namespace shop: egress.projectcalico.org/selector: role == 'egress'

to 1.1.1.1: held, nothing leaves
  why: the one gateway that matches role == \"egress\" in namespaces team == \"net\" is out of use for IPv4
  GATEWAY   NODE  NODE ADDRESS  EGRESS ADDRESS  USABLE
  red/gw-2  n2    192.168.0.2   10.10.10.2      no: it is draining: it keeps its flows and takes no new ones
  to change that: red/gw-2: it is draining: it keeps its flows and takes no new ones
"
    );
    view.endpoints.clear();
    assert_eq!(
        text(&view, "shop/cart", "1.1.1.1"),
        "
Pod shop/cart on node n1 is a client
  decided by Namespace shop: egress.projectcalico.org/selector: role == 'egress'

to 1.1.1.1: held, nothing leaves
  why: no gateway matches role == \"egress\" in namespaces team == \"net\"
  to change that: pods red/gw-0, red/gw-1, red/gw-2 match but are no gateways, since they have no lease; \
where one shall be, annotate it with `egret.dev/gateway: \"true\"` or `egret.dev/ipv4pools` and restart it
"
    );
}

#[test]
fn a_gateway_that_asks_in_vain_is_told_why_and_not_to_ask() {
    let mut view = world();
    view.endpoints.clear();
    let change =
        |view: &View| explain(view, &pod_name("shop/cart"), "1.1.1.1".parse().ok()).items.remove(0).change;
    let asks = |view: &mut View, key: &str, value: &str| {
        let pod = view.pods.get_mut(&pod_name("red/gw-1")).unwrap();
        pod.annotations = [(key.to_owned(), value.to_owned())].into();
    };
    asks(&mut view, "cni.projectcalico.org/ipv4pools", "[\"nope\"]");
    assert_eq!(
        change(&view),
        [
            "pod red/gw-1 matches and asks to be a gateway, but cannot: metadata.annotations[\"cni.projectcalico.org/ipv4pools\"]: \
             there is no pool `nope`: create it, or name one that exists"
        ]
    );
    asks(&mut view, "egret.dev/gateway", "true");
    assert_eq!(
        change(&view),
        [
            "pod red/gw-1 matches and asks to be a gateway, but has no lease yet: start it, or restart it if it ran before it asked"
        ]
    );
}

#[test]
fn a_selector_that_does_not_parse_is_shown_with_a_caret() {
    let view = world().pod("shop/odd", "", &[(SELECTOR, "role = 'egress'")]);
    assert_eq!(
        text(&view, "shop/odd", "1.1.1.1"),
        "
Pod shop/odd on node n1 is a client
  decided by Pod shop/odd: egress.projectcalico.org/selector: role = 'egress'
  note: the pod's annotations replace those of Namespace shop as a whole

to 1.1.1.1: held, nothing leaves
  why: metadata.annotations[\"egress.projectcalico.org/selector\"]: the selector does not parse at character 6: \
a single `=` is no operator; write `==`
  to change that: correct metadata.annotations[\"egress.projectcalico.org/selector\"] of Pod shop/odd

problems:
  Pod shop/odd: metadata.annotations[\"egress.projectcalico.org/selector\"]: \
the selector does not parse at character 6: a single `=` is no operator; write `==`
    role = 'egress'
         ^ a single `=` is no operator; write `==`
"
    );
}

#[test]
fn what_tenants_write_cannot_steer_the_operators_terminal() {
    let view = world().pod("shop/odd", "", &[(SELECTOR, "role == 'a'\u{1b}[2J\npod x is a client")]);
    let shown = text(&view, "shop/odd", "");
    assert!(shown.contains("role == 'a'·[2J·pod x is a client"), "{shown}");
    assert!(!shown.contains('\u{1b}') && !shown.contains("\npod x"), "{shown}");
}

#[test]
fn an_unselected_pod_is_told_how_to_be_selected() {
    let view = world().pod("db/pg", "", &[]);
    assert_eq!(
        text(&view, "db/pg", "1.1.1.1"),
        "
Pod db/pg on node n1 is not selected

to 1.1.1.1: direct
  why: nothing selects the pod: it leaves as the primary network does (usually with the node's address)
  to change that: annotate Pod db/pg or Namespace db with `egret.dev/selector`
"
    );
}

#[test]
fn an_annotation_that_the_mode_ignores_is_pointed_out() {
    let mut view = world().pod("db/pg", "", &EGRESS);
    view.support = EgressSupport::EnabledPerNamespace;
    assert_eq!(
        text(&view, "db/pg", "1.1.1.1"),
        "
Pod db/pg on node n1 is not selected
  note: the pod's `egress.projectcalico.org/selector` is not read, because egressIPSupport is EnabledPerNamespace

to 1.1.1.1: direct
  why: nothing selects the pod: it leaves as the primary network does (usually with the node's address)
  to change that: move the pod's annotations to Namespace db, or set egressIPSupport to EnabledPerNamespaceOrPerPod
"
    );
}

#[test]
fn a_gateway_is_told_apart_from_its_clients() {
    assert_eq!(
        text(&world(), "red/gw-0", "1.1.1.1"),
        "
Pod red/gw-0 on node n1 is a gateway
  note: its clients leave with 10.10.10.0 (p4) and fd00:10::1 (p6)

to 1.1.1.1: direct
  why: it is a gateway, and gateways are never redirected: it leaves as the primary network does \
(usually with the node's address)
"
    );
}

#[test]
fn a_host_network_pod_is_told_why_it_cannot_be_served() {
    let mut view = world().pod("shop/dns", "", &[]);
    view.pods.get_mut(&pod_name("shop/dns")).unwrap().host_network = true;
    assert_eq!(
        text(&view, "shop/dns", "1.1.1.1"),
        "
Pod shop/dns on node n1 is on its node's network
  decided by Namespace shop: egress.projectcalico.org/selector: role == 'egress'

to 1.1.1.1: direct
  why: it shares its node's network and leaves as the node does, with the node's address
  to change that: remove spec.hostNetwork: only pods with a network of their own can be redirected

problems:
  Pod shop/dns: shares its node's network, so it cannot be given an egress address, and leaves as the node: \
it is selected by Namespace shop `egress.projectcalico.org/selector`; leave it out, or remove spec.hostNetwork
"
    );
}

#[test]
fn an_unreadable_object_is_named() {
    assert_eq!(
        text(&world().broken("Namespace blue"), "blue/app", "1.1.1.1"),
        "
Pod blue/app is a client
  decided by Namespace blue

to 1.1.1.1: held, nothing leaves
  why: Namespace blue cannot be read, so nobody knows where this pod may send: correct it
  to change that: correct Namespace blue

problems:
  Pod blue/app: there is no such Pod object. It is explained as a pod without labels and annotations of its own
"
    );
}

#[test]
fn an_unknown_pod_is_asked_back_with_the_name_that_may_be_meant() {
    let said = |pod: &str| {
        let explanation = explain(&world(), &pod_name(pod), None);
        let unknown = explanation.problems.iter().find(|problem| problem.reason.starts_with("Unknown"));
        let unknown = unknown.unwrap_or_else(|| panic!("{pod}"));
        format!("{}: {}", unknown.reason, unknown.message)
    };
    let rest = "It is explained as a pod without labels and annotations";
    let like = "there is no such Pod object; did you mean shop/cart?";
    assert_eq!(said("shop/crat"), format!("UnknownPod: {like} {rest} of its own"));
    let neither = "there is no such Pod object nor such a namespace";
    assert_eq!(said("shpo/cart"), format!("UnknownNamespace: {neither}; did you mean shop/cart? {rest}"));
    assert_eq!(said("nowhere/unheard-of"), format!("UnknownNamespace: {neither}. {rest}"));
}

#[test]
fn who_names_a_deployment_is_told_the_pods_that_it_made() {
    let said = |made: &[&str]| {
        let mut view = world();
        let cart = view.pods[&pod_name("shop/cart")].clone();
        view.pods.extend(made.iter().map(|name| (pod_name(name), cart.clone())));
        explain(&view, &pod_name("shop/website"), None).problems.remove(0).message
    };
    let one = said(&["shop/website-7d5cb756d-k8x7z", "bank/website-1"]);
    assert!(one.contains("; with that beginning there is shop/website-7d5cb756d-k8x7z. It is"), "{one}");
    let five =
        ["a1b2c", "d3e4f", "g5h6i", "j7k8l", "m9n0o"].map(|end| format!("shop/website-7d5cb756d-{end}"));
    let told = format!("; with that beginning there are {} and 2 more. It is", five[..3].join(", "));
    let five = said(&five.each_ref().map(String::as_str));
    assert!(five.contains(&told), "{five}");
}

#[test]
fn the_json_is_stable() {
    let explanation = explain(&world(), &pod_name("shop/cart"), Some("2001:db8::1".parse().unwrap()));
    let expected = serde_json::json!({
        "apiVersion": "egret.dev/v1alpha1",
        "kind": "Explanation",
        "items": [{
            "pod": "shop/cart",
            "node": "n1",
            "role": "client",
            "decidedBy": {
                "object": "Namespace shop",
                "field": "egress.projectcalico.org/selector",
                "value": "role == 'egress'",
            },
            "destination": "2001:db8::1",
            "rule": "::/0",
            "action": "gateway",
            "reason": "1 of the 3 gateways that match is usable",
            "sources": ["fd00:10::1"],
            "gateways": [
                {
                    "pod": "red/gw-0",
                    "node": "n1",
                    "nodeAddress": "192.168.0.1",
                    "egressAddress": "fd00:10::1",
                    "usable": true,
                },
                {
                    "pod": "red/gw-1",
                    "node": "n2",
                    "nodeAddress": "192.168.0.2",
                    "usable": false,
                    "reason": "it has no IPv6 egress address: name an IPv6 pool in its `egret.dev/ipv6pools`",
                },
                {
                    "pod": "red/gw-2",
                    "node": "n2",
                    "nodeAddress": "192.168.0.2",
                    "egressAddress": "fd00:10::2",
                    "usable": false,
                    "reason": "it is draining: it keeps its flows and takes no new ones",
                },
            ],
            "change": [],
        }],
        "notes": [],
        "problems": [],
    });
    assert_eq!(serde_json::to_value(&explanation).unwrap(), expected);
    let again: Explanation = serde_json::from_value(expected).unwrap();
    assert_eq!(again, explanation);
}

#[test]
fn an_inside_destination_says_so_to_machines() {
    let explanation = explain(&world(), &pod_name("shop/cart"), Some("10.60.0.1".parse().unwrap()));
    let json = serde_json::to_value(&explanation.items[0]).unwrap();
    assert_eq!(json["inside"], serde_json::json!({"cidr": "10.60.0.0/16", "source": "clusterCIDRs"}));
    assert_eq!((json["action"].as_str(), json.get("rule")), (Some("direct"), None));
}

#[test]
fn that_nothing_selects_a_pod_is_not_certain_while_a_file_is_not_read() {
    let view = world();
    let unread = ["a.yaml", "b.txt", "c.json", "d.yml", "e.yml"].map(ToOwned::to_owned);
    let why = |pod: &str, unread: &[String]| {
        let mut explanation = explain(&view, &pod_name(pod), None);
        explanation.doubt(unread);
        explanation.items[0].reason.clone()
    };
    assert!(!why("default/plain", &[]).contains("certain"));
    let doubts = [
        (1, "a.yaml is not read to its end and may say otherwise"),
        (3, "a.yaml, b.txt, c.json are not read to their end and may say otherwise"),
        (5, "a.yaml, b.txt, c.json and 2 more files are not read to their end and may say otherwise"),
    ];
    for (count, doubt) in doubts {
        let said = why("default/plain", &unread[..count]);
        assert!(said.starts_with("nothing selects the pod: it leaves as the primary network does"), "{said}");
        assert!(said.ends_with(&format!("; that is not certain, because {doubt}")), "{said}");
        assert!(!why("shop/cart", &unread[..count]).contains("certain"), "a client is selected");
    }
}
