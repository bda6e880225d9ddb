//! Nothing leaves a pod any more: the node's end of its interface is taken down.
//!
//! In: a pod's namespace and the name of its interface. Out: whether there was another end here. Never: touches anything in the pod, where
//! whoever wired it still has to find its addresses; takes a name's word for it (names come again, so both ends must name each other).

use crate::kernel::devices::peer_of;
use crate::kernel::netlink::link;
use crate::kernel::netns::Netns;
use crate::kernel::observe::{KernelError, open, reading};

/// Takes the node's end of a pod's interface down.
///
/// # Errors
/// A namespace cannot be entered or read, or the kernel refuses.
pub fn cut(node: &Netns, pod: &Netns, ifname: &str) -> Result<bool, KernelError> {
    let Some(peer) = peer_of(node, pod, ifname)? else { return Ok(false) };
    match open(node)?.change(link::lower(&peer), 0) {
        Ok(()) => Ok(true),
        Err(refusal) if refusal.is_absence() => Ok(false),
        Err(refusal) => Err(reading("the other end of the pod's interface")(refusal)),
    }
}
