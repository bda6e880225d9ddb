//! A random world, in its own words: neither manifests nor the resolver's types.

use std::net::IpAddr;

use egret::addr::Cidr;

use crate::cidr;

#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    /// Pods' annotations are not read.
    pub(crate) namespaces_only: bool,
    pub(crate) nodes: Vec<Node>,
    pub(crate) namespaces: Vec<Namespace>,
    /// Who may use the pool of IPv4, and that of IPv6.
    pub(crate) pools: [Clients; 2],
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) pods: Vec<Pod>,
    pub(crate) policies: Vec<Policy>,
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) zone: Option<char>,
    /// Its IPv4 InternalIP, on eth0.
    pub(crate) ip: Option<IpAddr>,
    /// What it said: eth0, then eth1, with their addresses; `None`: nothing.
    pub(crate) interfaces: Option<[Vec<IpAddr>; 2]>,
}

#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    pub(crate) name: String,
    pub(crate) team: Option<char>,
    pub(crate) wish: Option<Wish>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Clients {
    #[default]
    All,
    OwnNamespace,
    Team(char),
}

#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    pub(crate) namespace: String,
    pub(crate) colour: char,
    pub(crate) node: usize,
    pub(crate) addresses: [Option<IpAddr>; 2],
    pub(crate) ready: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) app: Option<char>,
    pub(crate) node: Option<usize>,
    pub(crate) host_network: bool,
    pub(crate) wish: Option<Wish>,
    pub(crate) uid: String,
}

/// What annotations say.
#[derive(Debug, Clone)]
pub(crate) enum Wish {
    Gateways(Gateways),
    Policies(Vec<usize>),
    /// A selector and a policy on one object.
    Both,
    /// A selector that does not parse.
    Garbled,
}

#[derive(Debug, Clone)]
pub(crate) struct Gateways {
    pub(crate) colour: char,
    /// `None`: the client's own namespace; `Some(None)`: all.
    pub(crate) namespaces: Option<Option<char>>,
    pub(crate) most: Option<usize>,
    pub(crate) prefer_local: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Ours,
    Calico,
    Cilium,
}

#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) kind: Kind,
    pub(crate) created: Option<u8>,
    pub(crate) enforced: bool,
    pub(crate) selections: Vec<Selection>,
    pub(crate) rules: Vec<(Cidr, To)>,
    pub(crate) excluded: Vec<Cidr>,
    pub(crate) deny: bool,
    /// Something in it makes it unfit.
    pub(crate) garbled: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Selection {
    pub(crate) app: Option<char>,
    pub(crate) team: Option<char>,
    pub(crate) zone: Option<char>,
}

#[derive(Debug, Clone)]
pub(crate) enum To {
    Direct,
    Pods(Gateways),
    Nodes(Vec<NodeWish>),
}

#[derive(Debug, Clone)]
pub(crate) struct NodeWish {
    pub(crate) zone: Option<char>,
    pub(crate) by: By,
}

#[derive(Debug, Clone)]
pub(crate) enum By {
    DefaultRoute,
    Interface(usize),
    Address(IpAddr),
}

/// Destinations that tell the prefixes of all rules apart.
pub(crate) fn destinations() -> impl Iterator<Item = IpAddr> {
    let all =
        ["203.0.113.200", "203.0.113.1", "203.0.1.1", "8.8.8.8", "2001:db8:1::1", "2001:db8:2::1", "2620::1"];
    all.into_iter().map(|ip| ip.parse().unwrap())
}

const PREFIXES: [&str; 7] = [
    "0.0.0.0/0",
    "::/0",
    "203.0.0.0/16",
    "203.0.113.0/24",
    "203.0.113.128/25",
    "2001:db8::/32",
    "2001:db8:1::/48",
];

/// A stream of choices; at its end always the first.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn of(&mut self, n: usize) -> usize {
        self.0.next().map_or(0, |byte| usize::from(*byte) % n)
    }

    /// True one time of `n`.
    fn rarely(&mut self, n: usize) -> bool {
        self.of(n) == n - 1
    }

    fn word(&mut self, words: &str) -> char {
        let n = self.of(words.len());
        words.chars().nth(n).unwrap()
    }

    fn perhaps(&mut self, words: &str) -> Option<char> {
        (self.of(2) == 1).then(|| self.word(words))
    }

    fn cidr(&mut self) -> Cidr {
        cidr(PREFIXES[self.of(PREFIXES.len())])
    }
}

impl World {
    pub(crate) fn of(choices: &[u8]) -> World {
        let c = &mut Choices(choices.iter());
        let mut world = World { namespaces_only: c.rarely(5), ..World::default() };
        world.nodes = (0..3).map(|n| node(n, c)).collect();
        world.pools = [0, 1].map(|_| match c.of(4) {
            0 | 1 => Clients::All,
            2 => Clients::OwnNamespace,
            _ => Clients::Team(c.word("xy")),
        });
        let policies = c.of(5);
        let wish = |c: &mut Choices<'_>| (c.of(2) == 1).then(|| wish(policies, c));
        world.namespaces = ["a", "b"]
            .map(|name| Namespace { name: name.into(), team: c.perhaps("xy"), wish: wish(c) })
            .into();
        world.gateways = (0..c.of(5)).map(|n| gateway(n, c)).collect();
        world.pods = (0..=c.of(4))
            .map(|n| Pod {
                namespace: c.word("ab").into(),
                app: c.perhaps("xy"),
                node: [None, Some(0), Some(1), Some(2)][c.of(4)],
                host_network: c.rarely(9),
                wish: wish(c),
                uid: format!("00000000-0000-4000-8000-{n:012}"),
            })
            .collect();
        world.policies = (0..policies).map(|_| policy(c)).collect();
        world
    }
}

fn node(n: usize, c: &mut Choices<'_>) -> Node {
    let ip = |text: String| text.parse::<IpAddr>().unwrap();
    let own = (!c.rarely(6)).then(|| ip(format!("192.168.0.{}", n + 1)));
    let mut eth1 = Vec::new();
    if !c.rarely(4) {
        eth1.push(ip(format!("198.18.0.{}", n + 1)));
    }
    if c.of(2) == 1 {
        eth1.push(ip(format!("2001:db8:ffff::{}", n + 1)));
    }
    let said = !c.rarely(6);
    Node { zone: c.perhaps("ab"), ip: own, interfaces: said.then(|| [own.into_iter().collect(), eth1]) }
}

fn gateway(n: usize, c: &mut Choices<'_>) -> Gateway {
    let v4 = (!c.rarely(4)).then(|| format!("10.10.0.{}", n + 1).parse().unwrap());
    let v6 = (c.of(2) == 1 || v4.is_none()).then(|| format!("fd10::{}", n + 1).parse().unwrap());
    Gateway {
        namespace: c.word("ab").into(),
        colour: c.word("rg"),
        node: c.of(3),
        addresses: [v4, v6],
        ready: !c.rarely(4),
    }
}

fn gateways(in_policy: Option<Kind>, c: &mut Choices<'_>) -> Gateways {
    let named = in_policy == Some(Kind::Calico) || c.of(3) > 0;
    Gateways {
        colour: c.word("rg"),
        namespaces: named.then(|| c.perhaps("xy")),
        most: [None, None, Some(0), Some(1), Some(2)][c.of(5)],
        prefer_local: in_policy.is_some() && c.of(3) == 2,
    }
}

fn wish(policies: usize, c: &mut Choices<'_>) -> Wish {
    match c.of(8) {
        0..=2 => Wish::Gateways(gateways(None, c)),
        // One more than there are: nobody has that name.
        3..=5 => Wish::Policies((0..=c.of(2)).map(|_| c.of(policies + 1)).collect()),
        6 => Wish::Both,
        _ => Wish::Garbled,
    }
}

fn policy(c: &mut Choices<'_>) -> Policy {
    let kind = [Kind::Ours, Kind::Calico, Kind::Cilium][c.of(3)];
    let selects = match kind {
        Kind::Ours => c.of(3),
        Kind::Calico => 0,
        Kind::Cilium => 1 + c.of(2),
    };
    let selection = |c: &mut Choices<'_>| Selection {
        app: c.perhaps("xy"),
        team: c.perhaps("xy"),
        zone: if c.rarely(3) { Some(c.word("ab")) } else { None },
    };
    let selections: Vec<Selection> = (0..selects).map(|_| selection(c)).collect();
    let nodes: Vec<NodeWish> = (0..=c.of(2)).map(|_| node_wish(c)).collect();
    let mut rules: Vec<(Cidr, To)> = Vec::new();
    for _ in 0..=c.of(4) {
        let cidr = c.cidr();
        let to = match (kind, c.of(4)) {
            (Kind::Cilium, _) | (Kind::Ours, 3) => To::Nodes(nodes.clone()),
            (_, 2) => To::Direct,
            _ => To::Pods(gateways(Some(kind), c)),
        };
        if rules.iter().all(|(other, _)| *other != cidr) {
            rules.push((cidr, to));
        }
    }
    let excluded = if kind == Kind::Calico { 0 } else { c.of(3) };
    Policy {
        kind,
        created: [None, Some(1), Some(2)][c.of(3)],
        enforced: kind == Kind::Ours && !selections.is_empty() && c.of(2) == 1,
        excluded: (0..excluded).map(|_| c.cidr()).collect(),
        deny: kind == Kind::Ours && c.of(4) == 3,
        garbled: c.rarely(10),
        selections,
        rules,
    }
}

fn node_wish(c: &mut Choices<'_>) -> NodeWish {
    let address = ["198.18.0.1", "198.18.0.2", "192.168.0.3", "2001:db8:ffff::1"];
    NodeWish {
        zone: c.perhaps("ab"),
        by: match c.of(4) {
            0 => By::DefaultRoute,
            1 | 2 => By::Interface(c.of(2)),
            _ => By::Address(address[c.of(4)].parse().unwrap()),
        },
    }
}
