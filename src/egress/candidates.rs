//! Which gateways a client's query finds, and why each may or may not be used.
//!
//! In: the view and a query. Out: candidates per family, those that are out with a sentence; and pods that match but are
//! no gateways at all. Never: decides what happens to the traffic (`resolve` does).
//!
//! Endpoints are the only gateways: a pod that merely carries the right labels proves nothing, since its tenant wrote them.

use std::collections::{BTreeMap, BTreeSet};

use crate::addr::Family;
use crate::egress::annotations::GatewayQuery;
use crate::egress::gateway::gateway_namespace_refusal;
use crate::egress::model::{Candidate, Endpoint, EndpointState, PodName, View};
use crate::egress::selector::{NamespaceLabels, PodLabels, Selector};

/// The endpoints of a view, in one order whatever theirs, with what is true of each for every client.
pub(super) struct Gateways<'a> {
    view: &'a View,
    all: Vec<Gateway<'a>>,
    /// By the pod's namespace: positions in `all`.
    by_namespace: BTreeMap<&'a str, Vec<usize>>,
    pools: BTreeMap<&'a str, Clients>,
    pods: BTreeSet<&'a PodName>,
}

struct Gateway<'a> {
    endpoint: &'a Endpoint,
    /// Why nobody can use it, whoever asks: its objects, not its state.
    unknown: Option<String>,
    /// By position in `endpoint.addresses`: why the pool does not stand behind the address.
    revoked: Vec<Option<String>>,
}

/// Whose pods may use a pool's gateways.
enum Clients {
    GatewaysNamespace,
    Matching(Selector),
    Unreadable(String),
}

impl<'a> Gateways<'a> {
    pub(super) fn of(view: &'a View) -> Gateways<'a> {
        let mut endpoints: Vec<&Endpoint> = view.endpoints.iter().collect();
        endpoints.sort_by_key(|e| (&e.pod, &e.attachment, e.generation));
        let mut found = Gateways {
            view,
            all: Vec::with_capacity(endpoints.len()),
            by_namespace: BTreeMap::new(),
            pools: BTreeMap::new(),
            pods: BTreeSet::new(),
        };
        let mut granted = BTreeMap::new();
        for endpoint in endpoints {
            found.by_namespace.entry(&endpoint.pod.namespace).or_default().push(found.all.len());
            if stale(view, endpoint).is_none() {
                found.pods.insert(&endpoint.pod);
            }
            let mut revoked = Vec::new();
            for address in &endpoint.addresses {
                let key = (address.pool.as_str(), endpoint.pod.namespace.as_str());
                revoked.push(granted.entry(key).or_insert_with(|| revoked_by(view, key.0, key.1)).clone());
                found.pools.entry(key.0).or_insert_with(|| clients_of(view, key.0));
            }
            found.all.push(Gateway { endpoint, unknown: unknown(view, endpoint), revoked });
        }
        found
    }

    /// Whether this pod holds an endpoint. One of an earlier pod of the same name does not count.
    pub(super) fn holds(&self, pod: &PodName) -> bool {
        self.pods.contains(pod)
    }

    /// Positions of the endpoints that a query finds for a client of this namespace; valid for `candidates`.
    pub(super) fn matching(&self, query: &GatewayQuery, client: &str) -> Vec<usize> {
        let pod = |i: &usize| query.pods.matches(&PodLabels::of(self.view, &self.all[*i].endpoint.pod));
        match &query.namespaces {
            None => self.by_namespace.get(client).into_iter().flatten().copied().filter(pod).collect(),
            Some(namespaces) => {
                let taken = self
                    .by_namespace
                    .iter()
                    .filter(|(ns, _)| namespaces.matches(&NamespaceLabels::of(self.view, ns)));
                let mut found: Vec<usize> = taken.flat_map(|(_, all)| all).copied().filter(pod).collect();
                found.sort_unstable();
                found
            }
        }
    }

    /// What a client of this namespace is told of these endpoints for one family.
    pub(super) fn candidates(&self, positions: &[usize], client: &str, family: Family) -> Vec<Candidate> {
        let candidate = |i: &usize| {
            let gateway = &self.all[*i];
            let endpoint = gateway.endpoint;
            Candidate {
                pod: endpoint.pod.clone(),
                attachment: endpoint.attachment.clone(),
                node: endpoint.node.clone(),
                address: endpoint.address(family),
                unusable: self.unusable(gateway, client, family),
            }
        };
        positions.iter().map(candidate).collect()
    }

    /// Permission before state: who may not use a gateway need not know how it fares.
    fn unusable(&self, gateway: &Gateway<'_>, client: &str, family: Family) -> Option<String> {
        if gateway.unknown.is_some() {
            return gateway.unknown.clone();
        }
        let endpoint = gateway.endpoint;
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
        if let Some(refusal) = self.client_refusal(pool, &endpoint.pod.namespace, client) {
            return Some(refusal);
        }
        state(endpoint)
    }

    fn client_refusal(&self, pool: &str, gateway: &str, client: &str) -> Option<String> {
        match self.pools.get(pool)? {
            Clients::Unreadable(sentence) => Some(sentence.clone()),
            Clients::GatewaysNamespace => (gateway != client).then(|| {
                format!(
                    "pool `{pool}` serves clients of the gateway's own namespace alone: set its clientNamespaces \
                     to take namespace `{client}`"
                )
            }),
            Clients::Matching(selector) => (!selector.matches(&NamespaceLabels::of(self.view, client))).then(|| {
                format!("pool `{pool}`: its clientNamespaces {selector} does not take namespace `{client}`")
            }),
        }
    }

    /// Pods that a query finds and that are no gateways: the first few, and how many more.
    pub(super) fn near_misses(
        &self,
        query: &GatewayQuery,
        client: &str,
        limit: usize,
    ) -> (Vec<PodName>, usize) {
        let namespaces: Vec<&str> = match &query.namespaces {
            None => vec![client],
            Some(_) => {
                let mut names: Vec<&str> = self.view.pods.keys().map(|pod| pod.namespace.as_str()).collect();
                names.dedup();
                names
            }
        };
        let taken = namespaces.into_iter().filter(|name| match &query.namespaces {
            None => true,
            Some(selector) => selector.matches(&NamespaceLabels::of(self.view, name)),
        });
        let pods = taken.flat_map(|name| {
            let pods = self.view.pods.range(PodName::new(name, "")..);
            pods.take_while(move |(pod, _)| pod.namespace == name)
        });
        let matching =
            pods.filter(|(pod, _)| !self.holds(pod) && query.pods.matches(&PodLabels::of(self.view, pod)));
        let mut found = matching.map(|(pod, _)| pod.clone());
        let shown: Vec<PodName> = found.by_ref().take(limit).collect();
        (shown, found.count())
    }
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
    let now = view.pods.get(&endpoint.pod)?.uid.as_deref()?;
    let then = endpoint.uid.as_deref()?;
    (now != then).then(|| {
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
        Some(kind) => format!("{kind} `{pool}` cannot be read, so nobody knows who may use it: correct it"),
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
        EndpointState::Starting => format!("it is starting{why}: wait until node {node} has wired it"),
        EndpointState::Draining => format!("it is draining{why}: it keeps its flows and takes no new ones"),
        EndpointState::Failed => format!("it has failed{why}: see to the pod or to node {node}"),
    })
}
