//! The ways through the world: inside, back in from outside, big packets, held flows; and worlds side by side.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use egret::addr::Family;
use egret::testbed::{
    Answer, FAR_MTU, LINES_PORT, Masquerade, Outside, Primary, Topology, World, node_address,
    node_lease_address,
};

use super::one_pod_per_node;

#[test]
fn pods_reach_pods_and_nodes_with_their_own_address() {
    let world = World::raise(Topology { nodes: 2, ..Topology::default() }).unwrap();
    let pods = one_pod_per_node(&world);
    let _servers: Vec<_> = pods.iter().map(|pod| pod.serve().unwrap()).collect();
    for family in Family::BOTH {
        let other = SocketAddr::new(pods[1].address(family).unwrap(), LINES_PORT);
        let mut flow = pods[0].tcp_flow_to(other).unwrap();
        assert_eq!(flow.ask(), Answer::From(pods[0].address(family).unwrap()));
        for node in [1, 2] {
            pods[0].reaches(node_address(node, family)).unwrap();
            pods[0].reaches(node_lease_address(node, family)).unwrap();
        }
    }
}

#[test]
fn the_outside_reaches_pods_when_nothing_hides_them() {
    let world =
        World::raise(Topology { nodes: 1, masquerade: Masquerade::None, ..Topology::default() }).unwrap();
    let pods = one_pod_per_node(&world);
    let _server = pods[0].serve().unwrap();
    let capture = world.capture().unwrap();
    for family in Family::BOTH {
        pods[0].tcp(Outside::Near.address(family)).unwrap();
        let to = SocketAddr::new(pods[0].address(family).unwrap(), LINES_PORT);
        let mut flow = world.connect_from(Outside::Far, to).unwrap();
        assert_eq!(flow.ask(), Answer::From(Outside::Far.address(family)));
    }
    assert!(capture.packets().iter().any(|p| p.ports.is_some_and(|(from, _)| from == LINES_PORT)));
}

#[test]
fn bulk_and_big_datagrams_pass_every_mtu() {
    for (uplink_mtu, pod_mtu) in [(1500, 1500), (1400, 1500), (1500, 1400)] {
        let world = World::raise(Topology { nodes: 1, uplink_mtu, pod_mtu, ..Topology::default() }).unwrap();
        let pods = one_pod_per_node(&world);
        for to in Outside::BOTH.iter().flat_map(|at| Family::BOTH.map(|f| at.address(f))) {
            // On a busy machine the first one may wait for neighbours longer than a flow does.
            let mut flow = pods[0].tcp_flow(to).or_else(|_| pods[0].tcp_flow(to)).unwrap();
            flow.download(1 << 20).unwrap_or_else(|e| panic!("download from {to}: {e}"));
            flow.upload(1 << 20).unwrap_or_else(|e| panic!("upload to {to}: {e}"));
            assert!(matches!(flow.ask(), Answer::From(_)));
            // The first datagram may be lost to learning the path's MTU, a later one may not.
            let big = FAR_MTU as usize + 500;
            let heard = (0..10).any(|_| pods[0].udp_of(to, big).is_ok());
            assert!(heard, "no datagram of {big} bytes reached {to}");
        }
    }
}

#[test]
fn a_held_flow_is_the_same_flow_later_and_says_how_it_ends() {
    let world = World::raise(Topology { nodes: 1, primary: Primary::Ptp, ..Topology::default() }).unwrap();
    let pods = one_pod_per_node(&world);
    for family in Family::BOTH {
        let to = Outside::Near.address(family);
        let (mut tcp, mut udp) = (pods[0].tcp_flow(to).unwrap(), pods[0].udp_flow(to).unwrap());
        let node = Answer::From(node_address(1, family));
        for _ in 0..3 {
            assert_eq!((tcp.ask(), udp.ask()), (node.clone(), node.clone()));
        }
        let patience = Duration::from_millis(200);
        tcp.set_patience(patience);
        udp.set_patience(patience);
        let rules = "table inet t { chain c { type filter hook forward priority 0; drop; }; }";
        world.node(1).feed("nft", &["-f", "-"], rules).unwrap();
        assert_eq!((tcp.ask(), udp.ask()), (Answer::Silent, Answer::Silent));
        let reject = "flush chain inet t c; add rule inet t c meta l4proto tcp reject with tcp reset;\n\
                      add rule inet t c reject with icmpx admin-prohibited";
        world.node(1).feed("nft", &["-f", "-"], reject).unwrap();
        // After a silence TCP speaks again when its retransmission timer says so.
        tcp.set_patience(Duration::from_secs(60));
        assert_eq!(tcp.ask(), Answer::Reset);
        assert!(matches!(udp.ask(), Answer::Refused(_)));
        assert_eq!(pods[0].tcp(to).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        world.node(1).run("nft", &["delete", "table", "inet", "t"]).unwrap();
    }
}

#[test]
fn a_proxy_entry_on_a_node_answers_for_a_lease_and_the_router_has_no_route() {
    let world = World::raise(Topology { nodes: 2, ..Topology::default() }).unwrap();
    let pod = world.add_pod(2, "shop/gateway").unwrap();
    let (node, router) = (world.node(2), world.router());
    node.set(&[("net.ipv6.conf.eth0.proxy_ndp", "1")]).unwrap();
    for (lease, family) in [("10.10.10.0", Family::V4), ("fd00:10:10::1", Family::V6)] {
        let route = router.sh(&format!("ip route get {lease}")).unwrap();
        assert!(route.contains("dev eth0") && !route.contains("via"), "connected, not routed: {route}");
        pod.place().sh(&format!("ip addr add {lease} dev lo nodad")).unwrap();
        node.sh(&format!("ip route add {lease} via {}", pod.address(family).unwrap())).unwrap();
        assert!(router.sh(&format!("ping -c 1 -W 1 {lease}")).is_err(), "nobody answers for it yet");
        node.sh(&format!("ip neigh add proxy {lease} dev eth0")).unwrap();
        router.sh(&format!("ip neigh flush to {lease}; ping -c 1 -w 60 {lease}")).unwrap();
    }
}

#[test]
fn nodes_keep_their_own_records_and_see_their_own_devices() {
    let world = World::raise(Topology { nodes: 2, ..Topology::default() }).unwrap();
    let pods = one_pod_per_node(&world);
    let cached = |node: u8| world.node(node).sh("ls /var/lib/cni/results").unwrap();
    assert!(cached(1).contains(&pods[0].container_id().unwrap()));
    assert!(!cached(1).contains(&pods[1].container_id().unwrap()));
    assert!(world.node(1).sh("ls /sys/class/net").unwrap().contains("cni0"));
    assert!(!world.router().sh("ls /sys/class/net").unwrap().contains("cni0"));
}

#[test]
fn a_failed_add_says_why_and_leaves_no_namespace() {
    let world = World::raise(Topology { nodes: 1, ..Topology::default() }).unwrap();
    let list = world.conflist_path(1);
    let text = std::fs::read_to_string(&list).unwrap().replace("\"bridge\",", "\"no-such-plugin\",");
    std::fs::write(&list, text).unwrap();
    let error = world.add_pod(1, "shop/cart").unwrap_err();
    assert!(error.said.contains("no-such-plugin"), "{error}");
    assert_eq!(world.router().sh("ls /run/netns").unwrap().matches("shop").count(), 0);
}

#[test]
fn objects_lie_in_the_shared_directory_and_their_annotations_go_with_the_add() {
    let world = World::raise(Topology { nodes: 1, ..Topology::default() }).unwrap();
    world.namespace("shop", &[("team", "a")], &[]).unwrap();
    let note = [("egress.projectcalico.org/selector", "app == 'gw'")];
    world.pod_object("shop/cart", &[("app", "cart")], &note, 1).unwrap();
    let file = world.object("{apiVersion: v1, kind: Namespace, metadata: {name: x}}").unwrap();
    let first = world.add_pod(1, "shop/cart").unwrap();
    assert_eq!(first.capabilities["io.kubernetes.cri.pod-annotations"][note[0].0], note[0].1);
    world.stop_sandbox(&first).unwrap();
    let again = world.add_pod(1, "shop/cart").unwrap();
    assert_eq!(first.uid, again.uid, "the object stayed, so did its UID");
    world.del_pod(&again).unwrap();
    assert_ne!(world.add_pod(1, "shop/cart").unwrap().uid, again.uid);
    let names = std::fs::read_dir(file.parent().unwrap()).unwrap().count();
    assert_eq!(names, 3, "Node node1, Namespace shop, Namespace x; the Pod is gone");
}

#[test]
fn two_worlds_stand_side_by_side() {
    let raised = AtomicUsize::new(0);
    let live = |masquerade| {
        let world = World::raise(Topology { nodes: 2, masquerade, ..Topology::default() }).unwrap();
        let pod = world.add_pod(1, "shop/cart").unwrap();
        raised.fetch_add(1, Ordering::SeqCst);
        let start = Instant::now();
        while raised.load(Ordering::SeqCst) < 2 {
            assert!(start.elapsed() < Duration::from_secs(120), "the other world was never raised");
        }
        let to = Outside::Near.address(Family::V4);
        let seen = (0..20).map(|_| pod.tcp(to).unwrap()).collect::<std::collections::BTreeSet<_>>();
        (seen, pod.address(Family::V4).unwrap())
    };
    std::thread::scope(|scope| {
        let hidden = scope.spawn(|| live(Masquerade::Nft));
        let plain = scope.spawn(|| live(Masquerade::None));
        assert_eq!(hidden.join().unwrap().0, [node_address(1, Family::V4)].into());
        let (seen, own) = plain.join().unwrap();
        assert_eq!(seen, [own].into());
    });
}

#[test]
fn fifty_pods_are_added_at_once() {
    let world = World::raise(Topology { nodes: 1, ..Topology::default() }).unwrap();
    let start = Instant::now();
    let pods: Vec<_> = std::thread::scope(|scope| {
        let world = &world;
        let adds: Vec<_> =
            (0..50).map(|i| scope.spawn(move || world.add_pod(1, &format!("many/p{i}")))).collect();
        adds.into_iter().map(|add| add.join().unwrap().unwrap()).collect()
    });
    println!("50 ADDs at once took {:?}", start.elapsed());
    let addresses: std::collections::BTreeSet<_> = pods.iter().flat_map(|p| p.addresses.clone()).collect();
    assert_eq!(addresses.len(), 100);
    assert_eq!(world.pods().len(), 50);
}
