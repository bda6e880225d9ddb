//! Whether a pod's traffic passes this node's forwarding: without that nothing of a plan reaches it.
//!
//! In: a pod's namespace, its interface, its addresses. Out: why its packets pass by, if they do, or by which addresses. Never: believes a
//! program's name; where something *may* take packets away, one is sent.

use std::net::IpAddr;

use crate::egress::plan::NodePlan;
use crate::egress::transition::binds;
use crate::kernel::detour::{Detour, detours};
use crate::kernel::devices::{addresses_of, peer_of};
use crate::kernel::netns::Netns;
use crate::kernel::passage::{PassageError, passes};
use crate::node::attachment::Attachment;
use crate::node::embedded::{Embedded, NodeError};
use crate::node::facts::is_routable;
use crate::problem::Problem;

/// Reason of a running pod's problem.
pub const BYPASSED: &str = "TrafficBypassesNode";

/// What every such sentence ends with.
const NEXT_STEP: &str =
    "take the egress annotations off, or use a primary plugin (or its setting) that routes on the node";

/// A sentence if the packets of a pod's interface do not reach this node's IP layer, else nothing. `known`: the node's end of it, where that
/// was found before.
///
/// # Errors
/// It cannot be found out.
pub(crate) fn bypass(
    node: &Netns,
    pod: &Netns,
    (ifname, known): (&str, Option<&str>),
    addresses: &[IpAddr],
) -> Result<Option<String>, NodeError> {
    let device = match known {
        Some(device) => device.to_owned(),
        None => match peer_of(node, pod, ifname)? {
            Some(end) => end.name,
            None => return Ok(Some(without_other_end(ifname))),
        },
    };
    let found = detours(node, pod, &device, addresses)?;
    judge(&device, &found, || {
        for address in addresses {
            if !passes(node, pod, *address, &found)? {
                return Ok(Some(*address));
            }
        }
        Ok(None)
    })
    .map_err(|error| NodeError::Observe(error.to_string()))
}

/// The sentence for an interface that stands alone.
pub(crate) fn without_other_end(ifname: &str) -> String {
    format!(
        "interface {ifname} of this pod has no other end on the node, so its traffic does not pass the node's forwarding and cannot be \
         redirected (ipvlan, macvlan, SR-IOV?); {NEXT_STEP}"
    )
}

/// A redirection is certain; a program is asked by a packet: `lost` gives the first address whose packet does not arrive. Nothing there
/// that could take packets: nothing is sent.
fn judge(
    device: &str,
    found: &[Detour],
    lost: impl FnOnce() -> Result<Option<IpAddr>, PassageError>,
) -> Result<Option<String>, PassageError> {
    if found.is_empty() {
        return Ok(None);
    }
    let tried = match found.iter().any(Detour::is_certain) {
        true => String::new(),
        false => match lost()? {
            None => return Ok(None),
            Some(address) => format!(", and a packet from {address} to the outside did not arrive"),
        },
    };
    let causes: Vec<String> = found.iter().map(ToString::to_string).collect();
    Ok(Some(format!(
        "this pod's traffic does not pass the node's forwarding, so it cannot be redirected: at {device}, {}{tried}; {NEXT_STEP}",
        causes.join(" and ")
    )))
}

/// A sentence if a client's interface has addresses that the plan does not know: they came after it was bound, or it took them from others, and
/// what is sent from them is nobody's.
///
/// # Errors
/// The interface cannot be read.
pub(crate) fn unbound(pod: &Netns, ifname: &str, plan: &NodePlan) -> Result<Option<String>, NodeError> {
    let found = addresses_of(pod, ifname)?.into_iter().map(|(ip, _)| ip);
    let unknown: Vec<String> = found
        .filter(|ip| is_routable(ip) && !plan.clients.contains_key(ip))
        .map(|ip| ip.to_string())
        .collect();
    if unknown.is_empty() {
        return Ok(None);
    }
    Ok(Some(format!(
        "{ifname} of this pod has {} beside what it is bound by (added after the pod was, or somebody else's), so what it sends from there \
         leaves as if nothing selected it; take that off the interface, or delete the pod and let its primary plugin give all addresses before Egret is called",
        unknown.join(" and ")
    )))
}

impl Embedded {
    /// Client pods whose traffic passes this node by: somebody attached something or added an address after they were bound, or nothing selected
    /// them at their ADD.
    pub fn bypassed(&self) -> Result<Vec<Problem>, NodeError> {
        let Some(applied) = self.memory.applied() else { return Ok(Vec::new()) };
        let node = self.netns()?;
        let mut problems = Vec::new();
        for attachment in self.listing(None)?.attachments {
            let id = attachment.id().to_string();
            if binds(&applied.plan, &id) {
                problems.extend(bypassed(&node, &attachment, &applied.plan));
            }
        }
        Ok(problems)
    }
}

fn bypassed(node: &Netns, attachment: &Attachment, plan: &NodePlan) -> Option<Problem> {
    if attachment.netns_is_gone() {
        return None;
    }
    let pod = Netns::open(&attachment.netns).ok()?;
    let object = attachment.object();
    let device = (attachment.ifname.as_str(), attachment.host_interface.as_deref());
    let why = bypass(node, &pod, device, &attachment.addresses)
        .and_then(|why| why.map_or_else(|| unbound(&pod, &attachment.ifname, plan), |why| Ok(Some(why))));
    match why {
        Ok(None) => None,
        Ok(Some(why)) => Some(Problem::new(object, BYPASSED, why)),
        Err(error) => Some(Problem::new(object, "NotTried", error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(found: &[Detour], lost: Option<&str>) -> Option<String> {
        judge("cali1", found, || Ok(lost.map(|ip| ip.parse().unwrap()))).unwrap()
    }

    #[test]
    fn where_nothing_could_take_packets_none_is_sent() {
        assert_eq!(judge("cali1", &[], || panic!("sent")).unwrap(), None);
    }

    #[test]
    fn a_program_that_only_looks_does_no_harm() {
        let observe = Detour::Filter("observe".into());
        let bridge = Detour::Bridge("10.60.1.1".parse().ok());
        for found in [observe, Detour::Tcx, Detour::Xdp, Detour::Netkit, Detour::OpenVSwitch, bridge] {
            assert_eq!(judged(&[found], None), None);
        }
    }

    #[test]
    fn a_program_that_takes_a_packet_is_named_with_the_address() {
        let said = judged(&[Detour::Filter("cil_from_container".into())], Some("10.60.1.3")).unwrap();
        assert!(
            said.contains(
                "at cali1, the eBPF program cil_from_container at its tc ingress, and a packet from 10.60.1.3"
            ),
            "{said}"
        );
    }

    #[test]
    fn a_redirection_needs_no_packet_because_it_may_take_only_some() {
        let said = judge("cali1", &[Detour::Tcx, Detour::Redirect("eth0".into())], || panic!("sent"))
            .unwrap()
            .unwrap();
        assert!(said.contains("a tc filter redirects to eth0;"), "{said}");
    }
}
