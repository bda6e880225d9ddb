//! Tables and commands in nft's own syntax, one command per line, for `nft -f -` (1.0.1 or later).
//!
//! In: values. Out: text. Never: runs anything. Ranges are always written with both ends, so that `0.0.0.0/0`, `::/0` and single
//! addresses need no case of their own.

use std::fmt;

use super::diff::{Command, Verb};
use super::table::{Atom, Hook, Key, KeyType, Map, Rule, Value, ValueType};

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyType::Ipv4 => "ipv4_addr",
            KeyType::Ipv6 => "ipv6_addr",
            KeyType::Mark => "mark",
            KeyType::Ether => "ether_addr",
            KeyType::Ifname => "ifname",
            KeyType::Vni => "@th,96,32",
        })
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ValueType::Verdict => "verdict",
            ValueType::Mark => "mark",
            ValueType::Ether => "ether_addr",
        })
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Atom::Ip(ip) => write!(f, "{ip}"),
            Atom::Range(first, last) => write!(f, "{first}-{last}"),
            Atom::Mark(mark) => write!(f, "{mark:#x}"),
            Atom::Mac(mac) => write!(f, "{mac}"),
            Atom::Dev(name) => write!(f, "\"{name}\""),
            Atom::Vni(vni) => write!(f, "{:#x}", vni << 8),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Goto(chain) => write!(f, "goto {chain}"),
            Value::Accept => f.write_str("accept"),
            Value::Drop => f.write_str("drop"),
            Value::Mark(mark) => write!(f, "{mark:#x}"),
            Value::Mac(mac) => write!(f, "{mac}"),
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "type {} hook {}", self.kind, self.hook)?;
        if let Some(device) = &self.device {
            write!(f, " device \"{device}\"")?;
        }
        write!(f, " priority {}; policy accept;", self.priority)
    }
}

/// The type of a set or map, without elements.
fn declaration(map: &Map) -> String {
    let key = join(&map.key, " . ");
    let value = map.value.map(|value| format!(" : {value}")).unwrap_or_default();
    let flags = if map.interval { " flags interval;" } else { "" };
    // What a rule looks at has no name among the types where it is no field that nft knows.
    let word = if map.key == [KeyType::Vni] { "typeof" } else { "type" };
    format!("{{ {word} {key}{value};{flags} }}")
}

/// `KEY` or `KEY : VALUE`.
fn element(key: &Key, value: Option<&Value>) -> String {
    let key = join(key, " . ");
    value.map_or_else(|| key.clone(), |value| format!("{key} : {value}"))
}

fn rule(rule: &Rule) -> String {
    format!("{} comment \"{}\"", rule.text.trim(), rule.comment())
}

fn join<T: fmt::Display>(parts: &[T], between: &str) -> String {
    parts.iter().map(T::to_string).collect::<Vec<_>>().join(between)
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = format!("{} {}", self.family.name(), self.table);
        match &self.verb {
            Verb::AddTable => write!(f, "add table {at}"),
            Verb::DeleteTable => write!(f, "delete table {at}"),
            Verb::AddChain(name, None) => write!(f, "add chain {at} {name}"),
            Verb::AddChain(name, Some(hook)) => write!(f, "add chain {at} {name} {{ {hook} }}"),
            Verb::FlushChain(name) => write!(f, "flush chain {at} {name}"),
            Verb::DeleteChain(name) => write!(f, "delete chain {at} {name}"),
            Verb::AddRule(chain, text) => write!(f, "add rule {at} {chain} {}", rule(text)),
            Verb::AddMap(name, map) => write!(f, "add {} {at} {name} {}", map.noun(), declaration(map)),
            Verb::FlushMap(noun, name) => write!(f, "flush {noun} {at} {name}"),
            Verb::DeleteMap(noun, name) => write!(f, "delete {noun} {at} {name}"),
            Verb::AddElements(name, elements) => {
                let elements: Vec<String> = elements.iter().map(|(k, v)| element(k, v.as_ref())).collect();
                write!(f, "add element {at} {name} {{ {} }}", elements.join(", "))
            }
            Verb::DeleteElements(name, keys) => {
                let keys: Vec<String> = keys.iter().map(|key| element(key, None)).collect();
                write!(f, "delete element {at} {name} {{ {} }}", keys.join(", "))
            }
        }
    }
}
