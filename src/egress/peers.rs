//! The nodes of a plan, which most plans have in common with the one before.
//!
//! In: peers by name. Out: the same, and their text, made once for all plans that share them. Never: shared by who changes them: a change
//! makes a copy of one's own. A cluster has hundreds of nodes and a pod's ADD changes none; to copy, compare and write each of them three times
//! was most of what a call through the agent computed.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

use serde::de::Deserializer;
use serde::ser::{Error, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::egress::plan::Peer;

/// Nodes by name. A copy costs nothing until it is changed.
#[derive(Debug, Clone, Default)]
pub struct Peers(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    peers: BTreeMap<String, Peer>,
    text: OnceLock<Box<RawValue>>,
}

impl Clone for Shared {
    /// Who wants one of his own is about to change it.
    fn clone(&self) -> Shared {
        Shared { peers: self.peers.clone(), text: OnceLock::new() }
    }
}

impl Peers {
    /// Shares these in place of its own, if they are the same.
    pub fn share(&mut self, other: &Peers) {
        if self == other {
            self.clone_from(other);
        }
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
        &mut own.peers
    }
}

impl PartialEq for Peers {
    fn eq(&self, other: &Peers) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.peers == other.0.peers
    }
}

impl Eq for Peers {}

impl Serialize for Peers {
    /// As JSON alone: a plan is written in no other form.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(text) = self.0.text.get() {
            return text.serialize(serializer);
        }
        let text = to_raw_value(&self.0.peers).map_err(S::Error::custom)?;
        self.0.text.get_or_init(|| text).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Peers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Peers, D::Error> {
        let peers = BTreeMap::deserialize(deserializer)?;
        Ok(Peers(Arc::new(Shared { peers, text: OnceLock::new() })))
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
