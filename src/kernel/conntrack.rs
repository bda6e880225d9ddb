//! What the kernel remembers about flows: forgetting those of one source, and rewriting marks.
//!
//! In: an address, prefixes, marks. Out: how many entries were touched. Never: knows what a mark means. Everything happens in the
//! network namespace of the calling thread. The format: linux/netfilter/nfnetlink_conntrack.h.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addr::{Cidr, Family};
use crate::kernel::nfnetlink::{self, ACK, Attributes, DUMP, Netfilter, Refusal, Reply, Request};

const SUBSYSTEM: u16 = 1;
const NEW: u16 = 0;
const GET: u16 = 1;
const DELETE: u16 = 2;
const GET_STATS: u16 = 5;
const STATS_ENTRIES: u16 = 1;

const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const PROTOCOL_STATE: u16 = 4;
const MARK: u16 = 8;
const ID: u16 = 12;
const ZONE: u16 = 18;
const MARK_MASK: u16 = 21;
const FILTER: u16 = 25;
const TUPLE_IP: u16 = 1;

/// Why conntrack could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel does not speak of its flows.
    #[error(
        "this kernel does not let its connection tracking be read; load the module nf_conntrack_netlink ({reason})"
    )]
    Missing {
        /// The kernel's words.
        reason: String,
    },
    /// The entries could not be listed.
    #[error("could not list conntrack entries: {reason}")]
    NotListed {
        /// The kernel's words.
        reason: String,
    },
    /// Some entries could not be changed. The others were.
    #[error("could not {verb} {refused} of {matching} conntrack entries: {reason}; the others were done")]
    NotChanged {
        /// `delete` or `mark`.
        verb: &'static str,
        /// How many the kernel refused.
        refused: usize,
        /// How many were meant.
        matching: usize,
        /// The kernel's words about the first.
        reason: String,
    },
}

/// Entries whose mark has this value under this mask. A mask of 0 means all entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkFilter {
    /// Value; bits outside the mask do not count.
    pub value: u32,
    /// Which bits are looked at.
    pub mask: u32,
}

impl MarkFilter {
    /// All entries.
    pub const ALL: MarkFilter = MarkFilter { value: 0, mask: 0 };

    fn matches(self, mark: u32) -> bool {
        (mark ^ self.value) & self.mask == 0
    }
}

/// Deletes the entries of flows that this address opened to anything outside `keep`, and tells how many.
///
/// *To* means where its packets really go, after DNAT: a flow to a service address counts by the pod behind it. Flows that others
/// opened to the address stay. An entry that ends by itself meanwhile is not counted.
pub fn forget(source: IpAddr, keep: &[Cidr]) -> Result<usize, Error> {
    forget_or_mark(&BTreeSet::from([source]), keep, |_| None)
}

/// The same for many addresses in one listing, because each walks the table of the whole machine; and where `mark` names bits
/// (value, mask) for an address, established TCP, and whatever leaves with this very address, keep their entries and get these bits in
/// their marks: without the entry the far end's next packet would look like a flow that the far end opened.
pub fn forget_or_mark(
    sources: &BTreeSet<IpAddr>,
    keep: &[Cidr],
    mark: impl Fn(IpAddr) -> Option<(u32, u32)>,
) -> Result<usize, Error> {
    let mut socket = open()?;
    if sources.is_empty() || tracks_nothing(&mut socket) {
        return Ok(0);
    }
    until_none_is_left(|| forget_once(&mut socket, sources, keep, &mark))
}

/// The table is one hash for all namespaces, and a listing that others change meanwhile can skip an entry (seen on a busy
/// machine). So what found something looks again.
fn until_none_is_left(mut pass: impl FnMut() -> Result<usize, Error>) -> Result<usize, Error> {
    const PASSES: usize = 8;
    let mut all = 0;
    for _ in 0..PASSES {
        let found = pass()?;
        all += found;
        if found == 0 {
            break;
        }
    }
    Ok(all)
}

fn forget_once(
    socket: &mut Netfilter,
    sources: &BTreeSet<IpAddr>,
    keep: &[Cidr],
    mark: impl Fn(IpAddr) -> Option<(u32, u32)>,
) -> Result<usize, Error> {
    let (mut requests, mut marks) = (Vec::new(), Vec::new());
    // The kernel filters by one source at most.
    let only = sources.first().copied().filter(|_| sources.len() == 1);
    list(socket, MarkFilter::ALL, only, |entry| {
        let Some(source) = entry.source().filter(|source| sources.contains(source)) else { return };
        let real = entry.real_destination();
        if real.is_none_or(|to| !keep.iter().any(|prefix| prefix.contains(to))) {
            if let Some((value, mask)) = mark(source)
                && (entry.is_established_tcp() || entry.is_answered_at(source))
            {
                if (MarkFilter { value, mask }).matches(entry.mark()) {
                    return;
                }
                return marks.push(entry.marked((value, mask)));
            }
            requests.push(entry.deleted());
        }
    })?;
    let marked = change(socket, "mark", marks)?;
    Ok(marked + change(socket, "delete", requests)?)
}

/// Writes the bits `set.0` under the mask `set.1` into the mark of every entry that the filter and the source (of the flow's first
/// packet, before NAT) match, and tells how many. Other bits stay, even if somebody writes them meanwhile.
pub fn remark(filter: MarkFilter, source: Option<IpAddr>, set: (u32, u32)) -> Result<usize, Error> {
    remark_listed(filter, source, |_, _| true, set)
}

/// The same for every entry that `meant` picks by source and mark, in one listing.
pub fn remark_where(meant: impl Fn(IpAddr, u32) -> bool, set: (u32, u32)) -> Result<usize, Error> {
    remark_listed(MarkFilter::ALL, None, meant, set)
}

fn remark_listed(
    filter: MarkFilter,
    source: Option<IpAddr>,
    meant: impl Fn(IpAddr, u32) -> bool,
    set: (u32, u32),
) -> Result<usize, Error> {
    let mut socket = open()?;
    if tracks_nothing(&mut socket) {
        return Ok(0);
    }
    let (value, mask) = set;
    until_none_is_left(|| {
        let mut requests = Vec::new();
        list(&mut socket, filter, source, |entry| {
            let meant = entry.source().is_some_and(|source| meant(source, entry.mark()));
            if meant && !(MarkFilter { value, mask }).matches(entry.mark()) {
                requests.push(entry.marked(set));
            }
        })?;
        change(&mut socket, "mark", requests)
    })
}

/// One flow, as far as it is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Who opened it, before NAT.
    pub source: IpAddr,
    /// Where its packets really go, after DNAT.
    pub to: Option<IpAddr>,
    /// Its mark.
    pub mark: u32,
    /// The far end answers to `source`: nobody translates it.
    pub bare: bool,
    /// TCP that went through its handshake and is not closed.
    pub established_tcp: bool,
}

/// What is done with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sentence {
    /// Nothing.
    Keep,
    /// These bits (value, mask) are written into its mark.
    Mark(u32, u32),
    /// It is deleted.
    Delete,
}

/// Judges every flow that the filter and the source match, and tells how many were not kept.
pub fn judge(
    filter: MarkFilter,
    source: Option<IpAddr>,
    sentence: impl Fn(&Flow) -> Sentence,
) -> Result<usize, Error> {
    let mut socket = open()?;
    if tracks_nothing(&mut socket) {
        return Ok(0);
    }
    until_none_is_left(|| {
        let (mut deletions, mut marks) = (Vec::new(), Vec::new());
        list(&mut socket, filter, source, |entry| {
            let Some(source) = entry.source() else { return };
            let flow = Flow {
                source,
                to: entry.real_destination(),
                mark: entry.mark(),
                bare: entry.is_answered_at(source),
                established_tcp: entry.is_established_tcp(),
            };
            match sentence(&flow) {
                Sentence::Keep => {}
                Sentence::Delete => deletions.push(entry.deleted()),
                Sentence::Mark(value, mask) if (MarkFilter { value, mask }).matches(flow.mark) => {}
                Sentence::Mark(value, mask) => marks.push(entry.marked((value, mask))),
            }
        })?;
        Ok(change(&mut socket, "mark", marks)? + change(&mut socket, "delete", deletions)?)
    })
}

/// How many entries the filter matches.
pub fn count(filter: MarkFilter) -> Result<usize, Error> {
    let mut found = 0;
    list(&mut open()?, filter, None, |_| found += 1)?;
    Ok(found)
}

/// Whether this namespace has no entry at all, by the kernel's own count. A listing walks the table of the whole machine and takes
/// the lock of each of its 262,144 buckets: 5 to 15 ms, however few the entries. `false` also where the kernel does not tell.
fn tracks_nothing(socket: &mut Netfilter) -> bool {
    let mut entries = None;
    let asked = socket.ask(Request::new(SUBSYSTEM, GET_STATS, ACK, 0), |reply| {
        entries = reply.attributes.u32(STATS_ENTRIES);
    });
    asked.is_ok() && entries == Some(0)
}

fn open() -> Result<Netfilter, Error> {
    Netfilter::open().map_err(|error| refused(&error))
}

fn refused(error: &nfnetlink::Error) -> Error {
    let reason = error.to_string();
    match error.errno() {
        // nfnetlink answers EINVAL to a subsystem that is not there, and sees to loading the module first.
        Some(libc::EINVAL | libc::EPROTONOSUPPORT | libc::EOPNOTSUPP) => Error::Missing { reason },
        _ => Error::NotListed { reason },
    }
}

/// One flow.
struct Entry<'a> {
    family: u8,
    attributes: Attributes<'a>,
}

impl Entry<'_> {
    fn source(&self) -> Option<IpAddr> {
        source_of(self.attributes.inside(TUPLE_ORIG))
    }

    fn mark(&self) -> u32 {
        self.attributes.u32(MARK).unwrap_or(0)
    }

    /// Where the packets go after DNAT is where the answers come from.
    fn real_destination(&self) -> Option<IpAddr> {
        source_of(self.attributes.inside(TUPLE_REPLY))
    }

    /// Whether the far end answers to this address: nobody translates it.
    fn is_answered_at(&self, source: IpAddr) -> bool {
        destination_of(self.attributes.inside(TUPLE_REPLY)) == Some(source)
    }

    /// TCP that went through its handshake and is not closed (enum tcp_conntrack of linux/netfilter/nf_conntrack_tcp.h).
    fn is_established_tcp(&self) -> bool {
        const ESTABLISHED_TO_LAST_ACK: std::ops::RangeInclusive<u8> = 3..=6;
        let state = self.attributes.inside(PROTOCOL_STATE).inside(1).get(1).and_then(<[u8]>::first);
        state.is_some_and(|state| ESTABLISHED_TO_LAST_ACK.contains(state))
    }

    /// A request that writes the bits `value` under `mask` into its mark.
    fn marked(&self, (value, mask): (u32, u32)) -> Request {
        let mut request = self.request(NEW);
        request.put_u32(MARK, value & mask).put_u32(MARK_MASK, mask);
        request
    }

    /// A request that deletes it. The tuple may belong to a new flow by the time the kernel looks; the id tells them apart.
    fn deleted(&self) -> Request {
        let mut request = self.request(DELETE);
        if let Some(id) = self.attributes.get(ID) {
            request.put(ID, id);
        }
        request
    }

    /// A request about just this entry.
    fn request(&self, message: u16) -> Request {
        let mut request = Request::new(SUBSYSTEM, message, 0, self.family);
        request.put_nested(TUPLE_ORIG, self.attributes.get(TUPLE_ORIG).unwrap_or_default());
        if let Some(zone) = self.attributes.get(ZONE) {
            request.put(ZONE, zone);
        }
        request
    }
}

fn source_of(tuple: Attributes<'_>) -> Option<IpAddr> {
    address_of(tuple, 1, 3)
}

fn destination_of(tuple: Attributes<'_>) -> Option<IpAddr> {
    address_of(tuple, 2, 4)
}

fn address_of(tuple: Attributes<'_>, v4: u16, v6: u16) -> Option<IpAddr> {
    let ip = tuple.inside(TUPLE_IP);
    let v4 = ip.get(v4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    let v6 = ip.get(v6).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    v4.map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes))).or(v6.map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes))))
}

fn list(
    socket: &mut Netfilter,
    filter: MarkFilter,
    source: Option<IpAddr>,
    mut each: impl FnMut(Entry<'_>),
) -> Result<(), Error> {
    let visit = |reply: Reply<'_>| {
        let entry = Entry { family: reply.family, attributes: reply.attributes };
        // The kernel has filtered already (by mark always, by IPv4 source since 5.8); that is speed, this is the rule.
        let marked = filter.matches(entry.mark());
        if marked && source.is_none_or(|source| entry.source() == Some(source)) {
            each(entry);
        }
    };
    socket.ask(dump(filter, source), visit).map_err(|error| refused(&error))
}

/// A listing that the kernel filters: on a node with 100,000 flows reading all of them takes a tenth of a second.
fn dump(filter: MarkFilter, source: Option<IpAddr>) -> Request {
    const ORIG_FLAGS: u16 = 1;
    const BY_SOURCE_ADDRESS: u32 = 1;
    let family = match source.map(Family::of) {
        Some(Family::V4) => libc::AF_INET,
        Some(Family::V6) => libc::AF_INET6,
        None => libc::AF_UNSPEC,
    };
    let mut request = Request::new(SUBSYSTEM, GET, DUMP, u8::try_from(family).unwrap_or(0));
    if filter.mask != 0 {
        request.put_u32(MARK, filter.value & filter.mask).put_u32(MARK_MASK, filter.mask);
    }
    // For IPv6 the kernel takes this filter the wrong way round and lists all others (5.8 to 6.18 at least), so we do without.
    if let Some(IpAddr::V4(source)) = source {
        request.nest(TUPLE_ORIG, |tuple| {
            tuple.nest(TUPLE_IP, |ip| {
                ip.put(1, &source.octets());
            });
        });
        // These flags are in this machine's byte order.
        request.nest(FILTER, |filter| {
            filter.put(ORIG_FLAGS, &BY_SOURCE_ADDRESS.to_ne_bytes());
        });
    }
    request
}

fn change(socket: &mut Netfilter, verb: &'static str, requests: Vec<Request>) -> Result<usize, Error> {
    let matching = requests.len();
    let Err(refusals) = socket.each(requests) else { return Ok(matching) };
    // Flows end by themselves all the time.
    let (gone, refused): (Vec<Refusal>, Vec<Refusal>) =
        refusals.into_iter().partition(|refusal| refusal.errno == libc::ENOENT && refusal.request.is_some());
    match refused.first() {
        None => Ok(matching - gone.len()),
        Some(first) => {
            Err(Error::NotChanged { verb, refused: refused.len(), matching, reason: first.to_string() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::sandbox::Namespace;
    use std::net::{SocketAddr, UdpSocket};

    /// A machine with a few addresses that tracks flows between them; port 1000 + N gets the mark N, 10.96.0.1 is a service
    /// whose pod is 10.0.0.9, 10.96.0.2 one whose server is 198.51.100.9.
    fn machine() -> Namespace {
        let namespace = Namespace::new();
        namespace.sh(
            "for a in 10.0.0.1 10.0.0.2 10.0.0.9 198.51.100.1 198.51.100.9; do ip addr add $a/32 dev lo; done
             for a in fd00::1 fd00::2 2001:db8::1; do ip addr add $a/128 dev lo nodad; done
             ip route add 10.96.0.0/16 dev lo
             nft -f - <<N
             table inet t {
               map marks { type inet_service : mark; elements = { 1001 : 0x111, 1002 : 0x2ff, 1003 : 0x7fffff33 }; }
               chain output { type filter hook output priority 0; ct mark set udp dport map @marks; }
               chain nat { type nat hook output priority -100;
                 ip daddr 10.96.0.1 dnat ip to 10.0.0.9
                 ip daddr 10.96.0.2 dnat ip to 198.51.100.9
               }
             }\nN",
        );
        namespace
    }

    fn flow(machine: &Namespace, from: &str, to: &str) {
        let (from, to): (IpAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        machine.run(|| {
            let socket = UdpSocket::bind((from, 0)).unwrap();
            // Nobody listens, so the second packet may report that; the entry exists all the same.
            let _ = socket.send_to(b"x", to);
        });
    }

    /// `source destination` of the first packet of each flow, as the conntrack tool lists them.
    /// Everything that a few listings show: one alone may skip entries while other tests change theirs.
    fn listing(machine: &Namespace) -> String {
        let mut seen = std::collections::BTreeMap::new();
        for _ in 0..5 {
            for line in machine.sh("conntrack -L 2>/dev/null").lines() {
                // Without the time that is left, and counters.
                let same: Vec<&str> =
                    line.split_whitespace().filter(|word| word.contains(['=', ':'])).collect();
                let same = same
                    .iter()
                    .filter(|word| !word.starts_with("use="))
                    .copied()
                    .collect::<Vec<_>>()
                    .join(" ");
                seen.insert(same, line.to_owned());
            }
        }
        seen.into_values().collect::<Vec<_>>().join("\n")
    }

    fn flows(machine: &Namespace) -> Vec<String> {
        let listed = listing(machine);
        let field = |line: &str, name: &str| {
            line.split_whitespace().find_map(|word| word.strip_prefix(name)).unwrap().to_owned()
        };
        let udp = listed.lines().filter(|line| line.starts_with("udp"));
        let mut flows: Vec<String> =
            udp.map(|line| format!("{} {}", field(line, "src="), field(line, "dst="))).collect();
        flows.sort();
        flows
    }

    fn marks(machine: &Namespace) -> Vec<u32> {
        let listed = listing(machine);
        let udp = listed.lines().filter(|line| line.starts_with("udp"));
        let mark =
            |line: &str| line.split_whitespace().find_map(|word| word.strip_prefix("mark=")?.parse().ok());
        let mut marks: Vec<u32> = udp.filter_map(mark).collect();
        marks.sort_unstable();
        marks
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn forgetting_a_source_takes_its_own_flows_to_the_outside_and_no_other() {
        let machine = machine();
        for (from, to) in [
            ("10.0.0.1", "198.51.100.1:9"),
            ("10.0.0.1", "198.51.100.1:10"),
            ("10.0.0.1", "10.96.0.2:9"),
            ("10.0.0.1", "10.0.0.2:9"),
            ("10.0.0.1", "10.96.0.1:9"),
            ("10.0.0.2", "198.51.100.1:9"),
            ("198.51.100.1", "10.0.0.1:9"),
            ("fd00::1", "[2001:db8::1]:9"),
            ("fd00::1", "[fd00::2]:9"),
        ] {
            flow(&machine, from, to);
        }
        assert_eq!(flows(&machine).len(), 9);
        let keep = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        assert_eq!(machine.run(|| forget(ip("10.0.0.1"), &keep)).unwrap(), 3);
        assert_eq!(
            flows(&machine),
            [
                "10.0.0.1 10.0.0.2",
                "10.0.0.1 10.96.0.1",
                "10.0.0.2 198.51.100.1",
                "198.51.100.1 10.0.0.1",
                "fd00::1 2001:db8::1",
                "fd00::1 fd00::2"
            ],
            "the service whose server is outside went by its real destination"
        );
        assert_eq!(machine.run(|| forget(ip("fd00::1"), &keep)).unwrap(), 1);
        assert_eq!(machine.run(|| forget(ip("fd00::1"), &keep)).unwrap(), 0);
        assert_eq!(machine.run(|| forget(ip("10.0.0.1"), &[])).unwrap(), 2);
        assert_eq!(flows(&machine), ["10.0.0.2 198.51.100.1", "198.51.100.1 10.0.0.1", "fd00::1 fd00::2"]);
    }

    #[test]
    fn what_is_answered_at_the_source_itself_is_marked_and_what_is_translated_goes() {
        let machine = machine();
        machine.sh("nft add chain inet t post '{ type nat hook postrouting priority 100; }'
             nft add rule inet t post udp dport 1002 ip saddr 10.0.0.1 snat ip to 10.0.0.2");
        for (from, to) in [
            ("10.0.0.1", "198.51.100.1:1001"),
            ("10.0.0.1", "198.51.100.1:1002"),
            ("10.0.0.1", "10.0.0.9:1001"),
            ("fd00::1", "[2001:db8::1]:1001"),
        ] {
            flow(&machine, from, to);
        }
        let (keep, dead) = (["10.0.0.0/8".parse().unwrap()], Some((0x7fff_ff00, 0xffff_ff00)));
        let both = BTreeSet::from([ip("10.0.0.1"), ip("fd00::1")]);
        assert_eq!(machine.run(|| forget_or_mark(&both, &keep, |_| dead)).unwrap(), 3);
        assert_eq!(marks(&machine), [0x111, 0x7fff_ff11, 0x7fff_ff11], "inside as before, the others dead");
        assert_eq!(flows(&machine), ["10.0.0.1 10.0.0.9", "10.0.0.1 198.51.100.1", "fd00::1 2001:db8::1"]);
    }

    #[test]
    fn only_matching_marks_are_rewritten_and_foreign_bits_stay() {
        let machine = machine();
        for to in ["198.51.100.1:1001", "198.51.100.1:1002", "198.51.100.1:1003", "198.51.100.1:1004"] {
            flow(&machine, "10.0.0.1", to);
        }
        flow(&machine, "10.0.0.2", "198.51.100.1:1001");
        flow(&machine, "fd00::1", "[2001:db8::1]:1001");
        assert_eq!(marks(&machine), [0, 0x111, 0x111, 0x111, 0x2ff, 0x7fff_ff33]);

        let pinned = |gateway: u32| MarkFilter { value: gateway << 8, mask: 0xffff_ff00 };
        let counted = |filter| machine.run(|| count(filter)).unwrap();
        assert_eq!(
            (counted(pinned(1)), counted(pinned(2)), counted(pinned(3)), counted(pinned(0))),
            (3, 1, 0, 1)
        );
        assert_eq!(
            counted(MarkFilter { value: 0xff11, mask: 0xff }),
            3,
            "bits outside the mask do not count"
        );
        assert_eq!(counted(MarkFilter::ALL), 6);

        let dead = (0x7fff_ff00, 0xffff_ff00);
        assert_eq!(machine.run(|| remark(pinned(1), Some(ip("10.0.0.1")), dead)).unwrap(), 1);
        assert_eq!(marks(&machine), [0, 0x111, 0x111, 0x2ff, 0x7fff_ff11, 0x7fff_ff33]);
        assert_eq!(machine.run(|| remark(pinned(1), None, (0, 0xffff_ff00))).unwrap(), 2, "both families");
        assert_eq!(marks(&machine), [0, 0x11, 0x11, 0x2ff, 0x7fff_ff11, 0x7fff_ff33]);
        assert_eq!(machine.run(|| remark(pinned(9), None, dead)).unwrap(), 0);
    }

    #[test]
    fn flows_of_many_sources_are_picked_by_source_and_mark_in_one_listing() {
        let machine = machine();
        for from in ["10.0.0.1", "10.0.0.2"] {
            flow(&machine, from, "198.51.100.1:1001");
        }
        let meant = |source, mark| (source, mark) == (ip("10.0.0.2"), 0x111);
        let dead = (0x7fff_ff00, 0xffff_ff00);
        assert_eq!(machine.run(|| remark_where(meant, dead)).unwrap(), 1);
        assert_eq!(marks(&machine), [0x111, 0x7fff_ff11]);
    }

    #[test]
    fn a_namespace_without_any_flow_has_nothing_to_do() {
        let empty = Namespace::new();
        empty.run(|| {
            assert_eq!(count(MarkFilter::ALL).unwrap(), 0);
            assert_eq!(forget(ip("10.0.0.1"), &[]).unwrap(), 0);
            assert_eq!(remark(MarkFilter { value: 1, mask: 1 }, Some(ip("fd00::1")), (0, 1)).unwrap(), 0);
        });
    }

    #[test]
    fn thousands_of_flows_are_forgotten_at_once() {
        let machine = machine();
        machine.run(|| {
            let target: SocketAddr = "198.51.100.1:9".parse().unwrap();
            for _ in 0..3000 {
                let _ = UdpSocket::bind("10.0.0.1:0").unwrap().send_to(b"x", target);
                let _ = UdpSocket::bind("10.0.0.2:0").unwrap().send_to(b"x", target);
            }
            let all = count(MarkFilter::ALL).unwrap();
            let start = std::time::Instant::now();
            let gone = forget(ip("10.0.0.1"), &[]).unwrap();
            println!("{gone} of {all} flows forgotten in {:?}", start.elapsed());
            assert!(gone > 2500, "the kernel chooses the ports, so a few flows share one: {gone}");
            assert_eq!(count(MarkFilter::ALL).unwrap(), all - gone);
        });
    }
}
