//! What takes a pod's packets away before the node sees them, and a packet that shows whether it does.

use egret::kernel::Netns;
use egret::kernel::detour::{self, Detour};
use egret::kernel::passage::passes;

use crate::world::*;

/// A pod on a node: a veth, addresses, default routes. `nic` is another device of the node.
fn pod() -> (Netns, Netns) {
    let (node, pod) = (node(), another());
    ip("link add cali0 type veth peer name tmp0");
    ip("link add nic type veth peer name nic1");
    let fd = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&pod));
    sh(&format!("ip link set tmp0 netns /proc/{}/fd/{fd} name eth0", std::process::id()));
    for end in ["cali0", "nic", "nic1"] {
        ip(&format!("link set {end} up"));
    }
    ip("addr add 10.60.1.1/24 dev cali0");
    ip("addr add fd00:60::1/64 dev cali0 nodad");
    pod.run(|| {
        ip("link set eth0 up");
        ip("addr add 10.60.1.3/24 dev eth0");
        ip("addr add fd00:60::3/64 dev eth0 nodad");
        ip("route add default via 10.60.1.1");
        ip("route add default via fd00:60::1");
    })
    .unwrap();
    (node, pod)
}

/// The pod's addresses.
const OWN: [&str; 2] = ["10.60.1.3", "fd00:60::3"];

fn detours(node: &Netns, pod: &Netns, name: &str) -> Vec<Detour> {
    detour::detours(node, pod, name, &OWN.map(addr)).unwrap()
}

#[track_caller]
fn arrives(node: &Netns, pod: &Netns) -> [bool; 2] {
    let found = detours(node, pod, "cali0");
    let arrives = OWN.map(|from| passes(node, pod, addr(from), &found).unwrap());
    assert!(!sh("nft list tables").contains("egret-passage"), "nothing stays");
    arrives
}

fn tc(arguments: &str) {
    sh(&format!("tc {arguments}"));
}

#[test]
fn a_plain_pod_has_no_detour_and_its_packets_arrive_and_go_nowhere() {
    let (node, pod) = pod();
    assert_eq!(detours(&node, &pod, "cali0"), []);
    assert_eq!(detours(&node, &pod, "gone"), []);
    sh("sysctl -qw net.ipv4.ip_forward=1");
    ip("route add default via 172.30.0.254");
    assert_eq!(arrives(&node, &pod), [true, true]);
    let neighbours = ip("neigh");
    assert!(!neighbours.contains("172.30.0.254"), "nobody asked for the router: {neighbours}");
}

#[test]
fn a_filter_that_redirects_is_named_with_its_target_and_nothing_arrives() {
    let (node, pod) = pod();
    tc("qdisc add dev cali0 clsact");
    tc("filter add dev cali0 ingress protocol all u32 match u32 0 0 action mirred egress redirect dev nic");
    assert_eq!(detours(&node, &pod, "cali0"), [Detour::Redirect("nic".into())]);
    assert_eq!(arrives(&node, &pod), [false, false]);
    tc("filter del dev cali0 ingress");
    // The pod asked for its gateway meanwhile, was not answered, and would ask again after a second or two.
    pod.run(|| ip("neigh flush all")).unwrap();
    assert_eq!(arrives(&node, &pod), [true, true]);
}

#[test]
fn a_copy_a_limit_and_classic_bytecode_take_nothing() {
    let (node, pod) = pod();
    tc("qdisc add dev cali0 clsact");
    tc(
        "filter add dev cali0 ingress prio 1 protocol all u32 match u32 0 0 action mirred egress mirror dev nic",
    );
    tc("filter add dev cali0 ingress prio 2 bpf bytecode '1,6 0 0 4294967295'");
    assert_eq!(detours(&node, &pod, "cali0"), []);
    assert_eq!(arrives(&node, &pod), [true, true]);
}

#[test]
fn what_is_shaped_on_an_ifb_device_comes_back() {
    let (node, pod) = pod();
    ip("link add ifb7 type ifb");
    ip("link set ifb7 up");
    // As the bandwidth plugin does it.
    tc("qdisc add dev cali0 ingress");
    tc("filter add dev cali0 ingress protocol all u32 match u32 0 0 action mirred egress redirect dev ifb7");
    assert_eq!(detours(&node, &pod, "cali0"), []);
    assert_eq!(arrives(&node, &pod), [true, true]);
}

#[test]
fn a_program_is_a_detour_but_only_a_packet_tells_whether_it_takes_any() {
    let (node, pod) = pod();
    attach("cali0", &passing());
    assert_eq!(detours(&node, &pod, "cali0"), [Detour::Tcx]);
    assert_eq!(arrives(&node, &pod), [true, true]);
    attach("cali0", &redirecting("nic"));
    assert_eq!(arrives(&node, &pod), [false, false]);
}

/// CHECK, `egret status` and the agent ask when they like, each for every address of the pod.
#[test]
fn looks_at_one_pod_at_once_do_not_disturb_each_other() {
    let (node, pod) = pod();
    attach("cali0", &passing());
    std::thread::scope(|scope| {
        let look = |from: &'static str| {
            let (node, pod) = (&node, &pod);
            scope.spawn(move || {
                for _ in 0..40 {
                    assert!(passes(node, pod, addr(from), &[Detour::Tcx]).unwrap(), "{from}");
                }
            });
        };
        OWN.into_iter().chain(OWN).for_each(look);
    });
    assert!(!sh("nft list tables").contains("egret-passage"), "nothing stays");
}

#[test]
fn a_pod_without_a_way_outside_sends_nothing_that_could_pass_by() {
    let (node, pod) = pod();
    pod.run(|| ip("route del default")).unwrap();
    attach("cali0", &redirecting("nic"));
    assert!(passes(&node, &pod, addr("10.60.1.3"), &[Detour::Tcx]).unwrap());
}

/// Whether bridged packets pass netfilter (`bridge-nf-call-iptables`): on nodes of kubeadm they do.
const CALLS: [&str; 2] = ["0", "1"];

/// The pod's interface becomes a port of a bridge that has the addresses of it; so does another device of the node, behind which a router is.
fn bridge(calls: &str) {
    ip("link add br0 type bridge mcast_snooping 0");
    for port in ["cali0", "nic"] {
        ip(&format!("link set {port} master br0"));
    }
    ip("addr flush dev cali0 scope global");
    ip("link set br0 up");
    ip("addr add 10.60.1.1/24 dev br0");
    ip("addr add fd00:60::1/64 dev br0 nodad");
    for table in ["iptables", "ip6tables"] {
        // Without the module bridged packets skip netfilter: then nothing is shown by a 1.
        let file = format!("/proc/sys/net/bridge/bridge-nf-call-{table}");
        sh(&format!("if [ {calls} = 1 ] || [ -e {file} ]; then echo {calls} > {file}; fi"));
    }
}

#[test]
fn a_bridge_is_no_detour_for_a_pod_whose_gateway_it_is() {
    for calls in CALLS {
        let (node, pod) = pod();
        bridge(calls);
        assert_eq!(detours(&node, &pod, "cali0"), []);
        assert_eq!(arrives(&node, &pod), [true, true]);
    }
}

#[test]
fn a_bridge_whose_address_is_so_young_that_duplicates_are_looked_for_is_the_gateway_all_the_same() {
    let (node, pod) = pod();
    bridge(CALLS[0]);
    sh("echo 600 > /proc/sys/net/ipv6/conf/br0/dad_transmits");
    ip("addr del fd00:60::1/64 dev br0");
    ip("addr add fd00:60::1/64 dev br0");
    assert_eq!(detours(&node, &pod, "cali0"), []);
}

#[test]
fn a_bridge_is_a_detour_for_a_pod_whose_gateway_is_behind_another_port_of_it() {
    for (calls, (family, gateway)) in
        CALLS.iter().flat_map(|calls| [("", "10.60.1.254"), ("-6", "fd00:60::fe")].map(|way| (calls, way)))
    {
        let ((node, pod), outside) = (pod(), another());
        bridge(calls);
        let router = "02:00:00:00:00:fe";
        let fd = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&outside));
        sh(&format!("ip link set nic1 netns /proc/{}/fd/{fd}", std::process::id()));
        outside.run(|| ip(&format!("link set nic1 address {router} up"))).unwrap();
        pod.run(|| {
            ip(&format!("{family} route replace default via {gateway}"));
            ip(&format!("neigh replace {gateway} lladdr {router} dev eth0"));
        })
        .unwrap();
        assert_eq!(detours(&node, &pod, "cali0"), [Detour::Bridge(Some(addr(gateway)))]);
        let other = gateway.contains(':');
        assert_eq!(arrives(&node, &pod), [other, !other], "{calls} {gateway}");
    }
}

/// The node answers for a gateway that is no address of it, by itself or by a device upon its bridge: the packets come here all the same.
#[test]
fn a_bridge_that_answers_for_the_pods_gateway_takes_nothing() {
    for calls in CALLS {
        let (node, pod) = pod();
        bridge(calls);
        ip("link add virtual link br0 type macvlan mode bridge");
        ip("link set virtual address 02:00:00:00:00:aa up");
        sh(
            "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.virtual.rp_filter=0 net.ipv4.conf.br0.rp_filter=0",
        );
        let of_the_bridge = ip("-o link show br0");
        let of_the_bridge =
            of_the_bridge.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap();
        for mac in [of_the_bridge, "02:00:00:00:00:aa"] {
            pod.run(|| {
                ip("route replace default via 10.60.1.254");
                ip(&format!("neigh replace 10.60.1.254 lladdr {mac} dev eth0"));
            })
            .unwrap();
            assert_eq!(detours(&node, &pod, "cali0"), [Detour::Bridge(Some(addr("10.60.1.254")))]);
            assert_eq!(arrives(&node, &pod), [true, true], "{calls} {mac}");
        }
    }
}

/// `struct bpf_insn`: code, registers (destination low, source high), offset, immediate.
fn instruction(code: u8, registers: u8, immediate: i32) -> u64 {
    u64::from(code) | u64::from(registers) << 8 | u64::from(immediate.cast_unsigned()) << 32
}

/// `r0 = TCX_NEXT (-1); exit`.
fn passing() -> Vec<u64> {
    vec![instruction(0xb7, 0, -1), instruction(0x95, 0, 0)]
}

/// `return bpf_redirect(index, 0)`, helper 23.
fn redirecting(to: &str) -> Vec<u64> {
    let index = nix::net::if_::if_nametoindex(to).unwrap().cast_signed();
    vec![
        instruction(0xb7, 1, index),
        instruction(0xb7, 2, 0),
        instruction(0x85, 0, 23),
        instruction(0x95, 0, 0),
    ]
}

/// Loads a program for tc and puts it first at the tcx ingress of a device in this thread's namespace (Linux 6.6).
fn attach(device: &str, program: &[u64]) {
    const PROG_LOAD: libc::c_long = 5;
    const PROG_ATTACH: libc::c_long = 8;
    const SCHED_CLS: u32 = 3;
    const TCX_INGRESS: u32 = 46;
    const BEFORE: u32 = 1 << 3;
    let licence = b"GPL\0";
    let mut load = [0u64; 16];
    load[0] = u64::from(SCHED_CLS) | (program.len() as u64) << 32;
    load[1] = program.as_ptr() as u64;
    load[2] = licence.as_ptr() as u64;
    // SAFETY: the pointers in it lead to `program` and `licence`, which outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, load.as_ptr(), size_of_val(&load)) };
    assert!(fd >= 0, "needs CONFIG_BPF_SYSCALL: {}", std::io::Error::last_os_error());
    let index = nix::net::if_::if_nametoindex(device).unwrap();
    let attach = [index, u32::try_from(fd).unwrap(), TCX_INGRESS, BEFORE, 0, 0, 0, 0];
    // SAFETY: it has no pointers.
    let done = unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, attach.as_ptr(), size_of_val(&attach)) };
    assert_eq!(done, 0, "needs tcx, Linux 6.6: {}", std::io::Error::last_os_error());
}
