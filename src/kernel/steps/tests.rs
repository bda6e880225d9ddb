//! Order and safety of steps, on values alone. The same against the real kernel: `tests/kernel/property.rs`.

use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;

use super::obstacles::MAIN;
use super::*;
use crate::addr::{Cidr, Mac};
use crate::kernel::state::{Action, Link, LinkKind, Match, Remote};

const DEVICES: [&str; 3] = ["egress.vxlan", "eg1", "eg2"];

fn link(name: &str, variant: u8) -> Link {
    let kind = match name {
        "egress.vxlan" => {
            LinkKind::Vxlan { vni: 4097 + u32::from(variant), port: 4790, local: [172, 30, 0, 1].into() }
        }
        _ => LinkKind::VethPeer,
    };
    Link { kind, mac: Mac([2, 0, 0, 0, 0, variant]), mtu: 1450, arp: true }
}

fn gateway(id: u32) -> IpAddr {
    [203, 0, 113, u8::try_from(id).unwrap()].into()
}

fn route(table: u32, metric: u32, via: Via) -> Route {
    Route { table, to: Family::V4.everything(), metric, via }
}

/// One node: every table that a rule names has its belt, every rule table's nexthop exists.
fn node(
    links: &[(usize, u8)],
    nexthops: &BTreeSet<(u32, usize)>,
    groups: &std::collections::BTreeMap<u32, BTreeSet<u32>>,
) -> State {
    let mut state = State::default();
    for (device, variant) in links {
        let name = DEVICES[*device];
        state.links.insert(name.into(), link(name, *variant));
        state.addresses.insert(Address { dev: name.into(), ip: [169, 254, 77, 1].into(), link_scope: true });
        state.sysctls.insert(format!("net/ipv4/conf/{name}/rp_filter"), "2".into());
    }
    for (id, device) in nexthops {
        let dev = DEVICES[*device].to_owned();
        if state.links.contains_key(&dev) && !state.nexthops.contains_key(id) {
            state.neighbours.insert((dev.clone(), gateway(*id)), Mac::default());
            if dev == "egress.vxlan" {
                let remote = Remote { node: [172, 30, 0, 2].into(), vni: *id };
                state.fdb.insert((dev.clone(), Mac([2, 0, 0, 0, 1, 0])), remote);
            } else {
                let via = Via::Device { dev: dev.clone(), source: None };
                state.routes.insert(Route { table: MAIN, to: Cidr::host(gateway(*id)), metric: 0, via });
            }
            state.nexthops.insert(*id, Nexthop::Via { gateway: gateway(*id), dev });
        }
    }
    for (number, members) in groups {
        let members: BTreeSet<u32> =
            members.iter().filter(|id| state.nexthops.contains_key(id)).copied().collect();
        let table = 479_000 + number;
        state.routes.insert(route(table, u32::MAX, Via::Unreachable));
        if !members.is_empty() {
            state.nexthops.insert(100 + number, Nexthop::Group { family: Family::V4, members });
            state.routes.insert(route(table, 0, Via::Nexthop(100 + number)));
        }
        let matches = Match::Mark { value: *number, mask: 0x7f };
        state.rules.insert(Rule {
            family: Family::V4,
            priority: 720,
            matches,
            action: Action::Lookup(table),
        });
    }
    if !groups.is_empty() {
        state.rules.extend(jump(721));
    }
    let matches = Match::NotMark { value: 0, mask: 0x7f };
    state.rules.insert(Rule { family: Family::V4, priority: 799, matches, action: Action::Unreachable });
    state
}

fn any_node() -> impl Strategy<Value = State> {
    let links = btree_map(0..DEVICES.len(), 0u8..2, 0..=3);
    let nexthops = btree_set((1u32..6, 0..DEVICES.len()), 0..6);
    let groups = btree_map(1u32..4, btree_set(1u32..6, 1..4), 0..4);
    (links, nexthops, groups).prop_map(|(links, nexthops, groups)| {
        node(&links.into_iter().collect::<Vec<_>>(), &nexthops, &groups)
    })
}

/// Past priority 720, to another.
fn jump(to: u32) -> [Rule; 2] {
    let rule = |priority, action| {
        let matches = Match::Mark { value: 0, mask: 0x7f };
        Rule { family: Family::V4, priority, matches, action }
    };
    [rule(719, Action::Goto(to)), rule(to, Action::Nop)]
}

/// What must hold at every moment, not only at the end.
fn assert_nothing_leaks(state: &State, step: &Step) {
    let ends = |to| state.rules.iter().any(|rule| rule.priority == to);
    let astray = state.rules.iter().find(|rule| matches!(rule.action, Action::Goto(to) if !ends(to)));
    assert_eq!(astray, None, "after `{step}`: it leads nowhere");
    for rule in &state.rules {
        if let Some(table) = rule.table() {
            let belt = route(table, u32::MAX, Via::Unreachable);
            assert!(state.routes.contains(&belt), "after `{step}`: rule to table {table} without its belt");
        }
    }
}

proptest! {
    #[test]
    fn the_steps_lead_there_leak_nothing_on_the_way_and_are_none_the_second_time(
        have in any_node(), want in any_node()
    ) {
        let belt = have.rules.iter().find(|rule| rule.action == Action::Unreachable).unwrap().clone();
        let mut now = have.clone();
        for step in steps(&have, &want, &Saved::new()) {
            carry_out(&mut now, &step);
            assert_nothing_leaks(&now, &step);
            prop_assert!(now.rules.contains(&belt), "`{}` took the last belt", step);
            for (id, nexthop) in &now.nexthops {
                if let Nexthop::Group { members, .. } = nexthop {
                    prop_assert!(!members.is_empty(), "`{}` left group {} empty", step, id);
                    let known = members.iter().all(|id| now.nexthops.contains_key(id));
                    prop_assert!(known, "`{}`: a group names a nexthop that is not there", step);
                }
            }
        }
        prop_assert_eq!(&now, &want);
        prop_assert_eq!(steps(&now, &want, &Saved::new()), vec![]);
    }
}

fn printed(have: &State, want: &State) -> Vec<String> {
    steps(have, want, &Saved::new()).iter().map(ToString::to_string).collect()
}

fn small() -> State {
    node(&[(0, 0)], &[(1, 0)].into(), &[(1, [1].into())].into())
}

#[test]
fn a_node_is_built_from_the_ground_up_and_taken_down_the_other_way_round() {
    let (empty, node) = (State::default(), small());
    assert_eq!(
        printed(&empty, &node),
        [
            "ip link add egress.vxlan type vxlan id 4097 dstport 4790 local 172.30.0.1 nolearning address 02:00:00:00:00:00 mtu \
             1450 up",
            "sysctl -w net/ipv4/conf/egress.vxlan/rp_filter=\"2\"",
            "ip address add 169.254.77.1/32 dev egress.vxlan scope link",
            "ip neigh replace 203.0.113.1 lladdr 00:00:00:00:00:00 dev egress.vxlan nud permanent",
            "bridge fdb replace 02:00:00:00:01:00 dev egress.vxlan dst 172.30.0.2 vni 1",
            "ip nexthop add id 1 via 203.0.113.1 dev egress.vxlan onlink",
            "ip nexthop add id 101 group 1",
            "ip route add unreachable default table 479001 metric 4294967295",
            "ip route add default nhid 101 table 479001",
            "ip rule add pref 799 not fwmark 0x0/0x7f unreachable",
            "ip rule add pref 721 fwmark 0x0/0x7f nop",
            "ip rule add pref 720 fwmark 0x1/0x7f lookup 479001",
            "ip rule add pref 719 fwmark 0x0/0x7f goto 721",
        ]
    );
    assert_eq!(
        printed(&node, &empty),
        [
            "ip rule del pref 719 fwmark 0x0/0x7f goto 721",
            "ip rule del pref 720 fwmark 0x1/0x7f lookup 479001",
            "ip rule del pref 721 fwmark 0x0/0x7f nop",
            "ip rule del pref 799 not fwmark 0x0/0x7f unreachable",
            "ip route del default nhid 101 table 479001",
            "ip route del unreachable default table 479001 metric 4294967295",
            "ip nexthop del id 101",
            "ip nexthop del id 1",
            "ip link del egress.vxlan",
        ]
    );
}

#[test]
fn what_the_kernel_drops_with_a_device_is_made_again_and_not_deleted() {
    let mut wrong = small();
    wrong.links.insert("egress.vxlan".into(), link("egress.vxlan", 1));
    let printed = printed(&wrong, &small());
    let deletions: Vec<_> = printed.iter().filter(|line| line.contains(" del ")).collect();
    assert_eq!(deletions, ["ip link del egress.vxlan"]);
    assert_eq!(printed.iter().filter(|line| line.contains("nexthop add")).count(), 2);
    assert!(printed.contains(&"ip route replace default nhid 101 table 479001".to_owned()));
}

#[test]
fn a_rule_that_the_kernel_could_take_for_another_is_deleted_past_it() {
    let rule = |matches| Rule { family: Family::V4, priority: 720, matches, action: Action::Lookup(1) };
    let stays = rule(Match::Mark { value: 5, mask: 0x7f });
    let goes = rule(Match::NotMark { value: 0, mask: 0x7f });
    let with = |rules: &[&Rule]| State {
        rules: rules.iter().map(|rule| (*rule).clone()).collect(),
        ..State::default()
    };
    assert_eq!(
        printed(&with(&[&stays, &goes]), &with(&[&stays])),
        [
            "ip rule add pref 720 fwmark 0x5/0x7f lookup 1",
            "ip rule del pref 720 not fwmark 0x0/0x7f lookup 1",
            "ip rule del pref 720 not fwmark 0x0/0x7f lookup 1",
        ]
    );
}

#[test]
fn a_jump_comes_after_where_it_leads_and_goes_before_it() {
    let with = |rules: &[Rule]| State { rules: rules.iter().cloned().collect(), ..State::default() };
    assert_eq!(
        printed(&with(&jump(721)), &with(&jump(722))),
        [
            "ip rule add pref 722 fwmark 0x0/0x7f nop",
            "ip rule add pref 719 fwmark 0x0/0x7f goto 722",
            // The kernel does not look at where it leads, and would take the new one for the old.
            "ip rule add pref 719 fwmark 0x0/0x7f goto 722",
            "ip rule del pref 719 fwmark 0x0/0x7f goto 721",
            "ip rule del pref 719 fwmark 0x0/0x7f goto 721",
            "ip rule del pref 721 fwmark 0x0/0x7f nop",
        ]
    );
}

#[test]
fn a_device_keeps_its_neighbours_when_only_its_mtu_changes() {
    let (have, mut want) = (small(), small());
    want.links.get_mut("egress.vxlan").unwrap().mtu = 1400;
    assert_eq!(printed(&have, &want), ["ip link set egress.vxlan mtu 1400 up"]);
    want.links.get_mut("egress.vxlan").unwrap().mac = Mac([2; 6]);
    let lines = printed(&have, &want);
    assert_eq!(lines.len(), 2, "a new MAC makes the kernel forget the neighbours: {lines:#?}");
}

#[test]
fn words_that_mean_the_same_to_the_kernel_are_no_difference() {
    let ip: IpAddr = "2001:db8::1".parse().unwrap();
    let to = Cidr::host(ip);
    let say = |link_scope, metric, value: &str| State {
        addresses: [Address { dev: "eg1".into(), ip, link_scope }].into(),
        routes: [Route { table: 5, to, metric, via: Via::Unreachable }].into(),
        sysctls: [("net/ipv4/ping_group_range".to_owned(), value.to_owned())].into(),
        ..State::default()
    };
    assert_eq!(printed(&say(false, 0, "0 5"), &say(true, 1024, "0\t5")), Vec::<String>::new());
}

#[test]
fn a_faulty_thing_is_removed_first_and_a_device_that_is_down_is_raised() {
    let want = small();
    let mut have = small();
    let removal = Removal::Nexthop(101);
    have.nexthops.remove(&101);
    have.faults.insert(Fault::Odd { what: "nexthop object 101".into(), removal });
    have.faults.insert(Fault::Down("egress.vxlan".into()));
    assert_eq!(
        printed(&have, &want),
        [
            "remove nexthop object 101",
            "ip link set egress.vxlan up",
            "ip nexthop add id 101 group 1",
            "ip route replace default nhid 101 table 479001",
        ]
    );
}
