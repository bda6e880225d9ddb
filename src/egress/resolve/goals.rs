//! Where rules send: which gateways a goal means, for whom, and which of them may be used now.
//!
//! In: gateways as rules name them, and a pod's standing. Out: an action with every gateway that was looked at. Never: which rule
//! decides; that is settled before.
//!
//! A goal is asked once for all pods whose standing is the same as far as it matters to that goal.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::addr::Family;
use crate::egress::annotations::GatewayQuery;
use crate::egress::candidates::{self, Gateways, Lack};
use crate::egress::model::{Action, Candidate, NodeGateway, Pod, PodName, View};
use crate::egress::node_gateways::{self, Found};
use crate::egress::policy::{NodeGatewayWish, To};
use crate::egress::selector::Selector;
use crate::egress::sharing;

use super::standing::{Needs, Standing};
use super::tiers::Goal;

/// Every goal met so far.
#[derive(Default)]
pub(super) struct Goals {
    goals: Vec<Kind>,
    of_to: HashMap<To, u32>,
    of_query: HashMap<(GatewayQuery, Option<u32>, bool), u32>,
    found: HashMap<GatewayQuery, Arc<Everywhere>>,
    outcomes: HashMap<(u32, Family, Standing), Share>,
    wishes: HashMap<NodeGatewayWish, Arc<Found>>,
    node_gateways: BTreeMap<String, NodeGateway>,
}

type Share = (Action, Arc<Vec<Candidate>>);

enum Kind {
    Pods {
        query: GatewayQuery,
        most: Option<u32>,
        prefer_local: bool,
    },
    Nodes(Arc<Nodes>),
    /// A selector that does not parse, in a policy that nobody called unfit.
    Unreadable(String),
}

/// Node gateways of one goal.
#[derive(Default)]
struct Nodes {
    /// What each entry finds.
    found: Vec<Arc<Found>>,
    /// Those that find a node, by its address: a pod's UID chooses among these.
    order: Vec<usize>,
}

/// What a query finds wherever the client is.
struct Everywhere {
    positions: Vec<usize>,
    pools: BTreeSet<String>,
}

/// A query in words.
pub(super) fn words(query: &GatewayQuery, most: Option<u32>) -> String {
    let place = match &query.namespaces {
        None => "its own namespace".to_owned(),
        Some(namespaces) => format!("namespaces {namespaces}"),
    };
    let most = most.map(|most| format!(", at most {most},")).unwrap_or_default();
    format!("pods {} in {place}{most}", query.pods)
}

impl Goals {
    /// The number of what a policy's rule says.
    pub(super) fn of(&mut self, view: &View, to: &To) -> u32 {
        if let Some(known) = self.of_to.get(to) {
            return *known;
        }
        let number = match to {
            To::Direct => self.add(Kind::Unreadable("direct is no gateway".to_owned())),
            To::Pods(gateways) => {
                let parse = |text: &str| Selector::parse(text).map_err(|error| error.sentence());
                let namespaces = gateways.namespaces.as_deref().map(parse).transpose();
                match (parse(&gateways.pods), namespaces) {
                    (Ok(pods), Ok(namespaces)) => {
                        let most = gateways.max_next_hops.filter(|most| *most > 0);
                        self.pods(
                            GatewayQuery { pods, namespaces, max_next_hops: None },
                            most,
                            gateways.prefer_local,
                        )
                    }
                    (Err(why), _) | (_, Err(why)) => self.add(Kind::Unreadable(why)),
                }
            }
            To::Nodes(wishes) => {
                let nodes = self.nodes(view, wishes);
                self.add(Kind::Nodes(Arc::new(nodes)))
            }
        };
        self.of_to.insert(to.clone(), number);
        number
    }

    /// The number of pod gateways sought by a query.
    pub(super) fn pods(&mut self, query: GatewayQuery, most: Option<u32>, prefer_local: bool) -> u32 {
        let key = (query, most, prefer_local);
        if let Some(known) = self.of_query.get(&key) {
            return *known;
        }
        let number = self.add(Kind::Pods { query: key.0.clone(), most, prefer_local });
        self.of_query.insert(key, number);
        number
    }

    fn add(&mut self, kind: Kind) -> u32 {
        self.goals.push(kind);
        super::position(self.goals.len() - 1)
    }

    fn nodes(&mut self, view: &View, wishes: &[NodeGatewayWish]) -> Nodes {
        let mut found = Vec::with_capacity(wishes.len());
        for wish in wishes {
            let known = self.wishes.entry(wish.clone());
            found.push(Arc::clone(known.or_insert_with(|| Arc::new(node_gateways::find(view, wish)))));
        }
        let mut order: Vec<usize> = (0..wishes.len()).filter(|i| found[*i].node.is_some()).collect();
        order.sort_by_key(|i| found[*i].node.as_ref().map(|(_, ip)| *ip));
        Nodes { found, order }
    }

    /// Node gateways that outcomes spoke of.
    pub(super) fn node_gateways(&self) -> &BTreeMap<String, NodeGateway> {
        &self.node_gateways
    }

    /// What must be known of a pod whose rules have these goals.
    pub(super) fn needs<'a>(&self, goals: impl Iterator<Item = &'a Goal>) -> Needs {
        // In the order of the rules and not of the numbers, which are given in the order of meeting: a binding's name counts lists.
        let mut met = BTreeSet::new();
        let numbers = goals.filter_map(|goal| match goal {
            Goal::Gateways(number) => met.insert(*number).then_some(*number),
            _ => None,
        });
        let mut needs = Needs::default();
        for number in numbers {
            match &self.goals[number as usize] {
                Kind::Pods { most, prefer_local, .. } => {
                    needs.pods.push(number);
                    needs.bucket |= most.is_some();
                    needs.node |= prefer_local;
                }
                Kind::Nodes(nodes) if nodes.order.len() > 1 => needs.spread.push(number),
                Kind::Nodes(_) | Kind::Unreadable(_) => {}
            }
        }
        needs
    }

    /// A pod's standing, as far as these goals ask for it.
    pub(super) fn standing(
        &self,
        needs: &Needs,
        namespace: u32,
        pod: &PodName,
        object: Option<&Pod>,
    ) -> Standing {
        let chosen = |number: &u32| match &self.goals[*number as usize] {
            Kind::Nodes(nodes) => {
                let uid = object.and_then(|object| object.uid.clone()).unwrap_or_else(|| pod.to_string());
                (*number, nodes.order[sharing::by_uid(&uid, nodes.order.len())])
            }
            _ => (*number, 0),
        };
        Standing {
            namespace: (!needs.pods.is_empty()).then_some(namespace),
            bucket: needs.bucket.then(|| sharing::bucket(pod)),
            node: if needs.node { object.and_then(|object| object.node.clone()) } else { None },
            chosen: needs.spread.iter().map(chosen).collect(),
        }
    }

    /// Whether clients of this namespace find the same gateways as those of any other that the pools admit.
    pub(super) fn admit(&mut self, view: &View, gateways: &Gateways, needs: &Needs, client: &str) -> bool {
        needs.pods.iter().all(|number| self.admitted(view, gateways, *number, client))
    }

    fn admitted(&mut self, view: &View, gateways: &Gateways, number: u32, client: &str) -> bool {
        let Kind::Pods { query, .. } = &self.goals[number as usize] else { return true };
        if query.namespaces.is_none() {
            return false;
        }
        let everywhere = everywhere(&mut self.found, view, gateways, query);
        gateways.admit(view, &everywhere.pools, client)
    }

    /// What a rule with this goal comes to for pods of a standing, and every gateway that was looked at.
    pub(super) fn outcome(
        &mut self,
        view: &View,
        gateways: &Gateways,
        number: u32,
        standing: &Standing,
        client: &str,
        family: Family,
    ) -> Share {
        let standing = self.as_it_matters(view, gateways, number, standing, client);
        let key = (number, family, standing);
        if let Some(known) = self.outcomes.get(&key) {
            return known.clone();
        }
        let share = match &self.goals[number as usize] {
            Kind::Unreadable(why) => (Action::Held(why.clone()), Arc::default()),
            Kind::Nodes(nodes) => {
                let nodes = Arc::clone(nodes);
                let chosen = key.2.chosen.first().map(|(_, entry)| *entry).or(nodes.order.first().copied());
                self.node_outcome(&nodes, chosen, family)
            }
            Kind::Pods { query, most, prefer_local } => {
                let positions = match &query.namespaces {
                    None => gateways.matching(view, query, client),
                    Some(_) => everywhere(&mut self.found, view, gateways, query).positions.clone(),
                };
                let mut candidates = gateways.candidates(view, &positions, client, family);
                if *prefer_local {
                    prefer(&mut candidates, key.2.node.as_deref());
                }
                if let (Some(most), Some(bucket)) = (most, key.2.bucket) {
                    limit(&mut candidates, *most, bucket);
                }
                through(candidates, |candidates| {
                    candidates::lack(None, query, candidates, client, family).to_string()
                })
            }
        };
        self.outcomes.insert(key, share.clone());
        share
    }

    /// A standing without what this goal does not ask for.
    fn as_it_matters(
        &mut self,
        view: &View,
        gateways: &Gateways,
        number: u32,
        standing: &Standing,
        client: &str,
    ) -> Standing {
        let (pods, bucket, node) = match &self.goals[number as usize] {
            Kind::Pods { most, prefer_local, .. } => (true, most.is_some(), *prefer_local),
            _ => (false, false, false),
        };
        let everyone = !pods || self.admitted(view, gateways, number, client);
        Standing {
            namespace: standing.namespace.filter(|_| !everyone),
            bucket: standing.bucket.filter(|_| bucket),
            node: if node { standing.node.clone() } else { None },
            chosen: standing.chosen.iter().filter(|(goal, _)| *goal == number).copied().collect(),
        }
    }

    fn node_outcome(&mut self, nodes: &Nodes, chosen: Option<usize>, family: Family) -> Share {
        let Some(chosen) = chosen else {
            let why = nodes.found.iter().find_map(|found| found.gateway.as_ref().err());
            let why = why.map_or_else(|| "no egress gateway found".to_owned(), |(_, why)| why.clone());
            return (Action::Held(why), Arc::default());
        };
        let others = nodes.order.iter().copied().filter(|entry| *entry != chosen);
        let candidates: Vec<Candidate> = std::iter::once(chosen)
            .chain(others)
            .map(|entry| node_candidate(&nodes.found[entry], family, entry == chosen, nodes.order.len()))
            .collect();
        if let Ok(gateway) = &nodes.found[chosen].gateway
            && gateway.address(family).is_some()
        {
            self.node_gateways.insert(gateway.key(), gateway.clone());
        }
        through(candidates, |candidates| {
            candidates.first().and_then(|chosen| chosen.unusable.clone()).unwrap_or_default()
        })
    }

    /// What is lacking that pod gateways of this goal could be used; `None` for node gateways.
    pub(super) fn lack(
        &self,
        view: &View,
        number: u32,
        candidates: &[Candidate],
        pod: &PodName,
        family: Family,
    ) -> Option<Lack> {
        let Kind::Pods { query, .. } = &self.goals[number as usize] else { return None };
        Some(candidates::lack(Some(view), query, candidates, &pod.namespace, family))
    }
}

fn everywhere(
    known: &mut HashMap<GatewayQuery, Arc<Everywhere>>,
    view: &View,
    gateways: &Gateways,
    query: &GatewayQuery,
) -> Arc<Everywhere> {
    if let Some(known) = known.get(query) {
        return Arc::clone(known);
    }
    let positions = gateways.matching(view, query, "");
    let pools = gateways.pools_of(view, &positions).into_iter().map(ToOwned::to_owned).collect();
    let found = Arc::new(Everywhere { positions, pools });
    known.insert(query.clone(), Arc::clone(&found));
    found
}

fn through(candidates: Vec<Candidate>, why: impl FnOnce(&[Candidate]) -> String) -> Share {
    let usable = candidates.iter().filter(|candidate| candidate.unusable.is_none());
    let usable: BTreeSet<String> = usable.map(|candidate| candidate.key.clone()).collect();
    let action =
        if usable.is_empty() { Action::Held(why(&candidates)) } else { Action::Through(Arc::new(usable)) };
    (action, Arc::new(candidates))
}

/// Leaves only gateways of the pod's own node, if any there is usable.
fn prefer(candidates: &mut [Candidate], node: Option<&str>) {
    let Some(node) = node else { return };
    if !candidates.iter().any(|candidate| candidate.node == node && candidate.unusable.is_none()) {
        return;
    }
    for candidate in candidates.iter_mut().filter(|c| c.node != node && c.unusable.is_none()) {
        candidate.unusable =
            Some(format!("gateways of the pod's own node {node} are preferred, and one is usable"));
    }
}

/// Leaves as many as the rule allows.
fn limit(candidates: &mut [Candidate], most: u32, bucket: u8) {
    let usable: Vec<usize> = (0..candidates.len()).filter(|i| candidates[*i].unusable.is_none()).collect();
    let most = most as usize;
    if usable.len() <= most {
        return;
    }
    let names: Vec<String> = usable.iter().map(|i| candidates[*i].gateway()).collect();
    let kept = sharing::rendezvous(bucket, &names, most);
    for (n, i) in usable.into_iter().enumerate() {
        if !kept.contains(&n) {
            candidates[i].unusable =
                Some(format!("maxNextHops is {most}, and this pod's share of the gateways is elsewhere"));
        }
    }
}

fn node_candidate(found: &Found, family: Family, chosen: bool, of: usize) -> Candidate {
    let node = found.node.as_ref().map(|(node, _)| node.clone()).unwrap_or_default();
    let (key, address, lacks) = match &found.gateway {
        Ok(gateway) => {
            let address = gateway.address(family);
            let lacks = address.is_none().then(|| Found::no_address(gateway, family));
            (gateway.key(), address, lacks)
        }
        Err((_, why)) => (format!("node/{node}"), None, Some(why.clone())),
    };
    let elsewhere = || format!("the pod's UID chooses another of the {of} gateways");
    let unusable = if chosen { lacks } else { Some(lacks.unwrap_or_else(elsewhere)) };
    Candidate { pod: None, key, node, address, unusable }
}
