//! What is inside and who says so; and ranges against the naive longest prefix.

use proptest::prelude::*;

use super::*;
use crate::egress::world::World;

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn world() -> View {
    let mut view = View::default()
        .node("n1", &["192.168.0.1", "fd00:1::1"])
        .pool("egress", "10.10.10.0/28")
        .pool("pods", "10.70.0.0/16")
        .with_pool("pods", |pool| pool.kind = PoolKind::IPPool);
    view.cluster_cidrs = vec![cidr("10.60.0.0/16"), cidr("fd00:60::/48")];
    view.service_cidrs = vec![cidr("10.96.0.0/12")];
    view.api_servers = vec![cidr("192.0.2.250/32")];
    let node = view.nodes.get_mut("n1").unwrap();
    node.other_ips = vec![ip("203.0.113.7")];
    node.pod_cidrs = vec![cidr("10.60.1.0/24")];
    view
}

#[test]
fn every_source_says_who_it_is() {
    for (address, expected) in [
        ("10.60.2.1", "10.60.0.0/16 (clusterCIDRs)"),
        ("10.60.1.1", "10.60.1.0/24 (podCIDRs of Node n1)"),
        ("192.168.0.1", "192.168.0.1/32 (address of Node n1)"),
        ("203.0.113.7", "203.0.113.7/32 (address of Node n1)"),
        ("fd00:1::1", "fd00:1::1/128 (address of Node n1)"),
        ("10.100.0.1", "10.96.0.0/12 (ServiceCIDR)"),
        ("192.0.2.250", "192.0.2.250/32 (address of the API server)"),
        ("10.70.0.1", "10.70.0.0/16 (IPPool pods)"),
        ("127.0.0.53", "127.0.0.0/8 (loopback)"),
        ("169.254.169.254", "169.254.0.0/16 (link-local and cloud metadata)"),
        ("fd00:ec2::254", "fd00:ec2::254/128 (AWS metadata)"),
        ("fe80::1", "fe80::/10 (link-local)"),
        ("239.1.1.1", "224.0.0.0/4 (multicast)"),
        ("ff02::1", "ff00::/8 (multicast)"),
        ("255.255.255.255", "255.255.255.255/32 (broadcast)"),
        ("0.0.0.0", "0.0.0.0/8 (this network (RFC 6890))"),
        ("::", "::/128 (no address)"),
        ("::1", "::1/128 (loopback)"),
    ] {
        let found = because(sources(&world()), ip(address)).unwrap_or_else(|| panic!("{address} is inside"));
        assert_eq!(format!("{} ({})", found.cidr, found.source), expected);
        assert!(inside(&world()).iter().any(|cidr| cidr.contains(ip(address))), "{address}");
    }
}

#[test]
fn addresses_of_egress_pools_and_the_rest_of_the_world_are_outside() {
    for address in
        ["10.10.10.0", "1.1.1.1", "192.168.0.2", "2001:db8::1", "fd00:1::2", "223.255.255.255", "254.0.0.1"]
    {
        assert_eq!(because(sources(&world()), ip(address)), None, "{address}");
        assert!(!inside(&world()).iter().any(|cidr| cidr.contains(ip(address))), "{address}");
    }
}

#[test]
fn all_constants_parse() {
    assert_eq!(sources(&View::default()).len(), EVERYWHERE.len());
}

#[test]
fn prefixes_are_merged_and_sorted() {
    let cluster_cidrs = ["10.1.0.0/17", "10.0.0.0/16", "10.1.128.0/17", "10.0.3.0/24"].map(cidr).to_vec();
    let view = View { cluster_cidrs, ..View::default() };
    let found: Vec<String> = inside(&view).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "0.0.0.0/8",
            "10.0.0.0/15",
            "127.0.0.0/8",
            "168.63.129.16/32",
            "169.254.0.0/16",
            "224.0.0.0/4",
            "255.255.255.255/32",
            "::/127",
            "fd00:ec2::254/128",
            "fd20:ce::254/128",
            "fe80::/10",
            "ff00::/8",
        ]
    );
}

fn ranges(rules: &[(&str, u8)]) -> Vec<String> {
    let rules: BTreeMap<Cidr, u8> = rules.iter().map(|(text, value)| (cidr(text), *value)).collect();
    flatten(&rules).iter().map(|(first, last, value)| format!("{first}-{last} {value}")).collect()
}

#[test]
fn nested_prefixes_become_ranges() {
    assert_eq!(
        ranges(&[("0.0.0.0/0", 0), ("10.0.0.0/8", 1), ("10.1.0.0/16", 2), ("::/0", 0)]),
        [
            "0.0.0.0-9.255.255.255 0",
            "10.0.0.0-10.0.255.255 1",
            "10.1.0.0-10.1.255.255 2",
            "10.2.0.0-10.255.255.255 1",
            "11.0.0.0-255.255.255.255 0",
            "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 0",
        ]
    );
}

#[test]
fn neighbours_of_one_value_are_one_range_and_gaps_stay_gaps() {
    assert_eq!(
        ranges(&[("10.0.0.0/9", 1), ("10.128.0.0/9", 1), ("10.3.0.0/16", 1), ("12.0.0.0/8", 1)]),
        ["10.0.0.0-10.255.255.255 1", "12.0.0.0-12.255.255.255 1"]
    );
}

#[test]
fn the_ends_of_the_address_space_are_covered() {
    assert_eq!(
        ranges(&[
            ("0.0.0.0/32", 1),
            ("255.255.255.255/32", 1),
            ("128.0.0.0/1", 2),
            ("::/0", 1),
            ("ffff::/16", 2)
        ]),
        [
            "0.0.0.0-0.0.0.0 1",
            "128.0.0.0-255.255.255.254 2",
            "255.255.255.255-255.255.255.255 1",
            "::-fffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff 1",
            "ffff::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 2",
        ]
    );
    assert!(ranges(&[]).is_empty());
}

/// Prefixes that nest and touch often: few distinct high and low bits, all lengths.
fn any_cidr() -> impl Strategy<Value = Cidr> {
    let bits = prop_oneof![
        prop::sample::select(vec![
            0u128,
            u128::MAX,
            1,
            0x0a00_0000,
            0x0a01_0000,
            0x8000_0000,
            1 << 127,
            u128::MAX - 1
        ]),
        any::<u128>(),
    ];
    (prop::bool::ANY, bits, 0..=128u8).prop_map(|(v4, bits, length)| {
        let family = if v4 { Family::V4 } else { Family::V6 };
        Cidr::covering(address_from_bits(family, bits), if v4 { length % 33 } else { length })
    })
}

proptest! {
    #[test]
    fn a_range_says_of_each_address_what_its_longest_prefix_says(
        rules in prop::collection::btree_map(any_cidr(), 0..3u8, 0..24),
        more in prop::collection::vec(any_cidr(), 8),
    ) {
        let ranges = flatten(&rules);
        // Both ends of every prefix and of every range, and their neighbours, are where mistakes show.
        let ends = rules.keys().chain(&more).flat_map(|cidr| [cidr.first(), cidr.last()]);
        let ends = ends.chain(ranges.iter().flat_map(|(first, last, _)| [*first, *last]));
        for address in ends.flat_map(|ip| {
            let bits = address_bits(ip);
            [bits.wrapping_sub(1), bits, bits.wrapping_add(1)].map(|bits| address_from_bits(Family::of(ip), bits))
        }) {
            let holding = rules.iter().filter(|(cidr, _)| cidr.contains(address));
            let naive = holding.max_by_key(|(cidr, _)| cidr.prefix()).map(|(_, value)| *value);
            let found: Vec<u8> = ranges.iter()
                .filter(|(first, last, _)| Family::of(*first) == Family::of(address) && *first <= address && address <= *last)
                .map(|(_, _, value)| *value)
                .collect();
            prop_assert_eq!(found, naive.into_iter().collect::<Vec<_>>(), "{}", address);
        }
        for two in ranges.windows(2) {
            let ((_, end, left), (start, _, right)) = (&two[0], &two[1]);
            prop_assert!(end < start, "sorted, without overlap");
            let touching = Family::of(*end) == Family::of(*start) && address_bits(*end) + 1 == address_bits(*start);
            prop_assert!(!touching || left != right, "merged");
        }
    }

    #[test]
    fn merged_prefixes_hold_the_same_addresses_and_none_could_be_joined(
        cidrs in prop::collection::vec(any_cidr(), 0..16),
        asked in prop::collection::vec(any_cidr(), 8),
    ) {
        let view = View { cluster_cidrs: cidrs, ..View::default() };
        let (merged, all) = (inside(&view), sources(&view));
        for ip in asked.iter().chain(&merged).flat_map(|cidr| [cidr.first(), cidr.last()]) {
            let said = all.iter().any(|inside| inside.cidr.contains(ip));
            prop_assert_eq!(merged.iter().any(|cidr| cidr.contains(ip)), said, "{}", ip);
            prop_assert_eq!(because(sources(&view), ip).is_some(), said);
        }
        for two in merged.windows(2) {
            prop_assert!(two[0] < two[1] && !two[0].overlaps(two[1]));
            let joined = Cidr::covering(two[0].first(), two[0].prefix().saturating_sub(1));
            prop_assert!(two[0].prefix() != two[1].prefix() || !joined.covers(two[1]), "{} and {}", two[0], two[1]);
        }
    }
}
