//! Every annotation that we read from pods and namespaces: its names, and its value as a type.
//!
//! In: annotations as users write them. Out: what the object asks for, or a [`Problem`] that names field and value (its
//! `object` is left empty: the text alone decides, so that the answer can be shared; who asked fills it in).
//! Never: looks at anything but the annotations of one object.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::addr::{Cidr, Family};
use crate::egress::model::Pairs;
use crate::egress::selector::Selector;
use crate::problem::Problem;

mod unread;

pub use unread::unread;

/// One annotation under all its names; the first that an object has counts, so ours stands first and wins.
#[derive(Debug, Clone, Copy)]
pub struct Annotation(&'static [&'static str]);

/// Client: which pods are its gateways.
pub const SELECTOR: Annotation = Annotation(&["egret.dev/selector", "egress.projectcalico.org/selector"]);
/// Client: in which namespaces its gateways are. Absent: its own.
pub const NAMESPACE_SELECTOR: Annotation =
    Annotation(&["egret.dev/namespaceSelector", "egress.projectcalico.org/namespaceSelector"]);
/// Client: how many of the gateways it uses; `0` is all.
pub const MAX_NEXT_HOPS: Annotation =
    Annotation(&["egret.dev/maxNextHops", "egress.projectcalico.org/maxNextHops"]);
/// Client: the policy that has its rules.
pub const POLICY: Annotation =
    Annotation(&["egret.dev/egressGatewayPolicy", "egress.projectcalico.org/egressGatewayPolicy"]);
/// Gateway: IPv4 pools in order of preference, by name or exact CIDR.
pub const IPV4_POOLS: Annotation = Annotation(&["egret.dev/ipv4pools", "cni.projectcalico.org/ipv4pools"]);
/// Gateway: the same for IPv6.
pub const IPV6_POOLS: Annotation = Annotation(&["egret.dev/ipv6pools", "cni.projectcalico.org/ipv6pools"]);
/// Gateway: `"true"`: from any pool that takes it; `"false"`: no gateway, whatever pools it names.
pub const GATEWAY: Annotation = Annotation(&["egret.dev/gateway"]);
/// Gateway: the addresses it asks for, one per family.
pub const ADDRESS: Annotation = Annotation(&["egret.dev/address"]);

/// What a node's agent writes of a pod, for people: the addresses that it leaves with now. Never read.
pub const EGRESS_ADDRESSES: &str = "egret.dev/egress-addresses";

const ALL: [Annotation; 8] =
    [SELECTOR, NAMESPACE_SELECTOR, MAX_NEXT_HOPS, POLICY, IPV4_POOLS, IPV6_POOLS, GATEWAY, ADDRESS];

/// What Calico's plugin writes of each pod that it wired. It says nothing of egress, and who waits for an agent must not wait for this.
const CALICOS_RECORD: [&str; 3] =
    ["cni.projectcalico.org/containerID", "cni.projectcalico.org/podIP", "cni.projectcalico.org/podIPs"];

/// Whether an annotation of a namespace says what Calico reads of one, and nobody else: which of its pools addresses of pods come from.
pub fn is_calicos_of_a_namespace(name: &str) -> bool {
    [IPV4_POOLS, IPV6_POOLS].iter().any(|pools| pools.0[1..].contains(&name))
}

/// Whether Egret reads an annotation, or names it in a problem: by its prefix, so that a misspelt one is kept too.
pub fn is_ours(name: &str) -> bool {
    let prefixes = ["egret.dev/", "egress.projectcalico.org/", "cni.projectcalico.org/"];
    prefixes.iter().any(|prefix| name.starts_with(prefix))
        && name != EGRESS_ADDRESSES
        && !CALICOS_RECORD.contains(&name)
}

impl Annotation {
    /// The annotation on an object, under the name that wins.
    pub fn on(self, annotations: &Pairs) -> Option<Found<'_>> {
        let mut names = self.0.iter();
        names.find_map(|name| annotations.get(*name).map(|value| Found { name, value }))
    }

    /// Our name of it.
    pub fn name(self) -> &'static str {
        self.0.first().copied().unwrap_or_default()
    }
}

/// Every name of somebody else's under which an annotation is read, with ours.
pub fn twins() -> impl Iterator<Item = (&'static str, &'static str)> {
    let pairs =
        |annotation: Annotation| annotation.0.iter().skip(1).map(move |name| (*name, annotation.name()));
    ALL.into_iter().flat_map(pairs)
}

/// The path of an annotation as a problem's field names it.
pub fn field(name: &str) -> String {
    format!("metadata.annotations[\"{name}\"]")
}

/// An annotation as an object has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Found<'a> {
    /// The name it was found under.
    pub name: &'static str,
    /// Its text.
    pub value: &'a str,
}

impl Found<'_> {
    fn problem(self, reason: &str, message: impl Into<String>) -> Problem {
        Problem::new("", reason, message).at(field(self.name)).value(self.value)
    }
}

/// What makes an object's pods clients, as written. Equal texts are equal wishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientAnnotations<'a> {
    /// `selector`
    pub selector: Option<Found<'a>>,
    /// `namespaceSelector`
    pub namespace_selector: Option<Found<'a>>,
    /// `maxNextHops`
    pub max_next_hops: Option<Found<'a>>,
    /// `egressGatewayPolicy`
    pub policy: Option<Found<'a>>,
}

/// Which gateways a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GatewayQuery {
    /// Over gateway pods.
    pub pods: Selector,
    /// Over their namespaces; `None`: the client's own.
    pub namespaces: Option<Selector>,
    /// At most so many of them for one pod; `None`: all.
    pub max_next_hops: Option<u32>,
}

impl<'a> ClientAnnotations<'a> {
    /// Those of one object; `None` if it has none of them.
    pub fn on(annotations: &'a Pairs) -> Option<ClientAnnotations<'a>> {
        if annotations.is_empty() {
            return None;
        }
        let found = ClientAnnotations {
            selector: SELECTOR.on(annotations),
            namespace_selector: NAMESPACE_SELECTOR.on(annotations),
            max_next_hops: MAX_NEXT_HOPS.on(annotations),
            policy: POLICY.on(annotations),
        };
        found.first().is_some().then_some(found)
    }

    /// The one that stands for all of them when the decision is explained.
    pub fn first(&self) -> Option<Found<'a>> {
        self.selector.or(self.policy).or(self.namespace_selector).or(self.max_next_hops)
    }

    /// The policies that the object names, in the order written, each once: all of them form the annotation tier together.
    /// Empty: it names none, so ask [`query`](Self::query).
    ///
    /// The annotation is one name, names with commas between, or a JSON list of names.
    ///
    /// # Errors
    /// What cannot be obeyed; the object's pods are to be held then, because obeying half would be a guess.
    pub fn policies(&self) -> Result<Vec<String>, Problem> {
        let Some(found) = self.policy else { return Ok(Vec::new()) };
        if let Some(other) = self.selector.or(self.namespace_selector) {
            let message = format!(
                "`{}` stands beside `{}`, and only one of them can hold: remove one",
                found.name, other.name
            );
            return Err(found.problem("SelectorAndPolicy", message));
        }
        if let Some(hops) = self.max_next_hops {
            self.limit(hops)?;
        }
        let texts = match found.value.trim() {
            json if json.starts_with('[') => list(found)?,
            text => text.split(',').map(|part| part.trim().to_owned()).collect(),
        };
        let mut names: Vec<String> = Vec::new();
        for name in texts {
            // Whether there is one of this name is asked later; here only slips of writing a list are caught.
            if name.is_empty()
                || name.contains(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '.'))
            {
                let message = format!(
                    "`{name}` is no name of an EgressGatewayPolicy: write one such as internet, or `a, b`"
                );
                return Err(found.problem("BadValue", message));
            }
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if names.is_empty() {
            return Err(found.problem("BadValue", "it names no policy: write one or remove the annotation"));
        }
        Ok(names)
    }

    /// The gateways that the object asks for by itself, if it names no policy.
    ///
    /// # Errors
    /// What cannot be obeyed; the object's pods are to be held then, because obeying half would be a guess.
    pub fn query(&self) -> Result<GatewayQuery, Problem> {
        let max_next_hops = self.max_next_hops.map(|hops| self.limit(hops)).transpose()?.flatten();
        let parse = |found: Found<'_>| {
            Selector::parse(found.value).map_err(|error| found.problem("SelectorSyntax", error.sentence()))
        };
        Ok(GatewayQuery {
            pods: self.selector.map_or_else(|| Ok(Selector::all()), parse)?,
            namespaces: self.namespace_selector.map(parse).transpose()?,
            max_next_hops,
        })
    }

    /// `0` asks for all gateways, as its absence does.
    fn limit(&self, hops: Found<'_>) -> Result<Option<u32>, Problem> {
        if self.selector.is_none() && self.namespace_selector.is_none() {
            let message = match self.policy {
                Some(_) => {
                    "it limits a selector: write maxNextHops into the rules of the policy instead".to_owned()
                }
                None => format!("it limits a selector, and this object has none: add `{}`", SELECTOR.name()),
            };
            return Err(hops.problem("MaxNextHopsAlone", message));
        }
        match hops.value.parse::<u32>() {
            Ok(most) => Ok(Some(most).filter(|most| *most > 0)),
            Err(_) => {
                let message =
                    format!("`{}` is not a whole number such as \"2\"; \"0\" means all gateways", hops.value);
                Err(hops.problem("BadValue", message))
            }
        }
    }
}

/// A pool as a gateway pod names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolRef {
    /// By name.
    Name(String),
    /// By its exact prefix.
    Cidr(Cidr),
}

/// What a pod asks for that wants to be a gateway.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GatewayRequest<'a> {
    /// Pools named, in order of preference, with the annotation that names them.
    pub pools: BTreeMap<Family, (Found<'a>, Vec<PoolRef>)>,
    /// Pools may be chosen for it.
    pub any: Option<Found<'a>>,
    /// Addresses asked for, with the annotation.
    pub addresses: Option<(Found<'a>, BTreeMap<Family, IpAddr>)>,
}

impl<'a> GatewayRequest<'a> {
    /// What one pod's annotations ask for; `None`: not to be a gateway.
    ///
    /// # Errors
    /// The first value that cannot be understood.
    pub fn on(annotations: &'a Pairs) -> Result<Option<GatewayRequest<'a>>, Problem> {
        let mut request = GatewayRequest::default();
        if let Some(gateway) = GATEWAY.on(annotations) {
            match gateway.value {
                "true" => request.any = Some(gateway),
                "false" => return Ok(None),
                other => {
                    let message = format!("`{other}` is neither \"true\" nor \"false\"");
                    return Err(gateway.problem("BadValue", message));
                }
            }
        }
        for (family, annotation) in [(Family::V4, IPV4_POOLS), (Family::V6, IPV6_POOLS)] {
            let Some(found) = annotation.on(annotations) else { continue };
            let pools =
                list(found)?.iter().map(|text| pool_ref(found, text)).collect::<Result<Vec<_>, _>>()?;
            if !pools.is_empty() {
                request.pools.insert(family, (found, pools));
            }
        }
        if let Some(found) = ADDRESS.on(annotations) {
            request.addresses = Some((found, addresses(found)?));
        }
        let asks = request.any.is_some() || !request.pools.is_empty() || request.addresses.is_some();
        Ok(asks.then_some(request))
    }

    /// Whether it asks in Calico's words alone. Where Calico is the primary, they say where a pod's own address comes from.
    pub fn is_in_calicos_words(&self) -> bool {
        let of_calico = |(found, _): &(Found<'_>, _)| found.name.starts_with("cni.projectcalico.org/");
        self.any.is_none() && self.addresses.is_none() && self.pools.values().all(of_calico)
    }
}

/// A JSON list of texts, or one bare text.
fn list(found: Found<'_>) -> Result<Vec<String>, Problem> {
    let text = found.value.trim();
    if text.starts_with('[') {
        return serde_json::from_str(text).map_err(|error| {
            found.problem(
                "BadValue",
                format!("`{text}` is not a JSON list of texts such as [\"egress-1\"]: {error}"),
            )
        });
    }
    if text.is_empty() || text.contains([',', ' ', '"', '\'', '{', '\n']) {
        let message = format!("`{text}` is neither a JSON list such as [\"egress-1\"] nor one bare name");
        return Err(found.problem("BadValue", message));
    }
    Ok(vec![text.to_owned()])
}

fn pool_ref(found: Found<'_>, text: &str) -> Result<PoolRef, Problem> {
    match text {
        "" => Err(found.problem("BadValue", "an empty text names no pool: remove it from the list")),
        _ if !text.contains('/') => Ok(PoolRef::Name(text.to_owned())),
        _ => text.parse().map(PoolRef::Cidr).map_err(|error| found.problem("BadValue", format!("{error}"))),
    }
}

/// One address per family: a JSON list, or texts with commas between.
fn addresses(found: Found<'_>) -> Result<BTreeMap<Family, IpAddr>, Problem> {
    let texts = match found.value.trim() {
        json if json.starts_with('[') => list(found)?,
        text => text.split(',').map(|part| part.trim().to_owned()).collect(),
    };
    let mut addresses = BTreeMap::new();
    for text in texts {
        let ip: IpAddr = text.parse().map_err(|_| {
            let message = format!("`{text}` is not an address such as 10.10.10.0 or fd00:10::1");
            found.problem("BadValue", message)
        })?;
        let family = Family::of(ip);
        if addresses.insert(family, ip).is_some() {
            let message = format!("asks for two {family} addresses, and a gateway has one: leave one");
            return Err(found.problem("BadValue", message));
        }
    }
    if addresses.is_empty() {
        return Err(found.problem("BadValue", "asks for no address: write one or remove the annotation"));
    }
    Ok(addresses)
}

/// Whether an object has any annotation that could matter here. Most have none, and this is asked of every pod.
pub fn concern_us(annotations: &Pairs) -> bool {
    annotations.keys().any(|name| is_ours(name))
}

#[cfg(test)]
mod tests;
