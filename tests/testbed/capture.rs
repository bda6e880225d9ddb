//! The capture tells leaks from good packets, and a window that proves nothing from a clean one.

use std::time::Duration;

use egret::addr::Family;
use egret::testbed::{Capture, Leak, Masquerade, Outside, Pod, Topology, World, node_address, within};

/// A world whose pods are hidden, but not by an address that counts as forbidden: a stand-in for leases, made with one
/// nft rule per family on the node.
fn leased_world() -> (World, Pod) {
    let world =
        World::raise(Topology { nodes: 1, masquerade: Masquerade::None, ..Topology::default() }).unwrap();
    let pod = world.add_pod(1, "shop/cart").unwrap();
    let rules = "table inet lease { chain post { type nat hook postrouting priority srcnat - 10;\n\
                 oifname eth0 ip saddr 10.60.0.0/16 snat ip to 10.10.10.7\n\
                 oifname eth0 ip6 saddr fd00:10:60::/48 snat ip6 to fd00:10:10::7\n}\n}\n";
    world.node(1).feed("nft", &["-f", "-"], rules).unwrap();
    world.node(1).set(&[("net.ipv6.conf.eth0.proxy_ndp", "1")]).unwrap();
    world
        .node(1)
        .sh("ip neigh add proxy 10.10.10.7 dev eth0; ip neigh add proxy fd00:10:10::7 dev eth0")
        .unwrap();
    // The proxy answers only for what is routed elsewhere.
    world.node(1).sh("ip route add 10.10.10.7 dev cni0; ip route add fd00:10:10::7 dev cni0").unwrap();
    (world, pod)
}

/// Sends one forged datagram from the pod's node: this source, to the pod's own port outside.
fn forge(world: &World, pod: &Pod, source: &str) {
    let to = Outside::Near.address(if source.contains(':') { Family::V6 } else { Family::V4 });
    let line = format!(
        "ip addr add {source} dev lo nodad 2>/dev/null || true\n\
         python3 -c \"import socket; s = socket.socket(socket.AF_INET{six}, socket.SOCK_DGRAM); \
         s.bind(('{source}', 0)); s.sendto(b'x', ('{to}', {port}))\"",
        six = if source.contains(':') { "6" } else { "" },
        port = pod.port(),
    );
    world.node(1).sh(&line).unwrap();
}

/// The verdict when what was forged has arrived.
fn leaked(capture: &Capture, pod: &Pod) -> Leak {
    arrives("a leak", || capture.verdict(&[pod]).is_err());
    capture.verdict(&[pod]).unwrap_err()
}

/// Packets are on their way for a moment, on a busy machine for a long one.
#[track_caller]
fn arrives(what: &str, so: impl FnMut() -> bool) {
    assert!(within(Duration::from_secs(60), Duration::from_millis(5), so).is_some(), "{what} never arrives");
}

#[test]
fn a_leased_source_is_clean() {
    let (world, pod) = leased_world();
    let capture = world.capture().unwrap();
    for family in Family::BOTH {
        let to = Outside::Far.address(family);
        for seen in [
            pod.tcp(to),
            pod.udp(to),
            pod.http(to),
            pod.ping(to),
            pod.udp_of(Outside::Near.address(family), 3000),
        ] {
            assert!(["10.10.10.7", "fd00:10:10::7"].contains(&seen.unwrap().to_string().as_str()));
        }
    }
    let clean = capture.assert_clean(&[&pod]);
    assert_eq!(clean.sources["shop/cart"].len(), 2, "{clean:?}");
}

#[test]
fn a_forged_source_makes_the_window_fail() {
    let (world, pod) = leased_world();
    let capture = world.capture().unwrap();
    for source in ["172.30.0.1", "10.10.10.101", "fd00:172:30::1", "fd00:10:10::101"] {
        // What was forged before, and what the node says of its answer, is over.
        arrives("silence", || {
            let before = capture.packets().len();
            std::thread::sleep(Duration::from_millis(100));
            capture.packets().len() == before
        });
        capture.restart();
        pod.tcp(Outside::Near.address(Family::V4)).unwrap();
        capture.assert_clean(&[&pod]);
        forge(&world, &pod, source);
        let leak = leaked(&capture, &pod);
        let Leak::Forbidden(packets, _) = &leak else { panic!("{leak}") };
        assert!(packets.iter().all(|p| p.source == source.parse::<std::net::IpAddr>().unwrap()), "{leak}");
    }
    assert!(
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| capture.assert_clean(&[&pod]))).is_err()
    );
}

#[test]
fn a_source_that_the_router_drops_is_still_a_leak() {
    let (world, pod) = leased_world();
    let capture = world.capture().unwrap();
    pod.tcp(Outside::Near.address(Family::V4)).unwrap();
    // Strict rp_filter at the router: 198.51.101.0/24 is not behind this device. 169.254/16 is a martian anywhere.
    forge(&world, &pod, "169.254.77.1");
    let leak = leaked(&capture, &pod);
    assert!(leak.to_string().contains("169.254.77.1"), "{leak}");
}

#[test]
fn a_pod_that_was_not_heard_and_a_lossy_window_prove_nothing() {
    let (world, pod) = leased_world();
    let capture = world.capture().unwrap();
    assert!(matches!(capture.verdict(&[&pod]), Err(Leak::Unheard(_))));
    pod.tcp(Outside::Near.address(Family::V4)).unwrap();
    capture.assert_clean(&[&pod]);

    let small = world.capture_with_buffer(4096).unwrap();
    let burst = format!(
        "python3 -c \"import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         for i in range(2000): s.sendto(b'x', ('{}', {}))\"",
        Outside::Near.address(Family::V4),
        pod.port()
    );
    pod.place().sh(&burst).unwrap();
    assert!(matches!(small.verdict(&[&pod]), Err(Leak::Dropped(_))));
    arrives("each at the router and outside", || capture.packets().len() > 4000);
    capture.assert_clean(&[&pod]);
}

#[test]
fn unselected_pods_and_nodes_may_show_themselves() {
    let (world, pod) = leased_world();
    let capture = world.capture().unwrap();
    world.node(1).run("nft", &["delete", "table", "inet", "lease"]).unwrap();
    let other = world.add_pod(1, "shop/other").unwrap();
    let to = Outside::Near.address(Family::V4);
    assert_eq!(other.tcp(to).unwrap(), other.address(Family::V4).unwrap());
    let url = format!("http://{to}/");
    let said = world.node(1).run("curl", &["-s", "-m", "60", &url]).unwrap();
    assert_eq!(said.trim(), node_address(1, Family::V4).to_string());
    assert!(matches!(capture.verdict(&[&pod]), Err(Leak::Unheard(_))), "not heard, but no leak either");
    pod.tcp(to).unwrap();
    assert!(matches!(capture.verdict(&[&pod]), Err(Leak::Forbidden(..))));
}
