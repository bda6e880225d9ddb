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
use serde::ser::{Error, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::egress::plan::Peer;
use crate::hash;

/// Text of nodes that is longer lies in a file of its own.
const LONG: usize = 2 << 10;

/// Nodes by name. A copy costs nothing until it is changed.
#[derive(Debug, Clone, Default)]
pub struct Peers(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    peers: BTreeMap<String, Peer>,
    text: OnceLock<Box<RawValue>>,
    /// What their own file is called, by what it says.
    name: OnceLock<String>,
    /// These were not read: they are in the file of this name.
    elsewhere: Option<String>,
}

impl Clone for Shared {
    /// Who wants one of his own is about to change it.
    fn clone(&self) -> Shared {
        Shared { peers: self.peers.clone(), ..Shared::default() }
    }
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
        let text = self.text()?;
        if text.len() <= LONG {
            return Ok(None);
        }
        let name = self.0.name.get_or_init(|| format!("nodes.{:016x}.json", hash::stable(text.as_bytes())));
        Ok(Some((name, text)))
    }

    /// The file where they are, of such that were read as its name alone.
    pub fn elsewhere(&self) -> Option<&str> {
        self.0.elsewhere.as_deref()
    }

    fn text(&self) -> serde_json::Result<&str> {
        if self.0.text.get().is_none() {
            let text = to_raw_value(&self.0.peers)?;
            let _ = self.0.text.set(text); // Err: somebody else was faster
        }
        Ok(self.0.text.get().map_or("", |text| text.get()))
    }
}

impl Deref for Peers {
    type Target = BTreeMap<String, Peer>;

    fn deref(&self) -> &BTreeMap<String, Peer> {
        &self.0.peers
    }
}

impl DerefMut for Peers {
    fn deref_mut(&mut self) -> &mut BTreeMap<String, Peer> {
        let own = Arc::make_mut(&mut self.0);
        own.text.take();
        own.name.take();
        &mut own.peers
    }
}

impl PartialEq for Peers {
    fn eq(&self, other: &Peers) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || self.0.peers == other.0.peers && self.0.elsewhere == other.0.elsewhere
    }
}

impl Eq for Peers {}

impl Serialize for Peers {
    /// As JSON alone: a plan is written in no other form.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text().map_err(S::Error::custom)?;
        self.0.text.get().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Peers {
    /// A map of them, or the name of a file.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Peers, D::Error> {
        struct MapOrName;
        impl<'de> Visitor<'de> for MapOrName {
            type Value = Shared;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("nodes, or the name of their file")
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Shared, M::Error> {
                let peers = BTreeMap::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Shared { peers, ..Shared::default() })
            }

            fn visit_str<E>(self, name: &str) -> Result<Shared, E> {
                Ok(Shared { elsewhere: Some(name.to_owned()), ..Shared::default() })
            }
        }
        deserializer.deserialize_any(MapOrName).map(|shared| Peers(Arc::new(shared)))
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
        assert!(first == second && Arc::ptr_eq(&first.0, &second.0));
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
        assert!(Arc::ptr_eq(&before.0, &same.0) && other == made(2));
    }
}
