//! Where node gateways' interfaces lead, and what of their rules' destinations no packet reaches.
//!
//! In: a rule's outcome, what the gateway's node said of its interface. Out: rules as they end, for `explain` and `list`. Never: changes what
//! is done: clients go on sending to a gateway that has no way out just now, or their flows would end with each route that goes for a moment.

use std::collections::BTreeMap;

use crate::addr::Cidr;
use crate::egress::model::{Candidate, NodeGateway, Outcome, View};

/// Why nothing leaves though a gateway is chosen.
pub(super) struct NoWay {
    /// As a sentence.
    pub(super) reason: String,
    /// What would have to change.
    pub(super) change: String,
    /// The gateways, the chosen one with that reason.
    pub(super) candidates: Vec<Candidate>,
}

/// A prefix of which one thing is true.
pub(super) struct Part<'a> {
    /// The rule's own, or a subnet within it that is reached all the same.
    pub(super) prefix: Cidr,
    pub(super) rule: Cidr,
    pub(super) outcome: &'a Outcome,
    pub(super) no_way: Option<NoWay>,
}

/// Rules with the subnets that a gateway without a way out reaches none the less, by prefix. The longest decides, as with rules.
pub(super) fn parts<'a>(view: &View, rules: &'a BTreeMap<Cidr, Outcome>) -> Vec<Part<'a>> {
    let mut parts = Vec::with_capacity(rules.len());
    for (rule, outcome) in rules {
        let no_way = no_way(view, outcome, *rule);
        let reached = no_way.as_ref().and_then(|_| ways(view, chosen(outcome)?)).unwrap_or_default();
        let decides = |way: &&Cidr| {
            let holding = rules.keys().filter(|rule| rule.covers(**way));
            holding.max_by_key(|rule| rule.prefix()) == Some(rule) && *way != rule
        };
        let reached = reached.iter().filter(decides);
        parts.extend(reached.map(|way| Part { prefix: *way, rule: *rule, outcome, no_way: None }));
        parts.push(Part { prefix: *rule, rule: *rule, outcome, no_way });
    }
    parts.sort_by_key(|part| part.prefix);
    parts
}

/// Whether a rule's gateway has no way to a destination. Of a node that did not say where its interface leads nothing is known.
pub(super) fn no_way(view: &View, outcome: &Outcome, to: Cidr) -> Option<NoWay> {
    let gateway = chosen(outcome)?;
    let ways = ways(view, gateway)?;
    if ways.iter().any(|way| way.covers(to)) {
        return None;
    }
    let (node, dev, family) = (&gateway.node, NodeGateway::interface_in(&gateway.key)?, to.family());
    let near: Vec<String> =
        ways.iter().filter(|way| way.family() == family).map(ToString::to_string).collect();
    let reason = match near.is_empty() {
        true => format!(
            "interface {dev} of node {node} leads nowhere for {family}: what comes for it is dropped there"
        ),
        false => format!(
            "interface {dev} of node {node} leads to {} alone: what comes for anything else is dropped there",
            near.join(" and ")
        ),
    };
    let change = format!(
        "give a table of node {node} a default route by {dev} for {family}, in a table of its own if `main` shall not use it"
    );
    let mut candidates = outcome.candidates.to_vec();
    candidates.iter_mut().take(1).for_each(|chosen| chosen.unusable = Some(reason.clone()));
    Some(NoWay { reason, change, candidates })
}

/// The node gateway that a rule leads to: the first that it looked at.
fn chosen(outcome: &Outcome) -> Option<&Candidate> {
    outcome.candidates.first().filter(|gateway| gateway.pod.is_none() && gateway.unusable.is_none())
}

fn ways<'a>(view: &'a View, gateway: &Candidate) -> Option<&'a [Cidr]> {
    let dev = NodeGateway::interface_in(&gateway.key)?;
    let links = &view.interfaces.get(&gateway.node)?.links;
    links.iter().find(|link| link.name == dev)?.ways.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Family;
    use crate::egress::explain::{Explanation, Verdict, explain};
    use crate::egress::interfaces::{Interface, Interfaces};
    use crate::egress::list::list;
    use crate::egress::policy::{NodeGatewayWish, Policy, PolicyKind, PolicyRule, To};
    use crate::egress::world::{World, pairs, pod_name};

    const POLICY: &str = "egress.projectcalico.org/egressGatewayPolicy";

    /// `shop/cart` goes by eth1 of node n2, which leads there; `None`: n2 did not say where.
    fn world(prefixes: &[&str], ways: Option<&[&str]>) -> View {
        let mut view = View::default().node("n1", &["192.168.0.1"]).node("n2", &["192.168.0.2"]);
        view = view.pod("shop/cart", "", &[(POLICY, "edge")]);
        view.nodes.get_mut("n2").unwrap().labels = pairs("edge=yes");
        let wish =
            NodeGatewayWish { nodes: "has(edge)".into(), interface: Some("eth1".into()), egress_ip: None };
        let to = To::Nodes(vec![wish]);
        let rule = |prefix: &&str| PolicyRule {
            destination: prefix.parse().unwrap(),
            field: "spec.rules[0]".into(),
            to: to.clone(),
        };
        let policy = Policy {
            name: "edge".into(),
            kind: PolicyKind::Ours,
            created: None,
            enforced: false,
            selectors: Vec::new(),
            rules: prefixes.iter().map(rule).collect(),
            deny_others: false,
            ignores_other_family: true,
            unfit: Vec::new(),
        };
        view.policies.insert("edge".into(), policy);
        let eth1 = Interface {
            name: "eth1".into(),
            altnames: Vec::new(),
            addresses: vec!["172.31.2.2".parse().unwrap()],
            ways: ways.map(|ways| ways.iter().map(|way| way.parse().unwrap()).collect()),
        };
        let said = Interfaces { links: vec![eth1], default4: None, default6: None };
        view.interfaces.insert("n2".into(), said);
        view
    }

    fn asked(view: &View, to: &str) -> Explanation {
        explain(view, &pod_name("shop/cart"), Some(to.parse().unwrap()))
    }

    /// What is said of each prefix.
    fn said(view: &View) -> Vec<String> {
        let rows = list(view, [pod_name("shop/cart")]).items.into_iter();
        let rows = rows.filter(|row| row.destination.family() == Family::V4);
        let listed: Vec<_> = rows.map(|row| format!("{} {:?}", row.destination, row.action)).collect();
        let items = explain(view, &pod_name("shop/cart"), None).items.into_iter();
        let items = items.filter(|item| !item.destination.contains(':'));
        let explained: Vec<_> = items.map(|item| format!("{} {:?}", item.destination, item.action)).collect();
        assert!(explained.iter().all(|item| listed.contains(item)), "{listed:?} {explained:?}");
        listed
    }

    #[test]
    fn a_node_gateway_without_a_way_out_is_said_to_let_nothing_out_but_to_its_own_subnet() {
        let view = world(&["0.0.0.0/0"], Some(&["172.31.2.0/24"]));
        assert_eq!(said(&view), ["0.0.0.0/0 Held", "172.31.2.0/24 Gateway"]);
        let away = asked(&view, "198.51.100.1");
        let item = &away.items[0];
        assert_eq!((item.action, item.sources.len()), (Verdict::Held, 0), "{away}");
        assert!(item.reason.contains("interface eth1 of node n2 leads to 172.31.2.0/24 alone"), "{away}");
        assert!(item.change[0].contains("a default route by eth1 for IPv4"), "{away}");
        assert!(!item.gateways[0].usable, "{away}");
        let near = asked(&view, "172.31.2.254");
        assert_eq!(near.items[0].sources, ["172.31.2.2".parse::<std::net::IpAddr>().unwrap()], "{near}");
        let nowhere = world(&["0.0.0.0/0"], Some(&[]));
        assert_eq!(said(&nowhere), ["0.0.0.0/0 Held"]);
        assert!(asked(&nowhere, "198.51.100.1").items[0].reason.contains("leads nowhere for IPv4"));
    }

    #[test]
    fn one_that_leads_everywhere_or_of_which_nobody_said_where_is_said_to_let_all_out() {
        for ways in [Some(&["172.31.2.0/24", "0.0.0.0/0"][..]), None] {
            let view = world(&["0.0.0.0/0"], ways);
            assert_eq!(said(&view), ["0.0.0.0/0 Gateway"]);
            assert_eq!(asked(&view, "198.51.100.1").items[0].action, Verdict::Gateway);
        }
    }

    #[test]
    fn a_rule_for_its_own_subnet_needs_no_way_out_and_a_longer_rule_decides_of_its_part() {
        let subnet = Some(&["172.31.2.0/24"][..]);
        assert_eq!(said(&world(&["172.31.2.0/25"], subnet)), ["0.0.0.0/0 Direct", "172.31.2.0/25 Gateway"]);
        let longer = world(&["0.0.0.0/0", "172.31.0.0/16"], subnet);
        assert_eq!(said(&longer), ["0.0.0.0/0 Held", "172.31.0.0/16 Held", "172.31.2.0/24 Gateway"]);
    }
}
