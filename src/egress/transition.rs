//! From one plan to the next: what must happen to running flows, and in which order, so that nothing leaks on the way.
//!
//! In: the last applied plan and the new one. Out: a [`Transition`]. Never: touches a kernel.
//!
//! A NAT binding is frozen in a flow's conntrack entry. So a pod that becomes a client, or stops being one, is held first, then
//! exactly its outside-bound entries are deleted, then it is bound or let go; done in one step instead, 42,020 packets were
//! measured to leave with the pod's own address. A pod that moves between gateways keeps its entries: those on a gateway that it
//! may no longer use get the dead pin, and everything else lives on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::addr::{Cidr, Family};
use crate::egress::always::{self, HELD_KEY, LET_GO_KEY};
use crate::egress::leased::LEASED;
use crate::egress::numbering::Numbering;
use crate::egress::numbers::{self, PIN_MASK, PIN_SHIFT};
use crate::egress::plan::{
    Binding, Client, Exit, Gateway, LocalPod, NodePlan, Place, Verdict, binding_chain,
};
use crate::egress::prefixes::{Change, Changes, changes};
use crate::kernel::nft::table::{Atom, Value};
use crate::kernel::state::{NftFamily, State};

/// What happens to running flows when a plan replaces another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transition {
    /// Addresses whose outside-bound entries are deleted while they are held.
    pub rebound: BTreeSet<IpAddr>,
    /// Flows that get the dead pin once the new plan stands: (client, pin).
    pub moved: BTreeSet<(IpAddr, u32)>,
    /// Gateway numbers that begin: entries that still carry them belong to an earlier bearer and get the dead pin first.
    pub begun: BTreeSet<u32>,
    /// Indexes of this node's own gateways that begin: what carries them is an earlier bearer's and is deleted first.
    pub exits_begun: BTreeSet<u16>,
    /// Indexes that end: once the new plan stands, their entries are deleted. Each holds the NAT binding of an address that it may
    /// not use any more, and only without it can the flow get another.
    pub exits_ended: BTreeSet<u16>,
    /// Clients to some of whose destinations other gateways lead, or none: once the new plan stands, [`fate`] says of each of their
    /// flows what becomes of it.
    pub rebuilt: BTreeSet<IpAddr>,
    /// Clients to some of whose destinations gateways led, or nothing, and that go there direct now: those prefixes are held while
    /// their entries are deleted. What else the pod sends goes on meanwhile.
    pub released: BTreeMap<IpAddr, Changes>,
}

/// What becomes of a flow under a new plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It may go on.
    Lives,
    /// It is told at its next packet.
    Told,
    /// It is forgotten, and its next packet opens it anew.
    Forgotten,
}

/// What must happen between two plans.
pub fn transition(before: &NodePlan, after: &NodePlan) -> Transition {
    let addresses: BTreeSet<&IpAddr> = before.clients.keys().chain(after.clients.keys()).collect();
    let mut transition = Transition {
        begun: after.gateways.keys().filter(|n| !before.gateways.contains_key(n)).copied().collect(),
        exits_begun: exits_without(after, before),
        exits_ended: exits_without(before, after),
        ..Transition::default()
    };
    let (mut used_before, mut used_after, mut compared) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for ip in addresses {
        match (bound(before, *ip), bound(after, *ip)) {
            (Some(old_client), Some(new_client)) if old_client.attachment == new_client.attachment => {
                let family = Family::of(*ip);
                let old = gateways_of(before, old_client, family, &mut used_before).clone();
                let new = gateways_of(after, new_client, family, &mut used_after).clone();
                let left = old.difference(&new).filter(|number| still_serves(before, after, **number));
                let known = |number: &u32| {
                    let place = before.gateways.get(number).map(|gateway| before.pin(*number, gateway));
                    place.unwrap_or(*number)
                };
                transition.moved.extend(left.map(|number| (*ip, known(number))));
                let (was, is) = (&old_client.binding, &new_client.binding);
                let key = (was.clone(), is.clone(), family);
                let changes = compared.entry(key).or_insert_with(|| changes(before, was, after, is, family));
                let any = |what: Change| changes.values().any(|change| *change == what);
                if any(Change::Judged)
                    || at_home(before, &old_client.binding, family)
                        != at_home(after, &new_client.binding, family)
                {
                    transition.rebuilt.insert(*ip);
                }
                if any(Change::Released) {
                    transition.released.insert(*ip, changes.clone());
                }
            }
            (None, None) => {}
            _ => drop(transition.rebound.insert(*ip)),
        }
    }
    // What an address leaves with changes where it becomes or ceases to be a gateway's: an earlier pod's entry would say otherwise.
    let own = |plan: &NodePlan| -> BTreeSet<IpAddr> {
        let own = plan.locals.values().filter_map(|gateway| gateway.own.as_ref());
        own.flat_map(|own| own.addresses.iter().copied()).collect()
    };
    transition.rebound.extend(own(before).symmetric_difference(&own(after)));
    transition
}

/// The plan to apply while entries are deleted: the old one, with every rebound address held. Not the new one: its gateways may
/// not be wired yet, and what is held needs no gateway. Of a released client only what goes direct anew is held. Inside destinations
/// of either plan stay reachable meanwhile.
pub fn holding(
    before: &NodePlan,
    after: &NodePlan,
    rebound: &BTreeSet<IpAddr>,
    released: &BTreeMap<IpAddr, Changes>,
) -> NodePlan {
    // A gateway of this node that goes may have lost its devices already.
    let gone = before.locals.keys().filter(|attachment| !after.locals.contains_key(*attachment));
    let mut plan = gone.fold(before.clone(), |plan, attachment| plan.without(attachment));
    plan.inside.extend(&after.inside);
    plan.nodes.clone_from(&after.nodes);
    // Of exits that were only read back from the kernel nothing is known that could be made.
    plan.exits.retain(|_, exit| !exit.interface.is_empty());
    // Routes of an interface that is gone cannot be made.
    plan.here.doors.clone_from(&after.here.doors);
    // Nor can what was read back lead into rules that nobody knows.
    let lost = plan.clients.iter().filter(|(_, client)| !plan.bindings.contains_key(&client.binding));
    let held: BTreeSet<IpAddr> = lost.map(|(ip, _)| *ip).chain(rebound.iter().copied()).collect();
    hold(
        &mut plan,
        held.iter().map(|ip| {
            let owner = after.clients.get(ip).or_else(|| before.clients.get(ip));
            (*ip, owner.map(|client| client.attachment.clone()).unwrap_or_default())
        }),
    );
    for (ip, changes) in released {
        hold_prefixes(&mut plan, *ip, changes);
    }
    plan
}

/// The plan to apply as soon as the entries are deleted, before the rest is brought to the new one: who is held goes on, where all that
/// it needs stands. That is one element, and the rest may be tens of milliseconds. `None`: nobody can.
pub fn going_on(held: &NodePlan, after: &NodePlan) -> Option<NodePlan> {
    let (holding, _) = always::held();
    let (let_go, free) = always::let_go();
    let ways = |plan: &NodePlan| {
        (plan.here.clone(), plan.nodes.clone(), plan.gateways.clone(), plan.sets.clone(), plan.locals.clone())
    };
    let same_ways = held.exits == after.exits && ways(held) == ways(after);
    let stands = |binding: &String| {
        let known = held.bindings.get(binding);
        *binding == let_go || (same_ways && known.is_some() && known == after.bindings.get(binding))
    };
    let mut plan = held.clone();
    let mut any = false;
    for (ip, client) in plan.clients.iter_mut().filter(|(_, client)| client.binding == holding) {
        if let Some(next) = after.clients.get(ip).filter(|next| stands(&next.binding)) {
            *client = next.clone();
            any = true;
        }
    }
    plan.bindings.insert(let_go, free);
    any.then_some(plan)
}

/// Gives a client a binding of its own: its rules, and what is released held.
fn hold_prefixes(plan: &mut NodePlan, ip: IpAddr, changes: &Changes) {
    let Some(client) = plan.clients.get(&ip) else { return };
    let known = plan.bindings.get(&client.binding);
    let mut rules = known.map(|binding| binding.rules.clone()).unwrap_or_default();
    let prefixes = changes.iter().filter(|(_, change)| **change == Change::Released);
    let held: Vec<Cidr> = prefixes.map(|(prefix, _)| *prefix).collect();
    rules.extend(held.iter().map(|prefix| (*prefix, Verdict::Held)));
    let names: Vec<String> = held.iter().map(Cidr::to_string).collect();
    let key = format!("{HELD_KEY}: {} of {}", names.join(", "), client.binding);
    let chain = binding_chain(&key);
    let attachment = client.attachment.clone();
    plan.bindings.insert(chain.clone(), Binding { key, rules });
    plan.clients.insert(ip, Client { attachment, binding: chain });
}

/// Clients of the last plan that run on and are none any more keep an element, of a binding that sends everything direct. A FIN or
/// RST of a connection whose entry is gone is INVALID, no masquerade hides that, and it would leave with the pod's own address: every
/// binding's chain drops it. No other pod's packet pays for it, because all look into that map anyway.
pub fn let_go(before: &NodePlan, after: &mut NodePlan, lives: impl Fn(&str) -> bool) {
    let (chain, binding) = always::let_go();
    let free =
        |(ip, client): &(&IpAddr, &Client)| !after.clients.contains_key(*ip) && lives(&client.attachment);
    let free: Vec<_> =
        before.clients.iter().filter(free).map(|(ip, c)| (*ip, c.attachment.clone())).collect();
    if free.is_empty() {
        return;
    }
    for (ip, attachment) in free {
        after.clients.insert(ip, Client { attachment, binding: chain.clone() });
    }
    after.bindings.insert(chain, binding);
}

/// The client at an address, unless it was let go.
pub fn bound(plan: &NodePlan, ip: IpAddr) -> Option<&Client> {
    plan.clients.get(&ip).filter(|client| client.binding != binding_chain(LET_GO_KEY))
}

/// Whether an attachment is a client: one that was let go is none any more.
pub fn binds(plan: &NodePlan, attachment: &str) -> bool {
    let mut own = plan.clients.iter().filter(|(_, client)| client.attachment == attachment);
    own.any(|(ip, _)| bound(plan, *ip).is_some())
}

/// Clients of the last plan of whom nobody can say any more what they would be keep their binding, or are held where nobody else has it:
/// nobody knows that they are gone, and unbound they would leave with their own address. Those that were let go stay so. An address
/// that another pod was wired with since is that one's: the primary plugin gives none away while its pod lives.
pub fn keep_unread(
    before: &NodePlan,
    after: &mut NodePlan,
    locals: &[LocalPod],
    unread: impl Fn(&str) -> bool,
) {
    let is_anothers = |ip: &IpAddr, client: &Client| {
        let last = locals.iter().rev().find(|pod| pod.addresses.contains(ip));
        last.is_some_and(|pod| pod.attachment != client.attachment)
    };
    let lost = |(ip, client): &(&IpAddr, &Client)| {
        bound(before, **ip).is_some()
            && bound(after, **ip).is_none()
            && unread(&client.attachment)
            && !is_anothers(ip, client)
    };
    let lost: Vec<_> = before.clients.iter().filter(lost).map(|(ip, client)| (*ip, client.clone())).collect();
    let (known, unknown): (Vec<_>, Vec<_>) =
        lost.into_iter().partition(|(_, client)| after.bindings.contains_key(&client.binding));
    after.clients.extend(known);
    if !unknown.is_empty() {
        hold(after, unknown.into_iter().map(|(ip, client)| (ip, client.attachment)));
    }
}

/// Addresses of gateways here whose pool nobody knows any more, or that are to be hidden behind an address that the node has no longer:
/// they go on leaving as they did. Their clients are held, each by its own node when it hears of it, and until then what they
/// send must not show another address.
pub fn keep_hidden(before: &NodePlan, after: &mut NodePlan, unknown: impl Fn(&str, IpAddr) -> bool) {
    for (attachment, gateway) in &mut after.locals {
        let Some(old) = before.locals.get(attachment) else { continue };
        for ip in gateway.addresses.clone() {
            let lost = gateway.is_own(ip) && gateway.hidden.get(&ip) == Some(&None);
            if !lost && !unknown(attachment, ip) {
                continue;
            }
            match old.hidden.get(&ip) {
                Some(seen) => {
                    gateway.hidden.insert(ip, *seen);
                    gateway.announced.retain(|(_, announced)| *announced != ip);
                }
                None => drop(gateway.hidden.remove(&ip)),
            }
        }
    }
}

/// Attachment of clients that the kernel holds and nobody remembers.
pub const UNKNOWN: &str = "unknown";

/// The last plan, as far as the kernel tells it when the node's own memory is lost: clients with the binding they have, and
/// gateways that still have the number they had. So what the next plan finds in place is left in peace, flows and all, also while
/// others are held: bindings, sets and gateways of this node are the next plan's, as far as the kernel has what they need.
///
/// A pod that has a record and is no client any more is not unknown: it is let go like any other.
pub fn believed(observed: &State, numbers: &Numbering, next: &NodePlan, locals: &[LocalPod]) -> NodePlan {
    let unwired = next.locals.iter().filter(|(_, gateway)| !observed.links.contains_key(&gateway.veth));
    let mut plan = unwired.fold(next.clone(), |plan, (attachment, _)| plan.without(attachment));
    plan.clients.clear();
    let table = observed.tables.get(&(NftFamily::Inet, numbers::NFT_TABLE.to_owned()));
    let maps = ["binding4", "binding6"].into_iter().filter_map(|name| table?.maps.get(name));
    for (key, value) in maps.flat_map(|map| &map.elements) {
        if let ([Atom::Ip(ip)], Some(Value::Goto(chain))) = (key.as_slice(), value)
            && *chain != binding_chain(LET_GO_KEY)
            && chain != LEASED
        {
            let attachment = match next.clients.get(ip) {
                Some(client) => (client.binding == *chain).then_some(&client.attachment),
                None => locals.iter().find(|pod| pod.addresses.contains(ip)).map(|pod| &pod.attachment),
            };
            let attachment = attachment.map_or(UNKNOWN, String::as_str).to_owned();
            plan.clients.insert(*ip, Client { attachment, binding: chain.clone() });
        }
    }
    let still = |number: &u32, gateway: &mut Gateway| {
        gateway.next_hops().all(|ip| numbers.gateways.get(&ip) == Some(number))
    };
    plan.gateways.retain(still);
    let known: BTreeSet<u32> = plan.gateways.keys().copied().collect();
    plan.sets.values_mut().for_each(|members| members.retain(|number| known.contains(number)));
    plan.hold_what_has_no_gateway();
    // Of one that the next plan does not know, nothing but its index is known, and that suffices: it ends.
    let exits = numbers.exits.iter().map(|(mac, index)| {
        let known = next.exits.get(index).filter(|exit| exit.mac == *mac).cloned();
        let unknown = || Exit {
            key: String::new(),
            mac: *mac,
            interface: String::new(),
            addresses: Vec::new(),
            slot: 0,
        };
        (*index, known.unwrap_or_else(unknown))
    });
    plan.exits = exits.collect();
    plan
}

/// Indexes of one plan's exits that the other has not, or has for another gateway.
fn exits_without(plan: &NodePlan, other: &NodePlan) -> BTreeSet<u16> {
    let same = |index: &u16, exit: &Exit| other.exits.get(index).is_some_and(|o| o.mac == exit.mac);
    plan.exits.iter().filter(|(index, exit)| !same(index, exit)).map(|(index, _)| *index).collect()
}

/// The rules of a binding by which the client's own node is the gateway, with the MAC of each.
fn at_home(plan: &NodePlan, binding: &str, family: Family) -> BTreeMap<Cidr, BTreeSet<crate::addr::Mac>> {
    let rules = plan.bindings.get(binding).map(|binding| &binding.rules);
    let exits = |verdict: &Verdict| -> BTreeSet<crate::addr::Mac> {
        let members = match verdict {
            Verdict::Set(mark) => plan.sets.get(mark),
            Verdict::Direct | Verdict::Held => None,
        };
        let members = members.into_iter().flatten().filter_map(|number| plan.gateways.get(number));
        members.filter(|g| matches!(g.place, Place::Exit { .. })).map(|g| g.mac).collect()
    };
    let own = rules.into_iter().flatten().filter(|(prefix, _)| prefix.family() == family);
    own.map(|(prefix, verdict)| (*prefix, exits(verdict))).filter(|(_, exits)| !exits.is_empty()).collect()
}

/// What becomes of a flow of a rebuilt client: of the rule that its destination now has, it must carry the pin. `mark` is the whole
/// connection mark, `bare` whether nobody translates the flow, `told` whether its end can be told (established TCP).
pub fn fate(plan: &NodePlan, client: IpAddr, to: Option<IpAddr>, mark: u32, bare: bool, told: bool) -> Fate {
    let Some((to, binding)) = to.zip(plan.clients.get(&client)) else { return Fate::Lives };
    let rules = plan.bindings.get(&binding.binding).map(|binding| &binding.rules);
    let holds = |(prefix, _): &(&Cidr, &Verdict)| prefix.contains(to);
    let rule = rules.into_iter().flatten().filter(holds).max_by_key(|(prefix, _)| prefix.prefix());
    let pin = (mark & PIN_MASK) >> PIN_SHIFT;
    let carries = |number: &u32| plan.gateways.get(number).is_some_and(|g| plan.pin(*number, g) == pin);
    let drains = plan.gateways.get(&pin).is_some_and(|gateway| !gateway.takes_new_flows);
    let lives = match rule.map(|(_, verdict)| verdict) {
        _ if plan.inside.iter().any(|net| net.contains(to)) || drains => true,
        None | Some(Verdict::Direct) => pin == 0,
        Some(Verdict::Held) => false,
        Some(Verdict::Set(set)) => plan.sets.get(set).is_some_and(|members| members.iter().any(carries)),
    };
    // Where this node translates, a flow that nobody translates can only begin anew.
    let here = |set: &u8| {
        let numbers = plan.sets.get(set).into_iter().flatten();
        let mut members = numbers.filter_map(|number| plan.gateways.get(number));
        members.any(|gateway| matches!(gateway.place, Place::Exit { .. }))
    };
    let anew = match rule.map(|(_, verdict)| verdict) {
        None | Some(Verdict::Direct) => true,
        Some(Verdict::Held) => false,
        Some(Verdict::Set(set)) => here(set),
    };
    match lives {
        true => Fate::Lives,
        // Without its entry the far end's next packet would open the flow the wrong way round.
        false if told || bare && (pin == 0 || !anew) => Fate::Told,
        false => Fate::Forgotten,
    }
}

fn hold(plan: &mut NodePlan, addresses: impl Iterator<Item = (IpAddr, String)>) {
    let (chain, binding) = always::held();
    for (ip, attachment) in addresses {
        plan.clients.insert(ip, Client { attachment, binding: chain.clone() });
    }
    plan.bindings.insert(chain, binding);
}

fn gateways_of<'a>(
    plan: &NodePlan,
    client: &Client,
    family: Family,
    known: &'a mut BTreeMap<(String, Family), BTreeSet<u32>>,
) -> &'a BTreeSet<u32> {
    known.entry((client.binding.clone(), family)).or_insert_with(|| {
        let rules = plan.bindings.get(&client.binding).map(|binding| &binding.rules);
        let verdicts = rules.into_iter().flatten().filter(|(prefix, _)| prefix.family() == family);
        let sets = verdicts.filter_map(|(_, verdict)| match verdict {
            Verdict::Set(mark) => plan.sets.get(mark),
            Verdict::Direct | Verdict::Held => None,
        });
        sets.flatten().copied().collect()
    })
}

/// Flows leave a gateway by force only when it still serves others. One that drains keeps its flows; one that is gone is in no
/// map, so its flows are told at their next packet.
fn still_serves(before: &NodePlan, after: &NodePlan, number: u32) -> bool {
    let known = after.gateways.get(&number).or_else(|| before.gateways.get(&number));
    known.is_some_and(|gateway| gateway.takes_new_flows)
}
