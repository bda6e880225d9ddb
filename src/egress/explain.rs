//! What one pod's traffic does and why: the answer to "why does this packet leave like that".
//!
//! In: the view, a pod, perhaps a destination. Out: an [`Explanation`], stable JSON for machines and, printed, text for
//! people. Never: decides anything; it shows what `resolve` and `inside` said, and adds what would have to change.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::addr::{Cidr, Family};
use crate::egress::annotations::{self, ClientAnnotations};
use crate::egress::candidates::outside_address;
use crate::egress::gateway_row::GatewayRows;
use crate::egress::inside::{self, Inside};
use crate::egress::model::{
    Action, Decision, EgressAddress, EgressSupport, Endpoint, Outcome, PodName, PoolSource, Resolution, Role,
    Source, View,
};
use crate::egress::resolve::{lack, resolve};
use crate::egress::way_out::{self, NoWay, Part};
use crate::problem::Problem;
use unknown::unknown_pod;

mod text;
mod unknown;

pub use crate::egress::gateway_row::GatewayRow;
pub use text::Shown;
pub use unknown::{UNKNOWN_NAMESPACE, UNKNOWN_POD};

/// Why one pod's traffic goes where it goes. Its `Display` is the text for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// `egret.dev/v1alpha1`
    pub api_version: String,
    /// `Explanation`
    pub kind: String,
    /// One per destination: the one asked for, or one per rule.
    pub items: Vec<Item>,
    /// What is true of the pod whatever the destination, as sentences.
    pub notes: Vec<String>,
    /// What is wrong with the objects that matter here.
    pub problems: Vec<Problem>,
}

/// What one pod does with one destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// The pod.
    pub pod: PodName,
    /// Its node, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What it is to us.
    pub role: Role,
    /// Which object and annotation decided; absent if nothing selects the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<Source>,
    /// The policy whose rule this is, with the rule and its prefix; absent where annotations alone say where to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Source>,
    /// The address asked for, or a prefix.
    pub destination: String,
    /// The rule's prefix that holds it; absent if none does, or none is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Cidr>,
    /// Why the destination is inside, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inside: Option<Inside>,
    /// What is done.
    pub action: Verdict,
    /// Why, as a sentence.
    pub reason: String,
    /// Source addresses that the outside may see on a new flow; empty unless the action is `gateway`.
    pub sources: Vec<IpAddr>,
    /// Gateways that the rule looked at.
    pub gateways: Vec<GatewayRow>,
    /// What would have to change for the pod to leave through a gateway, as sentences. Empty if it does.
    pub change: Vec<String>,
}

/// What is done with packets for a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Leaves through one of the usable gateways.
    Gateway,
    /// Leaves as if we were not there.
    Direct,
    /// Refused.
    Held,
}

/// What becomes of traffic that we leave alone.
pub(super) const AS_PRIMARY: &str = "leaves as the primary network does (usually with the node's address)";

/// Explains one pod, to one destination or to all. A pod without an object is explained as one without labels and
/// annotations of its own, and a problem says so.
pub fn explain(view: &View, pod: &PodName, destination: Option<IpAddr>) -> Explanation {
    let Resolution { mut decisions, mut problems, .. } = resolve(view, [pod.clone()]);
    problems.extend(unknown_pod(view, pod));
    let items = match decisions.remove(pod) {
        None => Vec::new(),
        Some(decision) => {
            let asking = Asking { view, decision: &decision, problems: &problems };
            match destination {
                Some(ip) => vec![asking.address(ip)],
                None => asking.everything(),
            }
        }
    };
    Explanation {
        api_version: "egret.dev/v1alpha1".to_owned(),
        kind: "Explanation".to_owned(),
        items,
        notes: notes(view, pod),
        problems,
    }
}

impl Explanation {
    /// That nothing selects a pod is known only as far as the files are: these are not, or not to their end.
    pub fn doubt(&mut self, unread: &[String]) {
        if let Some(doubt) = doubt(unread) {
            let unselected = self.items.iter_mut().filter(|item| item.role == Role::Unselected);
            unselected.for_each(|item| item.reason += &format!("; {doubt}"));
        }
    }
}

/// Why nobody can be sure that nothing selects a pod, as a half of a sentence; `None`: there is no such file.
pub fn doubt(unread: &[String]) -> Option<String> {
    const SHOWN: usize = 3;
    let names = unread.get(..SHOWN.min(unread.len()))?.join(", ");
    let more = unread.len().saturating_sub(SHOWN);
    match (unread.len(), more) {
        (0, _) => None,
        (1, _) => {
            Some(format!("that is not certain, because {names} is not read to its end and may say otherwise"))
        }
        (_, 0) => Some(format!(
            "that is not certain, because {names} are not read to their end and may say otherwise"
        )),
        _ => Some(format!(
            "that is not certain, because {names} and {more} more files are not read to their end and may say otherwise"
        )),
    }
}

fn notes(view: &View, pod: &PodName) -> Vec<String> {
    let mut notes = Vec::new();
    let own = view.pods.get(pod).and_then(|object| ClientAnnotations::on(&object.annotations));
    let namespaces =
        view.namespaces.get(&pod.namespace).and_then(|object| ClientAnnotations::on(&object.annotations));
    match (view.support, own.and_then(|own| own.first()), namespaces) {
        (EgressSupport::EnabledPerNamespace, Some(found), _) => notes.push(format!(
            "the pod's `{}` is not read, because egressIPSupport is EnabledPerNamespace",
            found.name
        )),
        (EgressSupport::EnabledPerNamespaceOrPerPod, Some(_), Some(_)) => notes
            .push(format!("the pod's annotations replace those of Namespace {} as a whole", pod.namespace)),
        _ => {}
    }
    let held = view.endpoints.iter().filter(|endpoint| endpoint.pod == *pod);
    notes.extend(held.map(|endpoint| {
        let addresses: Vec<String> =
            endpoint.addresses.iter().map(|a| left_with(view, endpoint, a)).collect();
        format!("its clients leave with {}", addresses.join(" and "))
    }));
    notes
}

fn left_with(view: &View, endpoint: &Endpoint, lease: &EgressAddress) -> String {
    let EgressAddress { ip, pool, source } = lease;
    let pool = match source {
        PoolSource::Pool => pool.clone(),
        PoolSource::PodAddress => format!("{pool}, the pod's own address"),
    };
    match outside_address(view, endpoint, Family::of(*ip)) {
        Some(seen) if seen == *ip => format!("{ip} ({pool})"),
        Some(seen) => format!("{seen}, its node's address, for {ip} ({pool}, natOutgoing)"),
        None => format!("nothing for {ip} ({pool}, natOutgoing), because its node has no such address"),
    }
}

/// What is done with packets that a rule concerns, and why, in words that need no other object.
pub(super) fn verdict(rule: Cidr, outcome: &Outcome) -> (Verdict, String) {
    let total = outcome.candidates.len();
    match &outcome.action {
        Action::Direct => (Verdict::Direct, format!("the rule for {rule} has no gateway: it {AS_PRIMARY}")),
        Action::Held(why) => (Verdict::Held, why.clone()),
        Action::Through(usable) => {
            let reason = match (usable.len(), total) {
                (1, 1) => "the one gateway that matches is usable".to_owned(),
                (1, total) => format!("1 of the {total} gateways that match is usable"),
                (n, total) if n == total => format!("all {n} gateways that match are usable"),
                (n, total) => format!("{n} of the {total} gateways that match are usable"),
            };
            (Verdict::Gateway, reason)
        }
    }
}

/// Why a destination that no rule concerns goes direct.
pub(super) fn unruled(role: Role, family: Family) -> String {
    match role {
        Role::Unselected => format!("nothing selects the pod: it {AS_PRIMARY}"),
        Role::Gateway => format!("it is a gateway, and gateways are never redirected: it {AS_PRIMARY}"),
        Role::HostNetwork => {
            "it shares its node's network and leaves as the node does, with the node's address".to_owned()
        }
        Role::Client => format!("no rule is for {family}: it {AS_PRIMARY}"),
    }
}

struct Asking<'a> {
    view: &'a View,
    decision: &'a Decision,
    problems: &'a [Problem],
}

impl Asking<'_> {
    fn everything(&self) -> Vec<Item> {
        if self.decision.rules.is_empty() {
            return Family::BOTH.map(|family| self.unruled(family.everything().to_string(), family)).into();
        }
        let sources = inside::sources_for(self.view, &self.decision.pod);
        let item = |part: Part<'_>| match inside::holding(&sources, part.prefix) {
            Some(inside) => self.within(part.prefix.to_string(), inside.clone()),
            None => self.ruled(part.prefix.to_string(), (part.rule, part.outcome), part.no_way),
        };
        way_out::parts(self.view, &self.decision.rules).into_iter().map(item).collect()
    }

    /// A destination that goes direct whatever the rules say.
    fn within(&self, destination: String, inside: Inside) -> Item {
        Item { inside: Some(inside.clone()), ..self.item(destination, Verdict::Direct, inside.sentence()) }
    }

    fn address(&self, ip: IpAddr) -> Item {
        let because = || inside::because(inside::sources_for(self.view, &self.decision.pod), ip);
        if let (Role::Client, Some(inside)) = (self.decision.role, because()) {
            return self.within(ip.to_string(), inside);
        }
        let rules = self.decision.rules.iter().filter(|(rule, _)| rule.contains(ip));
        match rules.max_by_key(|(rule, _)| rule.prefix()) {
            Some((rule, outcome)) => {
                let no_way = way_out::no_way(self.view, outcome, Cidr::host(ip));
                self.ruled(ip.to_string(), (*rule, outcome), no_way)
            }
            None => self.unruled(ip.to_string(), Family::of(ip)),
        }
    }

    fn item(&self, destination: String, action: Verdict, reason: String) -> Item {
        let pod = self.decision.pod.clone();
        Item {
            node: self.view.pods.get(&pod).and_then(|object| object.node.clone()),
            pod,
            role: self.decision.role,
            decided_by: self.decision.decided_by.clone(),
            policy: None,
            destination,
            rule: None,
            inside: None,
            action,
            reason,
            sources: Vec::new(),
            gateways: Vec::new(),
            change: Vec::new(),
        }
    }

    /// A destination that no rule concerns.
    fn unruled(&self, destination: String, family: Family) -> Item {
        let change = match self.decision.role {
            Role::Unselected => self.how_to_select(),
            Role::HostNetwork => vec![
                "remove spec.hostNetwork: only pods with a network of their own can be redirected".to_owned(),
            ],
            Role::Gateway | Role::Client => Vec::new(),
        };
        let reason = unruled(self.decision.role, family);
        Item { change, ..self.item(destination, Verdict::Direct, reason) }
    }

    fn how_to_select(&self) -> Vec<String> {
        let PodName { namespace, .. } = &self.decision.pod;
        let pod = &self.decision.pod;
        let selector = annotations::SELECTOR.name();
        let own = self
            .view
            .pods
            .get(pod)
            .is_some_and(|object| ClientAnnotations::on(&object.annotations).is_some());
        match self.view.support {
            EgressSupport::EnabledPerNamespaceOrPerPod => {
                vec![format!("annotate Pod {pod} or Namespace {namespace} with `{selector}`")]
            }
            EgressSupport::EnabledPerNamespace if own => vec![format!(
                "move the pod's annotations to Namespace {namespace}, or set egressIPSupport to EnabledPerNamespaceOrPerPod"
            )],
            EgressSupport::EnabledPerNamespace => {
                vec![format!("annotate Namespace {namespace} with `{selector}`")]
            }
        }
    }

    fn ruled(&self, destination: String, (rule, outcome): (Cidr, &Outcome), no_way: Option<NoWay>) -> Item {
        let mut candidates = Cow::Borrowed(outcome.candidates.as_slice());
        let (mut action, mut reason) = verdict(rule, outcome);
        let mut change = Vec::new();
        if let Action::Held(why) = &outcome.action {
            (reason, change) = self.held(why, rule);
        }
        if let Some(no_way) = no_way {
            (action, reason, change) = (Verdict::Held, no_way.reason, vec![no_way.change]);
            candidates = Cow::Owned(no_way.candidates);
        }
        let rows = GatewayRows::of(self.view);
        let gateways: Vec<GatewayRow> = candidates.iter().map(|candidate| rows.row(candidate)).collect();
        let usable = gateways.iter().filter(|gateway| gateway.usable);
        let sources: BTreeSet<IpAddr> = usable.filter_map(|gateway| gateway.egress_address).collect();
        let sources = if action == Verdict::Gateway { sources.into_iter().collect() } else { Vec::new() };
        let policy = outcome.decided_by.as_deref().cloned();
        Item { rule: Some(rule), policy, sources, gateways, change, ..self.item(destination, action, reason) }
    }

    /// Why the pod is held, and what would free it: a gateway, or a correction.
    fn held(&self, why: &str, rule: Cidr) -> (String, Vec<String>) {
        if let Some(lack) = lack(self.view, &self.decision.pod, rule) {
            return (lack.reason, lack.change);
        }
        let source = self.decision.decided_by.as_ref();
        let of_source = |problem: &&Problem| {
            source.is_some_and(|source| source.object == problem.object && !source.field.is_empty())
                && problem.reason != "UnknownAnnotation"
        };
        let problem = self.problems.iter().find(of_source);
        let change = problem.map(|problem| format!("correct {} of {}", problem.field, problem.object));
        let unreadable = || source.map(|source| format!("correct {}", source.object));
        (why.to_owned(), change.or_else(unreadable).into_iter().collect())
    }
}

#[cfg(test)]
mod tests;
