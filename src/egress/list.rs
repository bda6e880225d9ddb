//! Where every pod's traffic goes: one row per pod address and destination prefix. What `egret list` prints.
//!
//! In: the view and the pods asked for. Out: a [`Listing`], stable JSON for machines. Never: decides anything; it shows what
//! `resolve` said, so a row is a prediction of the source address that the outside sees.
//!
//! The longest prefix of a pod's rows decides, and one row per address always stands for its family's whole internet, so that every
//! destination outside the cluster is in the table. Inside destinations (`inside`) go direct whatever the rows say; a row for a prefix
//! that is inside as a whole says so itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::addr::{Cidr, Family};
use crate::egress::explain::{self, AS_PRIMARY, Verdict};
use crate::egress::gateway_row::{GatewayRow, GatewayRows};
use crate::egress::inside::{self, Inside};
use crate::egress::model::{Candidate, Decision, Outcome, PodName, Role, Source, View};
use crate::egress::resolve::Resolver;
use crate::egress::way_out::{self, NoWay, Part};
use crate::problem::Problem;

/// What the pods asked for do with their traffic.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Listing {
    /// By pod, address, destination; a pod's addresses stand in its object's order.
    pub items: Vec<Row>,
    /// What is wrong with the objects that were met on the way.
    pub problems: Vec<Problem>,
}

/// What one address of a pod does with one destination prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The pod.
    pub pod: PodName,
    /// Its node, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What it is to us.
    pub role: Role,
    /// Its address, of the destination's family; absent where nobody said the pod's addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The rule's prefix, or its family's whole internet where no rule says that.
    pub destination: Cidr,
    /// What is done.
    pub action: Verdict,
    /// Action `gateway`: those that new flows use now. Action `held`: those that were looked at, each with its reason; of node
    /// gateways the pod's own comes first. Else none.
    pub gateways: Vec<GatewayRow>,
    /// Object, field and value that decided for this destination; absent if none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<Source>,
    /// Why, as a sentence.
    pub reason: String,
}

/// Lists pods, also those that nothing selects. Addresses are those of the view's pods ([`crate::egress::model::Pod::ips`]); who
/// knows better, as a node does of its attachments, lays them over the view first. A pod of which no address is known has rows
/// without one, for both families.
pub fn list(view: &View, pods: impl IntoIterator<Item = PodName>) -> Listing {
    let mut resolver = Resolver::of(view);
    let gateways = GatewayRows::of(view);
    let mut rows = Rows {
        view,
        gateways,
        known: HashMap::new(),
        inside: inside::sources(view),
        subnets: inside::subnets(view),
        within: HashMap::new(),
    };
    let mut items = Vec::new();
    for pod in pods {
        rows.of(&resolver.decide(&pod), &mut items);
    }
    Listing { items, problems: resolver.problems().to_vec() }
}

/// Every pod of a view, and those that exist and cannot be read.
pub fn everyone(view: &View) -> BTreeSet<PodName> {
    let unread = view.broken.iter().filter_map(|object| object.strip_prefix("Pod ")?.split_once('/'));
    let unread = unread.map(|(namespace, name)| PodName::new(namespace, name));
    view.pods.keys().cloned().chain(unread).collect()
}

/// Rows of decisions; pods that share their rules share what is said of gateways.
struct Rows<'a> {
    view: &'a View,
    gateways: GatewayRows<'a>,
    /// By the candidates' place in memory, which is kept alive beside.
    known: HashMap<(*const Vec<Candidate>, Family, bool), Shown>,
    inside: Vec<Inside>,
    /// What is inside besides, by node.
    subnets: BTreeMap<&'a str, Vec<Inside>>,
    /// Why a rule's prefix is inside as a whole, if it is.
    within: HashMap<Cidr, Option<String>>,
}

/// Candidates, and rows of those that are shown.
type Shown = (Arc<Vec<Candidate>>, Vec<GatewayRow>);

impl Rows<'_> {
    fn of(&mut self, decision: &Decision, items: &mut Vec<Row>) {
        let object = self.view.pods.get(&decision.pod);
        let addresses = object.map(|object| object.ips.as_slice()).unwrap_or_default();
        let addresses: Vec<(Family, Option<IpAddr>)> = match addresses {
            [] => Family::BOTH.map(|family| (family, None)).into(),
            some => some.iter().map(|ip| (Family::of(*ip), Some(*ip))).collect(),
        };
        let node = object.and_then(|object| object.node.clone());
        for (family, address) in addresses {
            let row = |destination, (action, reason): (Verdict, String), gateways, decided_by| Row {
                pod: decision.pod.clone(),
                node: node.clone(),
                role: decision.role,
                address,
                destination,
                action,
                gateways,
                decided_by,
                reason,
            };
            let mut parts = way_out::parts(self.view, &decision.rules);
            parts.retain(|part| part.prefix.family() == family);
            if !parts.iter().any(|part| part.prefix == family.everything()) {
                let said = (Verdict::Direct, unruled(decision.role, family, parts.is_empty()));
                let by = decision.decided_by.clone().filter(|_| decision.role == Role::HostNetwork);
                items.push(row(family.everything(), said, Vec::new(), by));
            }
            for Part { prefix: cidr, rule, outcome, no_way } in parts {
                if let Some(why) = self.within(cidr, node.as_deref()) {
                    items.push(row(cidr, (Verdict::Direct, why), Vec::new(), None));
                    continue;
                }
                let (said, gateways) = match no_way {
                    Some(NoWay { reason, candidates, .. }) => {
                        let rows = candidates.iter().map(|candidate| self.gateways.row(candidate));
                        ((Verdict::Held, reason), rows.collect())
                    }
                    None => {
                        let said = explain::verdict(rule, outcome);
                        let gateways = self.gateways(outcome, family, said.0);
                        (said, gateways)
                    }
                };
                let by = outcome.decided_by.as_deref().or(decision.decided_by.as_ref()).cloned();
                items.push(row(cidr, said, gateways, by));
            }
        }
    }

    fn within(&mut self, cidr: Cidr, node: Option<&str>) -> Option<String> {
        let why = || inside::holding(&self.inside, cidr).map(Inside::sentence);
        let of_subnets = || inside::holding(self.subnets.get(node?)?, cidr).map(Inside::sentence);
        self.within.entry(cidr).or_insert_with(why).clone().or_else(of_subnets)
    }

    fn gateways(&mut self, outcome: &Outcome, family: Family, action: Verdict) -> Vec<GatewayRow> {
        let all = match action {
            Verdict::Direct => return Vec::new(),
            Verdict::Gateway => false,
            Verdict::Held => true,
        };
        let candidates = &outcome.candidates;
        let known = self.known.entry((Arc::as_ptr(candidates), family, all)).or_insert_with(|| {
            let shown = candidates.iter().filter(|candidate| all || candidate.unusable.is_none());
            let rows = shown.map(|candidate| self.gateways.row(candidate)).collect();
            (Arc::clone(candidates), rows)
        });
        known.1.clone()
    }
}

/// Why what no rule names goes direct.
fn unruled(role: Role, family: Family, alone: bool) -> String {
    match (role, alone) {
        (Role::Client, false) => format!("no rule names the rest of {family}: it {AS_PRIMARY}"),
        _ => explain::unruled(role, family),
    }
}

#[cfg(test)]
mod tests;
