//! Deleting entries by one request that names no entry: the kernel goes through its table itself.
//!
//! In: addresses, marks. Out: nothing of theirs is left. Never: tells how much there was; the kernel does not say it.
//!
//! A listing takes the lock of each of the table's 262,144 buckets, which is 10.6 ms, however few the entries. A deletion by filter
//! passes an empty bucket by one look at it: 0.15 ms, and half a microsecond for each entry (Linux 6.18). It finds what a listing
//! hides, too: of an entry that lost a clash only the reply is in the table.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use super::entry::DELETE;
use super::{
    Error, Flow, MARK, MARK_MASK, MarkFilter, SUBSYSTEM, Sentence, busy, by_source, forget_or_mark, glance,
    judge, refused,
};
use crate::addr::Cidr;
use crate::kernel::nfnetlink::{ACK, Netfilter, Request};

/// Deletes what these addresses opened, for addresses whose pod sends nothing: it has not begun to, or has ended. Flows that others
/// opened to them stay. Entries to destinations in `may_stay` go where that costs no listing, and stay otherwise.
///
/// # Errors
/// As [`super::forget_or_mark`].
pub fn clear(sources: &BTreeSet<IpAddr>, may_stay: &[Cidr]) -> Result<(), Error> {
    clear_by(sources, may_stay, delete)
}

pub(super) fn clear_by(
    sources: &BTreeSet<IpAddr>,
    may_stay: &[Cidr],
    delete: impl Fn(&mut Netfilter, Ipv4Addr) -> Result<bool, Error>,
) -> Result<(), Error> {
    if sources.is_empty() {
        return Ok(());
    }
    let Some((mut socket, there)) = busy()? else { return Ok(()) };
    let mut left = sources.clone();
    if pays(sources.len(), there) {
        for source in sources {
            // For IPv6 the kernel takes this filter the wrong way round and would delete what all others opened (5.8 to 6.18 at
            // least), so we do without.
            let IpAddr::V4(v4) = source else { continue };
            if !delete(&mut socket, *v4)? {
                break;
            }
            left.remove(source);
        }
    }
    let inside = |to: IpAddr| may_stay.iter().any(|prefix| prefix.contains(to));
    let meant = |flow: &Flow| left.contains(&flow.source) && !flow.to.is_some_and(inside);
    if left.is_empty() || glance::proves_none(there, meant) {
        return Ok(());
    }
    forget_or_mark(&left, may_stay, |_| None, None).map(drop)
}

/// Whether so many deletions are less than one listing of so many entries.
pub(super) fn pays(deletions: usize, entries: Option<u32>) -> bool {
    let entries = u64::from(entries.unwrap_or(u32::MAX));
    let micros = |empty: u64, nanos_each: u64| empty + entries * nanos_each / 1000;
    deletions as u64 * micros(150, 500) <= micros(10_600, 2_000)
}

/// Deletes what an address opened. `false`: this kernel cannot be told which (before 6.12 it takes the filter for one entry that is
/// described by halves, and deletes nothing).
pub(super) fn delete(socket: &mut Netfilter, source: Ipv4Addr) -> Result<bool, Error> {
    let mut request = Request::new(SUBSYSTEM, DELETE, ACK, libc::AF_INET as u8);
    by_source(&mut request, source);
    match socket.ask(request, |_| ()) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Ok(false),
        Err(error) => Err(refused(&error)),
    }
}

/// Deletes every entry that one of the filters matches (Linux 4.0).
///
/// # Errors
/// As [`super::judge`].
pub fn forget_marked(filters: &[MarkFilter]) -> Result<(), Error> {
    if filters.is_empty() {
        return Ok(());
    }
    let Some((mut socket, there)) = busy()? else { return Ok(()) };
    if !pays(filters.len(), there) {
        let meant = |mark| filters.iter().any(|filter| filter.matches(mark));
        let sentence = |flow: &Flow| if meant(flow.mark) { Sentence::Delete } else { Sentence::Keep };
        return judge(MarkFilter::ALL, None, sentence).map(drop);
    }
    // A packet that was on its way while the rules changed makes its entry a moment later: so all are asked for twice.
    for filter in filters.iter().chain(filters) {
        let mut request = Request::new(SUBSYSTEM, DELETE, ACK, 0);
        request.put_u32(MARK, filter.value & filter.mask).put_u32(MARK_MASK, filter.mask);
        socket.ask(request, |_| ()).map_err(|error| refused(&error))?;
    }
    Ok(())
}
