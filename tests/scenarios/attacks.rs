//! Somebody pulls at the world while clients send: objects go under running pods, a namespace loses its name, definitions change, calls
//! fail half-way. The outside sees the addresses that `explain` says, or nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use egret::addr::Family;
use egret::testbed::{Capture, Pod};

use crate::lab::{Lab, SELECTS_RED, nodes};
use crate::node_gateways::{WHOLE, pod, policy, seconds, topology};
use crate::traffic::Stream;

/// How long clients send into each new world.
const WINDOW: Duration = Duration::from_millis(150);

/// Clients that send all the time, and what is seen of them outside.
pub(crate) struct Attack<'a> {
    lab: &'a Lab,
    clients: &'a [Pod],
    capture: Capture,
    _stream: Stream,
}

impl<'a> Attack<'a> {
    /// On clients that leave as predicted.
    #[track_caller]
    pub(crate) fn on(lab: &'a Lab, clients: &'a [Pod]) -> Attack<'a> {
        clients.iter().for_each(|client| drop(lab.leaves_as_predicted(client)));
        let (capture, stream) = (lab.capture().unwrap(), Stream::start(clients));
        Attack { lab, clients, capture, _stream: stream }
    }

    /// Since it was last asked, and for a moment more, what left had one of these addresses. Which of them were seen.
    #[track_caller]
    pub(crate) fn shows_at_most(&self, allowed: &BTreeSet<IpAddr>, when: &str) -> BTreeSet<IpAddr> {
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

pub(crate) fn reconcile(lab: &Lab, node: u8) {
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
    clients.iter().for_each(|client| lab.remove_pod_object(&client.name.to_string()).unwrap());
    attack.goes_round(&seconds(2), "the objects are gone");
    clients.iter().for_each(|client| assert_eq!(lab.leaves_as_predicted(client), seconds(2)));

    for family in Family::BOTH {
        let address = egret::testbed::second_address(2, family);
        let length = if family == Family::V4 { 24 } else { 64 };
        lab.node(2).sh(&format!("ip address del {address}/{length} dev eth1")).unwrap();
        attack.goes_round(&seconds(2), "an address is gone");
    }
    assert_eq!(attack.shows_at_most(&seconds(2), "both addresses are gone"), BTreeSet::new());
    lab.node(2).sh("ip link set eth1 down").unwrap();
    attack.goes_round(&seconds(2), "the interface is down");
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
