//! Flows of a real kernel, in namespaces of their own.

use super::*;
use crate::kernel::sandbox::Namespace;
use std::net::{SocketAddr, UdpSocket};

/// A machine with a few addresses that tracks flows between them; port 1000 + N gets the mark N, 10.96.0.1 is a service
/// whose pod is 10.0.0.9, 10.96.0.2 one whose server is 198.51.100.9.
fn machine() -> Namespace {
    let namespace = Namespace::new();
    namespace.sh(
        "for a in 10.0.0.1 10.0.0.2 10.0.0.9 198.51.100.1 198.51.100.9; do ip addr add $a/32 dev lo; done
         for a in fd00::1 fd00::2 2001:db8::1; do ip addr add $a/128 dev lo nodad; done
         ip route add 10.96.0.0/16 dev lo
         nft -f - <<N
         table inet t {
           map marks { type inet_service : mark; elements = { 1001 : 0x111, 1002 : 0x2ff, 1003 : 0x7fffff33 }; }
           chain output { type filter hook output priority 0; ct mark set udp dport map @marks; }
           chain nat { type nat hook output priority -100;
             ip daddr 10.96.0.1 dnat ip to 10.0.0.9
             ip daddr 10.96.0.2 dnat ip to 198.51.100.9
           }
         }\nN",
    );
    namespace.can_speak_from(&["fd00::1", "fd00::2", "2001:db8::1"]);
    namespace
}

fn flow(machine: &Namespace, from: &str, to: &str) {
    let (from, to): (IpAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    machine.run(|| {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.send_to(b"x", to).unwrap();
    });
}

fn flow_each(machine: &Namespace, flows: &[(&str, &str)]) {
    flows.iter().for_each(|(from, to)| flow(machine, from, to));
}

/// The machine, with these flows.
fn tracking(flows: &[(&str, &str)]) -> Namespace {
    let machine = machine();
    flow_each(&machine, flows);
    machine
}

/// Everything that a few listings show: one alone may skip entries while other tests change theirs.
fn listing(machine: &Namespace) -> String {
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..5 {
        for line in machine.sh("conntrack -L 2>/dev/null").lines() {
            // Without the time that is left, and counters.
            let same: Vec<&str> = line.split_whitespace().filter(|word| word.contains(['=', ':'])).collect();
            let same =
                same.iter().filter(|word| !word.starts_with("use=")).copied().collect::<Vec<_>>().join(" ");
            seen.insert(same, line.to_owned());
        }
    }
    seen.into_values().collect::<Vec<_>>().join("\n")
}

/// `source destination` of the first packet of each flow, as the conntrack tool lists them.
fn flows(machine: &Namespace) -> Vec<String> {
    let listed = listing(machine);
    let field = |line: &str, name: &str| {
        line.split_whitespace().find_map(|word| word.strip_prefix(name)).unwrap().to_owned()
    };
    let udp = listed.lines().filter(|line| line.starts_with("udp"));
    let mut flows: Vec<String> =
        udp.map(|line| format!("{} {}", field(line, "src="), field(line, "dst="))).collect();
    flows.sort();
    flows
}

fn marks(machine: &Namespace) -> Vec<u32> {
    let listed = listing(machine);
    let udp = listed.lines().filter(|line| line.starts_with("udp"));
    let mark = |line: &str| line.split_whitespace().find_map(|word| word.strip_prefix("mark=")?.parse().ok());
    let mut marks: Vec<u32> = udp.filter_map(mark).collect();
    marks.sort_unstable();
    marks
}

/// How many entries the filter matches.
pub(super) fn count(filter: MarkFilter) -> Result<usize, Error> {
    let mut found = 0;
    list(&mut open()?, filter, None, |_| found += 1)?;
    Ok(found)
}

fn forget(source: IpAddr, keep: &[Cidr]) -> Result<usize, Error> {
    forget_or_mark(&[source].into(), keep, |_| None, None)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn forgetting_a_source_takes_its_own_flows_to_the_outside_and_no_other() {
    let machine = tracking(&[
        ("10.0.0.1", "198.51.100.1:9"),
        ("10.0.0.1", "198.51.100.1:10"),
        ("10.0.0.1", "10.96.0.2:9"),
        ("10.0.0.1", "10.0.0.2:9"),
        ("10.0.0.1", "10.96.0.1:9"),
        ("10.0.0.2", "198.51.100.1:9"),
        ("198.51.100.1", "10.0.0.1:9"),
        ("fd00::1", "[2001:db8::1]:9"),
        ("fd00::1", "[fd00::2]:9"),
    ]);
    assert_eq!(flows(&machine).len(), 9);
    let keep = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
    assert_eq!(machine.run(|| forget(ip("10.0.0.1"), &keep)).unwrap(), 3);
    assert_eq!(
        flows(&machine),
        [
            "10.0.0.1 10.0.0.2",
            "10.0.0.1 10.96.0.1",
            "10.0.0.2 198.51.100.1",
            "198.51.100.1 10.0.0.1",
            "fd00::1 2001:db8::1",
            "fd00::1 fd00::2"
        ],
        "the service whose server is outside went by its real destination"
    );
    assert_eq!(machine.run(|| forget(ip("fd00::1"), &keep)).unwrap(), 1);
    assert_eq!(machine.run(|| forget(ip("fd00::1"), &keep)).unwrap(), 0);
    assert_eq!(machine.run(|| forget(ip("10.0.0.1"), &[])).unwrap(), 2);
    assert_eq!(flows(&machine), ["10.0.0.2 198.51.100.1", "198.51.100.1 10.0.0.1", "fd00::1 fd00::2"]);
}

#[test]
fn others_are_marked_by_their_marks_in_the_same_listing() {
    let machine = tracking(&[
        ("10.0.0.1", "198.51.100.1:1001"),
        ("10.0.0.1", "10.0.0.9:1001"),
        ("10.0.0.2", "198.51.100.1:1001"),
        ("10.0.0.2", "198.51.100.1:1002"),
    ]);
    let keep = ["10.0.0.0/8".parse().unwrap()];
    let stale = |mark: u32| (mark & 0xffff_ff00 == 0x100).then_some((0x7fff_ff00, 0xffff_ff00));
    let one = BTreeSet::from([ip("10.0.0.1")]);
    let forgotten = machine.run(|| forget_or_mark(&one, &keep, |_| None, Some(&stale))).unwrap();
    assert_eq!(forgotten, 3);
    assert_eq!(marks(&machine), [0x2ff, 0x7fff_ff11, 0x7fff_ff11], "what stays of the one, too");
    assert_eq!(flows(&machine), ["10.0.0.1 10.0.0.9", "10.0.0.2 198.51.100.1", "10.0.0.2 198.51.100.1"]);
}

#[test]
fn what_is_answered_at_the_source_itself_is_marked_and_what_is_translated_goes() {
    let machine = machine();
    machine.sh("nft add chain inet t post '{ type nat hook postrouting priority 100; }'
         nft add rule inet t post udp dport 1002 ip saddr 10.0.0.1 snat ip to 10.0.0.2");
    flow_each(
        &machine,
        &[
            ("10.0.0.1", "198.51.100.1:1001"),
            ("10.0.0.1", "198.51.100.1:1002"),
            ("10.0.0.1", "10.0.0.9:1001"),
            ("fd00::1", "[2001:db8::1]:1001"),
        ],
    );
    let (keep, dead) = (["10.0.0.0/8".parse().unwrap()], Some((0x7fff_ff00, 0xffff_ff00)));
    let both = BTreeSet::from([ip("10.0.0.1"), ip("fd00::1")]);
    assert_eq!(machine.run(|| forget_or_mark(&both, &keep, |_| dead, None)).unwrap(), 3);
    assert_eq!(marks(&machine), [0x111, 0x7fff_ff11, 0x7fff_ff11], "inside as before, the others dead");
    assert_eq!(flows(&machine), ["10.0.0.1 10.0.0.9", "10.0.0.1 198.51.100.1", "fd00::1 2001:db8::1"]);
}

#[test]
fn only_matching_marks_are_rewritten_and_foreign_bits_stay() {
    let machine = machine();
    for to in ["198.51.100.1:1001", "198.51.100.1:1002", "198.51.100.1:1003", "198.51.100.1:1004"] {
        flow(&machine, "10.0.0.1", to);
    }
    flow(&machine, "10.0.0.2", "198.51.100.1:1001");
    flow(&machine, "fd00::1", "[2001:db8::1]:1001");
    assert_eq!(marks(&machine), [0, 0x111, 0x111, 0x111, 0x2ff, 0x7fff_ff33]);

    let pinned = |gateway: u32| MarkFilter { value: gateway << 8, mask: 0xffff_ff00 };
    let counted = |filter| machine.run(|| count(filter)).unwrap();
    assert_eq!(
        (counted(pinned(1)), counted(pinned(2)), counted(pinned(3)), counted(pinned(0))),
        (3, 1, 0, 1)
    );
    assert_eq!(counted(MarkFilter { value: 0xff11, mask: 0xff }), 3, "bits outside the mask do not count");
    assert_eq!(counted(MarkFilter::ALL), 6);

    let dead = (0x7fff_ff00, 0xffff_ff00);
    assert_eq!(machine.run(|| remark(pinned(1), Some(ip("10.0.0.1")), dead)).unwrap(), 1);
    assert_eq!(marks(&machine), [0, 0x111, 0x111, 0x2ff, 0x7fff_ff11, 0x7fff_ff33]);
    assert_eq!(machine.run(|| remark(pinned(1), None, (0, 0xffff_ff00))).unwrap(), 2, "both families");
    assert_eq!(marks(&machine), [0, 0x11, 0x11, 0x2ff, 0x7fff_ff11, 0x7fff_ff33]);
    assert_eq!(machine.run(|| remark(pinned(9), None, dead)).unwrap(), 0);
}

#[test]
fn flows_of_many_sources_are_picked_by_source_and_mark_in_one_listing() {
    let machine = machine();
    for from in ["10.0.0.1", "10.0.0.2"] {
        flow(&machine, from, "198.51.100.1:1001");
    }
    let meant = |source, mark| (source, mark) == (ip("10.0.0.2"), 0x111);
    let dead = (0x7fff_ff00, 0xffff_ff00);
    assert_eq!(machine.run(|| remark_where(meant, dead)).unwrap(), 1);
    assert_eq!(marks(&machine), [0x111, 0x7fff_ff11]);
}

const OF_TWO: [(&str, &str); 8] = [
    ("10.0.0.1", "198.51.100.1:9"),
    ("10.0.0.1", "10.0.0.2:9"),
    ("10.0.0.1", "10.96.0.1:9"),
    ("10.0.0.2", "198.51.100.1:9"),
    ("198.51.100.1", "10.0.0.1:9"),
    ("fd00::1", "[2001:db8::1]:9"),
    ("fd00::2", "[2001:db8::1]:9"),
    ("2001:db8::1", "[fd00::1]:9"),
];

#[test]
fn of_addresses_that_sleep_all_goes_that_they_opened_and_nothing_that_others_did() {
    let machine = tracking(&OF_TWO);
    let both = BTreeSet::from([ip("10.0.0.1"), ip("fd00::1")]);
    let keep = ["10.0.0.0/8".parse().unwrap()];
    machine.run(|| clear(&both, &keep)).unwrap();
    let others =
        ["10.0.0.2 198.51.100.1", "198.51.100.1 10.0.0.1", "2001:db8::1 fd00::1", "fd00::2 2001:db8::1"];
    let left = flows(&machine);
    let may_stay = ["10.0.0.1 10.0.0.2", "10.0.0.1 10.96.0.1"];
    let (own, left): (Vec<_>, Vec<_>) = left.into_iter().partition(|f| may_stay.contains(&f.as_str()));
    assert_eq!(left, others);
    let told = machine.run(|| clear::delete(&mut open().unwrap(), Ipv4Addr::new(10, 9, 9, 9))).unwrap();
    assert_eq!(own.is_empty(), told, "all of it, where the kernel deletes by source (Linux 6.12)");
}

#[test]
fn a_kernel_that_deletes_by_no_filter_is_asked_for_a_listing() {
    let machine = tracking(&OF_TWO);
    let both = BTreeSet::from([ip("10.0.0.1"), ip("fd00::1")]);
    let keep = ["10.0.0.0/8".parse().unwrap()];
    machine.run(|| clear::clear_by(&both, &keep, |_, _| Ok(false))).unwrap();
    assert_eq!(
        flows(&machine),
        [
            "10.0.0.1 10.0.0.2",
            "10.0.0.1 10.96.0.1",
            "10.0.0.2 198.51.100.1",
            "198.51.100.1 10.0.0.1",
            "2001:db8::1 fd00::1",
            "fd00::2 2001:db8::1"
        ]
    );
}

#[test]
fn many_addresses_among_few_flows_are_deleted_one_by_one_and_among_many_flows_by_a_listing() {
    assert!(clear::pays(1, Some(200_000)) && clear::pays(16, Some(100)));
    assert!(!clear::pays(100, Some(1)) && !clear::pays(16, Some(10_000)) && !clear::pays(16, None));
    let machine = tracking(&OF_TWO);
    let many = (3..=255).map(|n| IpAddr::from([10, 0, 0, n])).chain([ip("10.0.0.1")]).collect();
    machine.run(|| clear(&many, &[])).unwrap();
    assert_eq!(flows(&machine).len(), 5);
}

#[test]
fn what_carries_a_mark_is_deleted_whoever_opened_it() {
    let machine = tracking(&[
        ("10.0.0.1", "198.51.100.1:1001"),
        ("10.0.0.2", "198.51.100.1:1002"),
        ("10.0.0.1", "198.51.100.1:1003"),
        ("10.0.0.1", "198.51.100.1:1004"),
        ("fd00::1", "[2001:db8::1]:1001"),
    ]);
    let pinned = |gateway: u32| MarkFilter { value: gateway << 8 | 0xff, mask: 0xffff_ff00 };
    machine.run(|| forget_marked(&[pinned(9)])).unwrap();
    machine.run(|| forget_marked(&[])).unwrap();
    assert_eq!(marks(&machine), [0, 0x111, 0x111, 0x2ff, 0x7fff_ff33]);
    machine.run(|| forget_marked(&[pinned(1), pinned(0x7f_ffff)])).unwrap();
    assert_eq!(marks(&machine), [0, 0x2ff]);
    let many: Vec<MarkFilter> = (2..200).map(pinned).collect();
    machine.run(|| forget_marked(&many)).unwrap();
    assert_eq!(marks(&machine), [0]);
}

/// Prints what a listing and a deletion by source take, in turn.
#[test]
#[ignore = "a measurement: cargo test --lib a_listing_and_a_deletion -- --ignored --nocapture"]
fn a_listing_and_a_deletion_side_by_side() {
    let machine = machine();
    let one = BTreeSet::from([ip("10.0.0.1")]);
    for more in [0_u16, 200, 2_800] {
        machine.run(|| {
            let target: SocketAddr = "198.51.100.1:9".parse().unwrap();
            for _ in 0..more {
                let _ = UdpSocket::bind("10.0.0.2:0").unwrap().send_to(b"x", target);
            }
            UdpSocket::bind("10.0.0.2:0").unwrap().send_to(b"x", target).unwrap();
            let timed = |work: &dyn Fn()| {
                let start = std::time::Instant::now();
                work();
                start.elapsed().as_micros()
            };
            let (mut listings, mut deletions) = (Vec::new(), Vec::new());
            for _ in 0..31 {
                listings.push(timed(&|| {
                    forget_or_mark(&one, &[], |_| None, None).unwrap();
                }));
                deletions.push(timed(&|| clear(&one, &[]).unwrap()));
            }
            listings.sort_unstable();
            deletions.sort_unstable();
            println!(
                "{} entries: listed {} µs (least {}), deleted {} µs (least {})",
                count(MarkFilter::ALL).unwrap(),
                listings[15],
                listings[0],
                deletions[15],
                deletions[0]
            );
        });
    }
}

#[test]
fn a_namespace_without_any_flow_has_nothing_to_do() {
    let empty = Namespace::new();
    empty.run(|| {
        clear(&BTreeSet::from([ip("10.0.0.1"), ip("fd00::1")]), &[]).unwrap();
        forget_marked(&[MarkFilter { value: 1, mask: 1 }]).unwrap();
        assert_eq!(count(MarkFilter::ALL).unwrap(), 0);
        assert_eq!(forget(ip("10.0.0.1"), &[]).unwrap(), 0);
        assert_eq!(remark(MarkFilter { value: 1, mask: 1 }, Some(ip("fd00::1")), (0, 1)).unwrap(), 0);
    });
}

#[test]
fn thousands_of_flows_are_forgotten_at_once() {
    let machine = machine();
    machine.run(|| {
        let target: SocketAddr = "198.51.100.1:9".parse().unwrap();
        for _ in 0..3000 {
            let _ = UdpSocket::bind("10.0.0.1:0").unwrap().send_to(b"x", target);
            let _ = UdpSocket::bind("10.0.0.2:0").unwrap().send_to(b"x", target);
        }
        let all = count(MarkFilter::ALL).unwrap();
        let start = std::time::Instant::now();
        let gone = forget(ip("10.0.0.1"), &[]).unwrap();
        println!("{gone} of {all} flows forgotten in {:?}", start.elapsed());
        assert!(gone > 2500, "the kernel chooses the ports, so a few flows share one: {gone}");
        assert_eq!(count(MarkFilter::ALL).unwrap(), all - gone);
    });
}

#[test]
fn who_tracks_nothing_is_told_from_who_does() {
    let namespace = Namespace::new();
    let told = || Family::BOTH.map(|family| namespace.run(|| is_on(family)).unwrap());
    assert_eq!(told(), [false, false], "no rule asks for it");
    namespace
        .sh("nft 'table ip t { chain c { type filter hook output priority 0; ct state new counter; }; }'");
    assert_eq!(told(), [true, false], "a primary's masquerade is often of one family alone");
    namespace
        .sh("nft 'table ip6 t { chain c { type filter hook output priority 0; ct state new counter; }; }'");
    assert_eq!(told(), [true, true]);
}
