//! Who a lease is for, and who has it now.
//!
//! In: what ADD knows of a pod. Out: names that are equal exactly if the owner is the same. Pure.

use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::addr::Cidr;
use crate::egress::model::PodName;

/// Who a lease is for: the same owner gets the same address. Written `pod:UID`, `ordinal:NAMESPACE/STATEFULSET/N`,
/// `slot:NAMESPACE/GATEWAY/N` or `container:NODE/NETWORK/CONTAINERID/IFNAME`, in records, reports and on the command line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A pod, by UID: as long as that pod exists, whatever becomes of its sandbox.
    PodUid(String),
    /// The Nth pod of a StatefulSet, through all its restarts.
    Ordinal {
        /// Namespace of the StatefulSet.
        namespace: String,
        /// Its name.
        stateful_set: String,
        /// N.
        ordinal: u32,
    },
    /// The Nth replica of an EgressGateway, through all its restarts: kept for a kind that is not there yet. Read and shown; nothing makes it.
    Slot {
        /// Namespace of the EgressGateway.
        namespace: String,
        /// Its name.
        gateway: String,
        /// N.
        slot: u32,
    },
    /// A container, where nothing knows of pods. The node is part of it: some tools make container ids from paths.
    Container {
        /// Node it runs on.
        node: String,
        /// CNI network.
        network: String,
        /// CNI container id.
        container: String,
        /// Interface.
        ifname: String,
    },
    /// A kind that another release wrote. Kept as it is; its lease never ends by itself.
    Other(String),
}

impl Owner {
    /// The owner where nothing is known but the container.
    pub fn container(holder: &Holder) -> Owner {
        Owner::Container {
            node: holder.node.clone(),
            network: holder.network.clone(),
            container: holder.container.clone(),
            ifname: holder.ifname.clone(),
        }
    }

    /// Whether its address stays reserved when its container goes, until somebody releases it.
    pub fn outlives_its_container(&self) -> bool {
        !matches!(self, Owner::PodUid(_) | Owner::Container { .. })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::PodUid(uid) => write!(f, "pod:{uid}"),
            Owner::Ordinal { namespace, stateful_set, ordinal } => {
                write!(f, "ordinal:{namespace}/{stateful_set}/{ordinal}")
            }
            Owner::Slot { namespace, gateway, slot } => write!(f, "slot:{namespace}/{gateway}/{slot}"),
            Owner::Container { node, network, container, ifname } => {
                write!(f, "container:{node}/{network}/{container}/{ifname}")
            }
            Owner::Other(text) => f.write_str(text),
        }
    }
}

impl FromStr for Owner {
    type Err = Infallible;

    /// Never fails: what is not understood is [`Owner::Other`].
    fn from_str(text: &str) -> Result<Owner, Infallible> {
        Ok(parse(text).unwrap_or_else(|| Owner::Other(text.to_owned())))
    }
}

fn parse(text: &str) -> Option<Owner> {
    let (kind, rest) = text.split_once(':')?;
    let parts: Vec<&str> = rest.split('/').collect();
    let number = |n: &str| n.parse().ok().filter(|v: &u32| v.to_string() == n);
    match (kind, parts.as_slice()) {
        ("pod", [uid]) => Some(Owner::PodUid((*uid).to_owned())),
        ("ordinal", [namespace, set, n]) => Some(Owner::Ordinal {
            namespace: (*namespace).to_owned(),
            stateful_set: (*set).to_owned(),
            ordinal: number(n)?,
        }),
        ("slot", [namespace, gateway, n]) => Some(Owner::Slot {
            namespace: (*namespace).to_owned(),
            gateway: (*gateway).to_owned(),
            slot: number(n)?,
        }),
        ("container", [node, network, container, ifname]) => Some(Owner::Container {
            node: (*node).to_owned(),
            network: (*network).to_owned(),
            container: (*container).to_owned(),
            ifname: (*ifname).to_owned(),
        }),
        _ => None,
    }
}

impl Serialize for Owner {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Owner {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Ok(parse(&text).unwrap_or(Owner::Other(text)))
    }
}

/// The container that has a lease now: one attachment, on one node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Holder {
    /// CNI network.
    pub network: String,
    /// CNI container id.
    pub container: String,
    /// Interface.
    pub ifname: String,
    /// Node.
    pub node: String,
}

impl Holder {
    /// Its attachment, as endpoints name it: `NETWORK/CONTAINERID/IFNAME`.
    pub fn attachment(&self) -> String {
        format!("{}/{}/{}", self.network, self.container, self.ifname)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{} on node {}", self.network, self.container, self.ifname, self.node)
    }
}

/// Who moves in: owner, holder, and the pod's name for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Who the lease is for.
    pub owner: Owner,
    /// Who has it from now on.
    pub holder: Holder,
    /// The pod, where one is known.
    pub pod: Option<PodName>,
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pod {
            Some(pod) => write!(f, "pod {pod}"),
            None => write!(f, "{}", self.owner),
        }
    }
}

/// One address, given to one owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub ip: IpAddr,
    /// Its pool.
    pub pool: String,
    /// Its block.
    pub block: Cidr,
    /// Who has it.
    pub tenant: Tenant,
    /// Raised each time a holder takes it: the younger of two says so.
    pub sequence: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_reads_as_it_is_written_and_a_foreign_one_is_kept() {
        let written = [
            "pod:8a6e",
            "ordinal:shop/egress/0",
            "slot:shop/gw/12",
            "container:one/net/c1/eth0",
            "virtual-machine:shop/vm",
            "ordinal:shop/egress/007",
            "nonsense",
        ];
        for text in written {
            let owner: Owner = serde_json::from_value(text.into()).unwrap();
            assert_eq!(owner.to_string(), text);
            assert_eq!(
                matches!(owner, Owner::Other(_)),
                ["virtual-machine:shop/vm", "ordinal:shop/egress/007", "nonsense"].contains(&text)
            );
        }
        assert!(Owner::Other("x".to_owned()).outlives_its_container());
    }
}
