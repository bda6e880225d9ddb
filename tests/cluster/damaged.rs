//! An agent that begins with less than its predecessor left, and cannot hear the rest: its node is no worse off than without an agent,
//! nobody who is selected leaves with an address of his own, and what somebody else does to the kernel is put back.

use std::fs;
use std::net::IpAddr;

use egret::kube::Client;
use egret::node::standing::Standings;
use egret::testbed::{CnitoolError, Pod};
use serde_json::json;

use crate::hanging::{SELECTS, leased_gateway, pod, seen};
use crate::proxy::{Fate, Proxy, refusal};
use crate::server::kubectl;
use crate::trouble::{namespace, node};
use crate::wired::{Bridge, NODE, Wired, aside};
use crate::world::*;

const POLICIES: &str = "/apis/egret.dev/v1alpha1/egressgatewaypolicies";
const NAMESPACES: [&str; 4] = ["leases", "chosen", "plain", "fresh"];
/// What the agent writes of its life.
const BEAT: &str = "/leases/agent.node1";

/// All pods of namespace `chosen` leave by the gateways of `leases`.
fn policy(client: &Client) {
    let gateway = json!({"selector": SELECTS[0].1, "namespaceSelector": SELECTS[1].1});
    let policy = json!({"apiVersion": "egret.dev/v1alpha1", "kind": "EgressGatewayPolicy", "metadata": {"name": "chosen"},
        "spec": {"selectors": [{"namespaceSelector": "projectcalico.org/name == 'chosen'"}], "rules": [{"gateway": gateway}]}});
    client.create(POLICIES, &policy).unwrap();
}

#[test]
fn an_agent_with_a_damaged_copy_is_no_worse_for_its_node_than_none_and_lets_nobody_out() {
    let _alone = alone();
    let client = client_of("admin");
    forget(&client);
    node(&client, NODE);
    for name in NAMESPACES {
        namespace(&client, name);
    }
    policy(&client);
    let pods = ["chosen/cart", "chosen/late", "plain/one", "plain/two", "fresh/late"];
    let uids = [&[leased_gateway(&client)][..], &pods.map(|name| pod(&client, name, &[]))].concat();
    let (proxy, bridge) = (Proxy::start(), Bridge::find());
    aside(|| story(&mut Wired::raise(&bridge, &proxy), &bridge, (&client, &proxy), &uids));
    for name in NAMESPACES {
        kubectl(&["delete", "pods", "-n", name, "--all", "--force", "--grace-period=0"], "");
        kubectl(&["annotate", "namespace", name, "--overwrite", &format!("{}-", SELECTS[0].0)], "");
    }
    forget(&client);
}

fn story(node: &mut Wired, bridge: &Bridge, (client, proxy): (&Client, &Proxy), uids: &[String]) {
    let [gateway, cart, late, one, two, fresh] = uids else { panic!("{uids:?}") };
    let gateway = node.add("leases/gw", gateway).unwrap();
    let lease = node.lease(&gateway);
    let cart = node.add("chosen/cart", cart).unwrap();
    let one = node.add("plain/one", one).unwrap();
    node.eventually("the selected one leaves by its gateway", || seen(&cart) == Some(lease));
    let own = seen(&one).unwrap();
    assert_ne!(own, lease);
    node.eventually("what pods may do without an agent is on disk", || {
        Standings::read(&node.state(), NODE).is_some_and(|known| known.namespaces.contains_key("fresh"))
    });

    proxy.judge(|line| match line.contains("/egressgatewaypolicies") {
        true => refusal(403, "Forbidden", "a role was taken away"),
        false => Fate::Pass,
    });
    let (mut beats, mut asked) = (0, 0);
    node.again(proxy, |state| {
        fs::remove_file(state.join("objects/cluster/EgressGatewayPolicy.json")).unwrap();
        (beats, asked) = (proxy.asked(BEAT), proxy.asked("/egressgatewaypolicies"));
    });
    node.eventually("it has asked for what is lost", || proxy.asked("/egressgatewaypolicies") > asked + 1);
    assert_eq!(node.status(), Ok(()), "an error would have everything evicted");
    let plain = |name: &str, uid: &str| node.add_annotated(name, uid, Some(json!({"a": "b"})));
    let exempt = node.add("kube-system/dns", "dns").expect("it never waits");
    let two = plain("plain/two", two).expect("nothing selects it");
    assert!([&exempt, &two].iter().all(|pod| seen(pod).is_some_and(|ip| ip != lease)));
    refused(plain("chosen/late", late), "pods of namespace chosen go through gateways");
    node.world.stop_sandbox(&one).expect("its end waits for nobody");
    assert_eq!(seen(&cart), Some(lease), "what is wired stays");
    node.world.node(1).sh("nft flush ruleset").unwrap();
    node.eventually("what somebody flushed is put back", || seen(&cart) == Some(lease));

    // What can be heard counts: a namespace that was annotated after the predecessor's last word.
    bridge.run(|| annotate(client, "fresh", SELECTS[0]));
    let namespaces = node.state().join("objects/cluster/Namespace.json");
    node.eventually("it is heard", || fs::read_to_string(&namespaces).unwrap().contains(SELECTS[0].0));
    refused(plain("fresh/late", fresh), "pods of namespace fresh go through gateways");
    assert_eq!(proxy.asked(BEAT), beats, "an agent that cannot serve all gives no sign of life");
    assert!(!node.is_well());
    let warned = node.log().matches("the copy of the cluster on disk is not current").count();
    assert_eq!(warned, 1, "it is said once, and not four times a second");

    proxy.judge(|_| Fate::Pass);
    node.eventually("it has heard the rest", || node.is_well() && proxy.asked(BEAT) > beats);
    let late = node.add("chosen/late", late).unwrap();
    node.eventually("all are as they shall be", || {
        let through: Vec<Option<IpAddr>> = [&cart, &late, &two, &exempt].map(seen).into();
        through[..2] == [Some(lease); 2] && through[2..].iter().all(|ip| ip.is_some_and(|ip| ip != lease))
    });

    // The marker may be what is lost: that pods go by a predecessor's word says as much as it did.
    proxy.judge(|_| refusal(503, "ServiceUnavailable", "away"));
    node.again(proxy, |state| fs::remove_file(state.join("synced")).unwrap());
    node.eventually("it goes on by what it has", || node.state().join("synced").exists() && node.is_well());
    assert_eq!((node.status(), seen(&cart)), (Ok(()), Some(lease)));
}

#[track_caller]
fn refused(outcome: Result<Pod, CnitoolError>, why: &str) {
    let said = outcome.expect_err("it would leave as itself").said;
    assert!(
        said.contains(why) && said.contains("it found its copy without") && said.contains("tried again"),
        "{said}"
    );
}

fn annotate(client: &Client, namespace: &str, (key, value): (&str, &str)) {
    let path = format!("/api/v1/namespaces/{namespace}");
    let mut object = client.get(&path).unwrap();
    object["metadata"]["annotations"][key] = value.into();
    client.replace(&path, &object).unwrap();
}
