//! Two plans that differ in their clients alone, said in kernel words: a few elements of two maps.
//!
//! In: the plan that the kernel holds, the one that it shall hold. Out: as much of both states as differs, or nothing, if more does.
//! Never: looks at a kernel. Saying a whole plan twice is half of what a client's ADD computes; most calls are these.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::addr::Family;
use crate::egress::always;
use crate::egress::lower_nft::{digit, key_type, map};
use crate::egress::numbers;
use crate::egress::plan::{Client, NodePlan};
use crate::kernel::nft::table::{Atom, Map, Table, Value, ValueType};
use crate::kernel::state::{NftFamily, State};

/// What differs in the states of two plans; the steps between these two are the steps between those of the whole plans. `None`: more
/// than clients differs.
pub fn client_states(before: &NodePlan, next: &NodePlan) -> Option<(State, State)> {
    if !alike_but_for_clients(before, next) {
        return None;
    }
    let only = |one: &NodePlan, other: &NodePlan| -> BTreeMap<IpAddr, Client> {
        let differ = one.clients.iter().filter(|(ip, client)| {
            other.clients.get(*ip).is_none_or(|known| known.binding != client.binding)
        });
        differ.map(|(ip, client)| (*ip, client.clone())).collect()
    };
    Some((state(&only(before, next)), state(&only(next, before))))
}

/// Whether two plans are the same node with other clients. Named one by one, so that what is added to plans is thought of here.
pub fn alike_but_for_clients(before: &NodePlan, next: &NodePlan) -> bool {
    let NodePlan { here, nodes, unnamed, clients: _, bindings, gateways, sets, locals, exits, inside } =
        before;
    always::same(bindings, &next.bindings)
        && (here, nodes, unnamed, gateways, sets, locals, exits, inside)
            == (
                &next.here,
                &next.nodes,
                &next.unnamed,
                &next.gateways,
                &next.sets,
                &next.locals,
                &next.exits,
                &next.inside,
            )
}

fn state(clients: &BTreeMap<IpAddr, Client>) -> State {
    let mut table = Table::default();
    for family in Family::BOTH {
        table.maps.insert(binding_map(family), clients_of(clients, family));
    }
    let name = (NftFamily::Inet, numbers::NFT_TABLE.to_owned());
    State { tables: BTreeMap::from([(name, table)]), ..State::default() }
}

/// Name of the map from a family's client addresses to their bindings.
pub(super) fn binding_map(family: Family) -> String {
    format!("binding{}", digit(family))
}

/// That map.
pub(super) fn clients_of(clients: &BTreeMap<IpAddr, Client>, family: Family) -> Map {
    let clients = clients.iter().filter(|(ip, _)| Family::of(**ip) == family);
    let clients = clients.map(|(ip, c)| (vec![Atom::Ip(*ip)], Some(Value::Goto(c.binding.clone()))));
    map(&[key_type(family)], Some(ValueType::Verdict), clients)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::belts::Belts;
    use crate::egress::lower::node_state;
    use crate::egress::tests::worlds::World;
    use crate::kernel;

    #[test]
    fn what_differs_takes_the_steps_that_all_of_it_takes() {
        let full = |plan: &NodePlan| node_state(plan, Belts::of_this_build());
        let before = World::new().gateway(2, 0).gateway(1, 1).client(10, &[0, 1]).client(11, &[0]).plan();
        let Some((ip, client)) = before.clients.first_key_value() else { panic!("nobody is a client") };
        let (ip, client) = (*ip, client.clone());
        let other = |plan: &mut NodePlan, n: u8, binding: &str| {
            let client = Client { attachment: format!("pods/other-{n}/eth0"), binding: binding.to_owned() };
            plan.clients.insert(IpAddr::from([10, 99, 0, n]), client);
            plan.clients.insert(
                IpAddr::from([0xfd99, 0, 0, 0, 0, 0, 0, u16::from(n)]),
                Client { attachment: format!("pods/other-{n}/eth0"), binding: binding.to_owned() },
            );
        };
        let mut nexts = vec![before.clone(); 4];
        other(&mut nexts[0], 1, &client.binding);
        nexts[1].clients.remove(&ip);
        nexts[2].clients.insert(ip, Client { binding: "b_another".to_owned(), ..client.clone() });
        nexts[3].clients.remove(&ip);
        other(&mut nexts[3], 2, &client.binding);
        for next in &nexts {
            let (small, large) = client_states(&before, next).unwrap();
            let steps = kernel::steps(&small, &large, &Default::default());
            assert!(!steps.is_empty() && steps.iter().all(kernel::Step::is_elements_only), "{steps:?}");
            assert_eq!(steps, kernel::steps(&full(&before), &full(next), &Default::default()));
        }
        let mut another_owner = before.clone();
        another_owner.clients.insert(ip, Client { attachment: "pods/x/eth0".to_owned(), ..client });
        let (small, large) = client_states(&before, &another_owner).unwrap();
        assert_eq!(small, large, "the kernel does not know whose an address is");
    }

    #[test]
    fn more_than_clients_is_not_judged_here() {
        let before = World::new().gateway(2, 0).gateway(1, 1).client(10, &[0, 1]).client(11, &[0]).plan();
        let mut next = before.clone();
        next.inside.insert("192.0.2.0/24".parse().unwrap());
        assert_eq!(client_states(&before, &next), None);
    }
}
