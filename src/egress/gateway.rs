//! Whether a pod is to be a gateway, and which pools its addresses come from.
//!
//! In: the view, a pod, the node it runs on. Out: pools per family in order of preference, or the one problem that stands
//! in the way. Never: leases anything; permission never comes from the pod, so a pool's `gatewayNamespaces` is asked here
//! for every pool, named or not.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::addr::Family;
use crate::egress::annotations::{self, Annotation, ClientAnnotations, Found, GatewayRequest, PoolRef};
use crate::egress::model::{EgressSupport, Pairs, Pod, PodName, Pool, PoolKind, PoolSource, View};
use crate::egress::selector::{NamespaceLabels, Selector};
use crate::problem::Problem;
use crate::spelling;

/// What a pod that becomes a gateway is to lease.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GatewayWish {
    /// Names of pools in order of preference; a family that is not here gets no address. Never empty.
    pub pools: BTreeMap<Family, Vec<String>>,
    /// Certain addresses asked for; each lies in the one pool of its family.
    pub addresses: BTreeMap<Family, IpAddr>,
    /// Named pools that give no new leases. They stay in `pools`: an owner that has or had an address there keeps it.
    pub problems: Vec<Problem>,
}

/// Whether the pod is to be a gateway. `node` is where it runs; a pool's `nodeSelector` is asked only where the pod names
/// no pool, so that Calico's `!all()` keeps a pool for those who name it.
///
/// # Errors
/// The problem that keeps a pod that asks for it from being one. It is no gateway then, and is not exempt from redirection.
pub fn wanted(view: &View, pod: &PodName, node: &str) -> Result<Option<GatewayWish>, Problem> {
    let Some(object) = view.pods.get(pod) else { return Ok(None) };
    let named = |mut problem: Problem| {
        problem.object = format!("Pod {pod}");
        problem
    };
    if is_a_client_by_its_own_word(view, object) {
        return Ok(None);
    }
    let Some(request) = GatewayRequest::on(&object.annotations).map_err(named)? else { return Ok(None) };
    if chooses_its_own_address(view, &request) {
        return Ok(None);
    }
    grant(&Asking { view, pod, object, node }, &request).map(Some).map_err(named)
}

/// A pod that names pools of Calico's for its own address, and is redirected by its own annotations, where those are read.
pub(super) fn is_a_client_by_its_own_word(view: &View, object: &Pod) -> bool {
    view.support == EgressSupport::EnabledPerNamespaceOrPerPod && pools_are_its_own(&object.annotations)
}

/// Whether the pools that a pod names say where its *own* address comes from: Calico's words, on a pod whose own annotations make it a
/// client. In Calico they mean nothing else on any pod, and a pod that is to be redirected must not leave by being taken for a gateway.
/// Who means a gateway takes the client's annotations off, or says so by `egret.dev/…`.
pub fn pools_are_its_own(annotations: &Pairs) -> bool {
    let calicos = |pools: &Annotation| {
        pools.on(annotations).is_none_or(|found| found.name.starts_with("cni.projectcalico.org/"))
    };
    let pools = [annotations::IPV4_POOLS, annotations::IPV6_POOLS];
    ClientAnnotations::on(annotations).is_some()
        && [annotations::GATEWAY, annotations::ADDRESS].iter().all(|said| said.on(annotations).is_none())
        && pools.iter().any(|pools| pools.on(annotations).is_some())
        && pools.iter().all(calicos)
}

/// Where Calico is the primary, `cni.projectcalico.org/ipv4pools` says which of its pools a pod's own address comes from. That asks for
/// nothing of ours, unless those pools were adopted.
fn chooses_its_own_address(view: &View, request: &GatewayRequest<'_>) -> bool {
    let range = |reference: &PoolRef| {
        let pool = match reference {
            PoolRef::Name(name) => view.pools.get(name),
            PoolRef::Cidr(cidr) => view.pools.values().find(|pool| pool.cidr == *cidr),
        };
        pool.is_some_and(|pool| {
            let nobodys = pool.gateway_namespaces.as_deref() == Some("!all()");
            pool.kind == PoolKind::IPPool && pool.source == PoolSource::PodAddress && nobodys
        })
    };
    request.is_in_calicos_words() && request.pools.values().all(|(_, refs)| refs.iter().all(range))
}

struct Asking<'a> {
    view: &'a View,
    pod: &'a PodName,
    object: &'a Pod,
    node: &'a str,
}

fn grant(asking: &Asking<'_>, request: &GatewayRequest<'_>) -> Result<GatewayWish, Problem> {
    asking.servable(request)?;
    let mut wish = GatewayWish::default();
    for family in Family::BOTH {
        let asked =
            request.addresses.as_ref().and_then(|(found, ips)| ips.get(&family).map(|ip| (*found, *ip)));
        let mut pools = match request.pools.get(&family) {
            Some((found, refs)) => asking.named(family, *found, refs, &mut wish.problems)?,
            None if request.any.is_some() && asked.is_none() => asking.unrequested(family),
            None => Vec::new(),
        };
        if let Some((found, ip)) = asked {
            pools = vec![asking.holding(found, ip, request.pools.contains_key(&family).then_some(&pools))?];
            wish.addresses.insert(family, ip);
        }
        if !pools.is_empty() {
            wish.pools.insert(family, pools.iter().map(|pool| pool.name.clone()).collect());
        }
    }
    match (wish.pools.is_empty(), request.any) {
        (true, Some(any)) => Err(asking.nothing_takes_it(any)),
        _ => Ok(wish),
    }
}

impl<'a> Asking<'a> {
    /// What concerns the pod itself and not a pool.
    fn servable(&self, request: &GatewayRequest<'_>) -> Result<(), Problem> {
        let named = request.pools.values().map(|(found, _)| *found).next();
        let Some(found) = request.any.or(named).or(request.addresses.as_ref().map(|(found, _)| *found))
        else {
            return Ok(());
        };
        if self.object.host_network {
            let message = "a pod that shares its node's network cannot be a gateway: remove spec.hostNetwork";
            return Err(problem(found, "HostNetwork", message));
        }
        let namespace = format!("Namespace {}", self.pod.namespace);
        if self.view.broken.contains(&namespace) {
            let message =
                format!("{namespace} cannot be read, so nobody knows which pools it may use: correct it");
            return Err(problem(found, "BrokenObject", message));
        }
        Ok(())
    }

    /// The pools that the pod names. All must exist and take it.
    fn named(
        &self,
        family: Family,
        found: Found<'_>,
        refs: &[PoolRef],
        problems: &mut Vec<Problem>,
    ) -> Result<Vec<&'a Pool>, Problem> {
        let mut pools: Vec<&Pool> = Vec::new();
        for reference in refs {
            let pool = self.find(found, reference)?;
            if pool.cidr.family() != family {
                let message = format!("pool `{}` ({}) has no {family} addresses", pool.name, pool.cidr);
                return Err(problem(found, "WrongFamily", message));
            }
            if let Some((reason, message)) = self.refusal(pool) {
                return Err(problem(found, reason, message));
            }
            if pools.iter().any(|known| known.name == pool.name) {
                continue;
            }
            if pool.disabled {
                let message = format!(
                    "pool `{}` is disabled and gives no new leases: enable it or name another",
                    pool.name
                );
                let disabled = problem(found, "PoolDisabled", message);
                problems.push(Problem { object: format!("Pod {}", self.pod), ..disabled });
            }
            pools.push(pool);
        }
        Ok(pools)
    }

    fn find(&self, found: Found<'_>, reference: &PoolRef) -> Result<&'a Pool, Problem> {
        let pools = &self.view.pools;
        let (pool, message) = match reference {
            PoolRef::Name(name) => (pools.get(name), self.unknown(name)),
            PoolRef::Cidr(cidr) => {
                let message = format!("no pool is exactly {cidr}: name a pool, or the whole prefix of one");
                (pools.values().find(|pool| pool.cidr == *cidr), message)
            }
        };
        pool.ok_or_else(|| problem(found, "UnknownPool", message))
    }

    fn unknown(&self, name: &str) -> String {
        for kind in ["EgressPool", "IPPool"] {
            if self.view.broken.contains(&format!("{kind} {name}")) {
                return format!("{kind} {name} cannot be used: correct it");
            }
        }
        let names: Vec<&str> = self.view.pools.keys().map(String::as_str).collect();
        match spelling::nearest(name, &names) {
            Some(near) => format!("there is no pool `{name}`; did you mean `{near}`?"),
            None => format!("there is no pool `{name}`: create it, or name one that exists"),
        }
    }

    /// Any pool that takes the pod and its node; ours before Calico's, whose pools usually hold pod addresses.
    fn unrequested(&self, family: Family) -> Vec<&'a Pool> {
        let mut pools: Vec<&Pool> =
            self.view.pools.values().filter(|pool| pool.cidr.family() == family).collect();
        pools.retain(|pool| self.refusal(pool).is_none() && self.node_refusal(pool).is_none());
        // A disabled one still serves owners that have an address of it.
        pools.sort_by_key(|pool| (pool.disabled, pool.kind == PoolKind::IPPool));
        pools
    }

    /// The pool that holds an address asked for: among those named for its family, or among all.
    fn holding(
        &self,
        found: Found<'_>,
        ip: IpAddr,
        named: Option<&Vec<&'a Pool>>,
    ) -> Result<&'a Pool, Problem> {
        let inside = match named {
            Some(named) => named.iter().copied().find(|pool| pool.cidr.contains(ip)),
            None => self.view.pools.values().find(|pool| pool.cidr.contains(ip)),
        };
        let Some(pool) = inside else {
            let among = if named.is_some() { "no pool that this pod names" } else { "no pool" };
            return Err(problem(found, "AddressOutsidePools", format!("{among} holds {ip}")));
        };
        match self.refusal(pool) {
            Some((reason, message)) => Err(problem(found, reason, message)),
            None => Ok(pool),
        }
    }

    /// Why the pool cannot serve this pod wherever it runs: reason and sentence.
    fn refusal(&self, pool: &Pool) -> Option<(&'static str, String)> {
        let sentence = gateway_namespace_refusal(self.view, pool, &self.pod.namespace);
        sentence.map(|sentence| ("NotPermitted", sentence))
    }

    /// Why the pool does not serve a pod that left the choice to us.
    fn node_refusal(&self, pool: &Pool) -> Option<String> {
        let (name, node) = (&pool.name, self.node);
        if pool.kind == PoolKind::IPPool && pool.nat_outgoing {
            // In Calico that is how pools of pod addresses look.
            return Some(format!(
                "pool `{name}` is an IPPool with natOutgoing, which serves only gateways that name it"
            ));
        }
        match Selector::parse(&pool.node_selector) {
            Err(error) => Some(format!("pool `{name}`: in nodeSelector {}", error.sentence())),
            Ok(selector) => {
                let none = BTreeMap::new();
                let labels = self.view.nodes.get(node).map_or(&none, |node| &node.labels);
                let message =
                    || format!("pool `{name}`: its nodeSelector {selector} does not take node `{node}`");
                (!selector.matches(labels)).then(message)
            }
        }
    }

    /// The sentence for a pod that left the choice to us, with the reason of each pool, if they are few.
    fn nothing_takes_it(&self, any: Found<'_>) -> Problem {
        const SHOWN: usize = 3;
        let reason =
            |pool| self.refusal(pool).map(|(_, message)| message).or_else(|| self.node_refusal(pool));
        let mut reasons: Vec<String> = self.view.pools.values().filter_map(reason).collect();
        let left = reasons.len().saturating_sub(SHOWN);
        reasons.truncate(SHOWN);
        if left > 0 {
            reasons.push(format!("and {left} more pools do not"));
        }
        let why = if reasons.is_empty() {
            "there is none: create an EgressPool".into()
        } else {
            reasons.join("; ")
        };
        problem(any, "NoPool", format!("no pool takes this pod: {why}"))
    }
}

/// Why a namespace's pods may not be gateways of a pool.
pub(super) fn gateway_namespace_refusal(view: &View, pool: &Pool, namespace: &str) -> Option<String> {
    let name = &pool.name;
    let Some(text) = &pool.gateway_namespaces else {
        return Some(format!(
            "pool `{name}` lets no namespace's pods be gateways: set its gatewayNamespaces, for example \
             projectcalico.org/name == '{namespace}'"
        ));
    };
    match Selector::parse(text) {
        Err(error) => Some(format!("pool `{name}`: in gatewayNamespaces {}", error.sentence())),
        Ok(selector) => (!selector.matches(&NamespaceLabels::of(view, namespace))).then(|| {
            format!("pool `{name}`: its gatewayNamespaces {selector} does not take namespace `{namespace}`")
        }),
    }
}

fn problem(found: Found<'_>, reason: &str, message: impl Into<String>) -> Problem {
    Problem::new("", reason, message).at(annotations::field(found.name)).value(found.value)
}

#[cfg(test)]
mod tests;
