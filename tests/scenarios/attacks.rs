//! Somebody pulls at the world while clients send: objects go under running pods, a namespace loses its name, definitions change, calls
//! fail half-way. The outside sees the addresses that `explain` says, or nothing.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use egret::addr::Family;
use egret::testbed::{Capture, Outside, Pod, STATE_DIR, within};
use serde_json::{Value, json};

use crate::lab::{Lab, SELECTS_RED, nodes};
use crate::node_gateways::{WHOLE, pod, policy, seconds, topology};
use crate::traffic::Stream;

/// How long clients send into each new world.
const WINDOW: Duration = Duration::from_millis(150);
/// How long a story waits for what takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of a datagram that no interface takes in one piece.
const FRAGMENTED: usize = 4000;
/// Pause between looks.
const LOOK: Duration = Duration::from_millis(5);

/// Clients that send all the time, and what is seen of them outside.
struct Attack<'a> {
    lab: &'a Lab,
    clients: &'a [Pod],
    capture: Capture,
    _stream: Stream,
}

impl<'a> Attack<'a> {
    /// On clients that leave as predicted.
    #[track_caller]
    fn on(lab: &'a Lab, clients: &'a [Pod]) -> Attack<'a> {
        clients.iter().for_each(|client| drop(lab.leaves_as_predicted(client)));
        let (capture, stream) = (lab.capture().unwrap(), Stream::start(clients));
        Attack { lab, clients, capture, _stream: stream }
    }

    /// Since it was last asked, and for a moment more, what left had one of these addresses. Which of them were seen.
    #[track_caller]
    fn shows_at_most(&self, allowed: &BTreeSet<IpAddr>, when: &str) -> BTreeSet<IpAddr> {
        std::thread::sleep(WINDOW);
        let own: BTreeSet<IpAddr> = self.clients.iter().flat_map(|client| client.addresses.clone()).collect();
        let theirs =
            |port: u16| self.clients.iter().any(|client| (client.port()..client.port() + 4).contains(&port));
        let packets = self.capture.packets();
        let of_clients = packets.iter().filter(|p| {
            let of_a_router = p.about.is_some_and(|about| !own.contains(&about));
            own.contains(&p.source) || (p.service.is_some_and(theirs) && !of_a_router)
        });
        let (good, leaked): (Vec<_>, Vec<_>) = of_clients.partition(|p| allowed.contains(&p.source));
        let some: Vec<String> = leaked.iter().take(8).map(ToString::to_string).collect();
        assert!(leaked.is_empty(), "{when}: {} of {} packets leaked: {some:#?}", leaked.len(), packets.len());
        assert_eq!(self.capture.dropped(), 0, "{when}");
        self.capture.restart();
        good.into_iter().map(|p| p.source).collect()
    }

    /// Each node in turn takes up what changed, one after the other, so that one knows what the other does not yet.
    #[track_caller]
    fn goes_round(&self, allowed: &BTreeSet<IpAddr>, what: &str) {
        self.shows_at_most(allowed, &format!("{what}, before anybody knows"));
        for node in self.lab.topology().node_numbers() {
            reconcile(self.lab, node);
            self.shows_at_most(allowed, &format!("{what}, node {node} knows"));
        }
    }
}

/// Sooner or later, since others send too, the pod leaves with these addresses, which `explain` says.
#[track_caller]
fn leaves_with(lab: &Lab, client: &Pod, addresses: &BTreeSet<IpAddr>) {
    for to in lab.destinations() {
        let predicted = lab.predicted(client, to);
        assert!(predicted.is_subset(addresses) && !predicted.is_empty(), "{}: {predicted:?}", client.name);
        let served = || [client.udp(to), client.tcp(to)].map(Result::ok);
        let served = || served().iter().all(|saw| saw.is_some_and(|saw| predicted.contains(&saw)));
        assert!(within(PATIENCE, LOOK, served).is_some(), "{} to {to}: not by {predicted:?}", client.name);
    }
}

fn reconcile(lab: &Lab, node: u8) {
    let list = lab.conflist_path(node).display().to_string();
    let output = lab.egret(node, &["reconcile", "--config", &list]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Selected by its labels alone, and deleted by force: the object goes, the pod sends on. It is what it was, and so says `explain`. Then
/// the node that its traffic leaves by loses the address, the interface.
#[test]
fn a_client_whose_object_is_gone_is_what_it_was_and_a_node_gateway_without_its_address_holds_it() {
    let lab = Lab::raise(topology(2));
    policy(&lab, "by-eth1", "shop", WHOLE, &[(2, "interface: eth1")]);
    let clients = [pod(&lab, 1, "c1", "shop"), pod(&lab, 2, "c2", "plain")];
    // Selected while it runs.
    lab.pod_object("apps/c2", &[("app", "shop")], &[], 2).unwrap();
    lab.settle().unwrap();
    let attack = Attack::on(&lab, &clients);
    let near = Family::BOTH.map(|family| Outside::Near.address(family));
    for (client, to) in clients.iter().flat_map(|client| near.map(|to| (client, to))) {
        let seen = || client.udp_of(to, FRAGMENTED).is_ok_and(|saw| seconds(2).contains(&saw));
        assert!(within(PATIENCE, LOOK, seen).is_some(), "{}: {FRAGMENTED} bytes to {to}", client.name);
    }
    clients.iter().for_each(|client| lab.remove_pod_object(&client.name.to_string()).unwrap());
    attack.goes_round(&seconds(2), "the objects are gone");
    clients.iter().for_each(|client| leaves_with(&lab, client, &seconds(2)));

    for family in Family::BOTH {
        let address = egret::testbed::second_address(2, family);
        let length = if family == Family::V4 { 24 } else { 64 };
        lab.node(2).sh(&format!("ip address del {address}/{length} dev eth1")).unwrap();
        attack.goes_round(&seconds(2), "an address is gone");
    }
    for (client, to) in clients.iter().flat_map(|client| near.map(|to| (client, to))) {
        client.udp_of(to, FRAGMENTED).unwrap_err();
    }
    assert_eq!(attack.shows_at_most(&seconds(2), "both addresses are gone"), BTreeSet::new());
    lab.node(2).sh("ip link set eth1 down").unwrap();
    attack.goes_round(&seconds(2), "the interface is down");
}

/// Deleted by force and made anew at once, as a StatefulSet does, and the new manifest selects nothing any more: the old pod's processes
/// go on for their grace period, and the object of their name is not about them. Nobody can say what they would be, so they keep what they
/// had, or are held where nobody else has it.
#[test]
fn a_client_whose_name_is_another_pods_by_now_is_not_let_go_with_it() {
    let lab = Lab::raise(nodes(2));
    let gateway = lab.gateway(1, "g1");
    let selected = |node: u8, name: &str| {
        lab.pod_object(name, &[], &SELECTS_RED, node).unwrap();
        lab.add_pod(node, name).unwrap()
    };
    selected(2, "plain/stays");
    let clients = [selected(1, "plain/alone"), selected(2, "plain/c2")];
    let leases: BTreeSet<IpAddr> = lab.leases(&gateway).into_iter().collect();
    let attack = Attack::on(&lab, &clients);
    for client in &clients {
        lab.remove_pod_object(&client.name.to_string()).unwrap();
        lab.pod_object(&client.name.to_string(), &[], &[], client.node).unwrap();
    }
    attack.goes_round(&leases, "the name is another pod's");
    // The next one comes, while the one before it still sends.
    let next = lab.add_pod(2, "plain/c2").unwrap();
    lab.leaves_as_before(&next);
    attack.goes_round(&leases, "the next one is there");
    for to in lab.destinations() {
        assert!(leases.contains(&clients[1].udp(to).unwrap()), "{to}: its binding is others', too");
        clients[0].udp(to).unwrap_err();
    }
    // It is selected and let go, as if there had been none before it.
    lab.is_selected(&next);
    assert_eq!(lab.leaves_as_predicted(&next), leases);
    lab.pod_object("plain/c2", &[], &[], 2).unwrap();
    attack.goes_round(&leases, "the next one is let go");
    lab.leaves_as_before(&next);
    // And one that was let go is not held when its name goes.
    lab.remove_pod_object("plain/c2").unwrap();
    lab.pod_object("plain/c2", &[], &SELECTS_RED, 2).unwrap();
    attack.goes_round(&leases, "the name goes on");
    for to in lab.destinations() {
        let seen = next.udp(to).unwrap();
        assert!(!leases.contains(&seen), "{to}: {seen}");
    }
}

/// The path of a client's namespace goes without a DEL, and its processes live on: nobody would know whose packets these are.
#[test]
fn a_client_that_lost_its_namespaces_path_says_nothing_more() {
    let lab = Lab::raise(nodes(2));
    let gateway = lab.gateway(1, "g1");
    lab.pod_object("plain/c2", &[], &[], 2).unwrap();
    let clients = [lab.client(1, "c1"), lab.add_pod(2, "plain/c2").unwrap(), lab.client(2, "c3")];
    lab.pod_object("plain/c2", &[], &SELECTS_RED, 2).unwrap();
    lab.settle().unwrap();
    let leases: BTreeSet<IpAddr> = lab.leases(&gateway).into_iter().collect();
    let attack = Attack::on(&lab, &clients);
    clients.iter().for_each(|client| lab.lose_pod(client).unwrap());
    // Each is forgotten on another way: by reconcile, by another pod's ADD, by a late DEL.
    lab.cnitool("del", &clients[2]).unwrap();
    attack.shows_at_most(&leases, "after a late DEL");
    lab.client(2, "new");
    attack.shows_at_most(&leases, "after another's ADD");
    attack.goes_round(&leases, "the paths are gone");
    assert_eq!(attack.shows_at_most(&leases, "nobody is there any more"), BTreeSet::new());
}

/// Clients leave with the gateway's own address, by its primary's interface: a gateway and a client that live are in no list of GC's, and a
/// gateway's DEL dies half-way and is called again, and again.
#[test]
fn calls_that_take_a_living_gateway_away_hold_its_clients() {
    let lab = Lab::raise(nodes(2));
    lab.own_address_pools().unwrap();
    let asks = [("egret.dev/ipv4pools", "[\"own\"]"), ("egret.dev/ipv6pools", "[\"own6\"]")];
    let gateway = || {
        lab.pod_object("gw/g", &[("egress-code", "red")], &asks, 1).unwrap();
        lab.add_pod(1, "gw/g").unwrap()
    };
    let mut living = gateway();
    let clients = [lab.client(1, "c1"), lab.client(2, "c2"), lab.client(1, "c3")];
    let mut allowed: BTreeSet<IpAddr> = living.addresses.iter().copied().collect();
    let attack = Attack::on(&lab, &clients);
    gc(&lab, 1, &[&clients[0], &living]);
    attack.shows_at_most(&allowed, "GC does not know a client");
    for point in ["update.after-gateways", "del.after-unwiring"] {
        let mut command = lab.cnitool_command("del", &living).unwrap();
        assert!(!command.env("EGRET_FAULT", point).output().unwrap().status.success(), "{point}");
        attack.shows_at_most(&allowed, &format!("DEL died at {point}"));
        reconcile(&lab, 2);
        attack.shows_at_most(&allowed, &format!("DEL died at {point}, node 2 plans"));
        for _ in 0..2 {
            lab.cnitool("del", &living).unwrap();
            attack.shows_at_most(&allowed, &format!("DEL after one that died at {point}"));
        }
        lab.lose_pod(&living).unwrap();
        living = gateway();
        allowed.extend(&living.addresses);
        let now: BTreeSet<IpAddr> = living.addresses.iter().copied().collect();
        clients[..2].iter().for_each(|client| leaves_with(&lab, client, &now));
    }
    attack.shows_at_most(&allowed, "a new gateway");
    gc(&lab, 1, &[&clients[0]]);
    attack.goes_round(&allowed, "GC does not know the gateway");
    assert_eq!(attack.shows_at_most(&allowed, "no gateway"), BTreeSet::new());
    // Its namespace lives, wired as it was; that is in nobody's way.
    living = gateway();
    let now: BTreeSet<IpAddr> = living.addresses.iter().copied().collect();
    clients[..2].iter().for_each(|client| leaves_with(&lab, client, &now));
}

/// GC as a runtime calls it, with these attachments valid.
#[track_caller]
fn gc(lab: &Lab, node: u8, valid: &[&Pod]) {
    let list: Value = serde_json::from_slice(&fs::read(lab.conflist_path(node)).unwrap()).unwrap();
    let plugins = list["plugins"].as_array().unwrap();
    let mut config = plugins.iter().find(|plugin| plugin["type"] == "egret").unwrap().clone();
    (config["name"], config["cniVersion"]) = (list["name"].clone(), "1.1.0".into());
    let named = |pod: &&Pod| json!({"containerID": pod.container_id().unwrap(), "ifname": "eth0"});
    config["cni.dev/valid-attachments"] = valid.iter().map(named).collect();
    let said = Path::new("/run/gc.json");
    fs::write(said, config.to_string()).unwrap();
    let mut command = lab.node(node).command(env!("CARGO_BIN_EXE_egret")).unwrap();
    let output = command.env("CNI_COMMAND", "GC").stdin(fs::File::open(said).unwrap()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A gateway's DEL waits for the directory, which another node has: whoever makes this node's plan anew meanwhile must not find the
/// gateway's record there and wire it again, to go on answering for an address that is somebody else's soon.
#[test]
fn a_plan_that_is_made_while_a_gateway_ends_does_not_wire_it_again() {
    let lab = Lab::raise(nodes(1));
    let gateway = lab.gateway(1, "g1");
    let wired = || lab.node(1).sh("ip -o link show | grep -c ': eg[0-9]' || true").unwrap().trim() == "1";
    assert!(wired());
    let directory = egret::store::lock(&Path::new(STATE_DIR).join("lock"), "another node", WINDOW).unwrap();
    std::thread::scope(|scope| {
        let ending = scope.spawn(|| lab.cnitool("del", &gateway));
        assert!(within(PATIENCE, LOOK, || !wired()).is_some(), "it is unwired");
        let reconciling = scope.spawn(|| reconcile(&lab, 1));
        let again = within(Duration::from_secs(1), LOOK, wired);
        drop(directory);
        ending.join().unwrap().unwrap();
        reconciling.join().unwrap();
        assert_eq!((again, wired()), (None, false), "it is not wired again");
    });
}
