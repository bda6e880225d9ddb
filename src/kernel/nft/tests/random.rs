//! Small random tables on the real kernel: whatever the kernel has becomes whatever is wanted, in one transaction.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::table::{Atom, Chain, Hook, Key, KeyType, Map, Rule, Table, Tables, Value, ValueType};
use super::world::{bring, chain, goto, ip, map, ours};
use crate::kernel::sandbox::Namespace;

const HOOKED: [&str; 3] = ["c0", "c1", "c2"];
const LEAVES: [&str; 2] = ["z0", "z1"];
const MAPS: [&str; 3] = ["m0", "m1", "m2"];

/// What a rule should be, if what it names is there.
#[derive(Debug, Clone)]
enum Wish {
    Plain(&'static str),
    Jump(usize),
    Look(usize),
}

fn wish() -> impl Strategy<Value = Wish> {
    prop_oneof![
        select(vec!["accept", "counter drop", "ct state invalid drop", "meta l4proto { tcp, udp } accept"])
            .prop_map(Wish::Plain),
        (0..HOOKED.len() + LEAVES.len()).prop_map(Wish::Jump),
        (0..MAPS.len()).prop_map(Wish::Look),
    ]
}

fn hook() -> impl Strategy<Value = Option<Hook>> {
    let places = vec![
        None,
        Some(("filter", "prerouting", -90)),
        Some(("filter", "forward", 0)),
        Some(("filter", "forward", 1)),
        Some(("nat", "postrouting", 90)),
        Some(("route", "output", -150)),
    ];
    select(places).prop_map(|place| chain(place, &[]).hook)
}

fn verdict() -> impl Strategy<Value = Value> {
    select(vec![Value::Accept, Value::Drop, goto("z0").unwrap(), goto("z1").unwrap()])
}

/// Neighbouring ranges between fixed addresses, with gaps.
fn ranges(borders: &'static [&'static str]) -> impl Strategy<Value = BTreeMap<Key, Option<Value>>> {
    use crate::addr::{Family, address_bits, address_from_bits};
    vec(proptest::option::of(verdict()), borders.len()).prop_map(move |values| {
        let borders: Vec<IpAddr> = borders.iter().map(|border| border.parse().unwrap()).collect();
        let family = Family::of(borders[0]);
        let last = |index: usize| match borders.get(index + 1) {
            Some(next) => address_from_bits(family, address_bits(*next) - 1),
            None => family.everything().last(),
        };
        let used = values.into_iter().enumerate().filter(|(_, value)| value.is_some());
        used.map(|(index, value)| (vec![Atom::Range(borders[index], last(index))], value)).collect()
    })
}

fn some_map() -> impl Strategy<Value = Map> {
    let keys = |keys: Vec<Key>| vec((select(keys), verdict()), 0..4).prop_map(BTreeMap::from_iter);
    let v4 = || vec![vec![ip("10.0.0.1")], vec![ip("10.0.0.2")], vec![ip("10.0.0.3")]];
    let named =
        || vec![vec![Atom::Dev("a".into()), ip("10.0.0.1")], vec![Atom::Dev("b".into()), ip("10.0.0.1")]];
    let marks = || vec![vec![Atom::Mark(0x100)], vec![Atom::Mark(1)]];
    let vnis = || vec![vec![Atom::Vni(5)], vec![Atom::Vni(0x12_3456)]];
    let some = |map: BTreeMap<Key, Value>| map.into_iter().map(|(key, value)| (key, Some(value))).collect();
    let few = prop_oneof![
        (Just(vec![KeyType::Ipv4]), Just(false), keys(v4()).prop_map(some)),
        (Just(vec![KeyType::Mark]), Just(false), keys(marks()).prop_map(some)),
        (Just(vec![KeyType::Vni]), Just(false), keys(vnis()).prop_map(some)),
        (Just(vec![KeyType::Ifname, KeyType::Ipv4]), Just(false), keys(named()).prop_map(some)),
        (
            Just(vec![KeyType::Ipv4]),
            Just(true),
            ranges(&["0.0.0.0", "10.0.0.0", "10.0.0.1", "10.0.1.0", "11.0.0.0", "255.255.255.255"])
        ),
        (Just(vec![KeyType::Ipv6]), Just(true), ranges(&["::", "::1", "fd00::", "fe00::", "ffff::"])),
    ];
    (few, any::<bool>()).prop_map(|((key, interval, elements), is_map)| Map {
        key,
        interval,
        value: is_map.then_some(ValueType::Verdict),
        elements: elements.into_iter().map(|(key, value)| (key, value.filter(|_| is_map))).collect(),
    })
}

type Chains = Vec<Option<(Option<Hook>, Vec<Wish>)>>;

fn chains() -> impl Strategy<Value = Chains> {
    vec(proptest::option::weighted(0.7, (hook(), vec(wish(), 0..4))), HOOKED.len())
}

fn maps() -> impl Strategy<Value = Vec<Option<Map>>> {
    vec(proptest::option::weighted(0.7, some_map()), MAPS.len())
}

/// Leaves out what would name something that is not there, and loops.
fn legal(chains: &Chains, leaves: &[bool], maps: &[Option<Map>]) -> Table {
    let mut table = Table::default();
    for (name, there) in LEAVES.iter().zip(leaves) {
        if *there {
            table.chains.insert((*name).to_owned(), chain(None, &["accept"]));
        }
    }
    for (name, map) in MAPS.iter().zip(maps) {
        if let Some(mut map) = map.clone() {
            map.elements.retain(|_, value| match value {
                Some(Value::Goto(chain)) => table.chains.contains_key(chain),
                _ => true,
            });
            table.maps.insert((*name).to_owned(), map);
        }
    }
    let regular = |index: usize| match index.checked_sub(HOOKED.len()) {
        Some(leaf) => leaves[leaf].then_some(LEAVES[leaf]),
        None => chains[index].as_ref().filter(|(hook, _)| hook.is_none()).map(|_| HOOKED[index]),
    };
    for (own, (name, chain)) in HOOKED.iter().zip(chains).enumerate() {
        let Some((hook, wishes)) = chain else { continue };
        let text = |wish: &Wish| match wish {
            Wish::Plain(text) => Some((*text).to_owned()),
            Wish::Jump(to) => regular(*to).filter(|_| *to > own).map(|to| format!("jump {to}")),
            Wish::Look(map) => table.maps.get(MAPS[*map]).map(|kind| look(MAPS[*map], kind)),
        };
        let rules = wishes.iter().filter_map(text).map(|text| Rule::new("some", text)).collect();
        table.chains.insert((*name).to_owned(), Chain { hook: hook.clone(), rules });
    }
    table
}

fn look(name: &str, map: &Map) -> String {
    let key = match map.key[..] {
        [KeyType::Ipv4] => "ip saddr",
        [KeyType::Ipv6] => "ip6 saddr",
        [KeyType::Mark] => "meta mark",
        [KeyType::Vni] => "udp dport 4789 @th,96,32",
        _ => "iifname . ip saddr",
    };
    format!("{key} {}@{name}", if map.value.is_some() { "vmap " } else { "" })
}

fn netdev() -> impl Strategy<Value = Table> {
    let macs = vec((0..3u32, 0..3u8), 0..3).prop_map(|macs| {
        let element = |(mark, last)| {
            (vec![Atom::Mark(mark)], Some(Value::Mac(crate::addr::Mac([2, 0, 0, 0, 0, last]))))
        };
        Map {
            elements: macs.into_iter().map(element).collect(),
            ..map(&[KeyType::Mark], Some(ValueType::Ether), false, [])
        }
    });
    (macs, select(vec!["lo", "other"]), 0..2).prop_map(|(mac, device, priority)| {
        let mut out = chain(Some(("filter", "egress", priority)), &["ether daddr set meta mark map @mac"]);
        out.hook.as_mut().unwrap().device = Some(device.to_owned());
        Table { chains: [("out".to_owned(), out)].into(), maps: [("mac".to_owned(), mac)].into() }
    })
}

/// What a step of a walk has that the step before had not.
#[derive(Debug, Clone)]
struct Step {
    chains: Option<Chains>,
    leaves: Option<Vec<bool>>,
    maps: Option<Vec<Option<Map>>>,
    netdev: Option<Table>,
    /// Which of the two tables are there at all.
    there: [bool; 2],
}

fn step() -> impl Strategy<Value = Step> {
    let part = proptest::option::of(chains());
    let there = [proptest::bool::weighted(0.9), proptest::bool::weighted(0.9)];
    let leaves = proptest::option::of(vec(any::<bool>(), LEAVES.len()));
    (part, leaves, proptest::option::of(maps()), proptest::option::of(netdev()), there)
        .prop_map(|(chains, leaves, maps, netdev, there)| Step { chains, leaves, maps, netdev, there })
}

/// Steps keep what they do not change, so that unchanged rules meet changed maps and the other way round.
fn walk() -> impl Strategy<Value = Vec<Tables>> {
    (chains(), maps(), netdev(), vec(step(), 2..6)).prop_map(|(mut chains, mut maps, mut netdev, steps)| {
        let mut leaves = vec![true; LEAVES.len()];
        let mut states = Vec::new();
        for step in steps {
            chains = step.chains.unwrap_or(chains);
            leaves = step.leaves.unwrap_or(leaves);
            maps = step.maps.unwrap_or(maps);
            netdev = step.netdev.unwrap_or(netdev);
            let both = ours().into_iter().zip([legal(&chains, &leaves, &maps), netdev.clone()]);
            states.push(both.zip(step.there).filter(|(_, there)| *there).map(|(table, _)| table).collect());
        }
        states
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_tables_become_any_others_in_one_step(walk in walk()) {
        let namespace = Namespace::new();
        namespace.sh("ip link add other type veth");
        namespace.run(|| walk.iter().for_each(bring));
    }
}
