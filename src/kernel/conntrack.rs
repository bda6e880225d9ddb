//! What the kernel remembers about flows: forgetting those of one source, and rewriting marks.
//!
//! In: an address, prefixes, marks. Out: how many entries were touched. Never: knows what a mark means. Everything happens in the
//! network namespace of the calling thread. The format: linux/netfilter/nfnetlink_conntrack.h.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

mod clear;
mod entry;
mod glance;
mod known;

pub use clear::{clear, forget_marked};
use entry::Entry;
pub use known::remember;

use crate::addr::{Cidr, Family};
use crate::kernel::nfnetlink::{self, ACK, DUMP, Netfilter, Refusal, Reply, Request};

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const GET_STATS: u16 = 5;
const STATS_ENTRIES: u16 = 1;

const TUPLE_ORIG: u16 = 1;
const MARK: u16 = 8;
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
        /// `delete`, `make` or `mark`.
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

/// Deletes the entries of flows that these addresses opened to anything outside `keep`, and tells how many; all in one listing, because
/// each walks the table of the whole machine.
///
/// *To* means where their packets really go, after DNAT: a flow to a service address counts by the pod behind it. Flows that others
/// opened to the addresses stay. An entry that ends by itself meanwhile is not counted.
///
/// Where `mark` names bits (value, mask) for an address, established TCP, and whatever leaves with this very address, keep their entries
/// and get these bits in their marks: without the entry the far end's next packet would look like a flow that the far end opened. `others`
/// says the same of everybody else's entries, by their mark.
pub fn forget_or_mark(
    sources: &BTreeSet<IpAddr>,
    keep: &[Cidr],
    mark: impl Fn(IpAddr) -> Option<(u32, u32)>,
    others: Option<&dyn Fn(u32) -> Option<(u32, u32)>>,
) -> Result<usize, Error> {
    if sources.is_empty() {
        return Ok(0);
    }
    let Some((mut socket, entries)) = busy()? else { return Ok(0) };
    let sentence = |flow: &Flow| {
        let kept = flow.to.is_some_and(|to| keep.iter().any(|prefix| prefix.contains(to)));
        if kept || !sources.contains(&flow.source) {
            let bits = others.and_then(|others| others(flow.mark));
            return bits.map_or(Sentence::Keep, |(value, mask)| Sentence::Mark(value, mask));
        }
        let stays = flow.established_tcp || flow.bare;
        let bits = mark(flow.source).filter(|_| stays);
        bits.map_or(Sentence::Delete, |(value, mask)| Sentence::Mark(value, mask))
    };
    let listings = if others.is_some() { vec![None] } else { listings(sources, entries) };
    carry_out(&mut socket, entries, (MarkFilter::ALL, &listings), sentence)
}

/// The listings that show all entries of some sources, each filtered by the kernel or not. It filters by one source at most, so the
/// two addresses of a pod take two walks through the table; where there are many entries that is less than to be told of them all
/// (measured on a busy machine: 13 ms a walk, 2 µs an entry).
fn listings(sources: &BTreeSet<IpAddr>, entries: Option<u32>) -> Vec<Option<IpAddr>> {
    const MANY: u32 = 8_000;
    let of = |family| sources.iter().filter(move |ip| Family::of(**ip) == family);
    let one_of_each = Family::BOTH.iter().all(|family| of(*family).count() <= 1);
    let many = entries.is_none_or(|entries| entries > MANY);
    if sources.len() == 1 || (one_of_each && many) {
        sources.iter().copied().map(Some).collect()
    } else {
        vec![None]
    }
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
    (value, mask): (u32, u32),
) -> Result<usize, Error> {
    let sentence = |flow: &Flow| match meant(flow.source, flow.mark) {
        true => Sentence::Mark(value, mask),
        false => Sentence::Keep,
    };
    judge(filter, source, sentence)
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

impl Flow {
    /// Whether the sentence changes anything.
    fn suffers(&self, sentence: Sentence) -> bool {
        match sentence {
            Sentence::Keep => false,
            Sentence::Delete => true,
            Sentence::Mark(value, mask) => !(MarkFilter { value, mask }).matches(self.mark),
        }
    }
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
    let Some((mut socket, entries)) = busy()? else { return Ok(0) };
    carry_out(&mut socket, entries, (filter, &[source]), sentence)
}

/// Executes sentences until none is left. A packet that is on its way makes its entry behind a listing's back, and one that others
/// change meanwhile was seen to skip an entry on a busy machine. So what found something looks again: at the text, where that proves
/// that nothing is left.
fn carry_out(
    socket: &mut Netfilter,
    entries: Option<u32>,
    (filter, listings): (MarkFilter, &[Option<IpAddr>]),
    sentence: impl Fn(&Flow) -> Sentence,
) -> Result<usize, Error> {
    const PASSES: usize = 8;
    let meant = |flow: &Flow| {
        let listed = listings.iter().any(|only| only.is_none_or(|source| flow.source == source));
        listed && filter.matches(flow.mark) && flow.suffers(sentence(flow))
    };
    let mut all = 0;
    for _ in 0..PASSES {
        let found = pass(socket, (filter, listings), &sentence)?;
        all += found;
        if found == 0 || glance::proves_none(entries, meant) {
            break;
        }
    }
    Ok(all)
}

fn pass(
    socket: &mut Netfilter,
    (filter, listings): (MarkFilter, &[Option<IpAddr>]),
    sentence: impl Fn(&Flow) -> Sentence,
) -> Result<usize, Error> {
    let (mut deletions, mut marks) = (Vec::new(), Vec::new());
    for only in listings {
        list(socket, filter, *only, |entry| {
            let Some(flow) = entry.flow() else { return };
            match sentence(&flow) {
                what if !flow.suffers(what) => {}
                Sentence::Keep => {}
                Sentence::Delete => deletions.push(entry.deleted()),
                Sentence::Mark(value, mask) => marks.push(entry.marked((value, mask))),
            }
        })?;
    }
    Ok(change(socket, "mark", marks)? + change(socket, "delete", deletions)?)
}

/// Whether packets of a family are tracked in this namespace. The kernel tracks only where some rule asks it to, and tells nobody;
/// so a datagram to oneself has an entry, or has not.
///
/// # Errors
/// The entries cannot be listed. A namespace that cannot talk to itself counts as one that tracks nothing.
pub fn is_on(family: Family) -> Result<bool, Error> {
    let me: IpAddr = match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    };
    let sent = UdpSocket::bind((me, 0)).and_then(|socket| {
        let here = socket.local_addr()?;
        socket.send_to(b"egret", here).map(|_| (socket, here.port()))
    });
    // The socket stays open, or an ICMP error would make the entry end.
    let Ok((_socket, port)) = sent else { return Ok(false) };
    let Some((mut socket, _)) = busy()? else { return Ok(false) };
    let mut found = false;
    list(&mut socket, MarkFilter::ALL, Some(me), |entry| found |= entry.source_port() == Some(port))?;
    Ok(found)
}

/// A socket, and how many entries this namespace has, by the kernel's own count (`None` where it does not tell); nothing where there is
/// no entry, because a listing walks the table of the whole machine and takes the lock of each of its 262,144 buckets, 5 to 15 ms.
fn busy() -> Result<Option<(Netfilter, Option<u32>)>, Error> {
    let mut socket = open()?;
    let entries = entries(&mut socket);
    Ok((entries != Some(0)).then_some((socket, entries)))
}

fn entries(socket: &mut Netfilter) -> Option<u32> {
    let mut entries = None;
    let asked = socket.ask(Request::new(SUBSYSTEM, GET_STATS, ACK, 0), |reply| {
        entries = reply.attributes.u32(STATS_ENTRIES);
    });
    asked.ok().and(entries)
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
        by_source(&mut request, source);
    }
    request
}

/// Makes a request mean the entries of flows that this address opened.
fn by_source(request: &mut Request, source: Ipv4Addr) {
    const ORIG_FLAGS: u16 = 1;
    const BY_SOURCE_ADDRESS: u32 = 1;
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

fn change(socket: &mut Netfilter, verb: &'static str, requests: Vec<Request>) -> Result<usize, Error> {
    let matching = requests.len();
    // Flows end by themselves all the time.
    let gone = each(socket, (verb, matching), requests, &[libc::ENOENT])?;
    Ok(matching - gone)
}

/// Makes these requests, for so many entries, and tells how many of them were refused for a reason that was to be expected.
fn each(
    socket: &mut Netfilter,
    (verb, matching): (&'static str, usize),
    requests: Vec<Request>,
    expected: &[i32],
) -> Result<usize, Error> {
    let Err(refusals) = socket.each(requests) else { return Ok(0) };
    let (expected, refused): (Vec<Refusal>, Vec<Refusal>) = refusals
        .into_iter()
        .partition(|refusal| refusal.request.is_some() && expected.contains(&refusal.errno));
    match refused.first() {
        None => Ok(expected.len()),
        Some(first) => {
            Err(Error::NotChanged { verb, refused: refused.len(), matching, reason: first.to_string() })
        }
    }
}

#[cfg(test)]
mod tests;
