//! Nothing leaves a pod any more: the node's end of its interface is taken down.
//!
//! In: a pod's namespace and the name of its interface, or the node's end of it. Out: whether there was another end here. Never: touches
//! anything in the pod, where whoever wired it still has to find its addresses; takes a name's word for it (names come again, so both
//! ends must name each other, or the index must be that of the pod's ADD).

use crate::kernel::devices::{End, peer_of};
use crate::kernel::netlink::link;
use crate::kernel::netns::Netns;
use crate::kernel::observe::{KernelError, open, reading};

/// Takes the node's end of a pod's interface down.
///
/// # Errors
/// A namespace cannot be entered or read, or the kernel refuses.
pub fn cut(node: &Netns, pod: &Netns, ifname: &str) -> Result<bool, KernelError> {
    match peer_of(node, pod, ifname)? {
        Some(end) => lower(node, &end),
        None => Ok(false),
    }
}

/// The same where nobody can enter the pod's namespace any more. Whether this end is still here: it goes with its pod.
///
/// # Errors
/// As [`cut`].
pub fn cut_at(node: &Netns, end: &End) -> Result<bool, KernelError> {
    let answer = match open(node)?.ask(link::by_index(end.index)) {
        Ok(answer) => answer,
        Err(refusal) if refusal.is_absence() => return Ok(false),
        Err(refusal) => return Err(reading("the other end of the pod's interface")(refusal)),
    };
    let mut found = answer.iter().filter_map(link::read);
    match found.any(|device| device.index == end.index && device.name == end.name) {
        true => lower(node, end),
        false => Ok(false),
    }
}

fn lower(node: &Netns, end: &End) -> Result<bool, KernelError> {
    match open(node)?.change(link::lower(&end.name), 0) {
        Ok(()) => Ok(true),
        Err(refusal) if refusal.is_absence() => Ok(false),
        Err(refusal) => Err(reading("the other end of the pod's interface")(refusal)),
    }
}
