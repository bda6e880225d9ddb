//! A node's rules as tables, and the two verbs the stories need.

use std::collections::BTreeMap;

use super::super::diff::change;
use super::super::observe::observe;
use super::super::table::{Atom, Chain, Hook, Key, KeyType, Map, Rule, Table, Tables, Value, ValueType};
use crate::addr::Cidr;
use crate::kernel::sandbox::Namespace;
use crate::kernel::state::NftFamily;

pub(super) fn ip(text: &str) -> Atom {
    Atom::Ip(text.parse().unwrap())
}

pub(super) fn range(text: &str) -> Atom {
    match text.split_once('-') {
        Some((first, last)) => Atom::Range(first.parse().unwrap(), last.parse().unwrap()),
        None => {
            let cidr: Cidr = text.parse().unwrap();
            Atom::Range(cidr.first(), cidr.last())
        }
    }
}

pub(super) fn goto(chain: &str) -> Option<Value> {
    Some(Value::Goto(chain.to_owned()))
}

pub(super) fn map<const N: usize>(
    key: &[KeyType],
    value: Option<ValueType>,
    interval: bool,
    elements: [(Key, Option<Value>); N],
) -> Map {
    Map { key: key.to_vec(), value, interval, elements: BTreeMap::from(elements) }
}

pub(super) fn chain(hook: Option<(&str, &str, i32)>, rules: &[&str]) -> Chain {
    let hook = hook.map(|(kind, hook, priority)| Hook {
        kind: kind.to_owned(),
        hook: hook.to_owned(),
        priority,
        device: None,
    });
    let rule = |(number, text): (usize, &&str)| Rule::new(&format!("rule {number}"), *text);
    Chain { hook, rules: rules.iter().enumerate().map(rule).collect() }
}

/// A node's rules as the data path wants them, both tables, with every construct it uses.
pub(super) fn node() -> Tables {
    use KeyType::{Ether, Ifname, Ipv4, Ipv6, Mark};
    let verdict = Some(ValueType::Verdict);
    let chains = [
        (
            "prerouting",
            chain(
                Some(("filter", "prerouting", -90)),
                &["iifgroup 4097 goto from_us", "ip saddr vmap @binding4", "ip6 saddr vmap @binding6"],
            ),
        ),
        (
            "from_us",
            chain(
                None,
                &[
                    "ct direction reply accept",
                    "iifname . ip saddr @lease4 accept",
                    "iifname . ip6 saddr @lease6 accept",
                    "ip6 daddr ff02::/16 drop",
                    "counter drop",
                ],
            ),
        ),
        (
            "binding1",
            chain(
                None,
                &[
                    "ct direction reply accept",
                    "ct mark & 0xffffff00 != 0 jump pinned_flow",
                    "ip daddr vmap @decide4",
                    "ip6 daddr vmap @decide6",
                    "ct state invalid counter drop",
                    "fib saddr . iif oif missing counter drop",
                    "meta mark set meta mark & 0xffffff80 | 0x01",
                ],
            ),
        ),
        (
            "held",
            chain(
                None,
                &[
                    "meta l4proto tcp counter reject with tcp reset",
                    "counter reject with icmpx admin-prohibited",
                ],
            ),
        ),
        (
            "pinned_flow",
            chain(None, &["fib saddr . iif oif missing counter drop", "ct mark & 0xffffff00 vmap @pinned"]),
        ),
        ("to_tunnel", chain(None, &["meta mark set meta mark & 0xffffff80 | 0x7f", "accept"])),
        (
            "forward",
            chain(
                Some(("filter", "forward", -150)),
                &[
                    "meta mark & 0x7f != 0 oifgroup != 4097 counter drop",
                    "tcp flags & (syn | rst) == syn oifname \"egress.vxlan\" tcp option maxseg size set rt mtu",
                    "udp dport 4790 ip daddr @nodes4 counter drop",
                ],
            ),
        ),
        (
            "input",
            chain(
                Some(("filter", "input", -150)),
                &[
                    "iifname { \"vxlan0\", \"egress0\" } ct state new meta l4proto != { icmp, icmpv6 } counter drop",
                ],
            ),
        ),
        (
            "output",
            chain(
                Some(("route", "output", -150)),
                &[
                    "ct state related ct direction original ct mark & 0xffffff00 vmap @pinned",
                    "ct mark set ether saddr map @node",
                ],
            ),
        ),
        (
            "srcnat",
            chain(
                Some(("nat", "postrouting", 90)),
                &[
                    "oifgroup 4097 meta mark & 0x7f != 0 snat ip to ip saddr",
                    "oifgroup 4097 meta mark & 0x7f != 0 snat ip6 to ip6 saddr",
                    "iifname . ip saddr @lease4 snat ip to ip saddr",
                ],
            ),
        ),
        (
            "postrouting",
            chain(
                Some(("filter", "postrouting", 350)),
                &["meta mark & 0x7f == 0 accept", "rt ip nexthop vmap @pin4", "rt ip6 nexthop vmap @pin6"],
            ),
        ),
        ("pin_gateway1", chain(None, &["ct mark set ct mark & 0xff | 0x100"])),
    ];
    let maps = [
        ("binding4", map(&[Ipv4], verdict, false, [(vec![ip("10.60.1.10")], goto("binding1"))])),
        ("binding6", map(&[Ipv6], verdict, false, [(vec![ip("fd00:10:60:1::a")], goto("binding1"))])),
        (
            "decide4",
            map(
                &[Ipv4],
                verdict,
                true,
                [
                    (vec![range("0.0.0.0-9.255.255.255")], goto("to_tunnel")),
                    (vec![range("10.0.0.0/8")], Some(Value::Accept)),
                    (vec![range("11.0.0.0/32")], Some(Value::Drop)),
                    (vec![range("11.0.0.1-255.255.255.254")], goto("held")),
                    (vec![range("255.255.255.255/32")], Some(Value::Accept)),
                ],
            ),
        ),
        ("decide6", map(&[Ipv6], verdict, true, [(vec![range("::/0")], goto("held"))])),
        ("pin4", map(&[Ipv4], verdict, false, [(vec![ip("203.0.113.1")], goto("pin_gateway1"))])),
        ("pin6", map(&[Ipv6], verdict, false, [(vec![ip("2001:db8:e::1")], goto("pin_gateway1"))])),
        (
            "pinned",
            map(
                &[Mark],
                verdict,
                false,
                [(vec![Atom::Mark(0x100)], goto("to_tunnel")), (vec![Atom::Mark(0x200)], goto("held"))],
            ),
        ),
        (
            "lease4",
            map(&[Ifname, Ipv4], None, false, [(vec![Atom::Dev("egg2".into()), ip("203.0.113.2")], None)]),
        ),
        (
            "lease6",
            map(&[Ifname, Ipv6], None, false, [(vec![Atom::Dev("egg2".into()), ip("2001:db8:e::2")], None)]),
        ),
        (
            "nodes4",
            map(&[Ipv4], None, false, [(vec![ip("172.30.0.1")], None), (vec![ip("172.30.0.2")], None)]),
        ),
        (
            "direct4",
            map(
                &[Ipv4],
                None,
                true,
                [
                    (vec![range("10.0.0.0/8")], None),
                    (vec![range("11.0.0.0/8")], None),
                    (vec![range("127.0.0.1/32")], None),
                ],
            ),
        ),
        (
            "node",
            map(
                &[Ether],
                Some(ValueType::Mark),
                false,
                [(vec![Atom::Mac("02:65:ac:1e:00:01".parse().unwrap())], Some(Value::Mark(0x0102_0304)))],
            ),
        ),
        (
            "odd",
            map(
                &[Ether, Mark, Ifname],
                None,
                false,
                [(
                    vec![
                        Atom::Mac("02:65:ac:1e:00:01".parse().unwrap()),
                        Atom::Mark(0x0102_0304),
                        Atom::Dev("eth0".into()),
                    ],
                    None,
                )],
            ),
        ),
        ("empty", map(&[Ipv6], None, true, [])),
    ];
    let mac = map(
        &[Mark],
        Some(ValueType::Ether),
        false,
        [(vec![Atom::Mark(0x100)], Some(Value::Mac("02:67:cb:00:71:01".parse().unwrap())))],
    );
    let mut out = chain(
        Some(("filter", "egress", 0)),
        &["ether daddr set meta mark & 0xffffff00 map @mac", "meta mark set 0"],
    );
    out.hook.as_mut().unwrap().device = Some("egress.vxlan".to_owned());
    let owned = |(name, value): (&str, Chain)| (name.to_owned(), value);
    Tables::from([
        (
            (NftFamily::Inet, "egret".to_owned()),
            Table {
                chains: chains.into_iter().map(owned).collect(),
                maps: maps.into_iter().map(|(name, map)| (name.to_owned(), map)).collect(),
            },
        ),
        (
            (NftFamily::Netdev, "egret".to_owned()),
            Table {
                chains: BTreeMap::from([("out".to_owned(), out)]),
                maps: BTreeMap::from([("mac".to_owned(), mac)]),
            },
        ),
    ])
}

pub(super) fn ours() -> Vec<(NftFamily, String)> {
    vec![(NftFamily::Inet, "egret".to_owned()), (NftFamily::Netdev, "egret".to_owned())]
}

/// A namespace with a device for the egress hook.
pub(super) fn machine() -> Namespace {
    let namespace = Namespace::new();
    namespace.sh("ip link add egress.vxlan type vxlan id 4097 dstport 4790 local 127.0.0.1; ip link set egress.vxlan up");
    namespace
}

/// Brings the kernel to `desired` and shows that it is there.
pub(super) fn bring(desired: &Tables) {
    let observed = observe(&ours()).unwrap();
    if let Some(change) = change(&observed, desired) {
        change.apply().unwrap_or_else(|error| panic!("{error}\n{change}"));
    }
    let after = observe(&ours()).unwrap();
    assert_eq!(&after, desired);
    assert_eq!(change(&after, desired), None);
}
