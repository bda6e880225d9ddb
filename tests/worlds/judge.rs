//! The judgement: what was predicted against what pods were told and what the outside recorded. Values in, sentences out.
//!
//! Never: decides who leaves how (`egret` says that, the story hands it in), raises or asks anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::ErrorKind;
use std::net::IpAddr;

use egret::addr::{Cidr, Family};
use egret::testbed::{Packet, Spot, node_address};

/// How many outside ports belong to one pod.
const PORTS: u16 = 4;

/// What a pod's packets to one destination should do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// Seen with one of these.
    Through(BTreeSet<IpAddr>),
    /// Seen as the primary network has it.
    Direct(IpAddr),
    /// Not seen, and told so.
    Held,
}

/// One prediction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) pod: String,
    /// First of the pod's outside ports.
    pub(crate) port: u16,
    /// Echo ids of its pings: those of this world's, and those of the flow that runs through all worlds.
    pub(crate) echoes: [u16; 2],
    pub(crate) to: IpAddr,
    pub(crate) way: Way,
}

impl Expected {
    fn allows(&self, source: IpAddr) -> bool {
        match &self.way {
            Way::Through(sources) => sources.contains(&source),
            Way::Direct(own) => *own == source,
            Way::Held => false,
        }
    }

    fn is_of(&self, packet: &Packet) -> bool {
        let ports = self.port..self.port + PORTS;
        let is_icmp = matches!(packet.protocol, 1 | 58);
        let by_port = |service: u16| ports.contains(&service) && !(is_icmp && packet.about.is_none());
        let by_echo = |service: u16| self.echoes.contains(&service) && is_icmp;
        packet.destination == self.to && packet.service.is_some_and(|s| by_port(s) || by_echo(s))
    }
}

/// How a pod asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Means {
    Tcp,
    Udp,
    Ping,
}

impl Means {
    pub(crate) const ALL: [Means; 3] = [Means::Tcp, Means::Udp, Means::Ping];

    fn protocol(self, family: Family) -> u8 {
        match (self, family) {
            (Means::Tcp, _) => 6,
            (Means::Udp, _) => 17,
            (Means::Ping, Family::V4) => 1,
            (Means::Ping, Family::V6) => 58,
        }
    }
}

/// What a pod was told: the source that the server named (a ping's answer names none), or how the network refused.
pub(crate) type Told = Result<Option<IpAddr>, ErrorKind>;

/// One question and its answer.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) port: u16,
    pub(crate) to: IpAddr,
    pub(crate) means: Means,
    pub(crate) told: Told,
}

/// Everything that was otherwise than predicted.
pub(crate) fn differences(
    expected: &[Expected],
    asked: &[Asked],
    packets: &[Packet],
    hidden: &[Cidr],
) -> Vec<String> {
    let mut wrong = leaks(&[expected], packets, hidden);
    let mut record: BTreeMap<(u16, IpAddr, u8), BTreeSet<IpAddr>> = BTreeMap::new();
    for packet in packets.iter().filter(|packet| packet.spot != Spot::Router) {
        if let Some(row) = expected.iter().find(|row| row.is_of(packet)) {
            record.entry((row.port, row.to, packet.protocol)).or_default().insert(packet.source);
        }
    }
    for row in expected {
        for means in Means::ALL {
            let told = asked.iter().find(|a| (a.port, a.to, a.means) == (row.port, row.to, means));
            let seen = record.get(&(row.port, row.to, means.protocol(Family::of(row.to))));
            if let Some(why) = difference(row, means, told.map(|asked| &asked.told), seen) {
                wrong.push(format!("{} {means:?} to {}: {why}; predicted: {}", row.pod, row.to, row.way));
            }
        }
    }
    wrong
}

fn difference(
    row: &Expected,
    means: Means,
    told: Option<&Told>,
    seen: Option<&BTreeSet<IpAddr>>,
) -> Option<String> {
    let told = told.map_or_else(|| Err("it was not asked".to_owned()), Ok);
    let told = match told {
        Ok(told) => told,
        Err(why) => return Some(why),
    };
    match (&row.way, told) {
        (Way::Held, Ok(_)) => Some("it was answered".to_owned()),
        (Way::Held, Err(kind)) if seen.is_some() => Some(format!("refused ({kind}), and seen as {seen:?}")),
        // A reset to a SYN reads as "connection refused"; how the others read depends on the family.
        (Way::Held, Err(kind)) if means == Means::Tcp && *kind != ErrorKind::ConnectionRefused => {
            Some(format!("no reset but {kind}"))
        }
        (Way::Held, Err(kind)) if *kind == ErrorKind::TimedOut => {
            Some("nobody said that it is held".to_owned())
        }
        (Way::Held, Err(_)) => None,
        (_, Err(kind)) => Some(format!("no answer ({kind}); the outside saw {seen:?}")),
        (_, Ok(Some(source))) if !row.allows(*source) => Some(format!("the server named {source}")),
        (_, Ok(_)) if seen.is_none() => {
            Some("an answer came from somewhere, the outside has no record".to_owned())
        }
        (_, Ok(_)) => None,
    }
}

/// All but what no pod said: resets of the nodes themselves.
pub(crate) fn without_nodes_resets(packets: Vec<Packet>) -> Vec<Packet> {
    let nodes = Family::BOTH.map(|family| [1, 2, 3].map(|node| node_address(node, family))).concat();
    let is_nodes = |packet: &Packet| packet.is_nodes_own_reset() && nodes.contains(&packet.source);
    packets.into_iter().filter(|packet| !is_nodes(packet)).collect()
}

/// Packets with a source that none of these predictions has for them, and packets that nobody accounts for with a source that is
/// to stay inside.
pub(crate) fn leaks(predictions: &[&[Expected]], packets: &[Packet], hidden: &[Cidr]) -> Vec<String> {
    let mut wrong = BTreeMap::<String, usize>::new();
    for packet in packets {
        let mut rows =
            predictions.iter().flat_map(|rows| rows.iter()).filter(|row| row.is_of(packet)).peekable();
        let known = rows.peek().map(|row| row.pod.clone());
        if rows.any(|row| row.allows(packet.source)) {
            continue;
        }
        let is_hidden = |ip: IpAddr| hidden.iter().any(|cidr| cidr.contains(ip));
        // A node or router speaks for itself about an address that the outside may know.
        let own_word = packet.about.is_some_and(|ip| !is_hidden(ip));
        match known {
            Some(pod) => *wrong.entry(format!("{pod} was seen so: {packet}")).or_default() += 1,
            None if is_hidden(packet.source) && !own_word => {
                *wrong.entry(format!("nobody accounts for {packet}")).or_default() += 1;
            }
            None => {}
        }
    }
    wrong.into_iter().map(|(what, times)| format!("{what} ({times}×)")).collect()
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Through(sources) => write!(f, "by a gateway, as {sources:?}"),
            Way::Direct(own) => write!(f, "direct, as {own}"),
            Way::Held => f.write_str("held"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: &str = "10.10.10.0";
    const NODE: &str = "172.30.0.1";
    const TO: &str = "198.51.100.100";

    fn row(way: Way) -> Expected {
        Expected {
            pod: "shop/cart".to_owned(),
            port: 20000,
            echoes: [33001, 33000],
            to: TO.parse().unwrap(),
            way,
        }
    }

    fn packet(source: &str, protocol: u8) -> Packet {
        Packet {
            spot: Spot::Outside,
            source: source.parse().unwrap(),
            destination: TO.parse().unwrap(),
            protocol,
            ports: (protocol != 1).then_some((40000, 20000)),
            flags: 0,
            hops: 62,
            service: Some(if protocol == 1 { 33001 } else { 20000 }),
            about: None,
        }
    }

    fn asked(told: impl Fn(Means) -> Told) -> Vec<Asked> {
        let to = TO.parse().unwrap();
        Means::ALL.map(|means| Asked { port: 20000, to, means, told: told(means) }).into()
    }

    fn record(source: &str) -> Vec<Packet> {
        [6, 17, 1].map(|protocol| packet(source, protocol)).into()
    }

    fn through() -> Way {
        Way::Through([LEASE.parse().unwrap()].into())
    }

    fn wrong(way: Way, told: impl Fn(Means) -> Told, packets: &[Packet]) -> usize {
        let hidden = ["172.30.0.0/24".parse().unwrap()];
        differences(&[row(way)], &asked(told), packets, &hidden).len()
    }

    fn answered(source: &str) -> impl Fn(Means) -> Told {
        move |means| Ok((means != Means::Ping).then(|| source.parse().unwrap()))
    }

    fn refused(means: Means) -> Told {
        Err(if means == Means::Tcp { ErrorKind::ConnectionRefused } else { ErrorKind::HostUnreachable })
    }

    #[test]
    fn what_was_predicted_is_no_difference() {
        assert_eq!(wrong(through(), answered(LEASE), &record(LEASE)), 0);
        assert_eq!(wrong(Way::Direct(NODE.parse().unwrap()), answered(NODE), &record(NODE)), 0);
        assert_eq!(wrong(Way::Held, refused, &[]), 0);
    }

    #[test]
    fn every_way_to_differ_is_named() {
        // Another address than predicted: named by the two servers that name any, and each of the three packets.
        assert_eq!(wrong(through(), answered(NODE), &record(NODE)), 2 + 3);
        assert_eq!(wrong(Way::Held, answered(NODE), &record(NODE)), 3 + 3);
        assert_eq!(wrong(through(), refused, &[]), 3);
        assert_eq!(wrong(through(), answered(LEASE), &[]), 3, "an answer without a record");
        assert_eq!(wrong(Way::Held, refused, &record(NODE)[..1]), 2, "one packet escaped");
        assert_eq!(wrong(Way::Held, |_| Err(ErrorKind::TimedOut), &[]), 3, "held without a word");
        assert_eq!(differences(&[row(through())], &[], &[], &[]).len(), 3, "never asked");
    }

    #[test]
    fn a_packet_that_nobody_accounts_for_is_a_leak_if_its_source_is_to_stay_inside() {
        let hidden = ["172.30.0.0/24".parse().unwrap()];
        let stray = |source: &str| Packet { service: Some(31000), ..packet(source, 17) };
        assert_eq!(leaks(&[&[row(Way::Held)]], &[stray(NODE), stray(NODE)], &hidden).len(), 1);
        assert_eq!(leaks(&[&[row(Way::Held)]], &[stray("203.0.113.9")], &hidden), [""; 0]);
        // An id that is a pod's port is nobody's echo.
        let echo = Packet { protocol: 1, ports: None, service: Some(20000), ..packet(NODE, 1) };
        assert_eq!(leaks(&[&[row(Way::Direct(NODE.parse().unwrap()))]], &[echo], &hidden).len(), 1);
        let about = |ip: &str| Packet { about: Some(ip.parse().unwrap()), ..stray(NODE) };
        assert_eq!(leaks(&[&[]], &[about(LEASE)], &hidden), [""; 0]);
        assert_eq!(leaks(&[&[]], &[about(NODE)], &hidden).len(), 1);
    }

    #[test]
    fn a_nodes_reset_is_nobodys_word_and_all_else_is() {
        let of = |source: &str, flags: u8| Packet { flags, hops: 63, ..packet(source, 6) };
        let node = node_address(2, Family::V4).to_string();
        let others = vec![
            of(&node, 0x14),
            of(&node, 2),
            of("10.60.1.2", 4),
            Packet { protocol: 17, ..of(&node, 4) },
            Packet { hops: 62, ..of(&node, 4) },
            Packet { spot: Spot::Router, ..of(&node, 4) },
        ];
        let all = [vec![of(&node, 4)], others.clone()].concat();
        assert_eq!(without_nodes_resets(all), others);
    }

    #[test]
    fn in_a_change_either_prediction_counts_and_nothing_else() {
        let (before, after) = ([row(Way::Direct(NODE.parse().unwrap()))], [row(through())]);
        let packets = [packet(NODE, 17), packet(LEASE, 17), packet("10.60.1.2", 17)];
        assert_eq!(leaks(&[&before, &after], &packets, &[]).len(), 1);
    }
}
