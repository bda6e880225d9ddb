//! What is wrong with a world that nobody has applied yet: what the resolver would refuse, and what it would obey although it is
//! probably not meant.
//!
//! In: a view made of manifests alone, without nodes' records and endpoints. Out: findings, each an error or a warning. Never:
//! speaks of what only a running cluster knows: leases, interfaces, health.
//!
//! A pod that asks to be a gateway counts as one that runs, so that a selector that matches none of them is found.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::addr::{Cidr, Family, Mac};
use crate::egress::annotations::{self, ClientAnnotations};
use crate::egress::gateway::{self, GatewayWish};
use crate::egress::model::{
    Action, Decision, EgressAddress, Endpoint, EndpointState, Pod, PodName, PoolKind, Role, View,
};
use crate::egress::own_address::OwnAddress;
use crate::egress::policy::{Policy, PolicyKind, To};
use crate::egress::resolve::resolve;
use crate::problem::Problem;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something is not obeyed: an object cannot be used, pods are held, an annotation is nobody's.
    Error,
    /// It is obeyed, and may surprise.
    Warning,
}

/// A problem and how bad it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// What.
    #[serde(flatten)]
    pub problem: Problem,
}

impl Finding {
    fn warning(problem: Problem) -> Finding {
        Finding { severity: Severity::Warning, problem }
    }
}

/// The pod that stands for those of a namespace whose pods the manifests do not show. No pod can have this name.
pub const ANY_POD: &str = "any pod";

/// Reasons of the resolver after which the decision still is what the objects say.
const SURVIVED: [&str; 3] = ["PoolDisabled", "PrefixTaken", "IgnoredField"];

/// Reasons that are about a cluster, and not about manifests.
const OF_A_CLUSTER: [&str; 2] = ["InterfacesUnknown", "NoUnderlay"];

/// Reasons that are about Node objects: nothing can be said where the manifests have none.
const OF_NODES: [&str; 2] = ["NoGatewayNode", "NoEgressAddress"];

/// What is wrong between objects, each of which could be read. What is wrong inside one is known from reading it.
pub fn lint(view: &View) -> Vec<Finding> {
    let mut view = view.clone();
    view.endpoints = assumed_gateways(&view);
    let resolution = resolve(&view, asked(&view));
    let told = |problem: &Problem| {
        let reason = problem.reason.as_str();
        let unknowable = view.nodes.is_empty() && OF_NODES.contains(&reason);
        !unknowable && !OF_A_CLUSTER.contains(&reason)
    };
    let mut problems = resolution.problems;
    problems.retain(told);
    let graded = |problem: Problem| {
        let survived = SURVIVED.contains(&problem.reason.as_str());
        Finding { severity: if survived { Severity::Warning } else { Severity::Error }, problem }
    };
    let mut findings: Vec<Finding> = problems.into_iter().map(graded).collect();
    if !view.endpoints.is_empty() {
        let policies = view.policies.values().filter(|policy| !policy.unfit.is_empty());
        let unfit: BTreeSet<String> = policies.map(Policy::object).collect();
        let fit = |decision: &&Decision| {
            decision.decided_by.as_ref().is_none_or(|source| !unfit.contains(&source.object))
        };
        let lost = resolution.decisions.values().filter(fit);
        let lost = lost.filter_map(|decision| without_gateway(decision, &findings));
        findings.extend(lost.collect::<BTreeMap<_, _>>().into_values().map(Finding::warning));
    }
    findings.extend(view.pools.values().filter_map(|pool| {
        let open = |selector: &Option<String>| selector.as_deref() == Some("all()");
        let open = open(&pool.gateway_namespaces) && open(&pool.client_namespaces);
        (pool.kind == PoolKind::IPPool && open).then(|| Finding::warning(open_pool(&pool.name)))
    }));
    let both = |(name, pod): (&PodName, &Pod)| {
        gateway::is_a_client_by_its_own_word(&view, pod).then(|| Finding::warning(client_with_pools(name)))
    };
    findings.extend(view.pods.iter().filter_map(both));
    let policies = view.policies.values().chain(view.cilium_policies.values());
    findings.extend(policies.filter_map(one_family).map(Finding::warning));
    findings
}

/// Every pod, and one for each namespace that speaks of egress.
fn asked(view: &View) -> BTreeSet<PodName> {
    let speaks =
        |annotations| ClientAnnotations::on(annotations).is_some() || annotations::concern_us(annotations);
    let namespaces = view.namespaces.iter().filter(|(_, namespace)| speaks(&namespace.annotations));
    let any = namespaces.map(|(name, _)| PodName::new(name, ANY_POD));
    view.pods.keys().cloned().chain(any).collect()
}

/// An endpoint for each pod that would be a gateway, for those who know manifests alone. Its address is one of its pool, so that the
/// pool's permissions count; which one it would lease nobody knows.
pub fn assumed_gateways(view: &View) -> Vec<Endpoint> {
    let wish = |pod: &PodName| {
        let node = view.pods.get(pod)?.node.clone().unwrap_or_default();
        let wish = gateway::wanted(view, pod, &node).ok().flatten()?;
        Some((pod.clone(), node, wish))
    };
    let wishes: Vec<_> = view.pods.keys().filter_map(wish).collect();
    wishes.into_iter().map(|(pod, node, wish)| endpoint(view, pod, node, &wish)).collect()
}

fn endpoint(view: &View, pod: PodName, node: String, wish: &GatewayWish) -> Endpoint {
    let address = |(family, pools): (&Family, &Vec<String>)| {
        let pool = view.pools.get(pools.first()?)?;
        let own = view.pods.get(&pod).map(|object| object.ips.as_slice()).unwrap_or_default();
        match wish.own_address(view, *family, own) {
            OwnAddress::First(own) => return Some(own),
            OwnAddress::InNeed(_) | OwnAddress::No | OwnAddress::Nowhere(_) => {}
        }
        let ip = wish.addresses.get(family).copied().unwrap_or_else(|| pool.cidr.first());
        Some(EgressAddress { ip, pool: pool.name.clone(), source: pool.source })
    };
    // Whether a node's underlay suits is not for manifests to say.
    let underlay: Vec<IpAddr> = match view.nodes.get(&node) {
        Some(known) if !known.internal_ips.is_empty() => known.internal_ips.clone(),
        _ => vec![IpAddr::from([192, 0, 2, 1])],
    };
    Endpoint {
        attachment: format!("lint/{pod}"),
        uid: view.pods.get(&pod).and_then(|object| object.uid.clone()),
        addresses: wish.pools.iter().filter_map(address).collect(),
        pod,
        node,
        underlay,
        vni: 1,
        mac: Mac([2, 0, 0, 0, 0, 1]),
        state: EndpointState::Ready,
        generation: 1,
        problems: Vec::new(),
    }
}

/// A client for which no gateway is among these manifests, though there are some; one per object that decided so. Node gateways, and
/// what an error explains already, are left out.
fn without_gateway(decision: &Decision, errors: &[Finding]) -> Option<(String, Problem)> {
    let mut outcomes = decision.rules.values();
    let (held, by) = outcomes.clone().find_map(|outcome| match &outcome.action {
        Action::Held(why) if outcome.candidates.iter().all(|candidate| candidate.pod.is_some()) => {
            Some((why, outcome.decided_by.as_deref()))
        }
        _ => None,
    })?;
    let source = by.or(decision.decided_by.as_ref())?;
    let told = |object: &str| errors.iter().any(|finding| finding.problem.object == object);
    if decision.role != Role::Client || told(&source.object) || told(&format!("Pod {}", decision.pod)) {
        return None;
    }
    if outcomes.any(|outcome| !matches!(outcome.action, Action::Held(_))) || held.contains("node") {
        return None;
    }
    let message =
        format!("{held}. Until then all traffic of {} that leaves the cluster is held", whose(&decision.pod));
    let problem = Problem::new(source.object.as_str(), "NoGateway", message);
    Some((source.object.clone(), problem.at(source.field.as_str()).value(source.value.as_str())))
}

fn whose(pod: &PodName) -> String {
    if pod.name == ANY_POD {
        format!("the pods of namespace `{}`", pod.namespace)
    } else {
        format!("pod {pod}")
    }
}

fn open_pool(name: &str) -> Problem {
    let message = "any pod that names this pool may be a gateway of it, and any pod may use that gateway, as in Calico; to narrow \
                   that, annotate it with egret.dev/gateway-namespaces and egret.dev/client-namespaces";
    Problem::new(format!("IPPool {name}"), "OpenPool", message).at("metadata.annotations")
}

fn client_with_pools(pod: &PodName) -> Problem {
    let message = "its own annotations make it a client, so the pools that it names by cni.projectcalico.org/… are for its own address, as \
                   in Calico, and it is no gateway; to make it one, take the client's annotations off";
    Problem::new(format!("Pod {pod}"), "OwnAddress", message).at("metadata.annotations")
}

/// A policy that sends the whole internet of one family to gateways and says nothing of the other's.
fn one_family(policy: &Policy) -> Option<Problem> {
    if policy.kind != PolicyKind::Cilium && policy.ignores_other_family {
        return None; // it was said, so it is meant
    }
    let everything = |family: Family| family.everything();
    let sent =
        |cidr: Cidr| policy.rules.iter().find(|rule| rule.destination == cidr && rule.to != To::Direct);
    let said = |cidr: Cidr| policy.deny_others || policy.rules.iter().any(|rule| rule.destination == cidr);
    let one_sided = |family: Family| {
        let other = Family::BOTH.into_iter().find(|other| *other != family)?;
        sent(everything(family)).filter(|_| !said(everything(other))).map(|rule| (rule, family, other))
    };
    let (rule, family, other) = Family::BOTH.into_iter().find_map(one_sided)?;
    let fate = match policy.kind {
        PolicyKind::Cilium => format!(
            "{other} is not, and leaves as if there were no policy, as in Cilium; add {} unless that is meant",
            everything(other)
        ),
        PolicyKind::Ours | PolicyKind::Calico => format!(
            "{other} is not named, so it is held, lest it leave with another address; add a rule for {}",
            everything(other)
        ),
    };
    let message = format!("all of {family} goes to gateways; {fate}");
    let problem = Problem::new(policy.object(), "OneFamily", message);
    Some(problem.at(rule.field.as_str()).value(rule.destination.to_string()))
}
