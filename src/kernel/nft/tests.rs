//! Tables on the real kernel: what was loaded is what is read, and whatever is changed behind our back is seen and put back.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::diff::{Edit, ElementChange, change};
use super::table::{Atom, Key, Rule, Tables, Value};
use super::{Error, elements, observe::observe};
use crate::kernel::sandbox::Namespace;
use crate::kernel::state::NftFamily;

mod random;
mod world;

use world::{bring, goto, ip, machine, node, ours, range};

fn loaded() -> Namespace {
    let namespace = machine();
    namespace.run(|| bring(&node()));
    namespace
}

#[test]
fn what_was_loaded_is_what_is_read_and_uninstalling_leaves_nothing() {
    let machine = loaded();
    let listed = machine.sh("nft list ruleset");
    assert!(listed.contains("reject with icmpx admin-prohibited comment \"rule 1 #"), "{listed}");
    machine.run(|| bring(&Tables::new()));
    assert_eq!(machine.sh("nft list ruleset"), "");
}

#[test]
fn an_empty_namespace_has_no_table_and_other_tables_are_not_ours() {
    let machine = machine();
    machine.sh("nft add table inet other; nft add chain inet other egret; nft add table ip egret");
    machine.run(|| assert_eq!(observe(&ours()).unwrap(), Tables::new()));
    machine.run(|| bring(&node()));
    machine.run(|| bring(&Tables::new()));
    assert!(machine.sh("nft list ruleset").contains("table ip egret"), "foreign tables stay");
}

#[test]
fn every_kind_of_tampering_is_seen_and_repaired() {
    let machine = loaded();
    for tampering in [
        "nft delete rule inet egret from_us handle $(nft -a list chain inet egret from_us | sed -n 's/.*rule 3.*handle //p')",
        "nft add rule inet egret from_us accept",
        "nft insert rule inet egret prerouting accept comment '\"looks like one #0123abcd\"'",
        "nft replace rule inet egret input handle $(nft -a list chain inet egret input | sed -n 's/.*rule 0.*handle //p') accept",
        "h=$(nft -a list chain inet egret to_tunnel | sed -n 's/.*rule 0.*handle //p')
         r=$(nft list chain inet egret to_tunnel | grep 'rule 0')
         nft add rule inet egret to_tunnel \"$r\"; nft delete rule inet egret to_tunnel handle $h",
        "nft flush chain inet egret forward",
        "nft flush table inet egret",
        "nft delete element inet egret binding4 '{ 10.60.1.10 }'",
        "nft add element inet egret binding4 '{ 10.60.1.99 : goto binding1 }'",
        "nft 'delete element inet egret pinned { 0x100 }; add element inet egret pinned { 0x100 : goto held }'",
        "nft 'delete element inet egret pinned { 0x100 }; add element inet egret pinned { 0x100 : jump held }'",
        "nft add element inet egret lease4 '{ \"eth0\" . 203.0.113.9 }'",
        "nft delete element inet egret decide4 '{ 10.0.0.0/8 }'",
        "nft 'delete element inet egret decide4 { 10.0.0.0/8 }; add element inet egret decide4 { 10.0.0.0-10.0.0.9 : drop }'",
        "nft flush map inet egret decide6",
        "nft add element inet egret direct4 '{ 192.168.0.0/16 }'",
        "nft delete map inet egret node 2>/dev/null || { nft flush chain inet egret output; nft delete map inet egret node; }",
        "nft 'flush chain inet egret output; delete map inet egret node; add map inet egret node { type ether_addr : verdict; }'",
        "nft 'delete set inet egret nodes4' 2>/dev/null || nft 'flush chain inet egret forward; delete set inet egret nodes4;
         add set inet egret nodes4 { type ipv4_addr; flags timeout; }; add rule inet egret forward ip daddr @nodes4 accept'",
        "nft add set inet egret theirs '{ type inet_service; flags interval; }'",
        "nft 'add map inet egret theirs { type ipv4_addr : verdict; }; add element inet egret theirs { 1.2.3.4 : goto held }'",
        "nft 'add chain inet egret theirs; add rule inet egret theirs goto held; add rule inet egret input jump theirs'",
        "nft 'add chain inet egret theirs { type filter hook input priority 5; }; add rule inet egret theirs drop'",
        "nft 'flush chain inet egret pinned_flow; flush map inet egret pinned; flush chain inet egret output; delete map inet egret pinned'",
        "nft 'flush chain inet egret forward; delete chain inet egret forward; add chain inet egret forward { type filter hook forward priority 7; }'",
        "nft 'add chain inet egret output { policy drop; }'",
        "nft 'add table inet egret { flags dormant; }'",
        "nft 'add rule inet egret input jump { counter accept; }'",
        "nft delete table inet egret",
        "nft delete table netdev egret",
        "nft flush ruleset",
        "nft 'delete chain netdev egret out; add chain netdev egret out { type filter hook egress device lo priority 0; }'",
        "nft 'add chain netdev egret out { type filter hook ingress device lo priority 0; }' 2>/dev/null || nft delete chain netdev egret out",
        "nft delete element netdev egret mac '{ 0x100 }'",
    ] {
        machine.sh(tampering);
        machine.run(|| {
            let observed = observe(&ours()).unwrap();
            assert_ne!(observed, node(), "not seen: {tampering}");
            assert!(change(&observed, &node()).is_some(), "not seen: {tampering}");
            bring(&node());
        });
    }
}

#[test]
fn the_egress_chain_works_again_after_its_device_was_deleted_and_made_anew() {
    let machine = loaded();
    machine.sh("ip link del egress.vxlan");
    machine.sh("ip link add egress.vxlan type vxlan id 4097 dstport 4790 local 127.0.0.1; ip link set egress.vxlan up");
    machine.run(|| bring(&node()));
    // Older kernels delete the chain with its device; this one keeps it by the device's name. Either way it must see packets.
    machine.sh(
        "nft insert rule netdev egret out counter comment '\"seen\"'
         ip addr add 192.0.2.1/24 dev egress.vxlan; ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev egress.vxlan
         ping -c 1 -W 1 192.0.2.2 >/dev/null || true
         nft list chain netdev egret out | grep -E 'counter packets [1-9].*seen'",
    );
}

#[test]
fn a_chain_thought_gone_with_its_device_may_still_be_there() {
    let machine = loaded();
    machine.run(|| {
        let mut thought = node();
        thought.get_mut(&ours()[1]).unwrap().chains.clear();
        change(&thought, &node()).unwrap().apply().unwrap();
        assert_eq!(observe(&ours()).unwrap(), node());
    });
}

#[test]
fn a_repair_touches_nothing_but_what_differs() {
    let machine = loaded();
    machine.sh("nft delete element inet egret binding4 '{ 10.60.1.10 }'; nft flush chain inet egret held");
    let script = machine.run(|| change(&observe(&ours()).unwrap(), &node()).unwrap().to_string());
    let [element, first, second] = script.lines().collect::<Vec<_>>()[..] else { panic!("{script}") };
    assert_eq!(element, "add element inet egret binding4 { 10.60.1.10 : goto binding1 }");
    assert!(first.starts_with(
        "add rule inet egret held meta l4proto tcp counter reject with tcp reset comment \"rule 0 #"
    ));
    assert!(second.starts_with(
        "add rule inet egret held counter reject with icmpx admin-prohibited comment \"rule 1 #"
    ));
}

#[test]
fn a_reload_falls_into_no_reader() {
    let machine = loaded();
    machine.run(|| {
        let other = node().into_iter().take(1).collect::<Tables>();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for _ in 0..20 {
                    change(&node(), &other).unwrap().apply().unwrap();
                    change(&other, &node()).unwrap().apply().unwrap();
                }
            });
            while !writer.is_finished() {
                match observe(&ours()) {
                    Ok(seen) => assert!(seen == node() || seen == other, "half a ruleset: {:?}", seen.keys()),
                    Err(error) => panic!("{error}"),
                }
            }
        });
    });
}

/// The same three edits at every kind of map, by netlink and by script.
fn edits() -> Vec<ElementChange> {
    let edit = |family, map: &str, key: Key, to| ElementChange {
        family,
        table: "egret".to_owned(),
        map: map.to_owned(),
        key,
        to,
    };
    use NftFamily::{Inet, Netdev};
    let mac = |text: &str| text.parse().unwrap();
    vec![
        edit(Inet, "binding4", vec![ip("10.60.1.10")], Edit::Replace(goto("held"))),
        edit(Inet, "binding4", vec![ip("10.60.1.11")], Edit::Add(goto("binding1"))),
        edit(Inet, "binding6", vec![ip("fd00:10:60:1::a")], Edit::Remove),
        edit(Inet, "binding6", vec![ip("fd00:10:60:1::b")], Edit::Add(Some(Value::Drop))),
        edit(Inet, "pinned", vec![Atom::Mark(0x0102_0304)], Edit::Add(Some(Value::Accept))),
        edit(Inet, "lease4", vec![Atom::Dev("egg2".into()), ip("203.0.113.2")], Edit::Remove),
        edit(Inet, "lease6", vec![Atom::Dev("fifteen-letters".into()), ip("2001:db8::9")], Edit::Add(None)),
        edit(Inet, "node", vec![Atom::Mac(mac("02:65:ac:1e:00:01"))], Edit::Replace(Some(Value::Mark(7)))),
        edit(
            Inet,
            "odd",
            vec![Atom::Mac(mac("02:65:00:00:00:09")), Atom::Mark(1), Atom::Dev("x".into())],
            Edit::Add(None),
        ),
        edit(
            Netdev,
            "mac",
            vec![Atom::Mark(0x100)],
            Edit::Replace(Some(Value::Mac(mac("02:67:00:00:00:01")))),
        ),
        edit(Netdev, "mac", vec![Atom::Mark(0x200)], Edit::Add(Some(Value::Mac(mac("02:67:00:00:00:02"))))),
    ]
}

fn edited(mut tables: Tables, edits: &[ElementChange]) -> Tables {
    for edit in edits {
        let table = tables.get_mut(&(edit.family, edit.table.clone())).unwrap();
        let elements = &mut table.maps.get_mut(&edit.map).unwrap().elements;
        match &edit.to {
            Edit::Add(value) | Edit::Replace(value) => drop(elements.insert(edit.key.clone(), value.clone())),
            Edit::Remove => drop(elements.remove(&edit.key)),
        }
    }
    tables
}

#[test]
fn elements_by_netlink_and_by_script_end_in_the_same_ruleset() {
    let desired = edited(node(), &edits());
    let change = change(&node(), &desired).unwrap();
    let by_key = |mut edits: Vec<ElementChange>| {
        edits.sort_by(|a, b| (a.family, &a.map, &a.key).cmp(&(b.family, &b.map, &b.key)));
        edits
    };
    assert_eq!(by_key(change.elements_only().unwrap()), by_key(edits()));

    let list = |by: &(dyn Fn() -> Result<(), Error> + Sync)| {
        let machine = loaded();
        machine.run(|| {
            by().unwrap();
            assert_eq!(observe(&ours()).unwrap(), desired);
        });
        machine.sh("nft -s list ruleset")
    };
    let elements = change.elements_only().unwrap();
    assert_eq!(list(&|| elements::apply(&elements)), list(&|| super::load::load(&change.to_string())));
}

#[test]
fn interval_elements_are_no_business_of_netlink() {
    let mut desired = node();
    let decide = desired.get_mut(&ours()[0]).unwrap().maps.get_mut("decide6").unwrap();
    decide.elements = BTreeMap::from([(vec![range("fd00::/8")], goto("held"))]);
    let into = change(&node(), &desired).unwrap();
    assert_eq!(into.elements_only(), None);
    decide_is_repaired(&into.to_string());
    let first = change(&Tables::new(), &node()).unwrap();
    assert_eq!(first.elements_only(), None);
}

fn decide_is_repaired(script: &str) {
    let words: Vec<&str> = script.lines().map(|line| line.split(" {").next().unwrap()).collect();
    assert_eq!(words, ["flush map inet egret decide6", "add element inet egret decide6"]);
}

#[test]
fn a_refused_element_is_named_and_a_missing_one_can_be_told() {
    let machine = loaded();
    let refused = |edits: &[ElementChange]| machine.run(|| elements::apply(edits)).unwrap_err();
    let edit = |map: &str, key: Atom, to| ElementChange {
        family: NftFamily::Inet,
        table: "egret".to_owned(),
        map: map.to_owned(),
        key: vec![key],
        to,
    };
    let good = edit("binding4", ip("10.0.0.1"), Edit::Add(goto("held")));
    let no_chain = edit("binding4", ip("10.0.0.2"), Edit::Add(goto("nowhere")));
    let no_set = edit("nothing", ip("10.0.0.3"), Edit::Add(goto("held")));
    let no_element = edit("binding4", ip("10.0.0.4"), Edit::Remove);
    let other_value = edit("binding4", ip("10.60.1.10"), Edit::Add(goto("held")));
    for (bad, errno) in [
        (&no_chain, libc::ENOENT),
        (&no_set, libc::ENOENT),
        (&no_element, libc::ENOENT),
        (&other_value, libc::EEXIST),
    ] {
        let error = refused(&[good.clone(), bad.clone(), good.clone()]);
        let Error::Elements(refusals) = error else { panic!("{error}") };
        assert_eq!((refusals.len(), refusals[0].change.as_ref(), refusals[0].errno), (1, Some(bad), errno));
    }
    let Error::Elements(all) = refused(&[no_chain.clone(), good.clone(), no_set.clone(), no_element.clone()])
    else {
        panic!("not about elements")
    };
    let named: Vec<_> = all.iter().map(|refusal| refusal.change.clone().unwrap()).collect();
    assert_eq!(named, [no_chain.clone(), no_set, no_element], "every one of them is named");
    let ranged = edit("decide4", range("1.0.0.0/8"), Edit::Add(goto("held")));
    assert!(
        refused(&[ranged]).to_string().ends_with("ranges are loaded in a transaction of nft, not one by one")
    );
    let error = refused(&[no_chain]).to_string();
    assert!(
        error.starts_with(
            "the kernel refused `add element inet egret binding4 { 10.0.0.2 : goto nowhere }`: No such file"
        ),
        "{error}"
    );
    machine.run(|| assert_eq!(observe(&ours()).unwrap(), node(), "nothing of a refused transaction stays"));
}

#[test]
fn thousands_of_elements_are_all_read_right_after_they_were_written() {
    let machine = loaded();
    let edits: Vec<ElementChange> = (0..5000u32)
        .map(|number| ElementChange {
            family: NftFamily::Inet,
            table: "egret".to_owned(),
            map: "nodes4".to_owned(),
            key: vec![Atom::Ip(IpAddr::from((0x0a00_0000 + number).to_be_bytes()))],
            to: Edit::Add(None),
        })
        .collect();
    machine.run(|| {
        elements::apply(&edits).unwrap();
        assert_eq!(observe(&ours()).unwrap(), edited(node(), &edits));
        bring(&node());
        assert_eq!(observe(&ours()).unwrap(), node());
    });
}

#[test]
fn a_refused_script_names_the_line_and_changes_nothing() {
    let machine = loaded();
    machine.run(|| {
        let mut desired = node();
        let table = desired.get_mut(&ours()[0]).unwrap();
        table.chains.get_mut("held").unwrap().rules.push(Rule::new("broken", "ip saddr @nowhere accept"));
        let error = change(&node(), &desired).unwrap().apply().unwrap_err().to_string();
        assert!(error.contains("at `add rule inet egret held ip saddr @nowhere accept comment"), "{error}");
        assert!(error.ends_with("nothing was changed"), "{error}");
        assert_eq!(observe(&ours()).unwrap(), node());
    });
}

#[test]
fn a_map_of_another_type_is_made_anew_under_the_rules_that_use_it() {
    let machine = loaded();
    let mut desired = node();
    let table = desired.get_mut(&ours()[0]).unwrap();
    table.maps.get_mut("binding4").unwrap().interval = true;
    table.maps.get_mut("binding4").unwrap().elements =
        BTreeMap::from([(vec![range("10.60.1.0/24")], goto("held"))]);
    let touched: Vec<String> =
        change(&node(), &desired).unwrap().to_string().lines().map(str::to_owned).collect();
    assert!(
        touched.iter().all(|line| line.contains("binding4")
            || line.contains(" prerouting ")
            || line.ends_with(" prerouting")),
        "{touched:#?}"
    );
    machine.run(|| bring(&desired));
}
