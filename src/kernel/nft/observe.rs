//! Our tables as the kernel has them, read over netlink without starting a program.
//!
//! In: names of tables. Out: [`Tables`], equal to what was loaded if nobody touched them. Never: changes anything.
//!
//! Whatever we would not have written is shown as something that equals no desired value: a rule without our comment is
//! `Rule::foreign()`, a set of another kind has an empty key type, a chain with another policy says so in its kind. Anonymous sets
//! are left out: they cannot be changed, and their rule's hash covers them. The format: linux/netfilter/nf_tables.h.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Error;
use super::elements::{
    ACCEPT, DATA_VALUE, DATA_VERDICT, DROP, ELEM_DATA, ELEM_KEY, GOTO, JUMP, LIST_ELEMENTS, LIST_SET,
    LIST_TABLE, NAME, SUBSYSTEM, VERDICT_CHAIN, VERDICT_CODE,
};
use super::intervals::{Point, ranges};
use super::table::{Atom, Chain, Hook, Key, KeyType, Map, Rule, Table, Tables, Value, ValueType};
use crate::addr::{Family, Mac};
use crate::kernel::nfnetlink::{self, ACK, Attributes, DUMP, Netfilter, Reply, Request};
use crate::kernel::state::NftFamily;

const GETTABLE: u16 = 1;
const GETCHAIN: u16 = 4;
const GETRULE: u16 = 7;
const GETSET: u16 = 10;
const GETSETELEM: u16 = 13;
const GETGEN: u16 = 16;

/// How often a read that somebody's change disturbed is begun anew. One takes well under a millisecond.
const ATTEMPTS: u32 = 32;

/// Reads the tables of these names that exist, in the network namespace of the calling thread.
///
/// The result is one consistent state: a read that a change falls into is repeated.
pub fn observe(tables: &[(NftFamily, String)]) -> Result<Tables, Error> {
    let mut kernel = Kernel(Netfilter::open().map_err(|error| not_read("at all", &error))?);
    for _ in 0..ATTEMPTS {
        let before = kernel.generation()?;
        match kernel.read(tables) {
            Ok(found) if kernel.generation()? == before => return Ok(found),
            // A set that is gone by the time its elements are asked for is a change like any other.
            Ok(_) | Err(Trouble::Disturbed) => {}
            Err(Trouble::Failed(error)) => return Err(error),
        }
    }
    Err(Error::Unsettled { attempts: ATTEMPTS })
}

enum Trouble {
    Disturbed,
    Failed(Error),
}

pub(super) fn not_read(what: &str, error: &nfnetlink::Error) -> Error {
    Error::NotRead { what: what.to_owned(), reason: error.to_string(), errno: error.errno() }
}

struct Kernel(Netfilter);

impl Kernel {
    fn generation(&mut self) -> Result<Option<u32>, Error> {
        let mut id = None;
        let request = Request::new(SUBSYSTEM, GETGEN, ACK, 0);
        self.0
            .ask(request, |reply| id = reply.attributes.u32(1))
            .map_err(|error| not_read("at all", &error))?;
        Ok(id)
    }

    fn read(&mut self, tables: &[(NftFamily, String)]) -> Result<Tables, Trouble> {
        let mut found = Tables::new();
        for (family, name) in tables {
            if let Some(dormant) = self.table(*family, name)? {
                let mut table = Table { chains: self.chains(*family, name, dormant)?, ..Table::default() };
                self.rules(*family, name, &mut table)?;
                table.maps = self.maps(*family, name)?;
                found.insert((*family, name.clone()), table);
            }
        }
        Ok(found)
    }

    /// Whether the table exists and, if so, sleeps.
    fn table(&mut self, family: NftFamily, name: &str) -> Result<Option<bool>, Trouble> {
        const DORMANT: u32 = 1;
        let mut request = Request::new(SUBSYSTEM, GETTABLE, ACK, family.number());
        request.put_text(1, name);
        let mut flags = 0;
        match self.0.ask(request, |reply| flags = reply.attributes.u32(2).unwrap_or(0)) {
            Ok(()) => Ok(Some(flags & DORMANT != 0)),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(trouble("tables", &error)),
        }
    }

    fn chains(&mut self, family: NftFamily, table: &str, dormant: bool) -> Result<Chains, Trouble> {
        const BINDING: u32 = 4;
        let mut chains = Chains::new();
        let request = Request::new(SUBSYSTEM, GETCHAIN, DUMP, family.number());
        self.list("chains", request, |reply| {
            let chain = reply.attributes;
            let anonymous = chain.u32(10).unwrap_or(0) & BINDING != 0;
            let ours = chain.text(1) == Some(table) && reply.family == family.number() && !anonymous;
            if let Some(name) = chain.text(3).filter(|_| ours) {
                let hook = hook(family, chain, dormant);
                chains.insert(name.to_owned(), Chain { hook, rules: Vec::new() });
            }
        })?;
        Ok(chains)
    }

    fn rules(&mut self, family: NftFamily, table: &str, into: &mut Table) -> Result<(), Trouble> {
        let mut request = Request::new(SUBSYSTEM, GETRULE, DUMP, family.number());
        request.put_text(1, table);
        self.list("rules", request, |reply| {
            let rule = reply.attributes;
            // The kernel filters by table; one that does not would hand us other tables' rules.
            if rule.text(1) != Some(table) || reply.family != family.number() {
                return;
            }
            if let Some(chain) = rule.text(2).and_then(|name| into.chains.get_mut(name)) {
                chain.rules.push(comment(rule).map_or_else(Rule::foreign, Rule::from_comment));
            }
        })
    }

    fn maps(&mut self, family: NftFamily, table: &str) -> Result<Maps, Trouble> {
        const ANONYMOUS: u32 = 1;
        let mut maps = Maps::new();
        let mut request = Request::new(SUBSYSTEM, GETSET, DUMP, family.number());
        request.put_text(1, table);
        self.list("sets", request, |reply| {
            let set = reply.attributes;
            let ours = set.text(1) == Some(table) && reply.family == family.number();
            if let Some(name) = set.text(2).filter(|_| ours && set.u32(3).unwrap_or(0) & ANONYMOUS == 0) {
                maps.insert(name.to_owned(), declaration(set));
            }
        })?;
        for (name, map) in maps.iter_mut().filter(|(_, map)| !map.key.is_empty()) {
            self.all_elements(family, table, name, map)?;
        }
        Ok(maps)
    }

    /// Elements until a reading finds nothing that was not known. A dump of a hash table goes on where the last message ended
    /// by *counting*; while the kernel still resizes the table after many additions it skips some (seen with 5,000 on 6.18).
    /// None is deleted meanwhile, else the generation would have changed. Interval sets are trees and dumped in order.
    fn all_elements(
        &mut self,
        family: NftFamily,
        table: &str,
        name: &str,
        map: &mut Map,
    ) -> Result<(), Trouble> {
        /// Fewer fit one message of the dump, which is filled in one go.
        const ONE_MESSAGE: usize = 50;
        const READINGS: usize = 16;
        for _ in 0..READINGS {
            let known = map.elements.len();
            self.elements(family, table, name, map)?;
            if map.interval || map.elements.len() <= ONE_MESSAGE || map.elements.len() == known {
                break;
            }
        }
        Ok(())
    }

    fn elements(&mut self, family: NftFamily, table: &str, name: &str, map: &mut Map) -> Result<(), Trouble> {
        const INTERVAL_END: u32 = 1;
        let mut request = Request::new(SUBSYSTEM, GETSETELEM, DUMP, family.number());
        request.put_text(LIST_TABLE, table).put_text(LIST_SET, name);
        let mut points = Vec::new();
        let result = self.list("elements", request, |reply| {
            for (_, element) in reply.attributes.inside(LIST_ELEMENTS) {
                let element = Attributes(element);
                let bytes = element.inside(ELEM_KEY).get(DATA_VALUE).unwrap_or_default();
                let Some(key) = key(&map.key, bytes) else { continue };
                let value = map.value.and_then(|kind| value(kind, element.inside(ELEM_DATA)));
                match key[..] {
                    [Atom::Ip(at)] if map.interval => {
                        let begins = element.u32(3).unwrap_or(0) & INTERVAL_END == 0;
                        points.push(Point { at, begins, value });
                    }
                    _ => drop(map.elements.insert(key, value)),
                }
            }
        });
        let family = if map.key == [KeyType::Ipv6] { Family::V6 } else { Family::V4 };
        map.elements.extend(ranges(family, points));
        result
    }

    fn list(&mut self, what: &str, request: Request, each: impl FnMut(Reply<'_>)) -> Result<(), Trouble> {
        self.0.ask(request, each).map_err(|error| match error.errno() {
            Some(libc::ENOENT) => Trouble::Disturbed,
            _ => trouble(what, &error),
        })
    }
}

type Chains = std::collections::BTreeMap<String, Chain>;
type Maps = std::collections::BTreeMap<String, Map>;

fn trouble(what: &str, error: &nfnetlink::Error) -> Trouble {
    match error {
        nfnetlink::Error::Interrupted => Trouble::Disturbed,
        error => Trouble::Failed(not_read(what, error)),
    }
}

/// The hook of a base chain, with whatever is unlike ours spelled out in its kind.
fn hook(family: NftFamily, chain: Attributes<'_>, dormant: bool) -> Option<Hook> {
    const OFFLOAD: u32 = 2;
    chain.get(4)?;
    let hook = chain.inside(4);
    let mut kind = chain.text(7).unwrap_or("unknown").to_owned();
    for (unlike, words) in [
        (chain.u32(5) != Some(ACCEPT.cast_unsigned()), " policy drop"),
        (chain.u32(10).unwrap_or(0) & OFFLOAD != 0, " flags offload"),
        (dormant, " dormant"),
    ] {
        kind.push_str(if unlike { words } else { "" });
    }
    // A chain at one device names it twice, newer kernels only in the list.
    let devices: Vec<&str> = hook.inside(4).filter_map(|(_, name)| text(name)).collect();
    let device = if devices.is_empty() { hook.text(3).map(str::to_owned) } else { Some(devices.join(",")) };
    Some(Hook {
        kind,
        hook: hook_name(family, hook.u32(1).unwrap_or(u32::MAX)).to_owned(),
        priority: hook.u32(2).unwrap_or(0).cast_signed(),
        device,
    })
}

fn hook_name(family: NftFamily, number: u32) -> &'static str {
    let names: &[&str] = match family {
        NftFamily::Inet => &["prerouting", "input", "forward", "output", "postrouting", "ingress"],
        NftFamily::Netdev => &["ingress", "egress"],
    };
    names.get(number as usize).copied().unwrap_or("unknown")
}

/// The comment nft keeps in a rule's user data: type (0), length, text with NUL.
pub(super) fn comment(rule: Attributes<'_>) -> Option<&str> {
    let mut data = rule.get(7)?;
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == 0 {
            return text(value);
        }
        data = &rest[value.len()..];
    }
    None
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().map(|text| text.trim_end_matches('\0'))
}

/// A set's type. Kinds we never make get an empty key.
fn declaration(set: Attributes<'_>) -> Map {
    const INTERVAL: u32 = 0x4;
    const MAP: u32 = 0x8;
    const CONCATENATED: u32 = 0x80;
    let flags = set.u32(3).unwrap_or(0);
    let interval = flags & INTERVAL != 0;
    let value = match set.u32(6) {
        _ if flags & MAP == 0 => Ok(None),
        Some(0xffff_ff00) => Ok(Some(ValueType::Verdict)),
        Some(19) => Ok(Some(ValueType::Mark)),
        Some(9) => Ok(Some(ValueType::Ether)),
        _ => Err(()),
    };
    let key = key_types(set.u32(4).unwrap_or(0)).filter(|key| !interval || matches!(key[..], [_]));
    match (flags & !(INTERVAL | MAP | CONCATENATED), key, value) {
        (0, Some(key), Ok(value)) => Map { key, value, interval, elements: Default::default() },
        _ => {
            let value = (flags & MAP != 0).then_some(ValueType::Verdict);
            Map { key: Vec::new(), value, interval: false, elements: Default::default() }
        }
    }
}

/// nft's number of a type, six bits for each part of a concatenation, the last part lowest (nftables `enum datatypes`).
fn key_types(mut packed: u32) -> Option<Vec<KeyType>> {
    let mut parts = Vec::new();
    while packed != 0 {
        parts.insert(
            0,
            match packed & 0x3f {
                4 => KeyType::Vni,
                7 => KeyType::Ipv4,
                8 => KeyType::Ipv6,
                9 => KeyType::Ether,
                19 => KeyType::Mark,
                41 => KeyType::Ifname,
                _ => return None,
            },
        );
        packed >>= 6;
    }
    (!parts.is_empty()).then_some(parts)
}

fn key(types: &[KeyType], mut bytes: &[u8]) -> Option<Key> {
    let mut key = Key::with_capacity(types.len());
    for kind in types {
        let length = match kind {
            KeyType::Ipv4 | KeyType::Mark | KeyType::Vni => 4,
            KeyType::Ipv6 => 16,
            KeyType::Ether => 6,
            KeyType::Ifname => NAME,
        };
        let part = bytes.get(..length)?;
        key.push(match kind {
            KeyType::Ipv4 => Atom::Ip(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(part).ok()?))),
            KeyType::Ipv6 => Atom::Ip(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(part).ok()?))),
            KeyType::Mark => Atom::Mark(u32::from_ne_bytes(part.try_into().ok()?)),
            KeyType::Ether => Atom::Mac(Mac(part.try_into().ok()?)),
            KeyType::Ifname => Atom::Dev(text(part)?.to_owned()),
            KeyType::Vni => Atom::Vni(u32::from_be_bytes(part.try_into().ok()?) >> 8),
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(key)
}

fn value(kind: ValueType, data: Attributes<'_>) -> Option<Value> {
    let bytes = data.get(DATA_VALUE).unwrap_or_default();
    Some(match kind {
        ValueType::Mark => Value::Mark(u32::from_ne_bytes(bytes.try_into().ok()?)),
        ValueType::Ether => Value::Mac(Mac(bytes.get(..6)?.try_into().ok()?)),
        ValueType::Verdict => {
            data.get(DATA_VERDICT)?;
            let verdict = data.inside(DATA_VERDICT);
            let chain = verdict.text(VERDICT_CHAIN).unwrap_or_default();
            match verdict.u32(VERDICT_CODE)?.cast_signed() {
                ACCEPT => Value::Accept,
                DROP => Value::Drop,
                GOTO => Value::Goto(chain.to_owned()),
                // None of ours, but its key must be known to be removed; no chain can have such a name.
                JUMP => Value::Goto(format!("(jump) {chain}")),
                code => Value::Goto(format!("(verdict {code})")),
            }
        }
    })
}
