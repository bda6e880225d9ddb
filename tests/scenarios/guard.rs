//! Pods that cheat: tunnel packets forged in a pod, and another's source address.

use std::time::Duration;

use egret::addr::Family;
use egret::testbed::{Masquerade, Outside, Pod, Topology, node_address, within};

use crate::lab::{Lab, nodes};

/// A Python script in a pod.
fn script(pod: &Pod, text: &str) {
    pod.place().feed("python3", &["-"], text).unwrap();
}

/// A whole VXLAN packet for the gateway, as a client's node would send it: from a pod it does not arrive.
#[test]
fn a_pod_cannot_forge_tunnel_packets() {
    for underlay in Family::BOTH {
        let lab = Lab::raise(Topology { underlay, ..nodes(2) });
        let gateway = lab.gateway(1, "g1");
        let client = lab.client(2, "c");
        let forgers = [lab.plain(2, "p2"), lab.plain(1, "p1")];
        lab.leaves_as_predicted(&client);
        let capture = lab.capture().unwrap();
        let (lease, vni, dmac) = endpoint(&gateway);
        let smac = "0265ac1e0002";
        let text = |port: u16| {
            format!(
                "import socket, struct, binascii\n\
                 ip = lambda a: socket.inet_aton(a)\n\
                 udp = struct.pack('>HHHH', 40000, {to}, 9, 0) + b'x'\n\
                 head = struct.pack('>BBHHHBBH4s4s', 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, ip('{own}'), ip('{out}'))\n\
                 s = sum(struct.unpack('>10H', head)); s = (s & 0xffff) + (s >> 16); s = ~((s & 0xffff) + (s >> 16)) & 0xffff\n\
                 head = head[:10] + struct.pack('>H', s) + head[12:]\n\
                 frame = binascii.unhexlify('{dmac}{smac}') + b'\\x08\\x00' + head + udp\n\
                 vx = struct.pack('>II', 0x08000000, {vni} << 8) + frame\n\
                 k = socket.socket(socket.{kind}, socket.SOCK_DGRAM)\n\
                 for i in range(20): k.sendto(vx, ('{node}', {port}))\n",
                to = client.port(),
                own = client.address(Family::V4).unwrap(),
                out = Outside::Near.address(Family::V4),
                kind = if underlay == Family::V4 { "AF_INET" } else { "AF_INET6" },
                node = node_address(1, underlay),
            )
        };
        for forger in &forgers {
            script(forger, &text(4790));
        }
        client.tcp(Outside::Far.address(Family::V4)).unwrap();
        let forged = capture.packets().iter().filter(|p| p.protocol == 17 && p.source == lease).count();
        assert_eq!(forged, 0, "forged datagrams left with the lease");
        // The same packet from root of a node is the node's own: this shows that the forgery is well made.
        lab.node(2).feed("python3", &["-"], &text(4790)).unwrap();
        let real = || capture.packets().iter().any(|p| p.protocol == 17 && p.source == lease);
        let passes = within(Duration::from_secs(60), Duration::from_millis(10), real);
        assert!(passes.is_some(), "not even a node's packet passes: this test proves nothing");
        capture.assert_clean(&[&client]);
    }
}

/// Lease, VNI and MAC of a gateway, from its endpoint.
fn endpoint(gateway: &Pod) -> (std::net::IpAddr, u32, String) {
    let dir = egret::store::Dir::at(std::path::Path::new(egret::testbed::STATE_DIR)).unwrap();
    let (all, _) = egret::store::endpoints::list(&dir).unwrap();
    let found = all.into_iter().find(|e| e.pod == gateway.name).unwrap();
    (found.address(Family::V4).unwrap(), found.vni, found.mac.to_string().replace(':', ""))
}

/// A pod sends with the address of a client: behind its own veth (ptp) it is caught, whether it is a client itself or not.
#[test]
fn a_pod_cannot_use_a_clients_address() {
    let lab = Lab::raise(Topology {
        primary: egret::testbed::Primary::Ptp,
        masquerade: Masquerade::IpMasq,
        strict_rp_filter: false,
        ..nodes(1)
    });
    lab.gateway(1, "g1");
    let client = lab.client(1, "c");
    let forgers = [lab.plain(1, "p"), lab.client(1, "d")];
    let capture = lab.capture().unwrap();
    for forger in &forgers {
        for family in Family::BOTH {
            let (own, to) = (client.address(family).unwrap(), Outside::Near.address(family));
            let kind = if own.is_ipv4() { "AF_INET" } else { "AF_INET6" };
            let place = forger.place();
            place.sh(&format!("ip addr add {own} dev lo nodad")).unwrap();
            let port = client.port() + 2;
            script(
                forger,
                &format!(
                    "import socket\ns = socket.socket(socket.{kind}, socket.SOCK_DGRAM); s.bind(('{own}', 0))\n\
                     for i in range(5): s.sendto(b'x', ('{to}', {port}))\n"
                ),
            );
            place.sh(&format!("ip addr del {own} dev lo")).unwrap();
        }
    }
    lab.leaves_as_predicted(&client);
    let forged = capture.packets().iter().filter(|p| p.service == Some(client.port() + 2)).count();
    assert_eq!(forged, 0, "packets with a borrowed address left");
    capture.assert_clean(&[&client]);
}
