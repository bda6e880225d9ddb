//! The multi-node world in network namespaces that tests, lab, demo and benchmark share.
//!
//! A [`Topology`] says what it looks like, [`World::raise`] makes it, pods are wired by the real `cnitool`, servers
//! outside answer with the address they saw, and a [`Capture`] counts every packet that got there. It lives in a
//! mount and a network namespace of the calling thread and vanishes with them, even after SIGKILL. A [`Cluster`] has
//! real API servers and kubelets, and no pods wired by us. A [`MemoryStore`] keeps blocks as the rules say, and nothing else.
//!
//! Nothing of the product knows this module.

mod capture;
mod cluster;
mod conflist;
mod conversation;
mod documents;
mod flow;
mod memory;
mod netns;
mod objects;
mod packet;
mod patience;
mod place;
mod pod;
mod private;
mod probe;
mod runtime;
mod service;
mod topology;
mod verdict;
mod wire;
mod world;

pub use capture::Capture;
pub use cluster::{Cluster, ROUTER, repository};
pub use documents::faults;
pub use flow::{Answer, Flow};
pub use memory::MemoryStore;
pub use objects::Words;
pub use packet::{Packet, Spot};
pub use patience::within;
pub use place::Place;
pub use pod::{CnitoolError, Pod};
pub use private::{CNI_DIR, NETNS_DIR, RUN_DIR, STATE_DIR};
pub use service::{HTTP_PORT, LINES_PORT, Service};
pub use topology::{
    FAR_MTU, Families, LEASE_NET, Masquerade, NETWORK, Outside, Primary, Topology, fabric, lease_network,
    node_address, node_lease_address, pod_network, pod_networks, router_address, second_address,
    second_network,
};
pub use verdict::{Clean, Leak};
pub use world::{World, pod_name, programs_dir};

/// What kept the testbed from doing its work: a sentence.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Trouble(String);

impl Trouble {
    /// From a sentence.
    pub fn new(sentence: impl Into<String>) -> Trouble {
        Trouble(sentence.into())
    }

    /// With the last system call's error behind it.
    fn last(what: &str) -> Trouble {
        Trouble(format!("{what}: {}", std::io::Error::last_os_error()))
    }
}

/// A test that unwraps shall show the sentence, not a struct around it.
impl std::fmt::Debug for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
