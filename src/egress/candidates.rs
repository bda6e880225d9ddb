//! Which gateways a client's query finds, and why each may or may not be used.
//!
//! In: the view and a query. Out: candidates per family, those that are out with a sentence; and pods that match but are
//! no gateways at all. Never: decides what happens to the traffic (`resolve` does).
//!
//! Endpoints are the only gateways: a pod that merely carries the right labels proves nothing, since its tenant wrote them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::net::IpAddr;

use crate::addr::Family;
use crate::egress::annotations::GatewayQuery;
use crate::egress::gateway::{gateway_namespace_refusal, wanted};
use crate::egress::model::{Candidate, Endpoint, EndpointState, PodName, View};
use crate::egress::selector::{NamespaceLabels, PodLabels, Selector};

/// The endpoints of a view, in one order whatever theirs, with what is true of each for every client. Owned, so that it can be
/// kept while pods come and go that are no gateways; every question brings the view that it was made of.
pub(super) struct Gateways {
    all: Vec<Gateway>,
    /// By the pod's namespace: positions in `all`.
    by_namespace: BTreeMap<String, Vec<usize>>,
    pools: BTreeMap<String, Clients>,
    pods: HashSet<PodName>,
    /// Pods with an endpoint of any age.
    named: HashSet<PodName>,
}

struct Gateway {
    /// Its position in the view.
    endpoint: usize,
    /// Why nobody can use it, whoever asks: its objects, not its state.
    unknown: Option<String>,
    /// By position in `endpoint.addresses`: why the pool does not stand behind the address.
    revoked: Vec<Option<String>>,
}

/// How many pods a sentence names.
const SHOWN: usize = 3;

/// Why a client has no gateway, and what would have to change. Prints as one sentence.
pub(super) struct Lack {
    pub(super) reason: String,
    pub(super) change: Vec<String>,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.change.join("; "))
    }
}

/// Whose pods may use a pool's gateways.
enum Clients {
    GatewaysNamespace,
    Matching(Selector),
    Unreadable(String),
}

impl Gateways {
    pub(super) fn of(view: &View) -> Gateways {
        // An attachment has one endpoint. Were two records of it read (one being replaced), the later counts; if neither is
        // later, the one that is further from use.
        let mut endpoints: Vec<(usize, &Endpoint)> = view.endpoints.iter().enumerate().collect();
        endpoints.sort_by_key(|(_, e)| (&e.pod, &e.attachment, Reverse((e.generation, e.state))));
        endpoints.dedup_by_key(|(_, e)| (&e.pod, &e.attachment));
        let mut found = Gateways {
            all: Vec::with_capacity(endpoints.len()),
            by_namespace: BTreeMap::new(),
            pools: BTreeMap::new(),
            pods: HashSet::new(),
            named: endpoints.iter().map(|(_, endpoint)| endpoint.pod.clone()).collect(),
        };
        let mut granted = BTreeMap::new();
        for (position, endpoint) in endpoints {
            found.by_namespace.entry(endpoint.pod.namespace.clone()).or_default().push(found.all.len());
            if stale(view, endpoint).is_none() {
                found.pods.insert(endpoint.pod.clone());
            }
            let mut revoked = Vec::new();
            for address in &endpoint.addresses {
                let key = (address.pool.as_str(), endpoint.pod.namespace.as_str());
                revoked.push(granted.entry(key).or_insert_with(|| revoked_by(view, key.0, key.1)).clone());
                if !found.pools.contains_key(key.0) {
                    found.pools.insert(key.0.to_owned(), clients_of(view, key.0));
                }
            }
            found.all.push(Gateway { endpoint: position, unknown: unknown(view, endpoint), revoked });
        }
        found
    }

    /// Whether this pod holds an endpoint. One of an earlier pod of the same name does not count.
    pub(super) fn holds(&self, pod: &PodName) -> bool {
        self.pods.contains(pod)
    }

    /// Whether an endpoint, of whatever age, names this pod: then what is known here depends on the pod's object.
    pub(super) fn concern(&self, pod: &PodName) -> bool {
        self.named.contains(pod)
    }

    /// Positions of the endpoints that a query finds for a client of this namespace; valid for `candidates`.
    pub(super) fn matching(&self, view: &View, query: &GatewayQuery, client: &str) -> Vec<usize> {
        let pod = |i: &usize| {
            let name = &view.endpoints[self.all[*i].endpoint].pod;
            query.pods.matches(&PodLabels::of(view, name))
        };
        match &query.namespaces {
            None => self.by_namespace.get(client).into_iter().flatten().copied().filter(pod).collect(),
            Some(namespaces) => {
                let taken = self
                    .by_namespace
                    .iter()
                    .filter(|(ns, _)| namespaces.matches(&NamespaceLabels::of(view, ns)));
                let mut found: Vec<usize> = taken.flat_map(|(_, all)| all).copied().filter(pod).collect();
                found.sort_unstable();
                found
            }
        }
    }

    /// The pools that gave these endpoints their addresses.
    pub(super) fn pools_of<'a>(&self, view: &'a View, positions: &[usize]) -> BTreeSet<&'a str> {
        let endpoints = positions.iter().map(|i| &view.endpoints[self.all[*i].endpoint]);
        endpoints.flat_map(|endpoint| &endpoint.addresses).map(|address| address.pool.as_str()).collect()
    }

    /// Whether each of these pools serves clients of this namespace, wherever its gateways are.
    pub(super) fn admit(&self, view: &View, pools: &BTreeSet<String>, client: &str) -> bool {
        let labels = NamespaceLabels::of(view, client);
        pools.iter().all(|pool| match self.pools.get(pool) {
            Some(Clients::Matching(selector)) => selector.matches(&labels),
            _ => false,
        })
    }

    /// What a client of this namespace is told of these endpoints for one family.
    pub(super) fn candidates(
        &self,
        view: &View,
        positions: &[usize],
        client: &str,
        family: Family,
    ) -> Vec<Candidate> {
        let candidate = |i: &usize| {
            let gateway = &self.all[*i];
            let endpoint = &view.endpoints[gateway.endpoint];
            Candidate {
                pod: Some(endpoint.pod.clone()),
                key: endpoint.attachment.clone(),
                node: endpoint.node.clone(),
                address: outside_address(view, endpoint, family),
                unusable: self.unusable(view, gateway, client, family),
            }
        };
        positions.iter().map(candidate).collect()
    }

    /// Permission before state: who may not use a gateway need not know how it fares.
    fn unusable(&self, view: &View, gateway: &Gateway, client: &str, family: Family) -> Option<String> {
        if gateway.unknown.is_some() {
            return gateway.unknown.clone();
        }
        let endpoint = &view.endpoints[gateway.endpoint];
        let Some(i) = endpoint.addresses.iter().position(|a| Family::of(a.ip) == family) else {
            let pools = if family == Family::V4 { "egret.dev/ipv4pools" } else { "egret.dev/ipv6pools" };
            return Some(format!(
                "it has no {family} egress address: name an {family} pool in its `{pools}`"
            ));
        };
        if let Some(revoked) = gateway.revoked.get(i).cloned().flatten() {
            return Some(revoked);
        }
        let pool = endpoint.addresses[i].pool.as_str();
        if let Some(refusal) = self.client_refusal(view, pool, &endpoint.pod.namespace, client) {
            return Some(refusal);
        }
        if outside_address(view, endpoint, family).is_none() {
            let node = &endpoint.node;
            return Some(format!(
                "its pool `{pool}` has natOutgoing, and node {node} has no {family} InternalIP to leave with: add one to the Node object"
            ));
        }
        state(endpoint)
    }

    fn client_refusal(&self, view: &View, pool: &str, gateway: &str, client: &str) -> Option<String> {
        match self.pools.get(pool)? {
            Clients::Unreadable(sentence) => Some(sentence.clone()),
            Clients::GatewaysNamespace => (gateway != client).then(|| {
                format!(
                    "pool `{pool}` serves clients of the gateway's own namespace alone: set its clientNamespaces \
                     to take namespace `{client}`"
                )
            }),
            Clients::Matching(selector) => (!selector.matches(&NamespaceLabels::of(view, client))).then(|| {
                format!("pool `{pool}`: its clientNamespaces {selector} does not take namespace `{client}`")
            }),
        }
    }
}

/// The address that the outside sees of a gateway's clients: its lease, or its node's where the pool says so (`natOutgoing`).
pub(super) fn outside_address(view: &View, endpoint: &Endpoint, family: Family) -> Option<IpAddr> {
    let lease = endpoint.addresses.iter().find(|address| Family::of(address.ip) == family)?;
    match view.pools.get(&lease.pool) {
        Some(pool) if pool.nat_outgoing => node_address(view, endpoint, family),
        _ => Some(lease.ip),
    }
}

/// The first InternalIP of the gateway's node.
pub(super) fn node_address(view: &View, endpoint: &Endpoint, family: Family) -> Option<IpAddr> {
    let now = view.nodes.get(&endpoint.node).map(|node| node.internal_ips.as_slice());
    let known = now.unwrap_or(&endpoint.underlay);
    known.iter().copied().find(|ip| Family::of(*ip) == family)
}

/// What a client lacks whose query leaves it without a usable gateway: what was sought, what was found instead. The resolver asks
/// without the view, because this is said to every such client; with it, every pod is looked at for one that was meant.
pub(super) fn lack(
    view: Option<&View>,
    query: &GatewayQuery,
    found: &[Candidate],
    client: &str,
    family: Family,
) -> Lack {
    let sought = match &query.namespaces {
        None => format!("{} in namespace `{client}`", query.pods),
        Some(namespaces) => format!("{} in namespaces {namespaces}", query.pods),
    };
    if found.is_empty() {
        let change = vec![remedy(view, query, client)];
        return Lack { reason: format!("no gateway matches {sought}"), change };
    }
    let all = match found.len() {
        1 => "the one gateway that matches".to_owned(),
        n => format!("each of the {n} gateways that match"),
    };
    let reason = |c: &Candidate| c.unusable.as_ref().map(|why| format!("{}: {why}", c.gateway()));
    let mut change: Vec<String> = found.iter().filter_map(reason).take(SHOWN).collect();
    if found.len() > change.len() {
        change.push(format!("and {} more", found.len() - change.len()));
    }
    Lack { reason: format!("{all} {sought} is out of use for {family}"), change }
}

fn remedy(view: Option<&View>, query: &GatewayQuery, client: &str) -> String {
    let remedy = "annotate it with `egret.dev/gateway: \"true\"` or `egret.dev/ipv4pools` and restart it";
    let (pods, more) = view.map(|view| near_misses(view, query, client)).unwrap_or_default();
    if let Some(sentence) = view.and_then(|view| pods.iter().find_map(|pod| refused(view, pod))) {
        return sentence;
    }
    match (pods.as_slice(), more) {
        ([], _) => "start a gateway with these labels, or change the selector".to_owned(),
        ([pod], 0) => format!("pod {pod} matches but is no gateway, since it has no lease; {remedy}"),
        (pods, more) => {
            let pods: Vec<String> = pods.iter().map(ToString::to_string).collect();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let pods = pods.join(", ");
            format!(
                "pods {pods}{more} match but are no gateways, since they have no lease; where one shall be, {remedy}"
            )
        }
    }
}

/// Why a pod that asks to be a gateway is none: to tell it to ask would be no help.
fn refused(view: &View, pod: &PodName) -> Option<String> {
    let node = view.pods.get(pod)?.node.as_deref().unwrap_or_default();
    match wanted(view, pod, node) {
        Ok(None) => None,
        Ok(Some(_)) => Some(format!(
            "pod {pod} matches and asks to be a gateway, but has no lease yet: start it, or restart it if it ran before it asked"
        )),
        Err(problem) => {
            Some(format!("pod {pod} matches and asks to be a gateway, but cannot: {}", problem.sentence()))
        }
    }
}

/// Pods that a query finds where it finds no gateway: the first few, and how many more.
fn near_misses(view: &View, query: &GatewayQuery, client: &str) -> (Vec<PodName>, usize) {
    let namespaces: Vec<&str> = match &query.namespaces {
        None => vec![client],
        Some(_) => {
            let mut names: Vec<&str> = view.pods.keys().map(|pod| pod.namespace.as_str()).collect();
            names.dedup();
            names
        }
    };
    let taken = namespaces.into_iter().filter(|name| match &query.namespaces {
        None => true,
        Some(selector) => selector.matches(&NamespaceLabels::of(view, name)),
    });
    let pods = taken.flat_map(|name| {
        let pods = view.pods.range(PodName::new(name, "")..);
        pods.take_while(move |(pod, _)| pod.namespace == name)
    });
    let matching = pods.filter(|(pod, _)| query.pods.matches(&PodLabels::of(view, pod)));
    let mut found = matching.map(|(pod, _)| pod.clone());
    let shown: Vec<PodName> = found.by_ref().take(SHOWN).collect();
    (shown, found.count())
}
/// What keeps us from knowing who the gateway is.
fn unknown(view: &View, endpoint: &Endpoint) -> Option<String> {
    for object in [format!("Pod {}", endpoint.pod), format!("Namespace {}", endpoint.pod.namespace)] {
        if view.broken.contains(&object) {
            return Some(format!("{object} cannot be read, so nobody knows its labels: correct it"));
        }
    }
    stale(view, endpoint)
}

/// An endpoint outlives its pod for a moment; the next pod of that name must not inherit it.
fn stale(view: &View, endpoint: &Endpoint) -> Option<String> {
    let pod = view.pods.get(&endpoint.pod)?;
    let (now, then) = (pod.uid.as_deref()?, endpoint.uid.as_deref()?);
    (!pod.ids().any(|id| id == then)).then(|| {
        format!(
            "its endpoint belongs to an earlier pod of this name (UID {then}, now {now}): wait for its node"
        )
    })
}

/// Why a pool that gave an address no longer stands behind it.
fn revoked_by(view: &View, pool: &str, gateway: &str) -> Option<String> {
    if let Some(pool) = view.pools.get(pool) {
        return gateway_namespace_refusal(view, pool, gateway);
    }
    let broken = ["EgressPool", "IPPool"].iter().find(|kind| view.broken.contains(&format!("{kind} {pool}")));
    Some(match broken {
        Some(kind) => {
            format!("{kind} {pool} cannot be used, so nobody knows who may use its addresses: correct it")
        }
        None => format!("its pool `{pool}` is gone: create it again, or restart the gateway with another"),
    })
}

fn clients_of(view: &View, pool: &str) -> Clients {
    match view.pools.get(pool).and_then(|pool| pool.client_namespaces.as_deref()) {
        None => Clients::GatewaysNamespace,
        Some(text) => match Selector::parse(text) {
            Ok(selector) => Clients::Matching(selector),
            Err(error) => {
                Clients::Unreadable(format!("pool `{pool}`: in clientNamespaces {}", error.sentence()))
            }
        },
    }
}

fn state(endpoint: &Endpoint) -> Option<String> {
    let found: Vec<&str> = endpoint.problems.iter().map(|problem| problem.message.as_str()).collect();
    let why = if found.is_empty() { String::new() } else { format!(" ({})", found.join("; ")) };
    let node = &endpoint.node;
    Some(match endpoint.state {
        EndpointState::Ready => return None,
        EndpointState::Starting => format!(
            "it is starting{why}: its pod is not ready yet, or node {node} has not wired it; see to the pod's readiness and events"
        ),
        EndpointState::Draining => format!("it is draining{why}: it keeps its flows and takes no new ones"),
        EndpointState::Failed => format!("it has failed{why}: see to the pod or to node {node}"),
    })
}
