//! The nodes of a plan, which most plans have in common with the one before.
//!
//! In: peers by name. Out: the same, and their text, made once for all plans that share them. Never: shared by who changes them: a change
//! makes a copy of one's own. A cluster has hundreds of nodes and a pod's ADD changes none; to copy, compare and write each of them three times
//! was most of what a call through the agent computed.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::egress::plan::Peer;
use crate::egress::shared::Shared;
use crate::hash;

/// Text of nodes that is longer lies in a file of its own.
const LONG: usize = 2 << 10;

/// Nodes by name. A copy costs nothing until it is changed.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    nodes: Shared<BTreeMap<String, Peer>>,
    /// What their own file is called, by what it says: found once for all copies.
    name: Arc<OnceLock<String>>,
    /// These were not read: they are in the file of this name.
    elsewhere: Option<String>,
}

impl Peers {
    /// Shares these in place of its own, if they are the same.
    pub fn share(&mut self, other: &Peers) {
        if self == other {
            self.clone_from(other);
        }
    }

    /// What they say, and what a file is called that says so and nothing else. `None`: a file of their own is not worth it.
    ///
    /// # Errors
    /// None, but for a text that is no JSON.
    pub fn apart(&self) -> serde_json::Result<Option<(&str, &str)>> {
        let text = self.nodes.text()?.get();
        if text.len() <= LONG {
            return Ok(None);
        }
        let name = self.name.get_or_init(|| format!("nodes.{:016x}.json", hash::stable(text.as_bytes())));
        Ok(Some((name, text)))
    }

    /// The file where they are, of such that were read as its name alone.
    pub fn elsewhere(&self) -> Option<&str> {
        self.elsewhere.as_deref()
    }
}

impl Deref for Peers {
    type Target = BTreeMap<String, Peer>;

    fn deref(&self) -> &BTreeMap<String, Peer> {
        &self.nodes
    }
}

impl DerefMut for Peers {
    fn deref_mut(&mut self) -> &mut BTreeMap<String, Peer> {
        (self.name, self.elsewhere) = (Arc::default(), None);
        &mut self.nodes
    }
}

impl PartialEq for Peers {
    fn eq(&self, other: &Peers) -> bool {
        self.nodes == other.nodes && self.elsewhere == other.elsewhere
    }
}

impl Eq for Peers {}

impl Serialize for Peers {
    /// As JSON alone: a plan is written in no other form.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.nodes.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Peers {
    /// A map of them, or the name of a file.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Peers, D::Error> {
        struct MapOrName;
        impl<'de> Visitor<'de> for MapOrName {
            type Value = Peers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("nodes, or the name of their file")
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Peers, M::Error> {
                let nodes = Shared::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Peers { nodes, ..Peers::default() })
            }

            fn visit_str<E>(self, name: &str) -> Result<Peers, E> {
                Ok(Peers { elsewhere: Some(name.to_owned()), ..Peers::default() })
            }
        }
        deserializer.deserialize_any(MapOrName)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn peer(number: u16) -> Peer {
        Peer { number, wire: Ipv4Addr::from(u32::from(number)), underlay: vec![[10, 0, 0, 1].into()] }
    }

    #[test]
    fn a_copy_that_is_changed_says_something_else_and_the_other_one_what_it_said() {
        let mut first = Peers::default();
        first.insert("one".to_owned(), peer(1));
        let said = serde_json::to_string(&first).unwrap();
        let mut second = first.clone();
        assert!(first == second && first.nodes.is_one_with(&second.nodes));
        second.insert("two".to_owned(), peer(2));
        assert!(first != second && serde_json::to_string(&second).unwrap().contains("two"));
        assert_eq!(serde_json::to_string(&first).unwrap(), said);
        assert_eq!(serde_json::from_str::<Peers>(&said).unwrap(), first);
        assert_eq!(said, serde_json::to_string(&*first).unwrap(), "as a map is written");
    }

    #[test]
    fn what_is_the_same_is_shared_and_nothing_else() {
        let made = |number| {
            let mut peers = Peers::default();
            peers.insert("one".to_owned(), peer(number));
            peers
        };
        let (before, mut same, mut other) = (made(1), made(1), made(2));
        same.share(&before);
        other.share(&before);
        assert!(before.nodes.is_one_with(&same.nodes) && other == made(2));
    }
}
