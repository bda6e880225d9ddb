//! Single elements of sets and maps, written over netlink: 15 µs each, where starting `nft` costs 2 ms.
//!
//! In: [`ElementChange`]s. Out: all done, or the kernel's refusals. Never: touches interval sets (nft computes their points) or
//! anything but elements. The format: linux/netfilter/nf_tables.h, `NFTA_SET_ELEM_*`.

use std::net::IpAddr;

use super::diff::{Edit, ElementChange};
use super::table::{Atom, Key, Value};
use super::{ElementRefusal, Error};
use crate::kernel::nfnetlink::{CREATE, Netfilter, Refusal, Request};

pub(super) const SUBSYSTEM: u16 = 10;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;

pub(super) const LIST_TABLE: u16 = 1;
pub(super) const LIST_SET: u16 = 2;
pub(super) const LIST_ELEMENTS: u16 = 3;
const LIST_ELEM: u16 = 1;
pub(super) const ELEM_KEY: u16 = 1;
pub(super) const ELEM_DATA: u16 = 2;
pub(super) const DATA_VALUE: u16 = 1;
pub(super) const DATA_VERDICT: u16 = 2;
pub(super) const VERDICT_CODE: u16 = 1;
pub(super) const VERDICT_CHAIN: u16 = 2;

pub(super) const DROP: i32 = 0;
pub(super) const ACCEPT: i32 = 1;
pub(super) const JUMP: i32 = -3;
pub(super) const GOTO: i32 = -4;

/// Bytes of a device name in the kernel (`IFNAMSIZ`).
pub(super) const NAME: usize = 16;

/// Applies the changes, in order.
///
/// One transaction for up to some thousand; beyond, several, and a replaced element is never split. On an error the transaction it
/// happened in and all later ones are not applied.
pub fn apply(changes: &[ElementChange]) -> Result<(), Error> {
    if changes.is_empty() {
        return Ok(());
    }
    // The first address of a range alone would open it up to the highest address there is.
    if let Some(range) =
        changes.iter().find(|change| change.key.iter().any(|atom| matches!(atom, Atom::Range(..))))
    {
        let words = Some("ranges are loaded in a transaction of nft, not one by one".to_owned());
        return Err(Error::Elements(vec![ElementRefusal {
            change: Some(range.clone()),
            errno: libc::EINVAL,
            words,
        }]));
    }
    let mut socket = Netfilter::open().map_err(|error| {
        let errno = error.errno().unwrap_or(libc::EIO);
        Error::Elements(vec![ElementRefusal { change: None, errno, words: None }])
    })?;
    let groups: Vec<Vec<Request>> = changes.iter().map(requests).collect();
    let owner: Vec<usize> =
        groups.iter().enumerate().flat_map(|(index, group)| group.iter().map(move |_| index)).collect();
    let refused = |refusal: Refusal| ElementRefusal {
        change: refusal.request.and_then(|place| changes.get(*owner.get(place)?)).cloned(),
        errno: refusal.errno,
        words: refusal.words,
    };
    socket.transact(groups).map_err(|refusals| Error::Elements(refusals.into_iter().map(refused).collect()))
}

fn requests(change: &ElementChange) -> Vec<Request> {
    let new = |value: &Option<Value>| request(change, NEWSETELEM, CREATE, value.as_ref());
    let delete = || request(change, DELSETELEM, 0, None);
    match &change.to {
        Edit::Add(value) => vec![new(value)],
        Edit::Replace(value) => vec![delete(), new(value)],
        Edit::Remove => vec![delete()],
    }
}

fn request(change: &ElementChange, message: u16, flags: u16, value: Option<&Value>) -> Request {
    let mut request = Request::new(SUBSYSTEM, message, flags, change.family.number());
    request.put_text(LIST_TABLE, &change.table).put_text(LIST_SET, &change.map);
    request.nest(LIST_ELEMENTS, |list| {
        list.nest(LIST_ELEM, |element| {
            element.nest(ELEM_KEY, |data| {
                data.put(DATA_VALUE, &key_bytes(&change.key));
            });
            if let Some(value) = value {
                element.nest(ELEM_DATA, |data| put_value(data, value));
            }
        });
    });
    request
}

/// A key as the kernel compares it: addresses in network order, marks in this machine's, every part of a concatenation padded to 4.
fn key_bytes(key: &Key) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(NAME + 16);
    for atom in key {
        match atom {
            Atom::Ip(ip) | Atom::Range(ip, _) => match ip {
                IpAddr::V4(ip) => bytes.extend_from_slice(&ip.octets()),
                IpAddr::V6(ip) => bytes.extend_from_slice(&ip.octets()),
            },
            Atom::Mark(mark) => bytes.extend_from_slice(&mark.to_ne_bytes()),
            Atom::Vni(vni) => bytes.extend_from_slice(&(vni << 8).to_be_bytes()),
            Atom::Mac(mac) => bytes.extend_from_slice(&mac.0),
            Atom::Dev(name) => {
                let mut padded = [0; NAME];
                let length = name.len().min(NAME - 1);
                padded[..length].copy_from_slice(&name.as_bytes()[..length]);
                bytes.extend_from_slice(&padded);
            }
        }
        if key.len() > 1 {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    bytes
}

fn put_value(data: &mut Request, value: &Value) {
    let mut verdict = |code: i32, chain: Option<&str>| {
        data.nest(DATA_VERDICT, |verdict| {
            verdict.put(VERDICT_CODE, &code.to_be_bytes());
            if let Some(chain) = chain {
                verdict.put_text(VERDICT_CHAIN, chain);
            }
        });
    };
    match value {
        Value::Goto(chain) => verdict(GOTO, Some(chain)),
        Value::Accept => verdict(ACCEPT, None),
        Value::Drop => verdict(DROP, None),
        Value::Mark(mark) => {
            data.put(DATA_VALUE, &mark.to_ne_bytes());
        }
        Value::Mac(mac) => {
            data.put(DATA_VALUE, &mac.0);
        }
    }
}
